// One token of attention with the second Taylor polynomial (kernels/decoding/taylor.py), in place: rotation and features of q and k,
//     S <- S + phi(k) [v, 1]',     o = (phi(q)' S)_v / max((phi(q)' S)_1, least)
#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "memory_rows.h"
#include "parallel.h"

namespace {

// phi(x) = [1, x / d^1/4, x_a x_b / d^1/2 (a < b), x_a^2 / (2 d)^1/2] of a rotated x, in the order of kernels/taylor.py
template <class S>
void features(const S* x, const S* cosine, const S* sine, long d, S* turned, S* out) {
  const S linear = std::pow(S(d), S(-0.25)), pair = S(1) / std::sqrt(S(d)), square = S(1) / std::sqrt(S(2 * d));
  for (long c = 0; c < d / 2; ++c) {
    turned[2 * c] = x[2 * c] * cosine[c] - x[2 * c + 1] * sine[c];
    turned[2 * c + 1] = x[2 * c] * sine[c] + x[2 * c + 1] * cosine[c];
  }
  *out++ = S(1);
  for (long a = 0; a < d; ++a) *out++ = turned[a] * linear;
  for (long a = 0; a < d; ++a) {
    const S by = turned[a] * pair;
    for (long b = a; b < d; ++b) out[b - a] = by * turned[b];
    out[0] = turned[a] * turned[a] * square;
    out += d - a;
  }
}

// z [B, 3, H, d]: q, k, v before the rotation
template <class S>
void taylor_step(S* sums, const S* z, const S* cosine, const S* sine, S* y, S least, long B, long H, long d, long threads) {
  const long count = 1 + d + d * (d + 1) / 2, W = d + 1;
  parallel(B * H, threads, [&](long i) {
    const S* token = z + i / H * 3 * H * d + i % H * d;
    Buffer<S> scratch(3 * count + d + 2 * W);
    S *query = scratch.data(), *key = query + count, *keep = key + count, *turned = keep + count, *value = turned + d, *o = value + W;
    features(token, cosine, sine, d, turned, query);
    features(token + H * d, cosine, sine, d, turned, key);
    std::fill(keep, keep + count, S(1));
    std::copy(token + 2 * H * d, token + 2 * H * d + d, value);
    value[d] = S(1);
    enter_and_read(sums + i * count * W, keep, key, query, value, count, W, o);
    const S mass = o[d] < least ? least : o[d];
    for (long j = 0; j < d; ++j) y[i * d + j] = o[j] / mass;
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                       \
  extern "C" long taylor_step_##NAME(S* sums, const S* z, const S* cosine, const S* sine, S* y, double least, long B, long H, \
                                     long d, long threads) {                                                                  \
    taylor_step<S>(sums, z, cosine, sine, y, S(least), B, H, d, threads);                                                     \
    return 0;                                                                                                                 \
  }

EXPORT(float, float)
EXPORT(double, double)
