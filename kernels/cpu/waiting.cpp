// How long a round of the loop takes in which an idle thread waits, for kernels/cpu/waiting.py.
#include <algorithm>
#include <chrono>

// Nanoseconds of one pause instruction, the shortest mean of a few tries; 0 on processors that have none.
extern "C" double pause_ns() {
#if defined(__x86_64__) || defined(__i386__)
  using clock = std::chrono::steady_clock;
  const int rounds = 2000;
  double best = 1e9;
  for (int i = 0; i < 9; ++i) {
    const auto began = clock::now();
    for (int j = 0; j < rounds; ++j) __builtin_ia32_pause();
    best = std::min(best, std::chrono::duration<double, std::nano>(clock::now() - began).count() / rounds);
  }
  return best;
#else
  return 0;
#endif
}
