// Linear attention in chunks with one decay per key channel: what sums and the delta rule share. One head of one sequence, decays [T, kw], whose
// tokens lie H heads apart. G, the running sum of a chunk's log decays, is in double: a strong decay must leave no rounding error.
#pragma once
#include <algorithm>

#include "buffer.h"
#include "elementary.h"
#include "products.h"
#include "sizes.h"

constexpr long CHUNK = LINEAR_CHUNK, BLOCK = 16;

template <class S>
struct ChannelChunks {
  const S* decay;
  long T, H, kw, vw, b, h;
  long first = 0, m = 0;                          // of the chunk: its first token and its length
  Buffer<double> total;                           // [CHUNK, kw] G since the chunk's start, its own token included
  Buffer<S> kept, since, until;                   // [CHUNK, kw] e^g of a token, e^G, e^{G of the last - G}
  Buffer<S> scaled, state;                        // [CHUNK, kw] rows by one of them, and the memory [kw, vw]
  Buffer<S> to_later, to_border;                  // [BLOCK, kw] from the border before a block to its tokens; [CHUNK, kw] from earlier tokens to it

  ChannelChunks(const S* decay, long T, long H, long kw, long vw, long piece)
      : decay(decay), T(T), H(H), kw(kw), vw(vw), b(piece / H), h(piece % H), total(CHUNK * kw), kept(CHUNK * kw), since(CHUNK * kw),
        until(CHUNK * kw), scaled(CHUNK * kw), state(kw * vw), to_later(BLOCK * kw), to_border(CHUNK * kw) {}

  long at(long t, long width) const { return ((b * T + t) * H + h) * width; }
  const S* row(const S* x, long t) const { return x + at(first + t, kw); }
  Matrix<const S> of_values(const S* x) const { return {x + at(first, vw), H * vw}; }
  Matrix<S> of_values(S* x) const { return {x + at(first, vw), H * vw}; }
  Matrix<const S> memory() const { return {state.data(), vw}; }

  // Reads the decays of the chunk that begins at `from`.
  void enter(long from) {
    first = from;
    m = std::min(CHUNK, T - first);
    for (long t = 0; t < m; ++t) {
      const S* g = decay + at(first + t, kw);
      for (long c = 0; c < kw; ++c) {
        total[t * kw + c] = (t ? total[(t - 1) * kw + c] : 0.0) + g[c];
        kept[t * kw + c] = exponential(g[c]);
        since[t * kw + c] = exponential(S(total[t * kw + c]));
      }
    }
    const double* last = &total[(m - 1) * kw];
    for (long t = 0; t < m; ++t)
      for (long c = 0; c < kw; ++c) until[t * kw + c] = exponential(S(last[c] - total[t * kw + c]));
  }

  // The rows of x in the chunk, times factors.
  Matrix<const S> by(const S* x, const Buffer<S>& factor) {
    for (long t = 0; t < m; ++t) {
      const S* from = row(x, t);
      for (long c = 0; c < kw; ++c) scaled[t * kw + c] = from[c] * factor[t * kw + c];
    }
    return {scaled.data(), kw};
  }

  // n rows of x from token `start` of the chunk on, times factors.
  void scale(const S* x, long start, long n, const Buffer<S>& factor, S* out) const {
    for (long t = 0; t < n; ++t) {
      const S* from = row(x, start + t);
      for (long c = 0; c < kw; ++c) out[t * kw + c] = from[c] * factor[t * kw + c];
    }
  }

  // Factors at the border before the block of n tokens from `start` on.
  void meet(long start, long n) {
    const double* border = &total[(start - 1) * kw];
    for (long t = 0; t < n; ++t)
      for (long c = 0; c < kw; ++c) to_later[t * kw + c] = exponential(S(total[(start + t) * kw + c] - border[c]));
    for (long i = 0; i < start; ++i)
      for (long c = 0; c < kw; ++c) to_border[i * kw + c] = exponential(S(border[c] - total[i * kw + c]));
  }

  // state = the decays of the chunk · state
  void decay_state() {
    for (long c = 0; c < kw; ++c)
      for (long w = 0; w < vw; ++w) state[c * vw + w] *= since[(m - 1) * kw + c];
  }

  // state += by · (x times factors)ᵀ y
  void add_to_state(S by_, const S* x, const Buffer<S>& factor, Matrix<const S> y) {
    multiply<S>(kw, vw, m, by_, turned(by(x, factor)), y, S(1), {state.data(), vw});
  }
};
