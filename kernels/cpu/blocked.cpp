// Matrix products by tiles of registers: ROWS rows of a times up to COLUMNS vectors of columns of b, summed over k.
//
// b is packed so that a tile reads it in order; the columns are divided so that no tile is one vector wide unless b is: a narrow tile waits
// for its loads. a is read in place, by rows or by columns. The tiles of one panel of b follow each other, so the panel stays in the first
// or second cache.
#include "blocked.h"

#include <algorithm>
#include <type_traits>

#include "buffer.h"
#include "registers.h"

namespace {

constexpr int ROWS = REGISTER_BYTES == 32 ? 4 : 8;  // times COLUMNS: 12 of AVX2's 16 registers hold sums, 24 of AVX-512's 32
constexpr int COLUMNS = 3;
constexpr long DEPTH = 384;     // of a block of k
constexpr long NEAR = 1 << 16;  // numbers of a that stay in the cache while the panels of b pass

template <class S>
using Vector = typename AnyAddress<S, REGISTER_BYTES>::Vector;
template <class S>
constexpr int WIDTH = REGISTER_BYTES / sizeof(S);

// A panel of up to COLUMNS vectors of columns.
template <class S>
struct Panel {
  long first, n;
  int vectors;

  Panel(long first, long n) : first(first), n(n) {
    long left = (n - first + WIDTH<S> - 1) / WIDTH<S>;
    vectors = left == 4 ? 2 : int(std::min<long>(COLUMNS, left));
  }
  long width() const { return vectors * long(WIDTH<S>); }
  long columns() const { return std::min(width(), n - first); }
};

template <class S, class F>
void each_panel(long n, F work) {
  for (long first = 0; first < n;) {
    Panel<S> panel(first, n);
    work(panel);
    first += panel.width();
  }
}

// Where a tile writes, and with which factors.
template <class S>
struct Target {
  S by, keep, *out;
  long pitch, columns;
};

template <class S, int R, int C>
__attribute__((always_inline)) inline void write(const Target<S>& to, const Vector<S> (&sums)[R][C]) {
  if (to.columns < C * WIDTH<S>) {
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      S row[C * WIDTH<S>], *out = to.out + i * to.pitch;
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) vector_at(row + j * WIDTH<S>) = sums[i][j];
      for (long c = 0; c < to.columns; ++c) out[c] = to.keep == S(0) ? to.by * row[c] : to.by * row[c] + to.keep * out[c];
    }
  } else if (to.keep == S(0)) {
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) vector_at(to.out + i * to.pitch + j * WIDTH<S>) = to.by * sums[i][j];
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) {
        Vector<S>& out = vector_at(to.out + i * to.pitch + j * WIDTH<S>);
        out = to.by * sums[i][j] + to.keep * out;
      }
  }
}

// R rows of a, `pitch` apart, or R columns of its transpose.
template <class S, int R, int C, bool TURNED>
__attribute__((noinline)) void tile(long k, const S* a, long pitch, const S* b, const Target<S>& to) {
  Vector<S> sums[R][C] = {};
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)  // what a tile writes comes from a farther cache than what it reads
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) __builtin_prefetch(to.out + i * to.pitch + j * WIDTH<S>, 1);
  const S* fifth = a + 4 * pitch;  // so that the addresses of all rows come from few registers
#pragma GCC unroll 2
  for (long p = 0; p < k; ++p) {
    Vector<S> columns[C];
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) columns[j] = vector_at(b + p * C * WIDTH<S> + j * WIDTH<S>);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      S x = TURNED ? a[p * pitch + i] : i < 4 ? a[i * pitch + p] : fifth[(i - 4) * pitch + p];
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) sums[i][j] += x * columns[j];
    }
  }
  write<S, R, C>(to, sums);
}

template <class S, int R, bool TURNED>
void tile_of_rows(int vectors, long k, const S* a, long pitch, const S* b, const Target<S>& to) {
  if (vectors == 3) return tile<S, R, 3, TURNED>(k, a, pitch, b, to);
  if (vectors == 2) return tile<S, R, 2, TURNED>(k, a, pitch, b, to);
  tile<S, R, 1, TURNED>(k, a, pitch, b, to);
}

// For R from ROWS down to the number of rows.
template <class S, int R, bool TURNED>
void tile_of(long rows, int vectors, long k, const S* a, long pitch, const S* b, const Target<S>& to) {
  if constexpr (R > 1)
    if (rows < R) return tile_of<S, R - 1, TURNED>(rows, vectors, k, a, pitch, b, to);
  tile_of_rows<S, R, TURNED>(vectors, k, a, pitch, b, to);
}

#if defined(__GNUC__) && !defined(__clang__)
// A square of numbers, transposed: at each stage rows exchange half of their blocks.
template <class S>
void transpose(const S* from, long from_pitch, S* to, long to_pitch) {
  constexpr int W = WIDTH<S>;
  typedef typename std::conditional<sizeof(S) == 4, int, long>::type Index;
  typedef Index Places __attribute__((vector_size(REGISTER_BYTES)));
  Vector<S> rows[W];
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) rows[i] = vector_at(from + i * from_pitch);
#pragma GCC unroll 4
  for (int step = 1; step < W; step *= 2) {
    Places upper, lower;
    for (int lane = 0; lane < W; ++lane) {
      upper[lane] = lane & step ? W + lane - step : lane;
      lower[lane] = lane & step ? W + lane : lane + step;
    }
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) {
      if (i & step) continue;
      Vector<S> a = rows[i], b = rows[i + step];
      rows[i] = __builtin_shuffle(a, b, upper);
      rows[i + step] = __builtin_shuffle(a, b, lower);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) vector_at(to + i * to_pitch) = rows[i];
}
#else
template <class S>
void transpose(const S* from, long from_pitch, S* to, long to_pitch) {
  for (int i = 0; i < WIDTH<S>; ++i)
    for (int j = 0; j < WIDTH<S>; ++j) to[j * to_pitch + i] = from[i * from_pitch + j];
}
#endif

// One panel from the transpose of b: its columns are rows there.
template <class S>
void pack_turned(const Panel<S>& panel, long k, const S* b, long pitch, S* packed) {
  constexpr long W = WIDTH<S>;
  long width = panel.width(), columns = panel.columns(), whole = k / W * W;
  for (long j = 0; j < columns; j += W) {
    const S* from = b + (panel.first + j) * pitch;
    long count = std::min(W, columns - j), done = count == W ? whole : 0;
    for (long p = 0; p < done; p += W) transpose(from + p, pitch, packed + p * width + j, width);
    for (long p = done; p < k; ++p) {
      for (long i = 0; i < count; ++i) packed[p * width + j + i] = from[i * pitch + p];
      std::fill(packed + p * width + j + count, packed + p * width + j + W, S(0));
    }
  }
}

template <class S>
void pack_panel(const Panel<S>& panel, long k, const S* b, long pitch, S* packed) {
  long width = panel.width(), columns = panel.columns();
  for (long p = 0; p < k; ++p, packed += width) {
    const S* from = b + p * pitch + panel.first;
    long j = 0;
    for (; j + WIDTH<S> <= columns; j += WIDTH<S>) vector_at(packed + j) = vector_at(from + j);
    for (; j < columns; ++j) packed[j] = from[j];
    for (; j < width; ++j) packed[j] = S(0);
  }
}

template <class S>
void pack_block(long n, long k, const S* b, long pitch, bool turned, S* packed) {
  each_panel<S>(n, [&](const Panel<S>& panel) {
    if (turned) pack_turned(panel, k, b, pitch, packed);
    else pack_panel(panel, k, b, pitch, packed);
    packed += k * panel.width();
  });
}

// Memory that a thread keeps from one product to the next.
template <class S>
S* scratch(long count) {
  static thread_local Buffer<S> memory;
  if (long(memory.size()) < count) memory.resize(count);
  return memory.data();
}

// The first k of a packed block of K, up to DEPTH, and the first n of its N columns.
template <class S>
void block_product(long m, long n, long k, S by, const S* a, long a_pitch, bool a_turned, const S* packed, long K, long N, S keep, S* out,
                   long pitch) {
  long group = std::max(1L, NEAR / std::max(1L, k) / ROWS) * ROWS;
  for (long start = 0; start < m; start += group) {
    const S* columns = packed;
    each_panel<S>(N, [&](const Panel<S>& panel) {
      long count = std::min(panel.columns(), n - panel.first);
      for (long first = start; count > 0 && first < std::min(m, start + group); first += ROWS) {
        long rows = std::min<long>(ROWS, m - first);
        Target<S> to{by, keep, out + first * pitch + panel.first, pitch, count};
        if (a_turned) tile_of<S, ROWS, true>(rows, panel.vectors, k, a + first, a_pitch, columns, to);
        else tile_of<S, ROWS, false>(rows, panel.vectors, k, a + first * a_pitch, a_pitch, columns, to);
      }
      columns += K * panel.width();
    });
  }
}

template <class S>
long padded(long n) {
  return (n + WIDTH<S> - 1) / WIDTH<S> * WIDTH<S>;
}

// work(first of k, count, what is kept of out), for each block.
template <class S, class F>
void each_block(long k, S keep, F work) {
  for (long first = 0; first < std::max(1L, k); first += DEPTH) work(first, std::min(DEPTH, k - first), first ? S(1) : keep);
}

}  // namespace

template <class S>
long packed_size(long k, long n) {
  return k * padded<S>(n);
}

template <class S>
void pack(long k, long n, const S* b, long pitch, bool turned, S* packed) {
  for (long first = 0; first < k; first += DEPTH) {
    long depth = std::min(DEPTH, k - first);
    pack_block(n, depth, turned ? b + first : b + first * pitch, pitch, turned, packed);
    packed += packed_size<S>(depth, n);
  }
}

template <class S>
void packed_product(long m, long n, long k, S by, const S* a, long a_pitch, bool a_turned, const S* packed, long K, long N, S keep, S* out,
                    long pitch) {
  each_block(k, keep, [&](long first, long depth, S kept) {
    const S* part = a_turned ? a + first * a_pitch : a + first;
    long packed_depth = std::min(DEPTH, K - first);
    block_product(m, n, depth, by, part, a_pitch, a_turned, packed + packed_size<S>(first, N), packed_depth, N, kept, out, pitch);
  });
}

template <class S>
void blocked_product(long m, long n, long k, S by, const S* a, long a_pitch, bool a_turned, const S* b, long b_pitch, bool b_turned, S keep,
                     S* out, long pitch) {
  each_block(k, keep, [&](long first, long depth, S kept) {
    S* packed = scratch<S>(packed_size<S>(depth, n));
    pack_block(n, depth, b_turned ? b + first : b + first * b_pitch, b_pitch, b_turned, packed);
    block_product(m, n, depth, by, a_turned ? a + first * a_pitch : a + first, a_pitch, a_turned, packed, depth, n, kept, out, pitch);
  });
}

#define INSTANTIATE(S)                                                                                                                  \
  template long packed_size<S>(long, long);                                                                                             \
  template void pack<S>(long, long, const S*, long, bool, S*);                                                                          \
  template void packed_product<S>(long, long, long, S, const S*, long, bool, const S*, long, long, S, S*, long);                        \
  template void blocked_product<S>(long, long, long, S, const S*, long, bool, const S*, long, bool, S, S*, long);

INSTANTIATE(float)
INSTANTIATE(double)
