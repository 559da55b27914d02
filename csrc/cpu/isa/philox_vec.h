// Philox4x32-10 on vectors: one counter per 32-bit lane, so Vec<int32_t>::size blocks of four words at a time. core/philox.h is the
// reference for one counter and names the paper; both give the same words.
#pragma once
#include "core/philox.h"
#include "cpu/isa/kernel.h"

namespace fastdl {
namespace {

// 4 x size words. As philox_blocks returns them, w[k] holds word k of every block, in the block order described there.
struct Words {
  VecI w[4];
};
constexpr int kBlocks = VecI::size;     // blocks in a Words
constexpr int kWords = 4 * VecI::size;  // words in a Words

// Low and high 32 bits of the unsigned products of all lanes with m; the hardware multiplies even lanes only.
FD_INLINE void multiply_wide(VecI a, uint32_t m, VecI& hi, VecI& lo) {
#if defined(__AVX512F__)
  const __m512i x = (__m512i)a.v, f = _mm512_set1_epi32(int(m));
  const __m512i even = _mm512_mul_epu32(x, f), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), f);
  hi = VecI((VecI::Native)_mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_ENUM(0xf5)));
  lo = VecI((VecI::Native)_mm512_mask_shuffle_epi32(even, 0xaaaa, odd, _MM_PERM_ENUM(0xa0)));
#elif defined(__AVX2__)
  const __m256i x = (__m256i)a.v, f = _mm256_set1_epi32(int(m));
  const __m256i even = _mm256_mul_epu32(x, f), odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), f);
  hi = VecI((VecI::Native)_mm256_blend_epi32(_mm256_shuffle_epi32(even, 0xf5), odd, 0xaa));
  lo = VecI((VecI::Native)_mm256_blend_epi32(even, _mm256_shuffle_epi32(odd, 0xa0), 0xaa));
#elif defined(__SSE4_1__)
  const __m128i x = (__m128i)a.v, f = _mm_set1_epi32(int(m));
  const __m128i even = _mm_mul_epu32(x, f), odd = _mm_mul_epu32(_mm_srli_epi64(x, 32), f);
  hi = VecI((VecI::Native)_mm_blend_epi16(_mm_shuffle_epi32(even, 0xf5), odd, 0xcc));
  lo = VecI((VecI::Native)_mm_blend_epi16(even, _mm_shuffle_epi32(odd, 0xa0), 0xcc));
#else
  for (int i = 0; i < VecI::size; i++) {
    const uint64_t p = uint64_t(uint32_t(a.v[i])) * m;
    hi.v[i] = int32_t(p >> 32);
    lo.v[i] = int32_t(p);
  }
#endif
}

// Interleaving within 128-bit parts: a0 b0 a1 b1 (low) or a2 b2 a3 b3 (high) for 32-bit lanes, the like for pairs of lanes (64
// bits).
#if defined(__x86_64__)
#if defined(__AVX512F__)
#define FD_UNPACK(half, bits) _mm512_unpack##half##_epi##bits((__m512i)a.v, (__m512i)b.v)
#elif defined(__AVX2__)
#define FD_UNPACK(half, bits) _mm256_unpack##half##_epi##bits((__m256i)a.v, (__m256i)b.v)
#else
#define FD_UNPACK(half, bits) _mm_unpack##half##_epi##bits((__m128i)a.v, (__m128i)b.v)
#endif
FD_INLINE VecI unpack_low32(VecI a, VecI b) { return VecI((VecI::Native)FD_UNPACK(lo, 32)); }
FD_INLINE VecI unpack_high32(VecI a, VecI b) { return VecI((VecI::Native)FD_UNPACK(hi, 32)); }
FD_INLINE VecI unpack_low64(VecI a, VecI b) { return VecI((VecI::Native)FD_UNPACK(lo, 64)); }
FD_INLINE VecI unpack_high64(VecI a, VecI b) { return VecI((VecI::Native)FD_UNPACK(hi, 64)); }
#undef FD_UNPACK
#else
template <int i0, int i1, int i2, int i3>  // lane of a, or 4 + lane of b, within each part
FD_INLINE VecI pick(VecI a, VecI b) {
  VecI r;
  for (int p = 0; p < VecI::size; p += 4) {
    const int32_t t[8] = {a.v[p], a.v[p + 1], a.v[p + 2], a.v[p + 3], b.v[p], b.v[p + 1], b.v[p + 2], b.v[p + 3]};
    r.v[p] = t[i0], r.v[p + 1] = t[i1], r.v[p + 2] = t[i2], r.v[p + 3] = t[i3];
  }
  return r;
}
FD_INLINE VecI unpack_low32(VecI a, VecI b) { return pick<0, 4, 1, 5>(a, b); }
FD_INLINE VecI unpack_high32(VecI a, VecI b) { return pick<2, 6, 3, 7>(a, b); }
FD_INLINE VecI unpack_low64(VecI a, VecI b) { return pick<0, 1, 4, 5>(a, b); }
FD_INLINE VecI unpack_high64(VecI a, VecI b) { return pick<2, 3, 6, 7>(a, b); }
#endif

// Word k of blocks counter, counter + 1, ..., in w[k]. Lane i of part l holds block l + i * parts: with this order the in-part
// interleaving of sequence() below yields the blocks one after the other in memory.
FD_INLINE Words philox_blocks(uint64_t counter, uint64_t key) {
  constexpr int parts = VecI::size / 4;
  VecI order;
  for (int lane = 0; lane < VecI::size; lane++) order.v[lane] = lane / 4 + lane % 4 * parts;
  const VecI sign = INT32_MIN, low = int32_t(counter);
  VecI c0 = low + order,
       c1 = VecI(int32_t(counter >> 32)) - ((c0 ^ sign) < (low ^ sign));  // the comparison gives -1 where c0 wrapped
  VecI c2(0), c3(0);
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; round++, k0 += kPhiloxW0, k1 += kPhiloxW1) {
    VecI hi0, lo0, hi1, lo1;
    multiply_wide(c0, kPhiloxM0, hi0, lo0);
    multiply_wide(c2, kPhiloxM1, hi1, lo1);
    c0 = hi1 ^ c1 ^ VecI(int32_t(k0));
    c1 = lo1;
    c2 = hi0 ^ c3 ^ VecI(int32_t(k1));
    c3 = lo0;
  }
  return {{c0, c1, c2, c3}};
}

// From word-by-word to the order of elements: word 0 1 2 3 of the first block, then of the second, ...
FD_INLINE Words sequence(const Words& b) {
  const VecI l01 = unpack_low32(b.w[0], b.w[1]), l23 = unpack_low32(b.w[2], b.w[3]);
  const VecI h01 = unpack_high32(b.w[0], b.w[1]), h23 = unpack_high32(b.w[2], b.w[3]);
  return {{unpack_low64(l01, l23), unpack_high64(l01, l23), unpack_low64(h01, h23), unpack_high64(h01, h23)}};
}

}  // namespace
}  // namespace fastdl
