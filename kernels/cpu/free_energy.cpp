// Before and after the one attention pass of the free-energy read: values [v, w] with w = exp(beta v), or expm1 in channels where beta is
// small, and F = log(mean of w) / beta from what was read. N rows of C = H d channels, d per head; sums over rows come in parts of
// ROWS_PER_PART rows, so that they don't depend on the number of threads.
#include <algorithm>
#include <cmath>

#include "parts.h"

namespace {

template <class S>
struct Channels {
  const S* beta;
  S bound;  // of beta, below which a channel is small
  long C, d;
  bool any_small;

  Channels(const S* beta, double bound, long C, long d) : beta(beta), bound(S(bound)), C(C), d(d), any_small(false) {
    for (long i = 0; i < C; ++i) any_small |= beta[i] < this->bound;
  }
  S small(long i) const { return beta[i] < bound ? S(1) : S(0); }

  // f(channel, index of its v in [v, w], index of its w), head by head
  template <class F>
  void each(F f) const {
    for (long head = 0; head < C; head += d)
      for (long j = 0; j < d; ++j) f(head + j, 2 * head + j, 2 * head + d + j);
  }
};

// work(part, row, whether it is the first of its part)
template <class F>
void by_rows(long N, long threads, F work) {
  by_parts(N, threads, [&](long part, long first, long end) {
    for (long row = first; row < end; ++row) work(part, row, row == first);
  });
}

// values [N, H, 2d] from v [N, C]; beta v is clamped at the tops: the caller replaces rows that see a clamped value
template <class S>
void carried(const S* v, const S* beta, S* values, double bound, double top, double small_top, long N, long C, long d, long threads) {
  Channels<S> channels(beta, bound, C, d);
  auto clamp = [](S u, S limit) { return std::min(std::max(u, -limit), limit); };
  S high = S(top), low = S(small_top);
  by_rows(N, threads, [&](long, long row, bool) {
    const S* x = v + row * C;
    S* out = values + row * 2 * C;
    if (channels.any_small)
      channels.each([&](long i, long at_v, long at_w) {
        S u = x[i] * beta[i];
        out[at_v] = x[i];
        out[at_w] = beta[i] < channels.bound ? std::expm1(clamp(u, low)) : std::exp(clamp(u, high));
      });
    else
      channels.each([&](long i, long at_v, long at_w) {
        out[at_v] = x[i];
        out[at_w] = std::exp(clamp(x[i] * beta[i], high));
      });
  });
}

// mu and F [N, C] from what was read [N, H, 2d]
template <class S>
void free_energy(const S* read, const S* beta, S* mu, S* F, double bound, long N, long C, long d, long threads) {
  Channels<S> channels(beta, bound, C, d);
  by_rows(N, threads, [&](long, long row, bool) {
    const S* in = read + row * 2 * C;
    S *m = mu + row * C, *f = F + row * C;
    if (channels.any_small)
      channels.each([&](long i, long at_v, long at_w) {
        m[i] = in[at_v];
        f[i] = (beta[i] < channels.bound ? std::log1p(in[at_w]) : std::log(in[at_w])) / beta[i];
      });
    else
      channels.each([&](long i, long at_v, long at_w) {
        m[i] = in[at_v];
        f[i] = std::log(in[at_w]) / beta[i];
      });
  });
}

// The gradient of what was read, and the part of the gradient of beta that comes through F = log / beta: parts [parts, C].
template <class S>
void free_energy_backward(const S* g_mu, const S* g_F, const S* read, const S* F, const S* beta, S* g_read, S* parts, double bound, long N,
                          long C, long d, long threads) {
  Channels<S> channels(beta, bound, C, d);
  by_rows(N, threads, [&](long index, long row, bool first) {
    const S *in = read + row * 2 * C, *gm = g_mu + row * C, *gf = g_F + row * C, *f = F + row * C;
    S *out = g_read + row * 2 * C, *part = parts + index * C;
    if (first) std::fill(part, part + C, S(0));
    channels.each([&](long i, long at_v, long at_w) {
      S to_log = gf[i] / beta[i];
      out[at_v] = gm[i];
      out[at_w] = to_log / (in[at_w] + channels.small(i));
      part[i] -= to_log * f[i];
    });
  });
}

// The gradient of v from that of the values, and the part of the gradient of beta that comes through w: parts [parts, C].
template <class S>
void carried_backward(const S* g_values, const S* values, const S* beta, S* dv, S* parts, double bound, long N, long C, long d,
                      long threads) {
  Channels<S> channels(beta, bound, C, d);
  by_rows(N, threads, [&](long index, long row, bool first) {
    const S *g = g_values + row * 2 * C, *in = values + row * 2 * C;
    S *out = dv + row * C, *part = parts + index * C;
    if (first) std::fill(part, part + C, S(0));
    channels.each([&](long i, long at_v, long at_w) {
      S to_u = g[at_w] * (in[at_w] + channels.small(i));
      out[i] = g[at_v] + to_u * beta[i];
      part[i] += to_u * in[at_v];
    });
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                   \
  extern "C" void carried_##NAME(const S* v, const S* beta, S* values, double bound, double top, double small_top, long N, long C,        \
                                 long d, long threads) {                                                                                  \
    carried<S>(v, beta, values, bound, top, small_top, N, C, d, threads);                                                                 \
  }                                                                                                                                       \
  extern "C" void free_energy_##NAME(const S* read, const S* beta, S* mu, S* F, double bound, long N, long C, long d, long threads) {     \
    free_energy<S>(read, beta, mu, F, bound, N, C, d, threads);                                                                           \
  }                                                                                                                                       \
  extern "C" void free_energy_backward_##NAME(const S* g_mu, const S* g_F, const S* read, const S* F, const S* beta, S* g_read, S* parts, \
                                              double bound, long N, long C, long d, long threads) {                                       \
    free_energy_backward<S>(g_mu, g_F, read, F, beta, g_read, parts, bound, N, C, d, threads);                                            \
  }                                                                                                                                       \
  extern "C" void carried_backward_##NAME(const S* g_values, const S* values, const S* beta, S* dv, S* parts, double bound, long N,       \
                                          long C, long d, long threads) {                                                                 \
    carried_backward<S>(g_values, values, beta, dv, parts, bound, N, C, d, threads);                                                      \
  }

EXPORT(float, float)
EXPORT(double, double)
