// The gates of FEM, y = RMS(softplus(b)) * ((1 - l) mu + l F), l = sigmoid(a), RMS over the d channels of a head: one pass over memory
// forward, one backward.
#include <algorithm>
#include <cmath>

#include "elementary.h"
#include "parts.h"

namespace {

template <class F>
void by_heads(long N, long threads, F work) {
  by_parts(N, threads, [&](long, long first, long end) {
    for (long head = first; head < end; ++head) work(head);
  });
}

template <class S>
S inverse_rms(const S* s, long d, double eps) {
  S sum = 0;
  for (long i = 0; i < d; ++i) sum += s[i] * s[i];
  return S(1) / std::sqrt(sum / S(d) + S(eps));
}

template <class S>
void gated_mix(const S* mu, const S* F, const S* a, const S* b, S* y, double eps, long N, long d, long threads) {
  by_heads(N, threads, [&](long head) {
    long at = head * d;
    for (long i = at; i < at + d; ++i) y[i] = softplus(b[i], decay(b[i]));
    S inverse = inverse_rms(y + at, d, eps);
    for (long i = at; i < at + d; ++i) y[i] *= inverse * (mu[i] + logistic(a[i]) * (F[i] - mu[i]));
  });
}

template <class S>
void gated_mix_backward(const S* mu, const S* F, const S* a, const S* b, const S* g, S* d_mu, S* d_F, S* da, S* db, double eps, long N,
                        long d, long threads) {
  by_heads(N, threads, [&](long head) {
    long at = head * d;
    S along = 0, *s = db + at;  // softplus(b), until the gradient overwrites it
    for (long i = 0; i < d; ++i) s[i] = softplus(b[at + i], decay(b[at + i]));
    S inverse = inverse_rms(s, d, eps);
    for (long i = at; i < at + d; ++i) {
      S l = logistic(a[i]), normed = db[i] * inverse, apart = F[i] - mu[i], to_mix = g[i] * normed;
      along += g[i] * (mu[i] + l * apart) * normed;
      d_F[i] = to_mix * l;
      d_mu[i] = to_mix - d_F[i];
      da[i] = d_F[i] * (S(1) - l) * apart;
    }
    along /= S(d);
    for (long i = at; i < at + d; ++i) {
      S to_normed = g[i] * (mu[i] + logistic(a[i]) * (F[i] - mu[i]));
      db[i] = (to_normed - along * db[i] * inverse) * inverse * logistic(b[i]);
    }
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
