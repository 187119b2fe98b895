// One token of FEM's low-rank convolution (backbones/mixers/fem/convolution.py), in place, in fp64 as there whatever the dtype of x:
//     a, u, s = LayerNorm(x) W',   h <- e^-softplus(a) h + u,   out = RMS(softplus(s)) LayerNorm(h)
#include <algorithm>
#include <cmath>

#include "buffer.h"

namespace {

// z = (x - mean) / sqrt(variance + eps)
template <class S>
void layer_norm(const S* x, long n, double eps, double* z) {
  double mean = 0, square = 0;
  for (long i = 0; i < n; ++i) mean += x[i];
  mean /= n;
  for (long i = 0; i < n; ++i) {
    z[i] = x[i] - mean;
    square += z[i] * z[i];
  }
  double scale = 1 / std::sqrt(square / n + eps);
  for (long i = 0; i < n; ++i) z[i] *= scale;
}

double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

template <class S>
void convolution_step(S* h, const S* x, const S* w, S* out, double x_eps, double h_eps, double rms_eps, long B, long D, long R) {
  Buffer<double> z(D), made(3 * R), normed(R);
  for (long b = 0; b < B; ++b, x += D, h += R, out += R) {
    layer_norm(x, D, x_eps, z.data());
    for (long r = 0; r < 3 * R; ++r) {
      const S* row = w + r * D;
      double sum = 0;
      for (long i = 0; i < D; ++i) sum += z[i] * row[i];
      made[r] = sum;
    }
    double square = 0;
    for (long r = 0; r < R; ++r) {
      made[r] = std::exp(-softplus(made[r])) * h[r] + made[R + r];
      double s = made[2 * R + r] = softplus(made[2 * R + r]);
      square += s * s;
    }
    double scale = 1 / std::sqrt(square / R + rms_eps);
    layer_norm(made.data(), R, h_eps, normed.data());
    for (long r = 0; r < R; ++r) {
      h[r] = S(made[r]);
      out[r] = S(made[2 * R + r] * scale * normed[r]);
    }
  }
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                         \
  extern "C" long convolution_step_##NAME(S* h, const S* x, const S* w, S* out, double x_eps, double h_eps, double rms_eps, long B, \
                                          long D, long R, long) {                                                               \
    convolution_step<S>(h, x, w, out, x_eps, h_eps, rms_eps, B, D, R);                                                          \
    return 0;                                                                                                                   \
  }

EXPORT(float, float)
EXPORT(double, double)
