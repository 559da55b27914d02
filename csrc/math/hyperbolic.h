// sinh, cosh, tanh and their inverses.
#pragma once
#include "math/log.h"

namespace fastdl {
namespace {

template <class V>
FD_MATH V half_exp(V x) {  // e^x / 2 for x >= 0, finite up to x = 89.4
  V n, r;
  reduce_exp(min(V(90.0f), x), n, r);
  return exp_reduced(n - V(1.0f), r);
}

template <class V>
FD_MATH V sinh(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(sinh)(t); });
  } else {
    const V a = abs(x), z = x * x, h = half_exp(a);
    // (sinh x / x - 1) / z for |x| <= 1; error 6e-11
    const V q = polynomial(z, 1.6666667e-01f, 8.333311e-03f, 1.9842575e-04f, 2.784692e-06f);
    return copysign(select(a > V(1.0f), h - V(0.25f) / h, fma(q, z * a, a)), x);
  }
}

template <class V>
FD_MATH V cosh(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(cosh)(t); });
  } else {
    const V h = half_exp(abs(x));
    return h + V(0.25f) / h;
  }
}

// With w = (e^(2|x|) - 1) / 2, by the method of expm1: tanh|x| = w / (w + 1). A rational function of x is a third faster, but near
// 1 its error comes to 5 ulp.
template <class V>
FD_MATH V tanh(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(tanh)(t); });
  } else {
    const V a = min(V(9.02f), abs(x));  // beyond, the result rounds to 1
    const V n = nearest_product(a, V(2.0f * kLog2e)), r = fma(n, V(-0.5f * kLn2Lo), fma(n, V(-0.5f * kLn2Hi), a));
    // ((e^(2r) - 1) / 2 - r) / r^2 on |r| <= ln 2 / 4; error 1.5e-8
    const V q = polynomial(r, 9.9999994e-01f, 6.666617e-01f, 3.3333945e-01f, 1.3387002e-01f, 4.4390015e-02f);
    const V s = ldexp_normal(V(1.0f), n), w = fma(s, fma(q, r * r, r), fma(s, V(0.5f), V(-0.5f)));
    return copysign(quotient(w, w + V(1.0f)), x);
  }
}

// log(a + sqrt(a^2 + 1)), written so that small a keep their digits; a^2 + 1 = a^2 for large ones.
template <class V>
FD_MATH V arcsinh(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(asinh)(t); });
  } else {
    const V a = abs(x), z = a * a;
    const auto large = a > V(1e8f);
    const V w = select(large, a, a + z / (V(1.0f) + sqrt(z + V(1.0f))));
    return copysign(log1p(w) + select(large, V(0.693147181f), V(0.0f)), x);
  }
}

template <class V>
FD_MATH V arccosh(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(acosh)(t); });
  } else {
    const V t = x - V(1.0f);
    const auto large = x > V(1e8f);
    const V w = select(large, x, t + sqrt(fma(t, t, t + t)));
    const V y = log1p(w) + select(large, V(0.693147181f), V(0.0f));
    return select(x >= V(1.0f), y, V(kNaN<V>));
  }
}

template <class V>
FD_MATH V arctanh(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(atanh)(t); });
  } else {
    const V a = abs(x);
    return copysign(log1p((a + a) / (V(1.0f) - a)) * V(0.5f), x);
  }
}

}  // namespace
}  // namespace fastdl
