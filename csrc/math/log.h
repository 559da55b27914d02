// log, log2, log10, log1p. Method: x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), log(1 + f) by a polynomial.
#pragma once
#include "math/exp.h"

namespace fastdl {
namespace {

// log(x) = k ln 2 + f + tail, for positive finite x
template <class V>
struct LogParts {
  V k, f, tail;
};

template <class V>
FD_MATH V log1p_tail(V f) {  // log(1 + f) - f on [sqrt(1/2) - 1, sqrt(2) - 1]; error 4e-9 relative to log(1 + f)
  return f * f *
         polynomial(f, -4.9999988e-01f, 3.3333325e-01f, -2.5001606e-01f, 2.0001997e-01f, -1.6608544e-01f, 1.418116e-01f,
                    -1.3246849e-01f, 1.2909944e-01f, -7.618829e-02f);
}

// Splits a normal number by its bits: those above the pattern of sqrt(1/2) count octaves.
template <class V>
FD_MATH void split_octave(V x, IntOf<V>& k, V& f) {
  using I = IntOf<V>;
  k = (bits_of(x) - I(0x3f3504f3)) >> 23;
  f = from_bits<V>(bits_of(x) - (k << 23)) - V(1.0f);
}

template <class V>
FD_MATH LogParts<V> log_parts(V x) {
  const auto subnormal = x < V(1.17549435e-38f);
  x = select(subnormal, x * V(8388608.0f), x);
  IntOf<V> k;
  V f;
  split_octave(x, k, f);
  return {to_float(k) - select(subnormal, V(23.0f), V(0.0f)), f, log1p_tail(f)};
}

// The result at 0, infinity, NaN and negative numbers, where the split above means nothing.
template <class V>
FD_MATH V log_special(V x, V y) {
  y = select(x > V(0.0f), y, V(kNaN<V>));
  y = select(x == V(0.0f), V(-kInf<V>), y);
  return select(x == V(kInf<V>), x, y);
}

template <class V>
FD_MATH V log(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(log)(t); });
  } else {
    const auto p = log_parts(x);
    return log_special(x, fma(p.k, V(kLn2Hi), p.f + fma(p.k, V(kLn2Lo), p.tail)));
  }
}

template <class V>
FD_MATH V log2(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(log2)(t); });
  } else {
    const auto p = log_parts(x);
    return log_special(x, p.k + fma(p.f, V(kLog2e), p.tail * V(kLog2e)));
  }
}

template <class V>
FD_MATH V log10(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(log10)(t); });
  } else {
    const float log10_2_hi = 0.30078125f, log10_2_lo = 2.48745663981e-4f, log10_e = 0.434294481903f;
    const auto p = log_parts(x);
    return log_special(x, fma(p.k, V(log10_2_hi), fma(p.f, V(log10_e), fma(p.k, V(log10_2_lo), p.tail * V(log10_e)))));
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
    IntOf<V> k;
    V f;
    split_octave(u, k, f);
    V c = select(x > V(1.0f), V(1.0f) - (u - x), x - (u - V(1.0f)));
    c = select(x < V(1e8f), c * from_bits<V>(I(0x3f800000) - (k << 23)), V(0.0f));  // 2^-k
    const V n = to_float(k);
    const V y = fma(n, V(kLn2Hi), f + (c + fma(n, V(kLn2Lo), log1p_tail(f))));
    return copysign(log_special(u, y), x);
  }
}

// log(1 + x) for x in [0, 1], at half the cost: 1 + x = 2^k (1 + f) with k = 0 or 1, and f is exact.
template <class V>
FD_MATH V log1p_unit(V x) {
  if constexpr (kIsDouble<V>) {
    return log1p(x);
  } else {
    const auto upper = x > V(0.41421356f);
    const V f = select(upper, fma(x, V(0.5f), V(-0.5f)), x);
    const V y = f + (log1p_tail(f) + select(upper, V(kLn2Lo), V(0.0f)));
    return y + select(upper, V(kLn2Hi), V(0.0f));
  }
}

}  // namespace
}  // namespace fastdl
