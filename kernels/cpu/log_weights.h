// Weights in the log domain, as the steps of decoding keep them.
#pragma once
#include <algorithm>
#include <cmath>

#include "elementary.h"
#include "vectors.h"

// log(e^a + e^b) for finite a and b
template <class S>
inline S log_of_both(S a, S b) {
  return std::max(a, b) + log_of_one_and(exponential(-std::abs(a - b)));
}

// Log-weights become log-weights that sum to 1, and `weights` these weights.
template <class S>
void normalise(S* logs, S* weights, long n) {
  S top = largest(logs, n, logs[0]), sum = 0;
  for (long i = 0; i < n; ++i) sum += weights[i] = exponential(logs[i] - top);
  S norm = std::log(sum), inverse = S(1) / sum;
  for (long i = 0; i < n; ++i) logs[i] -= top + norm, weights[i] *= inverse;
}
