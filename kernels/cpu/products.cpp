#include "products.h"

Gemm single_product, double_product, bf16_product;
int (*threads_of_products)(int);

// Null: the suite's own products.
extern "C" void use_products(void* single, void* both, void* threads) {
  single_product = reinterpret_cast<Gemm>(single);
  double_product = reinterpret_cast<Gemm>(both);
  threads_of_products = reinterpret_cast<int (*)(int)>(threads);
}

extern "C" void use_bf16_product(void* product) { bf16_product = reinterpret_cast<Gemm>(product); }

void (*run_on_pool)(void (*function)(void*), void* data, unsigned threads, unsigned flags);

extern "C" void use_threads(void* run) { run_on_pool = reinterpret_cast<decltype(run_on_pool)>(run); }

// One product on the calling thread, for comparisons: out [m, n] = by · a b + keep · out, b packed first if `packed`.
#define EXPORT(S, NAME)                                                                                                                \
  extern "C" void product_##NAME(const S* a, const S* b, S* out, double by, double keep, long m, long n, long k, long a_pitch,         \
                                 long a_turned, long b_pitch, long b_turned, long pitch, long packed) {                                \
    parallel_products(1, 1, [&](long) {                                                                                                \
      Matrix<const S> a_{a, a_pitch, a_turned != 0}, b_{b, b_pitch, b_turned != 0};                                                    \
      if (packed) multiply<S>(m, n, k, S(by), a_, Packed<S>(k, n, b_), S(keep), {out, pitch});                                         \
      else multiply<S>(m, n, k, S(by), a_, b_, S(keep), {out, pitch});                                                                 \
    });                                                                                                                                \
  }

EXPORT(float, float)
EXPORT(double, double)
