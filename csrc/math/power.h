// Signs, roots, powers and relatives: negative, sign, square, sqrt, rsqrt, cbrt, reciprocal, hypot, power, logaddexp. (sqrt itself:
// base.h, vec.h.)
#pragma once
#include "math/log.h"

namespace fastdl {
namespace {

template <class V>
FD_MATH V negative(V x) {
  return -x;
}
template <class V>
FD_MATH V positive(V x) {
  return x;
}
template <class V>
FD_MATH V square(V x) {
  return x * x;
}
template <class V>
FD_MATH V sign(V x) {  // 0 for -0, NaN for NaN
  return select(x > V(0), V(1), select(x < V(0), V(-1), x + V(0)));
}
template <class V>
FD_MATH V reciprocal(V x) {
  return V(1) / x;
}
template <class V>
FD_MATH V rsqrt(V x) {
  return V(1) / sqrt(x);
}

// Newton's method on z = x^(-1/3), which needs no division, started from the bits: the pattern of a float is about 2^23 times its
// binary logarithm (Kahan's idea; see also Muller, section 3).
template <class V>
FD_MATH V cbrt(V x) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, [](double t) { return FD_LIBM(cbrt)(t); });
  } else {
    const V a = abs(x);
    const auto small = a < V(0x1p-100f);  // scaled up, so that nothing below is subnormal
    const V m = select(small, a * V(0x1p48f), a);
    V z = from_bits<V>(to_int(fma(to_float(bits_of(m)), V(-1.0f / 3.0f), V(1419919360.0f))));  // within 3.5 %
    V e = V(1.0f) - m * z * z * z;
    z = fma(z * e, fma(e, V(2.0f / 9.0f), V(1.0f / 3.0f)), z);  // third order: within 2e-4
    e = V(1.0f) - m * z * z * z;
    z = fma(z * e, fma(e, V(2.0f / 9.0f), V(1.0f / 3.0f)), z);
    const V r = z * z, y = m * r, h = V(0.5f) * y;  // the root, and its correction against m / 4, lest y^3 overflow
    const V better = fma(fma(-h * h, y, V(0.25f) * m), r * V(4.0f / 3.0f), y);
    const V scaled = select(small, better * V(0x1p-16f), better);
    const auto ordinary = (a > V(0.0f)) & (a < V(kInf<V>));
    return select(ordinary, copysign(scaled, x), x);
  }
}

template <class V>
FD_MATH V hypot(V x, V y) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, y, [](double s, double t) { return FD_LIBM(hypot)(s, t); });
  } else {
    const V a = abs(x), b = abs(y), low = min(a, b), high = max(a, b), q = low / high;
    V h = high * sqrt(fma(q, q, V(1.0f)));
    h = select(high == V(0.0f), high, h);
    h = select((x != x) | (y != y), x + y, h);
    return select((a == V(kInf<V>)) | (b == V(kInf<V>)), V(kInf<V>), h);  // even beside NaN, as C says
  }
}

// log(e^x + e^y)
template <class V>
FD_MATH V logaddexp(V x, V y) {
  const V d = select(x == y, V(0), abs(x - y));  // equal infinities too
  return select(x > y, x, y) + log1p_unit(exp(-d));
}

// x^y for 0 < x finite, in double for float results: 2^(y log2 x), both polynomials to some 2^-35. D is double or Vec<double>.
template <class D>
FD_MATH D power_positive(D x, D y) {
  using I = IntOf<D>;
  const I sqrt_half(0x3fe6a09e667f3bcd), magic_bits(0x4338000000000000);
  const D magic(6755399441055744.0);  // 1.5 * 2^52: adds an integer to the low bits of the pattern
  const I k = (bits_of(x) - sqrt_half) >> 52;
  const D f = from_bits<D>(bits_of(x) - (k << 52)) - D(1.0);
  // log2(1 + f) / f; relative error 2e-11
  const D log2_mantissa =
      f * polynomial(f, 1.4426950408678778, -0.72134752086923659, 0.48089836141170755, -0.36067367474909023, 0.28853729190042948,
                     -0.24045316832633343, 0.20617541327125977, -0.18030059373944593, 0.15876904260579092, -0.14315580617255699,
                     0.14475220291330115, -0.14284512865677618, 0.077370581530841975);
  const D log2_x = (from_bits<D>(k + magic_bits) - magic) + log2_mantissa;
  const D t = max(D(-300.0), min(D(300.0), y * log2_x));
  const D shifted = t + magic, r = t - (shifted - magic);
  // 2^r; error 2e-9
  const D p = polynomial(r, 1.0000000005550487, 0.69314720576713795, 0.24022646886074095, 0.055503287118076866,
                         0.0096184892450509041, 0.0013399957626211874, 0.00015345788789952541);
  return from_bits<D>(bits_of(p) + (bits_of(shifted) << 52));
}

template <class V>
FD_MATH V power(V x, V y) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, y, [](double s, double t) { return FD_LIBM(pow)(s, t); });
  } else {
    const V a = abs(x), zero(0.0f), one(1.0f), inf(kInf<V>);
    V p = in_double(a, y, [](auto s, auto t) { return power_positive(s, t); });
    // the rules of C99 and IEEE 754 for zero, infinite and negative x
    p = select(a == zero, select(y < zero, inf, zero), p);
    p = select(a == inf, select(y < zero, zero, inf), p);
    const V half = y * V(0.5f);
    const auto integer = trunc(y) == y;
    const auto odd = integer & (trunc(half) != half);
    const auto negative = bits_of(x) < IntOf<V>(0);
    p = select(negative & odd, -p, p);
    p = select((x < zero) & (y != trunc(y)) & (a < inf), V(kNaN<V>), p);
    p = select((x != x) | (y != y), x + y, p);
    p = select((x == V(-1.0f)) & (abs(y) == inf), one, p);
    return select((x == one) | (y == zero), one, p);
  }
}

}  // namespace
}  // namespace fastdl
