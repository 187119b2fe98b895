// Rows in parts of a fixed size, each with its own partial sum: sums over rows don't depend on the number of threads.
#pragma once
#include <algorithm>

#include "buffer.h"
#include "parallel.h"
#include "sizes.h"

constexpr long WEIGHT_PARTS = 4;  // of the rows, for the gradients of weights

inline long parts_of(long rows) { return (rows + ROWS_PER_PART - 1) / ROWS_PER_PART; }

// work(part, first row, end of its rows) for every part
template <class F>
void by_parts(long rows, long threads, F work) {
  parallel(parts_of(rows), threads, [&](long part) { work(part, part * ROWS_PER_PART, std::min(rows, (part + 1) * ROWS_PER_PART)); });
}

// A sum of `size` numbers over the parts of rows: the first part's is where the result will be.
template <class S>
class PartSums {
 public:
  PartSums(S* result, long size, long parts) : result(result), size(size), parts(parts), others((parts - 1) * size) {}

  S* operator[](long part) const { return part ? others.data() + (part - 1) * size : result; }

  // Once all parts are there: their sum, in their order.
  void add(long threads) const {
    parallel((size + BLOCK - 1) / BLOCK, parts * size < WORTH_A_THREAD ? 1 : threads, [&](long block) {
      long first = block * BLOCK, n = std::min(BLOCK, size - first);
      for (long part = 1; part < parts; ++part) {
        S* __restrict total = result + first;
        const S* __restrict next = others.data() + (part - 1) * size + first;
        for (long i = 0; i < n; ++i) total[i] += next[i];
      }
    });
  }

 private:
  static constexpr long BLOCK = 4096, WORTH_A_THREAD = 1 << 18;
  S* result;
  long size, parts;
  Scratch<S> others;
};

// Those of the gradient of a weight.
template <class S>
struct WeightSums : PartSums<S> {
  WeightSums(S* result, long size) : PartSums<S>(result, size, WEIGHT_PARTS) {}
};
