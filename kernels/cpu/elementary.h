// Functions of one number.
#pragma once
#include <algorithm>
#include <cmath>

// e^x for x <= 0: zero below -80, where denormals are slow and add nothing.
template <class S>
S exponential(S x) {
  return x < S(-80) ? S(0) : std::exp(std::max(x, S(-80)));
}
