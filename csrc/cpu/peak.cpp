#include "cpu/peak.h"

#include "cpu/cpuid.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastdl {
namespace {

constexpr int kSteps = 1000;  // per round: the loop's own cost disappears
// Chains of dependent multiply-adds: latency 4 or 5 cycles times two units, and still within 16 registers.
constexpr int kChains = 12;

// Named variables: an array would not leave memory. The empty asm keeps a chain in its register and hides from the compiler that
// nobody needs the sum.
#define FD_CHAINS(_) _(0) _(1) _(2) _(3) _(4) _(5) _(6) _(7) _(8) _(9) _(10) _(11)
#define FD_CHAIN_BEGIN(j) V c##j = one;
#define FD_KEEP(x) __asm__ volatile("" : "+x"(x));
#define FD_PEAK_LOOP(name, isa, Vec, set, mul_add, lanes)                           \
  __attribute__((target(isa), noinline)) double name(int64_t n) {                   \
    using V = Vec;                                                                  \
    const V one = set(1.0f), a = set(0.999f), b = set(0.001f);                      \
    FD_CHAINS(FD_CHAIN_BEGIN)                                                       \
    for (int64_t i = 0; i < n * kSteps; i++) { FD_CHAINS(FD_CHAIN_STEP_##mul_add) } \
    return 2.0 * lanes * kChains * kSteps;                                          \
  }

#if defined(__x86_64__)
#define FD_CHAIN_STEP_ps(j)                  \
  c##j = _mm_add_ps(_mm_mul_ps(c##j, a), b); \
  FD_KEEP(c##j)
#define FD_CHAIN_STEP_pd(j)                  \
  c##j = _mm_add_pd(_mm_mul_pd(c##j, a), b); \
  FD_KEEP(c##j)
#define FD_CHAIN_STEP_256ps(j)        \
  c##j = _mm256_fmadd_ps(c##j, a, b); \
  FD_KEEP(c##j)
#define FD_CHAIN_STEP_256pd(j)        \
  c##j = _mm256_fmadd_pd(c##j, a, b); \
  FD_KEEP(c##j)
#define FD_CHAIN_STEP_512ps(j)        \
  c##j = _mm512_fmadd_ps(c##j, a, b); \
  FD_KEEP(c##j)
#define FD_CHAIN_STEP_512pd(j)        \
  c##j = _mm512_fmadd_pd(c##j, a, b); \
  FD_KEEP(c##j)
FD_PEAK_LOOP(fp32_sse, "sse2", __m128, _mm_set1_ps, ps, 4)
FD_PEAK_LOOP(fp64_sse, "sse2", __m128d, _mm_set1_pd, pd, 2)
FD_PEAK_LOOP(fp32_avx2, "avx2,fma", __m256, _mm256_set1_ps, 256ps, 8)
FD_PEAK_LOOP(fp64_avx2, "avx2,fma", __m256d, _mm256_set1_pd, 256pd, 4)
FD_PEAK_LOOP(fp32_avx512, "avx512f", __m512, _mm512_set1_ps, 512ps, 16)
FD_PEAK_LOOP(fp64_avx512, "avx512f", __m512d, _mm512_set1_pd, 512pd, 8)

// Six accumulators of 16 x 16 floats, each the sum of products of 16 x 32 and 32 x 16 bfloat16: what a real kernel can keep in
// eight tiles.
__attribute__((target("amx-tile,amx-bf16"), noinline)) double amx_bf16(int64_t n) {
  struct alignas(64) {
    uint8_t palette = 1, start = 0, zero[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
  // Raw instructions: compilers before GCC 13 do not tell the register allocator what the tile intrinsics touch.
  __asm__ volatile("ldtilecfg %0" ::"m"(config));
  __asm__ volatile(
      "tilezero %%tmm0; tilezero %%tmm1; tilezero %%tmm2; tilezero %%tmm3; tilezero %%tmm4; tilezero %%tmm5; tilezero %%tmm6; "
      "tilezero %%tmm7" ::);
  for (int64_t i = 0; i < n * kSteps; i++) {
    __asm__ volatile(
        "tdpbf16ps %%tmm7, %%tmm6, %%tmm0; tdpbf16ps %%tmm7, %%tmm6, %%tmm1; tdpbf16ps %%tmm7, %%tmm6, %%tmm2;"
        "tdpbf16ps %%tmm7, %%tmm6, %%tmm3; tdpbf16ps %%tmm7, %%tmm6, %%tmm4; tdpbf16ps %%tmm7, %%tmm6, %%tmm5" ::);
  }
  __asm__ volatile("tilerelease" ::);
  return 2.0 * 16 * 16 * 32 * 6 * kSteps;
}
#endif
#undef FD_PEAK_LOOP

}  // namespace

double measure_peak(const std::string& kind, int64_t rounds) {
#if defined(__x86_64__)
  const std::string isa = isa_name(chosen_isa());
  const int width = isa == "baseline" ? 0 : isa == "avx2" || isa_emulated() ? 1 : 2;
  if (kind == "fp32") return (width == 0 ? fp32_sse : width == 1 ? fp32_avx2 : fp32_avx512)(rounds);
  if (kind == "fp64") return (width == 0 ? fp64_sse : width == 1 ? fp64_avx2 : fp64_avx512)(rounds);
  // A process below "amx" has not asked for tile registers.
  if (kind == "amx_bf16" && isa == "amx" && !isa_emulated()) return amx_bf16(rounds);
#else
  (void)kind, (void)rounds;
#endif
  return 0;
}

}  // namespace fastdl
