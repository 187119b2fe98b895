// One step of decoding a linear memory S [K, W] per head, in place (kernels/decoding/memory.py):
//     S <- a S + k v',     o = S' q;     the delta rule enters b (v - (a S)' k) instead of v.
// The norms of q and k before it, and the norm and the gate of o after it, belong to the same call.
#include <algorithm>

#include "buffer.h"
#include "elementary.h"
#include "memory_rows.h"
#include "parallel.h"

namespace {

// Where the heads of a tensor [B, H, width] begin.
template <class S>
struct Heads {
  const S* data;
  long batch, head;
  const S* at(long b, long h) const { return data ? data + b * batch + h * head : data; }
};

// What is done to q and k before the token enters, and to o after it.
template <class S>
struct Around {
  S unit, scale;  // q and k / sqrt(|.|^2 + unit), if it is not 0; then q times scale
  const S *cosine, *sine;  // of the angles by which pairs of channels of q and k turn; null: they do not
  const S* gain;           // of the norm, those of head h from h gain_head on; null: none
  long gain_head;
  Heads<S> gate;
  long normaliser, norm, gated;  // values get a last channel of ones, and o becomes o / max(|last of o|, 1); 0 no norm, 1 layer norm, 2 RMS; 0 no gate, 1 SiLU, 2 sigmoid
  S eps;

  void scaled(S* x, long n, S by) const {
    if (unit > S(0)) {
      S sum = 0;
      for (long c = 0; c < n; ++c) sum += x[c] * x[c];
      by /= std::sqrt(sum + unit);
    }
    for (long c = 0; c < n; ++c) x[c] *= by;
    for (long c = 0; cosine && c < n / 2; ++c) {
      S even = x[2 * c], odd = x[2 * c + 1];
      x[2 * c] = even * cosine[c] - odd * sine[c];
      x[2 * c + 1] = even * sine[c] + odd * cosine[c];
    }
  }

  // o [W] of one head to y [W - normaliser]
  void finish(S* o, long W, long b, long h, S* __restrict y) const {
    const long w = W - normaliser;
    S by = normaliser ? S(1) / std::max(std::abs(o[w]), S(1)) : S(1), mean = 0, square = 0;
    for (long j = 0; j < w; ++j) mean += o[j] *= by;
    mean = norm == 1 ? mean / S(w) : S(0);
    for (long j = 0; j < w; ++j) square += (o[j] - mean) * (o[j] - mean);
    S scale = norm ? S(1) / std::sqrt(square / S(w) + eps) : S(1);
    for (long j = 0; j < w; ++j) y[j] = (o[j] - mean) * scale;
    for (long j = 0; gain && j < w; ++j) y[j] *= gain[h * gain_head + j];
    if (!gated) return;
    const S* __restrict logits = gate.at(b, h);
    for (long j = 0; j < w; ++j) y[j] *= (gated == 1 ? logits[j] : S(1)) * logistic(logits[j]);
  }
};

// `log_decay` has `decays` numbers per head: 0, 1 or K; `beta` has one and turns the delta rule on.
template <class S>
void memory_step(S* memory, Heads<S> q, Heads<S> k, Heads<S> v, Heads<S> log_decay, const S* beta, S* y, long B, long H, long K, long W,
                 long decays, const Around<S>& around, long threads) {
  parallel(B * H, threads, [&](long i) {
    const long b = i / H, h = i % H, w = W - around.normaliser;
    Buffer<S> scratch(4 * K + 2 * W);  // one allocation, which is a good part of a small head's time
    S *decay = scratch.data(), *by = decay + K, *query = by + K, *key = query + K, *value = key + K, *o = value + W;
    std::fill(decay, decay + K, S(1));
    std::copy(q.at(b, h), q.at(b, h) + K, query);
    std::copy(k.at(b, h), k.at(b, h) + K, key);
    const S *given = v.at(b, h), *logs = log_decay.at(b, h);
    S* rows = memory + i * K * W;
    around.scaled(query, K, around.scale);
    around.scaled(key, K, S(1));
    for (long c = 0; decays && c < K; ++c) decay[c] = c && decays == 1 ? decay[0] : std::exp(logs[decays == 1 ? 0 : c]);
    if (beta) {
      for (long c = 0; c < K; ++c) by[c] = decay[c] * key[c];
      add_rows(rows, by, K, W, value);
      for (long j = 0; j < W; ++j) value[j] = beta[i] * (given[j] - value[j]);
      given = value;
    }
    if (around.normaliser) {
      std::copy(given, given + w, value);
      value[w] = S(1);
      given = value;
    }
    enter_and_read(rows, decay, key, query, given, K, W, o);
    around.finish(o, W, b, h, y + i * w);
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                \
  extern "C" long memory_step_##NAME(S* memory, const S* q, const S* k, const S* v, const S* log_decay, const S* beta,                 \
                                     const S* cosine, const S* sine, const S* gain, const S* gate, S* y, double unit, double scale, double eps, long B, long H, long K, long W,       \
                                     long decays, long q_batch, long q_head, long k_batch, long k_head, long v_batch, long v_head,     \
                                     long d_batch, long d_head, long gain_head, long gate_batch, long gate_head, long normaliser,      \
                                     long norm, long gated, long threads) {                                                            \
    Around<S> around{S(unit), S(scale), cosine, sine, gain, gain_head, {gate, gate_batch, gate_head}, normaliser, norm, gated, S(eps)};              \
    memory_step<S>(memory, {q, q_batch, q_head}, {k, k_batch, k_head}, {v, v_batch, v_head}, {log_decay, d_batch, d_head}, beta, y, B, \
                   H, K, W, decays, around, threads);                                                                                  \
    return 0;                                                                                                                          \
  }

EXPORT(float, float)
EXPORT(double, double)
