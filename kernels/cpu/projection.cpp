// Several projections of one input and their gradients, and projections that are scaled by their part of a low-rank factor:
// y = x Wᵀ * (1 + s P), W [C, D], s [N, R], P [R, C]. Blocks of rows stay in the cache; z = x Wᵀ is saved for backward, the factor is
// computed again. The C channels belong to `count` separate tensors [N, width], so the caller need not split or concatenate.
#include <algorithm>

#include "buffer.h"
#include "parts.h"
#include "products.h"
#include "sizes.h"

namespace {

constexpr long NUMBERS = 1 << 17;  // of z in a block
constexpr long BLOCK_ROWS = 512;   // of a block without factors, and the most of any
constexpr long FEW_ROWS = 1024;

long rows_of(long C) { return std::max(64L, std::min(BLOCK_ROWS, NUMBERS / C / 16 * 16)); }

// How the gradients of weights are divided among threads, by sizes alone, so that sums don't depend on their number. Many rows come in parts.
// Of a few rows, parts would be too short for fast products: they are one part, and each block of it comes in pieces, first of its rows, for
// what they need themselves, then of its channels, for what they add to the gradients of the weights.
struct Division {
  const long rows, block, threads, parts = rows < FEW_ROWS ? 1 : WEIGHT_PARTS;

  long most() const { return (rows + parts - 1) / parts; }  // rows of a part
  // Whether a block adds to what others of its part have written; the first one writes.
  bool adds(long first) const { return first % most(); }

  // work(part, first row, how many)
  template <class F>
  void each_block(F work) const {
    const auto blocks = [&](long part) {
      const long end = std::min(rows, (part + 1) * most());
      for (long first = part * most(); first < end; first += block) work(part, first, std::min(block, end - first));
    };
    if (parts == 1) blocks(0);
    else parallel_products(parts, threads, blocks);
  }

  // work(first, how many) for each piece of a block's rows or channels
  template <class F>
  void each_piece(long count, F work) const {
    if (parts > 1) return work(0L, count);
    const long most = (count + 16 * WEIGHT_PARTS - 1) / (16 * WEIGHT_PARTS) * 16;
    parallel_products((count + most - 1) / most, threads, [&](long piece) { work(piece * most, std::min(most, count - piece * most)); });
  }
};

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

// The gradients of all operands.
template <class S>
void projection_backward(const S* x, const S* w, const S* s, const S* p, const S* z, S* dx, S* dw, S* ds, S* dp, const S* const* grads,
                         const long* widths, long count, long N, long D, long C, long R, long threads) {
  const Division division{N, std::min(N, rows_of(C)), threads};
  Packed<S> w_(C, D, {w, D}), factors(R, C, {p, C});
  const PartSums<S> ws(dw, C * D, division.parts), ps(dp, R * C, division.parts);
  Scratch<S> memory(division.parts * division.block * 2 * C);
  division.each_block([&](long part, long first, long m) {
    S *to_z = memory.data() + part * division.block * 2 * C, *to_factor = to_z + division.block * C;
    const S keep = S(division.adds(first));
    division.each_piece(m, [&](long from, long n) {
      Scratch<S> to_s(n * R);
      Matrix<S> to_z_{to_z + from * C, C}, to_factor_{to_factor + from * C, C};
      multiply<S>(n, C, R, S(1), {s + (first + from) * R, R}, factors, S(0), to_z_);
      for (long row = 0; row < n; ++row) {
        S *f = to_z_.data + row * C, *to_f = to_factor_.data + row * C;
        const S* zr = z + (first + from + row) * C;
        for (long i = 0; i < count; f += widths[i], to_f += widths[i], zr += widths[i], ++i) {
          const S* g = grads[i] + (first + from + row) * widths[i];
          for (long c = 0; c < widths[i]; ++c) {
            to_f[c] = g[c] * zr[c];
            f[c] = g[c] + g[c] * f[c];  // from here on the gradient of z
          }
        }
      }
      // in this order, since products with few columns are slow
      multiply<S>(R, n, C, S(1), Matrix<const S>{p, C}, turned(Matrix<const S>{to_factor_.data, C}), S(0), {to_s.data(), n});
      for (long row = 0; row < n; ++row)
        for (long r = 0; r < R; ++r) ds[(first + from + row) * R + r] = to_s[r * n + row];
      multiply<S>(n, D, C, S(1), Matrix<const S>{to_z_.data, C}, w_, S(0), {dx + (first + from) * D, D});
    });
    division.each_piece(C, [&](long from, long n) {
      Matrix<const S> s_{s + first * R, R}, x_{x + first * D, D}, to_z_{to_z + from, C}, to_factor_{to_factor + from, C};
      multiply<S>(R, n, m, S(1), turned(s_), to_factor_, keep, {ps[part] + from, C});
      multiply<S>(n, D, m, S(1), turned(to_z_), x_, keep, {ws[part] + from * D, D});
    });
  });
  ws.add(threads);
  ps.add(threads);
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

// dx and dw of y = x Wᵀ
template <class S>
void plain_backward(const S* x, const S* w, S* dx, S* dw, const S* const* grads, const long* widths, long count, long N, long D, long C,
                    long threads) {
  const Division division{N, std::min(N, BLOCK_ROWS), threads};
  Packed<S> w_(C, D, {w, D});
  const PartSums<S> ws(dw, C * D, division.parts);
  Scratch<S> memory(count > 1 ? division.parts * division.block * C : 0);
  division.each_block([&](long part, long first, long m) {
    S* together = memory.data() + part * division.block * C;
    const S* g = count > 1 ? together : grads[0] + first * C;
    division.each_piece(m, [&](long from, long n) {
      if (count > 1) side_by_side(grads, widths, count, first + from, n, C, together + from * C);
      multiply<S>(n, D, C, S(1), {g + from * C, C}, w_, S(0), {dx + (first + from) * D, D});
    });
    division.each_piece(C, [&](long from, long n) {
      multiply<S>(n, D, m, S(1), turned(Matrix<const S>{g + from, C}), {x + first * D, D}, S(division.adds(first)), {ws[part] + from * D, D});
    });
  });
  ws.add(threads);
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
