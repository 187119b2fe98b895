// Linear attention in chunks: what sums and the delta rule share. One head of one sequence, q and k [T, kw], v [T, vw], log decays [T], whose
// tokens lie H heads apart; log decays are null for none. G, the running sum of a chunk's log decays, is in double: a strong decay must leave
// no rounding error.
#pragma once
#include <algorithm>

#include "buffer.h"
#include "elementary.h"
#include "products.h"
#include "sizes.h"

constexpr long CHUNK = LINEAR_CHUNK;

template <class S>
struct Chunks {
  const S* decay;
  long T, H, kw, vw, b, h;
  Buffer<double> total;                  // G since the chunk's start, its own token included
  Buffer<S> since, until, scaled, state;  // e^G, e^{G_C - G}, x by one of them, and the memory [kw, vw]
  S left = S(1);                          // e^{G_C}

  Chunks(const S* decay, long T, long H, long kw, long vw, long piece)
      : decay(decay), T(T), H(H), kw(kw), vw(vw), b(piece / H), h(piece % H), total(CHUNK), since(CHUNK, S(1)), until(CHUNK, S(1)),
        scaled(CHUNK * kw), state(kw * vw) {}

  long at(long t, long width) const { return ((b * T + t) * H + h) * width; }
  Matrix<const S> keys(const S* x, long first) const { return {x + at(first, kw), H * kw}; }
  Matrix<const S> values(const S* x, long first) const { return {x + at(first, vw), H * vw}; }
  Matrix<S> keys(S* x, long first) const { return {x + at(first, kw), H * kw}; }
  Matrix<S> values(S* x, long first) const { return {x + at(first, vw), H * vw}; }
  Matrix<const S> memory() const { return {state.data(), vw}; }

  // Reads the decays of a chunk; its length.
  long enter(long first) {
    long m = std::min(CHUNK, T - first);
    if (!decay) return m;
    double sum = 0;
    for (long t = 0; t < m; ++t) total[t] = sum += decay[at(first + t, 1)];
    for (long t = 0; t < m; ++t) {
      since[t] = exponential(S(total[t]));
      until[t] = exponential(S(sum - total[t]));
    }
    left = since[m - 1];
    return m;
  }

  // x [m, kw] from `first` on, each row times its factor; x itself if there is no decay.
  Matrix<const S> by_rows(const S* x, const Buffer<S>& factor, long first, long m) {
    if (!decay) return keys(x, first);
    for (long t = 0; t < m; ++t) {
      const S* from = x + at(first + t, kw);
      for (long c = 0; c < kw; ++c) scaled[t * kw + c] = from[c] * factor[t];
    }
    return {scaled.data(), kw};
  }

  // state = its decay · state + xᵀ y, of one chunk
  void advance(Matrix<const S> x, Matrix<const S> y, long m) { multiply<S>(kw, vw, m, S(1), turned(x), y, left, {state.data(), vw}); }
};

// Adds by · x [m, kw], each row times its factor, to out.
template <class S>
void add_rows(Matrix<S> out, S by, const S* x, const S* factor, long m, long kw) {
  for (long t = 0; t < m; ++t)
    for (long c = 0; c < kw; ++c) out.data[t * out.pitch + c] += by * factor[t] * x[t * kw + c];
}
