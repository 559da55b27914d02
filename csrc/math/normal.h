// Normal random numbers from random words, and the products that make them (and other streams) the same on every machine. Method:
// Box & Muller, "A note on the generation of random normal deviates" (1958).
//
// Every product is rounded before it is added to, log, sin and cos are our own: with or without fused multiply-add, on any
// instruction set or device, equal words give equal bits.
#pragma once
#include "math/log.h"

namespace fastdl {
namespace {

// a * b, rounded: never part of a fused multiply-add. (For a Vec: random.cpp.)
#if defined(__CUDA_ARCH__)
FD_MATH float product(float a, float b) { return __fmul_rn(a, b); }
FD_MATH double product(double a, double b) { return __dmul_rn(a, b); }
#else
#if defined(__x86_64__)
#define FD_KEEP_ROUNDED(r) __asm__("" : "+x"(r))
#elif defined(__aarch64__)
#define FD_KEEP_ROUNDED(r) __asm__("" : "+w"(r))
#else
#define FD_KEEP_ROUNDED(r)
#endif
FD_MATH float product(float a, float b) {
  float r = a * b;
  FD_KEEP_ROUNDED(r);
  return r;
}
FD_MATH double product(double a, double b) {
  double r = a * b;
  FD_KEEP_ROUNDED(r);
  return r;
}
#undef FD_KEEP_ROUNDED
#endif
FD_MATH int32_t logical_shift_right(int32_t a, int n) { return int32_t(uint32_t(a) >> n); }

template <class V>
FD_MATH V rounded_polynomial(V, ScalarOf<V> c) {
  return V(c);
}
template <class V, class... C>
FD_MATH V rounded_polynomial(V x, ScalarOf<V> c0, C... c) {
  return product(rounded_polynomial(x, c...), x) + V(c0);
}

// log(x) for positive x that are not subnormal: x = 2^k (1 + f) with 1 + f in [3/4, 3/2); for float as in log.h.
template <class V>
FD_MATH V rounded_log(V x) {
  using I = IntOf<V>;
  if constexpr (kIsDouble<V>) {
    const I base(0x3fe8000000000000), above = bits_of(x) - base;
    const V k = to_float(above >> 52), f = from_bits<V>((above & I((int64_t(1) << 52) - 1)) + base) - V(1.0);
    const V s = f / (V(2.0) + f), z = product(s, s);  // log(1 + f) = 2 artanh(s)
    // (log(1 + f) / s - 2) / z; error 3e-17
    const V p = rounded_polynomial(z, 0.6666666666666666, 0.4000000000000794, 0.28571428567275936, 0.2222222304835159,
                                   0.18181737626302938, 0.15388867805613718, 0.13209708242059462, 0.13609030262858499);
    // ln 2 in two parts, of which the first times k is exact
    const V rest = product(k, V(1.90821492927058770e-10)) + product(product(s, z), p);
    return product(k, V(6.93147180369123816e-01)) + (product(V(2.0), s) + rest);
  } else {
    const I base(0x3f400000), above = bits_of(x) - base;
    const V k = to_float(above >> 23), f = from_bits<V>((above & I((1 << 23) - 1)) + base) - V(1.0f);
    const V p = rounded_polynomial(f, -0.5f, 3.333345e-01f, -2.5000107e-01f, 1.999083e-01f, -1.6646908e-01f, 1.4477971e-01f,
                                   -1.3164371e-01f, 1.04719564e-01f, -4.5141663e-02f);
    return product(k, V(kLogLn2Hi)) + (f + (product(k, V(kLogLn2Lo)) + product(product(f, f), p)));
  }
}

// sin and cos on [-pi/4, pi/4]; for float as in trig.h.
template <class V>
FD_MATH void rounded_sin_cos(V r, V& sin, V& cos) {
  const V z = product(r, r);
  V s, c;
  if constexpr (kIsDouble<V>) {
    // (sin r / r - 1) / z, error 2e-17; (cos r - 1 + z / 2) / z^2, error 1e-18
    s = rounded_polynomial(z, -0.16666666666666666, 0.008333333333330948, -0.00019841269836758574, 2.755731610255244e-06,
                           -2.5051131845003624e-08, 1.5918129294866608e-10);
    c = rounded_polynomial(z, 0.041666666666666664, -0.0013888888888887398, 2.480158729876569e-05, -2.7557317271729793e-07,
                           2.08761462684032e-09, -1.1382632425521717e-11);
  } else {
    s = rounded_polynomial(z, -1.6666654e-01f, 8.332106e-03f, -1.9507883e-04f);
    c = rounded_polynomial(z, 4.1666646e-02f, -1.3887304e-03f, 2.4431201e-05f);
  }
  sin = product(s, product(z, r)) + r;
  cos = product(c, product(z, z)) + (product(z, V(-0.5)) + V(1.0));
}

// Two independent normal numbers from two words of random bits (of the width of V): radius sqrt(-2 log u) with u the first word as
// a fraction, never 0; angle 2 pi v with v the second.
template <class V, class I>
FD_MATH void box_muller(I u, I v, V& a, V& b) {
  V x, t;
  if constexpr (kIsDouble<V>) {  // 53 bits and a half
    x = (to_float((u >> 11) & I((int64_t(1) << 53) - 1)) + V(0.5)) * V(0x1p-53);
  } else {  // 32 bits and a half: the high 24 and the low 8 are converted apart, unsigned; both products are exact
    x = to_float(logical_shift_right(u, 8)) * V(0x1p-24f) + (to_float(u & I(255)) + V(0.5f)) * V(0x1p-32f);
  }
  const V radius = sqrt(V(-2.0) * rounded_log(x));
  // The angle in quarter turns: q whole ones (the nearest, modulo 4), and the rest below them as a signed number in [-1/2, 1/2].
  constexpr int rest = 8 * int(sizeof(ScalarOf<V>)) - 2;
  constexpr int64_t half = int64_t(1) << (rest - 1);
  const I q = ((v >> (rest - 1)) + I(1)) >> 1, signed_rest = (v & I(half - 1)) - (v & I(half));
  if constexpr (kIsDouble<V>)
    t = to_float(signed_rest >> 11) * V(0x1p-51 * 1.5707963267948966);
  else
    t = to_float(signed_rest) * V(0x1p-30f * 1.57079633f);
  V s, c;
  rounded_sin_cos(t, s, c);
  const auto odd = (q & I(1)) != I(0);
  const auto turned = [](V y, I sign) { return from_bits<V>(bits_of(y) ^ ((sign & I(2)) << rest)); };
  a = radius * turned(select(odd, s, c), q + I(1));  // cos
  b = radius * turned(select(odd, c, s), q);         // sin
}

}  // namespace
}  // namespace fastdl
