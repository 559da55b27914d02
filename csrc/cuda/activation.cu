// Activations, forward and backward, on floats: formulas of math/activation.h through the elementwise kernel.
#include "cuda/device/elementwise.cuh"
#include "math/activation.h"
#include "math/ops.h"

namespace fastdl {
namespace {
FD_CHEAP_ACTIVATIONS(FD_FORMULA)
FD_COSTLY_ACTIVATIONS(FD_FORMULA)
}  // namespace

// clang-format off
#define CHEAP(name, nin, params) FD_FLOAT_ROWS(name, name##_formula, nin, 2)
#define COSTLY(name, nin, params) FD_FLOAT_ROWS(name, name##_formula, nin, 1)
FD_CUDA_TABLE(activation) = {FD_CHEAP_ACTIVATIONS(CHEAP) FD_COSTLY_ACTIVATIONS(COSTLY) {}};
// clang-format on
}  // namespace fastdl
