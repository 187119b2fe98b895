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

// n rounded up to whole vectors
template <class S>
constexpr long whole_vectors(long n) {
  return (n + LANES<S> - 1) / LANES<S> * LANES<S>;
}

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

// e^x for x <= 0, as `exponential`
template <class S>
inline Vector<S> exp_of_negative(Vector<S> x) {
  return falling(x * UNIT<S>);
}

// the first `count` lanes; the others are zero, or are left as they are in memory
template <class S>
inline Vector<S> load(const S* from, long count) {
  if (count >= LANES<S>) return load(from);
  Vector<S> x = {};
  for (long i = 0; i < count; ++i) x[i] = from[i];
  return x;
}

template <class S>
inline void store(S* to, Vector<S> x, long count) {
  if (count >= LANES<S>) return store(to, x);
  for (long i = 0; i < count; ++i) to[i] = x[i];
}

template <class V>
inline V larger(V a, V b) {
  return a > b ? a : b;
}

// The largest of n numbers and `from`; NaN is ignored. Left to itself, GCC takes one number at a time.
template <class S>
inline S largest(const S* x, long n, S from) {
  constexpr long W = LANES<S>;
  if (n < W) {
    for (long j = 0; j < n; ++j) from = larger(x[j], from);
    return from;
  }
  Vector<S> even = Vector<S>{} + from, odd = even;
  long j = 0;
  for (; j + 2 * W <= n; j += 2 * W) even = larger(load(x + j), even), odd = larger(load(x + j + W), odd);
  if (j + W <= n) even = larger(load(x + j), even);
  even = larger(larger(load(x + n - W), odd), even);  // some of them again
  S lanes[W];
  store(lanes, even);
  for (long width = W / 2; width; width /= 2)
    for (long l = 0; l < width; ++l) lanes[l] = larger(lanes[l + width], lanes[l]);
  return lanes[0];
}

inline Vector<double> log_of_one_and(Vector<double> e) {
  for (long i = 0; i < LANES<double>; ++i) e[i] = std::log1p(e[i]);
  return e;
}
inline Vector<float> log_of_one_and(Vector<float> e) { return log_of_one_and_polynomial(e); }

// log(1 + e^x) and 1 / (1 + e^-x)
template <class S>
struct Soft {
  Vector<S> plus, step;
  explicit Soft(Vector<S> x) {
    const Vector<S> e = exp_of_negative<S>(x < S(0) ? x : -x), rest = S(1) / (S(1) + e);
    plus = larger(Vector<S>{}, x) + log_of_one_and(e);
    step = x < S(0) ? e * rest : rest;
  }
};

// e^x and e^x - 1, to their own digits; |x| within the range of one pass
template <class S>
struct Exponentials {
  Vector<S> whole, less;
};

inline Exponentials<double> exponentials(Vector<double> x) {
  Exponentials<double> e;
  for (long i = 0; i < LANES<double>; ++i) e.whole[i] = std::exp(x[i]), e.less[i] = std::expm1(x[i]);
  return e;
}
inline Exponentials<float> exponentials(Vector<float> x) {
  constexpr float TERMS[] = {1 / 40320.0f, 1 / 5040.0f, 1 / 720.0f, 1 / 120.0f, 1 / 24.0f, 1 / 6.0f, 1 / 2.0f, 1.0f};
  const Vector<float> size = x < 0.0f ? -x : x, e = exp_of_negative<float>(-size), whole = x > 0.0f ? 1.0f / e : e;
  Vector<float> series = {};
  for (float term : TERMS) series = series * x + term;
  return {whole, size < 0.5f ? series * x : whole - 1.0f};
}

// A token enters a state in the log domain: log-weights `old` and `added` become `log_sum`, of which their parts are `keep` and `add`.
template <class S>
struct Entry {
  Vector<S> log_sum, keep, add;
  Entry(Vector<S> old, Vector<S> added) {
    const Vector<S> gap = old - added, e = exp_of_negative<S>(gap < S(0) ? gap : -gap), larger_part = S(1) / (S(1) + e);
    log_sum = larger(old, added) + log_of_one_and(e);
    keep = gap > S(0) ? larger_part : e * larger_part;
    add = gap > S(0) ? e * larger_part : larger_part;
  }
};
