// One token of a selective state space, in place, from the layer's input and projections to what its output projection reads
// (kernels/decoding/channels.py): step sizes, input and output weights, the state, the read and, under FEM, the free energy and both gates.
//
// The state of component i of a channel: n the log of its summed weights, m the mean of v, and x the mean of e^u, u = beta v, coded as in
// feature_step.cpp. A vector has 16 channels (8 in double precision), of which one component after the other is entered and then read.
#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "elementary.h"
#include "layer_step.h"
#include "parallel.h"
#include "vectors.h"

namespace {

// out = W x for W [rows, width], two rows at a time
template <class S>
void multiply(const S* w, const S* x, long rows, long width, S* out) {
  for (long r = 0; r < rows; r += 2) {
    const S *one = w + r * width, *other = r + 1 < rows ? one + width : one;
    Vector<S> sum_one = {}, sum_other = {};
    for (long i = 0; i < width; i += LANES<S>) {
      const Vector<S> by = load(x + i, width - i);
      sum_one += by * load(one + i, width - i);
      sum_other += by * load(other + i, width - i);
    }
    const Vector<S> sums = totals<S>(sum_one, sum_other);
    if (r + 1 < rows) out[r + 1] = sums[LANES<S> - 1];
    out[r] = sums[0];
  }
}

// log(softplus(z)); far below zero by the series z - e/2 + 5 e^2/24, e = e^z
template <class S>
S log_softplus(S z) {
  S e = exponential(z < S(-15) ? z : S(-15)), near = z < S(-20) ? S(-20) : z;
  S series = z - e / S(2) + S(5) / S(24) * e * e, direct = std::log(softplus(near, decay(near)));
  return z < S(-15) ? series : direct;
}

template <class S>
struct Layer {
  Projected<S> z;  // values and, under FEM, the logits of lambda and the outer gate: E channels each
  const S *x, *down, *up, *bias, *weights, *a_log, *skip, *beta;  // [B, D], [r, D], [E, r], [E], [2N, D], [N, E], [E], [E]
  S *n, *m, *coded, *y;
  long B, D, H, d, N, rank;
  S eps;

  struct Token {
    S *log_delta, *log_b, *log_c, *v, *mu, *less, *whole;  // of one sequence
  };

  long E() const { return H * d; }
  long numbers() const { return 5 * E() + 2 * N + rank; }

  Token token(S* scratch, long b) const {
    S* at = scratch + b * numbers();
    return {at, at + 5 * E(), at + 5 * E() + N, at + E(), at + 2 * E(), at + 3 * E(), at + 4 * E()};
  }

  void prepare(long b, const Token& token) const {
    S* low = token.log_c + N;
    const S* row = x + b * D;
    multiply(down, row, rank, D, low);
    multiply(up, low, E(), rank, token.log_delta);
    multiply(weights, row, 2 * N, D, token.log_b);
    for (long e = 0; e < E(); ++e) token.log_delta[e] = log_softplus(token.log_delta[e] + bias[e]);
    for (long i = 0; i < 2 * N; ++i) token.log_b[i] = log_softplus(token.log_b[i]);
    z.read(b, 0, E(), token.v);
  }

  // the channels of one vector, of all sequences; scratch: 4 N vectors
  void vector(long from, S* tokens, const S* log_skip, Vector<S>* scratch) const {
    const long count = std::min(LANES<S>, E() - from);
    Vector<S>* rates = scratch + 3 * N;
    for (long i = 0; i < N; ++i) rates[i] = -exponentials(load(a_log + i * E() + from, count)).whole;
    for (long b = 0; b < B; ++b) enter_and_read(b, from, count, token(tokens, b), load(log_skip + from, count), rates, scratch);
  }

  void enter_and_read(long b, long from, long count, const Token& token, Vector<S> log_skip, const Vector<S>* rates,
                      Vector<S>* __restrict logs) const {
    Vector<S>*whole = logs + N, *less = logs + 2 * N, top = log_skip;
    const Vector<S> log_delta = load(token.log_delta + from, count), delta = exponentials(log_delta).whole, v = load(token.v + from, count);
    Exponentials<S> own = {};
    if (coded) own = exponentials(v * load(beta + from, count));
    const long state = b * N * E() + from;
    for (long i = 0, at = state; i < N; ++i, at += E()) {
      const Entry<S> entry(load(n + at, count) + delta * rates[i], log_delta + token.log_b[i]);
      store(n + at, entry.log_sum, count);
      store(m + at, entry.keep * load(m + at, count) + entry.add * v, count);
      logs[i] = token.log_c[i] + entry.log_sum;
      top = larger(top, logs[i]);
      if (coded) mix(coded + at, count, entry, own, whole[i], less[i]);
    }
    Vector<S> weight = exp_of_negative<S>(log_skip - top), sum = weight, mean = weight * v;
    Vector<S> sum_whole = weight * own.whole, sum_less = weight * own.less;
    for (long i = 0, at = state; i < N; ++i, at += E()) {
      weight = exp_of_negative<S>(logs[i] - top);
      sum += weight;
      mean += weight * load(m + at, count);
      if (coded) sum_whole += weight * whole[i], sum_less += weight * less[i];
    }
    store(token.mu + from, mean / sum, count);
    if (!coded) return;
    store(token.whole + from, sum_whole / sum, count);
    store(token.less + from, sum_less / sum, count);
  }

  // the mean of e^u of one component and of e^u - 1, in its state and for the read
  static void mix(S* at, long count, const Entry<S>& entry, const Exponentials<S>& own, Vector<S>& whole, Vector<S>& less) {
    const Vector<S> before = load(at, count), old = before < S(-1) ? before * S(-1 / CODE) : S(1) + before;
    whole = entry.keep * old + entry.add * own.whole;
    less = entry.keep * (before < S(-1) ? old - S(1) : before) + entry.add * own.less;
    store(at, whole < S(0.5) ? whole * S(-CODE) : less, count);
  }

  // the free energies from the means, and the gates
  void finish(long b, const Token& token) const {
    S* out = y + b * E();
    if (!coded) return void(std::copy(token.mu, token.mu + E(), out));
    for (long e = 0; e < E(); ++e) {
      S near = std::log1p(std::max(token.less[e], S(-0.9))), far = std::log(token.whole[e]);
      token.less[e] = (token.whole[e] < S(0.5) ? far : near) / beta[e];
    }
    for (long h = 0; h < H; ++h) {
      S *gate = token.whole + h * d, *mu = token.mu + h * d;
      z.read(b, E() + h * d, d, gate);
      interpolate(mu, token.less + h * d, gate, d);
      z.read(b, 2 * E() + h * d, d, gate);
      scale_by_softplus(mu, gate, d, eps, out + h * d);
    }
  }

  void run(long threads) const {
    Buffer<S> tokens(B * numbers() + E());
    S *scratch = tokens.data(), *log_skip = scratch + B * numbers();
    for (long e = 0; e < E(); ++e) log_skip[e] = log_softplus(skip[e]);
    parallel(B, threads, [&](long b) { prepare(b, token(scratch, b)); });
    parallel((E() + LANES<S> - 1) / LANES<S>, threads, [&](long piece) {
      Buffer<S> vectors(4 * N * LANES<S>);
      vector(piece * LANES<S>, scratch, log_skip, reinterpret_cast<Vector<S>*>(vectors.data()));
    });
    parallel(B, threads, [&](long b) { finish(b, token(scratch, b)); });
  }
};

}  // namespace

// 1 where the exponents of a token are out of range, and nothing has changed; else 0
#define EXPORT(S, NAME)                                                                                                               \
  extern "C" long selective_layer_step_##NAME(S* n, S* m, S* coded, const S* x, const S* z, const S* s, const S* p, const S* down,    \
                                              const S* up, const S* bias, const S* weights, const S* a_log, const S* skip,            \
                                              const S* beta, S* y, double eps, double range, long B, long D, long H, long d, long C,  \
                                              long R, long N, long rank, long threads) {                                              \
    Layer<S> layer{{z, s, p, C, R}, x, down, up, bias, weights, a_log, skip, beta, n, m, coded, y, B, D, H, d, N, rank, S(eps)};      \
    Buffer<S> values(coded ? H * d : 0);                                                                                              \
    if (coded && !layer.z.in_range(B, 0, H * d, beta, S(range), values.data())) return 1;                                             \
    layer.run(threads);                                                                                                               \
    return 0;                                                                                                                         \
  }

EXPORT(float, float)
EXPORT(double, double)
