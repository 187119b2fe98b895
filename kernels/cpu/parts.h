// Rows in parts of a fixed size, each with its own partial sum: sums over rows don't depend on the number of threads.
#pragma once
#include <algorithm>

#include "parallel.h"
#include "sizes.h"

inline long parts_of(long rows) { return (rows + ROWS_PER_PART - 1) / ROWS_PER_PART; }

// work(part, first row, end of its rows) for every part
template <class F>
void by_parts(long rows, long threads, F work) {
  parallel(parts_of(rows), threads, [&](long part) { work(part, part * ROWS_PER_PART, std::min(rows, (part + 1) * ROWS_PER_PART)); });
}
