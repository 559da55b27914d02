// exp, exp2, expm1. Method (Cody & Waite): x = n ln 2 + r with |r| <= ln 2 / 2, exp(x) = 2^n exp(r), exp(r) by a polynomial.
#pragma once
#include "math/base.h"

namespace fastdl {
namespace {

// n ln 2 is subtracted in two steps: kLn2Hi has 9 bits, so that n * kLn2Hi is exact for |n| < 2^15 even without fused multiply-add.
constexpr float kLn2Hi = 0.693359375f, kLn2Lo = -2.12194440e-4f;
constexpr float kLn2 = 0.693147180560f, kLog2e = 1.44269504089f;

// Nearest integer of x for |x| < 2^22: adding 1.5 * 2^23 leaves no room for a fraction. Two operations on every machine.
template <class V>
FD_MATH V nearest(V x) {
  const V magic(12582912.0f);
  return (x + magic) - magic;
}
template <class V>
FD_MATH V nearest_product(V x, V y) {  // nearest(x * y)
  const V magic(12582912.0f);
  return fma(x, y, magic) - magic;
}

// x = n ln 2 + r
template <class V>
FD_MATH void reduce_exp(V x, V& n, V& r) {
  n = nearest_product(x, V(kLog2e));
  r = fma(n, V(-kLn2Lo), fma(n, V(-kLn2Hi), x));
}

// ((e^(c r) - 1) / r - c) / r for |c r| <= 0.35 and c a power of two, which leaves the coefficients exact
template <class V>
FD_MATH V exp_quotient(V r, float c) {
  return polynomial(r, 4.9999994e-01f * (c * c), 1.6666517e-01f * (c * c * c), 4.166828e-02f * (c * c * c * c),
                    8.369248e-03f * (c * c * c * c * c), 1.3820742e-03f * (c * c * c * c * c * c));
}
// e^r - 1 for |r| <= 0.35; error 3e-9 relative to e^r
template <class V>
FD_MATH V exp_rest(V r) {
  return fma(exp_quotient(r, 1.0f), r * r, r);
}
// 2^n e^r
template <class V>
FD_MATH V exp_reduced(V n, V r) {
  return ldexp(exp_rest(r) + V(1.0f), n);
}

// y exp(-c x^2) for 0 <= c x^2 <= 104. The rounding error of the square, which exp would magnify, is added to the remainder, and
// y (1 + (e^r - 1)) is rounded once.
template <class V>
FD_MATH V times_exp_minus_square(V y, V x, float c) {
  // exact_fma for the square too, lest the compiler fuse it, unrounded, into the reduction
  const V m = x * V(-c), square = exact_fma(m, x, V(0.0f)), error = exact_fma(m, x, -square);
  V n, r;
  reduce_exp(square, n, r);
  return ldexp(fma(y, exp_rest(r + error), y), n);
}

// exp(-a^2 / 2) = 2^n exp(-r / 2) for |a| <= 14.5. r = a^2 + 2 n ln 2 is rounded once, as float's ln 2 has 21 bits: its products by
// |n| < 8, up to a = 3.3, are exact. Beyond, the relative error grows to 1e-5.
template <class V>
FD_MATH void reduce_half_square(V a, V& n, V& r) {
  n = nearest_product(a * V(-0.5f * kLog2e), a);
  r = exact_fma(a, a, n * V(2.0f * kLn2));
}
// y exp(-r / 2) for |r| <= 0.7
template <class V>
FD_MATH V times_exp_minus_half(V y, V r) {
  return fma(y * r, fma(exp_quotient(r, -0.5f), r, V(-0.5f)), y);
}

template <class V>
FD_MATH V exp(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(exp)(t); });
  } else {
    V n, r;
    reduce_exp(max(V(-104.0f), min(V(89.0f), x)), n, r);  // beyond the bounds the result is 0 or infinite; NaN passes through
    return exp_reduced(n, r);
  }
}

// exp for arguments up to 0, as softmax has them. (Greater ones only occur in rows with NaN, where any result will do.) What would
// be denormal is 0: processors are slow with denormal numbers, and masked elements have arguments of -inf.
template <class V>
FD_MATH V exp_negative(V x) {
  if constexpr (kIsDouble<V>) {
    return exp(x);
  } else {
    V n, r;
    reduce_exp(max(V(-87.33f), x), n, r);
    return select(x < V(-87.33f), V(0.0f), ldexp_normal(exp_rest(r) + V(1.0f), n));
  }
}

// exp(-|x|), denormal numbers included
template <class V>
FD_MATH V exp_minus_abs(V x) {
  if constexpr (kIsDouble<V>) {
    return exp(-abs(x));
  } else {
    V n, r;
    reduce_exp(max(V(-104.0f), -abs(x)), n, r);
    return ldexp_down(exp_rest(r) + V(1.0f), n);
  }
}

template <class V>
FD_MATH V exp2(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(exp2)(t); });
  } else {
    x = max(V(-151.0f), min(V(129.0f), x));
    const V n = nearest(x), r = x - n;
    // (2^r - 1) / r on |r| <= 1/2
    const V q = polynomial(r, 6.931472e-01f, 2.4022648e-01f, 5.550358e-02f, 9.618503e-03f, 1.339189e-03f, 1.5329236e-04f);
    return ldexp(fma(q, r, V(1.0f)), n);
  }
}

// e^x - 1 without cancellation near 0: 2^n (e^r - 1) + (2^n - 1), all halved so that 2^n stays finite up to n = 128.
template <class V>
FD_MATH V expm1(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(expm1)(t); });
  } else {
    V n, r;
    reduce_exp(max(V(-30.0f), min(V(89.0f), x)), n, r);
    // (e^r - 1 - r) / r^2 on |r| <= 0.35; error 1.4e-8 relative to e^r - 1
    const V q = polynomial(r, 4.9999997e-01f, 1.6666542e-01f, 4.166743e-02f, 8.366876e-03f, 1.387188e-03f);
    const V s = ldexp_normal(V(0.5f), n), half = fma(s, fma(q, r * r, r), s - V(0.5f));
    return copysign(half + half, x);
  }
}

}  // namespace
}  // namespace fastdl
