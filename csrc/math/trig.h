// sin, cos, tan and their inverses, arctan2.
// Method (Cody & Waite): x = n pi/2 + r with |r| <= pi/4, polynomials for sin r and cos r, signs and roles by n mod 4.
#pragma once
#include "math/base.h"

namespace fastdl {
namespace {

constexpr float kPiHi = 3.14159274f, kPiLo = -8.74227766e-8f;  // pi = hi + lo to 48 bits
constexpr float kHalfPiHi = 1.57079637f, kHalfPiLo = -4.37113883e-8f;

// Beyond this |x| the reduction below loses accuracy; those lanes go to the C library (in double, full range).
constexpr float kTrigBound = 32768.0f;

// x = n pi/2 + r; of n only the two low bits are returned.
template <class V>
FD_MATH V reduce_trig(V x, IntOf<V>& n_bits) {
  const V magic(12582912.0f), shifted = fma(x, V(0.636619772368f), magic), n = shifted - magic;
  n_bits = bits_of(shifted);
  // pi/2 in three floats. n times the first cancels exactly, the second step is rounded once; this needs the fused operation.
  V r = exact_fma(n, V(-kHalfPiHi), x);
  r = exact_fma(n, V(-kHalfPiLo), r);
  return fma(n, V(1.71512489e-15f), r);
}

template <class V>
FD_MATH V sin_reduced(V r) {
  const V z = r * r;
  return fma(polynomial(z, -1.6666654e-01f, 8.332106e-03f, -1.9507883e-04f), z * r, r);  // (sin r / r - 1) / z; error 4e-9
}
template <class V>
FD_MATH V cos_reduced(V r) {
  const V z = r * r;
  const V q = polynomial(z, 4.1666646e-02f, -1.3887304e-03f, 2.4431201e-05f);  // (cos r - 1 + z / 2) / z^2; error 1e-10
  return fma(q, z * z, fma(z, V(-0.5f), V(1.0f)));
}

template <class V, class F>
FD_MATH V trig_with_large(V x, V y, F libm) {
  const auto large = abs(x) > V(kTrigBound);
  if (__builtin_expect(any(large), 0)) y = select(large, map_lanes(x, [&](float t) { return float(libm(double(t))); }), y);
  return y;
}

template <class V>
FD_MATH V sin(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(sin)(t); });
  } else {
    using I = IntOf<V>;
    I n;
    const V r = reduce_trig(x, n);
    const V y = select((n & I(1)) != I(0), cos_reduced(r), sin_reduced(r));
    const V signed_y = from_bits<V>(bits_of(y) ^ ((n & I(2)) << 30));
    return trig_with_large(x, select(x == V(0.0f), x, signed_y), [](double t) { return FD_LIBM(sin)(t); });
  }
}

template <class V>
FD_MATH V cos(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(cos)(t); });
  } else {
    using I = IntOf<V>;
    I n;
    const V r = reduce_trig(x, n);
    const V y = select((n & I(1)) != I(0), sin_reduced(r), cos_reduced(r));
    const V signed_y = from_bits<V>(bits_of(y) ^ (((n + I(1)) & I(2)) << 30));
    return trig_with_large(x, signed_y, [](double t) { return FD_LIBM(cos)(t); });
  }
}

template <class V>
FD_MATH V tan(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(tan)(t); });
  } else {
    using I = IntOf<V>;
    I n;
    const V r = reduce_trig(x, n), z = r * r;
    // (tan r / r - 1) / z; error 1.5e-9
    const V q = polynomial(z, 3.3333352e-01f, 1.3332577e-01f, 5.4069877e-02f, 2.1229899e-02f, 1.0973362e-02f, -8.714948e-05f,
                           4.4644754e-03f);
    const V t = fma(q, z * r, r);
    const V y = select((n & I(1)) != I(0), quotient(V(-1.0f), t), t);
    return trig_with_large(x, select(x == V(0.0f), x, y), [](double t) { return FD_LIBM(tan)(t); });
  }
}

// arcsin on [0, 1/2] directly, above it by arcsin(a) = pi/2 - 2 arcsin(sqrt((1 - a) / 2)). `half` gets the arcsin of the small
// argument.
template <class V>
FD_MATH void arcsin_parts(V a, MaskFor<V>& large, V& half) {
  large = a > V(0.5f);
  const V z = select(large, fma(a, V(-0.5f), V(0.5f)), a * a);
  const V s = select(large, sqrt(z), a);
  // (arcsin(s) / s - 1) / z for z = s^2 <= 1/4; error 5e-9
  const V q = polynomial(z, 1.6666752e-01f, 7.4953064e-02f, 4.5469772e-02f, 2.4180776e-02f, 4.2166404e-02f);
  half = fma(q, z * s, s);
}

template <class V>
FD_MATH V arcsin(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(asin)(t); });
  } else {
    MaskFor<V> large;
    V p;
    arcsin_parts(abs(x), large, p);
    return copysign(select(large, V(kHalfPiHi) - fma(p, V(2.0f), V(-kHalfPiLo)), p), x);
  }
}

template <class V>
FD_MATH V arccos(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(acos)(t); });
  } else {
    MaskFor<V> large;
    V p;
    arcsin_parts(abs(x), large, p);
    const V near_one = p + p;
    const V wide = select(x < V(0.0f), V(kPiHi) - (near_one - V(kPiLo)), near_one);
    return select(large, wide, V(kHalfPiHi) - (copysign(p, x) - V(kHalfPiLo)));
  }
}

// arctan(t) for t in [0, 1]
template <class V>
FD_MATH V arctan_unit(V t) {
  const V z = t * t;
  // (arctan(t) / t - 1) / z; error 3e-9
  const V q = polynomial(z, -3.33333e-01f, 1.9998531e-01f, -1.4264052e-01f, 1.0951175e-01f, -8.400475e-02f, 5.7906546e-02f,
                         -3.1127002e-02f, 1.0887361e-02f, -1.7875476e-03f);
  return fma(q, z * t, t);
}

template <class V>
FD_MATH V arctan(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(atan)(t); });
  } else {
    const V a = abs(x), t = arctan_unit(min(V(1.0f), a) / max(V(1.0f), a));
    return copysign(select(a > V(1.0f), V(kHalfPiHi) - (t - V(kHalfPiLo)), t), x);
  }
}

template <class V>
FD_MATH V arctan2(V y, V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(y, x, [](double s, double c) { return FD_LIBM(atan2)(s, c); });
  } else {
    const V a = abs(y), b = abs(x), low = min(a, b), high = max(a, b);
    V t = low / high;
    t = select(low == high, V(1.0f), t);  // two infinities
    t = arctan_unit(select(high == V(0.0f), V(0.0f), t));
    t = select(a > b, V(kHalfPiHi) - (t - V(kHalfPiLo)), t);
    t = select(bits_of(x) < IntOf<V>(0), V(kPiHi) - (t - V(kPiLo)), t);  // by the sign bit: -0 counts as negative
    return select(x == x, select(y == y, copysign(t, y), y), x);
  }
}

}  // namespace
}  // namespace fastdl
