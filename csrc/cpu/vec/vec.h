// Vec<T>: the SIMD type all kernels are written in. One source for every instruction set: GCC/Clang vector extensions carry the
// arithmetic, a few intrinsics the rest. The width follows the compile flags: 64 bytes (AVX-512), 32 (AVX2), 16 (SSE4.2, NEON, any).
//
//   Vec<float> x = load<float>(p), y = x * 2.0f + 1.0f;   store(p, select(x > 0.0f, y, x));
//
// Comparisons give Vec<int of the same width>, all ones or zero per lane, for select(), any(), all() and bit operations.
// Everything has internal linkage: this header is compiled for several instruction sets (see docs/adding-an-isa.md).
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define FD_VEC_BYTES 64
#elif defined(__AVX2__)
#define FD_VEC_BYTES 32
#else
#define FD_VEC_BYTES 16
#endif
#define FD_INLINE inline __attribute__((always_inline))

// Keeps a value as it is, in its register: without, GCC folds a broadcast into the memory operand of each multiply-add that uses it,
// or joins a product with a sum behind it.
#if defined(FASTDL_EMULATE_ISA)
#define FD_KEEP_VECTOR(x) asm("" : "+m"(x))  // wider than registers are
#elif defined(__x86_64__)
#define FD_KEEP_VECTOR(x) asm("" : "+v"(x))
#else
#define FD_KEEP_VECTOR(x) asm("" : "+w"(x))
#endif
#define FD_KEEP_POINTER(x) asm("" : "+r"(x))

namespace fastdl {
namespace {

// Lane<T>: the native vector of T, the one its arithmetic is done in (unsigned for integers, so that they wrap without undefined
// behaviour) and the signed integer of T's width. Spelled out per type: GCC drops vector_size on dependent types.
template <class T> struct Lane;
#define FD_LANE(T, I, W)                                         \
  template <> struct Lane<T> {                                   \
    typedef T Native __attribute__((vector_size(FD_VEC_BYTES))); \
    typedef W Wrap __attribute__((vector_size(FD_VEC_BYTES)));   \
    using Int = I;                                               \
  };
FD_LANE(float, int32_t, float)
FD_LANE(double, int64_t, double)
FD_LANE(int32_t, int32_t, uint32_t)
FD_LANE(int64_t, int64_t, uint64_t)
#undef FD_LANE

template <class T>
struct Vec {
  static constexpr int size = FD_VEC_BYTES / int(sizeof(T));
  using Native = typename Lane<T>::Native;
  using Wrap = typename Lane<T>::Wrap;
  using Int = typename Lane<T>::Int;
  Native v;

  Vec() = default;
  FD_INLINE Vec(Native n) : v(n) {}
  FD_INLINE Vec(T s) : v(s - Native{}) {}  // broadcast; (s - 0) folds to one broadcast, (0 + s) would not

  friend FD_INLINE Vec operator+(Vec a, Vec b) { return Native((Wrap)a.v + (Wrap)b.v); }
  friend FD_INLINE Vec operator-(Vec a, Vec b) { return Native((Wrap)a.v - (Wrap)b.v); }
  friend FD_INLINE Vec operator*(Vec a, Vec b) { return Native((Wrap)a.v * (Wrap)b.v); }
  friend FD_INLINE Vec operator/(Vec a, Vec b) { return a.v / b.v; }
  friend FD_INLINE Vec operator-(Vec a) { return Native(-(Wrap)a.v); }
  friend FD_INLINE Vec<Int> operator<(Vec a, Vec b) { return Vec<Int>((typename Vec<Int>::Native)(a.v < b.v)); }
  friend FD_INLINE Vec<Int> operator<=(Vec a, Vec b) { return Vec<Int>((typename Vec<Int>::Native)(a.v <= b.v)); }
  friend FD_INLINE Vec<Int> operator>(Vec a, Vec b) { return Vec<Int>((typename Vec<Int>::Native)(a.v > b.v)); }
  friend FD_INLINE Vec<Int> operator>=(Vec a, Vec b) { return Vec<Int>((typename Vec<Int>::Native)(a.v >= b.v)); }
  friend FD_INLINE Vec<Int> operator==(Vec a, Vec b) { return Vec<Int>((typename Vec<Int>::Native)(a.v == b.v)); }
  friend FD_INLINE Vec<Int> operator!=(Vec a, Vec b) { return Vec<Int>((typename Vec<Int>::Native)(a.v != b.v)); }
  FD_INLINE Vec& operator+=(Vec b) { return *this = *this + b; }
  FD_INLINE Vec& operator-=(Vec b) { return *this = *this - b; }
  FD_INLINE Vec& operator*=(Vec b) { return *this = *this * b; }
  FD_INLINE T operator[](int i) const { return v[i]; }

  // integers only
  friend FD_INLINE Vec operator&(Vec a, Vec b) { return a.v & b.v; }
  friend FD_INLINE Vec operator|(Vec a, Vec b) { return a.v | b.v; }
  friend FD_INLINE Vec operator^(Vec a, Vec b) { return a.v ^ b.v; }
  friend FD_INLINE Vec operator~(Vec a) { return ~a.v; }
  friend FD_INLINE Vec operator<<(Vec a, int n) { return Native((Wrap)a.v << n); }
  friend FD_INLINE Vec operator>>(Vec a, int n) { return a.v >> n; }  // arithmetic
};
using VecF = Vec<float>;
using VecD = Vec<double>;
using VecI = Vec<int32_t>;
using VecL = Vec<int64_t>;
template <class T> using MaskOf = Vec<typename Lane<T>::Int>;

template <class To, class From>
FD_INLINE Vec<To> bit_cast(Vec<From> a) { return Vec<To>((typename Vec<To>::Native)a.v); }

// ---- memory --------------------------------------------------------------------------------------------------------
template <class T>
FD_INLINE Vec<T> load(const T* p) {  // any alignment
  Vec<T> r;
  __builtin_memcpy(&r.v, p, sizeof r.v);
  return r;
}
template <class T>
FD_INLINE void store(T* p, Vec<T> a) { __builtin_memcpy(p, &a.v, sizeof a.v); }

// First n lanes, 0 <= n <= size; the others read as 0. Never touches memory beyond n elements.
template <class T>
FD_INLINE Vec<T> load_partial(const T* p, int n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return Vec<T>((typename Vec<T>::Native)_mm512_maskz_loadu_epi32(__mmask16((1u << n) - 1), p));
  else return Vec<T>((typename Vec<T>::Native)_mm512_maskz_loadu_epi64(__mmask8((1u << n) - 1), p));
#elif defined(__AVX2__)
  typedef int32_t I8 __attribute__((vector_size(32)));
  typedef int64_t I4 __attribute__((vector_size(32)));
  if constexpr (sizeof(T) == 4) {
    const I8 m = I8{0, 1, 2, 3, 4, 5, 6, 7} < n;
    return Vec<T>((typename Vec<T>::Native)_mm256_maskload_epi32((const int*)p, (__m256i)m));
  } else {
    const I4 m = I4{0, 1, 2, 3} < int64_t(n);
    return Vec<T>((typename Vec<T>::Native)_mm256_maskload_epi64((const long long*)p, (__m256i)m));
  }
#else
  T buf[Vec<T>::size] = {};
  for (int i = 0; i < n; i++) buf[i] = p[i];
  return load(buf);
#endif
}
template <class T>
FD_INLINE void store_partial(T* p, Vec<T> a, int n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) _mm512_mask_storeu_epi32(p, __mmask16((1u << n) - 1), (__m512i)a.v);
  else _mm512_mask_storeu_epi64(p, __mmask8((1u << n) - 1), (__m512i)a.v);
#elif defined(__AVX2__)
  typedef int32_t I8 __attribute__((vector_size(32)));
  typedef int64_t I4 __attribute__((vector_size(32)));
  if constexpr (sizeof(T) == 4) {
    const I8 m = I8{0, 1, 2, 3, 4, 5, 6, 7} < n;
    _mm256_maskstore_epi32((int*)p, (__m256i)m, (__m256i)a.v);
  } else {
    const I4 m = I4{0, 1, 2, 3} < int64_t(n);
    _mm256_maskstore_epi64((long long*)p, (__m256i)m, (__m256i)a.v);
  }
#else
  for (int i = 0; i < n; i++) p[i] = a.v[i];
#endif
}

// ---- lanes ---------------------------------------------------------------------------------------------------------
template <class T>
FD_INLINE Vec<T> select(MaskOf<T> m, Vec<T> a, Vec<T> b) { return Vec<T>(m.v ? a.v : b.v); }
FD_INLINE bool any(VecI m) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)m.v, (__m512i)m.v) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_epi8((__m256i)m.v) != 0;
#else
  int32_t r = 0;
  for (int i = 0; i < VecI::size; i++) r |= m.v[i];
  return r != 0;
#endif
}
FD_INLINE bool any(VecL m) { return any(bit_cast<int32_t>(m)); }
template <class T>
FD_INLINE bool all(Vec<T> m) { return !any(~m); }

template <class T>
FD_INLINE Vec<T> iota() {  // 0, 1, 2, ...
  Vec<T> r;
  for (int i = 0; i < Vec<T>::size; i++) r.v[i] = T(i);
  return r;
}

// Lanes of a then b as one sequence: its even or odd elements; and the inverse, first or second half of a0 b0 a1 b1 ...
template <class T, class Index>
FD_INLINE Vec<T> permute2(Vec<T> a, Vec<T> b, Index index) {  // index(lane): 0 .. size-1 takes from a, size .. 2 size - 1 from b
  typename Vec<typename Vec<T>::Int>::Native m;
  for (int i = 0; i < Vec<T>::size; i++) m[i] = index(i);
#if defined(__clang__)
  Vec<T> r;
  for (int i = 0; i < Vec<T>::size; i++) r.v[i] = m[i] < Vec<T>::size ? a.v[m[i]] : b.v[m[i] - Vec<T>::size];
  return r;
#else
  return Vec<T>(__builtin_shuffle(a.v, b.v, m));
#endif
}
template <class T>
FD_INLINE Vec<T> even_lanes(Vec<T> a, Vec<T> b) { return permute2(a, b, [](int i) { return 2 * i; }); }
template <class T>
FD_INLINE Vec<T> odd_lanes(Vec<T> a, Vec<T> b) { return permute2(a, b, [](int i) { return 2 * i + 1; }); }
template <class T>
FD_INLINE Vec<T> zip_low(Vec<T> a, Vec<T> b) { return permute2(a, b, [](int i) { return i / 2 + i % 2 * Vec<T>::size; }); }
template <class T>
FD_INLINE Vec<T> zip_high(Vec<T> a, Vec<T> b) {
  return permute2(a, b, [](int i) { return (i + Vec<T>::size) / 2 + i % 2 * Vec<T>::size; });
}

// x86 rule: the second operand is returned when either is NaN (and for equal zeros).
template <class T>
FD_INLINE Vec<T> min(Vec<T> a, Vec<T> b) { return select(a < b, a, b); }
template <class T>
FD_INLINE Vec<T> max(Vec<T> a, Vec<T> b) { return select(a > b, a, b); }
// GCC makes a compare and a blend of these, not the one instruction.
#if defined(__AVX512F__)
FD_INLINE VecF min(VecF a, VecF b) { return VecF((VecF::Native)_mm512_min_ps((__m512)a.v, (__m512)b.v)); }
FD_INLINE VecF max(VecF a, VecF b) { return VecF((VecF::Native)_mm512_max_ps((__m512)a.v, (__m512)b.v)); }
FD_INLINE VecD min(VecD a, VecD b) { return VecD((VecD::Native)_mm512_min_pd((__m512d)a.v, (__m512d)b.v)); }
FD_INLINE VecD max(VecD a, VecD b) { return VecD((VecD::Native)_mm512_max_pd((__m512d)a.v, (__m512d)b.v)); }
#elif defined(__AVX2__)
FD_INLINE VecF min(VecF a, VecF b) { return VecF((VecF::Native)_mm256_min_ps((__m256)a.v, (__m256)b.v)); }
FD_INLINE VecF max(VecF a, VecF b) { return VecF((VecF::Native)_mm256_max_ps((__m256)a.v, (__m256)b.v)); }
FD_INLINE VecD min(VecD a, VecD b) { return VecD((VecD::Native)_mm256_min_pd((__m256d)a.v, (__m256d)b.v)); }
FD_INLINE VecD max(VecD a, VecD b) { return VecD((VecD::Native)_mm256_max_pd((__m256d)a.v, (__m256d)b.v)); }
#endif
template <class T>
FD_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) { return Vec<T>(a.v * b.v + c.v); }  // contracted where the ISA has FMA

template <class T>
FD_INLINE Vec<T> abs(Vec<T> a) {
  using I = typename Lane<T>::Int;
  if constexpr (T(0.5) == T(0)) return select(a < Vec<T>(T(0)), -a, a);
  else return bit_cast<T>(bit_cast<I>(a) & Vec<I>(I(~(uint64_t(1) << (8 * sizeof(T) - 1)))));
}
template <class T>
FD_INLINE MaskOf<T> is_nan(Vec<T> a) { return a != a; }

#if defined(__AVX512F__)
FD_INLINE VecF sqrt(VecF a) { return VecF((VecF::Native)_mm512_sqrt_ps((__m512)a.v)); }
FD_INLINE VecD sqrt(VecD a) { return VecD((VecD::Native)_mm512_sqrt_pd((__m512d)a.v)); }
template <int mode> FD_INLINE VecF round_to(VecF a) { return VecF((VecF::Native)_mm512_roundscale_ps((__m512)a.v, mode)); }
template <int mode> FD_INLINE VecD round_to(VecD a) { return VecD((VecD::Native)_mm512_roundscale_pd((__m512d)a.v, mode)); }
#elif defined(__AVX2__)
FD_INLINE VecF sqrt(VecF a) { return VecF((VecF::Native)_mm256_sqrt_ps((__m256)a.v)); }
FD_INLINE VecD sqrt(VecD a) { return VecD((VecD::Native)_mm256_sqrt_pd((__m256d)a.v)); }
template <int mode> FD_INLINE VecF round_to(VecF a) { return VecF((VecF::Native)_mm256_round_ps((__m256)a.v, mode)); }
template <int mode> FD_INLINE VecD round_to(VecD a) { return VecD((VecD::Native)_mm256_round_pd((__m256d)a.v, mode)); }
#elif defined(__SSE4_1__)
FD_INLINE VecF sqrt(VecF a) { return VecF((VecF::Native)_mm_sqrt_ps((__m128)a.v)); }
FD_INLINE VecD sqrt(VecD a) { return VecD((VecD::Native)_mm_sqrt_pd((__m128d)a.v)); }
template <int mode> FD_INLINE VecF round_to(VecF a) { return VecF((VecF::Native)_mm_round_ps((__m128)a.v, mode)); }
template <int mode> FD_INLINE VecD round_to(VecD a) { return VecD((VecD::Native)_mm_round_pd((__m128d)a.v, mode)); }
#else
template <class T> FD_INLINE Vec<T> sqrt(Vec<T> a) {
  for (int i = 0; i < Vec<T>::size; i++) a.v[i] = __builtin_sqrt(a.v[i]);
  return a;
}
template <int mode, class T> FD_INLINE Vec<T> round_to(Vec<T> a) {
  for (int i = 0; i < Vec<T>::size; i++)
    a.v[i] = (mode & 3) == 0 ? __builtin_rint(a.v[i]) : (mode & 3) == 1 ? __builtin_floor(a.v[i]) : (mode & 3) == 2 ? __builtin_ceil(a.v[i]) : __builtin_trunc(a.v[i]);
  return a;
}
#endif
template <class T> FD_INLINE Vec<T> round(Vec<T> a) { return round_to<0x08>(a); }  // half to even, no exception
template <class T> FD_INLINE Vec<T> floor(Vec<T> a) { return round_to<0x09>(a); }
template <class T> FD_INLINE Vec<T> ceil(Vec<T> a) { return round_to<0x0a>(a); }
template <class T> FD_INLINE Vec<T> trunc(Vec<T> a) { return round_to<0x0b>(a); }

FD_INLINE VecI to_int(VecF a) { return VecI(__builtin_convertvector(a.v, VecI::Native)); }  // truncates; value must fit
FD_INLINE VecF to_float(VecI a) { return VecF(__builtin_convertvector(a.v, VecF::Native)); }
FD_INLINE VecL to_int(VecD a) { return VecL(__builtin_convertvector(a.v, VecL::Native)); }
FD_INLINE VecD to_float(VecL a) { return VecD(__builtin_convertvector(a.v, VecD::Native)); }

// ---- float <-> double -------------------------------------------------------------------------------------------------
// widen: the first or second half of the lanes. narrow: both halves together.
#if defined(__AVX512F__)
FD_INLINE VecD widen_low(VecF a) { return VecD((VecD::Native)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)a.v))); }
FD_INLINE VecD widen_high(VecF a) { return VecD((VecD::Native)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)a.v, 1))); }
FD_INLINE VecF narrow(VecD low, VecD high) {
  const __m512 a = _mm512_castps256_ps512(_mm512_cvtpd_ps((__m512d)low.v));
  return VecF((VecF::Native)_mm512_insertf32x8(a, _mm512_cvtpd_ps((__m512d)high.v), 1));
}
#elif defined(__AVX2__)
FD_INLINE VecD widen_low(VecF a) { return VecD((VecD::Native)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)a.v))); }
FD_INLINE VecD widen_high(VecF a) { return VecD((VecD::Native)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)a.v, 1))); }
FD_INLINE VecF narrow(VecD low, VecD high) {
  return VecF((VecF::Native)_mm256_set_m128(_mm256_cvtpd_ps((__m256d)high.v), _mm256_cvtpd_ps((__m256d)low.v)));
}
#elif defined(__SSE2__)
FD_INLINE VecD widen_low(VecF a) { return VecD((VecD::Native)_mm_cvtps_pd((__m128)a.v)); }
FD_INLINE VecD widen_high(VecF a) { return VecD((VecD::Native)_mm_cvtps_pd(_mm_movehl_ps((__m128)a.v, (__m128)a.v))); }
FD_INLINE VecF narrow(VecD low, VecD high) {
  return VecF((VecF::Native)_mm_movelh_ps(_mm_cvtpd_ps((__m128d)low.v), _mm_cvtpd_ps((__m128d)high.v)));
}
#else
typedef float HalfVecF __attribute__((vector_size(FD_VEC_BYTES / 2)));
FD_INLINE VecD widen_low(VecF a) {
  HalfVecF h;
  __builtin_memcpy(&h, &a.v, sizeof h);
  return VecD(__builtin_convertvector(h, VecD::Native));
}
FD_INLINE VecD widen_high(VecF a) {
  HalfVecF h;
  __builtin_memcpy(&h, reinterpret_cast<const char*>(&a.v) + sizeof h, sizeof h);
  return VecD(__builtin_convertvector(h, VecD::Native));
}
FD_INLINE VecF narrow(VecD low, VecD high) {
  const HalfVecF h[2] = {__builtin_convertvector(low.v, HalfVecF), __builtin_convertvector(high.v, HalfVecF)};
  VecF r;
  __builtin_memcpy(&r.v, h, sizeof r.v);
  return r;
}
#endif

// ---- for math/ ---------------------------------------------------------------------------------------------------------
// a * b + c with one rounding on every machine, for formulas that rely on it (fma() may round twice even where there is FMA: the
// compiler reuses a product it already has).
FD_INLINE VecF exact_fma(VecF a, VecF b, VecF c) {
#if defined(__AVX512F__)
  return VecF((VecF::Native)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v));
#elif defined(__FMA__)
  return VecF((VecF::Native)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v));
#elif defined(__aarch64__)
  for (int i = 0; i < VecF::size; i++) c.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return c;
#else
  return narrow(widen_low(a) * widen_low(b) + widen_low(c), widen_high(a) * widen_high(b) + widen_high(c));
#endif
}

// a * 2^n for a in [2^-6, 2], to whose exponent integral n in [-180, 180] is added: over- and underflow as they should. If n is NaN,
// to_int() makes it a number whose last bits are 0, and a comes back as it is (NaN if it is NaN).
FD_INLINE VecF ldexp(VecF a, VecF n) {
#if defined(__AVX512F__)
  return VecF((VecF::Native)_mm512_scalef_ps((__m512)a.v, (__m512)n.v));
#else
  const VecI i = to_int(n), half = i >> 1;  // in two steps, as 2^n itself may not be representable
  return bit_cast<float>(bit_cast<int32_t>(a) + (half << 23)) * bit_cast<float>((i - half + VecI(127)) << 23);
#endif
}
// The same where the result is a normal number. (Above n = 128 anything may come out.)
FD_INLINE VecF ldexp_normal(VecF a, VecF n) {
#if defined(__AVX512F__)
  return ldexp(a, n);
#else
  return bit_cast<float>(bit_cast<int32_t>(a) + (to_int(n) << 23));
#endif
}
// The same for n in [-180, 60].
FD_INLINE VecF ldexp_down(VecF a, VecF n) {
#if defined(__AVX512F__)
  return ldexp(a, n);
#else
  return bit_cast<float>(bit_cast<int32_t>(a * VecF(0x1p63f)) + (to_int(n) << 23)) * VecF(0x1p-63f);
#endif
}

#if defined(__AVX512F__)
// x = 2^k m with m in [3/4, 3/2), k -inf for 0 and inf for infinity, m NaN for NaN and negative x; see math/log.h.
FD_INLINE void split_exponent(VecF x, VecF& k, VecF& m) {
  m = VecF((VecF::Native)_mm512_getmant_ps((__m512)x.v, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_nan));
  k = VecF((VecF::Native)_mm512_getexp_ps((__m512)x.v)) - VecF((VecF::Native)_mm512_getexp_ps((__m512)m.v));
}
#endif

#if defined(__AVX512F__)
// a / b from r, about 1 / b, corrected by its remainder.
FD_INLINE VecF quotient_by(VecF r, VecF a, VecF b) {
  const VecF q = a * r;
  return fma(fma(-q, b, a), r, q);
}
FD_INLINE VecF about_reciprocal(VecF b) { return VecF((VecF::Native)_mm512_rcp14_ps((__m512)b.v)); }
#endif
// a / b within 1 ulp for b in [2^-100, 2^100] and finite a (the divider of AVX-512 machines is slow: a product by the approximate
// reciprocal, corrected by its remainder, is twice as fast). NaN passes through; the sign of a zero may be lost.
FD_INLINE VecF quotient(VecF a, VecF b) {
#if defined(__AVX512F__)
  return quotient_by(about_reciprocal(b), a, b);
#else
  return a / b;
#endif
}
FD_INLINE VecD quotient(VecD a, VecD b) { return a / b; }

// The same for b up to 2^125, or infinity, whose reciprocal is 0.
FD_INLINE VecF quotient_to_infinity(VecF a, VecF b) {
#if defined(__AVX512F__)
  return quotient_by(about_reciprocal(b), a, min(VecF(0x1p125f), b));
#else
  return a / b;
#endif
}
FD_INLINE VecD quotient_to_infinity(VecD a, VecD b) { return a / b; }

// Horizontal reductions: f joins the halves of the vector, then the halves of that ... , a fixed pairwise order. By shuffles, not
// through memory: GCC makes branches and scalar steps of a loop over a small array.
template <int distance, class T>
FD_INLINE Vec<T> swap_lanes(Vec<T> a) { return permute2(a, a, [](int i) { return i ^ distance; }); }
template <class T, class F>
FD_INLINE T join_lanes(Vec<T> a, F&& f) {
  static_assert(Vec<T>::size <= 16, "more steps needed");
  if constexpr (Vec<T>::size > 8) a = f(a, swap_lanes<8>(a));
  if constexpr (Vec<T>::size > 4) a = f(a, swap_lanes<4>(a));
  if constexpr (Vec<T>::size > 2) a = f(a, swap_lanes<2>(a));
  return f(a, swap_lanes<1>(a))[0];
}
template <class T>
FD_INLINE T reduce_add(Vec<T> a) { return join_lanes(a, [](Vec<T> x, Vec<T> y) { return x + y; }); }
template <class T>
FD_INLINE T reduce_max(Vec<T> a) { return join_lanes(a, [](Vec<T> x, Vec<T> y) { return max(x, y); }); }

}  // namespace
}  // namespace fastdl
