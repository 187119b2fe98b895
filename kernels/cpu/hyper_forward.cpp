// Lag mixing, forward: blocks of rows whose scores stay in the cache.
#include "hyper.h"

namespace {

using namespace hyper;

// For four rows: 1 / |gate| in `inverse`, and relu(gate) softplus(scale) in place of the gate. scale may be null.
template <class S>
void activate(S* gate, const S* scale, long pitch, double eps, S* inverse, long rows) {
  for (long i = 0; i < std::min<long>(QUAD, rows); ++i) {
    S* g = gate + i * pitch;
    S sum = 0;
    if (scale) {
      const S* s = scale + i * pitch;
      for (long c = 0; c < pitch; ++c) {
        sum += g[c] * g[c];
        g[c] = std::max(g[c], S(0)) * softplus(s[c], decay(s[c]));
      }
    } else {
      for (long c = 0; c < pitch; ++c) {
        sum += g[c] * g[c];
        g[c] = std::max(g[c], S(0));
      }
    }
    inverse[i] = S(1) / std::sqrt(sum + S(eps));
  }
}

template <class S>
void one(const Piece<S>& piece, const Sizes& z, double eps, S* out, S* inverse) {
  long size = z.padded_rows() * z.widest<S>();
  Buffer<S> memory(z.sets * size);
  S *gate = memory.data(), *scale = z.sets > 1 ? gate + size : nullptr;
  Narrow<S> low;
  for (long start = z.origin(); start < z.T; start += z.rows) {
    Block block = Block::of(z, start, S());
    long at = piece.here() * z.S + start - z.origin();
    piece.score(0, block, gate);
    if (scale) piece.score(1, block, scale);
    for (long row = 0; row < block.rows; row += QUAD) {
      S *g = gate + row * block.pitch, *s = scale ? scale + row * block.pitch : nullptr;
      piece.mix_scores(0, block, row, g, g, low);
      if (s) piece.mix_scores(1, block, row, s, s, low);
      activate(g, s, block.pitch, eps, inverse + at + row, block.rows - row);
      if (z.there(SETS)) {
        mix<S>(piece.mixing(SETS, block), block, row, g, g, low);
        block.hide(g, row);
      }
    }
    Matrix<S> weights = block.by_key(gate);
    multiply<S>(block.rows, z.w, block.keys, S(1), {weights.data, weights.pitch}, {piece.values(), z.w}, S(0), {out + at * z.w, z.w});
    for (long i = 0; i < block.rows; ++i) {
      for (long j = 0; j < z.w; ++j) out[(at + i) * z.w + j] *= inverse[at + i];
    }
  }
}

// q [sets, H, B, S, d], k [sets, H, B, T, d], v [H, B, T, w], tables [mixings, H, 2r + 1, table], control [mixings, H, B, S, r],
// mask [B, T] or null: 0 where a key does not count -> out [H, B, S, w], inverse [H, B, S]: 1 / norm of each row
template <class S>
void lag_mix(const S* q, const S* k, const S* v, const S* tables, const S* control, const S* mask, S* out, S* inverse, double eps,
             const Sizes& z, long threads) {
  parallel_products(z.H * z.B, threads, [&](long piece) {
    one<S>({z, q, k, v, tables, control, mask, piece / z.B, piece % z.B}, z, eps, out, inverse);
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                   \
  extern "C" void lag_mix_##NAME(const S* q, const S* k, const S* v, const S* tables, const S* control, const S* mask, S* out,            \
                                 S* inverse, double eps, long sets, long H, long B, long L, long T, long d, long w, long r, long table,   \
                                 long length, long rows, long causal, long by_lag, long mixed, long parts, long threads) {                \
    lag_mix<S>(q, k, v, tables, control, mask, out, inverse, eps,                                                                         \
               {sets, H, B, L, T, d, w, r, table, length, rows, causal, by_lag, mixed, parts}, threads);                                  \
  }

EXPORT(float, float)
EXPORT(double, double)
