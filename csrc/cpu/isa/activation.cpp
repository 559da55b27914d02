// Activations, forward and backward, on floats: formulas of math/activation.h through the elementwise driver.
#include "cpu/isa/elementwise.h"
#include "math/activation.h"
#include "math/ops.h"

namespace fastdl {
namespace {
FD_CHEAP_ACTIVATIONS(FD_FORMULA)
FD_COSTLY_ACTIVATIONS(FD_FORMULA)
}  // namespace

// clang-format off
#define CHEAP(name, inputs, params) \
  {OpId::name, kF32ish, map_kernel<name##_formula, float, inputs>}, {OpId::name, kF64, map_kernel<name##_formula, double, inputs>},
#define COSTLY(name, inputs, params) \
  {OpId::name, kF32ish, map_kernel_long<name##_formula, float, inputs>}, {OpId::name, kF64, map_kernel_long<name##_formula, double, inputs>},
FD_KERNEL_TABLE(activation) = {FD_CHEAP_ACTIVATIONS(CHEAP) FD_COSTLY_ACTIVATIONS(COSTLY) {}};
// clang-format on
}  // namespace fastdl
