// Matrix products, by the functions of a library that kernels.cpu.products passes to `use_products`, or by the suite's own (blocked.h).
#pragma once
#include "bf16.h"
#include "blocked.h"
#include "buffer.h"
#include "parallel.h"

using Gemm = void (*)(const char*, const char*, const int*, const int*, const int*, const void*, const void*, const int*, const void*,
                      const int*, const void*, void*, const int*);
extern Gemm single_product, double_product;  // null: the suite's own
extern Gemm bf16_product;  // of factors in bf16, summed and stored in fp32; `use_bf16_product` sets it
// Sets the number for the calling thread, returns the one before; 0: that of the process. Null: products never use more than one.
extern int (*threads_of_products)(int);

inline Gemm product_of(const float*) { return single_product; }
inline Gemm product_of(const double*) { return double_product; }

// A matrix [rows, columns] in row order, its rows `pitch` numbers apart, read as its transpose if `turned`.
template <class S>
struct Matrix {
  S* data;
  long pitch;
  bool turned = false;
};

template <class S>
Matrix<S> turned(Matrix<S> x) {
  return {x.data, x.pitch, !x.turned};
}

// out [m, n] = by · a [m, k] b [k, n] + keep · out
template <class S>
void multiply(long m, long n, long k, S by, Matrix<const S> a, Matrix<const S> b, S keep, Matrix<S> out) {
  if (!product_of(out.data))
    return blocked_product(m, n, k, by, a.data, a.pitch, a.turned, b.data, b.pitch, b.turned, keep, out.data, out.pitch);
  int M = int(m), N = int(n), K = int(k), la = int(a.pitch), lb = int(b.pitch), lo = int(out.pitch);
  // the library stores matrices by columns: it computes the transpose of the product
  product_of(out.data)(b.turned ? "T" : "N", a.turned ? "T" : "N", &N, &M, &K, &by, b.data, &lb, a.data, &la, &keep, out.data, &lo);
}

// A factor b [k, n] of many products, packed once where the suite multiplies. Elsewhere b itself is read.
template <class S>
struct Packed {
  long k, n;
  Matrix<const S> b;
  Scratch<S> memory;

  Packed(long k, long n, Matrix<const S> b) : k(k), n(n), b(b), memory(product_of(b.data) ? 0 : packed_size<S>(k, n)) {
    if (memory.data()) pack(k, n, b.data, b.pitch, b.turned, memory.data());
  }
};

// With the first k rows and n columns of a packed factor.
template <class S>
void multiply(long m, long n, long k, S by, Matrix<const S> a, const Packed<S>& b, S keep, Matrix<S> out) {
  if (!b.memory.data()) return multiply(m, n, k, by, a, b.b, keep, out);
  packed_product(m, n, k, by, a.data, a.pitch, a.turned, b.memory.data(), b.k, b.n, keep, out.data, out.pitch);
}

// The same product of factors in bf16, summed in fp32.
inline void multiply(long m, long n, long k, float by, Matrix<const Bf16> a, Matrix<const Bf16> b, float keep, Matrix<float> out) {
  int M = int(m), N = int(n), K = int(k), la = int(a.pitch), lb = int(b.pitch), lo = int(out.pitch);
  bf16_product(b.turned ? "T" : "N", a.turned ? "T" : "N", &N, &M, &K, &by, b.data, &lb, a.data, &la, &keep, out.data, &lo);
}

// Pieces of work that multiply, each product on one thread.
template <class F>
void parallel_products(long pieces, long threads, F work) {
  parallel(pieces, threads, [&](long piece) {
    int before = threads_of_products ? threads_of_products(1) : 0;
    work(piece);
    if (threads_of_products) threads_of_products(before);
  });
}
