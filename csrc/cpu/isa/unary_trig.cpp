// Trigonometric and hyperbolic functions on floats: formulas of math/ through the elementwise driver.
#include "cpu/isa/elementwise.h"
#include "math/formula.h"
#include "math/hyperbolic.h"
#include "math/trig.h"

namespace fastdl {
namespace {
#define OPS(_) _(sin) _(cos) _(tan) _(arcsin) _(arccos) _(arctan) _(sinh) _(cosh) _(tanh) _(arcsinh) _(arccosh) _(arctanh)

#define FORMULA(name)               \
  struct name##_formula : Formula { \
    template <class V>              \
    static FD_MATH V of(V x) {      \
      return name(x);               \
    }                               \
  };
OPS(FORMULA)
}  // namespace

// clang-format off
#define ROWS(name) {OpId::name, kF32ish, map_kernel_long<name##_formula, float, 1>}, {OpId::name, kF64, map_kernel_long<name##_formula, double, 1>},
FD_KERNEL_TABLE(unary_trig) = {OPS(ROWS) {}};
// clang-format on
}  // namespace fastdl
