// AVX-512 and AMX in software, for tests: kernels of the two highest rows of cmake/isa.cmake on a machine that has AVX2 only. With
// FASTDL_EMULATE_ISA=ON the compiler reads this file before every kernel file and compiles for AVX2: the feature macros are defined
// here, and the intrinsics that kernels use mean the functions below. Values are those of the instructions (Intel's Architecture
// Instruction Set Extensions Programming Reference); lanes outside a mask are not touched, and what must be aligned is checked.
// isa/tiles_amx.h has the instructions of tiles on top of this.
//
// Vectors are GCC's, of 64 bytes, of which the compiler makes two of 32: products and sums are contracted as they would be.
#pragma once
#include <immintrin.h>

#include <cstdint>

#define FASTDL_EMULATE_ISA 1
#define __AVX512F__ 1
#define __AVX512BW__ 1
#define __AVX512VL__ 1
#if defined(FASTDL_EMULATE_AMX)
#define __AMX_BF16__ 1
#endif

namespace fastdl {
namespace {
namespace emu {

#define FD_EMU static inline __attribute__((always_inline, unused))

typedef float F16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));
typedef uint32_t U16 __attribute__((vector_size(64)));
typedef uint64_t U8 __attribute__((vector_size(64)));
typedef uint16_t U32 __attribute__((vector_size(64)));

// f(lane) for each of n lanes of a vector of V.
template <class V, class F>
FD_EMU V lanes(int n, F f) {
  V r;
  for (int i = 0; i < n; i++) r[i] = f(i);
  return r;
}

template <class P>
FD_EMU P aligned(P p) {
  if (reinterpret_cast<uintptr_t>(p) % 64) __builtin_trap();  // a fault of protection on the machine
  return p;
}
template <class V>
FD_EMU V read(const void* p) {
  V r;
  __builtin_memcpy(&r, p, sizeof r);
  return r;
}
template <class V>
FD_EMU void write(void* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}
// Only the lanes of the mask; the others are 0, or stay as they were.
template <class V, class T>
FD_EMU V read_lanes(uint64_t mask, const void* p) {
  constexpr int n = sizeof(V) / sizeof(T);
  constexpr uint64_t all = (uint64_t(1) << n) - 1;
  if ((mask & all) == all) return read<V>(p);
  alignas(64) T r[n] = {};
  for (int i = 0; i < n; i++)
    if (mask >> i & 1) __builtin_memcpy(&r[i], static_cast<const T*>(p) + i, sizeof(T));
  return read<V>(r);
}
template <class T, class V>
FD_EMU void write_lanes(void* p, uint64_t mask, V v) {
  constexpr int n = sizeof(V) / sizeof(T);
  constexpr uint64_t all = (uint64_t(1) << n) - 1;
  if ((mask & all) == all) return write(p, v);
  alignas(64) T r[n];
  write(r, v);
  for (int i = 0; i < n; i++)
    if (mask >> i & 1) __builtin_memcpy(static_cast<T*>(p) + i, &r[i], sizeof(T));
}
template <class F>
FD_EMU uint32_t mask_of(F f) {
  uint32_t r = 0;
  for (int i = 0; i < 16; i++) r |= uint32_t(f(i)) << i;
  return r;
}

// Halves of 32 bytes, by the instructions of AVX2.
FD_EMU __m256 low(__m512 a) { return read<__m256>(&a); }
FD_EMU __m256 high(__m512 a) { return read<__m256>(reinterpret_cast<const char*>(&a) + 32); }
FD_EMU __m512 join(__m256 a, __m256 b) {
  const __m256 r[2] = {a, b};
  return read<__m512>(r);
}
FD_EMU __m256d low(__m512d a) { return read<__m256d>(&a); }
FD_EMU __m256d high(__m512d a) { return read<__m256d>(reinterpret_cast<const char*>(&a) + 32); }
FD_EMU __m512d join(__m256d a, __m256d b) {
  const __m256d r[2] = {a, b};
  return read<__m512d>(r);
}
FD_EMU __m256i low(__m512i a) { return read<__m256i>(&a); }
FD_EMU __m256i high(__m512i a) { return read<__m256i>(reinterpret_cast<const char*>(&a) + 32); }
FD_EMU __m512i join(__m256i a, __m256i b) {
  const __m256i r[2] = {a, b};
  return read<__m512i>(r);
}

// ---- memory ----------------------------------------------------------------------------------------------------------
FD_EMU __m512 loadu_ps(const void* p) { return read<__m512>(p); }
FD_EMU __m512 load_ps(const void* p) { return read<__m512>(aligned(p)); }
FD_EMU void store_ps(void* p, __m512 a) { write(aligned(p), a); }
FD_EMU __m512i loadu_si512(const void* p) { return read<__m512i>(p); }
FD_EMU __m512i load_si512(const void* p) { return read<__m512i>(aligned(p)); }
FD_EMU void store_si512(void* p, __m512i a) { write(aligned(p), a); }
FD_EMU __m512 maskz_loadu_ps(__mmask16 m, const void* p) { return read_lanes<__m512, float>(m, p); }
FD_EMU __m512i maskz_loadu_epi64(__mmask8 m, const void* p) { return read_lanes<__m512i, int64_t>(m, p); }
FD_EMU __m512i maskz_loadu_epi32(__mmask16 m, const void* p) { return read_lanes<__m512i, int32_t>(m, p); }
FD_EMU __m512i maskz_loadu_epi16(__mmask32 m, const void* p) { return read_lanes<__m512i, int16_t>(m, p); }
FD_EMU __m256i maskz_loadu_256_epi16(__mmask16 m, const void* p) { return read_lanes<__m256i, int16_t>(m, p); }
FD_EMU void mask_storeu_ps(void* p, __mmask16 m, __m512 a) { write_lanes<float>(p, m, a); }
FD_EMU void mask_storeu_epi64(void* p, __mmask8 m, __m512i a) { write_lanes<int64_t>(p, m, a); }
FD_EMU void mask_storeu_epi32(void* p, __mmask16 m, __m512i a) { write_lanes<int32_t>(p, m, a); }
FD_EMU void mask_storeu_epi16(void* p, __mmask32 m, __m512i a) { write_lanes<int16_t>(p, m, a); }
FD_EMU void mask_storeu_256_epi16(void* p, __mmask16 m, __m256i a) { write_lanes<int16_t>(p, m, a); }

// ---- places of lanes ---------------------------------------------------------------------------------------------------
FD_EMU __m512 castps128_ps512(__m128 a) {
  __m512 r = {};
  __builtin_memcpy(&r, &a, sizeof a);
  return r;
}
FD_EMU __m512 insertf32x4(__m512 a, __m128 b, int at) {
  __builtin_memcpy(reinterpret_cast<char*>(&a) + 16 * at, &b, sizeof b);
  return a;
}
// f(lane, words of a, words of b) for every word, or every four bytes, of the result. Through memory: the compiler would write the
// whole vector for every lane that it takes.
template <class T, class F>
FD_EMU __m512i pick(__m512i a, __m512i b, F f) {
  constexpr int n = 64 / sizeof(T);
  alignas(64) T from[2][n], to[n];
  write(from[0], a), write(from[1], b);
  for (int i = 0; i < n; i++) to[i] = f(i, from[0], from[1]);
  return read<__m512i>(to);
}
FD_EMU __m512i permutex2var_epi16(__m512i a, __m512i index, __m512i b) {
  alignas(64) uint16_t at[32];
  write(at, index);
  return pick<uint16_t>(a, b, [&](int i, const uint16_t* x, const uint16_t* y) { return (at[i] & 32 ? y : x)[at[i] & 31]; });
}
FD_EMU __m512i permutexvar_epi16(__m512i index, __m512i a) { return permutex2var_epi16(a, index, a); }
FD_EMU __m512i mask_blend_epi16(__mmask32 m, __m512i a, __m512i b) {
  return pick<uint16_t>(a, b, [&](int i, const uint16_t* x, const uint16_t* y) { return m >> i & 1 ? y[i] : x[i]; });
}
FD_EMU __m512i mask_shuffle_epi32(__m512i other, __mmask16 m, __m512i a, int order) {
  return pick<uint32_t>(other, a, [&](int i, const uint32_t* x, const uint32_t* y) {
    return m >> i & 1 ? y[(i & ~3) + (order >> 2 * (i & 3) & 3)] : x[i];
  });
}
template <class... Words>
FD_EMU __m512i set_epi16(Words... words) {  // highest lane first
  const short high_first[] = {short(words)...};
  return (__m512i)lanes<U32>(32, [&](int i) { return uint16_t(high_first[31 - i]); });
}

#define FD_EMU_HALVES(name, f, V) \
  FD_EMU V name(V a, V b) { return join(f(low(a), low(b)), f(high(a), high(b))); }
FD_EMU_HALVES(unpacklo_ps, _mm256_unpacklo_ps, __m512)
FD_EMU_HALVES(unpackhi_ps, _mm256_unpackhi_ps, __m512)
FD_EMU_HALVES(unpacklo_pd, _mm256_unpacklo_pd, __m512d)
FD_EMU_HALVES(unpackhi_pd, _mm256_unpackhi_pd, __m512d)
FD_EMU_HALVES(unpacklo_epi32, _mm256_unpacklo_epi32, __m512i)
FD_EMU_HALVES(unpackhi_epi32, _mm256_unpackhi_epi32, __m512i)
FD_EMU_HALVES(unpacklo_epi64, _mm256_unpacklo_epi64, __m512i)
FD_EMU_HALVES(unpackhi_epi64, _mm256_unpackhi_epi64, __m512i)
FD_EMU __m512 castps256_ps512(__m256 a) { return join(a, __m256{}); }
FD_EMU __m256 extractf32x8_ps(__m512 a, int at) { return at ? high(a) : low(a); }
FD_EMU __m512 insertf32x8(__m512 a, __m256 b, int at) { return at ? join(low(a), b) : join(b, high(a)); }

// ---- arithmetic --------------------------------------------------------------------------------------------------------
FD_EMU __m512 setzero_ps() { return __m512{}; }
FD_EMU __m512i setzero_si512() { return __m512i{}; }
FD_EMU __m512i set1_epi32(int32_t x) { return (__m512i)(x - I16{}); }
FD_EMU __m512i castps_si512(__m512 a) { return (__m512i)a; }
FD_EMU __m512 castsi512_ps(__m512i a) { return (__m512)a; }
FD_EMU __m512 add_ps(__m512 a, __m512 b) { return a + b; }
FD_EMU __m512 sub_ps(__m512 a, __m512 b) { return a - b; }
FD_EMU __m512 fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return join(_mm256_fmadd_ps(low(a), low(b), low(c)), _mm256_fmadd_ps(high(a), high(b), high(c)));
}
FD_EMU __m512i and_si512(__m512i a, __m512i b) { return a & b; }
FD_EMU __m512i or_si512(__m512i a, __m512i b) { return a | b; }
FD_EMU __m512i add_epi32(__m512i a, __m512i b) { return (__m512i)(U16(a) + U16(b)); }
FD_EMU __m512i sub_epi32(__m512i a, __m512i b) { return (__m512i)(U16(a) - U16(b)); }
FD_EMU __m512i slli_epi32(__m512i a, int n) { return (__m512i)(U16(a) << n); }
FD_EMU __m512i srli_epi32(__m512i a, int n) { return (__m512i)(U16(a) >> n); }
FD_EMU __m512i srli_epi64(__m512i a, int n) { return (__m512i)(U8(a) >> n); }
FD_EMU_HALVES(max_ps, _mm256_max_ps, __m512)
FD_EMU_HALVES(min_ps, _mm256_min_ps, __m512)
FD_EMU_HALVES(max_pd, _mm256_max_pd, __m512d)
FD_EMU_HALVES(min_pd, _mm256_min_pd, __m512d)
FD_EMU_HALVES(max_epu32, _mm256_max_epu32, __m512i)
FD_EMU_HALVES(mul_epu32, _mm256_mul_epu32, __m512i)
FD_EMU __m512 sqrt_ps(__m512 a) { return join(_mm256_sqrt_ps(low(a)), _mm256_sqrt_ps(high(a))); }
FD_EMU __m512d sqrt_pd(__m512d a) { return join(_mm256_sqrt_pd(low(a)), _mm256_sqrt_pd(high(a))); }
FD_EMU __mmask16 cmplt_epu32_mask(__m512i a, __m512i b) {
  return __mmask16(mask_of([&](int i) { return U16(a)[i] < U16(b)[i]; }));
}
FD_EMU __mmask16 test_epi32_mask(__m512i a, __m512i b) {
  return __mmask16(mask_of([&](int i) { return (U16(a)[i] & U16(b)[i]) != 0; }));
}
FD_EMU __mmask16 testn_epi32_mask(__m512i a, __m512i b) { return __mmask16(~test_epi32_mask(a, b)); }
FD_EMU uint32_t reduce_max_epu32(__m512i a) {
  uint32_t r = 0;
  for (int i = 0; i < 16; i++) r = U16(a)[i] > r ? U16(a)[i] : r;
  return r;
}
FD_EMU __m512i ternarylogic_epi32(__m512i a, __m512i b, __m512i c, int table) {  // bit abc of the table, for every bit
  __m512i r = {};
  for (int k = 0; k < 8; k++)
    if (table >> k & 1) r |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
  return r;
}
template <int mode>
FD_EMU __m512 roundscale_ps(__m512 a) {
  return join(_mm256_round_ps(low(a), mode), _mm256_round_ps(high(a), mode));
}
template <int mode>
FD_EMU __m512d roundscale_pd(__m512d a) {
  return join(_mm256_round_pd(low(a), mode), _mm256_round_pd(high(a), mode));
}

// Such that a number is a fraction in [1, 2) times this power of two; of denormal ones as well.
FD_EMU int exponent_of(float x) { return __builtin_ilogbf(x); }
FD_EMU float scalef(float a, float n) {
  if (n != n) return n;
  return __builtin_scalbnf(a, int(__builtin_floorf(n < -600 ? -600.f : n > 600 ? 600.f : n)));
}
FD_EMU float getexp(float x) {
  return x == 0 ? -__builtin_inff() : x - x != 0 ? x * x : float(exponent_of(x));  // infinity, of either sign, and NaN
}
FD_EMU float getmant(float x) {  // in [3/4, 3/2); NaN for negative numbers
  if (x != x || x < 0) return x != x ? x : -__builtin_nanf("");
  if (x == 0 || x - x != 0) return __builtin_copysignf(1, x);
  const float m = __builtin_scalbnf(x, -exponent_of(x));
  return m >= 1.5f ? m / 2 : m;
}
FD_EMU float rcp14(float x) {  // 1 / x with 14 bits
  const float exact = 1 / x;
  uint32_t bits;
  __builtin_memcpy(&bits, &exact, 4);
  bits &= 0xfffffe00;
  float r;
  __builtin_memcpy(&r, &bits, 4);
  return x != x ? x : r;
}
FD_EMU __m512 scalef_ps(__m512 a, __m512 n) {
  return lanes<F16>(16, [&](int i) { return scalef(a[i], n[i]); });
}
FD_EMU __m512 getexp_ps(__m512 a) {
  return lanes<F16>(16, [&](int i) { return getexp(a[i]); });
}
FD_EMU __m512 getmant_ps(__m512 a, _MM_MANTISSA_NORM_ENUM, _MM_MANTISSA_SIGN_ENUM) {
  return lanes<F16>(16, [&](int i) { return getmant(a[i]); });
}
FD_EMU __m512 rcp14_ps(__m512 a) {
  return lanes<F16>(16, [&](int i) { return rcp14(a[i]); });
}

// ---- other types -------------------------------------------------------------------------------------------------------
FD_EMU __m512d cvtps_pd(__m256 a) {
  return join(_mm256_cvtps_pd(_mm256_castps256_ps128(a)), _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)));
}
FD_EMU __m256 cvtpd_ps(__m512d a) { return _mm256_set_m128(_mm256_cvtpd_ps(high(a)), _mm256_cvtpd_ps(low(a))); }
FD_EMU __m512 cvtph_ps(__m256i h) {
  return join(_mm256_cvtph_ps(_mm256_castsi256_si128(h)), _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1)));
}
FD_EMU __m256i cvtps_ph(__m512 a, int) { return _mm256_set_m128i(_mm256_cvtps_ph(high(a), 0), _mm256_cvtps_ph(low(a), 0)); }
FD_EMU __m512i cvtepu16_epi32(__m256i h) {
  return join(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(h)), _mm256_cvtepu16_epi32(_mm256_extracti128_si256(h, 1)));
}
FD_EMU __m512i cvtepu8_epi32(__m128i a) { return join(_mm256_cvtepu8_epi32(a), _mm256_cvtepu8_epi32(_mm_srli_si128(a, 8))); }
FD_EMU __m512i cvtepu8_epi64(__m128i a) { return join(_mm256_cvtepu8_epi64(a), _mm256_cvtepu8_epi64(_mm_srli_si128(a, 4))); }
template <class V>
FD_EMU __m128i low_bytes(__m512i a) {
  constexpr int n = 64 / int(sizeof(V{}[0]));
  uint8_t r[16] = {};
  for (int i = 0; i < n; i++) r[i] = uint8_t(V(a)[i]);
  return read<__m128i>(r);
}
FD_EMU __m128i cvtepi32_epi8(__m512i a) { return low_bytes<U16>(a); }
FD_EMU __m128i cvtepi64_epi8(__m512i a) { return low_bytes<U8>(a); }
FD_EMU uint16_t nearest_bfloat16(float x) {  // half to even; denormal numbers are zeros, NaN is quiet
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  if (x != x) return uint16_t(bits >> 16 | 0x40);
  if (!(bits & 0x7f800000)) return uint16_t(bits >> 16 & 0x8000);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
FD_EMU __m512i cvtne2ps_pbh(__m512 a, __m512 b) {  // b in the lower half
  return (__m512i)lanes<U32>(32, [&](int i) { return nearest_bfloat16(i < 16 ? b[i] : a[i - 16]); });
}

}  // namespace emu
}  // namespace
}  // namespace fastdl

// The names that kernels use. Not functions with arguments: those may be calls with effects, or contain commas.
#define _mm512_add_ps ::fastdl::emu::add_ps
#define _mm512_sub_ps ::fastdl::emu::sub_ps
#define _mm512_max_ps ::fastdl::emu::max_ps
#define _mm512_min_ps ::fastdl::emu::min_ps
#define _mm512_max_pd ::fastdl::emu::max_pd
#define _mm512_min_pd ::fastdl::emu::min_pd
#define _mm512_fmadd_ps ::fastdl::emu::fmadd_ps
#define _mm512_sqrt_ps ::fastdl::emu::sqrt_ps
#define _mm512_sqrt_pd ::fastdl::emu::sqrt_pd
#define _mm512_scalef_ps ::fastdl::emu::scalef_ps
#define _mm512_getexp_ps ::fastdl::emu::getexp_ps
#define _mm512_getmant_ps ::fastdl::emu::getmant_ps
#define _mm512_rcp14_ps ::fastdl::emu::rcp14_ps
#define _mm512_setzero_ps ::fastdl::emu::setzero_ps
#define _mm512_setzero_si512 ::fastdl::emu::setzero_si512
#define _mm512_set1_epi32 ::fastdl::emu::set1_epi32
#define _mm512_set_epi16 ::fastdl::emu::set_epi16
#define _mm512_and_si512 ::fastdl::emu::and_si512
#define _mm512_or_si512 ::fastdl::emu::or_si512
#define _mm512_ternarylogic_epi32 ::fastdl::emu::ternarylogic_epi32
#define _mm512_add_epi32 ::fastdl::emu::add_epi32
#define _mm512_sub_epi32 ::fastdl::emu::sub_epi32
#define _mm512_slli_epi32 ::fastdl::emu::slli_epi32
#define _mm512_srli_epi32 ::fastdl::emu::srli_epi32
#define _mm512_srli_epi64 ::fastdl::emu::srli_epi64
#define _mm512_mul_epu32 ::fastdl::emu::mul_epu32
#define _mm512_max_epu32 ::fastdl::emu::max_epu32
#define _mm512_reduce_max_epu32 ::fastdl::emu::reduce_max_epu32
#define _mm512_cmplt_epu32_mask ::fastdl::emu::cmplt_epu32_mask
#define _mm512_test_epi32_mask ::fastdl::emu::test_epi32_mask
#define _mm512_testn_epi32_mask ::fastdl::emu::testn_epi32_mask
#define _mm512_loadu_ps ::fastdl::emu::loadu_ps
#define _mm512_load_ps ::fastdl::emu::load_ps
#define _mm512_store_ps ::fastdl::emu::store_ps
#define _mm512_loadu_si512 ::fastdl::emu::loadu_si512
#define _mm512_load_si512 ::fastdl::emu::load_si512
#define _mm512_store_si512 ::fastdl::emu::store_si512
#define _mm512_maskz_loadu_ps ::fastdl::emu::maskz_loadu_ps
#define _mm512_maskz_loadu_epi64 ::fastdl::emu::maskz_loadu_epi64
#define _mm512_maskz_loadu_epi32 ::fastdl::emu::maskz_loadu_epi32
#define _mm512_maskz_loadu_epi16 ::fastdl::emu::maskz_loadu_epi16
#define _mm512_mask_storeu_ps ::fastdl::emu::mask_storeu_ps
#define _mm512_mask_storeu_epi64 ::fastdl::emu::mask_storeu_epi64
#define _mm512_mask_storeu_epi32 ::fastdl::emu::mask_storeu_epi32
#define _mm512_mask_storeu_epi16 ::fastdl::emu::mask_storeu_epi16
#define _mm512_castps_si512 ::fastdl::emu::castps_si512
#define _mm512_castsi512_ps ::fastdl::emu::castsi512_ps
#define _mm512_castps128_ps512 ::fastdl::emu::castps128_ps512
#define _mm512_castps256_ps512 ::fastdl::emu::castps256_ps512
#define _mm512_extractf32x8_ps ::fastdl::emu::extractf32x8_ps
#define _mm512_insertf32x8 ::fastdl::emu::insertf32x8
#define _mm512_insertf32x4 ::fastdl::emu::insertf32x4
#define _mm512_unpacklo_ps ::fastdl::emu::unpacklo_ps
#define _mm512_unpackhi_ps ::fastdl::emu::unpackhi_ps
#define _mm512_unpacklo_pd ::fastdl::emu::unpacklo_pd
#define _mm512_unpackhi_pd ::fastdl::emu::unpackhi_pd
#define _mm512_unpacklo_epi32 ::fastdl::emu::unpacklo_epi32
#define _mm512_unpackhi_epi32 ::fastdl::emu::unpackhi_epi32
#define _mm512_unpacklo_epi64 ::fastdl::emu::unpacklo_epi64
#define _mm512_unpackhi_epi64 ::fastdl::emu::unpackhi_epi64
#define _mm512_permutexvar_epi16 ::fastdl::emu::permutexvar_epi16
#define _mm512_permutex2var_epi16 ::fastdl::emu::permutex2var_epi16
#define _mm512_mask_blend_epi16 ::fastdl::emu::mask_blend_epi16
#define _mm512_mask_shuffle_epi32 ::fastdl::emu::mask_shuffle_epi32
#define _mm512_cvtps_pd ::fastdl::emu::cvtps_pd
#define _mm512_cvtpd_ps ::fastdl::emu::cvtpd_ps
#define _mm512_cvtph_ps ::fastdl::emu::cvtph_ps
#define _mm512_cvtps_ph ::fastdl::emu::cvtps_ph
#define _mm512_cvtepu16_epi32 ::fastdl::emu::cvtepu16_epi32
#define _mm512_cvtepu8_epi32 ::fastdl::emu::cvtepu8_epi32
#define _mm512_cvtepu8_epi64 ::fastdl::emu::cvtepu8_epi64
#define _mm512_cvtepi32_epi8 ::fastdl::emu::cvtepi32_epi8
#define _mm512_cvtepi64_epi8 ::fastdl::emu::cvtepi64_epi8
#define _mm512_cvtne2ps_pbh ::fastdl::emu::cvtne2ps_pbh
#define _mm512_stream_ps ::fastdl::emu::store_ps
#define _mm512_stream_si512 ::fastdl::emu::store_si512
#define _mm512_castps512_ps256 ::fastdl::emu::low
#define _mm256_maskz_loadu_epi16 ::fastdl::emu::maskz_loadu_256_epi16
#define _mm256_mask_storeu_epi16 ::fastdl::emu::mask_storeu_256_epi16
#define _mm512_roundscale_ps(a, mode) ::fastdl::emu::roundscale_ps<mode>(a)  // the mode is part of the instruction
#define _mm512_roundscale_pd(a, mode) ::fastdl::emu::roundscale_pd<mode>(a)
