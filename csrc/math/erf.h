// erf, erfc and the tail of the normal distribution, which gelu needs.
#pragma once
#include "math/exp.h"

namespace fastdl {
namespace {

template <class V>
FD_MATH V erf_small(V x) {  // |x| <= 1; error 4e-8
  return fma(
      x, polynomial(x * x, 1.2837912e-01f, -3.7612322e-01f, 1.12801515e-01f, -2.6710577e-02f, 4.9167555e-03f, -5.6283426e-04f), x);
}

// exp(a^2) erfc(a) for a >= 0 as a quotient. All coefficients are positive, so that nothing cancels. Error 1e-8.
template <class V>
FD_MATH V scaled_erfc_numerator(V a) {
  return polynomial(a, 1.0f, 1.23925221f, 0.732486188f, 0.229639485f, 0.0328849033f);
}
template <class V>
FD_MATH V scaled_erfc_denominator(V a) {
  return polynomial(a, 1.0f, 2.36763191f, 2.40406322f, 1.3270154f, 0.407051325f, 0.0582862943f);
}

template <class V>
FD_MATH V erf(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(erf)(t); });
  } else {
    const V a = abs(x), b = min(V(4.0f), a);
    const V large = V(1.0f) - times_exp_minus_square(quotient(scaled_erfc_numerator(b), scaled_erfc_denominator(b)), b, 1.0f);
    return copysign(select(a > V(1.0f), large, erf_small(a)), x);
  }
}

template <class V>
FD_MATH V erfc(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(erfc)(t); });
  } else {
    const V a = abs(x), b = min(V(10.15f), a);                                  // erfc(10.06) underflows
    const V p = in_double(b, [](auto d) { return scaled_erfc_numerator(d); });  // float would add 2 ulp
    const V q = in_double(b, [](auto d) { return scaled_erfc_denominator(d); });
    const V tail = times_exp_minus_square(quotient(p, q), b, 1.0f);
    return select(a < V(0.5f), V(1.0f) - erf_small(x), select(x < V(0.0f), V(2.0f) - tail, tail));
  }
}

// P(X < -a) exp(a^2 / 2) for a standard normal X and 0 <= a <= 14.5, as a quotient of the same kind. Error 1e-8 up to a = 2; then
// what an absolute error of 4e-10 in gelu allows, and at most 2e-4. Both polynomials have a factor of 0.83: of 71 from 0.7 to 1.4
// the one whose roundings do least to gelu.
template <class V>
FD_MATH V normal_tail(V a) {
  return quotient(polynomial(a, 0.415f, 0.262191772f, 0.0787896216f, 0.0096372189f),
                  polynomial(a, 0.83f, 1.18662739f, 0.689376295f, 0.196724594f, 0.0241913069f));
}

}  // namespace
}  // namespace fastdl
