// Own CPUID and XGETBV queries: the names that __builtin_cpu_supports knows differ between compiler versions. A set counts as
// supported only if every feature its compile flags (cmake/isa.cmake) allow the compiler to use is there and the system saves its
// registers.
#include "cpuid.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace fastdl {
namespace {

#if defined(__x86_64__)
constexpr const char* kNames[] = {"baseline", "avx2", "avx512", "amx"};
constexpr int kLanes[] = {4, 8, 16, 16};

struct Regs {
  uint32_t a = 0, b = 0, c = 0, d = 0;
};

Regs cpuid(uint32_t leaf, uint32_t sub = 0) {
  Regs r;
  if (leaf <= __get_cpuid_max(leaf & 0x80000000u, nullptr)) __cpuid_count(leaf, sub, r.a, r.b, r.c, r.d);
  return r;
}

uint64_t xgetbv() {  // register states that the operating system saves
  uint32_t lo, hi;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t(hi) << 32) | lo;
}

constexpr bool has(uint32_t reg, std::initializer_list<int> bits) {
  for (int bit : bits)
    if (!(reg >> bit & 1)) return false;
  return true;
}

int detect() {
  const Regs f1 = cpuid(1), f7 = cpuid(7), f7_1 = f7.a >= 1 ? cpuid(7, 1) : Regs{}, ext = cpuid(0x80000001u);
  if (!has(f1.c, {27})) return 0;  // OSXSAVE: without it XGETBV faults
  const uint64_t saved = xgetbv();

  // x86-64-v3: FMA, MOVBE, AVX, F16C; BMI1, AVX2, BMI2; LZCNT; XMM and YMM saved
  if (!has(f1.c, {12, 22, 28, 29}) || !has(f7.b, {3, 5, 8}) || !has(ext.c, {5}) || (saved & 0x6) != 0x6) return 0;
  if (isa_emulated()) return 3;  // in the registers of AVX2
  // x86-64-v4: AVX-512 F, DQ, CD, BW, VL; mask and ZMM registers saved
  if (!has(f7.b, {16, 17, 28, 30, 31}) || (saved & 0xe0) != 0xe0) return 1;
  // AVX512_BF16; AMX-BF16, AMX-TILE, AMX-INT8; tile configuration and data saved
  if (!has(f7_1.a, {5}) || !has(f7.d, {22, 24, 25}) || (saved & 0x60000) != 0x60000) return 2;
  return 3;
}

// Linux hands out tile registers only to processes that ask; the answer holds for all threads of the process.
bool permit_amx() {
#if defined(__linux__)
  constexpr long kReqXcompPerm = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kReqXcompPerm, kTileData) == 0;
#else
  return false;
#endif
}
#else
constexpr const char* kNames[] = {"baseline"};
constexpr int kLanes[] = {4};
int detect() { return 0; }
bool permit_amx() { return false; }
#endif

constexpr int kCount = sizeof kNames / sizeof *kNames;
static_assert(sizeof kLanes / sizeof *kLanes == kCount, "a width for each name");
constexpr int kAmx = 3;

int find_name(const char* name) {
  for (int i = 0; i < kCount; i++)
    if (!strcmp(kNames[i], name)) return i;
  return -1;
}

struct Choice {
  int supported, chosen;
  std::string error;

  Choice() {
    supported = detect();
    int cap = kCount - 1;
    const char* wish = getenv("FASTDL_ISA");
    if (wish && *wish) {
      const int i = find_name(wish);
      if (i >= 0) {
        cap = i;
      } else {
        error = "FASTDL_ISA: unknown instruction set '" + std::string(wish) + "'; need one of";
        for (int k = 0; k < kCount; k++) error += (k ? ", " : " ") + std::string(kNames[k]);
      }
    }
    if (supported == kAmx && cap == kAmx && !isa_emulated() && !permit_amx()) supported = kAmx - 1;
    chosen = supported < cap ? supported : cap;
    while (chosen > 0 && !isa_compiled(chosen)) chosen--;
  }
};

const Choice& choice() {
  static const Choice* c = new Choice;
  return *c;
}

}  // namespace

int isa_count() { return kCount; }
const char* isa_name(int isa) { return isa >= 0 && isa < kCount ? kNames[isa] : "unknown"; }
int isa_lanes(int isa) { return kLanes[isa]; }
bool isa_supported(int isa) { return isa <= choice().supported; }
bool isa_compiled(int isa) {
  uint32_t mask = 0;
#define FD_TABLE(isa, family) \
  if (const int k = find_name(#isa); k >= 0) mask |= 1u << k;
#include "generated/kernel_tables.inc"
#undef FD_TABLE
  return mask >> isa & 1;
}
int chosen_isa() { return choice().chosen; }
const std::string& isa_error() { return choice().error; }

}  // namespace fastdl
