// Formulas on complex numbers: C is a struct of re and im (c64, c128). NumPy's rules: order is lexicographic, a number is NaN,
// infinite or true if either part is.
#pragma once
#include "math/base.h"

namespace fastdl {
namespace {

template <class C>
FD_MATH bool has_nan(C x) {
  return (x.re != x.re) | (x.im != x.im);
}
template <class C>
FD_MATH bool lexically_less(C x, C y) {
  return ((x.re < y.re) & (x.im == x.im) & (y.im == y.im)) | ((x.re == y.re) & (x.im < y.im));
}
template <class C>
FD_MATH bool lexically_less_equal(C x, C y) {
  return ((x.re < y.re) & (x.im == x.im) & (y.im == y.im)) | ((x.re == y.re) & (x.im <= y.im));
}
template <class C>
FD_MATH C complex_product(C x, C y) {
  return C{x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re};
}

// Smith (1962): scaled by the larger part of the divisor, so that nothing overflows on the way.
template <class C>
FD_MATH C complex_quotient(C x, C y) {
  const bool by_re = abs(y.re) >= abs(y.im);
  const auto big = by_re ? y.re : y.im, small = by_re ? y.im : y.re;
  if (big == 0) return C{x.re / big, x.im / big};
  const auto ratio = small / big, scale = 1 / (big + small * ratio);
  return by_re ? C{(x.re + x.im * ratio) * scale, (x.im - x.re * ratio) * scale}
               : C{(x.re * ratio + x.im) * scale, (x.im * ratio - x.re) * scale};
}
FD_MATH float complex_abs(float re, float im) {  // in double nothing overflows
  const double a = re, b = im;
  const bool infinite = (abs(re) == kInf<float>) | (abs(im) == kInf<float>);
  return infinite ? kInf<float> : float(FD_LIBM(sqrt)(a * a + b * b));
}
FD_MATH double complex_abs(double re, double im) { return FD_LIBM(hypot)(re, im); }

#define FD_COMPLEX1(Name, Result, expression) \
  struct Name {                               \
    template <class C>                        \
    static FD_MATH Result of(C x) {           \
      return expression;                      \
    }                                         \
  };
#define FD_COMPLEX2(Name, Result, expression) \
  struct Name {                               \
    template <class C>                        \
    static FD_MATH Result of(C x, C y) {      \
      return expression;                      \
    }                                         \
  };
#define FD_COMMA ,
FD_COMPLEX1(ComplexNegative, C, C{-x.re FD_COMMA - x.im})
FD_COMPLEX1(ComplexPositive, C, x)
FD_COMPLEX1(ComplexConj, C, C{x.re FD_COMMA - x.im})
FD_COMPLEX1(ComplexSquare, C, complex_product(x, x))
FD_COMPLEX1(ComplexAbs, decltype(C::re), complex_abs(x.re, x.im))
FD_COMPLEX1(ComplexIsNan, bool, has_nan(x))
FD_COMPLEX1(ComplexIsInf, bool, (abs(x.re) == kInf<decltype(x.re)>) | (abs(x.im) == kInf<decltype(x.re)>))
FD_COMPLEX1(ComplexIsFinite, bool, (abs(x.re) < kInf<decltype(x.re)>)&(abs(x.im) < kInf<decltype(x.re)>))
FD_COMPLEX1(ComplexNot, bool, (x.re == 0) & (x.im == 0))
FD_COMPLEX2(ComplexAdd, C, C{x.re + y.re FD_COMMA x.im + y.im})
FD_COMPLEX2(ComplexSubtract, C, C{x.re - y.re FD_COMMA x.im - y.im})
FD_COMPLEX2(ComplexMultiply, C, complex_product(x, y))
FD_COMPLEX2(ComplexDivide, C, complex_quotient(x, y))
FD_COMPLEX2(ComplexMaximum, C, lexically_less_equal(y, x) | has_nan(x) ? x : y)
FD_COMPLEX2(ComplexMinimum, C, lexically_less_equal(x, y) | has_nan(x) ? x : y)
FD_COMPLEX2(ComplexFmax, C, lexically_less_equal(y, x) | has_nan(y) ? x : y)
FD_COMPLEX2(ComplexFmin, C, lexically_less_equal(x, y) | has_nan(y) ? x : y)
FD_COMPLEX2(ComplexEqual, bool, (x.re == y.re) & (x.im == y.im))
FD_COMPLEX2(ComplexNotEqual, bool, (x.re != y.re) | (x.im != y.im))
FD_COMPLEX2(ComplexLess, bool, lexically_less(x, y))
FD_COMPLEX2(ComplexLessEqual, bool, lexically_less_equal(x, y))
FD_COMPLEX2(ComplexGreater, bool, lexically_less(y, x))
FD_COMPLEX2(ComplexGreaterEqual, bool, lexically_less_equal(y, x))
FD_COMPLEX2(ComplexAnd, bool, !ComplexNot::of(x) & !ComplexNot::of(y))
FD_COMPLEX2(ComplexOr, bool, !ComplexNot::of(x) | !ComplexNot::of(y))
FD_COMPLEX2(ComplexXor, bool, ComplexNot::of(x) != ComplexNot::of(y))
#undef FD_COMMA
#undef FD_COMPLEX1
#undef FD_COMPLEX2

struct ComplexSign {  // x / |x|, 0 for 0; one infinite part gives its direction
  template <class C>
  static FD_MATH C of(C x) {
    using T = decltype(C::re);
    if (ComplexNot::of(x)) return C{0, 0};
    const T a = complex_abs(x.re, x.im);
    if (a < kInf<T>) return C{x.re / a, x.im / a};
    const bool re = abs(x.re) == kInf<T>, im = abs(x.im) == kInf<T>;
    if (re == im) return C{kNaN<T>, kNaN<T>};
    return re ? C{x.re > 0 ? T(1) : T(-1), 0} : C{0, x.im > 0 ? T(1) : T(-1)};
  }
};
struct ComplexPower {  // small integer exponents by squaring, as NumPy; else e^(y log x) by the C library, in double
  template <class C>
  static FD_MATH C of(C x, C y) {
    using T = decltype(C::re);
    if (ComplexNot::of(y)) return C{1, 0};
    if (ComplexNot::of(x)) return y.re > 0 ? C{0, 0} : C{kNaN<T>, kNaN<T>};
    if (y.im == 0 && abs(y.re) < 100 && T(int(y.re)) == y.re) {
      const int n = int(y.re);
      C r{1, 0}, p = x;
      bool first = true;  // 1 * p would turn infinities into NaN
      for (unsigned m = unsigned(n < 0 ? -n : n);; p = complex_product(p, p)) {
        if (m & 1) r = first ? p : complex_product(r, p), first = false;
        if (!(m >>= 1)) break;
      }
      return n < 0 ? complex_quotient(C{1, 0}, r) : r;
    }
    __complex__ double z, w;
    __real__ z = x.re, __imag__ z = x.im;
    __real__ w = y.re, __imag__ w = y.im;
    z = __builtin_cpow(z, w);
    return C{T(__real__ z), T(__imag__ z)};
  }
};

}  // namespace
}  // namespace fastdl
