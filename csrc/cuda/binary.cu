// Binary arithmetic on floats: formulas of math/arithmetic.h through the elementwise kernel.
#include "cuda/device/elementwise.cuh"
#include "math/arithmetic.h"

namespace fastdl {
// clang-format off
FD_CUDA_TABLE(binary) = {
    FD_FLOAT_ROWS(add, Add, 2, 2)
    FD_FLOAT_ROWS(subtract, Subtract, 2, 2)
    FD_FLOAT_ROWS(multiply, Multiply, 2, 2)
    FD_FLOAT_ROWS(divide, Divide, 2, 2)
    FD_FLOAT_ROWS(maximum, Maximum, 2, 2)
    FD_FLOAT_ROWS(minimum, Minimum, 2, 2)
    FD_FLOAT_ROWS(fmax, Fmax, 2, 2)
    FD_FLOAT_ROWS(fmin, Fmin, 2, 2)
    FD_FLOAT_ROWS(floor_divide, FloorDivide, 2, 1)
    FD_FLOAT_ROWS(remainder, Remainder, 2, 1)
    FD_FLOAT_ROWS(fmod, Fmod, 2, 1)
    FD_FLOAT_ROWS(copysign, Copysign, 2, 2)
    {}};
// clang-format on
}  // namespace fastdl
