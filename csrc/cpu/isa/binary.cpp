// Binary arithmetic on floats: formulas of math/arithmetic.h through the elementwise driver.
#include "cpu/isa/elementwise.h"
#include "math/arithmetic.h"

namespace fastdl {
// clang-format off
#define ROWS(op, F, grain) \
  {OpId::op, kF32ish, map_kernel<F, float, 2, grain>}, {OpId::op, kF64, map_kernel<F, double, 2, grain>},
FD_KERNEL_TABLE(binary) = {
    ROWS(add, Add, kCheapGrain)
    ROWS(subtract, Subtract, kCheapGrain)
    ROWS(multiply, Multiply, kCheapGrain)
    ROWS(divide, Divide, kCheapGrain)
    ROWS(maximum, Maximum, kCheapGrain)
    ROWS(minimum, Minimum, kCheapGrain)
    ROWS(fmax, Fmax, kCheapGrain)
    ROWS(fmin, Fmin, kCheapGrain)
    ROWS(floor_divide, FloorDivide, kCostlyGrain)
    ROWS(remainder, Remainder, kCostlyGrain)
    ROWS(fmod, Fmod, kCostlyGrain)
    ROWS(copysign, Copysign, kCheapGrain)
    {}};
// clang-format on
}  // namespace fastdl
