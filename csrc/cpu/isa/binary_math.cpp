// arctan2, hypot, logaddexp and power on floats: formulas of math/ through the elementwise driver.
#include "cpu/isa/elementwise.h"
#include "math/formula.h"
#include "math/power.h"
#include "math/trig.h"

namespace fastdl {
namespace {
#define OPS(_) _(arctan2) _(hypot) _(logaddexp) _(power)

#define FORMULA(name)               \
  struct name##_formula : Formula { \
    template <class V>              \
    static FD_MATH V of(V x, V y) { \
      return name(x, y);            \
    }                               \
  };
OPS(FORMULA)
}  // namespace

// clang-format off
#define ROWS(name) {OpId::name, kF32ish, map_kernel_long<name##_formula, float, 2>}, {OpId::name, kF64, map_kernel_long<name##_formula, double, 2>},
FD_KERNEL_TABLE(binary_math) = {OPS(ROWS) {}};
// clang-format on
}  // namespace fastdl
