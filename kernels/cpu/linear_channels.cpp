// Causal sums of linear attention with one decay per key channel, out_t = sum_{i<=t} sum_c q_tc k_ic e^{G_tc - G_ic} v_i with G the running
// sum of log decays <= 0. Chunks of tokens as in linear.cpp, and blocks inside a chunk: tokens of a block meet those of earlier blocks at the
// border between them, where both factors are at most 1, in one product; within a block keys decay from token to token. No exponent is
// clipped.
#include "channel_chunks.h"
#include "denormals.h"

namespace {

template <class S>
S dot(const S* x, const S* y, long n) {
  S sum = 0;
  for (long c = 0; c < n; ++c) sum += x[c] * y[c];
  return sum;
}

template <class S>
void add_times(S* out, const S* x, S factor, long n) {
  for (long c = 0; c < n; ++c) out[c] += x[c] * factor;
}

template <class S>
void add_products(S* out, const S* x, const S* y, long n) {
  for (long c = 0; c < n; ++c) out[c] += x[c] * y[c];
}

// One head of one sequence: q, k, decays [T, kw] and v [T, vw] of pitches H kw and H vw.
template <class S>
struct ChannelSums : ChannelChunks<S> {
  using Base = ChannelChunks<S>;
  using Base::at, Base::kw, Base::vw, Base::first, Base::m, Base::kept, Base::state, Base::to_later, Base::to_border;
  const S *q, *k, *v;
  Buffer<S> later, earlier, moving;  // q by to_later, k by to_border, and the rows of a block as they decay
  Buffer<S> scores, pull, narrow;

  ChannelSums(const S* q, const S* k, const S* v, const S* decay, long T, long H, long kw, long vw, long piece)
      : Base(decay, T, H, kw, vw, piece), q(q), k(k), v(v), later(BLOCK * kw), earlier(CHUNK * kw), moving(BLOCK * kw), scores(CHUNK * CHUNK),
        pull(CHUNK * CHUNK), narrow(CHUNK * kw) {}

  const S* key(long t) const { return this->row(k, t); }
  const S* query(long t) const { return this->row(q, t); }

  // Factors and decayed rows: of the block of n tokens from `start` on, and of all tokens of the chunk before the block.
  void meet(long start, long n) {
    Base::meet(start, n);
    this->scale(q, start, n, to_later, later.data());
    this->scale(k, 0, start, to_border, earlier.data());
  }

  // work(t, i, k_i decayed to t) for all i <= t of a block, tokens in order.
  template <class F>
  void keys_at(long start, long n, F work) {
    for (long t = 0; t < n; ++t) {
      for (long i = 0; i < t; ++i)
        for (long c = 0; c < kw; ++c) moving[i * kw + c] *= kept[(start + t) * kw + c];
      std::copy(key(start + t), key(start + t) + kw, &moving[t * kw]);
      for (long i = 0; i <= t; ++i) work(start + t, start + i, &moving[i * kw]);
    }
  }

  // work(t, i, q_t decayed back to i) for all t >= i of a block, from the end.
  template <class F>
  void queries_at(long start, long n, F work) {
    for (long i = n - 1; i >= 0; --i) {
      for (long t = i + 1; t < n; ++t)
        for (long c = 0; c < kw; ++c) moving[t * kw + c] *= kept[(start + i + 1) * kw + c];
      std::copy(query(start + i), query(start + i) + kw, &moving[i * kw]);
      for (long t = i; t < n; ++t) work(start + t, start + i, &moving[t * kw]);
    }
  }

  // scores [m, m] of the chunk, zero for tokens that come later.
  void score() {
    std::fill(scores.begin(), scores.end(), S(0));
    for (long start = 0; start < m; start += BLOCK) {
      long n = std::min(BLOCK, m - start);
      if (start) {
        meet(start, n);
        multiply<S>(n, start, kw, S(1), {later.data(), kw}, {earlier.data(), kw, true}, S(0), {&scores[start * m], m});
      }
      keys_at(start, n, [&](long t, long i, const S* decayed) { scores[t * m + i] = dot(query(t), decayed, kw); });
    }
  }

  // Add to dq and dk the part that comes from `pull`, the gradient of the scores inside the chunk.
  void pull_queries(S* dq) {
    for (long start = 0; start < m; start += BLOCK) {
      long n = std::min(BLOCK, m - start);
      if (start) {
        meet(start, n);
        multiply<S>(n, kw, start, S(1), {&pull[start * m], m}, {earlier.data(), kw}, S(0), {narrow.data(), kw});
        for (long t = 0; t < n; ++t) add_products(dq + at(first + start + t, kw), &narrow[t * kw], &to_later[t * kw], kw);
      }
      keys_at(start, n, [&](long t, long i, const S* decayed) { add_times(dq + at(first + t, kw), decayed, pull[t * m + i], kw); });
    }
  }

  void pull_keys(S* dk) {
    for (long start = 0; start < m; start += BLOCK) {
      long n = std::min(BLOCK, m - start);
      if (start) {
        meet(start, n);
        multiply<S>(start, kw, n, S(1), {&pull[start * m], m, true}, {later.data(), kw}, S(0), {narrow.data(), kw});
        for (long i = 0; i < start; ++i) add_products(dk + at(first + i, kw), &narrow[i * kw], &to_border[i * kw], kw);
      }
      queries_at(start, n, [&](long t, long i, const S* decayed) { add_times(dk + at(first + i, kw), decayed, pull[t * m + i], kw); });
    }
  }

  // d [m, kw] = (x stateᵀ) times factors
  void from_state(S* d, const S* x, const Buffer<S>& factor) {
    multiply<S>(m, kw, vw, S(1), this->of_values(x), turned(this->memory()), S(0), {narrow.data(), kw});
    for (long t = 0; t < m; ++t)
      for (long c = 0; c < kw; ++c) d[at(first + t, kw) + c] = narrow[t * kw + c] * factor[t * kw + c];
  }

  // state = state · (decays of the chunk) + (x times factors)ᵀ y
  void advance(const S* x, const Buffer<S>& factor, const S* y) {
    this->decay_state();
    this->add_to_state(S(1), x, factor, this->of_values(y));
  }
};

template <class S>
void sums(const S* q, const S* k, const S* v, const S* decay, S* out, long B, long T, long H, long kw, long vw, long threads) {
  parallel_products(B * H, threads, [&](long piece) {
    WithoutDenormals guard;
    ChannelSums<S> x(q, k, v, decay, T, H, kw, vw, piece);
    for (long first = 0; first < T; first += CHUNK) {
      x.enter(first);
      x.score();
      multiply<S>(x.m, vw, x.m, S(1), {x.scores.data(), x.m}, x.of_values(v), S(0), x.of_values(out));
      multiply<S>(x.m, vw, kw, S(1), x.by(q, x.since), x.memory(), S(1), x.of_values(out));
      x.advance(k, x.until, v);
    }
  });
}

template <class S>
void sums_backward(const S* q, const S* k, const S* v, const S* decay, const S* g, S* dq, S* dk, S* dv, S* d_decay, long B, long T, long H,
                   long kw, long vw, long threads) {
  parallel_products(B * H, threads, [&](long piece) {
    WithoutDenormals guard;
    ChannelSums<S> x(q, k, v, decay, T, H, kw, vw, piece);
    auto enter = [&](long first) {
      x.enter(first);
      multiply<S>(x.m, x.m, vw, S(1), x.of_values(g), turned(x.of_values(v)), S(0), {x.pull.data(), x.m});
    };
    // dq, with the states before each chunk
    for (long first = 0; first < T; first += CHUNK) {
      enter(first);
      x.from_state(dq, g, x.since);
      x.pull_queries(dq);
      x.advance(k, x.until, v);
    }
    // dk and dv, with the gradient of the state after each chunk
    std::fill(x.state.begin(), x.state.end(), S(0));
    Buffer<double> from_end(kw);
    for (long first = (T - 1) / CHUNK * CHUNK; first >= 0; first -= CHUNK) {
      enter(first);
      x.score();
      multiply<S>(x.m, vw, x.m, S(1), {x.scores.data(), x.m, true}, x.of_values(g), S(0), x.of_values(dv));
      multiply<S>(x.m, vw, kw, S(1), x.by(k, x.until), x.memory(), S(1), x.of_values(dv));
      x.from_state(dk, v, x.until);
      x.pull_keys(dk);
      x.advance(q, x.since, g);
      for (long t = x.m - 1; t >= 0; --t)  // q·∂q − k·∂k, summed from the end
        for (long c = 0, place = x.at(first + t, kw); c < kw; ++c, ++place)
          d_decay[place] = S(from_end[c] += double(q[place]) * dq[place] - double(k[place]) * dk[place]);
    }
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                   \
  extern "C" void linear_channels_##NAME(const S* q, const S* k, const S* v, const S* decay, S* out, long B, long T, long H, long kw,     \
                                         long vw, long threads) {                                                                         \
    sums<S>(q, k, v, decay, out, B, T, H, kw, vw, threads);                                                                               \
  }                                                                                                                                       \
  extern "C" void linear_channels_backward_##NAME(const S* q, const S* k, const S* v, const S* decay, const S* g, S* dq, S* dk, S* dv,    \
                                                  S* d_decay, long B, long T, long H, long kw, long vw, long threads) {                   \
    sums_backward<S>(q, k, v, decay, g, dq, dk, dv, d_decay, B, T, H, kw, vw, threads);                                                   \
  }

EXPORT(float, float)
EXPORT(double, double)
