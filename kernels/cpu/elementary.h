// Functions of one number.
#pragma once
#include <algorithm>
#include <cmath>

// Near the smallest normal number: below it denormals are slow. What it cuts off has no weight next to values and features in the range of
// one pass (kernels/numerics/exponentials.py).
template <class S>
constexpr S LEAST_EXPONENT = S(sizeof(S) == sizeof(double) ? -700 : -86);
// A little more than e^LEAST_EXPONENT.
template <class S>
constexpr S LEAST_WEIGHT = S(sizeof(S) == sizeof(double) ? 9.87e-305 : 4.48e-38);

// LEAST_EXPONENT in a form that a compiler cannot look into, and calls once per loop. With a constant bound, GCC computes the exponential of
// what lies below it too and takes the maximum of the results, and the vectorised exponential is some 15 times slower there.
template <class S>
__attribute__((const, nothrow)) S least_exponent();

// e^x for x <= 0: zero from LEAST_EXPONENT down.
template <class S>
S exponential(S x) {
  S least = least_exponent<S>(), e = std::exp(x < least ? least : x);
  return e < LEAST_WEIGHT<S> ? S(0) : e;
}

// e^-|x|, from which softplus and the logistic function are computed. With a constant bound: gates stay above it, and a loop that calls
// only under a condition would not vectorise with the other.
template <class S>
S decay(S x) {
  return std::exp(std::max(-std::abs(x), LEAST_EXPONENT<S>));
}

// log(1 + e) for 0 <= e <= 1. In single precision the polynomial of least relative error (5e-9): twice as fast as log1p.
template <class V>
inline V log_of_one_and_polynomial(V e) {
  constexpr float TERMS[] = {-0.00324404822f, 0.01985158399f, -0.05695980415f, 0.10603687167f, -0.15305614471f,
                             0.19675946236f,  -0.24954134226f, 0.33329963684f,  -0.49999901652f, 1.0f};
  V y = {};
  for (float term : TERMS) y = y * e + term;
  return y * e;
}
inline double log_of_one_and(double e) { return std::log1p(e); }
inline float log_of_one_and(float e) { return log_of_one_and_polynomial(e); }

// `decayed` is decay(x).
template <class S>
S softplus(S x, S decayed) {
  return std::max(x, S(0)) + log_of_one_and(decayed);
}

// 1 / (1 + e^-x)
template <class S>
S logistic(S x) {
  S e = decay(x), rest = S(1) / (S(1) + e);
  return x < S(0) ? e * rest : rest;
}
