// The scaled projections of projection.cpp with x, W, z, the results and their gradients in bf16: their products sum in fp32. The low-rank factor
// 1 + s P and its gradients are in fp32 throughout: their products are small.
#include <algorithm>

#include "buffer.h"
#include "parts.h"
#include "products.h"
#include "sizes.h"

namespace {

constexpr long NUMBERS = 1 << 16;  // of z in a block

long rows_of(long C) { return std::max(32L, std::min(512L, NUMBERS / C / 32 * 32)); }

void projection(const Bf16* x, const Bf16* w, const float* s, const float* p, Bf16* z, Bf16* const* outs, const long* widths, long count, long N,
                long D, long C, long R, long threads) {
  long rows = rows_of(C);
  parallel_products((N + rows - 1) / rows, threads, [&](long piece) {
    long first = piece * rows, m = std::min(rows, N - first);
    Buffer<float> factor(m * C), wide(m * C);
    multiply(m, C, D, 1, {x + first * D, D}, {w, D, true}, 0, {wide.data(), C});
    multiply<float>(m, C, R, 1, {s + first * R, R}, {p, C}, 0, {factor.data(), C});
    round_all(wide.data(), z + first * C, m * C);
    for (long row = 0; row < m; ++row) {
      float* zr = wide.data() + row * C;
      const float* f = factor.data() + row * C;
      for (long c = 0; c < C; ++c) zr[c] += zr[c] * f[c];
      for (long i = 0; i < count; zr += widths[i], ++i) round_all(zr, outs[i] + (first + row) * widths[i], widths[i]);
    }
  });
}

void projection_backward(const Bf16* x, const Bf16* w, const float* s, const float* p, const Bf16* z, float* dx, float* dw, float* ds, float* dp,
                         const Bf16* const* grads, const long* widths, long count, long N, long D, long C, long R, long threads) {
  long rows = rows_of(C), part = (N + WEIGHT_PARTS - 1) / WEIGHT_PARTS;
  const WeightSums<float> ws(dw, C * D), ps(dp, R * C);
  parallel_products(WEIGHT_PARTS, threads, [&](long piece) {
    Buffer<float> factor(rows * C), to_factor(rows * C), to_s(rows * R), g(C);
    Buffer<Bf16> to_z(rows * C);
    float *to_w = ws[piece], *to_p = ps[piece];
    std::fill(to_w, to_w + C * D, 0.0f);
    std::fill(to_p, to_p + R * C, 0.0f);
    for (long first = piece * part, end = std::min(N, first + part); first < end; first += rows) {
      long m = std::min(rows, end - first);
      Matrix<const float> s_{s + first * R, R}, p_{p, C}, to_factor_{to_factor.data(), C};
      Matrix<const Bf16> x_{x + first * D, D}, to_z_{to_z.data(), C};
      multiply<float>(m, C, R, 1, s_, p_, 0, {factor.data(), C});
      for (long row = 0; row < m; ++row) {
        float *f = factor.data() + row * C, *to_f = to_factor.data() + row * C;
        for (long i = 0, c = 0; i < count; c += widths[i], ++i) widen_all(grads[i] + (first + row) * widths[i], g.data() + c, widths[i]);
        widen_all(z + (first + row) * C, to_f, C);
        for (long c = 0; c < C; ++c) {
          to_f[c] *= g[c];
          f[c] = g[c] + g[c] * f[c];  // from here on the gradient of z
        }
        round_all(f, to_z.data() + row * C, C);
      }
      multiply<float>(R, m, C, 1, p_, turned(to_factor_), 0, {to_s.data(), m});  // products with few columns are slow
      for (long row = 0; row < m; ++row)
        for (long r = 0; r < R; ++r) ds[(first + row) * R + r] = to_s[r * m + row];
      multiply<float>(R, C, m, 1, turned(s_), to_factor_, 1, {to_p, C});
      multiply(m, D, C, 1, to_z_, {w, D}, 0, {dx + first * D, D});
      multiply(C, D, m, 1, turned(to_z_), x_, 1, {to_w, D});
    }
  });
  ws.add(threads);
  ps.add(threads);
}

}  // namespace

extern "C" void projection_bf16(const Bf16* x, const Bf16* w, const float* s, const float* p, Bf16* z, Bf16* const* outs, const long* widths,
                                long count, long N, long D, long C, long R, long threads) {
  projection(x, w, s, p, z, outs, widths, count, N, D, C, R, threads);
}
extern "C" void projection_backward_bf16(const Bf16* x, const Bf16* w, const float* s, const float* p, const Bf16* z, float* dx, float* dw,
                                         float* ds, float* dp, const Bf16* const* grads, const long* widths, long count, long N, long D, long C,
                                         long R, long threads) {
  projection_backward(x, w, s, p, z, dx, dw, ds, dp, grads, widths, count, N, D, C, R, threads);
}
