// Reports the sizes that this library was compiled with, for the check of kernels/cpu/library.py.
#include "sizes.h"

#include <cstring>

// The value of a macro of sizes.h; -1 for any other name.
extern "C" long size_of(const char* macro) {
#define REPORT(name) \
  if (!std::strcmp(macro, "SUITE_" #name)) return name;
  REPORT(ROWS_PER_PART)
  REPORT(LINEAR_CHUNK)
  REPORT(SCAN_CHUNK)
  REPORT(SCAN_CHANNELS)
  REPORT(SCORE_SETS)
  REPORT(MAX_RANK)
  REPORT(TABLE_PADDING)
#undef REPORT
  return -1;
}
