// Formulas of binary and ternary arithmetic on real floats. Integers: math/integer.h, complex numbers: math/complex.h.
#pragma once
#include "math/formula.h"

namespace fastdl {
namespace {

// NaN in either operand is the result: min and max hand back their second operand for a NaN, which leaves a NaN in x.
template <class V>
FD_MATH V maximum(V x, V y) {
  return select(x != x, x, max(x, y));
}
template <class V>
FD_MATH V minimum(V x, V y) {
  return select(x != x, x, min(x, y));
}

template <class V>
FD_MATH V integral_part(V x) {
  if constexpr (sizeof(V) == sizeof(double) && kIsDouble<V>)
    return FD_LIBM(trunc)(x);
  else
    return trunc(x);
}
template <class V>
FD_MATH V floor_of(V x) {
  const V t = integral_part(x);
  return select(t > x, t - V(1), t);
}

// x - trunc(x / y) y, exactly. For floats in double: below a quotient of 2^28 the division errs by less than the quotient's
// distance from the next integer, the product has 52 bits, so nothing is rounded; beyond, and for special values, the C library.
template <class V>
FD_MATH V fmod(V x, V y) {
  if constexpr (kIsDouble<V>) {
    return map_lanes(x, y, [](double a, double b) { return FD_LIBM(fmod)(a, b); });
  } else {
    const auto exact = [](auto a, auto b) { return a - integral_part(a / b) * b; };
    V r;
    if constexpr (sizeof(V) == sizeof(float))
      r = float(exact(double(x), double(y)));
    else
      r = narrow(exact(widen_low(x), widen_low(y)), exact(widen_high(x), widen_high(y)));
    r = copysign(r, x);
    const V ordinary = select((abs(x) < abs(y) * V(0x1p28f)) & (abs(y) < V(kInf<V>)), V(1.0f), V(0.0f));
    if (any(ordinary == V(0.0f)))
      r = select(ordinary == V(0.0f), map_lanes(x, y, [](float a, float b) { return FD_LIBM(fmodf)(a, b); }), r);
    return r;
  }
}

// Python's // and %: quotient rounded down, remainder with the sign of the divisor (as npy_divmod).
template <class V>
FD_MATH V remainder(V x, V y) {
  const V r = fmod(x, y);
  return select(r == V(0), copysign(V(0), y), select((y < V(0)) != (r < V(0)), r + y, r));
}
template <class V>
FD_MATH V floor_divide(V x, V y) {
  const V r = fmod(x, y);
  V q = (x - r) / y;  // an integer but for rounding
  q = select((r != V(0)) & ((y < V(0)) != (r < V(0))), q - V(1), q);
  V f = floor_of(q);
  f = select(q - f > V(0.5), f + V(1), f);
  f = select(q == V(0), copysign(V(0), x / y), f);
  return select(y == V(0), x / y, f);
}

#define FD_FORMULA2(Name, expression) \
  struct Name : Formula {             \
    template <class V>                \
    static FD_MATH V of(V x, V y) {   \
      return expression;              \
    }                                 \
  };
FD_FORMULA2(Add, x + y)
FD_FORMULA2(Subtract, x - y)
FD_FORMULA2(Multiply, x* y)
FD_FORMULA2(Divide, x / y)
FD_FORMULA2(Maximum, maximum(x, y))
FD_FORMULA2(Minimum, minimum(x, y))
FD_FORMULA2(Fmax, select(y != y, x, max(x, y)))  // the other operand if one is NaN
FD_FORMULA2(Fmin, select(y != y, x, min(x, y)))
FD_FORMULA2(FloorDivide, floor_divide(x, y))
FD_FORMULA2(Remainder, remainder(x, y))
FD_FORMULA2(Fmod, fmod(x, y))
FD_FORMULA2(Copysign, copysign(x, y))
#undef FD_FORMULA2

struct Clip : Formula {
  template <class V>
  static FD_MATH V of(V x, V low, V high) {
    return minimum(maximum(x, low), high);
  }
};
struct AddMultiple : Formula {  // x + p y z
  static constexpr int kParams = 1;
  template <class V>
  static FD_MATH V of(V x, V y, V z, const V* p) {
    return fma(p[0] * y, z, x);
  }
};
struct Lerp : Formula {  // exact at both ends: counted from the nearer one
  template <class V>
  static FD_MATH V of(V x, V y, V w) {
    const V d = y - x;
    return select(abs(w) < V(0.5), fma(w, d, x), fma(w - V(1), d, y));
  }
};

}  // namespace
}  // namespace fastdl
