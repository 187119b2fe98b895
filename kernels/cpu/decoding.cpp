// Steps of decoding in the log domain: one token enters the state of linear attention (kernels/linear/exact.py) or of the selective
// scan (kernels/selective/exact.py) and reads it. The state after the token is written apart from the one before it.
#include <algorithm>
#include <cmath>
#include <vector>

#include "elementary.h"
#include "log_weights.h"
#include "parallel.h"

namespace {

// As kernels/numerics/log_mean_exp.py: up to SMALL the mean of e^x - 1 is more exact than the log-sum-exp, which cancels there.
constexpr double SMALL = 0.5;

// e^l (e^x - 1), where `weight` is e^l, or zero for a tiny one: a large x counts by l + x. What exceeds 1 is 1, above SMALL too.
template <class S>
inline S term(S l, S weight, S x) {
  S near = weight * std::expm1(std::min(x, S(1))), far = exponential(std::min(l + x, S(0))) - weight;
  far = l + x > S(0) ? S(1) : far;
  return x > S(1) ? far : near;
}

// log(e^keep e^f + e^add e^u), of two weights that sum to 1. Both forms are computed, so that the loop vectorises.
template <class S>
inline S log_of_mix(S keep, S add, S f, S u) {
  S old = term(keep, exponential(keep), f), now = term(add, exponential(add), u);
  S near = std::log1p(std::max(old + now, S(-0.9))), far = log_of_both(keep + f, add + u);
  return std::abs(old) + std::abs(now) <= S(SMALL) ? near : far;
}

// log Σ_i e^{logs_ij} e^{x_ij} for `count` columns j, whose weights e^{logs_ij} sum to 1. `top` is scratch, as `mean` and `size`.
template <class S, class Logs, class Values>
void log_mean_exp(Logs logs, Values values, long rows, long count, S* mean, S* size, S* top, S* out) {
  std::fill(mean, mean + count, S(0));
  std::fill(size, size + count, S(0));
  for (long i = 0; i < rows; ++i) {
    const S* __restrict x = values(i);
    S *__restrict m = mean, *__restrict z = size, *__restrict t = top;
    for (long j = 0; j < count; ++j) {
      S l = logs(i, j), e = term(l, exponential(l), x[j]), both = l + x[j];
      m[j] += e;
      z[j] += std::abs(e);
      t[j] = !i || both > t[j] ? both : t[j];
    }
  }
  std::fill(out, out + count, S(0));
  for (long i = 0; i < rows; ++i) {
    const S* __restrict x = values(i);
    S *__restrict t = top, *__restrict o = out;
    for (long j = 0; j < count; ++j) o[j] += exponential(logs(i, j) + x[j] - t[j]);
  }
  for (long j = 0; j < count; ++j) {
    S near = std::log1p(std::max(mean[j], S(-0.9))), far = top[j] + std::log(out[j]);
    out[j] = size[j] <= S(SMALL) ? near : far;
  }
}

// One head of one sequence: k key channels, d value channels; `decays` 0, 1 or k. Row 0 of what is read is the token itself.
template <class S>
struct Linear {
  const S *log_q, *log_k, *decay, *v, *u, *n, *m, *f;
  S *mu, *log_mean, *n_after, *m_after, *f_after;
  long k, d, decays;

  S log_decay(long c) const { return decays ? decay[decays > 1 ? c : 0] : S(0); }

  // `scratch` has 2 (k + 1) + 3 d numbers
  void step(S* scratch) const {
    S *logs = scratch, *weights = logs + k + 1, top = log_q[0] + log_k[0], sum = 0;
    for (long c = 1; c < k; ++c) top = std::max(top, log_q[c] + log_k[c]);
    for (long c = 0; c < k; ++c) sum += exponential(log_q[c] + log_k[c] - top);
    logs[0] = top + std::log(sum);
    for (long c = 0; c < k; ++c) logs[c + 1] = log_q[c] + log_decay(c) + n[c];
    normalise(logs, weights, k + 1);
    for (long j = 0; j < d; ++j) mu[j] = weights[0] * v[j];
    for (long c = 0; c < k; ++c) enter(c, weights[c + 1]);
    if (!u) return;
    S* mean = weights + k + 1;
    log_mean_exp<S>([&](long i, long) { return logs[i]; }, [&](long i) { return i ? f + (i - 1) * d : u; }, k + 1, d, mean, mean + d,
                    mean + 2 * d, log_mean);
  }

  // key channel c is read with its weight, and the token enters it
  void enter(long c, S weight) const {
    S old = n[c] + log_decay(c), both = log_of_both(old, log_k[c]), keep = old - both, add = log_k[c] - both;
    S kept = exponential(keep), added = exponential(add);
    const S *__restrict before = m + c * d, *__restrict value = v;
    S *__restrict after = m_after + c * d, *__restrict read = mu;
    for (long j = 0; j < d; ++j) {
      read[j] += weight * before[j];
      after[j] = kept * before[j] + added * value[j];
    }
    n_after[c] = both;
    if (!u) return;
    const S *__restrict x = f + c * d, *__restrict y = u;
    S* __restrict mixed = f_after + c * d;
    for (long j = 0; j < d; ++j) mixed[j] = log_of_mix(keep, add, x[j], y[j]);
  }
};

template <class S>
void linear_step(const S* log_q, const S* log_k, const S* decay, const S* v, const S* u, const S* n, const S* m, const S* f, S* mu,
                 S* log_mean, S* n_after, S* m_after, S* f_after, long heads, long k, long d, long decays, long threads) {
  parallel(heads, threads, [&](long i) {
    std::vector<S> scratch(2 * (k + 1) + 3 * d);
    const long state = i * k * d;
    Linear<S>{log_q + i * k, log_k + i * k, decay ? decay + i * decays : decay, v + i * d, u ? u + i * d : u, n + i * k, m + state,
              u ? f + state : f, mu + i * d, u ? log_mean + i * d : log_mean, n_after + i * k, m_after + state,
              u ? f_after + state : f_after, k, d, decay ? decays : 0}
        .step(scratch.data());
  });
}

// BLOCK channels of one sequence, N states of each: tensors [E], [N, E] and, of the sequence, [N]. Rows of channels vectorise.
constexpr long BLOCK = 64;

template <class S>
struct Selective {
  const S *log_delta, *rates, *log_b, *log_c, *log_skip, *v, *u, *n, *m, *f;
  S *mu, *log_mean, *n_after, *m_after, *f_after;
  long N, E;

  void block(long start, S* logs) const {
    const long count = std::min(BLOCK, E - start);
    S delta[BLOCK], top[BLOCK], sum[BLOCK], mean[BLOCK];
    for (long e = 0; e < count; ++e) {
      delta[e] = std::exp(log_delta[start + e]);
      top[e] = logs[N * BLOCK + e] = log_skip[start + e];
    }
    for (long i = 0; i < N; ++i) {
      const S *__restrict n_ = n + i * E + start, *__restrict m_ = m + i * E + start, *__restrict rate = rates + i * E + start;
      const S *__restrict log_step = log_delta + start, *__restrict value = v + start, enters = log_b[i], reads = log_c[i];
      S *__restrict n2 = n_after + i * E + start, *__restrict m2 = m_after + i * E + start, *__restrict row = logs + i * BLOCK;
      for (long e = 0; e < count; ++e) {
        S old = n_[e] + delta[e] * rate[e], added = log_step[e] + enters, both = log_of_both(old, added);
        n2[e] = both;
        m2[e] = m_[e] + exponential(added - both) * (value[e] - m_[e]);
        row[e] = reads + both;
        top[e] = row[e] > top[e] ? row[e] : top[e];
      }
      if (u) mix(start, count, i, n_, n2, delta, rate);
    }
    std::fill(sum, sum + count, S(0));
    std::fill(mean, mean + count, S(0));
    for (long i = 0; i <= N; ++i) {
      const S* value = i < N ? m_after + i * E + start : v + start;
      for (long e = 0; e < count; ++e) {
        S weight = exponential(logs[i * BLOCK + e] - top[e]);
        sum[e] += weight;
        mean[e] += weight * value[e];
      }
    }
    for (long e = 0; e < count; ++e) mu[start + e] = mean[e] / sum[e];
    if (!u) return;
    for (long e = 0; e < count; ++e) sum[e] = top[e] + std::log(sum[e]);
    S size[BLOCK];
    log_mean_exp<S>([&](long i, long e) { return logs[i * BLOCK + e] - sum[e]; },
                    [&](long i) { return i < N ? f_after + i * E + start : u + start; }, N + 1, count, mean, size, top, log_mean + start);
  }

  // the free energies of state i of a block
  void mix(long start, long count, long i, const S* __restrict n_, const S* __restrict n2, const S* __restrict delta,
           const S* __restrict rate) const {
    const S *__restrict x = f + i * E + start, *__restrict y = u + start, *__restrict log_step = log_delta + start, enters = log_b[i];
    S* __restrict mixed = f_after + i * E + start;
    for (long e = 0; e < count; ++e)
      mixed[e] = log_of_mix(n_[e] + delta[e] * rate[e] - n2[e], log_step[e] + enters - n2[e], x[e], y[e]);
  }
};

template <class S>
void selective_step(const S* log_delta, const S* rates, const S* log_b, const S* log_c, const S* log_skip, const S* v, const S* u,
                    const S* n, const S* m, const S* f, S* mu, S* log_mean, S* n_after, S* m_after, S* f_after, long B, long N, long E,
                    long threads) {
  parallel(B, threads, [&](long b) {
    const long at = b * E, state = b * N * E;
    Selective<S> step{log_delta + at, rates, log_b + b * N, log_c + b * N, log_skip, v + at, u ? u + at : u, n + state, m + state,
                      u ? f + state : f, mu + at, u ? log_mean + at : log_mean, n_after + state, m_after + state,
                      u ? f_after + state : f_after, N, E};
    std::vector<S> logs((N + 1) * BLOCK);
    for (long start = 0; start < E; start += BLOCK) step.block(start, logs.data());
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                \
  extern "C" void linear_step_##NAME(const S* log_q, const S* log_k, const S* decay, const S* v, const S* u, const S* n, const S* m,   \
                                     const S* f, S* mu, S* log_mean, S* n_after, S* m_after, S* f_after, long heads, long k, long d,   \
                                     long decays, long threads) {                                                                      \
    linear_step<S>(log_q, log_k, decay, v, u, n, m, f, mu, log_mean, n_after, m_after, f_after, heads, k, d, decays, threads);         \
  }                                                                                                                                    \
  extern "C" void selective_step_##NAME(const S* log_delta, const S* rates, const S* log_b, const S* log_c, const S* log_skip,         \
                                        const S* v, const S* u, const S* n, const S* m, const S* f, S* mu, S* log_mean, S* n_after,    \
                                        S* m_after, S* f_after, long B, long N, long E, long threads) {                                \
    selective_step<S>(log_delta, rates, log_b, log_c, log_skip, v, u, n, m, f, mu, log_mean, n_after, m_after, f_after, B, N, E,       \
                      threads);                                                                                                        \
  }

EXPORT(float, float)
EXPORT(double, double)
