// Several projections of one input and their gradients, and projections that are scaled by their part of a low-rank factor:
// y = x Wᵀ * (1 + s P), W [C, D], s [N, R], P [R, C]. Blocks of rows stay in the cache; z = x Wᵀ is saved for backward, the factor is
// computed again. The C channels belong to `count` separate tensors [N, width], so the caller need not split or concatenate.
#include <algorithm>

#include "buffer.h"
#include "products.h"
#include "sizes.h"

namespace {

constexpr long NUMBERS = 1 << 15;  // of z in a block
constexpr long BLOCK_ROWS = 512;  // of a block without factors

long rows_of(long C) { return std::max(16L, std::min(512L, NUMBERS / C / 16 * 16)); }

template <class S>
void projection(const S* x, const S* w, const S* s, const S* p, S* z, S* const* outs, const long* widths, long count, long N, long D, long C,
                long R, long threads) {
  long rows = rows_of(C);
  Packed<S> w_(D, C, {w, D, true}), p_(R, C, {p, C});
  parallel_products((N + rows - 1) / rows, threads, [&](long piece) {
    long first = piece * rows, m = std::min(rows, N - first);
    Scratch<S> factor(m * C);
    multiply<S>(m, C, D, S(1), {x + first * D, D}, w_, S(0), {z + first * C, C});
    multiply<S>(m, C, R, S(1), {s + first * R, R}, p_, S(0), {factor.data(), C});
    for (long row = 0; row < m; ++row) {
      const S *zr = z + (first + row) * C, *fr = factor.data() + row * C;
      for (long i = 0; i < count; zr += widths[i], fr += widths[i], ++i) {
        S* out = outs[i] + (first + row) * widths[i];
        for (long c = 0; c < widths[i]; ++c) out[c] = zr[c] + zr[c] * fr[c];
      }
    }
  });
}

// dw [WEIGHT_PARTS, C, D] and dp [WEIGHT_PARTS, R, C] come in parts of the rows, so that sums don't depend on the number of threads.
template <class S>
void projection_backward(const S* x, const S* w, const S* s, const S* p, const S* z, S* dx, S* dw, S* ds, S* dp, const S* const* grads,
                         const long* widths, long count, long N, long D, long C, long R, long threads) {
  long rows = rows_of(C), part = (N + WEIGHT_PARTS - 1) / WEIGHT_PARTS;
  Packed<S> w_(C, D, {w, D}), factors(R, C, {p, C});
  parallel_products(WEIGHT_PARTS, threads, [&](long piece) {
    Scratch<S> factor(rows * C), to_factor(rows * C), to_s(rows * R);
    S *to_w = dw + piece * C * D, *to_p = dp + piece * R * C;
    if (piece * part >= N) {
      std::fill(to_w, to_w + C * D, S(0));
      std::fill(to_p, to_p + R * C, S(0));
    }
    for (long first = piece * part, end = std::min(N, first + part); first < end; first += rows) {
      const long m = std::min(rows, end - first);
      const S keep = S(first > piece * part ? 1 : 0);  // the first block writes where the others add
      Matrix<const S> s_{s + first * R, R}, p_{p, C}, x_{x + first * D, D}, to_z_{factor.data(), C}, to_factor_{to_factor.data(), C};
      multiply<S>(m, C, R, S(1), s_, factors, S(0), {factor.data(), C});
      for (long row = 0; row < m; ++row) {
        S *f = factor.data() + row * C, *to_f = to_factor.data() + row * C;
        const S* zr = z + (first + row) * C;
        for (long i = 0; i < count; f += widths[i], to_f += widths[i], zr += widths[i], ++i) {
          const S* g = grads[i] + (first + row) * widths[i];
          for (long c = 0; c < widths[i]; ++c) {
            to_f[c] = g[c] * zr[c];
            f[c] = g[c] + g[c] * f[c];  // from here on the gradient of z
          }
        }
      }
      multiply<S>(R, m, C, S(1), p_, turned(to_factor_), S(0), {to_s.data(), m});  // in this order, since products with few columns are slow
      for (long row = 0; row < m; ++row)
        for (long r = 0; r < R; ++r) ds[(first + row) * R + r] = to_s[r * m + row];
      multiply<S>(R, C, m, S(1), turned(s_), to_factor_, keep, {to_p, C});
      multiply<S>(m, D, C, S(1), to_z_, w_, S(0), {dx + first * D, D});
      multiply<S>(C, D, m, S(1), turned(to_z_), x_, keep, {to_w, D});
    }
  });
}

// The gradients [N, width] of several projections side by side, as rows [m, C] of a block.
template <class S>
void side_by_side(const S* const* grads, const long* widths, long count, long first, long m, long C, S* rows) {
  for (long row = 0; row < m; ++row)
    for (long i = 0; i < count; rows += widths[i], ++i) {
      const S* g = grads[i] + (first + row) * widths[i];
      std::copy(g, g + widths[i], rows);
    }
}

// y = x Wᵀ
template <class S>
void plain(const S* x, const S* w, S* y, long N, long D, long C, long threads) {
  Packed<S> w_(D, C, {w, D, true});
  parallel_products((N + BLOCK_ROWS - 1) / BLOCK_ROWS, threads, [&](long piece) {
    long first = piece * BLOCK_ROWS;
    multiply<S>(std::min(BLOCK_ROWS, N - first), C, D, S(1), {x + first * D, D}, w_, S(0), {y + first * C, C});
  });
}

// dx and dw [WEIGHT_PARTS, C, D] of y = x Wᵀ: one pass over the rows, each thread with products of its own.
template <class S>
void plain_backward(const S* x, const S* w, S* dx, S* dw, const S* const* grads, const long* widths, long count, long N, long D, long C,
                     long threads) {
  long part = (N + WEIGHT_PARTS - 1) / WEIGHT_PARTS, rows = std::max(1L, std::min(part, BLOCK_ROWS));
  Packed<S> w_(C, D, {w, D});
  parallel_products(WEIGHT_PARTS, threads, [&](long piece) {
    Scratch<S> together(count > 1 ? rows * C : 0);
    S* to_w = dw + piece * C * D;
    if (piece * part >= N) std::fill(to_w, to_w + C * D, S(0));
    for (long first = piece * part, end = std::min(N, first + part); first < end; first += rows) {
      long m = std::min(rows, end - first);
      if (count > 1) side_by_side(grads, widths, count, first, m, C, together.data());
      Matrix<const S> g_{count > 1 ? together.data() : grads[0] + first * C, C};
      multiply<S>(m, D, C, S(1), g_, w_, S(0), {dx + first * D, D});
      multiply<S>(C, D, m, S(1), turned(g_), {x + first * D, D}, S(first > piece * part ? 1 : 0), {to_w, D});
    }
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                \
  extern "C" void projection_##NAME(const S* x, const S* w, const S* s, const S* p, S* z, S* const* outs, const long* widths,          \
                                    long count, long N, long D, long C, long R, long threads) {                                        \
    projection<S>(x, w, s, p, z, outs, widths, count, N, D, C, R, threads);                                                            \
  }                                                                                                                                    \
  extern "C" void plain_##NAME(const S* x, const S* w, S* y, long N, long D, long C, long threads) {                                   \
    plain<S>(x, w, y, N, D, C, threads);                                                                                               \
  }                                                                                                                                    \
  extern "C" void plain_backward_##NAME(const S* x, const S* w, S* dx, S* dw, const S* const* grads, const long* widths, long count,  \
                                         long N, long D, long C, long threads) {                                                       \
    plain_backward<S>(x, w, dx, dw, grads, widths, count, N, D, C, threads);                                                          \
  }                                                                                                                                    \
  extern "C" void projection_backward_##NAME(const S* x, const S* w, const S* s, const S* p, const S* z, S* dx, S* dw, S* ds, S* dp,   \
                                             const S* const* grads, const long* widths, long count, long N, long D, long C, long R,    \
                                             long threads) {                                                                           \
    projection_backward<S>(x, w, s, p, z, dx, dw, ds, dp, grads, widths, count, N, D, C, R, threads);                                  \
  }

EXPORT(float, float)
EXPORT(double, double)
