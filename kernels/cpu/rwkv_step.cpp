// One token of RWKV-7's memory S [K, W] per head, in place, from the layer's projections to what its output projection reads
// (kernels/decoding/rwkv.py):
//     S <- diag(w) S - (u a) (S' u)' + k v',     o = S' r;     y = (norm(o) + (sum of r k r_k) v) g
#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "elementary.h"
#include "memory_rows.h"
#include "parallel.h"

namespace {

// Of all heads one after the other: projections [B, H K] or [B, H W], parameters [H K] or [H W].
template <class S>
struct Layer {
  const S *r, *k, *v, *w, *a, *g;
  const S *w_start, *a_start, *k_k, *k_a, *r_k, *gain, *bias;
  S *memory, *y;
  long H, K, W;
  S largest_decay, unit_eps, norm_eps;

  // scratch: 4 K + 2 W numbers
  void head(long b, long h, S* scratch) const {
    const long in = (b * H + h) * K, at = h * K, out = (b * H + h) * W;
    S *kept = scratch, *removed = kept + K, *removing = removed + K, *key = removing + K, *found = key + K, *o = found + W;
    S square = 0, own = 0;
    for (long c = 0; c < K; ++c) {
      kept[c] = std::exp(-largest_decay * logistic(w_start[at + c] + w[in + c]));
      removing[c] = logistic(a_start[at + c] + a[in + c]);
      removed[c] = k[in + c] * k_k[at + c];
      key[c] = k[in + c] * (S(1) + (removing[c] - S(1)) * k_a[at + c]);
      square += removed[c] * removed[c];
      own += r[in + c] * key[c] * r_k[at + c];
    }
    const S by = S(1) / std::max(std::sqrt(square), unit_eps);
    for (long c = 0; c < K; ++c) removing[c] *= removed[c] *= by;
    std::fill(found, found + 2 * W, S(0));
    S* rows = memory + (b * H + h) * K * W;
    add_rows(rows, removed, K, W, found);
    long c = 0;
    for (; c + ROWS_AT_ONCE <= K; c += ROWS_AT_ONCE)
      exchange<ROWS_AT_ONCE>(rows + c * W, kept + c, removing + c, found, key + c, v + out, r + in + c, o);
    for (; c < K; ++c) exchange<1>(rows + c * W, kept + c, removing + c, found, key + c, v + out, r + in + c, o);
    finish(o, own, h * W, out);
  }

  // N rows of the memory after the token, and their part of the answer.
  template <long N>
  void exchange(S* __restrict rows, const S* keep, const S* remove, const S* __restrict found, const S* store, const S* __restrict value,
                const S* read, S* __restrict o) const {
    S kept[N], removed[N], stored[N], by[N];
    for (long i = 0; i < N; ++i) kept[i] = keep[i], removed[i] = remove[i], stored[i] = store[i], by[i] = read[i];
#pragma GCC ivdep
    for (long j = 0; j < W; ++j) {
      S sum = o[j];
#pragma GCC unroll 4
      for (long i = 0; i < N; ++i) {
        const S x = kept[i] * rows[i * W + j] - removed[i] * found[j] + stored[i] * value[j];
        rows[i * W + j] = x;
        sum += by[i] * x;
      }
      o[j] = sum;
    }
  }

  // The layer norm of a head's answer, the token's own value, and the gate.
  void finish(const S* o, S own, long at, long out) const {
    S mean = 0, square = 0;
    for (long j = 0; j < W; ++j) mean += o[j];
    mean /= S(W);
    for (long j = 0; j < W; ++j) square += (o[j] - mean) * (o[j] - mean);
    const S by = S(1) / std::sqrt(square / S(W) + norm_eps);
    for (long j = 0; j < W; ++j) y[out + j] = ((o[j] - mean) * by * gain[at + j] + bias[at + j] + own * v[out + j]) * g[out + j];
  }
};

}  // namespace

#define EXPORT(S, NAME)                                                                                                                  \
  extern "C" long rwkv_step_##NAME(S* memory, const S* r, const S* k, const S* v, const S* w, const S* a, const S* g, const S* w_start,  \
                                   const S* a_start, const S* k_k, const S* k_a, const S* r_k, const S* gain, const S* bias, S* y,       \
                                   double largest_decay, double unit_eps, double norm_eps, long B, long H, long K, long W, long threads) { \
    Layer<S> layer{r, k, v, w, a, g, w_start, a_start, k_k, k_a, r_k, gain, bias, memory, y, H, K, W, S(largest_decay), S(unit_eps),     \
                   S(norm_eps)};                                                                                                         \
    parallel(B * H, threads, [&](long i) {                                                                                               \
      Buffer<S> scratch(4 * K + 2 * W);                                                                                                  \
      layer.head(i / H, i % H, scratch.data());                                                                                          \
    });                                                                                                                                  \
    return 0;                                                                                                                            \
  }

EXPORT(float, float)
EXPORT(double, double)
