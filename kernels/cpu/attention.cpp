// Softmax attention over tensors [B, T, H, width] where they are, with values of any width. Blocks of rows meet blocks of keys: their scores
// stay in the cache, the library computes the products, and backward computes the weights again from the log-sum-exp of each row.
//
// With gates, the scores of row t and key i lose |c_t - c_i|, c the sums of their logarithms log_f [B, T, H] in double precision: differences of
// large sums stay exact. With a window w, row t sees keys less than w away; blocks that no row sees are left out.
//
// With tables of cosines and sines, queries and keys are rotated by their positions as they are read, and their gradients back as they are
// written: rotated ones exist for one head at a time.
#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "buffer.h"
#include "denormals.h"
#include "elementary.h"
#include "products.h"
#include "rotated.h"
#include "vectors.h"

namespace {

// Of a block. Its rows of scores are padded to whole vectors. Exponentials are taken of whole vectors, too: of single numbers they take as long
// as several vectors. For that, what a row does not see gets a harmless score before, and the weight zero afterwards.
constexpr long ROWS = 64, KEYS = 512;

struct Sizes {
  long B, S, T, H, dk, dv, causal, window;  // window: 0 for none
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
  long gate(long row) const { return (b * sizes.T + row) * sizes.H + h; }
  long lse(long row) const { return (b * sizes.H + h) * sizes.S + row; }
  // Of the `count` keys from `start` on a row sees those from `past` up to `seen`.
  long past(long row, long start, long count) const { return std::max(0L, std::min(count, first_key(row) - start)); }
  long seen(long row, long start, long count) const {
    long end = sizes.causal ? row + 1 : sizes.window ? row + sizes.window : sizes.T;
    return std::max(0L, std::min(count, end - start));
  }
  long first_key(long row) const { return sizes.window ? std::max(0L, row + 1 - sizes.window) : 0; }
  // The rows that see a key are from `first_row` up to `end_row`.
  long first_row(long key) const { return sizes.causal ? key : sizes.window ? std::max(0L, key + 1 - sizes.window) : 0; }
  long end_row(long key) const { return sizes.window ? std::min(sizes.S, key + sizes.window) : sizes.S; }
};

// The summed log-gates of one head, and the gradient of the sums. Near a few rows the sums differ by little: in the precision of the scores,
// they are taken relative to one of these rows, so that no gap between two near tokens is a difference of large numbers.
template <class S>
struct Decays {
  static constexpr long NEAR = 16;  // rows that share a reference
  Buffer<double> sums, pulls;
  Buffer<S> relative, columns;  // of the keys of a block: sums, and gradients over its rows
  double reference = 0;
  bool any;

  Decays(const Head<S>& head, const S* log_f, bool backward)
      : sums(log_f ? head.sizes.T : 0), pulls(log_f && backward ? head.sizes.T : 0), relative(log_f ? KEYS : 0),
        columns(log_f && backward ? KEYS : 0), any(log_f) {
    if (!any) return;
    double sum = 0;
    for (long t = 0; t < head.sizes.T; ++t) sums[t] = sum += double(log_f[head.gate(t)]);
    std::fill(pulls.begin(), pulls.end(), 0.0);
  }

  // Row i of a block of rows from `first` on, and n keys from `start` on.
  void apply(S* scores, long first, long i, long start, long n, long from, long to) {
    if (!any) return;
    if (i % NEAR == 0) {
      reference = sums[first + i];  // of no later row: the future changes no bit of the past
      for (long j = 0; j < n; ++j) relative[j] = S(sums[start + j] - reference);
    }
    S own = S(sums[first + i] - reference);
    const S* keys = relative.data();
    for (long j = from; j < to; ++j) scores[j] -= std::abs(own - keys[j]);
  }

  void begin(long n) { std::fill(columns.begin(), columns.begin() + (any ? n : 0), S(0)); }

  // From the gradients of a row's scores to those of the sums: keys up to the row have the one sign, later keys the other.
  void pull(const S* grads, long row, long start, long from, long to) {
    if (!any) return;
    long middle = std::max(from, std::min(to, row + 1 - start));
    S own = 0, *column = columns.data();
    for (long j = from; j < middle; ++j) own += grads[j], column[j] -= grads[j];
    for (long j = middle; j < to; ++j) own -= grads[j], column[j] += grads[j];
    pulls[row] += double(own);
  }

  void end(long start, long n) {
    for (long j = 0; any && j < n; ++j) pulls[start + j] += double(columns[j]);
  }

  // A gate is part of every sum from its token on.
  void finish(const Head<S>& head, S* to_log_f) const {
    double sum = 0;
    for (long t = any ? head.sizes.T : 0; t--;) to_log_f[head.gate(t)] = S(sum += pulls[t]);
  }
};

// A factor of products with all rows of queries, packed unless there is a window: then the rows see keys from different places on.
template <class S>
class Shared {
 public:
  Shared(const Sizes& sizes, long k, long n, Matrix<const S> b) {
    if (!sizes.window) packed.emplace(k, n, b);
  }
  // `b` is the same factor from where the rows begin
  void multiply_by(long m, long n, long k, S by, Matrix<const S> a, Matrix<const S> b, S keep, Matrix<S> out) const {
    if (packed) multiply<S>(m, n, k, by, a, *packed, keep, out);
    else multiply<S>(m, n, k, by, a, b, keep, out);
  }

 private:
  std::optional<Packed<S>> packed;
};

// out [B, S, H, dv]; lse [B, H, S]
template <class S>
void attention(const S* q, const S* k, const S* v, const S* log_f, const S* cosine, const S* sine, S* out, S* lse, double scale, Sizes sizes,
               long threads) {
  const Rotations<S> turns(cosine, sine, sizes.T, sizes.dk);
  parallel_products(sizes.B * sizes.H, threads, [&](long piece) {
    WithoutDenormals guard(log_f);
    Head<S> head{sizes, piece / sizes.H, piece % sizes.H};
    long op = sizes.H * sizes.dv;
    Scratch<S> scores(std::min(ROWS, sizes.S) * whole_vectors<S>(std::min(KEYS, sizes.T)));
    Decays<S> decays(head, log_f, false);
    const Rotated<S> queries(q + head.q(0), sizes.q_pitch, sizes.S, sizes.dk, turns), every_key(k + head.k(0), sizes.k_pitch, sizes.T, sizes.dk, turns);
    std::vector<Shared<S>> keys, values;
    for (long start = 0, n; start < sizes.T; start += n) {
      n = std::min(KEYS, sizes.T - start);
      keys.emplace_back(sizes, sizes.dk, n, turned(every_key.from(start)));
      values.emplace_back(sizes, n, sizes.dv, Matrix<const S>{v + head.v(start), sizes.v_pitch});
    }
    for (long first = 0; first < sizes.S; first += ROWS) {
      long m = std::min(ROWS, sizes.S - first);
      S top[ROWS], sum[ROWS] = {};
      long begin = head.first_key(first);
      for (long start = begin; start < sizes.T; start += KEYS) {
        long n = head.seen(first + m - 1, start, std::min(KEYS, sizes.T - start));
        if (!n) break;
        const Matrix<S> block{scores.data(), whole_vectors<S>(n)};
        keys[start / KEYS].multiply_by(m, n, sizes.dk, S(scale), queries.from(first), turned(every_key.from(start)), S(0), block);
        for (long i = 0; i < m; ++i) {
          S *s = block.data + i * block.pitch, *o = out + head.out(first + i), added = 0;
          long count = head.seen(first + i, start, n), hidden = std::min(count, head.past(first + i, start, n));
          long from = hidden / LANES<S> * LANES<S>, end = whole_vectors<S>(count);
          decays.apply(s, first, i, start, n, hidden, count);
          S highest = largest(s + hidden, count - hidden, start > begin ? top[i] : s[hidden]);  // every row sees a key of the first block
          std::fill(s + from, s + hidden, highest);
          std::fill(s + count, s + end, highest);
          for (long j = from; j < end; ++j) s[j] = exponential(s[j] - highest);
          std::fill(s, s + hidden, S(0));
          std::fill(s + count, s + block.pitch, S(0));
          for (long j = from; j < end; ++j) added += s[j];
          S keep = start > begin ? exponential(top[i] - highest) : S(0);
          if (start > begin)
            for (long j = 0; j < sizes.dv; ++j) o[j] *= keep;
          sum[i] = sum[i] * keep + added;
          top[i] = highest;
        }
        values[start / KEYS].multiply_by(m, sizes.dv, n, S(1), {block.data, block.pitch}, {v + head.v(start), sizes.v_pitch},
                                         S(start > begin ? 1 : 0), {out + head.out(first), op});
      }
      for (long i = 0; i < m; ++i) {
        S *o = out + head.out(first + i), inverse = S(1) / sum[i];
        for (long j = 0; j < sizes.dv; ++j) o[j] *= inverse;
        lse[head.lse(first + i)] = top[i] + std::log(sum[i]);
      }
    }
  });
}

// Of one block of rows of `pitch` numbers: scores become weights, and gradients of weights become gradients of scores.
template <class S>
void weigh(const Head<S>& head, Decays<S>& decays, const S* out, const S* lse, const S* g, S* weights, S* pull, long first, long m, long start,
           long n, long pitch) {
  decays.begin(n);
  for (long i = 0; i < m; ++i) {
    const S *o = out + head.out(first + i), *gr = g + head.out(first + i);
    S *w = weights + i * pitch, *p = pull + i * pitch, norm = lse[head.lse(first + i)], mean = 0;
    long count = head.seen(first + i, start, n), hidden = std::min(count, head.past(first + i, start, n));
    long from = hidden / LANES<S> * LANES<S>, end = whole_vectors<S>(count);
    for (long j = 0; j < head.sizes.dv; ++j) mean += o[j] * gr[j];
    decays.apply(w, first, i, start, n, hidden, count);
    for (auto [x, harmless] : {std::pair{w, norm}, std::pair{p, mean}}) {
      std::fill(x + from, x + hidden, harmless);
      std::fill(x + count, x + end, harmless);
    }
    for (long j = from; j < end; ++j) {
      w[j] = exponential(w[j] - norm);
      p[j] = w[j] * (p[j] - mean);
    }
    decays.pull(p, first + i, start, hidden, count);
    for (S* each : {w, p}) {
      std::fill(each, each + hidden, S(0));
      std::fill(each + count, each + pitch, S(0));
    }
  }
  decays.end(start, n);
}

template <class S>
void attention_backward(const S* q, const S* k, const S* v, const S* log_f, const S* cosine, const S* sine, const S* out, const S* lse,
                        const S* g, S* dq, S* dk, S* dv, S* to_log_f, double scale, Sizes sizes, long threads) {
  const Rotations<S> turns(cosine, sine, sizes.T, sizes.dk), back(cosine, sine, sizes.T, sizes.dk, true);
  parallel_products(sizes.B * sizes.H, threads, [&](long piece) {
    WithoutDenormals guard(log_f);
    Head<S> head{sizes, piece / sizes.H, piece % sizes.H};
    long kp = sizes.H * sizes.dk, vp = sizes.H * sizes.dv, block = std::min(ROWS, sizes.S) * whole_vectors<S>(std::min(KEYS, sizes.T));
    Scratch<S> weights(block), pull(block);
    Decays<S> decays(head, log_f, true);
    const Rotated<S> queries(q + head.q(0), sizes.q_pitch, sizes.S, sizes.dk, turns), every_key(k + head.k(0), sizes.k_pitch, sizes.T, sizes.dk, turns);
    const RotatedGradient<S> to_q(dq + head.dq(0), kp, sizes.S, sizes.dk, bool(turns)),
        to_k(dk + head.dk(0), kp, sizes.T, sizes.dk, bool(turns));
    for (long start = 0; start < sizes.T; start += KEYS) {
      long keys = std::min(KEYS, sizes.T - start), from = head.first_row(start) / ROWS * ROWS, until = head.end_row(start + keys - 1);
      for (long j = start; j < start + keys; ++j) std::fill(dv + head.dv(j), dv + head.dv(j) + sizes.dv, S(0));
      Matrix<const S> block_k = every_key.from(start), block_v{v + head.v(start), sizes.v_pitch};
      Shared<S> keys_across(sizes, sizes.dk, keys, turned(block_k)), values_across(sizes, sizes.dv, keys, turned(block_v)),
          keys_down(sizes, keys, sizes.dk, block_k);
      for (long first = from; first < until; first += ROWS) {
        // the keys of the block that a row of these sees
        long m = std::min(ROWS, sizes.S - first), begin = start + head.past(first, start, keys);
        long n = head.seen(first + m - 1, begin, start + keys - begin), pitch = whole_vectors<S>(n);
        Matrix<const S> q_ = queries.from(first), k_ = every_key.from(begin), v_{v + head.v(begin), sizes.v_pitch},
            g_{g + head.out(first), vp}, w_{weights.data(), pitch}, p_{pull.data(), pitch};
        keys_across.multiply_by(m, n, sizes.dk, S(scale), q_, turned(k_), S(0), {weights.data(), pitch});
        values_across.multiply_by(m, n, sizes.dv, S(1), g_, turned(v_), S(0), {pull.data(), pitch});
        weigh(head, decays, out, lse, g, weights.data(), pull.data(), first, m, begin, n, pitch);
        keys_down.multiply_by(m, sizes.dk, n, S(scale), p_, k_, S(1), to_q.from(first));
        multiply<S>(n, sizes.dk, m, S(scale), turned(p_), q_, S(1), to_k.from(begin));
        multiply<S>(n, sizes.dv, m, S(1), turned(w_), g_, S(1), {dv + head.dv(begin), vp});
      }
    }
    to_q.finish(back);
    to_k.finish(back);
    decays.finish(head, to_log_f);
  });
}

}  // namespace

#define SIZES                                                                                                                                  \
  long B, long L, long T, long H, long dk_, long dv_, long causal, long window, long q_pitch, long k_pitch, long v_pitch, long threads
#define EXPORT(S, NAME)                                                                                                                        \
  extern "C" void attention_##NAME(const S* q, const S* k, const S* v, const S* log_f, const S* cosine, const S* sine, S* out, S* lse,         \
                                   double scale, SIZES) {                                                                                      \
    attention<S>(q, k, v, log_f, cosine, sine, out, lse, scale, {B, L, T, H, dk_, dv_, causal, window, q_pitch, k_pitch, v_pitch}, threads);   \
  }                                                                                                                                            \
  extern "C" void attention_backward_##NAME(const S* q, const S* k, const S* v, const S* log_f, const S* cosine, const S* sine, const S* out,  \
                                            const S* lse, const S* g, S* dq, S* dk, S* dv, S* to_log_f, double scale, SIZES) {                 \
    attention_backward<S>(q, k, v, log_f, cosine, sine, out, lse, g, dq, dk, dv, to_log_f, scale,                                              \
                          {B, L, T, H, dk_, dv_, causal, window, q_pitch, k_pitch, v_pitch}, threads);                                         \
  }

EXPORT(float, float)
EXPORT(double, double)
