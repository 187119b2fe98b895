// Pieces of work on new threads: there is no pool, so nothing spins while PyTorch's threads run.
#pragma once
#include <algorithm>
#include <thread>
#include <vector>

template <class F>
void parallel(long pieces, long threads, F work) {
  threads = std::max(1L, std::min(threads, pieces));
  auto run_every = [&](long id) {
    for (long i = id; i < pieces; i += threads) work(i);
  };
  std::vector<std::thread> others;
  for (long id = 1; id < threads; ++id) others.emplace_back(run_every, id);
  run_every(0);
  for (auto& other : others) other.join();
}
