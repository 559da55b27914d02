// 16-bit floats in kernels: load_wide / store_narrow read and write T as WideOf<T> (float for f16 and bf16, else T itself), so that
// one template serves storage in float, double, f16 and bf16. Rounding is to nearest even; NaN stays NaN.
#pragma once
#include "core/dtype.h"
#include "cpu/vec/vec.h"

namespace fastdl {
namespace {

template <class T>
struct Wide {
  using type = T;
};
template <>
struct Wide<f16> {
  using type = float;
};
template <>
struct Wide<bf16> {
  using type = float;
};
template <class T>
using WideOf = typename Wide<T>::type;

// Lanes of 16 bits beside one VecI: Half for the bits, widened and narrowed without change of value.
typedef uint16_t Half __attribute__((vector_size(FD_VEC_BYTES / 2)));
FD_INLINE VecI from_half(Half h) {
#if defined(__AVX512F__)  // GCC 12 splits the conversion of whole registers
  return VecI((VecI::Native)_mm512_cvtepu16_epi32((__m256i)h));
#elif defined(__AVX2__)
  return VecI((VecI::Native)_mm256_cvtepu16_epi32((__m128i)h));
#else
  return VecI(__builtin_convertvector(h, VecI::Native));
#endif
}
FD_INLINE Half to_half(VecI a) { return __builtin_convertvector(a.v, Half); }
FD_INLINE VecI logical_shift_right(VecI a, int n) { return (a >> n) & VecI(int32_t(0xffffffffu >> n)); }

FD_INLINE VecF widen(bf16, Half h) { return bit_cast<float>(from_half(h) << 16); }
FD_INLINE Half narrow(bf16, VecF a) {
  const VecI bits = bit_cast<int32_t>(a), high = logical_shift_right(bits, 16);
  const VecI rounded = logical_shift_right(bits + VecI(0x7fff) + (high & VecI(1)), 16);
  return to_half(select(is_nan(a), high | VecI(0x40), rounded));
}

#if defined(__AVX512F__)
FD_INLINE VecF widen(f16, Half h) { return VecF((VecF::Native)_mm512_cvtph_ps((__m256i)h)); }
FD_INLINE Half narrow(f16, VecF a) { return (Half)_mm512_cvtps_ph((__m512)a.v, 0); }
#elif defined(__F16C__)
FD_INLINE VecF widen(f16, Half h) { return VecF((VecF::Native)_mm256_cvtph_ps((__m128i)h)); }
FD_INLINE Half narrow(f16, VecF a) { return (Half)_mm256_cvtps_ph((__m256)a.v, 0); }
#else
// Without the instruction: move the exponent and mantissa fields, and let float addition round what is subnormal in f16. No
// intermediate value is subnormal in float, so flush-to-zero modes do not matter.
FD_INLINE VecF widen(f16, Half h) {
  const VecI bits = from_half(h), sign = (bits & VecI(0x8000)) << 16, magnitude = bits & VecI(0x7fff);
  const VecF tiny = to_float(magnitude) * VecF(0x1p-24f);
  const VecI offset = select(magnitude >= VecI(0x7c00), VecI((255 - 31) << 23), VecI((127 - 15) << 23));
  const VecI normal = (magnitude << 13) + offset;
  return bit_cast<float>(select(magnitude < VecI(0x400), bit_cast<int32_t>(tiny), normal) | sign);
}
FD_INLINE Half narrow(f16, VecF a) {
  const VecI bits = bit_cast<int32_t>(a), magnitude = bits & VecI(0x7fffffff), sign = logical_shift_right(bits, 16) & VecI(0x8000);
  const VecI tiny = bit_cast<int32_t>(bit_cast<float>(magnitude) + VecF(0.5f)) - VecI(126 << 23);  // units of 2^-24
  const VecI odd = (magnitude >> 13) & VecI(1);
  VecI r = (magnitude + VecI(0xfff - ((127 - 15) << 23)) + odd) >> 13;
  r = select(magnitude < VecI(113 << 23), tiny, r);
  r = select(magnitude >= VecI(143 << 23), VecI(0x7c00), r);  // from 65536; values from 65520 carry into infinity by rounding
  r = select(magnitude > VecI(0x7f800000), VecI(0x7e00), r);
  return to_half(r | sign);
}
#endif

template <class T>
FD_INLINE Vec<WideOf<T>> load_wide(const T* p) {
  if constexpr (sizeof(T) != 2) {
    return load(p);
  } else {
    Half h;
    __builtin_memcpy(&h, p, sizeof h);
    return widen(T{}, h);
  }
}
template <class T>
FD_INLINE void store_narrow(T* p, Vec<WideOf<T>> a) {
  if constexpr (sizeof(T) != 2) {
    store(p, a);
  } else {
    const Half h = narrow(T{}, a);
    __builtin_memcpy(p, &h, sizeof h);
  }
}

// First n lanes, 0 <= n <= size; the others read as 0.
template <class T>
FD_INLINE Vec<WideOf<T>> load_wide_partial(const T* p, int n) {
  if constexpr (sizeof(T) != 2) {
    return load_partial(p, n);
  } else {
    Half h = {};
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    h = (Half)_mm256_maskz_loadu_epi16(__mmask16((1u << n) - 1), p);
#else
    for (int i = 0; i < n; i++) h[i] = p[i].bits;
#endif
    return widen(T{}, h);
  }
}
template <class T>
FD_INLINE void store_narrow_partial(T* p, Vec<WideOf<T>> a, int n) {
  if constexpr (sizeof(T) != 2) {
    store_partial(p, a, n);
  } else {
    const Half h = narrow(T{}, a);
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    _mm256_mask_storeu_epi16(p, __mmask16((1u << n) - 1), (__m256i)h);
#else
    for (int i = 0; i < n; i++) p[i].bits = h[i];
#endif
  }
}

// One element.
template <class T>
FD_INLINE WideOf<T> load_wide_one(const T* p) {
  if constexpr (sizeof(T) != 2)
    return *p;
  else
    return load_wide_partial(p, 1)[0];
}
template <class T>
FD_INLINE void store_narrow_one(T* p, WideOf<T> a) {
  if constexpr (sizeof(T) != 2)
    *p = a;
  else
    store_narrow_partial(p, Vec<WideOf<T>>(a), 1);
}

// Lanes of Vec<I> (I = int32_t, int64_t) read from and written to bytes, one byte a lane, values 0 .. 255. GCC 12 takes
// __builtin_convertvector to and from bytes apart lane by lane, hence the intrinsics.
template <class I>
FD_INLINE Vec<I> load_bytes(const uint8_t* p) {
  using N = typename Vec<I>::Native;
#if defined(__AVX512F__)
  if constexpr (sizeof(I) == 4)
    return Vec<I>((N)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)));
  else
    return Vec<I>((N)_mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i*)p)));
#elif defined(__SSE4_1__)
  uint32_t bytes = 0;
#if defined(__AVX2__)
  if constexpr (sizeof(I) == 4) return Vec<I>((N)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)));
  __builtin_memcpy(&bytes, p, Vec<I>::size & 4);
  if constexpr (sizeof(I) == 8) return Vec<I>((N)_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(int(bytes))));
#else
  __builtin_memcpy(&bytes, p, Vec<I>::size);
  if constexpr (sizeof(I) == 4)
    return Vec<I>((N)_mm_cvtepu8_epi32(_mm_cvtsi32_si128(int(bytes))));
  else
    return Vec<I>((N)_mm_cvtepu8_epi64(_mm_cvtsi32_si128(int(bytes))));
#endif
#else
  Vec<I> r;
  for (int i = 0; i < Vec<I>::size; i++) r.v[i] = p[i];
  return r;
#endif
}
template <class I>
FD_INLINE void store_bytes(uint8_t* p, Vec<I> a) {
#if defined(__AVX512F__)
  if constexpr (sizeof(I) == 4)
    _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8((__m512i)a.v));
  else
    _mm_storel_epi64((__m128i*)p, _mm512_cvtepi64_epi8((__m512i)a.v));
#elif defined(__SSE4_1__)
  const __m128i low = sizeof(I) == 4 ? _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1)
                                     : _mm_setr_epi8(0, 8, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  constexpr int half = 16 / sizeof(I);  // lanes of 128 bits
  __m128i parts[FD_VEC_BYTES / 16];
  __builtin_memcpy(parts, &a.v, sizeof parts);
  for (int i = 0; i < FD_VEC_BYTES / 16; i++) {
    const int bytes = _mm_cvtsi128_si32(_mm_shuffle_epi8(parts[i], low));
    __builtin_memcpy(p + i * half, &bytes, half);
  }
#else
  for (int i = 0; i < Vec<I>::size; i++) p[i] = uint8_t(a.v[i]);
#endif
}
template <class I>
FD_INLINE Vec<I> load_bytes_partial(const uint8_t* p, int n) {
  uint8_t b[Vec<I>::size] = {};
  for (int i = 0; i < n; i++) b[i] = p[i];
  return load_bytes<I>(b);
}
template <class I>
FD_INLINE void store_bytes_partial(uint8_t* p, Vec<I> a, int n) {
  uint8_t b[Vec<I>::size];
  store_bytes(b, a);
  for (int i = 0; i < n; i++) p[i] = b[i];
}

}  // namespace
}  // namespace fastdl
