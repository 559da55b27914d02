// Unary arithmetic, exponentials and logarithms on floats: formulas of math/ through the elementwise driver. Trigonometric and
// hyperbolic functions are in unary_trig.cpp, integers in integer.cpp.
#include "cpu/isa/elementwise.h"
#include "math/erf.h"
#include "math/formula.h"
#include "math/log.h"
#include "math/power.h"

namespace fastdl {
namespace {
#define CHEAP_OPS(_) \
  _(negative) _(positive) _(abs) _(sign) _(square) _(sqrt) _(rsqrt) _(reciprocal) _(floor) _(ceil) _(trunc) _(round)
#define COSTLY_OPS(_) _(cbrt) _(exp) _(exp2) _(expm1) _(log) _(log2) _(log10) _(log1p) _(erf) _(erfc)

#define FORMULA(name)               \
  struct name##_formula : Formula { \
    template <class V>              \
    static FD_MATH V of(V x) {      \
      return name(x);               \
    }                               \
  };
CHEAP_OPS(FORMULA)
COSTLY_OPS(FORMULA)
}  // namespace

// clang-format off
#define CHEAP(name) {OpId::name, kF32ish, map_kernel<name##_formula, float, 1>}, {OpId::name, kF64, map_kernel<name##_formula, double, 1>},
#define COSTLY(name) {OpId::name, kF32ish, map_kernel_long<name##_formula, float, 1>}, {OpId::name, kF64, map_kernel_long<name##_formula, double, 1>},
FD_KERNEL_TABLE(unary) = {CHEAP_OPS(CHEAP) COSTLY_OPS(COSTLY)
    {OpId::conj, kF32ish, map_kernel<positive_formula, float, 1>}, {OpId::conj, kF64, map_kernel<positive_formula, double, 1>}, {}};
// clang-format on
}  // namespace fastdl
