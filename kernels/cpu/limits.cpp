// What a processor can do at most: loops of multiply-adds on registers alone, and of reading memory, for suite bench.
#include "parallel.h"

namespace {

#if defined(__AVX512F__)
constexpr int WIDTH = 16, SUMS = 16;
#elif defined(__AVX__)
constexpr int WIDTH = 8, SUMS = 12;
#else
constexpr int WIDTH = 4, SUMS = 8;
#endif
typedef float Vector __attribute__((vector_size(4 * WIDTH), aligned(4)));

volatile float kept;  // so that no loop is left out

float added(const Vector* sums, int count) {
  float total = 0;
  for (int i = 0; i < count; ++i)
    for (int j = 0; j < WIDTH; ++j) total += sums[i][j];
  return total;
}

}  // namespace

// FLOPs of `multiply_adds`, which runs so many rounds on each thread: independent sums, more than the units' delay.
extern "C" double multiply_adds(long rounds, long threads) {
  parallel(threads, threads, [&](long) {
    Vector sums[SUMS], factor, term;
    for (int j = 0; j < WIDTH; ++j) factor[j] = 0.999f, term[j] = 0.001f * (j + 1);
    for (int i = 0; i < SUMS; ++i) sums[i] = term * float(i);
    for (long round = 0; round < rounds; ++round)
#pragma GCC unroll 16
      for (int i = 0; i < SUMS; ++i) sums[i] = sums[i] * factor + term;
    kept = added(sums, SUMS);
  });
  return 2.0 * rounds * SUMS * WIDTH * threads;
}

// Reads `count` floats once, in as many parts as threads.
extern "C" void read_floats(const float* x, long count, long threads) {
  parallel(threads, threads, [&](long part) {
    constexpr int STEPS = 8;
    const float *from = x + count * part / threads, *end = x + count * (part + 1) / threads;
    Vector sums[STEPS] = {};
    for (; from + STEPS * WIDTH <= end; from += STEPS * WIDTH)
      for (int i = 0; i < STEPS; ++i) sums[i] += *reinterpret_cast<const Vector*>(from + i * WIDTH);
    float rest = 0;
    for (; from < end; ++from) rest += *from;
    kept = added(sums, STEPS) + rest;
  });
}
