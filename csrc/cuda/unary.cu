// Unary arithmetic, exponentials and logarithms on floats: formulas of math/ through the elementwise kernel.
#include "cuda/device/elementwise.cuh"
#include "math/arithmetic.h"
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
#define CHEAP(name, nin, params) FD_FLOAT_ROWS(name, name##_formula, nin, 2)
#define COSTLY(name, nin, params) FD_FLOAT_ROWS(name, name##_formula, nin, 1)
FD_CUDA_TABLE(unary) = {FD_CHEAP_UNARY(CHEAP) FD_COSTLY_UNARY(COSTLY) FD_FLOAT_ROWS(conj, positive_formula, 1, 2) {}};
// clang-format on
}  // namespace fastdl
