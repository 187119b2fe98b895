// Operations on one row at a time: the root-mean-square norm and the rotation by positions, each in one pass over memory where a chain of
// tensor operations takes several. Sums over rows come in parts of ROWS_PER_PART rows, so that they don't depend on the number of threads.
#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "parts.h"

namespace {

// y = x * scale * gain with scale = 1 / sqrt(mean(x^2) + eps), saved for each row.
template <class S>
void rms_norm(const S* x, const S* gain, S* y, S* scale, long rows, long D, double eps, long threads) {
  by_parts(rows, threads, [&](long, long first, long end) {
    for (long row = first; row < end; ++row) {
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
  by_parts(rows, threads, [&](long index, long first, long end) {
    S* part = d_gain + index * D;
    std::fill(part, part + D, S(0));
    for (long row = first; row < end; ++row) {
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

// Rotates pairs of channels (2c, 2c + 1) of x by the angle whose cosine and sine are in row t of the tables [T, w / 2], in the opposite
// direction if `back`. Rows of x are `pitch` numbers apart; y [B, T, H, w].
template <class S>
void rotate(const S* x, const S* cosine, const S* sine, S* y, long B, long T, long H, long w, long pitch, long back, long threads) {
  long half = w / 2;
  by_parts(B * T, threads, [&](long, long first, long end) {
    Buffer<S> along(w), across(w);
    for (long row = first; row < end; ++row) {
      const S *xr = x + row * pitch, *cr = cosine + row % T * half, *sr = sine + row % T * half;
      for (long c = 0; c < half; ++c) {
        S turn = back ? -sr[c] : sr[c];
        along[2 * c] = along[2 * c + 1] = cr[c];
        across[2 * c] = -turn;
        across[2 * c + 1] = turn;
      }
      S* yr = y + row * H * w;
      for (long h = 0; h < H; ++h, xr += w, yr += w)
        for (long c = 0; c < w; c += 2) {
          yr[c] = xr[c] * along[c] + xr[c + 1] * across[c];
          yr[c + 1] = xr[c + 1] * along[c + 1] + xr[c] * across[c + 1];
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
  extern "C" void rotate_##NAME(const S* x, const S* cosine, const S* sine, S* y, long B, long T, long H, long w, long pitch, long back,  \
                                long threads) {                                                                                          \
    rotate<S>(x, cosine, sine, y, B, T, H, w, pitch, back, threads);                                                                     \
  }

EXPORT(float, float)
EXPORT(double, double)
