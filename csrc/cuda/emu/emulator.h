// The device vocabulary under g++: the twin of device/ptx.h, name by name. A block runs on one host thread, each of its CUDA
// threads as a fiber (scheduler.h); whatever waits or concerns other lanes is a call into the emulator, with the place in the
// source for its reports. What it adds to a run on a GPU: barriers reached by only some threads, lanes missing from a warp
// operation, misaligned addresses and overrun shared memory end the launch with a report; fresh shared and device memory holds
// NaNs.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "core/view.h"
#include "cuda/emu/cuda_runtime_shim.h"

#define FD_DEVICE inline __attribute__((always_inline))
#define FD_HOST_DEVICE inline __attribute__((always_inline))
#define FD_KERNEL(threads, blocks_per_sm) void

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace fastdl {
namespace emu {

// Where a call stands in the source: the default arguments of a function are evaluated where it is called.
#define FD_EMU_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
struct Site {
  const char* file;
  int line;
};

struct Launch {
  const char* name;
  dim3 grid, block;
  size_t shared;
  void (*call)(const Launch&);  // kernel(arguments...)
  void (*kernel)();
  const void* arguments;
  size_t argument_bytes;
};
void run(const Launch& launch);

// With a graph (KernelGraph) the launch is written down there.
template <class Graph, class... P, class... A>
void launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, Graph* graph, A... arguments) {
  static_assert((sizeof(P) + ... + 0) <= 4096, "kernel arguments: at most 4 KB");
  const std::tuple<P...> values(static_cast<P>(arguments)...);
  const auto call = [](const Launch& l) {
    std::apply(reinterpret_cast<void (*)(P...)>(l.kernel), *static_cast<const std::tuple<P...>*>(l.arguments));
  };
  Launch now{name, grid, block, shared, call, reinterpret_cast<void (*)()>(kernel), &values, sizeof values};
  if (graph)
    add_launch(graph, cudaKernelNodeParams{&now, grid, block, unsigned(shared), nullptr, nullptr});
  else
    run(now);
}

extern unsigned char* shared_pool;
extern size_t shared_bytes;

void sync_block(Site site);
void sync_warp(uint32_t mask, Site site);
void sync_named(int id, int threads, Site site);

enum class Shuffle { Xor, Down, Up, Index };
uint64_t shuffle(Shuffle kind, uint64_t value, int operand, uint32_t mask, Site site);
uint32_t ballot(bool p, uint32_t mask, Site site);
template <class T>
T shuffle(Shuffle kind, T v, int operand, uint32_t mask, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &v, sizeof v);
  bits = shuffle(kind, bits, operand, mask, site);
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

void fence();
void load_16(void* to, const void* from);
void store_16(void* to, const void* from);
void copy_async(void* to_shared, const void* from, int bytes, int width, Site site);
void copy_async_commit();
void copy_async_wait(int pending);
void ldmatrix_x4(uint32_t* r, const void* row, bool transpose, Site site);
enum class Mma { F16, BF16, TF32 };
void mma(Mma kind, float* d, const uint32_t* a, const uint32_t* b, Site site);
[[noreturn]] void fail_storage(size_t wanted);

}  // namespace emu

namespace {

constexpr int kWarp = 32;
constexpr uint32_t kFullMask = 0xffffffffu;

// ---- shared memory -------------------------------------------------------------------------------------------------------
template <class Storage>
FD_DEVICE Storage& shared_memory() {
  if (sizeof(Storage) > emu::shared_bytes) emu::fail_storage(sizeof(Storage));
  return *reinterpret_cast<Storage*>(emu::shared_pool);
}
FD_DEVICE uint32_t shared_address(const void* p) { return uint32_t(static_cast<const unsigned char*>(p) - emu::shared_pool); }

// ---- barriers ------------------------------------------------------------------------------------------------------------
FD_DEVICE void sync_block(FD_EMU_SITE) { emu::sync_block({file, line}); }
FD_DEVICE void sync_warp(uint32_t mask = kFullMask, FD_EMU_SITE) { emu::sync_warp(mask, {file, line}); }
FD_DEVICE void sync_named(int id, int threads, FD_EMU_SITE) { emu::sync_named(id, threads, {file, line}); }

// ---- lanes ---------------------------------------------------------------------------------------------------------------
template <class T>
FD_DEVICE T shuffle_xor(T v, int lane_mask, uint32_t mask = kFullMask, FD_EMU_SITE) {
  return emu::shuffle(emu::Shuffle::Xor, v, lane_mask, mask, {file, line});
}
template <class T>
FD_DEVICE T shuffle_down(T v, int delta, uint32_t mask = kFullMask, FD_EMU_SITE) {
  return emu::shuffle(emu::Shuffle::Down, v, delta, mask, {file, line});
}
template <class T>
FD_DEVICE T shuffle_up(T v, int delta, uint32_t mask = kFullMask, FD_EMU_SITE) {
  return emu::shuffle(emu::Shuffle::Up, v, delta, mask, {file, line});
}
template <class T>
FD_DEVICE T shuffle(T v, int lane, uint32_t mask = kFullMask, FD_EMU_SITE) {
  return emu::shuffle(emu::Shuffle::Index, v, lane, mask, {file, line});
}
FD_DEVICE uint32_t ballot(bool p, uint32_t mask = kFullMask, FD_EMU_SITE) { return emu::ballot(p, mask, {file, line}); }
FD_DEVICE int popcount(uint32_t v) { return __builtin_popcount(v); }
FD_DEVICE int find_first_set(uint32_t v) { return __builtin_ffs(int(v)); }

// ---- memory --------------------------------------------------------------------------------------------------------------
template <class T>
FD_DEVICE T load_16(const void* p) {
  static_assert(sizeof(T) == 16, "16 bytes");
  T r;
  emu::load_16(&r, p);
  return r;
}
template <class T>
FD_DEVICE T load_16_streaming(const void* p) {
  return load_16<T>(p);
}
template <class T>
FD_DEVICE void store_16(void* p, const T& x) {
  static_assert(sizeof(T) == 16, "16 bytes");
  emu::store_16(p, &x);
}
template <class T>
FD_DEVICE void store_16_global(void* p, const T& x) {
  store_16(p, x);
}
template <class T>
FD_DEVICE void store_16_streaming(void* p, const T& x) {
  store_16(p, x);
}

}  // namespace

// ---- atomics ---------------------------------------------------------------------------------------------------------------
int32_t atomic_add(int32_t* p, int32_t v);
uint32_t atomic_add(uint32_t* p, uint32_t v);
uint64_t atomic_add(uint64_t* p, uint64_t v);
float atomic_add(float* p, float v);
double atomic_add(double* p, double v);
int32_t atomic_max(int32_t* p, int32_t v);
int32_t atomic_cas(int32_t* p, int32_t expected, int32_t v);

namespace {
FD_DEVICE void fence_device() { emu::fence(); }
FD_DEVICE void fence_system() { emu::fence(); }

// ---- 16-bit floats ---------------------------------------------------------------------------------------------------------
FD_DEVICE float emu_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
FD_DEVICE uint32_t emu_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
// x in a float that rounds to a 16-bit format as x itself would: where the conversion is inexact, rounded to odd (towards zero,
// then the last bit set), which keeps more than the 2 bits beyond the target's that a single rounding needs (Boldo & Melquiond,
// 2008).
FD_DEVICE float emu_round_to_odd(double x) {
  const float f = float(x);
  const double back = double(f);
  if (back == x || x != x) return f;
  uint32_t bits = emu_bits(f);
  if (std::fabs(back) > std::fabs(x)) bits -= 1;  // towards zero; from infinity: the greatest float
  return emu_float(bits | 1);
}
FD_DEVICE float widen(bf16 h) { return emu_float(uint32_t(h.bits) << 16); }
FD_DEVICE bf16 narrow_bf16(float x) {
  const uint32_t bits = emu_bits(x);
  if (x != x) return {0x7fff};
  return {uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
FD_DEVICE bf16 narrow_bf16(double x) { return narrow_bf16(emu_round_to_odd(x)); }
FD_DEVICE uint32_t narrow_bf16_pair(float low, float high) {
  return narrow_bf16(low).bits | uint32_t(narrow_bf16(high).bits) << 16;
}
#if defined(__F16C__)
FD_DEVICE float widen(f16 h) { return _cvtsh_ss(h.bits); }
FD_DEVICE f16 narrow_f16(float x) {
  if (x != x) return {0x7fff};
  return {uint16_t(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT))};
}
#else
FD_DEVICE float widen(f16 h) {
  const uint32_t sign = uint32_t(h.bits & 0x8000) << 16, rest = h.bits & 0x7fff;
  if (rest >= 0x7c00) return emu_float(sign | 0x7f800000 | rest << 13);
  const float magnitude = emu_float(rest << 13) * 0x1p112f;  // rebias the exponent; exact, also for subnormals
  return emu_float(sign | emu_bits(magnitude));
}
FD_DEVICE f16 narrow_f16(float x) {
  if (x != x) return {0x7fff};
  const uint16_t sign = uint16_t(emu_bits(x) >> 16 & 0x8000);
  const float a = std::fabs(x);
  if (a >= 65520.0f) return {uint16_t(sign | 0x7c00)};
  if (a < 0x1p-14f) return {uint16_t(sign | uint16_t(emu_bits(a + 0.5f) - 0x3f000000))};  // units of 2^-24: the adder rounds
  const uint32_t bits = emu_bits(a);
  return {uint16_t(sign | uint16_t((bits - 0x38000000 + 0xfff + ((bits >> 13) & 1)) >> 13))};
}
#endif
FD_DEVICE f16 narrow_f16(double x) { return narrow_f16(emu_round_to_odd(x)); }

// ---- asynchronous copies -----------------------------------------------------------------------------------------------------
FD_DEVICE void copy_async_16(void* to_shared, const void* from, int bytes = 16, FD_EMU_SITE) {
  emu::copy_async(to_shared, from, bytes, 16, {file, line});
}
FD_DEVICE void copy_async_4(void* to_shared, const void* from, int bytes = 4, FD_EMU_SITE) {
  emu::copy_async(to_shared, from, bytes, 4, {file, line});
}
FD_DEVICE void copy_async_commit() { emu::copy_async_commit(); }
template <int pending>
FD_DEVICE void copy_async_wait() {
  emu::copy_async_wait(pending);
}

// ---- tensor cores --------------------------------------------------------------------------------------------------------------
FD_DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* row, FD_EMU_SITE) { emu::ldmatrix_x4(r, row, false, {file, line}); }
FD_DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, FD_EMU_SITE) { emu::ldmatrix_x4(r, row, true, {file, line}); }
FD_DEVICE void mma_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], f16, FD_EMU_SITE) {
  emu::mma(emu::Mma::F16, d, a, b, {file, line});
}
FD_DEVICE void mma_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bf16, FD_EMU_SITE) {
  emu::mma(emu::Mma::BF16, d, a, b, {file, line});
}
FD_DEVICE void mma_1688_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], FD_EMU_SITE) {
  emu::mma(emu::Mma::TF32, d, a, b, {file, line});
}
FD_DEVICE uint32_t round_tf32(float x) {  // to nearest, ties away from zero
  const uint32_t bits = emu_bits(x);
  if ((bits & 0x7f800000) == 0x7f800000) return x != x ? 0x7fffffff : bits;
  return (bits + 0x1000) & 0xffffe000;
}

}  // namespace
}  // namespace fastdl
