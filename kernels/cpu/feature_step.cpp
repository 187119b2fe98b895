// One token of a linear prior, in place, from the layer's projections to what its output projection reads (kernels/decoding/layer.py):
// features, decays, the means of the state, the read and, under FEM, the free energy and both gates.
//
// The state of a key channel c: n the log of its summed weights, m the means of v, x the means of e^u, u = beta v, coded so that neither
// small nor large ones lose digits: e^u - 1, or -CODE e^u where e^u < 1/2. Means of both are sums of products, without logarithms.
#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "elementary.h"
#include "layer_step.h"
#include "log_weights.h"
#include "parallel.h"

namespace {

template <class S>
struct Layer {
  Projected<S> z;
  const S *decay, *bias, *beta;  // decays [B, H decays], or [H] if `pitch` is 0
  S *n, *m, *x, *y;
  long H, k, d, decays, pitch;
  S slowness, eps;

  void read(long b, long from, long count, S* out) const { z.read(b, from, count, out); }

  // as read, then log(elu + 1)
  void features(long b, long from, S* out) const {
    read(b, from, k, out);
    for (long c = 0; c < k; ++c) {
      S positive = std::log(S(1) + (out[c] > S(0) ? out[c] : S(0)));
      out[c] = out[c] < S(0) ? out[c] : out[c] != out[c] ? out[c] : positive;
    }
  }

  long values() const { return 2 * H * k; }

  S log_decay(long b, long h, long c) const {
    if (!decays) return S(0);
    long at = h * decays + (decays > 1 ? c : 0);
    S l = decay[b * pitch + at];
    if (slowness <= S(0)) return l;
    l = -(l + bias[at]);
    return -softplus(l, ::decay(l)) / slowness;
  }

  // log weights of the state and the token, and how much each key channel is read
  void weigh(long b, long h, S* keep, S* add, S* logs, S* weights) const {
    S *before = n + (b * H + h) * k, *q = logs, *key = add;
    features(b, h * k, q);
    features(b, (H + h) * k, key);
    for (long c = 0; c < k; ++c) keep[c] = log_decay(b, h, c);
    for (long c = 0; c < k; ++c) {
      S old = before[c] + keep[c], both = log_of_both(old, key[c]);
      keep[c] = exponential(old - both);
      add[c] = exponential(key[c] - both);
      before[c] = both;
      logs[c] = q[c] + both;
    }
    normalise(logs, weights, k);
  }

  // scratch: 4 k + 7 d numbers
  void head(long b, long h, S* keep) const {
    S *add = keep + k, *logs = add + k, *w = logs + k, *v = w + k, *mu = v + d;
    weigh(b, h, keep, add, logs, w);
    read(b, values() + h * d, d, v);
    std::fill(mu, mu + d, S(0));
    S* rows = m + (b * H + h) * k * d;
    for (long c = 0; c < k; ++c) {
      S *__restrict row = rows + c * d, *__restrict sum = mu;
      const S* __restrict value = v;
      const S kept = keep[c], added = add[c], by = w[c];
      for (long j = 0; j < d; ++j) {
        S after = kept * row[j] + added * value[j];
        row[j] = after;
        sum[j] += by * after;
      }
    }
    S* out = y + (b * H + h) * d;
    if (x) return mix(b, h, keep, add, w, v, mu, out);
    std::copy(mu, mu + d, out);
  }

  // the free energies F, from the means of e^u, and y = RMS(softplus(outer)) ((1 - lambda) mu + lambda F)
  void mix(long b, long h, const S* keep, const S* add, const S* w, const S* v, S* mu, S* out) const {
    S *less = mu + d, *whole = less + d, *sum_less = whole + d, *sum = sum_less + d, *gate = sum + d;
    const S* by_head = beta + h * d;
    for (long j = 0; j < d; ++j) {
      S u = v[j] * by_head[j];
      less[j] = std::expm1(u);
      whole[j] = std::exp(u);
      sum_less[j] = sum[j] = S(0);
    }
    S* rows = x + (b * H + h) * k * d;
    for (long c = 0; c < k; ++c) enter(rows + c * d, keep[c], add[c], w[c], less, whole, sum_less, sum);
    for (long j = 0; j < d; ++j) {
      S near = std::log1p(std::max(sum_less[j], S(-0.9))), far = std::log(sum[j]);
      sum[j] = (sum[j] < S(0.5) ? far : near) / by_head[j];
    }
    read(b, values() + (H + h) * d, d, gate);
    interpolate(mu, sum, gate, d);
    read(b, values() + (2 * H + h) * d, d, gate);
    scale_by_softplus(mu, gate, d, eps, out);
  }

  void enter(S* __restrict row, S keep, S add, S by, const S* __restrict less, const S* __restrict whole, S* __restrict sum_less,
             S* __restrict sum) const {
    for (long j = 0; j < d; ++j) {
      S coded = row[j], e = coded < S(-1) ? coded * S(-1 / CODE) : S(1) + coded, minus_one = coded < S(-1) ? e - S(1) : coded;
      e = keep * e + add * whole[j];
      minus_one = keep * minus_one + add * less[j];
      row[j] = e < S(0.5) ? e * S(-CODE) : minus_one;
      sum[j] += by * e;
      sum_less[j] += by * minus_one;
    }
  }
};

}  // namespace

// 1 where the exponents of a token are out of range, and nothing has changed; else 0
#define EXPORT(S, NAME)                                                                                                                \
  extern "C" long feature_step_##NAME(S* n, S* m, S* x, const S* z, const S* s, const S* p, const S* decay, const S* bias,             \
                                      const S* beta, S* y, double slowness, double eps, double range, long B, long H, long k, long d,  \
                                      long C, long R, long decays, long pitch, long threads) {                                         \
    Layer<S> layer{{z, s, p, C, R}, decay, bias, beta, n, m, x, y, H, k, d, decays, pitch, S(slowness), S(eps)};                       \
    Buffer<S> values(x ? H * d : 0);                                                                                                   \
    if (x && !layer.z.in_range(B, layer.values(), H * d, beta, S(range), values.data())) return 1;                                     \
    parallel(B * H, threads, [&](long i) {                                                                                             \
      Buffer<S> scratch(4 * k + 7 * d);                                                                                                \
      layer.head(i / H, i % H, scratch.data());                                                                                        \
    });                                                                                                                                \
    return 0;                                                                                                                          \
  }

EXPORT(float, float)
EXPORT(double, double)
