// Scratch memory that begins on a cache line: the rounding of products and vectorised loops may depend on the addresses of their operands,
// and the same work must give the same bits each time.
#pragma once
#include <cstddef>
#include <new>
#include <vector>

template <class S>
struct OnCacheLines {
  using value_type = S;
  OnCacheLines() = default;
  template <class U>
  OnCacheLines(const OnCacheLines<U>&) {}
  S* allocate(std::size_t count) { return static_cast<S*>(::operator new(count * sizeof(S), std::align_val_t(64))); }
  void deallocate(S* data, std::size_t) { ::operator delete(data, std::align_val_t(64)); }
  bool operator==(const OnCacheLines&) const { return true; }
  bool operator!=(const OnCacheLines&) const { return false; }
};

template <class S>
using Buffer = std::vector<S, OnCacheLines<S>>;
