// Comparisons, logic and tests of floats: bytes 0 or 1 out. The 16-bit floats compare as float.
#include "cpu/isa/elementwise.h"
#include "math/compare.h"

namespace fastdl {
// clang-format off
#define ROWS(op, F, nin) \
  {OpId::op, kF32ish, map_scalars_kernel<F, float, bool, nin>}, {OpId::op, kF64, map_scalars_kernel<F, double, bool, nin>},
FD_KERNEL_TABLE(compare) = {
    ROWS(equal, Equal, 2)
    ROWS(not_equal, NotEqual, 2)
    ROWS(less, Less, 2)
    ROWS(less_equal, LessEqual, 2)
    ROWS(greater, Greater, 2)
    ROWS(greater_equal, GreaterEqual, 2)
    ROWS(logical_and, LogicalAnd, 2)
    ROWS(logical_or, LogicalOr, 2)
    ROWS(logical_xor, LogicalXor, 2)
    ROWS(logical_not, LogicalNot, 1)
    ROWS(isnan, IsNan, 1)
    ROWS(isinf, IsInf, 1)
    ROWS(isfinite, IsFinite, 1)
    ROWS(signbit, Signbit, 1)
    {}};
// clang-format on
}  // namespace fastdl
