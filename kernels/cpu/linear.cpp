// Causal sums of linear attention, out_t = sum_{i<=t} (q_t k_i) e^{G_t - G_i} v_i with G the running sum of log decays <= 0, one per head or
// none. Chunks of tokens: scores inside a chunk, between chunks a running state [k, w]. Backward computes the state forward again for q and
// its gradient from the end for k and v, so nothing is saved. G is in double: a strong decay must leave no rounding error.
#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "elementary.h"
#include "products.h"
#include "sizes.h"

namespace {

constexpr long CHUNK = LINEAR_CHUNK;

// One head of one sequence: q, k [T, kw], v [T, vw] of pitches H kw and H vw, decays [T] of pitch H (null for none).
template <class S>
struct Sums {
  const S *q, *k, *v, *decay;
  long T, H, kw, vw, b, h;
  Buffer<double> total;  // G since the chunk's start, its own token included
  Buffer<S> scores, since, until, state, scaled;

  Sums(const S* q, const S* k, const S* v, const S* decay, long T, long H, long kw, long vw, long piece)
      : q(q), k(k), v(v), decay(decay), T(T), H(H), kw(kw), vw(vw), b(piece / H), h(piece % H), total(CHUNK), scores(CHUNK * CHUNK),
        since(CHUNK, S(1)), until(CHUNK, S(1)), state(kw * vw), scaled(CHUNK * kw) {}

  long at(long t, long width) const { return ((b * T + t) * H + h) * width; }
  long keys() const { return H * kw; }
  long values() const { return H * vw; }
  S left() const { return since_last; }

  // Reads the decays of a chunk.
  void enter(long first, long m) {
    since_last = S(1);
    if (!decay) return;
    double sum = 0;
    for (long i = 0; i < m; ++i) total[i] = sum += decay[at(first + i, 1)];
    for (long i = 0; i < m; ++i) {
      since[i] = exponential(S(total[i]));
      until[i] = exponential(S(sum - total[i]));
    }
    since_last = since[m - 1];
  }

  // Decays the scores [m, m] of a chunk and sets those of later keys to zero.
  void decayed(S* squares, long m) const {
    for (long t = 0; t < m; ++t) {
      S* row = squares + t * m;
      if (decay)
        for (long i = 0; i <= t; ++i) row[i] *= exponential(S(total[t] - total[i]));
      std::fill(row + t + 1, row + m, S(0));
    }
  }

  // x [m, kw] from `first` on, each row times its factor; x itself if there is no decay.
  Matrix<const S> by_rows(const S* x, const Buffer<S>& factor, long first, long m) {
    if (!decay) return {x + at(first, kw), keys()};
    for (long t = 0; t < m; ++t) {
      const S* from = x + at(first + t, kw);
      for (long c = 0; c < kw; ++c) scaled[t * kw + c] = from[c] * factor[t];
    }
    return {scaled.data(), kw};
  }

  // state = state · (decay of the chunk) + xᵀ y of the chunk
  void advance(Matrix<const S> x, Matrix<const S> y, long m) {
    multiply<S>(kw, vw, m, S(1), turned(x), y, left(), {state.data(), vw});
  }

 private:
  S since_last = S(1);
};

template <class S>
void linear(const S* q, const S* k, const S* v, const S* decay, S* out, long B, long T, long H, long kw, long vw, long threads) {
  parallel_products(B * H, threads, [&](long piece) {
    Sums<S> sums(q, k, v, decay, T, H, kw, vw, piece);
    for (long first = 0; first < T; first += CHUNK) {
      long m = std::min(CHUNK, T - first);
      Matrix<const S> k_{k + sums.at(first, kw), sums.keys()}, v_{v + sums.at(first, vw), sums.values()}, squares{sums.scores.data(), m};
      Matrix<S> out_{out + sums.at(first, vw), sums.values()};
      sums.enter(first, m);
      multiply<S>(m, m, kw, S(1), {q + sums.at(first, kw), sums.keys()}, turned(k_), S(0), {sums.scores.data(), m});
      sums.decayed(sums.scores.data(), m);
      multiply<S>(m, vw, m, S(1), squares, v_, S(0), out_);
      multiply<S>(m, vw, kw, S(1), sums.by_rows(q, sums.since, first, m), {sums.state.data(), vw}, S(1), out_);
      sums.advance(sums.by_rows(k, sums.until, first, m), v_, m);
    }
  });
}

// Adds x [m, kw], each row times its factor, to out.
template <class S>
void add_rows(Matrix<S> out, const S* x, const S* factor, long m, long kw) {
  for (long t = 0; t < m; ++t)
    for (long c = 0; c < kw; ++c) out.data[t * out.pitch + c] += factor[t] * x[t * kw + c];
}

// d_decay is null if there is no decay.
template <class S>
void linear_backward(const S* q, const S* k, const S* v, const S* decay, const S* g, S* dq, S* dk, S* dv, S* d_decay, long B, long T, long H,
                     long kw, long vw, long threads) {
  parallel_products(B * H, threads, [&](long piece) {
    Sums<S> sums(q, k, v, decay, T, H, kw, vw, piece);
    Buffer<S> pull(CHUNK * CHUNK), narrow(CHUNK * std::max(kw, vw));
    auto chunk = [&](long first) {
      long m = std::min(CHUNK, T - first);
      sums.enter(first, m);
      return m;
    };
    // dq, with the states before each chunk
    for (long first = 0; first < T; first += CHUNK) {
      long m = chunk(first);
      Matrix<const S> k_{k + sums.at(first, kw), sums.keys()}, v_{v + sums.at(first, vw), sums.values()},
          g_{g + sums.at(first, vw), sums.values()}, pull_{pull.data(), m};
      Matrix<S> dq_{dq + sums.at(first, kw), sums.keys()};
      multiply<S>(m, m, vw, S(1), g_, turned(v_), S(0), {pull.data(), m});
      sums.decayed(pull.data(), m);
      multiply<S>(m, kw, m, S(1), pull_, k_, S(0), dq_);
      multiply<S>(m, kw, vw, S(1), g_, {sums.state.data(), vw, true}, S(0), {narrow.data(), kw});
      add_rows<S>(dq_, narrow.data(), sums.since.data(), m, kw);
      sums.advance(sums.by_rows(k, sums.until, first, m), v_, m);
    }
    // dk and dv, with the gradient of the state after each chunk
    std::fill(sums.state.begin(), sums.state.end(), S(0));
    double from_end = 0;
    for (long first = (T - 1) / CHUNK * CHUNK; first >= 0; first -= CHUNK) {
      long m = chunk(first);
      Matrix<const S> q_{q + sums.at(first, kw), sums.keys()}, k_{k + sums.at(first, kw), sums.keys()},
          v_{v + sums.at(first, vw), sums.values()}, g_{g + sums.at(first, vw), sums.values()}, scores{sums.scores.data(), m},
          pull_{pull.data(), m};
      Matrix<S> dk_{dk + sums.at(first, kw), sums.keys()}, dv_{dv + sums.at(first, vw), sums.values()};
      multiply<S>(m, m, kw, S(1), q_, turned(k_), S(0), {sums.scores.data(), m});
      sums.decayed(sums.scores.data(), m);
      multiply<S>(m, m, vw, S(1), g_, turned(v_), S(0), {pull.data(), m});
      sums.decayed(pull.data(), m);
      multiply<S>(m, vw, m, S(1), turned(scores), g_, S(0), dv_);
      multiply<S>(m, vw, kw, S(1), sums.by_rows(k, sums.until, first, m), {sums.state.data(), vw}, S(1), dv_);
      multiply<S>(m, kw, m, S(1), turned(pull_), q_, S(0), dk_);
      multiply<S>(m, kw, vw, S(1), v_, {sums.state.data(), vw, true}, S(0), {narrow.data(), kw});
      add_rows<S>(dk_, narrow.data(), sums.until.data(), m, kw);
      sums.advance(sums.by_rows(q, sums.since, first, m), g_, m);
      for (long t = m - 1; d_decay && t >= 0; --t) {  // q·∂q − k·∂k, summed from the end
        long at = sums.at(first + t, kw);
        for (long c = 0; c < kw; ++c) from_end += double(q[at + c]) * dq[at + c] - double(k[at + c]) * dk[at + c];
        d_decay[sums.at(first + t, 1)] = S(from_end);
      }
    }
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                   \
  extern "C" void linear_##NAME(const S* q, const S* k, const S* v, const S* decay, S* out, long B, long T, long H, long kw, long vw,     \
                                long threads) {                                                                                           \
    linear<S>(q, k, v, decay, out, B, T, H, kw, vw, threads);                                                                             \
  }                                                                                                                                       \
  extern "C" void linear_backward_##NAME(const S* q, const S* k, const S* v, const S* decay, const S* g, S* dq, S* dk, S* dv,             \
                                         S* d_decay, long B, long T, long H, long kw, long vw, long threads) {                            \
    linear_backward<S>(q, k, v, decay, g, dq, dk, dv, d_decay, B, T, H, kw, vw, threads);                                                 \
  }

EXPORT(float, float)
EXPORT(double, double)
