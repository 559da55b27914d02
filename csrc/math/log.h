// log, log2, log10, log1p. Method: x = 2^k (1 + f) with 1 + f in [3/4, 3/2), log(1 + f) by a polynomial.
#pragma once
#include "math/exp.h"

namespace fastdl {
namespace {

// x = 2^k m with m in [3/4, 3/2). k is -inf for 0 and inf for infinity, m is NaN for NaN and x < 0; then the formulas below give
// the right results there without further care. (vec.h has two instructions for it on AVX-512.)
template <class V>
FD_MATH void split_exponent(V x, V& k, V& m) {
  using I = IntOf<V>;
  const auto subnormal = x < V(1.17549435e-38f);
  const V normal = select(subnormal, x * V(8388608.0f), x);
  const I octaves = (bits_of(normal) - I(0x3f400000)) >> 23;  // by the bits: those above the pattern of 3/4
  k = to_float(octaves) - select(subnormal, V(23.0f), V(0.0f));
  k = select(x == V(0.0f), V(-kInf<V>), select(x == V(kInf<V>), x, k));
  m = from_bits<V>(bits_of(normal) - (octaves << 23));
  m = select(x >= V(0.0f), m, V(kNaN<V>));
}

template <class V>
FD_MATH V log1p_tail(V f) {  // log(1 + f) - f on [-1/4, 1/2]; error 5e-9 relative to log(1 + f)
  return f * f *
         polynomial(f, -0.5f, 3.333345e-01f, -2.5000107e-01f, 1.999083e-01f, -1.6646908e-01f, 1.4477971e-01f, -1.3164371e-01f,
                    1.04719564e-01f, -4.5141663e-02f);
}

// ln 2 again, but both parts positive, so that k = -inf stays -inf; n * hi is exact for |n| < 2^7.
constexpr float kLogLn2Hi = 6.93138123e-1f, kLogLn2Lo = 9.0580015e-6f;

template <class V>
FD_MATH V log(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(log)(t); });
  } else {
    V k, m;
    split_exponent(x, k, m);
    const V f = m - V(1.0f);
    return fma(k, V(kLogLn2Hi), f + fma(k, V(kLogLn2Lo), log1p_tail(f)));
  }
}

template <class V>
FD_MATH V log2(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(log2)(t); });
  } else {
    V k, m;
    split_exponent(x, k, m);
    const V f = m - V(1.0f);
    return k + fma(f, V(kLog2e), log1p_tail(f) * V(kLog2e));
  }
}

template <class V>
FD_MATH V log10(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(log10)(t); });
  } else {
    const float log10_2_hi = 0.301025391f, log10_2_lo = 4.60503898e-6f, log10_e = 0.434294482f;
    V k, m;
    split_exponent(x, k, m);
    const V f = m - V(1.0f);
    return fma(k, V(log10_2_hi), fma(f, V(log10_e), fma(k, V(log10_2_lo), log1p_tail(f) * V(log10_e))));
  }
}

// log(1 + x). With u = 1 + x rounded = 2^k (1 + f) and c = 1 + x - u, log(1 + x) = log(u) + c / u to first order. c / u is taken as
// c / 2^k: where k != 0 the difference is below the rounding of the result, and for k = 0 f is small when the result is.
template <class V>
FD_MATH V log1p(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(log1p)(t); });
  } else {
    using I = IntOf<V>;
    const V u = x + V(1.0f);
    V k, m;
    split_exponent(u, k, m);
    const V f = m - V(1.0f);
    V c = select(x > V(1.0f), V(1.0f) - (u - x), x - (u - V(1.0f)));
    c = select(x < V(1e8f), c * from_bits<V>(bits_of(m) - bits_of(u) + I(0x3f800000)), V(0.0f));  // 2^-k
    return copysign(fma(k, V(kLogLn2Hi), f + (c + fma(k, V(kLogLn2Lo), log1p_tail(f)))), x);
  }
}

// log(1 + x) for x in [0, 1], at half the cost: 1 + x = 2^k (1 + f) with k = 0 or 1, and f is exact.
template <class V>
FD_MATH V log1p_unit(V x) {
  if constexpr (kIsDouble<V>) {
    return log1p(x);
  } else {
    const auto upper = x > V(0.5f);
    const V f = select(upper, fma(x, V(0.5f), V(-0.5f)), x);
    const V y = f + (log1p_tail(f) + select(upper, V(kLogLn2Lo), V(0.0f)));
    return y + select(upper, V(kLogLn2Hi), V(0.0f));
  }
}

}  // namespace
}  // namespace fastdl
