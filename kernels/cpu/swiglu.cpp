// The feed-forward part of a block, y = (silu(x Ugᵀ) * (x Uuᵀ)) Dᵀ, with U = [Ug; Uu] [2F, D] and D [D, F]. Each block of rows is computed to
// the end while it is in the cache; z = x Uᵀ [N, 2F] is saved for backward, everything in between is computed again.
//
// Also with the norm and the sums around it, the rest of a block after its mixer: h = x + m, y = h + swiglu(norm(h)).
#include <algorithm>

#include "buffer.h"
#include "gating.h"
#include "norms.h"
#include "parts.h"
#include "products.h"
#include "sizes.h"

namespace {

constexpr long NUMBERS = 1 << 16;  // of z in a block

long rows_of(long F) { return std::max(16L, std::min(512L, NUMBERS / (2 * F) / 16 * 16)); }

template <class S>
void swiglu(const S* x, const S* up, const S* down, S* z, S* y, long N, long D, long F, long threads) {
  long rows = rows_of(F);
  Packed<S> up_(D, 2 * F, {up, D, true}), down_(F, D, {down, F, true});
  parallel_products((N + rows - 1) / rows, threads, [&](long piece) {
    long first = piece * rows, m = std::min(rows, N - first);
    Scratch<S> a(m * F);
    multiply<S>(m, 2 * F, D, S(1), {x + first * D, D}, up_, S(0), {z + first * 2 * F, 2 * F});
    gated(z + first * 2 * F, a.data(), m, F);
    multiply<S>(m, D, F, S(1), {a.data(), F}, down_, S(0), {y + first * D, D});
  });
}

// A part without rows gives zero to the gradients of the weights.
template <class S>
void swiglu_backward(const S* x, const S* up, const S* down, const S* z, const S* g, S* dx, S* d_up, S* d_down, long N, long D, long F,
                     long threads) {
  long rows = rows_of(F), part = (N + WEIGHT_PARTS - 1) / WEIGHT_PARTS;
  Packed<S> up_(2 * F, D, {up, D}), down_(D, F, {down, F});
  const WeightSums<S> ups(d_up, 2 * F * D), downs(d_down, D * F);
  parallel_products(WEIGHT_PARTS, threads, [&](long piece) {
    Scratch<S> a(rows * F), da(rows * F), dz(rows * 2 * F);
    S *to_up = ups[piece], *to_down = downs[piece];
    if (piece * part >= N) {
      std::fill(to_up, to_up + 2 * F * D, S(0));
      std::fill(to_down, to_down + D * F, S(0));
    }
    for (long first = piece * part, end = std::min(N, first + part); first < end; first += rows) {
      const long m = std::min(rows, end - first);
      const S keep = S(first > piece * part ? 1 : 0);  // the first block writes where the others add
      Matrix<const S> g_{g + first * D, D}, x_{x + first * D, D}, a_{a.data(), F}, dz_{dz.data(), 2 * F};
      multiply<S>(m, F, D, S(1), g_, down_, S(0), {da.data(), F});
      gated_backward(z + first * 2 * F, da.data(), a.data(), dz.data(), m, F);
      multiply<S>(m, D, 2 * F, S(1), dz_, up_, S(0), {dx + first * D, D});
      multiply<S>(2 * F, D, m, S(1), turned(dz_), x_, keep, {to_up, D});
      multiply<S>(D, F, m, S(1), turned(g_), a_, keep, {to_down, F});
    }
  });
  ups.add(threads);
  downs.add(threads);
}

// Saves h [N, D], the scale of each row's norm and z for backward.
template <class S>
void feed_forward(const S* x, const S* m, const S* gain, const S* up, const S* down, S* h, S* scale, S* z, S* y, double eps, long N, long D,
                  long F, long threads) {
  long rows = rows_of(F);
  Packed<S> up_(D, 2 * F, {up, D, true}), down_(F, D, {down, F, true});
  parallel_products((N + rows - 1) / rows, threads, [&](long piece) {
    long first = piece * rows, count = std::min(rows, N - first);
    Scratch<S> a(count * F), normed(count * D);
    for (long row = first; row < first + count; ++row) {
      S *hr = h + row * D, *yr = y + row * D;
      for (long i = 0; i < D; ++i) yr[i] = hr[i] = x[row * D + i] + m[row * D + i];
      scale[row] = normed_row<S>(hr, gain, normed.data() + (row - first) * D, D, S(eps));
    }
    multiply<S>(count, 2 * F, D, S(1), {normed.data(), D}, up_, S(0), {z + first * 2 * F, 2 * F});
    gated(z + first * 2 * F, a.data(), count, F);
    multiply<S>(count, D, F, S(1), {a.data(), F}, down_, S(1), {y + first * D, D});
  });
}

// dx is the gradient of x and of m.
template <class S>
void feed_forward_backward(const S* h, const S* gain, const S* scale, const S* up, const S* down, const S* z, const S* g, S* dx, S* d_gain,
                           S* d_up, S* d_down, long N, long D, long F, long threads) {
  long rows = rows_of(F), part = (N + WEIGHT_PARTS - 1) / WEIGHT_PARTS;
  Packed<S> up_(2 * F, D, {up, D}), down_(D, F, {down, F});
  const WeightSums<S> gains(d_gain, D), ups(d_up, 2 * F * D), downs(d_down, D * F);
  parallel_products(WEIGHT_PARTS, threads, [&](long piece) {
    Scratch<S> a(rows * F), da(rows * F), dz(rows * 2 * F), normed(rows * D), dn(rows * D);
    S *to_gain = gains[piece], *to_up = ups[piece], *to_down = downs[piece];
    std::fill(to_gain, to_gain + D, S(0));
    if (piece * part >= N) {
      std::fill(to_up, to_up + 2 * F * D, S(0));
      std::fill(to_down, to_down + D * F, S(0));
    }
    for (long first = piece * part, end = std::min(N, first + part); first < end; first += rows) {
      const long m = std::min(rows, end - first);
      const S keep = S(first > piece * part ? 1 : 0);  // the first block writes where the others add
      Matrix<const S> g_{g + first * D, D}, normed_{normed.data(), D}, a_{a.data(), F}, dz_{dz.data(), 2 * F};
      multiply<S>(m, F, D, S(1), g_, down_, S(0), {da.data(), F});
      gated_backward(z + first * 2 * F, da.data(), a.data(), dz.data(), m, F);
      multiply<S>(m, D, 2 * F, S(1), dz_, up_, S(0), {dn.data(), D});
      for (long row = 0; row < m; ++row) {
        long at = (first + row) * D;
        for (long i = 0; i < D; ++i) normed[row * D + i] = h[at + i] * scale[first + row] * gain[i];
        normed_row_backward(h + at, gain, scale[first + row], dn.data() + row * D, g + at, dx + at, to_gain, D);
      }
      multiply<S>(2 * F, D, m, S(1), turned(dz_), normed_, keep, {to_up, D});
      multiply<S>(D, F, m, S(1), turned(g_), a_, keep, {to_down, F});
    }
  });
  gains.add(threads);
  ups.add(threads);
  downs.add(threads);
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                  \
  extern "C" void swiglu_##NAME(const S* x, const S* up, const S* down, S* z, S* y, long N, long D, long F, long threads) {              \
    swiglu<S>(x, up, down, z, y, N, D, F, threads);                                                                                      \
  }                                                                                                                                      \
  extern "C" void swiglu_backward_##NAME(const S* x, const S* up, const S* down, const S* z, const S* g, S* dx, S* d_up, S* d_down,      \
                                         long N, long D, long F, long threads) {                                                         \
    swiglu_backward<S>(x, up, down, z, g, dx, d_up, d_down, N, D, F, threads);                                                           \
  }                                                                                                                                      \
  extern "C" void feed_forward_##NAME(const S* x, const S* m, const S* gain, const S* up, const S* down, S* h, S* scale, S* z, S* y,     \
                                      double eps, long N, long D, long F, long threads) {                                                \
    feed_forward<S>(x, m, gain, up, down, h, scale, z, y, eps, N, D, F, threads);                                                        \
  }                                                                                                                                      \
  extern "C" void feed_forward_backward_##NAME(const S* h, const S* gain, const S* scale, const S* up, const S* down, const S* z,        \
                                               const S* g, S* dx, S* d_gain, S* d_up, S* d_down, long N, long D, long F, long threads) { \
    feed_forward_backward<S>(h, gain, scale, up, down, z, g, dx, d_gain, d_up, d_down, N, D, F, threads);                                \
  }

EXPORT(float, float)
EXPORT(double, double)
