// One token of AFT, in place, from the layer's projections to what its output projection reads (kernels/decoding/channels.py): the read of
// each channel times RMS(softplus(q)) and, under FEM, the free energy and both gates.
// The state of a channel: n the log of its summed weights, m the mean of v, f the log of the mean of e^u, u = beta v of any size.
#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "elementary.h"
#include "layer_step.h"
#include "parallel.h"
#include "vectors.h"

namespace {

// As kernels/numerics/log_mean_exp.py: up to SMALL the mean of e^x - 1 is more exact than the log-sum-exp, which cancels there.
constexpr double SMALL = 0.5;

template <class S>
Vector<S> size(Vector<S> x) {
  return x < S(0) ? -x : x;
}

// log(1 + x) for |x| <= SMALL
template <class S>
Vector<S> log_of_one_and_small(Vector<S> x) {
  const Vector<S> log = log_of_one_and(x < S(0) ? -x / (S(1) + x) : x);
  return x < S(0) ? -log : log;
}

// log(keep e^f + add e^u), of two weights that sum to 1
template <class S>
Vector<S> log_of_mix(const Entry<S>& entry, Vector<S> log_keep, Vector<S> log_add, Vector<S> f, Vector<S> u) {
  const auto small = (size<S>(f) <= S(SMALL)) & (size<S>(u) <= S(SMALL));
  const Vector<S> zero = {}, mean = entry.keep * exponentials(small ? f : zero).less + entry.add * exponentials(small ? u : zero).less;
  return small ? log_of_one_and_small<S>(small ? mean : zero) : Entry<S>(log_keep + f, log_add + u).log_sum;
}

template <class S>
struct Layer {
  Projected<S> z;  // q, k, v and, under FEM, the logits of lambda and the outer gate: E channels each
  const S* beta;
  S *n, *m, *f, *y;
  long H, d;
  S eps;

  // scratch: 4 E numbers
  void token(long b, S* scratch) const {
    const long E = H * d;
    S *k = scratch, *v = k + E, *mu = v + E, *F = mu + E, *out = y + b * E;
    z.read(b, E, E, k);
    z.read(b, 2 * E, E, v);
    for (long from = 0; from < E; from += LANES<S>) enter(b * E + from, std::min(LANES<S>, E - from), from, k, v, mu, F);
    for (long h = 0; h < H; ++h) {
      S *gate = k + h * d, *read = mu + h * d, *scaled = out + h * d;
      if (f) {
        z.read(b, 3 * E + h * d, d, gate);
        interpolate(read, F + h * d, gate, d);
        z.read(b, 4 * E + h * d, d, gate);
        scale_by_softplus(read, gate, d, eps, read);
      }
      z.read(b, h * d, d, gate);
      scale_by_softplus(read, gate, d, eps, scaled);
    }
  }

  void enter(long at, long count, long from, const S* k, const S* v, S* mu, S* F) const {
    const Vector<S> old = load(n + at, count), added = load(k + from, count), value = load(v + from, count);
    const Entry<S> entry(old, added);
    const Vector<S> mean = entry.keep * load(m + at, count) + entry.add * value;
    store(n + at, entry.log_sum, count);
    store(m + at, mean, count);
    store(mu + from, mean, count);
    if (!f) return;
    const Vector<S> by = load(beta + from, count), log_keep = old - entry.log_sum, log_add = added - entry.log_sum;
    const Vector<S> mixed = log_of_mix<S>(entry, log_keep, log_add, load(f + at, count), value * by);
    store(f + at, mixed, count);
    store(F + from, mixed / by, count);
  }
};

}  // namespace

#define EXPORT(S, NAME)                                                                                                               \
  extern "C" long channel_layer_step_##NAME(S* n, S* m, S* f, const S* z, const S* s, const S* p, const S* beta, S* y, double eps,     \
                                            long B, long H, long d, long C, long R, long threads) {                                   \
    Layer<S> layer{{z, s, p, C, R}, beta, n, m, f, y, H, d, S(eps)};                                                                  \
    parallel(B, threads, [&](long b) {                                                                                                \
      Buffer<S> scratch(4 * H * d);                                                                                                   \
      layer.token(b, scratch.data());                                                                                                 \
    });                                                                                                                               \
    return 0;                                                                                                                         \
  }

EXPORT(float, float)
EXPORT(double, double)
