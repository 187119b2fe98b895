// Short depthwise convolution along the sequence: y_t = w_0 x_t + sum_{0<j<J} w_j x_{t-j}, and x_{t+j} too if `both`; plus x_t if `residual`.
#include "parts.h"

namespace {

// to += w x, of one row
template <class S>
void add(S* __restrict to, const S* __restrict w, const S* __restrict x, long D) {
  for (long c = 0; c < D; ++c) to[c] += w[c] * x[c];
}

template <class S>
void first_tap(S* __restrict to, const S* __restrict w, const S* __restrict x, long D, bool residual) {
  for (long c = 0; c < D; ++c) to[c] = residual ? x[c] + w[c] * x[c] : w[c] * x[c];
}

// Calls use(j, distance in rows) for the taps j > 0 that meet a token of the sequence, from a row t of T: tokens before, after, or both.
template <class F>
void taps_of(long t, long T, long J, bool before, bool after, F use) {
  for (long j = 1; j < J; ++j) {
    if (before && t >= j) use(j, -j);
    if (after && t + j < T) use(j, j);
  }
}

template <class S>
void short_conv(const S* x, const S* taps, S* y, long B, long T, long D, long J, long both, long residual, long threads) {
  by_parts(B * T, threads, [&](long, long first, long end) {
    for (long row = first; row < end; ++row) {
      S* out = y + row * D;
      first_tap(out, taps, x + row * D, D, residual);
      taps_of(row % T, T, J, true, both, [&](long j, long away) { add(out, taps + j * D, x + (row + away) * D, D); });
    }
  });
}

// d_taps [J, D]
template <class S>
void short_conv_backward(const S* x, const S* taps, const S* g, S* dx, S* d_taps, long B, long T, long D, long J, long both, long residual,
                         long threads) {
  const PartSums<S> all(d_taps, J * D, parts_of(B * T));
  by_parts(B * T, threads, [&](long part, long first, long end) {
    S* sums = all[part];
    std::fill(sums, sums + J * D, S(0));
    for (long row = first; row < end; ++row) {
      const S* from = g + row * D;
      first_tap(dx + row * D, taps, from, D, residual);
      taps_of(row % T, T, J, both, true, [&](long j, long away) { add(dx + row * D, taps + j * D, g + (row + away) * D, D); });
      add(sums, from, x + row * D, D);
      taps_of(row % T, T, J, true, both, [&](long j, long away) { add(sums + j * D, from, x + (row + away) * D, D); });
    }
  });
  all.add(threads);
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                    \
  extern "C" void short_conv_##NAME(const S* x, const S* taps, S* y, long B, long T, long D, long J, long both, long residual,             \
                                    long threads) {                                                                                        \
    short_conv<S>(x, taps, y, B, T, D, J, both, residual, threads);                                                                        \
  }                                                                                                                                        \
  extern "C" void short_conv_backward_##NAME(const S* x, const S* taps, const S* g, S* dx, S* d_taps, long B, long T, long D, long J,      \
                                             long both, long residual, long threads) {                                                     \
    short_conv_backward<S>(x, taps, g, dx, d_taps, B, T, D, J, both, residual, threads);                                                   \
  }

EXPORT(float, float)
EXPORT(double, double)
