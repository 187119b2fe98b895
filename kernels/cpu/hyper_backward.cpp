// Lag mixing, backward: the scores of each block again, then its gradients. Gradients of tables come in `parts`, each over some of the
// sequences of a head, so that they don't depend on the number of threads.
#include "hyper.h"

namespace {

using namespace hyper;

// The gradients of a mixing: of its tables from the first column of a block on, of its controls from the first row of the block on.
template <class S>
struct Sums {
  S *first, *second, *scale, *control;
};

// For four rows: out = g scale + down first, and their contribution to the gradients of the tables. y is the input of the mixing, g the
// gradient of its output; into = (y first) control, down = (g second) control. out may be y or g.
template <class S>
void widen_adjoint(const Mixing<S>& by, const Sums<S>& sums, long pitch, const S* g, const S* y, const Narrow<S> into, const Narrow<S> down,
                   S* out) {
  using L = Lanes<S>;
  using Vector = typename L::Vector;
  of_rank(by.r, [&](auto r) {
    Vector to_y[MAX_RANK][QUAD], to_g[MAX_RANK][QUAD];
    for (int k = 0; k < r; ++k) {
      for (int i = 0; i < QUAD; ++i) to_y[k][i] = down[i][k] - Vector{}, to_g[k][i] = into[i][k] - Vector{};
    }
    for (long c = 0; c < pitch; c += L::COUNT) {
      Vector gs[QUAD], ys[QUAD], outs[QUAD], scale = L::load(by.scale + c), to_scale = L::load(sums.scale + c);
      for (int i = 0; i < QUAD; ++i) {
        gs[i] = L::load(g + i * pitch + c);
        ys[i] = L::load(y + i * pitch + c);
        outs[i] = gs[i] * scale;
        to_scale += gs[i] * ys[i];
      }
      L::store(sums.scale + c, to_scale);
      for (int k = 0; k < r; ++k) {
        long at = k * by.pitch + c;
        Vector first = L::load(by.first + at), to_first = L::load(sums.first + at), to_second = L::load(sums.second + at);
        for (int i = 0; i < QUAD; ++i) {
          outs[i] += to_y[k][i] * first;
          to_first += to_y[k][i] * ys[i];
          to_second += to_g[k][i] * gs[i];
        }
        L::store(sums.first + at, to_first);
        L::store(sums.second + at, to_second);
      }
      for (int i = 0; i < QUAD; ++i) L::store(out + i * pitch + c, outs[i]);
    }
  });
}

// From the gradient g of the output of `mix` to that of its input y, in `out`, which may be y or g.
template <class S>
void mix_adjoint(const Mixing<S>& by, const Sums<S>& sums, const Block& block, long row, const S* g, const S* y, const Narrow<S> low, S* out) {
  Narrow<S> up, into, down;
  narrow<S>(g, block.pitch, by.second, by.pitch, by.r, up);
  for (long i = 0; i < std::min<long>(QUAD, block.rows - row); ++i) {
    for (long k = 0; k < by.r; ++k) sums.control[(row + i) * by.r + k] = up[i][k] * low[i][k];
  }
  controlled<S>(by, row, block.rows, low, into);
  controlled<S>(by, row, block.rows, up, down);
  widen_adjoint<S>(by, sums, block.pitch, g, y, into, down, out);
}

// For four rows: relu(gate) softplus(scale) in `active`, softplus(scale) in `soft`, and its derivative in place of the scale.
template <class S>
void activate(const S* gate, S* scale, long pitch, S* active, S* soft) {
  for (long c = 0; c < QUAD * pitch; ++c) {
    S positive = std::max(gate[c], S(0));
    if (scale) {
      S e = decay(scale[c]), small = e / (S(1) + e), s = softplus(scale[c], e);
      scale[c] = scale[c] < S(0) ? small : S(1) - small;
      soft[c] = s;
      active[c] = positive * s;
    } else {
      active[c] = positive;
    }
  }
}

// From the gradient g of the output of `activate` to that of the gate, in place, and that of the scale, in place of the derivative `slope`
// of softplus. The gradient of the norm of a row is -pull times the gate.
template <class S>
void activate_adjoint(const S* gate, const S* soft, S* slope, long pitch, const S* pull, long rows, S* g) {
  for (long i = 0; i < std::min<long>(QUAD, rows); ++i, gate += pitch, g += pitch) {
    for (long c = 0; c < pitch; ++c) {
      S x = gate[c], to = x > S(0) ? g[c] : S(0);
      if (slope) {
        slope[i * pitch + c] *= to * x;
        to *= soft[i * pitch + c];
      }
      g[c] = to - pull[i] * x;
    }
  }
}

template <class S>
struct Gradients {
  S *q, *k, *v, *tables, *control;
};

template <class S>
struct Backward {
  const Piece<S>& piece;
  const Sizes& z;
  const S *out, *inverse, *grad;
  Gradients<S> to;
  long part;
  long size = z.padded_rows() * z.widest<S>(), four = QUAD * z.widest<S>();
  // Of a block: plain scores of each set, later overwritten by the weights of the read and the gradient of the second set; the gradient of
  // the read, later that of the first set. Of four rows: mixed scores, activations, weights.
  Buffer<S> memory = Buffer<S>((z.sets + 1) * size + 5 * four), raw = Buffer<S>(z.rows * z.w), pull = Buffer<S>(z.padded_rows());

  S* plain(long set) { return memory.data() + set * size; }
  S* read() { return memory.data() + z.sets * size; }
  S* gradient(long set) { return set ? plain(1) : read(); }
  S* weights() { return plain(0); }
  S* quad(long which) { return memory.data() + (z.sets + 1) * size + which * four; }

  Sums<S> sums(long which, const Block& block) const {
    long j = z.at(which), row = block.start - z.origin();
    S* first = to.tables + (((piece.h * z.parts + part) * z.mixings() + j) * z.table_rows()) * z.table + block.table;
    return {first, first + z.r * z.table, first + 2 * z.r * z.table, to.control + ((j * z.H * z.B + piece.here()) * z.S + row) * z.r};
  }

  // The gradient of the read without its norm, and the gradient of the norm of each row, as `pull`.
  void start(const Block& block, long at) {
    std::fill(pull.begin(), pull.end(), S(0));
    for (long i = 0; i < block.rows; ++i) {
      const S *o = out + (at + i) * z.w, *g = grad + (at + i) * z.w;
      S along = 0, by = inverse[at + i];
      for (long j = 0; j < z.w; ++j) {
        along += o[j] * g[j];
        raw[i * z.w + j] = g[j] * by;
      }
      pull[i] = along * by * by;
    }
  }

  // From the gradient of the mixed scores of a set to that of its plain scores.
  void score_set(long set, const Block& block, long row, const S* g, const Narrow<S> low) {
    S *into = gradient(set) + row * block.pitch, *y = plain(set) + row * block.pitch;
    if (z.there(set)) {
      mix_adjoint<S>(piece.mixing(set, block), sums(set, block), block, row, g, y, low, into);
    } else if (into != g) {
      std::copy(g, g + QUAD * block.pitch, into);
    }
    block.hide(into, row);
  }

  void four_rows(const Block& block, long row) {
    long at = row * block.pitch;
    S *gate = quad(0), *scale = z.sets > 1 ? quad(1) : nullptr, *active = quad(2), *soft = quad(3), *w = active, *g = read() + at;
    Narrow<S> low[SETS], low_after;
    piece.mix_scores(0, block, row, plain(0) + at, gate, low[0]);
    if (scale) piece.mix_scores(1, block, row, plain(1) + at, scale, low[1]);
    activate<S>(gate, scale, block.pitch, active, soft);
    block.hide(g, row);
    if (z.there(SETS)) {
      Mixing<S> after = piece.mixing(SETS, block);
      w = quad(4);
      mix<S>(after, block, row, active, w, low_after);
      block.hide(w, row);
      mix_adjoint<S>(after, sums(SETS, block), block, row, g, active, low_after, g);
    }
    activate_adjoint<S>(gate, soft, scale, block.pitch, pull.data() + row, block.rows - row, g);
    score_set(0, block, row, g, low[0]);
    if (scale) score_set(1, block, row, scale, low[1]);
    std::copy(w, w + QUAD * block.pitch, weights() + at);
  }

  void run() {
    for (long start_ = z.origin(); start_ < z.T; start_ += z.rows) {
      Block block = Block::of(z, start_, S());
      long m = block.rows, n = block.keys, first = start_ - z.origin(), at = piece.here() * z.S + first;
      start(block, at);
      for (long set = 0; set < z.sets; ++set) piece.score(set, block, plain(set));
      multiply<S>(m, n, z.w, S(1), {raw.data(), z.w}, {piece.values(), z.w, true}, S(0), block.by_key(read()));
      for (long row = 0; row < m; row += QUAD) four_rows(block, row);
      for (long set = 0; set < z.sets; ++set) {
        long here = set * z.H * z.B + piece.here();
        Matrix<S> g = block.by_key(gradient(set));
        Matrix<const S> g_{g.data, g.pitch};
        multiply<S>(m, z.d, n, S(1), g_, {piece.keys(set), z.d}, S(0), {to.q + (here * z.S + first) * z.d, z.d});
        multiply<S>(n, z.d, m, S(1), turned(g_), {piece.queries(set) + first * z.d, z.d}, S(1), {to.k + here * z.T * z.d, z.d});
      }
      Matrix<S> w = block.by_key(weights());
      multiply<S>(n, z.w, m, S(1), {w.data, w.pitch, true}, {raw.data(), z.w}, S(1), {to.v + piece.here() * z.T * z.w, z.w});
    }
  }
};

// Arguments as lag_mix; out and inverse are its results, g the gradient of out. Adds to `to.k`, `to.v` and `to.tables`
// [H, parts, mixings, 2r + 1, table], writes `to.q` and `to.control`, of the shapes of the inputs.
template <class S>
void lag_mix_backward(const S* q, const S* k, const S* v, const S* tables, const S* control, const S* mask, const S* out, const S* inverse,
                      const S* g, Gradients<S> to, const Sizes& z, long threads) {
  parallel_products(z.H * z.parts, threads, [&](long id) {
    for (long b = id % z.parts; b < z.B; b += z.parts) {
      Piece<S> piece{z, q, k, v, tables, control, mask, id / z.parts, b};
      Backward<S>{piece, z, out, inverse, g, to, id % z.parts}.run();
    }
  });
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                                   \
  extern "C" void lag_mix_backward_##NAME(                                                                                                \
      const S* q, const S* k, const S* v, const S* tables, const S* control, const S* mask, const S* out, const S* inverse, const S* g,   \
      S* to_q, S* to_k, S* to_v, S* to_tables, S* to_control, long sets, long H, long B, long L, long T, long d, long w, long r,          \
      long table, long length, long rows, long causal, long by_lag, long mixed, long parts, long threads) {                               \
    lag_mix_backward<S>(q, k, v, tables, control, mask, out, inverse, g, {to_q, to_k, to_v, to_tables, to_control},                       \
                        {sets, H, B, L, T, d, w, r, table, length, rows, causal, by_lag, mixed, parts}, threads);                         \
  }

EXPORT(float, float)
EXPORT(double, double)
