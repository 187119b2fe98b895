// What SwiGLU computes between its products.
#pragma once
#include "elementary.h"

// a = silu(gate) * up of m rows [gate, up]
template <class S>
void gated(const S* z, S* a, long m, long F) {
  for (long row = 0; row < m; ++row) {
    const S *gate = z + row * 2 * F, *up = gate + F;
    for (long i = 0; i < F; ++i) a[row * F + i] = gate[i] * logistic(gate[i]) * up[i];
  }
}

// a from z, and dz from the gradient of a
template <class S>
void gated_backward(const S* z, const S* da, S* a, S* dz, long m, long F) {
  for (long row = 0; row < m; ++row) {
    const S *gate = z + row * 2 * F, *up = gate + F, *g = da + row * F;
    S *to_gate = dz + row * 2 * F, *to_up = to_gate + F, *out = a + row * F;
    for (long i = 0; i < F; ++i) {
      S s = logistic(gate[i]), silu = gate[i] * s;
      out[i] = silu * up[i];
      to_gate[i] = g[i] * up[i] * s * (S(1) + gate[i] * (S(1) - s));
      to_up[i] = g[i] * silu;
    }
  }
}
