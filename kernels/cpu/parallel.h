// Pieces of work on threads of their own: no pool to share, so nothing spins beside PyTorch's.
#pragma once
#include <algorithm>
#include <thread>
#include <vector>

template <class F>
void parallel(long pieces, long threads, F work) {
  threads = std::max(1L, std::min(threads, pieces));
  auto share = [&](long id) {
    for (long i = id; i < pieces; i += threads) work(i);
  };
  std::vector<std::thread> others;
  for (long id = 1; id < threads; ++id) others.emplace_back(share, id);
  share(0);
  for (auto& other : others) other.join();
}
