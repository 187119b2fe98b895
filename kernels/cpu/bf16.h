// bfloat16 in memory: the upper half of a number in fp32, in which everything is computed.
#pragma once
#include <cstdint>
#include <cstring>

struct Bf16 {
  std::uint16_t bits;
};

inline float widened(Bf16 x) {
  std::uint32_t bits = std::uint32_t(x.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

// To the nearest, ties to even; NaN stays NaN, which the addition could carry over to zero or infinity.
inline Bf16 rounded(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  std::uint32_t near = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16, nan = (bits >> 16) | 0x40;
  return {std::uint16_t((bits & 0x7fffffff) > 0x7f800000 ? nan : near)};
}

inline void round_all(const float* x, Bf16* out, long n) {
  for (long i = 0; i < n; ++i) out[i] = rounded(x[i]);
}

inline void widen_all(const Bf16* x, float* out, long n) {
  for (long i = 0; i < n; ++i) out[i] = widened(x[i]);
}
