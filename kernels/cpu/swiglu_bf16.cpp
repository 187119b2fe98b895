// SwiGLU of swiglu.cpp with factors of all products in bf16; sums, silu and the gradients of x and of the weights are in fp32. x, the weights,
// what is saved (z), y and its gradient are in bf16.
#include <algorithm>

#include "buffer.h"
#include "gating.h"
#include "parts.h"
#include "products.h"
#include "sizes.h"

namespace {

constexpr long NUMBERS = 1 << 17;  // of z in a block

long rows_of(long F) { return std::max(32L, std::min(512L, NUMBERS / (2 * F) / 32 * 32)); }

// a, rounded, of m rows [gate, up] in fp32
void gated_rows(const float* wide, Bf16* a, long m, long F) {
  Buffer<float> row(F);
  for (long i = 0; i < m; ++i) {
    gated(wide + i * 2 * F, row.data(), 1, F);
    round_all(row.data(), a + i * F, F);
  }
}

void swiglu(const Bf16* x, const Bf16* up, const Bf16* down, Bf16* z, Bf16* y, long N, long D, long F, long threads) {
  long rows = rows_of(F);
  parallel_products((N + rows - 1) / rows, threads, [&](long piece) {
    long first = piece * rows, m = std::min(rows, N - first);
    Buffer<float> wide(m * std::max(2 * F, D));
    Buffer<Bf16> a(m * F);
    multiply(m, 2 * F, D, 1, {x + first * D, D}, {up, D, true}, 0, {wide.data(), 2 * F});
    gated_rows(wide.data(), a.data(), m, F);
    round_all(wide.data(), z + first * 2 * F, m * 2 * F);
    multiply(m, D, F, 1, {a.data(), F}, {down, F, true}, 0, {wide.data(), D});
    round_all(wide.data(), y + first * D, m * D);
  });
}

// a from z, and dz from the gradient of a, in bf16; row by row in fp32, since loops over both dtypes are slow
void gated_rows_backward(const Bf16* z, const float* da, Bf16* a, Bf16* dz, long m, long F) {
  Buffer<float> wide(2 * F), row(F), to_wide(2 * F);
  for (long i = 0; i < m; ++i) {
    widen_all(z + i * 2 * F, wide.data(), 2 * F);
    gated_backward(wide.data(), da + i * F, row.data(), to_wide.data(), 1, F);
    round_all(row.data(), a + i * F, F);
    round_all(to_wide.data(), dz + i * 2 * F, 2 * F);
  }
}

void swiglu_backward(const Bf16* x, const Bf16* up, const Bf16* down, const Bf16* z, const Bf16* g, float* dx, float* d_up, float* d_down, long N,
                     long D, long F, long threads) {
  long rows = rows_of(F), part = (N + WEIGHT_PARTS - 1) / WEIGHT_PARTS;
  const WeightSums<float> ups(d_up, 2 * F * D), downs(d_down, D * F);
  parallel_products(WEIGHT_PARTS, threads, [&](long piece) {
    Buffer<float> da(rows * F);
    Buffer<Bf16> a(rows * F), dz(rows * 2 * F);
    float *to_up = ups[piece], *to_down = downs[piece];
    std::fill(to_up, to_up + 2 * F * D, 0.0f);
    std::fill(to_down, to_down + D * F, 0.0f);
    for (long first = piece * part, end = std::min(N, first + part); first < end; first += rows) {
      long m = std::min(rows, end - first);
      Matrix<const Bf16> g_{g + first * D, D}, x_{x + first * D, D}, a_{a.data(), F}, dz_{dz.data(), 2 * F};
      multiply(m, F, D, 1, g_, {down, F}, 0, {da.data(), F});
      gated_rows_backward(z + first * 2 * F, da.data(), a.data(), dz.data(), m, F);
      multiply(m, D, 2 * F, 1, dz_, {up, D}, 0, {dx + first * D, D});
      multiply(2 * F, D, m, 1, turned(dz_), x_, 1, {to_up, D});
      multiply(D, F, m, 1, turned(g_), a_, 1, {to_down, F});
    }
  });
  ups.add(threads);
  downs.add(threads);
}

}  // namespace

extern "C" void swiglu_bf16(const Bf16* x, const Bf16* up, const Bf16* down, Bf16* z, Bf16* y, long N, long D, long F, long threads) {
  swiglu(x, up, down, z, y, N, D, F, threads);
}
extern "C" void swiglu_backward_bf16(const Bf16* x, const Bf16* up, const Bf16* down, const Bf16* z, const Bf16* g, float* dx, float* d_up,
                                     float* d_down, long N, long D, long F, long threads) {
  swiglu_backward(x, up, down, z, g, dx, d_up, d_down, N, D, F, threads);
}
