// Rotations of pairs of channels (2c, 2c + 1) by position (rotary positions).
#pragma once
#include "buffer.h"
#include "registers.h"

// Pairs of channels in one vector. Loops over pairs that are stored next to each other vectorise badly: heads have few pairs.
constexpr int PAIRED_BYTES = 32;
template <class S>
constexpr long PAIRED = PAIRED_BYTES / sizeof(S);
template <class S>
using Pairs = typename AnyAddress<S, PAIRED_BYTES>::Vector;

// The two numbers of each pair, exchanged.
inline Pairs<float> swapped(Pairs<float> x) { return Pairs<float>{x[1], x[0], x[3], x[2], x[5], x[4], x[7], x[6]}; }
inline Pairs<double> swapped(Pairs<double> x) { return Pairs<double>{x[1], x[0], x[3], x[2]}; }

// Cosines and sines of the w channels of each token as a rotation multiplies them, [T, 2, w], from the tables [T, w / 2]; none without tables.
template <class S>
class Rotations {
 public:
  Rotations(const S* cosine, const S* sine, long T, long w, bool back = false) : table(cosine ? T * 2 * w : 0), w(w) {
    for (long t = 0; cosine && t < T; ++t) {
      S *along = table.data() + t * 2 * w, *across = along + w;
      const S *c = cosine + t * (w / 2), *s = sine + t * (w / 2);
      for (long i = 0; i < w / 2; ++i) {
        S turn = back ? -s[i] : s[i];
        along[2 * i] = along[2 * i + 1] = c[i];
        across[2 * i] = -turn;
        across[2 * i + 1] = turn;
      }
    }
  }

  explicit operator bool() const { return table.data(); }

  // y, which may be x, is x [w] rotated by the angles of token t
  void turn(long t, const S* x, S* y) const {
    const S *along = table.data() + t * 2 * w, *across = along + w;
    const long whole = w / PAIRED<S> * PAIRED<S>;
    for (long c = 0; c < whole; c += PAIRED<S>) {
      const Pairs<S> own = vector_at<PAIRED_BYTES>(x + c), same = vector_at<PAIRED_BYTES>(along + c);
      vector_at<PAIRED_BYTES>(y + c) = own * same + swapped(own) * vector_at<PAIRED_BYTES>(across + c);
    }
    for (long c = whole; c < w; c += 2) {
      const S first = x[c], second = x[c + 1];
      y[c] = first * along[c] + second * across[c];
      y[c + 1] = second * along[c + 1] + first * across[c + 1];
    }
  }

 private:
  Scratch<S> table;
  long w;
};
