// Elementwise ops on integers and bool (formulas: math/integer.h), and integer comparisons. Loops that work for either sign are
// instantiated once per width. Signed overflow, shifts and division follow NumPy, see there.
#include "cpu/isa/elementwise.h"
#include "math/compare.h"
#include "math/integer.h"

namespace fastdl {
namespace {

// The unsigned type of T's width, whose loops T may share; bool's bytes are 0 or 1.
template <class T>
struct UnsignedOf {
  using type = T;
};
// clang-format off
template <> struct UnsignedOf<bool> { using type = uint8_t; };
template <> struct UnsignedOf<int8_t> { using type = uint8_t; };
template <> struct UnsignedOf<int16_t> { using type = uint16_t; };
template <> struct UnsignedOf<int32_t> { using type = uint32_t; };
template <> struct UnsignedOf<int64_t> { using type = uint64_t; };
// clang-format on
template <class T>
using Bits = typename UnsignedOf<T>::type;

template <int64_t item>
void same_block(void* out, const void* const* in, int64_t n, const Attrs&) {
  if (out != in[0]) __builtin_memcpy(out, in[0], n * item);
}
template <bool value>
void constant_block(void* out, const void* const*, int64_t n, const Attrs&) {
  __builtin_memset(out, value, n);
}
template <BlockFn block>
void swapped_block(void* out, const void* const* in, int64_t n, const Attrs& attrs) {
  const void* const exchanged[2] = {in[1], in[0]};
  block(out, exchanged, n, attrs);
}

template <class F, class T, int nin, class L = T>  // L: the type of the loop
constexpr KernelFn arithmetic = elementwise_kernel<map_scalars<F, L, L, nin>, T, T, nin, kCheapGrain>;
template <class F, class T, int nin>
constexpr KernelFn by_bits = arithmetic<F, T, nin, Bits<T>>;
template <class F, class T, class L = T>
constexpr KernelFn comparison = elementwise_kernel<map_scalars<F, L, bool, 2>, T, bool, 2, kCheapGrain>;
template <class F, class T>
constexpr KernelFn exchanged_comparison = elementwise_kernel<swapped_block<map_scalars<F, T, bool, 2>>, T, bool, 2, kCheapGrain>;
template <class T>
constexpr KernelFn identity = elementwise_kernel<same_block<sizeof(T)>, T, T, 1, kCheapGrain>;
template <class T>
constexpr KernelFn clip =
    clip_kernel<arithmetic<IntClip, T, 3>, arithmetic<IntMaximum, T, 2>, arithmetic<IntMinimum, T, 2>, identity<T>>;
template <class T, bool value>
constexpr KernelFn constant = elementwise_kernel<constant_block<value>, T, bool, 1, kCheapGrain>;

}  // namespace

// clang-format off
#define ROW(op, T, ...) {OpId::op, mask_of(dtype_of<T>()), __VA_ARGS__},
// int8 .. int64, uint8 .. uint64
#define INTEGER_ROWS(T)                                                                                         \
  ROW(negative, T, by_bits<IntNegative, T, 1>)            ROW(positive, T, identity<T>)                         \
  ROW(abs, T, kSigned<T> ? arithmetic<IntAbs, T, 1> : identity<T>)  ROW(sign, T, arithmetic<IntSign, T, 1>)      \
  ROW(square, T, by_bits<IntSquare, T, 1>)                ROW(conj, T, identity<T>)                             \
  ROW(floor, T, identity<T>)                              ROW(ceil, T, identity<T>)                             \
  ROW(trunc, T, identity<T>)                              ROW(round, T, identity<T>)                            \
  ROW(relu, T, kSigned<T> ? arithmetic<IntRelu, T, 1> : identity<T>)  ROW(relu6, T, arithmetic<IntRelu6, T, 1>) \
  ROW(bitwise_not, T, by_bits<IntNot, T, 1>)              ROW(signbit, T, map_scalars_kernel<Signbit, T, bool, 1>) \
  ROW(isnan, T, constant<T, false>)  ROW(isinf, T, constant<T, false>)  ROW(isfinite, T, constant<T, true>)     \
  ROW(logical_not, T, elementwise_kernel<map_scalars<LogicalNot, Bits<T>, bool, 1>, T, bool, 1, kCheapGrain>)   \
  ROW(add, T, by_bits<IntAdd, T, 2>)                      ROW(subtract, T, by_bits<IntSubtract, T, 2>)          \
  ROW(multiply, T, by_bits<IntMultiply, T, 2>)            ROW(floor_divide, T, arithmetic<IntFloorDivide, T, 2>) \
  ROW(remainder, T, arithmetic<IntRemainder, T, 2>)       ROW(fmod, T, arithmetic<IntFmod, T, 2>)               \
  ROW(power, T, arithmetic<IntPower, T, 2>)               ROW(left_shift, T, by_bits<IntShiftLeft, T, 2>)       \
  ROW(right_shift, T, arithmetic<IntShiftRight, T, 2>)    ROW(clip, T, clip<T>)             \
  ROW(maximum, T, arithmetic<IntMaximum, T, 2>)           ROW(minimum, T, arithmetic<IntMinimum, T, 2>)         \
  ROW(fmax, T, arithmetic<IntMaximum, T, 2>)              ROW(fmin, T, arithmetic<IntMinimum, T, 2>)            \
  LOGIC_ROWS(T)                                                                                                 \
  ROW(less, T, comparison<Less, T>)                       ROW(less_equal, T, comparison<LessEqual, T>)          \
  ROW(greater, T, exchanged_comparison<Less, T>)          ROW(greater_equal, T, exchanged_comparison<LessEqual, T>)
#define LOGIC_ROWS(T)                                                                                           \
  ROW(bitwise_and, T, by_bits<IntAnd, T, 2>)              ROW(bitwise_or, T, by_bits<IntOr, T, 2>)              \
  ROW(bitwise_xor, T, by_bits<IntXor, T, 2>)                                                                    \
  ROW(equal, T, comparison<Equal, T, Bits<T>>)            ROW(not_equal, T, comparison<NotEqual, T, Bits<T>>)   \
  ROW(logical_and, T, comparison<LogicalAnd, T, Bits<T>>) ROW(logical_or, T, comparison<LogicalOr, T, Bits<T>>) \
  ROW(logical_xor, T, comparison<LogicalXor, T, Bits<T>>)
#define BOOL_AND by_bits<IntAnd, bool, 2>
#define BOOL_OR by_bits<IntOr, bool, 2>

FD_KERNEL_TABLE(integer) = {
    INTEGER_ROWS(uint8_t) INTEGER_ROWS(int8_t) INTEGER_ROWS(uint16_t) INTEGER_ROWS(int16_t)
    INTEGER_ROWS(uint32_t) INTEGER_ROWS(int32_t) INTEGER_ROWS(uint64_t) INTEGER_ROWS(int64_t)
    LOGIC_ROWS(bool)
    ROW(abs, bool, identity<bool>)   ROW(bitwise_not, bool, elementwise_kernel<map_scalars<LogicalNot, uint8_t, bool, 1>, bool, bool, 1, kCheapGrain>)
    ROW(add, bool, BOOL_OR)          ROW(multiply, bool, BOOL_AND)
    ROW(maximum, bool, BOOL_OR)      ROW(minimum, bool, BOOL_AND)
    ROW(fmax, bool, BOOL_OR)         ROW(fmin, bool, BOOL_AND)
    ROW(isnan, bool, constant<bool, false>)  ROW(isinf, bool, constant<bool, false>)  ROW(isfinite, bool, constant<bool, true>)
    ROW(logical_not, bool, elementwise_kernel<map_scalars<LogicalNot, uint8_t, bool, 1>, bool, bool, 1, kCheapGrain>)
    ROW(less, bool, elementwise_kernel<map_scalars<Less, uint8_t, bool, 2>, bool, bool, 2, kCheapGrain>)
    ROW(less_equal, bool, elementwise_kernel<map_scalars<LessEqual, uint8_t, bool, 2>, bool, bool, 2, kCheapGrain>)
    ROW(greater, bool, elementwise_kernel<map_scalars<Greater, uint8_t, bool, 2>, bool, bool, 2, kCheapGrain>)
    ROW(greater_equal, bool, elementwise_kernel<map_scalars<GreaterEqual, uint8_t, bool, 2>, bool, bool, 2, kCheapGrain>)
    {}};
// clang-format on
}  // namespace fastdl
