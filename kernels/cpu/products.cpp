#include "products.h"

Gemm single_product, double_product, bf16_product;
int (*threads_of_products)(int);

extern "C" void use_products(void* single, void* both, void* threads) {
  single_product = reinterpret_cast<Gemm>(single);
  double_product = reinterpret_cast<Gemm>(both);
  threads_of_products = reinterpret_cast<int (*)(int)>(threads);
}

extern "C" void use_bf16_product(void* product) { bf16_product = reinterpret_cast<Gemm>(product); }

void (*run_on_pool)(void (*function)(void*), void* data, unsigned threads, unsigned flags);

extern "C" void use_threads(void* run) { run_on_pool = reinterpret_cast<decltype(run_on_pool)>(run); }
