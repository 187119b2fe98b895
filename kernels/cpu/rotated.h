// Queries and keys of one head that are rotated as they are read, and their gradients that are rotated back.
#pragma once
#include <algorithm>

#include "products.h"
#include "rotation.h"

// Queries or keys of one head: where they are, or rotated by their positions.
template <class S>
struct Rotated {
  Scratch<S> memory;
  Matrix<const S> rows;

  Rotated(const S* x, long pitch, long n, long w, const Rotations<S>& turns) : memory(turns ? n * w : 0), rows{x, pitch} {
    if (!turns) return;
    for (long row = 0; row < n; ++row) turns.turn(row, x + row * pitch, memory.data() + row * w);
    rows = {memory.data(), w};
  }
  Matrix<const S> from(long row) const { return {rows.data + row * rows.pitch, rows.pitch}; }
};

// The gradients of the same, which sum up where they belong, or are rotated back there at the end.
template <class S>
struct RotatedGradient {
  Scratch<S> memory;
  Matrix<S> rows, given;
  long n, w;

  RotatedGradient(S* to, long pitch, long n, long w, bool rotated) : memory(rotated ? n * w : 0), given{to, pitch}, n(n), w(w) {
    rows = rotated ? Matrix<S>{memory.data(), w} : given;
    for (long row = 0; row < n; ++row) std::fill(at(row), at(row) + w, S(0));
  }
  S* at(long row) const { return rows.data + row * rows.pitch; }
  Matrix<S> from(long row) const { return {at(row), rows.pitch}; }
  void finish(const Rotations<S>& back) const {
    for (long row = 0; back && row < n; ++row) back.turn(row, at(row), given.data + row * given.pitch);
  }
};
