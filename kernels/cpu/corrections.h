// The triangular systems of the delta rule in a chunk, by substitution in blocks of rows. `products` [m, m] has the overlap of what row t reads
// with what token i < t stored, decays included; beta is that of the chunk's first token, `step` numbers from one token to the next.
// delta.cpp has the same loops as members of its structure: compiled there they round otherwise, and its recorded losses would change.
#pragma once
#include <algorithm>

#include "products.h"

constexpr long ROWS = 16;  // of a block of the substitution

template <class S>
void subtract(S* from, S by, const S* x, long n) {
  for (long j = 0; j < n; ++j) from[j] -= by * x[j];
}

// From errors [m, vw] against what the memory held before the chunk to errors e, and u = b e.
template <class S>
void substitute(long m, long vw, const S* products, const S* beta, long step, S* errors, S* u) {
  for (long start = 0; start < m; start += ROWS) {
    long end = std::min(start + ROWS, m);
    if (start) multiply<S>(end - start, vw, start, S(-1), {products + start * m, m}, {u, vw}, S(1), {errors + start * vw, vw});
    for (long t = start; t < end; ++t) {
      S* e = errors + t * vw;
      for (long i = start; i < t; ++i) subtract(e, products[t * m + i], u + i * vw, vw);
      S rate = beta[t * step];
      for (long j = 0; j < vw; ++j) u[t * vw + j] = rate * e[j];
    }
  }
}

// The adjoint: from the gradient of u that does not pass through later errors, in place, to that of e [m, vw]; y = b times it.
template <class S>
void substitute_adjoint(long m, long vw, const S* products, const S* beta, long step, S* to_u, S* y) {
  for (long start = (m - 1) / ROWS * ROWS; start >= 0; start -= ROWS) {
    long end = std::min(start + ROWS, m);
    Matrix<const S> below{products + end * m + start, m, true};
    if (end < m) multiply<S>(end - start, vw, m - end, S(-1), below, {y + end * vw, vw}, S(1), {to_u + start * vw, vw});
    for (long t = end - 1; t >= start; --t) {
      S* d = to_u + t * vw;
      for (long i = t + 1; i < end; ++i) subtract(d, products[i * m + t], y + i * vw, vw);
      S rate = beta[t * step];
      for (long j = 0; j < vw; ++j) y[t * vw + j] = rate * d[j];
    }
  }
}
