// Pieces of work on the threads of PyTorch's own OpenMP runtime: kernels.cpu.library passes its function to `use_threads`.
// With threads of our own, those of PyTorch would spin after each of its operations on the processors that ours need.
#pragma once
#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

// runs function(data) on so many threads of the pool, the calling one included (GOMP_parallel); null: there is no pool
extern void (*run_on_pool)(void (*function)(void*), void* data, unsigned threads, unsigned flags);

template <class F>
struct Pieces {
  F& work;
  long count, threads;
  std::atomic<long> next{0};

  // Takes runs of pieces, ever shorter ones, until none is left: neighbours, such as the heads of a token, write to the
  // same cache lines, and a thread that another process holds up leaves its share to the others.
  static void take(void* self) {
    auto& pieces = *static_cast<Pieces*>(self);
    for (long first = pieces.next.load(std::memory_order_relaxed); first < pieces.count;) {
      long end = first + std::max(1L, (pieces.count - first) / (4 * pieces.threads));
      if (!pieces.next.compare_exchange_weak(first, end, std::memory_order_relaxed)) continue;
      for (long i = first; i < end; ++i) pieces.work(i);
      first = pieces.next.load(std::memory_order_relaxed);
    }
  }
};

template <class F>
void parallel(long count, long threads, F work) {
  threads = std::max(1L, std::min(threads, count));
  Pieces<F> pieces{work, count, threads};
  // One machine code for any number of threads, which a compiler cannot know: inlined for one thread it would order sums in another way.
  void (*volatile take)(void*) = &Pieces<F>::take;
  if (threads <= 1) return take(&pieces);
  if (run_on_pool) return run_on_pool(take, &pieces, unsigned(threads), 0);
  std::vector<std::thread> others;
  for (long id = 1; id < threads; ++id) others.emplace_back(take, &pieces);
  take(&pieces);
  for (auto& other : others) other.join();
}
