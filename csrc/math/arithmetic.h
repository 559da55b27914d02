// Formulas of the arithmetic ops on floats. Integers and complex numbers have theirs in math/integer.h and math/complex.h.
#pragma once
#include "math/formula.h"

namespace fastdl {
namespace {

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
// NaN in either operand is the result: min and max hand back their second operand for a NaN, which leaves a NaN in x.
FD_FORMULA2(Maximum, select(x != x, x, max(x, y)))
FD_FORMULA2(Minimum, select(x != x, x, min(x, y)))
// the other operand if one is NaN
FD_FORMULA2(Fmax, select(y != y, x, max(x, y)))
FD_FORMULA2(Fmin, select(y != y, x, min(x, y)))
#undef FD_FORMULA2

}  // namespace
}  // namespace fastdl
