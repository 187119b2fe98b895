// One step of decoding a linear memory S [K, W] per head, in place (kernels/linear/step.py):
//     S <- a S + k v',     o = S' q;     the delta rule enters b (v - (a S)' k) instead of v.
// Rows are taken four at a time, so that the sums over rows are loaded and stored once for four.
#include <algorithm>

#include "buffer.h"
#include "elementary.h"
#include "parallel.h"

namespace {

// Where the heads of a tensor [B, H, width] begin.
template <class S>
struct Heads {
  const S* data;
  long batch, head;
  const S* at(long b, long h) const { return data ? data + b * batch + h * head : data; }
};

constexpr long ROWS = 4;

// out_j += Σ_c by_c S_cj for `count` rows
template <class S>
void add_rows(const S* rows, const S* by, long count, long W, S* __restrict out) {
  long c = 0;
  for (; c + ROWS <= count; c += ROWS) {
    const S *__restrict r0 = rows + c * W, *__restrict r1 = r0 + W, *__restrict r2 = r1 + W, *__restrict r3 = r2 + W;
    const S b0 = by[c], b1 = by[c + 1], b2 = by[c + 2], b3 = by[c + 3];
    for (long j = 0; j < W; ++j) out[j] += (b0 * r0[j] + b1 * r1[j]) + (b2 * r2[j] + b3 * r3[j]);
  }
  for (; c < count; ++c)
    for (long j = 0; j < W; ++j) out[j] += by[c] * rows[c * W + j];
}

// The rows after the token, and their sums by the query.
template <class S>
void enter_and_read(S* rows, const S* decay, const S* k, const S* q, const S* __restrict v, long count, long W, S* __restrict out) {
  long c = 0;
  for (; c + ROWS <= count; c += ROWS) {
    S *__restrict r0 = rows + c * W, *__restrict r1 = r0 + W, *__restrict r2 = r1 + W, *__restrict r3 = r2 + W;
    const S a0 = decay[c], a1 = decay[c + 1], a2 = decay[c + 2], a3 = decay[c + 3], k0 = k[c], k1 = k[c + 1], k2 = k[c + 2],
            k3 = k[c + 3], q0 = q[c], q1 = q[c + 1], q2 = q[c + 2], q3 = q[c + 3];
    for (long j = 0; j < W; ++j) {
      S x = v[j], s0 = a0 * r0[j] + k0 * x, s1 = a1 * r1[j] + k1 * x, s2 = a2 * r2[j] + k2 * x, s3 = a3 * r3[j] + k3 * x;
      r0[j] = s0, r1[j] = s1, r2[j] = s2, r3[j] = s3;
      out[j] += (q0 * s0 + q1 * s1) + (q2 * s2 + q3 * s3);
    }
  }
  for (; c < count; ++c)
    for (long j = 0; j < W; ++j) {
      S* row = rows + c * W;
      row[j] = decay[c] * row[j] + k[c] * v[j];
      out[j] += q[c] * row[j];
    }
}

// `log_decay` has `decays` numbers a head, 0, 1 or K; `beta` has one and turns the delta rule on.
template <class S>
void memory_step(S* memory, Heads<S> q, Heads<S> k, Heads<S> v, Heads<S> log_decay, const S* beta, S* o, long B, long H, long K, long W,
                 long decays, long threads) {
  parallel(B * H, threads, [&](long i) {
    const long b = i / H, h = i % H;
    Buffer<S> decay(K, S(1)), by(K), value(W, S(0));
    const S *key = k.at(b, h), *given = v.at(b, h), *logs = log_decay.at(b, h);
    S *rows = memory + i * K * W, *out = o + i * W;
    for (long c = 0; decays && c < K; ++c) decay[c] = c && decays == 1 ? decay[0] : std::exp(logs[decays == 1 ? 0 : c]);
    if (beta) {
      for (long c = 0; c < K; ++c) by[c] = decay[c] * key[c];
      add_rows(rows, by.data(), K, W, value.data());
      for (long j = 0; j < W; ++j) value[j] = beta[i] * (given[j] - value[j]);
      given = value.data();
    }
    std::fill(out, out + W, S(0));
    enter_and_read(rows, decay.data(), key, q.at(b, h), given, K, W, out);
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                \
  extern "C" long memory_step_##NAME(S* memory, const S* q, const S* k, const S* v, const S* log_decay, const S* beta, S* o, long B,   \
                                     long H, long K, long W, long decays, long q_batch, long q_head, long k_batch, long k_head,        \
                                     long v_batch, long v_head, long d_batch, long d_head, long threads) {                             \
    memory_step<S>(memory, {q, q_batch, q_head}, {k, k_batch, k_head}, {v, v_batch, v_head}, {log_decay, d_batch, d_head}, beta, o, B, \
                   H, K, W, decays, threads);                                                                                          \
    return 0;                                                                                                                          \
  }

EXPORT(float, float)
EXPORT(double, double)
