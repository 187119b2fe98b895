// Causal sums of linear attention, out_t = sum_{i<=t} (q_t k_i) e^{G_t - G_i} v_i with G the running sum of log decays <= 0, one per head or
// none. Chunks of tokens: scores inside a chunk, between chunks a running state [k, w]. Backward computes the state forward again for q and
// its gradient from the end for k and v, so nothing is saved.
#include "chunks.h"

namespace {

template <class S>
struct Sums : Chunks<S> {
  using Chunks<S>::decay, Chunks<S>::total;
  Buffer<S> scores;

  Sums(const S* decay, long T, long H, long kw, long vw, long piece) : Chunks<S>(decay, T, H, kw, vw, piece), scores(CHUNK * CHUNK) {}

  // Decays the scores [m, m] of a chunk and sets those of later keys to zero.
  void decayed(S* squares, long m) const {
    for (long t = 0; t < m; ++t) {
      S* row = squares + t * m;
      if (decay)
        for (long i = 0; i <= t; ++i) row[i] *= exponential(S(total[t] - total[i]));
      std::fill(row + t + 1, row + m, S(0));
    }
  }
};

template <class S>
void linear(const S* q, const S* k, const S* v, const S* decay, S* out, long B, long T, long H, long kw, long vw, long threads) {
  parallel_products(B * H, threads, [&](long piece) {
    Sums<S> sums(decay, T, H, kw, vw, piece);
    for (long first = 0; first < T; first += CHUNK) {
      long m = sums.enter(first);
      Matrix<const S> k_ = sums.keys(k, first), v_ = sums.values(v, first), squares{sums.scores.data(), m};
      Matrix<S> out_ = sums.values(out, first);
      multiply<S>(m, m, kw, S(1), sums.keys(q, first), turned(k_), S(0), {sums.scores.data(), m});
      sums.decayed(sums.scores.data(), m);
      multiply<S>(m, vw, m, S(1), squares, v_, S(0), out_);
      multiply<S>(m, vw, kw, S(1), sums.by_rows(q, sums.since, first, m), sums.memory(), S(1), out_);
      sums.advance(sums.by_rows(k, sums.until, first, m), v_, m);
    }
  });
}

// d_decay is null if there is no decay.
template <class S>
void linear_backward(const S* q, const S* k, const S* v, const S* decay, const S* g, S* dq, S* dk, S* dv, S* d_decay, long B, long T, long H,
                     long kw, long vw, long threads) {
  parallel_products(B * H, threads, [&](long piece) {
    Sums<S> sums(decay, T, H, kw, vw, piece);
    Buffer<S> pull(CHUNK * CHUNK), narrow(CHUNK * std::max(kw, vw));
    // dq, with the states before each chunk
    for (long first = 0; first < T; first += CHUNK) {
      long m = sums.enter(first);
      Matrix<const S> k_ = sums.keys(k, first), v_ = sums.values(v, first), g_ = sums.values(g, first), pull_{pull.data(), m};
      Matrix<S> dq_ = sums.keys(dq, first);
      multiply<S>(m, m, vw, S(1), g_, turned(v_), S(0), {pull.data(), m});
      sums.decayed(pull.data(), m);
      multiply<S>(m, kw, m, S(1), pull_, k_, S(0), dq_);
      multiply<S>(m, kw, vw, S(1), g_, turned(sums.memory()), S(0), {narrow.data(), kw});
      add_rows<S>(dq_, S(1), narrow.data(), sums.since.data(), m, kw);
      sums.advance(sums.by_rows(k, sums.until, first, m), v_, m);
    }
    // dk and dv, with the gradient of the state after each chunk
    std::fill(sums.state.begin(), sums.state.end(), S(0));
    double from_end = 0;
    for (long first = (T - 1) / CHUNK * CHUNK; first >= 0; first -= CHUNK) {
      long m = sums.enter(first);
      Matrix<const S> q_ = sums.keys(q, first), k_ = sums.keys(k, first), v_ = sums.values(v, first), g_ = sums.values(g, first),
                      scores{sums.scores.data(), m}, pull_{pull.data(), m};
      Matrix<S> dk_ = sums.keys(dk, first), dv_ = sums.values(dv, first);
      multiply<S>(m, m, kw, S(1), q_, turned(k_), S(0), {sums.scores.data(), m});
      sums.decayed(sums.scores.data(), m);
      multiply<S>(m, m, vw, S(1), g_, turned(v_), S(0), {pull.data(), m});
      sums.decayed(pull.data(), m);
      multiply<S>(m, vw, m, S(1), turned(scores), g_, S(0), dv_);
      multiply<S>(m, vw, kw, S(1), sums.by_rows(k, sums.until, first, m), sums.memory(), S(1), dv_);
      multiply<S>(m, kw, m, S(1), turned(pull_), q_, S(0), dk_);
      multiply<S>(m, kw, vw, S(1), v_, turned(sums.memory()), S(0), {narrow.data(), kw});
      add_rows<S>(dk_, S(1), narrow.data(), sums.until.data(), m, kw);
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
