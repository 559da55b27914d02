// Casts of contiguous blocks between any two element types, by loops that the compiler vectorises; 16-bit floats by way of float.
// NumPy's astype rules:
//   to bool          x != 0 (NaN is true)
//   float -> int     truncates. Where the value does not fit NumPy leaves the result open; here it is what x86 gives in most cases,
//                    but never undefined: targets of up to 32 signed bits saturate to 32 bits, then wrap; the others saturate;
//                    NaN becomes the smallest value
//   complex -> real  drops the imaginary part
//   -> bf16, f16     rounds to nearest even, once; NaN stays NaN
#pragma once
#include "cpu/vec/convert.h"

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

// double -> float rounded to odd: a later rounding to half the bits is then as if done once (Boldo & Melquiond 2008).
FD_INLINE float to_odd_float(double x) {
  const float f = float(x);
  uint32_t u;
  __builtin_memcpy(&u, &f, sizeof u);
  const double back = f;
  if (x == x && back != x) u = (u - (__builtin_fabs(back) > __builtin_fabs(x))) | 1u;
  float r;
  __builtin_memcpy(&r, &u, sizeof r);
  return r;
}

// One value; neither type is a 16-bit float.
template <class To, class From>
FD_INLINE To convert(From x) {
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

using CastFn = void (*)(void* out, const void* in, int64_t n);

template <class To, class From>
void cast_block(void* out_, const void* in_, int64_t n) {
  To* out = static_cast<To*>(out_);
  const From* in = static_cast<const From*>(in_);
  constexpr int kW = VecF::size, kStage = 256;
  if constexpr (same_type<To, From>) {
    __builtin_memcpy(out, in, n * sizeof(To));
  } else if constexpr ((is_16bit_float<From> && same_type<To, float>) || (is_16bit_float<To> && same_type<From, float>)) {
    int64_t i = 0;
    for (; i + kW <= n; i += kW) store_narrow(out + i, load_wide(in + i));
    if (i < n) store_narrow_partial(out + i, load_wide_partial(in + i, int(n - i)), int(n - i));
  } else if constexpr (is_16bit_float<From> || is_16bit_float<To>) {
    float stage[kStage];
    for (int64_t i = 0; i < n; i += kStage) {
      const int64_t m = n - i < kStage ? n - i : kStage;
      if constexpr (is_16bit_float<To> && same_type<From, double>)
        for (int64_t k = 0; k < m; k++) stage[k] = to_odd_float(in[i + k]);
      else
        cast_block<float, From>(stage, in + i, m);
      cast_block<To, float>(out + i, stage, m);
    }
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) out[i] = convert<To>(in[i]);
  }
}

// b < u, i < f < c: promotion never goes down.
constexpr int kind_rank(char k) { return k == 'b' ? 0 : k == 'f' ? 2 : k == 'c' ? 3 : 1; }

// The cast from a dtype to To, as promotion needs it; nullptr where that would go down in kind (copy.cpp has those too).
template <class To>
inline CastFn cast_up_to(DType from) {
  constexpr int rank = kind_rank(kind(dtype_of<To>()));
  switch (from) {
#define FD_DTYPE(name, type, bytes, letter, numpy)                        \
  case DType::name:                                                       \
    if constexpr (kind_rank(letter) <= rank) return cast_block<To, type>; \
    break;
#include "dtypes.def"
  }
  return nullptr;
}
// The cast from From to a dtype; unless `down`, only to the same or a higher kind (what out= may ask of a result).
template <class From, bool down = false>
inline CastFn cast_from(DType to) {
  constexpr int rank = kind_rank(kind(dtype_of<From>()));
  if constexpr (rank <= 1) {  // an integer becomes a signed one by the same bits as an unsigned one
    switch (to) {
      case DType::int8:
        return cast_block<uint8_t, From>;
      case DType::int16:
        return cast_block<uint16_t, From>;
      case DType::int32:
        return cast_block<uint32_t, From>;
      case DType::int64:
        return cast_block<uint64_t, From>;
      default:
        break;
    }
  }
  switch (to) {
#define FD_DTYPE(name, type, bytes, letter, numpy)                                                                     \
  case DType::name:                                                                                                    \
    if constexpr ((down || kind_rank(letter) >= rank) && !(rank <= 1 && letter == 'i')) return cast_block<type, From>; \
    break;
#include "dtypes.def"
  }
  return nullptr;
}

}  // namespace
}  // namespace fastdl
