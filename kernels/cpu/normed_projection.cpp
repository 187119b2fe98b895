// A few projections of the layer-normalised input, y = LayerNorm(x) Wᵀ, W [R, D] with few rows, in double precision whatever the dtype of x.
// A handful of rows of x at a time stay in the first cache, where both the products with so few columns and the norms are taken; the matrix
// library is slow at such shapes. Rows of W are padded to whole vectors.
#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "parts.h"
#include "vectors.h"

namespace {

constexpr long GROUP = 4;  // rows of x at a time

long padded(long D) { return (D + LANES<double> - 1) / LANES<double> * LANES<double>; }

// Rows of W with zeros up to whole vectors, each minus its own mean if `centred`.
Scratch<double> padded_rows(const double* w, long R, long D, bool centred) {
  const long P = padded(D);
  Scratch<double> rows(R * P);
  for (long r = 0; r < R; ++r) {
    double mean = 0;
    for (long i = 0; centred && i < D; ++i) mean += w[r * D + i];
    mean /= double(D);
    for (long i = 0; i < D; ++i) rows[r * P + i] = w[r * D + i] - mean;
    std::fill(rows.data() + r * P + D, rows.data() + (r + 1) * P, 0.0);
  }
  return rows;
}

// x minus a number, with zeros up to a whole vector
template <class S>
void shifted(const S* x, double by, double* to, long D) {
  for (long i = 0; i < D; ++i) to[i] = double(x[i]) - by;
  std::fill(to + D, to + padded(D), 0.0);
}

double sum(Vector<double> x) {
  double total = 0;
  for (long l = 0; l < LANES<double>; ++l) total += x[l];
  return total;
}

// The products of GROUP rows z with each row of W, scaled by row: y [rows, R].
void products(const double* z, const double* w, const double* scale, double* y, long rows, long R, long P) {
  for (long r = 0; r < R; ++r) {
    Vector<double> sums[GROUP] = {};
    for (long i = 0; i < P; i += LANES<double>) {
      const Vector<double> column = load(w + r * P + i);
      for (long row = 0; row < GROUP; ++row) sums[row] += column * load(z + row * P + i);
    }
    for (long row = 0; row < rows; ++row) y[row * R + r] = sum(sums[row]) * scale[row];
  }
}

// y [N, R]; mean and inverse [N] are those of the rows of x: 1 / sqrt(variance + eps)
template <class S>
void normed_projection(const S* x, const double* w, double* y, double* mean, double* inverse, double eps, long N, long D, long R,
                       long threads) {
  const long P = padded(D);
  const Scratch<double> rows_of_w = padded_rows(w, R, D, false);
  by_parts(N, threads, [&](long, long first, long end) {
    Scratch<double> z(GROUP * P);
    std::fill(z.data(), z.data() + GROUP * P, 0.0);
    for (long row = first; row < end; row += GROUP) {
      const long rows = std::min(GROUP, end - row);
      for (long i = row; i < row + rows; ++i) {
        double total = 0, square = 0, *to = z.data() + (i - row) * P;
        for (long d = 0; d < D; ++d) total += double(x[i * D + d]);
        mean[i] = total / double(D);
        shifted(x + i * D, mean[i], to, D);
        for (long d = 0; d < D; ++d) square += to[d] * to[d];
        inverse[i] = 1 / std::sqrt(square / double(D) + eps);
      }
      products(z.data(), rows_of_w.data(), inverse + row, y + row * R, rows, R, P);
    }
  });
}

// Of GROUP rows: dx = Wc' (g inverse) + along z, and dw += (g inverse) z'. Wc is W minus the mean of each row, since LayerNorm takes the
// mean out of its gradient. Rows that are not there have pulls of zero.
void pull(double* z, const double* centred_w, const double* pulls, const double* along, double* dw, long R, long P) {
  for (long i = 0; i < P; i += LANES<double>) {
    Vector<double> given[GROUP], to_x[GROUP];
    for (long row = 0; row < GROUP; ++row) given[row] = load(z + row * P + i), to_x[row] = given[row] * along[row];
    for (long r = 0; r < R; ++r) {
      const Vector<double> column = load(centred_w + r * P + i);
      Vector<double> to_w = load(dw + r * P + i);
      for (long row = 0; row < GROUP; ++row) {
        to_x[row] += column * pulls[row * R + r];
        to_w += given[row] * pulls[row * R + r];
      }
      store(dw + r * P + i, to_w);
    }
    for (long row = 0; row < GROUP; ++row) store(z + row * P + i, to_x[row]);
  }
}

template <class S>
void normed_projection_backward(const S* x, const double* w, const double* y, const double* mean, const double* inverse, const double* g,
                                S* dx, double* dw, long N, long D, long R, long threads) {
  const long P = padded(D), part = (N + WEIGHT_PARTS - 1) / WEIGHT_PARTS;
  const Scratch<double> centred_w = padded_rows(w, R, D, true);
  const WeightSums<double> ws(dw, R * D);
  parallel(WEIGHT_PARTS, threads, [&](long piece) {
    Scratch<double> z(GROUP * P), to_w(R * P), pulls(GROUP * R);
    std::fill(z.data(), z.data() + GROUP * P, 0.0);
    std::fill(to_w.data(), to_w.data() + R * P, 0.0);
    for (long row = piece * part, end = std::min(N, row + part); row < end; row += GROUP) {
      const long rows = std::min(GROUP, end - row);
      double along[GROUP] = {};
      std::fill(pulls.data(), pulls.data() + GROUP * R, 0.0);
      for (long i = row; i < row + rows; ++i) {
        double dot = 0;  // of the normed row and its gradient: it is y·g
        for (long r = 0; r < R; ++r) {
          dot += g[i * R + r] * y[i * R + r];
          pulls[(i - row) * R + r] = g[i * R + r] * inverse[i];
        }
        along[i - row] = -dot * inverse[i] * inverse[i] / double(D);
        shifted(x + i * D, mean[i], z.data() + (i - row) * P, D);
      }
      pull(z.data(), centred_w.data(), pulls.data(), along, to_w.data(), R, P);
      for (long i = row; i < row + rows; ++i)
        for (long d = 0; d < D; ++d) dx[i * D + d] = S(z[(i - row) * P + d]);
    }
    for (long r = 0; r < R; ++r) std::copy(to_w.data() + r * P, to_w.data() + r * P + D, ws[piece] + r * D);
  });
  ws.add(threads);
}

}  // namespace

#define EXPORT(S, NAME)                                                                                                              \
  extern "C" void normed_projection_##NAME(const S* x, const double* w, double* y, double* mean, double* inverse, double eps,        \
                                           long N, long D, long R, long threads) {                                                   \
    normed_projection<S>(x, w, y, mean, inverse, eps, N, D, R, threads);                                                             \
  }                                                                                                                                  \
  extern "C" void normed_projection_backward_##NAME(const S* x, const double* w, const double* y, const double* mean,               \
                                                    const double* inverse, const double* g, S* dx, double* dw, long N, long D,       \
                                                    long R, long threads) {                                                          \
    normed_projection_backward<S>(x, w, y, mean, inverse, g, dx, dw, N, D, R, threads);                                             \
  }

EXPORT(float, float)
EXPORT(double, double)
