// Lag mixing (formulas: kernels.hyper.lag_mixing): the layout of a block of rows in memory, and the operations on four of its rows at a time.
//
// Scores of a block are written by products over keys and read by lag, as in kernels.numerics.lag_layout: with pitch P, column c of every row is the
// same entry of the tables; from `shift` on and with pitch P - 1, column i is key i. Everything but scores of visible keys is zero.
#pragma once
#include <algorithm>

#include "buffer.h"
#include "elementary.h"
#include "low_rank.h"
#include "products.h"

namespace hyper {

constexpr long SETS = SCORE_SETS;
static_assert(TABLE_PADDING >= Lanes<float>::COUNT, "a row of a table is read in whole vectors, beyond its end");

// H heads and B sequences: S queries (the last positions) of T tokens, d and w channels; tables of rank r, rows of `table` numbers.
// mixed: bit s for the mixing of score set s, bit SETS for that after the activation; the present ones are stored one after another.
struct Sizes {
  long sets, H, B, S, T, d, w, r, table, length, rows, causal, by_lag, mixed, parts;

  bool there(long mixing) const { return mixed >> mixing & 1; }
  long at(long mixing) const { return (mixed & 1) * (mixing > 0) + (mixed >> 1 & 1) * (mixing > 1); }
  long mixings() const { return at(SETS) + there(SETS); }
  long table_rows() const { return 2 * r + 1; }  // of first, of second, 1 + p
  long origin() const { return T - S; }
  // The largest pitch of a block: numbers per row.
  template <class V>
  long widest() const {
    return (T + (by_lag ? rows : 0)) / Lanes<V>::COUNT * Lanes<V>::COUNT + Lanes<V>::COUNT;
  }
  long padded_rows() const { return (rows + QUAD - 1) / QUAD * QUAD; }  // of a buffer
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
  // Zeroes the entries of four rows, from `row` on, that are not visible.
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
    for (long i = 0; i < std::min<long>(QUAD, rows - row); ++i) {
      V* y = four + i * pitch + first(row + i);
      for (long j = 0; j < seen(row + i); ++j) y[j] = counts[j] == V(0) ? V(0) : y[j];
    }
  }
};

// A mixing of one block: its tables from the first column of the block on, `pitch` numbers per row; its controls from the first row on.
template <class S>
struct Mixing {
  const S *first, *second, *scale, *control;
  long pitch;
  int r;
};

template <class S>
void controlled(const Mixing<S>& by, long row, long rows, const Narrow<S> low, Narrow<S> out) {
  for (long i = 0; i < QUAD; ++i) {
    for (long k = 0; k < by.r; ++k) out[i][k] = row + i < rows ? low[i][k] * by.control[(row + i) * by.r + k] : S(0);
  }
}

// For four rows: out = y (1 + p) + ((y first) control) second, and low = y first. out may be y.
template <class S>
void mix(const Mixing<S>& by, const Block& block, long row, const S* y, S* out, Narrow<S> low) {
  Narrow<S> down;
  narrow<S>(y, block.pitch, by.first, by.pitch, by.r, low);
  controlled<S>(by, row, block.rows, low, down);
  widen<S>(y, by.scale, block.pitch, by.second, by.pitch, by.r, down, out);
}

// The inputs of one head and sequence, for forward and backward.
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
    return {first, first + z.r * z.table, first + 2 * z.r * z.table, control + ((j * z.H * z.B + here()) * z.S + row) * z.r, z.table, int(z.r)};
  }
  // The scores of a set by key; nothing is hidden yet.
  void score(long set, const Block& block, S* into) const {
    multiply<S>(block.rows, block.keys, z.d, S(1), {queries(set) + (block.start - z.origin()) * z.d, z.d}, {keys(set), z.d, true}, S(0),
                block.by_key(into));
  }
  // The mixed scores of a set in `out`, which may be `plain`; `plain` is hidden first. Without a mixing it is hidden and copied.
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
