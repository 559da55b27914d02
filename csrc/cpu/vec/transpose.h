// Transposes of square blocks, Vec<T>::size elements on a side, in registers.
//
// A vector is filled 16 bytes at a time from rows 4 (2 for double) apart, which costs load slots but no shuffles; what is left are
// 4x4 (2x2) transposes inside each 16-byte lane. That halves the shuffles of the plain butterfly, and shuffles are the bottleneck.
#pragma once
#include "cpu/vec/interleave.h"

namespace fastdl {
namespace {

// Lane l of the result = the 16 bytes at p + l * step elements.
template <class T>
FD_INLINE Vec<T> load_lanes(const T* p, int64_t step) {
#if defined(__AVX512F__)
  __m512 r = _mm512_castps128_ps512(_mm_loadu_ps(reinterpret_cast<const float*>(p)));
  r = _mm512_insertf32x4(r, _mm_loadu_ps(reinterpret_cast<const float*>(p + step)), 1);
  r = _mm512_insertf32x4(r, _mm_loadu_ps(reinterpret_cast<const float*>(p + 2 * step)), 2);
  r = _mm512_insertf32x4(r, _mm_loadu_ps(reinterpret_cast<const float*>(p + 3 * step)), 3);
  return Vec<T>((typename Vec<T>::Native)r);
#elif defined(__AVX2__)
  __m256 r = _mm256_castps128_ps256(_mm_loadu_ps(reinterpret_cast<const float*>(p)));
  r = _mm256_insertf128_ps(r, _mm_loadu_ps(reinterpret_cast<const float*>(p + step)), 1);
  return Vec<T>((typename Vec<T>::Native)r);
#else
  (void)step;
  return load(p);
#endif
}

// Low and high halves of each 16-byte lane, interleaved.
#if defined(__AVX512F__)
FD_INLINE VecD unpack_lo(VecD a, VecD b) { return VecD((VecD::Native)_mm512_unpacklo_pd((__m512d)a.v, (__m512d)b.v)); }
FD_INLINE VecD unpack_hi(VecD a, VecD b) { return VecD((VecD::Native)_mm512_unpackhi_pd((__m512d)a.v, (__m512d)b.v)); }
FD_INLINE VecF unpack_lo(VecF a, VecF b) { return VecF((VecF::Native)_mm512_unpacklo_ps((__m512)a.v, (__m512)b.v)); }
FD_INLINE VecF unpack_hi(VecF a, VecF b) { return VecF((VecF::Native)_mm512_unpackhi_ps((__m512)a.v, (__m512)b.v)); }
#elif defined(__AVX2__)
FD_INLINE VecD unpack_lo(VecD a, VecD b) { return VecD((VecD::Native)_mm256_unpacklo_pd((__m256d)a.v, (__m256d)b.v)); }
FD_INLINE VecD unpack_hi(VecD a, VecD b) { return VecD((VecD::Native)_mm256_unpackhi_pd((__m256d)a.v, (__m256d)b.v)); }
FD_INLINE VecF unpack_lo(VecF a, VecF b) { return VecF((VecF::Native)_mm256_unpacklo_ps((__m256)a.v, (__m256)b.v)); }
FD_INLINE VecF unpack_hi(VecF a, VecF b) { return VecF((VecF::Native)_mm256_unpackhi_ps((__m256)a.v, (__m256)b.v)); }
#else
typedef int32_t Pick4 __attribute__((vector_size(16)));
typedef int64_t Pick2 __attribute__((vector_size(16)));
FD_INLINE VecD unpack_lo(VecD a, VecD b) { return __builtin_shuffle(a.v, b.v, Pick2{0, 2}); }
FD_INLINE VecD unpack_hi(VecD a, VecD b) { return __builtin_shuffle(a.v, b.v, Pick2{1, 3}); }
FD_INLINE VecF unpack_lo(VecF a, VecF b) { return __builtin_shuffle(a.v, b.v, Pick4{0, 4, 1, 5}); }
FD_INLINE VecF unpack_hi(VecF a, VecF b) { return __builtin_shuffle(a.v, b.v, Pick4{2, 6, 3, 7}); }
#endif

// dst[j * dst_row + i] = src[i * src_row + j] for i, j < Vec<T>::size.
FD_INLINE void transpose_square(const float* src, int64_t src_row, float* dst, int64_t dst_row) {
#pragma GCC unroll 4
  for (int c = 0; c < VecF::size / 4; c++) {
    const float* p = src + 4 * c;
    const VecF r0 = load_lanes(p, 4 * src_row), r1 = load_lanes(p + src_row, 4 * src_row);
    const VecF r2 = load_lanes(p + 2 * src_row, 4 * src_row), r3 = load_lanes(p + 3 * src_row, 4 * src_row);
    const VecD a = bit_cast<double>(unpack_lo(r0, r1)), b = bit_cast<double>(unpack_lo(r2, r3));
    const VecD e = bit_cast<double>(unpack_hi(r0, r1)), f = bit_cast<double>(unpack_hi(r2, r3));
    float* q = dst + 4 * c * dst_row;
    store(q, bit_cast<float>(unpack_lo(a, b)));
    store(q + dst_row, bit_cast<float>(unpack_hi(a, b)));
    store(q + 2 * dst_row, bit_cast<float>(unpack_lo(e, f)));
    store(q + 3 * dst_row, bit_cast<float>(unpack_hi(e, f)));
  }
}
FD_INLINE void transpose_square(const double* src, int64_t src_row, double* dst, int64_t dst_row) {
#pragma GCC unroll 4
  for (int c = 0; c < VecD::size / 2; c++) {
    const VecD r0 = load_lanes(src + 2 * c, 2 * src_row), r1 = load_lanes(src + 2 * c + src_row, 2 * src_row);
    store(dst + 2 * c * dst_row, unpack_lo(r0, r1));
    store(dst + (2 * c + 1) * dst_row, unpack_hi(r0, r1));
  }
}

// dst[j * dst_row + i] = src[i * src_row + j] for i, j < side, a multiple of the vector length.
template <int side, class T>
FD_INLINE void transpose_whole(const T* src, int64_t src_row, T* dst, int64_t dst_row) {
  constexpr int lanes = Vec<T>::size;
  static_assert(side % lanes == 0, "whole squares");
  for (int i = 0; i < side; i += lanes)
    for (int j = 0; j < side; j += lanes) transpose_square(src + i * src_row + j, src_row, dst + j * dst_row + i, dst_row);
}

// The same for i < rows, j < cols: in squares, the last of which along a side may do some elements once more.
template <class T>
inline void transpose(const T* src, int64_t src_row, T* dst, int64_t dst_row, int64_t rows, int64_t cols) {
  constexpr int64_t lanes = Vec<T>::size;
  const int64_t high = rows < lanes ? rows : lanes, wide = cols < lanes ? cols : lanes;
  for (int64_t r = 0; r < rows; r += lanes)
    for (int64_t c = 0; c < cols; c += lanes) {
      const int64_t i = r < rows - high ? r : rows - high, j = c < cols - wide ? c : cols - wide;
      const T* from = src + i * src_row + j;
      T* to = dst + j * dst_row + i;
      if (high == lanes && wide == lanes) {
        transpose_square(from, src_row, to, dst_row);
        continue;
      }
      Vec<T> square[lanes];
#pragma GCC unroll 16
      for (int64_t k = 0; k < lanes; k++) square[k] = k < high ? load_partial(from + k * src_row, int(wide)) : Vec<T>(T(0));
      transpose_rows(square);
#pragma GCC unroll 16
      for (int64_t k = 0; k < lanes; k++)
        if (k < wide) store_partial(to + k * dst_row, square[k], int(high));
    }
}

}  // namespace
}  // namespace fastdl
