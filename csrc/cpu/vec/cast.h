// Casts of contiguous blocks between any two element types, by loops that the compiler vectorises; 16-bit floats by way of float;
// one value: math/cast.h.
#pragma once
#include "cpu/vec/convert.h"
#include "math/cast.h"

namespace fastdl {
namespace {

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
