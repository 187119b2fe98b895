// The root-mean-square norm of one row, and its derivative.
#pragma once
#include <cmath>

// y = x * scale * gain; returns scale = 1 / sqrt(mean(x^2) + eps)
template <class S>
S normed_row(const S* x, const S* gain, S* y, long D, S eps) {
  S sum = 0;
  for (long i = 0; i < D; ++i) sum += x[i] * x[i];
  S scale = S(1) / std::sqrt(sum / S(D) + eps);
  for (long i = 0; i < D; ++i) y[i] = x[i] * scale * gain[i];
  return scale;
}

// dx = scale (g gain - x scale^2 mean(g gain x)), to which a row is added unless it is null; d_gain += g x scale
template <class S>
void normed_row_backward(const S* x, const S* gain, S scale, const S* g, const S* added, S* dx, S* d_gain, long D) {
  S dot = 0;
  for (long i = 0; i < D; ++i) {
    S pull = g[i] * x[i];
    dot += pull * gain[i];
    d_gain[i] += pull * scale;
  }
  S along = dot / S(D) * scale * scale;
  for (long i = 0; i < D; ++i) dx[i] = scale * (g[i] * gain[i] - x[i] * along);
  if (added)
    for (long i = 0; i < D; ++i) dx[i] += added[i];
}
