// The size of this processor's vector registers, and vectors of a size at any address.
#pragma once

#if defined(__AVX512F__)
constexpr int REGISTER_BYTES = 64;
#elif defined(__AVX__)
constexpr int REGISTER_BYTES = 32;
#else
constexpr int REGISTER_BYTES = 16;
#endif

template <class S, int BYTES>
struct AnyAddress {
  typedef S Vector __attribute__((vector_size(BYTES), aligned(sizeof(S)), may_alias));
};

template <int BYTES = REGISTER_BYTES, class S>
typename AnyAddress<S, BYTES>::Vector& vector_at(S* x) {
  return *reinterpret_cast<typename AnyAddress<S, BYTES>::Vector*>(x);
}
template <int BYTES = REGISTER_BYTES, class S>
const typename AnyAddress<S, BYTES>::Vector& vector_at(const S* x) {
  return *reinterpret_cast<const typename AnyAddress<S, BYTES>::Vector*>(x);
}
