// Elementwise ops on integers and bool (formulas: math/integer.h, math/compare.h), and integer comparisons. All sizes compute in 64
// bits: what overflows is cut off by the store, as if computed in the dtype itself. Loads extend by sign, so that one kernel serves
// both signs where the bits of the result do not depend on the sign; the others have one for all dtypes that int64 can hold, and
// one for uint64.
#include "cuda/device/clip.cuh"
#include "math/compare.h"
#include "math/integer.h"

#if defined(__CUDACC__)
#pragma nv_diag_suppress 186  // formulas compare with zero for unsigned types, too
#endif

namespace fastdl {
namespace {

using I = int64_t;
using U = uint64_t;

void identity_row(const Args& a) {
  if (!(a.host_inputs & 1)) return copy_on_device(a, a.out[0], a.in[0]);
  alignas(16) char number[16];
  cast_number(number, a.out[0].dtype, a.in[0].data, a.in[0].dtype);
  fill_on_device(a, a.out[0], number);
}
template <bool value>
void constant_row(const Args& a) {
  alignas(16) char number[16];
  const bool v = value;
  cast_number(number, a.out[0].dtype, &v, DType::bool_);
  fill_on_device(a, a.out[0], number);
}

template <class T>
constexpr KernelFn clip = clip_row<map_row<IntClip, T, T, 3>, map_row<IntMaximum, T, T, 2>, map_row<IntMinimum, T, T, 2>>;

constexpr DTypeMask kUnsigned = mask_of(DType::uint8) | mask_of(DType::uint16) | mask_of(DType::uint32) | mask_of(DType::uint64);
constexpr DTypeMask kU64 = mask_of(DType::uint64), kInInt64 = kMaskInt & ~kU64;
constexpr DTypeMask kWhole = kMaskInt | kMaskBool;

}  // namespace

// clang-format off
#define ROW FD_ELEMENTWISE_ROW
#define IDENTITY(op, mask) {OpId::op, mask, identity_row, nullptr},
#define CONSTANT(op, value) {OpId::op, kWhole, constant_row<value>, nullptr},
#define BY_SIGN(op, F, nin) ROW(op, kInInt64, F, I, I, nin, 2) ROW(op, kU64, F, U, U, nin, 2)
#define TEST_BY_SIGN(op, F) ROW(op, kInInt64 | kMaskBool, F, I, bool, 2, 2) ROW(op, kU64, F, U, bool, 2, 2)

FD_CUDA_TABLE(integer) = {
    ROW(negative, kMaskInt, IntNegative, U, U, 1, 2)
    ROW(square, kMaskInt, IntSquare, U, U, 1, 2)
    ROW(bitwise_not, kMaskInt, IntNot, U, U, 1, 2)
    ROW(bitwise_not, kMaskBool, LogicalNot, U, bool, 1, 2)
    ROW(logical_not, kWhole, LogicalNot, U, bool, 1, 2)
    ROW(abs, kMaskInt & ~kUnsigned, IntAbs, I, I, 1, 2)
    IDENTITY(abs, kUnsigned | kMaskBool)
    ROW(relu, kMaskInt & ~kUnsigned, IntRelu, I, I, 1, 2)
    IDENTITY(relu, kUnsigned)
    BY_SIGN(sign, IntSign, 1)
    BY_SIGN(relu6, IntRelu6, 1)
    ROW(signbit, kInInt64, Signbit, I, bool, 1, 2)
    {OpId::signbit, kU64, constant_row<false>, nullptr},
    IDENTITY(positive, kMaskInt) IDENTITY(conj, kMaskInt) IDENTITY(floor, kMaskInt) IDENTITY(ceil, kMaskInt)
    IDENTITY(trunc, kMaskInt) IDENTITY(round, kMaskInt)
    CONSTANT(isnan, false) CONSTANT(isinf, false) CONSTANT(isfinite, true)

    ROW(add, kMaskInt, IntAdd, U, U, 2, 2)
    ROW(subtract, kMaskInt, IntSubtract, U, U, 2, 2)
    ROW(multiply, kMaskInt, IntMultiply, U, U, 2, 2)
    ROW(left_shift, kMaskInt, IntShiftLeft, U, U, 2, 2)
    ROW(bitwise_and, kWhole, IntAnd, U, U, 2, 2)
    ROW(bitwise_or, kWhole, IntOr, U, U, 2, 2)
    ROW(bitwise_xor, kWhole, IntXor, U, U, 2, 2)
    ROW(add, kMaskBool, IntOr, U, U, 2, 2)     ROW(multiply, kMaskBool, IntAnd, U, U, 2, 2)
    ROW(maximum, kMaskBool, IntOr, U, U, 2, 2) ROW(minimum, kMaskBool, IntAnd, U, U, 2, 2)
    ROW(fmax, kMaskBool, IntOr, U, U, 2, 2)    ROW(fmin, kMaskBool, IntAnd, U, U, 2, 2)
    BY_SIGN(right_shift, IntShiftRight, 2)
    BY_SIGN(floor_divide, IntFloorDivide, 2)
    BY_SIGN(remainder, IntRemainder, 2)
    BY_SIGN(fmod, IntFmod, 2)
    BY_SIGN(power, IntPower, 2)
    BY_SIGN(maximum, IntMaximum, 2)
    BY_SIGN(minimum, IntMinimum, 2)
    BY_SIGN(fmax, IntMaximum, 2)
    BY_SIGN(fmin, IntMinimum, 2)
    {OpId::clip, kInInt64, clip<I>, clip_workspace<I>},
    {OpId::clip, kU64, clip<U>, clip_workspace<U>},

    ROW(equal, kWhole, Equal, U, bool, 2, 2)
    ROW(not_equal, kWhole, NotEqual, U, bool, 2, 2)
    ROW(logical_and, kWhole, LogicalAnd, U, bool, 2, 2)
    ROW(logical_or, kWhole, LogicalOr, U, bool, 2, 2)
    ROW(logical_xor, kWhole, LogicalXor, U, bool, 2, 2)
    TEST_BY_SIGN(less, Less) TEST_BY_SIGN(less_equal, LessEqual)
    TEST_BY_SIGN(greater, Greater) TEST_BY_SIGN(greater_equal, GreaterEqual)
    {}};
// clang-format on
}  // namespace fastdl
