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
constexpr long CHUNK = SCAN_CHUNK;  // tokens between two stored states of the selective scan

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

// One block of channels of the selective scan: its inputs, and the states and decays of one chunk.
template <class S>
struct Selective {
  const S *delta, *a, *b, *c, *v;
  long T, copies, E, N, batch, from, w;
  Buffer<S> states, decays, start;

  Selective(const S* delta, const S* a, const S* b, const S* c, const S* v, long T, long copies, long E, long N, long batch, long from)
      : delta(delta), a(a), b(b), c(c), v(v), T(T), copies(copies), E(E), N(N), batch(batch), from(from), w(std::min(W, E - from)),
        states(CHUNK * copies * N * W), decays(CHUNK * N * W), start(copies * N * W) {}

  S* state(long s, long copy, long n) { return states.data() + ((s * copies + copy) * N + n) * W; }
  S* decay(long s, long n) { return decays.data() + (s * N + n) * W; }
  S* begin(long copy, long n) { return start.data() + (copy * N + n) * W; }
  const S* deltas(long t) const { return delta + (batch * T + t) * E + from; }
  long value(long t, long copy) const { return ((batch * T + t) * copies + copy) * E + from; }

  // States of tokens first ... last - 1 from `start`.
  void sweep(long first, long last) {
    for (long t = first; t < last; ++t) {
      const S* dt = deltas(t);
      for (long n = 0; n < N; ++n) {
        S *keep = decay(t - first, n), weight = b[(batch * T + t) * N + n];
        const S* an = a + n * E + from;
        for (long i = 0; i < w; ++i) keep[i] = exponential(dt[i] * an[i]);
        for (long copy = 0; copy < copies; ++copy) {
          const S *before = t == first ? begin(copy, n) : state(t - first - 1, copy, n), *vt = v + value(t, copy);
          S* now = state(t - first, copy, n);
          for (long i = 0; i < w; ++i) now[i] = keep[i] * before[i] + dt[i] * weight * vt[i];
        }
      }
    }
  }
};

// h_t = exp(delta_t a) h_{t-1} + delta_t b_t v_t, y_t = c_t h_t; starts [B, chunks, c, N, E] receives the state before each chunk.
template <class S>
void selective(const S* delta, const S* a, const S* b, const S* c, const S* v, S* y, S* starts, long B, long T, long copies, long E, long N,
               long threads) {
  long blocks = blocks_of(E), chunks = (T + CHUNK - 1) / CHUNK;
  parallel(B * blocks, threads, [&](long piece) {
    Selective<S> block(delta, a, b, c, v, T, copies, E, N, piece / blocks, piece % blocks * W);
    for (long chunk = 0; chunk < chunks; ++chunk) {
      long first = chunk * CHUNK, last = std::min(T, first + CHUNK);
      for (long copy = 0; copy < copies; ++copy)
        for (long n = 0; n < N; ++n)
          std::copy(block.begin(copy, n), block.begin(copy, n) + block.w,
                    starts + (((block.batch * chunks + chunk) * copies + copy) * N + n) * E + block.from);
      block.sweep(first, last);
      for (long t = first; t < last; ++t)
        for (long copy = 0; copy < copies; ++copy) {
          S* out = y + block.value(t, copy);
          std::fill(out, out + block.w, S(0));
          for (long n = 0; n < N; ++n) {
            const S *h = block.state(t - first, copy, n), weight = c[(block.batch * T + t) * N + n];
            for (long i = 0; i < block.w; ++i) out[i] += weight * h[i];
          }
        }
      for (long copy = 0; copy < copies; ++copy)
        for (long n = 0; n < N; ++n) {
          const S* h = block.state(last - 1 - first, copy, n);
          std::copy(h, h + block.w, block.begin(copy, n));
        }
    }
  });
}

// Gradients; those that are sums over blocks or sequences come in parts: da [B, N, E], db and dc [blocks, B, T, N].
template <class S>
void selective_backward(const S* delta, const S* a, const S* b, const S* c, const S* v, const S* starts, const S* g, S* d_delta, S* da, S* db,
                        S* dc, S* dv, long B, long T, long copies, long E, long N, long threads) {
  long blocks = blocks_of(E), chunks = (T + CHUNK - 1) / CHUNK;
  parallel(B * blocks, threads, [&](long piece) {
    long index = piece % blocks;
    Selective<S> block(delta, a, b, c, v, T, copies, E, N, piece / blocks, index * W);
    long batch = block.batch, w = block.w;
    Buffer<S> adjoint(copies * N * W, S(0));
    Buffer<double> to_a(N * W, 0.0);
    for (long chunk = chunks - 1; chunk >= 0; --chunk) {
      long first = chunk * CHUNK, last = std::min(T, first + CHUNK);
      for (long copy = 0; copy < copies; ++copy)
        for (long n = 0; n < N; ++n) {
          const S* saved = starts + (((batch * chunks + chunk) * copies + copy) * N + n) * E + block.from;
          std::copy(saved, saved + w, block.begin(copy, n));
        }
      block.sweep(first, last);
      for (long t = last - 1; t >= first; --t) {
        const S* dt = block.deltas(t);
        S to_delta[W] = {};
        for (long copy = 0; copy < copies; ++copy) std::fill(dv + block.value(t, copy), dv + block.value(t, copy) + w, S(0));
        for (long n = 0; n < N; ++n) {
          long at = (batch * T + t) * N + n;
          const S *an = a + n * E + block.from, *keep = block.decay(t - first, n), weight_b = b[at], weight_c = c[at];
          S through[W] = {}, sum_b = 0, sum_c = 0;  // through: adjoint times the state before, of all copies
          for (long copy = 0; copy < copies; ++copy) {
            const S *h = block.state(t - first, copy, n), *before = t == first ? block.begin(copy, n) : block.state(t - first - 1, copy, n);
            const S *gt = g + block.value(t, copy), *vt = v + block.value(t, copy);
            S *adj = adjoint.data() + (copy * N + n) * W, *to_v = dv + block.value(t, copy);
            for (long i = 0; i < w; ++i) {
              S d = adj[i] + weight_c * gt[i];
              sum_c += h[i] * gt[i];
              sum_b += d * dt[i] * vt[i];
              to_v[i] += d * dt[i] * weight_b;
              to_delta[i] += d * weight_b * vt[i];
              through[i] += d * before[i];
              adj[i] = d * keep[i];
            }
          }
          for (long i = 0; i < w; ++i) {
            S exponent = through[i] * keep[i];
            to_delta[i] += exponent * an[i];
            to_a[n * W + i] += exponent * dt[i];
          }
          db[(index * B * T + batch * T + t) * N + n] = sum_b;
          dc[(index * B * T + batch * T + t) * N + n] = sum_c;
        }
        std::copy(to_delta, to_delta + w, d_delta + (batch * T + t) * E + block.from);
      }
    }
    for (long n = 0; n < N; ++n)
      for (long i = 0; i < w; ++i) da[(batch * N + n) * E + block.from + i] = S(to_a[n * W + i]);
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
  }                                                                                                                                       \
  extern "C" void selective_##NAME(const S* delta, const S* a, const S* b, const S* c, const S* v, S* y, S* starts, long B, long T,       \
                                   long copies, long E, long N, long threads) {                                                           \
    selective<S>(delta, a, b, c, v, y, starts, B, T, copies, E, N, threads);                                                              \
  }                                                                                                                                       \
  extern "C" void selective_backward_##NAME(const S* delta, const S* a, const S* b, const S* c, const S* v, const S* starts, const S* g,  \
                                            S* d_delta, S* da, S* db, S* dc, S* dv, long B, long T, long copies, long E, long N,          \
                                            long threads) {                                                                               \
    selective_backward<S>(delta, a, b, c, v, starts, g, d_delta, da, db, dc, dv, B, T, copies, E, N, threads);                            \
  }

EXPORT(float, float)
EXPORT(double, double)
