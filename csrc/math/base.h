// The vocabulary of csrc/math: every formula is written once, as a template over a value type V, which is Vec<float> or Vec<double>
// (cpu/vec/vec.h) in CPU kernels, plain float or double in scalar code and in CUDA. This header gives the scalars the operations
// that Vec has (select, bit_cast, fma, ldexp ...); for a Vec they are found in vec.h when the template is instantiated.
//
// Conventions. For float, the primitives (exp, log, sin ...) are our own polynomials with an error of at most 4 ulp over all
// inputs, with or without fused multiply-add; for double they call the C library lane by lane: accurate and simple, not tuned.
// Everything else (activations ...) is written in terms of the primitives and serves both. Constants are written V(1.5), so that a
// plain float never meets a double. Polynomial coefficients are near-minimax fits of our own for the interval and form named beside
// them (Lawson-weighted least squares on Chebyshev nodes, coefficients rounded to float one by one from the lowest).
//
// Sources for the methods: Cody & Waite, Software Manual for the Elementary Functions (1980); Muller, Elementary Functions (3rd
// ed.); the notes in Sun's fdlibm; others are named at the function.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define FD_MATH __host__ __device__ __forceinline__
#define FD_LIBM(function) ::function
#pragma nv_diag_suppress 1675  // the GCC pragmas below
#else
#define FD_MATH inline __attribute__((always_inline))
#define FD_LIBM(function) __builtin_##function
#endif

namespace fastdl {
namespace {

// ---- scalars as one-lane vectors ---------------------------------------------------------------------------------------
// A comparison of scalars gives bool, of vectors an all-ones mask; use & and | on both, never ~ or && (write the other comparison).
template <class To, class From>
FD_MATH To bit_cast(From a) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast");
  To r;
  memcpy(&r, &a, sizeof r);
  return r;
}
FD_MATH float select(bool m, float a, float b) { return m ? a : b; }
FD_MATH double select(bool m, double a, double b) { return m ? a : b; }
FD_MATH int32_t select(bool m, int32_t a, int32_t b) { return m ? a : b; }
FD_MATH int64_t select(bool m, int64_t a, int64_t b) { return m ? a : b; }
FD_MATH bool any(bool m) { return m; }
#if defined(__CUDACC__)
FD_MATH float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
FD_MATH double fma(double a, double b, double c) { return ::fma(a, b, c); }
#else
FD_MATH float fma(float a, float b, float c) { return a * b + c; }  // contracted where the target has FMA
FD_MATH double fma(double a, double b, double c) { return a * b + c; }
#endif
FD_MATH float exact_fma(float a, float b, float c) { return FD_LIBM(fmaf)(a, b, c); }  // one rounding everywhere
FD_MATH float min(float a, float b) { return a < b ? a : b; }                          // b if either is NaN, as vec.h
FD_MATH double min(double a, double b) { return a < b ? a : b; }
FD_MATH float max(float a, float b) { return a > b ? a : b; }
FD_MATH double max(double a, double b) { return a > b ? a : b; }
FD_MATH float abs(float a) { return FD_LIBM(fabsf)(a); }
FD_MATH double abs(double a) { return FD_LIBM(fabs)(a); }
FD_MATH float sqrt(float a) { return FD_LIBM(sqrtf)(a); }
FD_MATH double sqrt(double a) { return FD_LIBM(sqrt)(a); }
FD_MATH float trunc(float a) { return FD_LIBM(truncf)(a); }
FD_MATH int32_t to_int(float a) { return int32_t(a); }
FD_MATH int64_t to_int(double a) { return int64_t(a); }
FD_MATH float to_float(int32_t a) { return float(a); }
FD_MATH double to_float(int64_t a) { return double(a); }
FD_MATH float ldexp(float a, float n) { return FD_LIBM(ldexpf)(a, int(n)); }
FD_MATH float ldexp_normal(float a, float n) { return FD_LIBM(ldexpf)(a, int(n)); }  // vec.h says for which n
FD_MATH float ldexp_down(float a, float n) { return FD_LIBM(ldexpf)(a, int(n)); }
FD_MATH float quotient(float a, float b) { return a / b; }
FD_MATH double quotient(double a, double b) { return a / b; }
FD_MATH float quotient_to_infinity(float a, float b) { return a / b; }
FD_MATH double quotient_to_infinity(double a, double b) { return a / b; }

// ---- traits ------------------------------------------------------------------------------------------------------------
// The scalar in a lane of V, and the value type of signed integers of the same width.
template <class V>
struct ValueTraits {
  using Scalar = decltype(V()[0]);
  using Int = decltype(V() < V());
};
template <>
struct ValueTraits<float> {
  using Scalar = float;
  using Int = int32_t;
};
template <>
struct ValueTraits<double> {
  using Scalar = double;
  using Int = int64_t;
};
template <class V>
using ScalarOf = typename ValueTraits<V>::Scalar;
template <class V>
using IntOf = typename ValueTraits<V>::Int;
template <class V>
using MaskFor = decltype(V() < V());  // bool for scalars
template <class V>
constexpr bool kIsDouble = sizeof(ScalarOf<V>) == 8;

template <class V>
FD_MATH IntOf<V> bits_of(V x) {
  if constexpr (kIsDouble<V>)
    return bit_cast<int64_t>(x);
  else
    return bit_cast<int32_t>(x);
}
template <class V, class I>
FD_MATH V from_bits(I i) {
  return bit_cast<ScalarOf<V>>(i);
}

// |x| with the sign bit of s; for functions with f(-x) = -f(x), whose polynomial loses the sign of -0.
template <class V>
FD_MATH V copysign(V x, V s) {
  using I = IntOf<V>;
  const I sign = bits_of(V(-0.0));
  const I magnitude = bits_of(from_bits<V>(I(-1) ^ sign));
  return from_bits<V>((bits_of(x) & magnitude) | (bits_of(s) & sign));
}

// f(lane) for every lane: the way to the C library.
template <class V, class F>
FD_MATH V map_lanes(V x, F f) {
  if constexpr (sizeof(V) == sizeof(ScalarOf<V>)) {
    return f(x);
  } else {
    ScalarOf<V> t[V::size];
    memcpy(t, &x, sizeof t);
#pragma GCC unroll 1
    for (int i = 0; i < V::size; i++) t[i] = f(t[i]);
    memcpy(&x, t, sizeof t);
    return x;
  }
}
template <class V, class F>
FD_MATH V map_lanes(V x, V y, F f) {
  if constexpr (sizeof(V) == sizeof(ScalarOf<V>)) {
    return f(x, y);
  } else {
    ScalarOf<V> t[V::size], u[V::size];
    memcpy(t, &x, sizeof t);
    memcpy(u, &y, sizeof u);
#pragma GCC unroll 1
    for (int i = 0; i < V::size; i++) t[i] = f(t[i], u[i]);
    memcpy(&x, t, sizeof t);
    return x;
  }
}

// f in double on float lanes, for the few formulas that need a little more than float has.
template <class V, class F>
FD_MATH V in_double(V x, F f) {
  if constexpr (sizeof(V) == sizeof(float))
    return float(f(double(x)));
  else
    return narrow(f(widen_low(x)), f(widen_high(x)));
}
template <class V, class F>
FD_MATH V in_double(V x, V y, F f) {
  if constexpr (sizeof(V) == sizeof(float))
    return float(f(double(x), double(y)));
  else
    return narrow(f(widen_low(x), widen_low(y)), f(widen_high(x), widen_high(y)));
}

// c0 + c1 x + c2 x^2 + ... by Horner's rule; one fused multiply-add per coefficient. Enough independent vectors are in flight
// in a kernel to hide the latency of the chain.
template <class V>
FD_MATH V polynomial(V, ScalarOf<V> c) {
  return V(c);
}
template <class V, class... C>
FD_MATH V polynomial(V x, ScalarOf<V> c0, C... c) {
  return fma(polynomial(x, c...), x, V(c0));
}

template <class V>
constexpr ScalarOf<V> kInf = ScalarOf<V>(__builtin_huge_val());
template <class V>
constexpr ScalarOf<V> kNaN = ScalarOf<V>(__builtin_nan(""));

}  // namespace
}  // namespace fastdl
