// One token of a selective state space, in place, from the layer's input and projections to what its output projection reads
// (kernels/decoding/channels.py): step sizes, input and output weights, the state, the read and, under FEM, the free energy and both gates.
//
// The state of component i of a channel: n the log of its summed weights, m the mean of v, and x the mean of e^u, u = beta v, coded as in
// feature_step.cpp.
#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "elementary.h"
#include "layer_step.h"
#include "parallel.h"
#include "vectors.h"

namespace {

constexpr long BLOCK = 256;  // channels of a piece of work

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

// z becomes log(softplus(z)); far below zero by the series z - e/2 + 5 e^2/24, e = e^z. `scratch` has as many numbers.
template <class S>
void log_softplus(S* z, long size, S* scratch) {
  const S far = -15, bound = -20;  // below the bound softplus(z) could be denormal
  for (long i = 0; i < size; i += LANES<S>) {
    const Vector<S> x = load(z + i, size - i), zero = {}, near = x < bound ? zero + bound : x;
    const Vector<S> soft = larger(near, zero) + log_of_one_and(exp_of_negative<S>(near < zero ? near : -near));
    store(scratch + i, soft, size - i);
  }
  for (long i = 0; i < size; ++i) scratch[i] = std::log(scratch[i]);
  for (long i = 0; i < size; i += LANES<S>) {
    const Vector<S> x = load(z + i, size - i), zero = {}, e = exp_of_negative<S>(x < far ? x : zero + far);
    store(z + i, x < far ? x - e / S(2) + S(5) / S(24) * e * e : load(scratch + i, size - i), size - i);
  }
}

template <class S>
struct Layer {
  Projected<S> z;  // values and, under FEM, the logits of lambda and the outer gate: E channels each
  const S *x, *down, *up, *bias, *weights, *a_log, *skip, *beta;  // [B, D], [r, D], [E, r], [E], [2N, D], [N, E], [E], [E]
  S *n, *m, *coded, *y;
  long B, D, H, d, N, rank;
  S eps;

  struct Token {  // of one sequence
    S *log_b, *log_c, *log_delta, *delta, *v, *mu, *less, *whole, *top, *rest;
  };

  long E() const { return H * d; }
  long numbers() const { return 8 * E() + 4 * N + rank; }

  Token token(S* scratch, long b) const {
    S *log_b = scratch + b * numbers(), *by_channel = log_b + 2 * N + rank;
    return {log_b,
            log_b + N,
            by_channel,
            by_channel + E(),
            by_channel + 2 * E(),
            by_channel + 3 * E(),
            by_channel + 4 * E(),
            by_channel + 5 * E(),
            by_channel + 6 * E(),
            by_channel + 7 * E()};
  }

  // up_rE: `up`, transposed
  void prepare(long b, const Token& token, const S* up_rE) const {
    S* low = token.log_c + N;  // `rank` numbers
    const S* row = x + b * D;
    multiply(down, row, rank, D, low);
    std::copy(bias, bias + E(), token.log_delta);
    for (long r = 0; r < rank; ++r) {
      const S by = low[r], *__restrict column = up_rE + r * E();
      S* __restrict out = token.log_delta;
      for (long e = 0; e < E(); ++e) out[e] += by * column[e];
    }
    multiply(weights, row, 2 * N, D, token.log_b);
    log_softplus(token.log_delta, E(), token.rest);
    log_softplus(token.log_b, 2 * N, token.rest);
    z.read(b, 0, E(), token.v);
  }

  // Channels from ... to - 1 of a sequence. Components are entered one after the other, because their rows are contiguous in memory, and read
  // again from the cache. scratch: 3 N BLOCK numbers; rates [N, E] and log_skip [E] are shared.
  void channels(long b, const Token& token, long from, long to, const S* rates, const S* log_skip, S* scratch) const {
    const long width = whole_vectors<S>(to - from);
    S *logs = scratch, *whole = logs + N * width, *less = whole + N * width;
    for (long e = from; e < to; e += LANES<S>) begin(token, e, std::min(LANES<S>, to - e), log_skip);
    for (long i = 0; i < N; ++i)
      for (long e = from; e < to; e += LANES<S>) {
        const long row = i * width + e - from;
        enter(b, i, e, std::min(LANES<S>, to - e), token, rates, logs + row, whole + row, less + row);
      }
    for (long e = from; e < to; e += LANES<S>)
      read(b, e, std::min(LANES<S>, to - e), token, log_skip, logs + e - from, whole + e - from, less + e - from, width);
  }

  void begin(const Token& token, long e, long count, const S* log_skip) const {
    store(token.top + e, load(log_skip + e, count), count);
    store(token.delta + e, exponentials(load(token.log_delta + e, count)).whole, count);
    if (!coded) return;
    const Exponentials<S> own = exponentials(load(token.v + e, count) * load(beta + e, count));
    store(token.whole + e, own.whole, count);
    store(token.less + e, own.less, count);
  }

  // the token into component i of a vector of channels
  void enter(long b, long i, long e, long count, const Token& token, const S* rates, S* logs, S* whole, S* less) const {
    const long at = (b * N + i) * E() + e;
    const Entry<S> entry(load(n + at, count) + load(token.delta + e, count) * load(rates + i * E() + e, count),
                         load(token.log_delta + e, count) + token.log_b[i]);
    store(n + at, entry.log_sum, count);
    store(m + at, entry.keep * load(m + at, count) + entry.add * load(token.v + e, count), count);
    const Vector<S> log = token.log_c[i] + entry.log_sum;
    store(logs, log);
    store(token.top + e, larger(load(token.top + e, count), log), count);
    if (coded) mix(coded + at, count, entry, {load(token.whole + e, count), load(token.less + e, count)}, whole, less);
  }

  void read(long b, long e, long count, const Token& token, const S* log_skip, const S* logs, const S* whole, const S* less,
            long width) const {
    const Vector<S> top = load(token.top + e, count);
    Vector<S> weight = exp_of_negative<S>(load(log_skip + e, count) - top), sum = weight, mean = weight * load(token.v + e, count);
    Vector<S> sum_whole = {}, sum_less = {};
    if (coded) sum_whole = weight * load(token.whole + e, count), sum_less = weight * load(token.less + e, count);
    for (long i = 0; i < N; ++i) {
      weight = exp_of_negative<S>(load(logs + i * width) - top);
      sum += weight;
      mean += weight * load(m + (b * N + i) * E() + e, count);
      if (coded) sum_whole += weight * load(whole + i * width), sum_less += weight * load(less + i * width);
    }
    store(token.mu + e, mean / sum, count);
    if (!coded) return;
    store(token.whole + e, sum_whole / sum, count);
    store(token.less + e, sum_less / sum, count);
  }

  // the mean of e^u of one component and of e^u - 1, in its state and for the read
  static void mix(S* at, long count, const Entry<S>& entry, const Exponentials<S>& own, S* to_whole, S* to_less) {
    const Vector<S> before = load(at, count), old = before < S(-1) ? before * S(-1 / CODE) : S(1) + before;
    const Vector<S> whole = entry.keep * old + entry.add * own.whole;
    const Vector<S> less = entry.keep * (before < S(-1) ? old - S(1) : before) + entry.add * own.less;
    store(at, whole < S(0.5) ? whole * S(-CODE) : less, count);
    store(to_whole, whole);
    store(to_less, less);
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
    Buffer<S> buffer(B * numbers() + (N + rank + 2) * E());
    S *tokens = buffer.data(), *log_skip = tokens + B * numbers(), *rates = log_skip + E(), *up_rE = rates + N * E();
    std::copy(skip, skip + E(), log_skip);
    log_softplus(log_skip, E(), up_rE + rank * E());
    for (long r = 0; r < rank; ++r)
      for (long e = 0; e < E(); ++e) up_rE[r * E() + e] = up[e * rank + r];
    for (long at = 0; at < N * E(); at += LANES<S>) {
      const long count = std::min(LANES<S>, N * E() - at);
      store(rates + at, -exponentials(load(a_log + at, count)).whole, count);
    }
    parallel(B, threads, [&](long b) { prepare(b, token(tokens, b), up_rE); });
    const long blocks = (E() + BLOCK - 1) / BLOCK;
    parallel(B * blocks, threads, [&](long piece) {
      Buffer<S> scratch(3 * N * BLOCK);
      const long b = piece / blocks, from = piece % blocks * BLOCK;
      channels(b, token(tokens, b), from, std::min(E(), from + BLOCK), rates, log_skip, scratch.data());
    });
    parallel(B, threads, [&](long b) { finish(b, token(tokens, b)); });
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
