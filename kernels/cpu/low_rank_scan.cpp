// The factors of FEM's low-rank convolution (arXiv 2602.07160) from its three projections [a, u, s] of each token, in double precision:
//     h_t = sigmoid(-a_t) h_{t-1} + u_t,   y_t = RMS(softplus(s_t)) LayerNorm(h_t)      over R channels
// sigmoid(-a) is e^-softplus(a). Channels from `forward` on scan from the end. Hidden tokens keep the state. Each sequence is one piece of work:
// its few numbers stay in the cache, and backward computes them again from the projections.
#include <cmath>

#include "buffer.h"
#include "parallel.h"
#include "vectors.h"

namespace {

struct Shape {
  long B, T, R, forward;
};

struct Epsilons {
  double norm, rms;
};

// What one sequence computes before its norms; all [T, R].
struct Sequence {
  const Shape& shape;
  Scratch<double> keep, plus, step, h;

  Sequence(const Shape& shape, const double* given, const unsigned char* hidden)
      : shape(shape), keep(shape.T * shape.R), plus(shape.T * shape.R), step(shape.T * shape.R), h(shape.T * shape.R) {
    const long T = shape.T, R = shape.R;
    for (long t = 0; t < T; ++t)
      for (long r = 0; r < R; ++r) {
        keep[t * R + r] = given[3 * t * R + r];
        plus[t * R + r] = given[(3 * t + 2) * R + r];
      }
    for (long i = 0; i < T * R; i += LANES<double>) {
      const long n = T * R - i;
      const Soft<double> scale(load(plus.data() + i, n));
      store(plus.data() + i, scale.plus, n);
      store(step.data() + i, scale.step, n);
      const Vector<double> a = load(keep.data() + i, n), e = exp_of_negative<double>(a < 0.0 ? a : -a);
      store(keep.data() + i, (a < 0.0 ? Vector<double>{} + 1.0 : e) / (1.0 + e), n);
    }
    scan(given, hidden);
  }

  bool backwards(long r) const { return r >= shape.forward; }
  // of the token before in the direction of the channel's scan; negative at its start
  long before(long t, long r) const {
    const long from = backwards(r) ? t + 1 : t - 1;
    return from >= 0 && from < shape.T ? from * shape.R + r : -1;
  }

 private:
  void scan(const double* given, const unsigned char* hidden) {
    const long T = shape.T, R = shape.R;
    for (long s = 0; s < T; ++s)
      for (long r = 0; r < R; ++r) {
        const long t = backwards(r) ? T - 1 - s : s, at = before(t, r);
        const double old = at < 0 ? 0.0 : h[at];
        h[t * R + r] = hidden && hidden[t] ? old : keep[t * R + r] * old + given[(3 * t + 1) * R + r];
      }
  }
};

// The norms of one token.
struct Norms {
  double mean = 0, inverse = 0, scale = 0;  // of h; 1 / its standard deviation; 1 / the root mean square of softplus(s)

  Norms(const double* h, const double* plus, long R, Epsilons eps) {
    double square = 0, size = 0;
    for (long r = 0; r < R; ++r) mean += h[r], size += plus[r] * plus[r];
    mean /= double(R);
    for (long r = 0; r < R; ++r) square += (h[r] - mean) * (h[r] - mean);
    inverse = 1 / std::sqrt(square / double(R) + eps.norm);
    scale = 1 / std::sqrt(size / double(R) + eps.rms);
  }
};

// given [B, T, 3R]; hidden [B, T], or null for none; y [B, T, R]
template <class S>
void low_rank_scan(S* y, const double* given, const unsigned char* hidden, Epsilons eps, Shape shape, long threads) {
  const long T = shape.T, R = shape.R;
  parallel(shape.B, threads, [&](long b) {
    const Sequence all(shape, given + b * T * 3 * R, hidden ? hidden + b * T : nullptr);
    for (long t = 0; t < T; ++t) {
      const double *h = all.h.data() + t * R, *plus = all.plus.data() + t * R;
      const Norms norms(h, plus, R, eps);
      for (long r = 0; r < R; ++r) y[(b * T + t) * R + r] = S(plus[r] * norms.scale * (h[r] - norms.mean) * norms.inverse);
    }
  });
}

// Gradients of one token by its h, and by its s through softplus. With n = LayerNorm(h) and m = RMS(softplus(s)): y = m n.
template <class S>
void token_backward(const S* g, const double* h, const double* plus, const double* step, double* to_h, double* to_s, long R, Epsilons eps) {
  const Norms norms(h, plus, R, eps);
  double pull = 0, along_n = 0, along_m = 0;
  for (long r = 0; r < R; ++r) {
    const double n = (h[r] - norms.mean) * norms.inverse, m = plus[r] * norms.scale, to_n = double(g[r]) * m;
    pull += to_n, along_n += to_n * n;
    along_m += double(g[r]) * n * m;
  }
  pull /= double(R), along_n /= double(R), along_m /= double(R);
  for (long r = 0; r < R; ++r) {
    const double n = (h[r] - norms.mean) * norms.inverse, m = plus[r] * norms.scale;
    to_h[r] = norms.inverse * (double(g[r]) * m - pull - n * along_n);
    to_s[r] = norms.scale * (double(g[r]) * n - m * along_m) * step[r];
  }
}

// to_given [B, T, 3R]
template <class S>
void low_rank_scan_backward(const S* g, const double* given, const unsigned char* hidden, double* to_given, Epsilons eps, Shape shape,
                            long threads) {
  const long T = shape.T, R = shape.R;
  parallel(shape.B, threads, [&](long b) {
    const unsigned char* skipped = hidden ? hidden + b * T : nullptr;
    const Sequence all(shape, given + b * T * 3 * R, skipped);
    double* to = to_given + b * T * 3 * R;
    for (long t = 0; t < T; ++t)
      token_backward(g + (b * T + t) * R, all.h.data() + t * R, all.plus.data() + t * R, all.step.data() + t * R, to + (3 * t + 1) * R,
                     to + (3 * t + 2) * R, R, eps);
    Buffer<double> carried(R, 0.0);  // the gradient of a state by those of later ones
    for (long s = T - 1; s >= 0; --s)
      for (long r = 0; r < R; ++r) {
        const long t = all.backwards(r) ? T - 1 - s : s, at = all.before(t, r);
        const double to_state = to[(3 * t + 1) * R + r] + carried[r], keep = all.keep[t * R + r];
        const bool skip = skipped && skipped[t];
        to[3 * t * R + r] = skip || at < 0 ? 0.0 : -to_state * all.h[at] * keep * (1 - keep);
        to[(3 * t + 1) * R + r] = skip ? 0.0 : to_state;
        carried[r] = skip ? to_state : to_state * keep;
      }
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                \
  extern "C" void low_rank_scan_##NAME(S* y, const double* given, const unsigned char* hidden, double norm_eps, double rms_eps, long B, \
                                       long T, long R, long forward, long threads) {                                                   \
    low_rank_scan<S>(y, given, hidden, {norm_eps, rms_eps}, {B, T, R, forward}, threads);                                             \
  }                                                                                                                                    \
  extern "C" void low_rank_scan_backward_##NAME(const S* g, const double* given, const unsigned char* hidden, double* to_given,       \
                                                double norm_eps, double rms_eps, long B, long T, long R, long forward, long threads) { \
    low_rank_scan_backward<S>(g, given, hidden, to_given, {norm_eps, rms_eps}, {B, T, R, forward}, threads);                           \
  }

EXPORT(float, float)
EXPORT(double, double)
