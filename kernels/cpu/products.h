// Matrix products by the library that PyTorch itself uses: kernels.cpu.library passes its functions to `use_products`.
#pragma once
#include "bf16.h"
#include "parallel.h"

using Gemm = void (*)(const char*, const char*, const int*, const int*, const int*, const void*, const void*, const int*, const void*,
                      const int*, const void*, void*, const int*);
extern Gemm single_product, double_product;
extern Gemm bf16_product;  // of factors in bf16, summed and stored in fp32; `use_bf16_product` sets it
extern int (*threads_of_products)(int);  // sets the number for the calling thread, returns the one before; 0: that of the process

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
  int M = int(m), N = int(n), K = int(k), la = int(a.pitch), lb = int(b.pitch), lo = int(out.pitch);
  // the library stores matrices by columns: it computes the transpose of the product
  product_of(out.data)(b.turned ? "T" : "N", a.turned ? "T" : "N", &N, &M, &K, &by, b.data, &lb, a.data, &la, &keep, out.data, &lo);
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
    int before = threads_of_products(1);
    work(piece);
    threads_of_products(before);
  });
}
