// Trigonometric and hyperbolic functions on floats: formulas of math/ through the elementwise driver.
#include "cpu/isa/elementwise.h"
#include "math/hyperbolic.h"
#include "math/ops.h"
#include "math/trig.h"

namespace fastdl {
namespace {
FD_TRIGONOMETRIC(FD_FORMULA)
}  // namespace

// clang-format off
#define ROWS(name, inputs, params) {OpId::name, kF32ish, map_kernel_long<name##_formula, float, 1>}, {OpId::name, kF64, map_kernel_long<name##_formula, double, 1>},
FD_KERNEL_TABLE(unary_trig) = {FD_TRIGONOMETRIC(ROWS) {}};
// clang-format on
}  // namespace fastdl
