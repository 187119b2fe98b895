// What SwiGLU computes between its products.
#pragma once
#include <algorithm>

#include "elementary.h"
#include "vectors.h"

// None of the results overlaps another array; without that promise a compiler calls the exponential one by one.
template <class S>
void gate(const S* __restrict gate, const S* __restrict up, S* __restrict a, long n) {
  for (long i = 0; i < n; ++i) a[i] = gate[i] * logistic(gate[i]) * up[i];
}

template <class S>
void gate_backward(const S* __restrict gate, const S* __restrict up, const S* __restrict g, S* __restrict a, S* __restrict to_gate,
                   S* __restrict to_up, long n) {
  for (long i = 0; i < n; ++i) {
    S s = logistic(gate[i]), silu = gate[i] * s;
    a[i] = silu * up[i];
    to_gate[i] = g[i] * up[i] * s * (S(1) + gate[i] * (S(1) - s));
    to_up[i] = g[i] * silu;
  }
}

// n numbers in memory of LANES: at the end of a row, since a loop's remainder calls the exponential one by one.
template <class S>
struct Padded {
  S numbers[LANES<S>] = {};

  Padded() = default;
  Padded(const S* x, long n) { std::copy(x, x + n, numbers); }
  void to(S* x, long n) const { std::copy(numbers, numbers + n, x); }
};

// a = silu(gate) * up of m rows [gate, up]
template <class S>
void gated(const S* z, S* a, long m, long F) {
  long whole = F / LANES<S> * LANES<S>, rest = F - whole;
  for (long row = 0; row < m; ++row) {
    const S *first = z + row * 2 * F, *second = first + F;
    S* out = a + row * F;
    gate(first, second, out, whole);
    if (!rest) continue;
    Padded<S> left(first + whole, rest), right(second + whole, rest), end;
    gate(left.numbers, right.numbers, end.numbers, LANES<S>);
    end.to(out + whole, rest);
  }
}

// a from z, and dz from the gradient of a
template <class S>
void gated_backward(const S* z, const S* da, S* a, S* dz, long m, long F) {
  long whole = F / LANES<S> * LANES<S>, rest = F - whole;
  for (long row = 0; row < m; ++row) {
    const S *first = z + row * 2 * F, *second = first + F, *g = da + row * F;
    S *out = a + row * F, *to_first = dz + row * 2 * F, *to_second = to_first + F;
    gate_backward(first, second, g, out, to_first, to_second, whole);
    if (!rest) continue;
    Padded<S> left(first + whole, rest), right(second + whole, rest), pull(g + whole, rest), end, to_left, to_right;
    gate_backward(left.numbers, right.numbers, pull.numbers, end.numbers, to_left.numbers, to_right.numbers, LANES<S>);
    end.to(out + whole, rest);
    to_left.to(to_first + whole, rest);
    to_right.to(to_second + whole, rest);
  }
}
