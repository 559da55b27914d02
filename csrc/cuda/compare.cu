// Comparisons, logic and tests of floats: bytes 0 or 1 out. The 16-bit floats compare as float.
#include "cuda/device/elementwise.cuh"
#include "math/compare.h"

namespace fastdl {
// clang-format off
FD_CUDA_TABLE(compare) = {
    FD_TEST_ROWS(equal, Equal, 2)
    FD_TEST_ROWS(not_equal, NotEqual, 2)
    FD_TEST_ROWS(less, Less, 2)
    FD_TEST_ROWS(less_equal, LessEqual, 2)
    FD_TEST_ROWS(greater, Greater, 2)
    FD_TEST_ROWS(greater_equal, GreaterEqual, 2)
    FD_TEST_ROWS(logical_and, LogicalAnd, 2)
    FD_TEST_ROWS(logical_or, LogicalOr, 2)
    FD_TEST_ROWS(logical_xor, LogicalXor, 2)
    FD_TEST_ROWS(logical_not, LogicalNot, 1)
    FD_TEST_ROWS(isnan, IsNan, 1)
    FD_TEST_ROWS(isinf, IsInf, 1)
    FD_TEST_ROWS(isfinite, IsFinite, 1)
    FD_TEST_ROWS(signbit, Signbit, 1)
    {}};
// clang-format on
}  // namespace fastdl
