// Unary arithmetic, exponentials and logarithms on floats: formulas of math/ through the elementwise driver. Trigonometric and
// hyperbolic functions are in unary_trig.cpp, integers in integer.cpp.
#include "cpu/isa/elementwise.h"
#include "math/erf.h"
#include "math/log.h"
#include "math/ops.h"
#include "math/power.h"

namespace fastdl {
namespace {
FD_CHEAP_UNARY(FD_FORMULA)
FD_COSTLY_UNARY(FD_FORMULA)
}  // namespace

// clang-format off
#define CHEAP(name, inputs, params) {OpId::name, kF32ish, map_kernel<name##_formula, float, 1>}, {OpId::name, kF64, map_kernel<name##_formula, double, 1>},
#define COSTLY(name, inputs, params) {OpId::name, kF32ish, map_kernel_long<name##_formula, float, 1>}, {OpId::name, kF64, map_kernel_long<name##_formula, double, 1>},
FD_KERNEL_TABLE(unary) = {FD_CHEAP_UNARY(CHEAP) FD_COSTLY_UNARY(COSTLY)
    {OpId::conj, kF32ish, map_kernel<positive_formula, float, 1>}, {OpId::conj, kF64, map_kernel<positive_formula, double, 1>}, {}};
// clang-format on
}  // namespace fastdl
