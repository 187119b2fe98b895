// Scans along the tokens. Channels are independent, so they are processed in blocks of at most W, whose state stays in registers and the
// first cache. Sums that grow with the length are in double. Nothing here relies on infinities.
#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "elementary.h"
#include "parallel.h"
#include "sizes.h"

namespace {

constexpr long W = SCAN_CHANNELS;  // of a block

long blocks_of(long channels) { return (channels + W - 1) / W; }

// h_t = a_t h_{t-1} + x_t over [B, T, R]; from the end when `reverse`.
template <class S>
void diagonal(const S* a, const S* x, S* h, long B, long T, long R, long reverse, long threads) {
  long blocks = blocks_of(R);
  parallel(B * blocks, threads, [&](long piece) {
    long from = piece % blocks * W, w = std::min(W, R - from), start = piece / blocks * T * R + from;
    S state[W] = {};
    for (long s = 0; s < T; ++s) {
      long at = start + (reverse ? T - 1 - s : s) * R;
      for (long i = 0; i < w; ++i) h[at + i] = state[i] = a[at + i] * state[i] + x[at + i];
    }
  });
}

// Gradients of the forward scan: dx_t = g_t + a_{t+1} dx_{t+1}, da_t = dx_t h_{t-1}; mirrored when `reverse`.
template <class S>
void diagonal_backward(const S* a, const S* h, const S* g, S* da, S* dx, long B, long T, long R, long reverse, long threads) {
  long blocks = blocks_of(R), step = reverse ? -R : R;
  parallel(B * blocks, threads, [&](long piece) {
    long from = piece % blocks * W, w = std::min(W, R - from), start = piece / blocks * T * R + from;
    S carry[W] = {};  // a_{t+1} dx_{t+1}
    for (long s = T - 1; s >= 0; --s) {
      long at = start + (reverse ? T - 1 - s : s) * R;
      for (long i = 0; i < w; ++i) {
        S d = g[at + i] + carry[i];
        dx[at + i] = d;
        da[at + i] = s ? d * h[at - step + i] : S(0);
        carry[i] = a[at + i] * d;
      }
    }
  });
}

// y_t = sum_{i<=t} exp(k_i) v_i / sum_{i<=t} exp(k_i): k [B, T, E], v and y [B, T, c, E]; newest [B, T, E] is the weight of the newest token.
template <class S>
void channelwise(const S* k, const S* v, S* y, S* newest, long B, long T, long copies, long E, long threads) {
  long blocks = blocks_of(E);
  parallel(B * blocks, threads, [&](long piece) {
    long b = piece / blocks, from = piece % blocks * W, w = std::min(W, E - from);
    S top[W], add[W], keep[W];
    double sum[W] = {};
    Buffer<double> sums(copies * W, 0.0);
    for (long t = 0; t < T; ++t) {
      const S* kt = k + (b * T + t) * E + from;
      S* st = newest + (b * T + t) * E + from;
      if (!t) std::copy(kt, kt + w, top);
      for (long i = 0; i < w; ++i) {
        S small = std::exp(-std::abs(kt[i] - top[i]));
        bool higher = kt[i] > top[i];
        keep[i] = higher ? small : S(1);
        add[i] = higher ? S(1) : small;
        top[i] = higher ? kt[i] : top[i];
        sum[i] = sum[i] * keep[i] + add[i];
        st[i] = S(add[i] / sum[i]);
      }
      for (long c = 0; c < copies; ++c) {
        long at = ((b * T + t) * copies + c) * E + from;
        double* total = sums.data() + c * W;
        for (long i = 0; i < w; ++i) {
          total[i] = total[i] * keep[i] + double(add[i]) * v[at + i];
          y[at + i] = S(total[i] / sum[i]);
        }
      }
    }
  });
}

// With r_t = g_t + (1 - newest_{t+1}) r_{t+1} and q_t the same of g_t y_t: dv = newest r, dk = newest (v r - q).
template <class S>
void channelwise_backward(
    const S* v, const S* y, const S* newest, const S* g, S* dk, S* dv, long B, long T, long copies, long E, long threads) {
  long blocks = blocks_of(E);
  parallel(B * blocks, threads, [&](long piece) {
    long b = piece / blocks, from = piece % blocks * W, w = std::min(W, E - from);
    Buffer<double> r(copies * W, 0.0), q(copies * W, 0.0);
    double keep[W] = {};
    for (long t = T - 1; t >= 0; --t) {
      const S* st = newest + (b * T + t) * E + from;
      S* dkt = dk + (b * T + t) * E + from;
      double to_k[W] = {};
      for (long c = 0; c < copies; ++c) {
        long at = ((b * T + t) * copies + c) * E + from;
        double *rc = r.data() + c * W, *qc = q.data() + c * W;
        for (long i = 0; i < w; ++i) {
          rc[i] = g[at + i] + keep[i] * rc[i];
          qc[i] = double(g[at + i]) * y[at + i] + keep[i] * qc[i];
          dv[at + i] = S(st[i] * rc[i]);
          to_k[i] += v[at + i] * rc[i] - qc[i];
        }
      }
      for (long i = 0; i < w; ++i) {
        dkt[i] = S(st[i] * to_k[i]);
        keep[i] = 1.0 - st[i];
      }
    }
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                   \
  extern "C" void diagonal_##NAME(const S* a, const S* x, S* h, long B, long T, long R, long reverse, long threads) {                     \
    diagonal<S>(a, x, h, B, T, R, reverse, threads);                                                                                      \
  }                                                                                                                                       \
  extern "C" void diagonal_backward_##NAME(                                                                                               \
      const S* a, const S* h, const S* g, S* da, S* dx, long B, long T, long R, long reverse, long threads) {                             \
    diagonal_backward<S>(a, h, g, da, dx, B, T, R, reverse, threads);                                                                     \
  }                                                                                                                                       \
  extern "C" void channelwise_##NAME(const S* k, const S* v, S* y, S* newest, long B, long T, long copies, long E, long threads) {         \
    channelwise<S>(k, v, y, newest, B, T, copies, E, threads);                                                                             \
  }                                                                                                                                       \
  extern "C" void channelwise_backward_##NAME(                                                                                            \
      const S* v, const S* y, const S* newest, const S* g, S* dk, S* dv, long B, long T, long copies, long E, long threads) {              \
    channelwise_backward<S>(v, y, newest, g, dk, dv, B, T, copies, E, threads);                                                            \
  }

EXPORT(float, float)
EXPORT(double, double)
