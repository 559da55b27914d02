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

// P(X < -a) exp(a^2 / 2) for a standard normal X and a >= 0, as a quotient of the same kind. The polynomials less their first
// terms, 1/2 and 1, over a:
template <class V>
FD_MATH V normal_tail_numerator_rest(V a) {
  return polynomial(a, 0.438090503f, 0.183083564f, 0.0405821055f, 0.00410870928f);
}
template <class V>
FD_MATH V normal_tail_denominator_rest(V a) {
  return polynomial(a, 1.67406595f, 1.20187378f, 0.469070494f, 0.101730756f, 0.0102988863f);
}
template <class V>
FD_MATH V normal_tail(V a) {
  return quotient(fma(normal_tail_numerator_rest(a), a, V(0.5f)), fma(normal_tail_denominator_rest(a), a, V(1.0f)));
}
// a P(X < -a) for 0 <= a <= 14.5, without rounding the factor a on its own: of the quotient's numerator, times a, the first term is
// exact, the rest a product by a^2. What denominator and quotient lose is added at the end. Where products are rounded before they
// are added, the polynomials alone would lose 2 ulp: there the quotient is one of doubles.
template <class V>
FD_MATH V normal_tail_times(V a) {
  const V m = a * V(-0.5f), square = exact_fma(m, a, V(0.0f)), error = exact_fma(m, a, -square);  // see times_exp_minus_square
#if defined(__FMA__) || defined(__aarch64__) || defined(__CUDACC__)
  const V n = exact_fma(normal_tail_numerator_rest(a) * V(-2.0f), square, -m);
  const V q = normal_tail_denominator_rest(a), d = exact_fma(q, a, V(1.0f)), d_lost = fma(q, a, V(1.0f) - d), y = quotient(n, d);
  const V lost = fma(-y, d_lost, exact_fma(-y, d, n)) * reciprocal_estimate(d);
#else
  const V y = in_double(a, [](auto t) { return t * normal_tail(t); }), lost(0.0f);
#endif
  V k, r;
  reduce_exp(square, k, r);
  return ldexp(y + fma(y, exp_rest(r + error), lost), k);
}

}  // namespace
}  // namespace fastdl
