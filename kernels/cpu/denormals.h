// Strong decays produce many denormals, which are slow and add nothing.
#pragma once
#ifdef __SSE__
#include <xmmintrin.h>
#endif

// Within its scope denormals count as zero, unless it is switched off.
class WithoutDenormals {
 public:
#ifdef __SSE__
  explicit WithoutDenormals(bool on = true) : before(_mm_getcsr()) {
    if (on) _mm_setcsr(before | 0x8040);
  }
  ~WithoutDenormals() { _mm_setcsr(before); }

 private:
  unsigned before;
#else
  explicit WithoutDenormals(bool = true) {}
#endif
};
