// The gates of FEM, y = RMS(softplus(b)) * ((1 - l) mu + l F), l = sigmoid(a), RMS over the d channels of a head: one pass over memory
// forward, one backward.
#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "parts.h"
#include "vectors.h"

namespace {

// log(1 + e^x) unless null, and 1 / (1 + e^-x), of n numbers: of many heads at a time, since few channels do not fill a vector.
template <class S>
void soft(const S* x, S* plus, S* step, long n) {
  for (long i = 0; i < n; i += LANES<S>) {
    const Soft<S> y(load(x + i, n - i));
    if (plus) store(plus + i, y.plus, n - i);
    store(step + i, y.step, n - i);
  }
}

template <class S>
S inverse_rms(const S* s, long d, double eps) {
  S sum = 0;
  for (long i = 0; i < d; ++i) sum += s[i] * s[i];
  return S(1) / std::sqrt(sum / S(d) + S(eps));
}

template <class S>
void gated_mix(const S* mu, const S* F, const S* a, const S* b, S* y, double eps, long N, long d, long threads) {
  by_parts(N, threads, [&](long, long first, long end) {
    const long n = (end - first) * d;
    Scratch<S> memory(2 * n);
    S *plus = memory.data(), *step = plus + n;
    soft(b + first * d, plus, step, n);
    soft<S>(a + first * d, nullptr, step, n);
    for (long head = first; head < end; ++head, plus += d, step += d) {
      const S inverse = inverse_rms(plus, d, eps), *mean = mu + head * d, *high = F + head * d;
      S* out = y + head * d;
      for (long i = 0; i < d; ++i) out[i] = plus[i] * inverse * (mean[i] + step[i] * (high[i] - mean[i]));
    }
  });
}

// One head; `plus` and `step` of b, l of a.
template <class S>
void head_backward(const S* mu, const S* F, const S* g, const S* __restrict plus, const S* __restrict step, const S* __restrict l,
                   S* __restrict d_mu, S* __restrict d_F, S* __restrict da, S* __restrict db, S inverse, long d) {
  S along = 0;
  for (long i = 0; i < d; ++i) {
    S normed = plus[i] * inverse, apart = F[i] - mu[i], to_mix = g[i] * normed, to_F = to_mix * l[i];
    db[i] = g[i] * (mu[i] + l[i] * apart);  // the gradient of the norm, until the next loop
    along += db[i] * normed;
    d_F[i] = to_F;
    d_mu[i] = to_mix - to_F;
    da[i] = to_F * (S(1) - l[i]) * apart;
  }
  along *= inverse / S(d);
  for (long i = 0; i < d; ++i) db[i] = (db[i] - along * plus[i]) * inverse * step[i];
}

template <class S>
void gated_mix_backward(const S* mu, const S* F, const S* a, const S* b, const S* g, S* d_mu, S* d_F, S* da, S* db, double eps, long N,
                        long d, long threads) {
  by_parts(N, threads, [&](long, long first, long end) {
    const long n = (end - first) * d;
    Scratch<S> memory(3 * n);
    S *plus = memory.data(), *step = plus + n, *l = step + n;
    soft(b + first * d, plus, step, n);
    soft<S>(a + first * d, nullptr, l, n);
    for (long at = first * d; at < end * d; at += d, plus += d, step += d, l += d)
      head_backward(mu + at, F + at, g + at, plus, step, l, d_mu + at, d_F + at, da + at, db + at, inverse_rms(plus, d, eps), d);
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                  \
  extern "C" void gated_mix_##NAME(const S* mu, const S* F, const S* a, const S* b, S* y, double eps, long N, long d,              \
                                   long threads) {                                                                                       \
    gated_mix<S>(mu, F, a, b, y, eps, N, d, threads);                                                                                 \
  }                                                                                                                                      \
  extern "C" void gated_mix_backward_##NAME(const S* mu, const S* F, const S* a, const S* b, const S* g, S* d_mu, S* d_F, S* da, S* db,  \
                                            double eps, long N, long d, long threads) {                                                  \
    gated_mix_backward<S>(mu, F, a, b, g, d_mu, d_F, da, db, eps, N, d, threads);                                                        \
  }

EXPORT(float, float)
EXPORT(double, double)
