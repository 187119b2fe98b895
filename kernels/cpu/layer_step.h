// What the steps of decoding of whole layers share: projections, FEM's gates, and how means of exponentials are kept.
#pragma once
#include <algorithm>
#include <cmath>

#include "elementary.h"

constexpr double CODE = 18446744073709551616.0;  // 2^64: coded e^u > e^-30 stay away from e^u - 1 > -1/2

// Projections z [B, C] times 1 + s P, with factors s [B, R] and P [R, C]; R = 0: as they are.
template <class S>
struct Projected {
  const S *z, *s, *p;
  long C, R;

  // `count` channels of sequence b
  void read(long b, long from, long count, S* __restrict out) const {
    const S* given = z + b * C + from;
    std::copy(given, given + count, out);
    for (long r = 0; r < R; ++r) {
      const S by = s[b * R + r], *__restrict column = p + r * C + from;
      for (long j = 0; j < count; ++j) out[j] += given[j] * (by * column[j]);
    }
  }

  // whether the exponents beta v of all sequences are at most `range`; NaN is not. The values begin at channel `from`.
  bool in_range(long B, long from, long count, const S* beta, S range, S* scratch) const {
    for (long b = 0; b < B; ++b) {
      read(b, from, count, scratch);
      long outside = 0;
      for (long j = 0; j < count; ++j) outside += !(std::abs(scratch[j] * beta[j]) <= range);
      if (outside) return false;
    }
    return true;
  }
};

// mu <- (1 - lambda) mu + lambda F of one head
template <class S>
void interpolate(S* mu, const S* F, const S* logits, long d) {
  for (long j = 0; j < d; ++j) mu[j] += logistic(logits[j]) * (F[j] - mu[j]);
}

// out = y RMS(softplus(gate)) of one head; `gate` is overwritten
template <class S>
void scale_by_softplus(const S* y, S* gate, long d, S eps, S* out) {
  S squares = 0;
  for (long j = 0; j < d; ++j) {
    gate[j] = softplus(gate[j], decay(gate[j]));
    squares += gate[j] * gate[j];
  }
  S scale = S(1) / std::sqrt(squares / S(d) + eps);
  for (long j = 0; j < d; ++j) out[j] = y[j] * gate[j] * scale;
}
