// Softmax attention over tensors [B, T, H, width] where they are, with values of any width. Blocks of rows meet blocks of keys: their scores
// stay in the cache, the library computes the products, and backward computes the weights again from the log-sum-exp of each row.
#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "elementary.h"
#include "products.h"

namespace {

constexpr long ROWS = 64, KEYS = 512;  // of a block

struct Sizes {
  long B, S, T, H, dk, dv, causal;
  long q_pitch, k_pitch, v_pitch;  // from one token to the next; in results the heads of a token are contiguous
};

// One head of one sequence.
template <class S>
struct Head {
  const Sizes& sizes;
  long b, h;

  long q(long row) const { return (b * sizes.S + row) * sizes.q_pitch + h * sizes.dk; }
  long k(long row) const { return (b * sizes.T + row) * sizes.k_pitch + h * sizes.dk; }
  long v(long row) const { return (b * sizes.T + row) * sizes.v_pitch + h * sizes.dv; }
  long dq(long row) const { return ((b * sizes.S + row) * sizes.H + h) * sizes.dk; }
  long dk(long row) const { return ((b * sizes.T + row) * sizes.H + h) * sizes.dk; }
  long dv(long row) const { return ((b * sizes.T + row) * sizes.H + h) * sizes.dv; }
  long out(long row) const { return ((b * sizes.S + row) * sizes.H + h) * sizes.dv; }
  long lse(long row) const { return (b * sizes.H + h) * sizes.S + row; }
  // How many of the `count` keys from `start` on a row sees.
  long seen(long row, long start, long count) const { return sizes.causal ? std::max(0L, std::min(count, row + 1 - start)) : count; }
};

// out [B, S, H, dv]; lse [B, H, S]
template <class S>
void attention(const S* q, const S* k, const S* v, S* out, S* lse, double scale, Sizes sizes, long threads) {
  parallel_products(sizes.B * sizes.H, threads, [&](long piece) {
    Head<S> head{sizes, piece / sizes.H, piece % sizes.H};
    long op = sizes.H * sizes.dv;
    Buffer<S> scores(std::min(ROWS, sizes.S) * std::min(KEYS, sizes.T));
    for (long first = 0; first < sizes.S; first += ROWS) {
      long m = std::min(ROWS, sizes.S - first);
      S top[ROWS], sum[ROWS] = {};
      for (long start = 0; start < sizes.T; start += KEYS) {
        long n = head.seen(first + m - 1, start, std::min(KEYS, sizes.T - start));
        if (!n) break;
        multiply<S>(m, n, sizes.dk, S(scale), {q + head.q(first), sizes.q_pitch}, {k + head.k(start), sizes.k_pitch, true}, S(0), {scores.data(), n});
        for (long i = 0; i < m; ++i) {
          S *s = scores.data() + i * n, *o = out + head.out(first + i), added = 0;
          long count = head.seen(first + i, start, n);
          S highest = largest(s, count, start ? top[i] : s[0]);  // every row sees the first key
          for (long j = 0; j < count; ++j) {
            s[j] = exponential(s[j] - highest);
            added += s[j];
          }
          std::fill(s + count, s + n, S(0));
          S keep = start ? exponential(top[i] - highest) : S(0);
          if (start)
            for (long j = 0; j < sizes.dv; ++j) o[j] *= keep;
          sum[i] = sum[i] * keep + added;
          top[i] = highest;
        }
        multiply<S>(m, sizes.dv, n, S(1), {scores.data(), n}, {v + head.v(start), sizes.v_pitch}, S(start ? 1 : 0),
                    {out + head.out(first), op});
      }
      for (long i = 0; i < m; ++i) {
        S *o = out + head.out(first + i), inverse = S(1) / sum[i];
        for (long j = 0; j < sizes.dv; ++j) o[j] *= inverse;
        lse[head.lse(first + i)] = top[i] + std::log(sum[i]);
      }
    }
  });
}

// Of one block: scores become weights, and gradients of weights become gradients of scores.
template <class S>
void weigh(const Head<S>& head, const S* out, const S* lse, const S* g, S* weights, S* pull, long first, long m, long start, long n) {
  for (long i = 0; i < m; ++i) {
    const S *o = out + head.out(first + i), *gr = g + head.out(first + i);
    S *w = weights + i * n, *p = pull + i * n, norm = lse[head.lse(first + i)], mean = 0;
    long count = head.seen(first + i, start, n);
    for (long j = 0; j < head.sizes.dv; ++j) mean += o[j] * gr[j];
    for (long j = 0; j < count; ++j) {
      w[j] = exponential(w[j] - norm);
      p[j] = w[j] * (p[j] - mean);
    }
    std::fill(w + count, w + n, S(0));
    std::fill(p + count, p + n, S(0));
  }
}

template <class S>
void attention_backward(const S* q, const S* k, const S* v, const S* out, const S* lse, const S* g, S* dq, S* dk, S* dv, double scale,
                        Sizes sizes, long threads) {
  parallel_products(sizes.B * sizes.H, threads, [&](long piece) {
    Head<S> head{sizes, piece / sizes.H, piece % sizes.H};
    long kp = sizes.H * sizes.dk, vp = sizes.H * sizes.dv, block = std::min(ROWS, sizes.S) * std::min(KEYS, sizes.T);
    Buffer<S> weights(block), pull(block);
    for (long start = 0; start < sizes.T; start += KEYS) {
      long keys = std::min(KEYS, sizes.T - start), from = sizes.causal ? start / ROWS * ROWS : 0;
      for (long j = start; j < start + keys; ++j) {
        std::fill(dk + head.dk(j), dk + head.dk(j) + sizes.dk, S(0));
        std::fill(dv + head.dv(j), dv + head.dv(j) + sizes.dv, S(0));
      }
      for (long first = from; first < sizes.S; first += ROWS) {
        long m = std::min(ROWS, sizes.S - first), n = head.seen(first + m - 1, start, keys);
        Matrix<const S> q_{q + head.q(first), sizes.q_pitch}, k_{k + head.k(start), sizes.k_pitch}, v_{v + head.v(start), sizes.v_pitch},
            g_{g + head.out(first), vp}, w_{weights.data(), n}, p_{pull.data(), n};
        multiply<S>(m, n, sizes.dk, S(scale), q_, turned(k_), S(0), {weights.data(), n});
        multiply<S>(m, n, sizes.dv, S(1), g_, turned(v_), S(0), {pull.data(), n});
        weigh(head, out, lse, g, weights.data(), pull.data(), first, m, start, n);
        multiply<S>(m, sizes.dk, n, S(scale), p_, k_, S(start ? 1 : 0), {dq + head.dq(first), kp});
        multiply<S>(n, sizes.dk, m, S(scale), turned(p_), q_, S(1), {dk + head.dk(start), kp});
        multiply<S>(n, sizes.dv, m, S(1), turned(w_), g_, S(1), {dv + head.dv(start), vp});
      }
    }
  });
}

}  // namespace

#define SIZES long B, long L, long T, long H, long dk_, long dv_, long causal, long q_pitch, long k_pitch, long v_pitch, long threads
#define EXPORT(S, NAME)                                                                                                                \
  extern "C" void attention_##NAME(const S* q, const S* k, const S* v, S* out, S* lse, double scale, SIZES) {                          \
    attention<S>(q, k, v, out, lse, scale, {B, L, T, H, dk_, dv_, causal, q_pitch, k_pitch, v_pitch}, threads);                        \
  }                                                                                                                                    \
  extern "C" void attention_backward_##NAME(const S* q, const S* k, const S* v, const S* out, const S* lse, const S* g, S* dq, S* dk,  \
                                            S* dv, double scale, SIZES) {                                                              \
    attention_backward<S>(q, k, v, out, lse, g, dq, dk, dv, scale, {B, L, T, H, dk_, dv_, causal, q_pitch, k_pitch, v_pitch}, threads);\
  }

EXPORT(float, float)
EXPORT(double, double)
