// Formulas on integers: NumPy's rules, no undefined behaviour. Arithmetic wraps; division by zero gives 0; the smallest value
// divided by -1 wraps to itself. Operations whose bits do not depend on the sign are written for unsigned types and serve both.
#pragma once
#include "math/base.h"

namespace fastdl {
namespace {

template <class T>
constexpr bool kSigned = T(-1) < T(0);
template <class T>
constexpr T kWidth = T(8 * sizeof(T));

// uint16 * uint16 would be a signed product in C++: at least 32 unsigned bits
template <class T>
FD_MATH T wrapping_product(T x, T y) {
  if constexpr (sizeof(T) <= 4)
    return T(uint32_t(x) * uint32_t(y));
  else
    return T(uint64_t(x) * uint64_t(y));
}

#define FD_INTEGER1(Name, expression) \
  struct Name {                       \
    template <class T>                \
    static FD_MATH T of(T x) {        \
      return T(expression);           \
    }                                 \
  };
#define FD_INTEGER2(Name, expression) \
  struct Name {                       \
    template <class T>                \
    static FD_MATH T of(T x, T y) {   \
      return T(expression);           \
    }                                 \
  };
// any sign: instantiated for unsigned types
FD_INTEGER1(IntNegative, uint64_t(0) - uint64_t(x))
FD_INTEGER1(IntSquare, wrapping_product(x, x))
FD_INTEGER1(IntNot, ~x)
FD_INTEGER2(IntAdd, uint64_t(x) + uint64_t(y))
FD_INTEGER2(IntSubtract, uint64_t(x) - uint64_t(y))
FD_INTEGER2(IntMultiply, wrapping_product(x, y))
FD_INTEGER2(IntAnd, x& y)
FD_INTEGER2(IntOr, x | y)
FD_INTEGER2(IntXor, x ^ y)
FD_INTEGER2(IntShiftLeft,
            y < kWidth<T> ? uint64_t(x) << (y & (kWidth<T> - 1)) : 0)  // a negative count, read as unsigned, is too large
// by sign
FD_INTEGER1(IntAbs, x < T(0) ? uint64_t(0) - uint64_t(x) : uint64_t(x))
FD_INTEGER1(IntSign, (x > T(0)) - (x < T(0)))
FD_INTEGER1(IntRelu, x > T(0) ? x : T(0))
FD_INTEGER1(IntRelu6, x > T(0) ? x < T(6) ? x : T(6) : T(0))
FD_INTEGER2(IntMaximum, x > y ? x : y)
FD_INTEGER2(IntMinimum, x < y ? x : y)
#undef FD_INTEGER1
#undef FD_INTEGER2

struct IntShiftRight {  // arithmetic; a count that is too large or negative leaves only the sign
  template <class T>
  static FD_MATH T of(T x, T y) {
    if constexpr (kSigned<T>)
      return T(x >> (y < T(0) || y >= kWidth<T> ? T(kWidth<T> - 1) : y));
    else
      return T(y < kWidth<T> ? x >> (y & (kWidth<T> - 1)) : 0);
  }
};
struct IntFmod {  // sign of the dividend
  template <class T>
  static FD_MATH T of(T x, T y) {
    if (y == T(0)) return 0;
    if (kSigned<T> && y == T(-1)) return 0;  // the hardware faults for the smallest x
    return T(x % y);
  }
};
struct IntRemainder {  // sign of the divisor
  template <class T>
  static FD_MATH T of(T x, T y) {
    const T r = IntFmod::of(x, y);
    return kSigned<T> && r != T(0) && (r < T(0)) != (y < T(0)) ? T(r + y) : r;
  }
};
struct IntFloorDivide {
  template <class T>
  static FD_MATH T of(T x, T y) {
    if (y == T(0)) return 0;
    if (kSigned<T> && y == T(-1)) return T(uint64_t(0) - uint64_t(x));
    const T q = T(x / y);
    return kSigned<T> && (x < T(0)) != (y < T(0)) && T(q * y) != x ? T(q - 1) : q;
  }
};
struct IntPower {  // by squaring, modulo 2^width. A negative exponent, which has no integer result, truncates: 1, -1 or 0
  template <class T>
  static FD_MATH T of(T x, T y) {
    if (y < T(0)) return x == T(1) ? T(1) : x == T(-1) ? T(y & T(1) ? T(-1) : T(1)) : T(0);
    T r = 1;
    for (;;) {
      if (y & T(1)) r = wrapping_product(r, x);
      y = T(y >> 1);
      if (y == T(0)) return r;
      x = wrapping_product(x, x);
    }
  }
};
struct IntClip {
  template <class T>
  static FD_MATH T of(T x, T low, T high) {
    const T y = x > low ? x : low;
    return y < high ? y : high;
  }
};

}  // namespace
}  // namespace fastdl
