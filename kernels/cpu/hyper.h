// Lag mixing (kernels.hyper has the formulas): how a block of rows lies in memory, and what is done to four of its rows at a time.
//
// A block's scores are written by products over keys and read by lag, as kernels.lag_layout has it: with pitch P column c of every row is the
// same entry of the tables; from `shift` on and with pitch P - shifted column i is key i. What is no score of a visible key is kept zero.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "products.h"

namespace hyper {

#if defined(__AVX512F__)
constexpr long BYTES = 64;
#elif defined(__AVX__)
constexpr long BYTES = 32;
#else
constexpr long BYTES = 16;
#endif
constexpr long QUAD = 4;       // rows that go together, so that what is loaded of a table serves all of them
constexpr long MAX_RANK = 16;  // as in kernels.cpu.hyper
constexpr long SETS = 2;

template <class S>
struct Lanes {
  typedef S Vector __attribute__((vector_size(BYTES)));
  static constexpr long COUNT = BYTES / long(sizeof(S));
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

// Of H heads and B sequences: S queries (the last positions) of T, d and w wide; tables of rank r, a row `table` long. mixed: bit s for a
// mixing of score set s, bit 2 for that behind the activation; they are stored one behind the other, those that there are.
struct Sizes {
  long sets, H, B, S, T, d, w, r, table, length, rows, causal, by_lag, mixed, parts;

  bool there(long mixing) const { return mixed >> mixing & 1; }
  long at(long mixing) const { return (mixed & 1) * (mixing > 0) + (mixed >> 1 & 1) * (mixing > 1); }
  long mixings() const { return at(SETS) + there(SETS); }
  long table_rows() const { return 2 * r + 1; }  // of first, of second, 1 + p
  long origin() const { return T - S; }
  // The widest that a block gets, in numbers a row.
  template <class V>
  long widest() const {
    return (T + (by_lag ? rows : 0)) / Lanes<V>::COUNT * Lanes<V>::COUNT + Lanes<V>::COUNT;
  }
  long room() const { return (rows + QUAD - 1) / QUAD * QUAD; }  // rows of a buffer
};

// Rows start ... start + rows - 1 of a sequence.
struct Block {
  long start, rows, keys, pitch, table, shift;
  bool causal, by_lag;

  template <class V>
  static Block of(const Sizes& z, long start, V) {
    long rows = std::min(z.rows, z.T - start), keys = z.causal ? start + rows : z.T, lanes = Lanes<V>::COUNT;
    long columns = keys + (z.by_lag && !z.causal ? rows - 1 : 0);
    long pitch = (columns + z.by_lag + lanes - 1) / lanes * lanes;
    return {start, rows, keys, pitch, z.by_lag ? z.length - start - rows : 0, z.by_lag ? rows - 1 : 0, bool(z.causal), bool(z.by_lag)};
  }
  long first(long row) const { return by_lag ? rows - 1 - row : 0; }  // column of key 0
  long seen(long row) const { return causal ? start + row + 1 : keys; }

  template <class V>
  Matrix<V> by_key(V* buffer) const {
    return {buffer + shift, pitch - by_lag};
  }
  // Of four rows from `row` on, what isn't visible.
  template <class V>
  void hide(V* four, long row) const {
    for (long i = 0; i < QUAD; ++i) {
      V* y = four + i * pitch;
      long from = row + i < rows ? first(row + i) : 0, to = row + i < rows ? from + seen(row + i) : 0;
      std::fill(y, y + from, V(0));
      std::fill(y + to, y + pitch, V(0));
    }
  }
  template <class V>
  void mask(V* four, long row, const V* counts) const {
    for (long i = 0; i < std::min(QUAD, rows - row); ++i) {
      V* y = four + i * pitch + first(row + i);
      for (long j = 0; j < seen(row + i); ++j) y[j] = counts[j] == V(0) ? V(0) : y[j];
    }
  }
};

// A mixing of one block: its tables from the block's first column on, `pitch` from row to row; its controls from the block's first row on.
template <class S>
struct Mixing {
  const S *first, *second, *scale, *control;
  long pitch, r;
};

template <class S>
using Narrow = S[QUAD][MAX_RANK];

// Calls work(integral constant K, from) for ranks from ... from + K - 1 until all have had their turn.
template <class F>
void in_turns(long r, F work) {
  long from = 0;
  for (; from + 4 <= r; from += 4) work(std::integral_constant<int, 4>(), from);
  if (r - from >= 2) work(std::integral_constant<int, 2>(), from), from += 2;
  if (r - from >= 1) work(std::integral_constant<int, 1>(), from);
}

// low[i][k] = y_i . table_k
template <class S>
void narrow(const S* y, long pitch, const S* table, long table_pitch, long r, Narrow<S> low) {
  using L = Lanes<S>;
  in_turns(r, [&](auto K, long from) {
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
void widen(const S* y, const S* scale, long pitch, const S* table, long table_pitch, long r, const Narrow<S> by, S* out) {
  using L = Lanes<S>;
  in_turns(r, [&](auto K, long from) {
    const S* t = table + from * table_pitch;
    for (long c = 0; c < pitch; c += L::COUNT) {
      auto factor = L::load(scale + c);
      for (int i = 0; i < QUAD; ++i) {
        auto x = from ? L::load(out + i * pitch + c) : L::load(y + i * pitch + c) * factor;
        for (int k = 0; k < K; ++k) x += by[i][from + k] * L::load(t + k * table_pitch + c);
        L::store(out + i * pitch + c, x);
      }
    }
  });
}

template <class S>
void controlled(const Mixing<S>& by, long row, long rows, const Narrow<S> low, Narrow<S> out) {
  for (long i = 0; i < QUAD; ++i) {
    for (long k = 0; k < by.r; ++k) out[i][k] = row + i < rows ? low[i][k] * by.control[(row + i) * by.r + k] : S(0);
  }
}

// out = y (1 + p) + ((y first) control) second of four rows, and y first in `low`. out may be y.
template <class S>
void mix(const Mixing<S>& by, const Block& block, long row, const S* y, S* out, Narrow<S> low) {
  Narrow<S> down;
  narrow<S>(y, block.pitch, by.first, by.pitch, by.r, low);
  controlled<S>(by, row, block.rows, low, down);
  widen<S>(y, by.scale, block.pitch, by.second, by.pitch, by.r, down, out);
}

// e^-|x|: what softplus and the logistic function are made of. Exponents stop where denormals would begin to cost.
template <class S>
S decay(S x) {
  return std::exp(std::max(-std::abs(x), S(-80)));
}

template <class S>
S softplus(S x, S decayed) {
  return std::max(x, S(0)) + std::log1p(decayed);
}

// Everything of one head and sequence that both directions read.
template <class S>
struct Piece {
  const Sizes& z;
  const S *q, *k, *v, *tables, *control, *mask;
  long h, b;

  long here() const { return h * z.B + b; }
  const S* queries(long set) const { return q + (set * z.H * z.B + here()) * z.S * z.d; }
  const S* keys(long set) const { return k + (set * z.H * z.B + here()) * z.T * z.d; }
  const S* values() const { return v + here() * z.T * z.w; }
  const S* counts() const { return mask ? mask + b * z.T : nullptr; }

  Mixing<S> mixing(long which, const Block& block) const {
    long j = z.at(which), row = block.start - z.origin();
    const S* first = tables + (j * z.H + h) * z.table_rows() * z.table + block.table;
    return {first, first + z.r * z.table, first + 2 * z.r * z.table, control + ((j * z.H * z.B + here()) * z.S + row) * z.r, z.table, z.r};
  }
  // The scores of a set by key, nothing hidden yet.
  void score(long set, const Block& block, S* into) const {
    multiply<S>(block.rows, block.keys, z.d, S(1), {queries(set) + (block.start - z.origin()) * z.d, z.d}, {keys(set), z.d, true}, S(0),
                block.by_key(into));
  }
  // The mixed scores of a set: `plain` hidden and then mixed to `out`, which may be the same. Without a mixing only hidden, and copied.
  void mix_scores(long set, const Block& block, long row, S* plain, S* out, Narrow<S> low) const {
    block.hide(plain, row);
    if (!z.there(set)) {
      if (out != plain) std::copy(plain, plain + QUAD * block.pitch, out);
      return;
    }
    mix<S>(mixing(set, block), block, row, plain, out, low);
    block.hide(out, row);
    if (mask) block.mask(out, row, counts());
  }
};

}  // namespace hyper
