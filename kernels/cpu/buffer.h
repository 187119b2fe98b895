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

// The same without zeros in it: for what is written before it is read.
template <class S>
class Scratch {
 public:
  explicit Scratch(long count) : memory(count > 0 ? OnCacheLines<S>().allocate(count) : nullptr) {}
  ~Scratch() {
    if (memory) OnCacheLines<S>().deallocate(memory, 0);
  }
  Scratch(Scratch&& other) noexcept : memory(other.memory) { other.memory = nullptr; }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  S* data() const { return memory; }
  S& operator[](long i) const { return memory[i]; }

 private:
  S* memory;
};
