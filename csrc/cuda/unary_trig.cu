// Trigonometric and hyperbolic functions on floats: formulas of math/ through the elementwise kernel.
#include "cuda/device/elementwise.cuh"
#include "math/hyperbolic.h"
#include "math/ops.h"
#include "math/trig.h"

namespace fastdl {
namespace {
FD_TRIGONOMETRIC(FD_FORMULA)
}  // namespace

// clang-format off
#define ROWS(name, nin, params) FD_FLOAT_ROWS(name, name##_formula, nin, 1)
FD_CUDA_TABLE(unary_trig) = {FD_TRIGONOMETRIC(ROWS) {}};
// clang-format on
}  // namespace fastdl
