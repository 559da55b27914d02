// Comparisons and logic of any real type; one value at a time.
#pragma once
#include "math/base.h"

namespace fastdl {
namespace {

#define FD_COMPARISON(Name, expression) \
  struct Name {                         \
    template <class T>                  \
    static FD_MATH bool of(T x, T y) {  \
      return expression;                \
    }                                   \
  };
FD_COMPARISON(Equal, x == y)
FD_COMPARISON(NotEqual, x != y)
FD_COMPARISON(Less, x < y)
FD_COMPARISON(LessEqual, x <= y)
FD_COMPARISON(Greater, x > y)
FD_COMPARISON(GreaterEqual, x >= y)
FD_COMPARISON(LogicalAnd, (x != T(0)) & (y != T(0)))
FD_COMPARISON(LogicalOr, (x != T(0)) | (y != T(0)))
FD_COMPARISON(LogicalXor, (x != T(0)) != (y != T(0)))
#undef FD_COMPARISON

struct LogicalNot {
  template <class T>
  static FD_MATH bool of(T x) {
    return x == T(0);
  }
};
// floats by their bits: no rounding mode or flush of small numbers has a say
template <class T>
FD_MATH auto magnitude_bits(T x) {
  return bits_of(x) & ~bits_of(T(-0.0));
}
struct IsNan {
  template <class T>
  static FD_MATH bool of(T x) {
    return magnitude_bits(x) > bits_of(T(kInf<T>));
  }
};
struct IsInf {
  template <class T>
  static FD_MATH bool of(T x) {
    return magnitude_bits(x) == bits_of(T(kInf<T>));
  }
};
struct IsFinite {
  template <class T>
  static FD_MATH bool of(T x) {
    return magnitude_bits(x) < bits_of(T(kInf<T>));
  }
};
struct Signbit {
  template <class T>
  static FD_MATH bool of(T x) {
    if constexpr (T(0.5) == T(0))
      return x < T(0);
    else
      return bits_of(x) < 0;
  }
};

}  // namespace
}  // namespace fastdl
