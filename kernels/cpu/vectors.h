// Vectors of 64 bytes, which compilers split where the processor's are shorter.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "elementary.h"

template <class S>
struct Vectors {
  typedef S Vector __attribute__((vector_size(64)));
  typedef std::conditional_t<sizeof(S) == 8, std::int64_t, std::int32_t> Integers __attribute__((vector_size(64)));
  static constexpr long LANES = 64 / long(sizeof(S));
};

template <class S>
using Vector = typename Vectors<S>::Vector;

template <class S>
using Integers = typename Vectors<S>::Integers;

template <class S>
constexpr long LANES = Vectors<S>::LANES;

template <class S>
inline Vector<S> load(const S* from) {
  Vector<S> x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

template <class S>
inline void store(S* to, Vector<S> x) {
  std::memcpy(to, &x, sizeof x);
}

template <class S, int BY, int... I>
inline Vector<S> plus_exchanged(Vector<S> x, std::integer_sequence<int, I...> lanes) {
  const Vector<S> sums = x + Vector<S>{x[I ^ BY]...};
  if constexpr (BY == 1) return sums;
  return plus_exchanged<S, (BY + 1) / 2>(sums, lanes);
}

template <class S, int... I>
inline Vector<S> totals(Vector<S> x, Vector<S> y, std::integer_sequence<int, I...> lanes) {
  constexpr int HALF = LANES<S> / 2;
  const Vector<S> sums = Vector<S>{(I < HALF ? x[I] : y[I])...} + Vector<S>{(I < HALF ? x[I ^ HALF] : y[I ^ HALF])...};
  return plus_exchanged<S, HALF / 2>(sums, lanes);
}

// The sum of the lanes of x in the first lane, and that of y in the last.
template <class S>
inline Vector<S> totals(Vector<S> x, Vector<S> y) {
  return totals<S>(x, y, std::make_integer_sequence<int, LANES<S>>());
}

// e^x of x <= 0 that are given in another unit, as UNIT times x: zero far below, NaN for NaN. In single precision it is 2^x, inline, where
// the vectorised exponential is a call; a polynomial of relative error 2e-9 takes the fraction, and the result is exact at 0.
template <class S>
constexpr S UNIT = S(sizeof(S) == sizeof(double) ? 1.0 : 1.44269504088896341);

inline Vector<double> falling(Vector<double> x) {
  for (long i = 0; i < LANES<double>; ++i) x[i] = exponential(x[i]);
  return x;
}

inline Vector<float> falling(Vector<float> x) {
  constexpr float TERMS[] = {0.000109023009f, 0.0012747476f, 0.00957917885f, 0.0554907566f, 0.240224368f, 0.693147064f, 1.0f};
  const Integers<float> below = x < -124.0f, whole = __builtin_convertvector((Vector<float>)((Integers<float>)x & ~below), Integers<float>);
  const Vector<float> rest = x - __builtin_convertvector(whole, Vector<float>);
  Vector<float> y = {};
  for (float term : TERMS) y = y * rest + term;
  return (Vector<float>)(((Integers<float>)y + (whole << 23)) & ~below);
}
