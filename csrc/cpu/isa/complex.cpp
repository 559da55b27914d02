// Elementwise ops on complex numbers (formulas: math/complex.h).
#include "cpu/isa/elementwise.h"
#include "math/complex.h"

namespace fastdl {
// clang-format off
#define ROW(op, F, C, R, nin, grain) {OpId::op, mask_of(dtype_of<C>()), map_scalars_kernel<F, C, R, nin, grain>},
#define COMPLEX_ROWS(C)                                                                                                    \
  ROW(negative, ComplexNegative, C, C, 1, kCheapGrain)         ROW(positive, ComplexPositive, C, C, 1, kCheapGrain)        \
  ROW(conj, ComplexConj, C, C, 1, kCheapGrain)                 ROW(square, ComplexSquare, C, C, 1, kCheapGrain)            \
  ROW(abs, ComplexAbs, C, decltype(C::re), 1, kCostlyGrain)    ROW(sign, ComplexSign, C, C, 1, kCostlyGrain)               \
  ROW(isnan, ComplexIsNan, C, bool, 1, kCheapGrain)            ROW(isinf, ComplexIsInf, C, bool, 1, kCheapGrain)           \
  ROW(isfinite, ComplexIsFinite, C, bool, 1, kCheapGrain)      ROW(logical_not, ComplexNot, C, bool, 1, kCheapGrain)       \
  ROW(add, ComplexAdd, C, C, 2, kCheapGrain)                   ROW(subtract, ComplexSubtract, C, C, 2, kCheapGrain)        \
  ROW(multiply, ComplexMultiply, C, C, 2, kCheapGrain)         ROW(divide, ComplexDivide, C, C, 2, kCheapGrain)            \
  ROW(power, ComplexPower, C, C, 2, kCostlyGrain)                                                                          \
  ROW(maximum, ComplexMaximum, C, C, 2, kCheapGrain)           ROW(minimum, ComplexMinimum, C, C, 2, kCheapGrain)          \
  ROW(fmax, ComplexFmax, C, C, 2, kCheapGrain)                 ROW(fmin, ComplexFmin, C, C, 2, kCheapGrain)                \
  ROW(equal, ComplexEqual, C, bool, 2, kCheapGrain)            ROW(not_equal, ComplexNotEqual, C, bool, 2, kCheapGrain)    \
  ROW(less, ComplexLess, C, bool, 2, kCheapGrain)              ROW(less_equal, ComplexLessEqual, C, bool, 2, kCheapGrain)  \
  ROW(greater, ComplexGreater, C, bool, 2, kCheapGrain)        ROW(greater_equal, ComplexGreaterEqual, C, bool, 2, kCheapGrain) \
  ROW(logical_and, ComplexAnd, C, bool, 2, kCheapGrain)        ROW(logical_or, ComplexOr, C, bool, 2, kCheapGrain)         \
  ROW(logical_xor, ComplexXor, C, bool, 2, kCheapGrain)

FD_KERNEL_TABLE(complex) = {COMPLEX_ROWS(c64) COMPLEX_ROWS(c128) {}};
// clang-format on
}  // namespace fastdl
