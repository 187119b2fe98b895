// Operations on one row at a time: the root-mean-square norm and the rotation by positions, each in one pass over memory where a chain of
// tensor operations takes several. Sums over rows come in parts of ROWS_PER_PART rows, so that they don't depend on the number of threads.
#include <algorithm>

#include "buffer.h"
#include "norms.h"
#include "parts.h"
#include "registers.h"

namespace {

template <class S>
void rms_norm(const S* x, const S* gain, S* y, S* scale, long rows, long D, double eps, long threads) {
  by_parts(rows, threads, [&](long, long first, long end) {
    for (long row = first; row < end; ++row) scale[row] = normed_row(x + row * D, gain, y + row * D, D, S(eps));
  });
}

// d_gain [parts, D]
template <class S>
void rms_norm_backward(const S* x, const S* gain, const S* scale, const S* g, S* dx, S* d_gain, long rows, long D, long threads) {
  const S* nothing = nullptr;
  by_parts(rows, threads, [&](long index, long first, long end) {
    S* part = d_gain + index * D;
    std::fill(part, part + D, S(0));
    for (long row = first; row < end; ++row)
      normed_row_backward(x + row * D, gain, scale[row], g + row * D, nothing, dx + row * D, part, D);
  });
}

// Pairs of channels in one vector. Loops over pairs that are stored next to each other vectorise badly: heads have few pairs.
constexpr int PAIRED_BYTES = 32;
template <class S>
constexpr long PAIRED = PAIRED_BYTES / sizeof(S);
template <class S>
using Pairs = typename AnyAddress<S, PAIRED_BYTES>::Vector;

// The two numbers of each pair, exchanged.
inline Pairs<float> swapped(Pairs<float> x) { return Pairs<float>{x[1], x[0], x[3], x[2], x[5], x[4], x[7], x[6]}; }
inline Pairs<double> swapped(Pairs<double> x) { return Pairs<double>{x[1], x[0], x[3], x[2]}; }

// Cosines and sines of the channels of each token, as `rotate` multiplies them: [T, 2, w] from the tables [T, w / 2].
template <class S>
Scratch<S> rotations(const S* cosine, const S* sine, long T, long w, long back) {
  Scratch<S> table(T * 2 * w);
  for (long t = 0; t < T; ++t) {
    S *along = table.data() + t * 2 * w, *across = along + w;
    const S *c = cosine + t * (w / 2), *s = sine + t * (w / 2);
    for (long i = 0; i < w / 2; ++i) {
      S turn = back ? -s[i] : s[i];
      along[2 * i] = along[2 * i + 1] = c[i];
      across[2 * i] = -turn;
      across[2 * i + 1] = turn;
    }
  }
  return table;
}

// Rotates pairs of channels (2c, 2c + 1) of x by the angle whose cosine and sine are in row t of the tables [T, w / 2], in the opposite
// direction if `back`. Rows of x are `pitch` numbers apart; y [B, T, H, w].
template <class S>
void rotate(const S* x, const S* cosine, const S* sine, S* y, long B, long T, long H, long w, long pitch, long back, long threads) {
  const Scratch<S> table = rotations(cosine, sine, T, w, back);
  by_parts(B * T, threads, [&](long, long first, long end) {
    const long whole = w / PAIRED<S> * PAIRED<S>;
    for (long row = first; row < end; ++row) {
      const S *xr = x + row * pitch, *along = table.data() + row % T * 2 * w, *across = along + w;
      S* yr = y + row * H * w;
      for (long h = 0; h < H; ++h, xr += w, yr += w) {
        for (long c = 0; c < whole; c += PAIRED<S>) {
          const Pairs<S> own = vector_at<PAIRED_BYTES>(xr + c), same = vector_at<PAIRED_BYTES>(along + c);
          vector_at<PAIRED_BYTES>(yr + c) = own * same + swapped(own) * vector_at<PAIRED_BYTES>(across + c);
        }
        for (long c = whole; c < w; c += 2) {
          yr[c] = xr[c] * along[c] + xr[c + 1] * across[c];
          yr[c + 1] = xr[c + 1] * along[c + 1] + xr[c] * across[c + 1];
        }
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
