// One token of a short convolution with SiLU, in place: y = silu(bias + w_0 x + sum of w_j past_j), the newest of the past first.
#include <algorithm>

#include "elementary.h"

namespace {

template <class S>
void step(S* past, const S* x, const S* taps, const S* bias, S* y, long B, long J, long c, long pitch) {
  for (long b = 0; b < B; ++b, past += (J - 1) * c, x += pitch, y += c) {
    for (long i = 0; i < c; ++i) y[i] = (bias ? bias[i] : S(0)) + taps[i] * x[i];
    for (long j = 1; j < J; ++j)
      for (long i = 0; i < c; ++i) y[i] += taps[j * c + i] * past[(j - 1) * c + i];
    for (long j = J - 2; j > 0; --j) std::copy(past + (j - 1) * c, past + j * c, past + j * c);
    if (J > 1) std::copy(x, x + c, past);
    for (long i = 0; i < c; ++i) y[i] *= logistic(y[i]);
  }
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                              \
  extern "C" long silu_convolution_step_##NAME(S* past, const S* x, const S* taps, const S* bias, S* y, long B, long J, long c,      \
                                               long pitch, long) {                                                                  \
    step<S>(past, x, taps, bias, y, B, J, c, pitch);                                                                                 \
    return 0;                                                                                                                        \
  }

EXPORT(float, float)
EXPORT(double, double)
