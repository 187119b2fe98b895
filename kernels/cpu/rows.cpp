// What works on one row or one number at a time: the root-mean-square norm and the gated SiLU, each in one pass over memory where a chain
// of tensor operations takes five to ten. Sums over rows come in parts of PIECE rows, so that they don't depend on the number of threads.
#include <algorithm>
#include <cmath>

#include "parallel.h"

namespace {

constexpr long PIECE = 64;  // rows of a part

long pieces_of(long rows) { return (rows + PIECE - 1) / PIECE; }

// y = x * scale * gain with scale = 1 / sqrt(mean(x^2) + eps), kept a row.
template <class S>
void rms_norm(const S* x, const S* gain, S* y, S* scale, long rows, long D, double eps, long threads) {
  parallel(pieces_of(rows), threads, [&](long piece) {
    for (long row = piece * PIECE; row < std::min(rows, (piece + 1) * PIECE); ++row) {
      const S* xr = x + row * D;
      S sum = 0, *yr = y + row * D;
      for (long i = 0; i < D; ++i) sum += xr[i] * xr[i];
      S by = scale[row] = S(1) / std::sqrt(sum / S(D) + S(eps));
      for (long i = 0; i < D; ++i) yr[i] = xr[i] * by * gain[i];
    }
  });
}

// dx = scale (g gain - x scale^2 mean(g gain x)); d_gain [parts, D].
template <class S>
void rms_norm_backward(const S* x, const S* gain, const S* scale, const S* g, S* dx, S* d_gain, long rows, long D, long threads) {
  parallel(pieces_of(rows), threads, [&](long piece) {
    S* part = d_gain + piece * D;
    std::fill(part, part + D, S(0));
    for (long row = piece * PIECE; row < std::min(rows, (piece + 1) * PIECE); ++row) {
      const S *xr = x + row * D, *gr = g + row * D;
      S by = scale[row], dot = 0, *dr = dx + row * D;
      for (long i = 0; i < D; ++i) {
        S pull = gr[i] * xr[i];
        dot += pull * gain[i];
        part[i] += pull * by;
      }
      S along = dot / S(D) * by * by;
      for (long i = 0; i < D; ++i) dr[i] = by * (gr[i] * gain[i] - xr[i] * along);
    }
  });
}

template <class S>
S logistic(S x) {
  return S(1) / (S(1) + std::exp(std::min(-x, S(80))));
}

// y = silu(a) b of rows [a, b] of width 2F.
template <class S>
void gated_silu(const S* ab, S* y, long rows, long F, long threads) {
  parallel(pieces_of(rows), threads, [&](long piece) {
    for (long row = piece * PIECE; row < std::min(rows, (piece + 1) * PIECE); ++row) {
      const S *a = ab + row * 2 * F, *b = a + F;
      for (long i = 0; i < F; ++i) y[row * F + i] = a[i] * logistic(a[i]) * b[i];
    }
  });
}

template <class S>
void gated_silu_backward(const S* ab, const S* g, S* d_ab, long rows, long F, long threads) {
  parallel(pieces_of(rows), threads, [&](long piece) {
    for (long row = piece * PIECE; row < std::min(rows, (piece + 1) * PIECE); ++row) {
      const S *a = ab + row * 2 * F, *b = a + F, *gr = g + row * F;
      S *da = d_ab + row * 2 * F, *db = da + F;
      for (long i = 0; i < F; ++i) {
        S s = logistic(a[i]);
        da[i] = gr[i] * b[i] * s * (S(1) + a[i] * (S(1) - s));
        db[i] = gr[i] * a[i] * s;
      }
    }
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                  \
  extern "C" void rms_norm_##NAME(const S* x, const S* gain, S* y, S* scale, double eps, long rows, long D, long threads) {              \
    rms_norm<S>(x, gain, y, scale, rows, D, eps, threads);                                                                               \
  }                                                                                                                                      \
  extern "C" void rms_norm_backward_##NAME(const S* x, const S* gain, const S* scale, const S* g, S* dx, S* d_gain, long rows, long D,   \
                                           long threads) {                                                                               \
    rms_norm_backward<S>(x, gain, scale, g, dx, d_gain, rows, D, threads);                                                               \
  }                                                                                                                                      \
  extern "C" void gated_silu_##NAME(const S* ab, S* y, long rows, long F, long threads) { gated_silu<S>(ab, y, rows, F, threads); }      \
  extern "C" void gated_silu_backward_##NAME(const S* ab, const S* g, S* d_ab, long rows, long F, long threads) {                        \
    gated_silu_backward<S>(ab, g, d_ab, rows, F, threads);                                                                               \
  }

EXPORT(float, float)
EXPORT(double, double)
