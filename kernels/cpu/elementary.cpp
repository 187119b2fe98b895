#include "elementary.h"

template <>
float least_exponent<float>() {
  return LEAST_EXPONENT<float>;
}

template <>
double least_exponent<double>() {
  return LEAST_EXPONENT<double>;
}
