// The cast of one value between any two element types; 16-bit floats are widened before and narrowed after it.
// NumPy's astype rules:
//   to bool          x != 0 (NaN is true)
//   float -> int     truncates. Where the value does not fit NumPy leaves the result open; here it is what x86 gives in most cases,
//                    but never undefined: targets of up to 32 signed bits saturate to 32 bits, then wrap; the others saturate;
//                    NaN becomes the smallest value
//   complex -> real  drops the imaginary part
//   -> bf16, f16     rounds to nearest even, once; NaN stays NaN
#pragma once
#include "core/dtype.h"
#include "math/base.h"

namespace fastdl {
namespace {

template <class A, class B>
constexpr bool same_type = false;
template <class A>
constexpr bool same_type<A, A> = true;
template <class T>
constexpr bool is_16bit_float = same_type<T, f16> || same_type<T, bf16>;
template <class T>
constexpr bool is_complex_type = same_type<T, c64> || same_type<T, c128>;
template <class T>
constexpr bool is_real_float = same_type<T, float> || same_type<T, double>;

// One value; neither type is a 16-bit float.
template <class To, class From>
FD_MATH To convert(From x) {
  if constexpr (same_type<To, From>) {
    return x;
  } else if constexpr (same_type<To, bool>) {
    if constexpr (is_complex_type<From>)
      return (x.re != 0) | (x.im != 0);
    else
      return x != 0;
  } else if constexpr (is_complex_type<From>) {
    if constexpr (is_complex_type<To>)
      return To{decltype(To::re)(x.re), decltype(To::re)(x.im)};
    else
      return convert<To>(x.re);
  } else if constexpr (is_complex_type<To>) {
    return To{decltype(To::re)(x), 0};
  } else if constexpr (is_real_float<From> && !is_real_float<To>) {
    if constexpr (sizeof(To) < 4 || same_type<To, int32_t>) {
      constexpr From low = -2147483648.0, high = sizeof(From) == 4 ? 2147483520.0 : 2147483647.0;
      x = x > low ? x : low;
      return To(int32_t(x < high ? x : high));
    } else {
      constexpr From low = -0x1p63, high = sizeof(From) == 4 ? 0x1.fffffep62 : 0x1.fffffffffffffp62;
      if constexpr (same_type<To, uint64_t>)
        if (x >= From(0x1p63)) return x >= From(0x1p64) ? ~uint64_t(0) : uint64_t(int64_t(x - From(0x1p63))) + (uint64_t(1) << 63);
      x = x > low ? x : low;
      return To(int64_t(x < high ? x : high));
    }
  } else {
    return To(x);
  }
}

}  // namespace
}  // namespace fastdl
