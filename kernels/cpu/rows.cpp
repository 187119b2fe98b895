// Operations on one row at a time: the root-mean-square norm and the rotation by positions, each in one pass over memory where a chain of
// tensor operations takes several.
#include <algorithm>

#include "buffer.h"
#include "norms.h"
#include "parts.h"
#include "rotation.h"

namespace {

template <class S>
void rms_norm(const S* x, const S* gain, S* y, S* scale, long rows, long D, double eps, long threads) {
  by_parts(rows, threads, [&](long, long first, long end) {
    for (long row = first; row < end; ++row) scale[row] = normed_row(x + row * D, gain, y + row * D, D, S(eps));
  });
}

template <class S>
void rms_norm_backward(const S* x, const S* gain, const S* scale, const S* g, S* dx, S* d_gain, long rows, long D, long threads) {
  const S* nothing = nullptr;
  const PartSums<S> gains(d_gain, D, parts_of(rows));
  by_parts(rows, threads, [&](long index, long first, long end) {
    S* part = gains[index];
    std::fill(part, part + D, S(0));
    for (long row = first; row < end; ++row)
      normed_row_backward(x + row * D, gain, scale[row], g + row * D, nothing, dx + row * D, part, D);
  });
  gains.add(threads);
}

// Rotates pairs of channels (2c, 2c + 1) of x by the angle whose cosine and sine are in row t of the tables [T, w / 2], in the opposite
// direction if `back`. Rows of x are `pitch` numbers apart; y [B, T, H, w].
template <class S>
void rotate(const S* x, const S* cosine, const S* sine, S* y, long B, long T, long H, long w, long pitch, long back, long threads) {
  const Rotations<S> turns(cosine, sine, T, w, back);
  by_parts(B * T, threads, [&](long, long first, long end) {
    for (long row = first; row < end; ++row)
      for (long h = 0; h < H; ++h) turns.turn(row % T, x + row * pitch + h * w, y + (row * H + h) * w);
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
