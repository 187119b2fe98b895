// Products of four rows with tables of a few long rows: the work of lag mixing between its matrix products.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "registers.h"
#include "sizes.h"

namespace hyper {

constexpr int QUAD = 4;  // rows processed together, so that each load of a table serves all of them

template <class S>
struct Lanes {
  typedef S Vector __attribute__((vector_size(REGISTER_BYTES)));
  static constexpr long COUNT = REGISTER_BYTES / long(sizeof(S));
  static Vector load(const S* from) {
    Vector x;
    std::memcpy(&x, from, sizeof x);
    return x;
  }
  static void store(S* to, Vector x) { std::memcpy(to, &x, sizeof x); }
  static S sum(Vector x) {
    S total = 0;
    for (long i = 0; i < COUNT; ++i) total += x[i];
    return total;
  }
};

// r numbers for each of four rows.
template <class S>
using Narrow = S[QUAD][MAX_RANK];

// work(K, from) for ranks from ... from + K - 1, until all are done; K is a constant, at most 4.
template <class F>
void in_turns(int r, F work) {
  int from = 0;
  for (; from + 4 <= r; from += 4) work(std::integral_constant<int, 4>(), from);
  if (r - from >= 2) work(std::integral_constant<int, 2>(), from), from += 2;
  if (r - from >= 1) work(std::integral_constant<int, 1>(), from);
}

// work(r), with r a constant if it is a frequent rank.
template <class F>
void of_rank(int r, F work) {
  if (r == 1) return work(std::integral_constant<int, 1>());
  if (r == 2) return work(std::integral_constant<int, 2>());
  if (r == 4) return work(std::integral_constant<int, 4>());
  work(r);
}

// low[i][k] = y_i . table_k
template <class S>
void narrow(const S* y, long pitch, const S* table, long table_pitch, int r, Narrow<S> low) {
  using L = Lanes<S>;
  in_turns(r, [&](auto K, int from) {
    typename L::Vector sums[QUAD][K] = {};
    const S* t = table + from * table_pitch;
    for (long c = 0; c < pitch; c += L::COUNT) {
      for (int i = 0; i < QUAD; ++i) {
        auto x = L::load(y + i * pitch + c);
        for (int k = 0; k < K; ++k) sums[i][k] += x * L::load(t + k * table_pitch + c);
      }
    }
    for (int i = 0; i < QUAD; ++i) {
      for (int k = 0; k < K; ++k) low[i][from + k] = L::sum(sums[i][k]);
    }
  });
}

// out_i = y_i scale + sum_k by[i][k] table_k. out may be y.
template <class S>
void widen(const S* y, const S* scale, long pitch, const S* table, long table_pitch, int rank, const Narrow<S> by, S* out) {
  using L = Lanes<S>;
  of_rank(rank, [&](auto r) {
    typename L::Vector factor[MAX_RANK][QUAD];  // a copy that stores to `out` cannot change
    for (int k = 0; k < r; ++k) {
      for (int i = 0; i < QUAD; ++i) factor[k][i] = by[i][k] - typename L::Vector{};
    }
    for (long c = 0; c < pitch; c += L::COUNT) {
      typename L::Vector x[QUAD];
      auto scaled = L::load(scale + c);
      for (int i = 0; i < QUAD; ++i) x[i] = L::load(y + i * pitch + c) * scaled;
      for (int k = 0; k < r; ++k) {
        auto t = L::load(table + k * table_pitch + c);
        for (int i = 0; i < QUAD; ++i) x[i] += factor[k][i] * t;
      }
      for (int i = 0; i < QUAD; ++i) L::store(out + i * pitch + c, x[i]);
    }
  });
}

}  // namespace hyper
