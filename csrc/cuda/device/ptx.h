// The device vocabulary under nvcc: thin wrappers over CUDA intrinsics and PTX (PTX ISA 9.0, CUDA C++ Programming Guide 13.0). Its
// twin is emu/emulator.h, which has the same names for g++; tests/cuda checks the two against each other where a GPU is present.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define FD_DEVICE __device__ __forceinline__
#define FD_HOST_DEVICE __host__ __device__ __forceinline__
#define FD_KERNEL(threads, blocks_per_sm) __global__ void __launch_bounds__(threads, blocks_per_sm)

namespace fastdl {
namespace {

constexpr int kWarp = 32;
constexpr uint32_t kFullMask = 0xffffffffu;

// ---- shared memory -------------------------------------------------------------------------------------------------------
template <class Storage>
FD_DEVICE Storage& shared_memory() {
  extern __shared__ __align__(1024) unsigned char fd_dynamic_shared[];
  return *reinterpret_cast<Storage*>(fd_dynamic_shared);
}
FD_DEVICE uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// ---- barriers ------------------------------------------------------------------------------------------------------------
FD_DEVICE void sync_block() { __syncthreads(); }
FD_DEVICE void sync_warp(uint32_t mask = kFullMask) { __syncwarp(mask); }
// Barrier `id` (1 to 15) among `threads` threads of the block, a multiple of 32.
FD_DEVICE void sync_named(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

// ---- lanes ---------------------------------------------------------------------------------------------------------------
// T: 4 or 8 bytes.
template <class T>
FD_DEVICE T shuffle_xor(T v, int lane_mask, uint32_t mask = kFullMask) {
  return __shfl_xor_sync(mask, v, lane_mask);
}
template <class T>
FD_DEVICE T shuffle_down(T v, int delta, uint32_t mask = kFullMask) {
  return __shfl_down_sync(mask, v, delta);
}
template <class T>
FD_DEVICE T shuffle_up(T v, int delta, uint32_t mask = kFullMask) {
  return __shfl_up_sync(mask, v, delta);
}
template <class T>
FD_DEVICE T shuffle(T v, int lane, uint32_t mask = kFullMask) {
  return __shfl_sync(mask, v, lane);
}
FD_DEVICE uint32_t ballot(bool p, uint32_t mask = kFullMask) { return __ballot_sync(mask, p); }
FD_DEVICE int popcount(uint32_t v) { return __popc(v); }
FD_DEVICE int find_first_set(uint32_t v) { return __ffs(int(v)); }  // 1-based; 0: none

// ---- memory --------------------------------------------------------------------------------------------------------------
// 16 bytes at once; the address must be a multiple of 16. Streaming: data that is read or written once.
template <class T>
FD_DEVICE T load_16(const void* p) {
  static_assert(sizeof(T) == 16, "16 bytes");
  const uint4 v = *static_cast<const uint4*>(p);
  T r;
  memcpy(&r, &v, 16);
  return r;
}
template <class T>
FD_DEVICE T load_16_streaming(const void* p) {
  static_assert(sizeof(T) == 16, "16 bytes");
  const uint4 v = __ldcs(static_cast<const uint4*>(p));
  T r;
  memcpy(&r, &v, 16);
  return r;
}
template <class T>
FD_DEVICE void store_16(void* p, const T& x) {
  static_assert(sizeof(T) == 16, "16 bytes");
  uint4 v;
  memcpy(&v, &x, 16);
  *static_cast<uint4*>(p) = v;
}
// To global memory, as one instruction: of store_16 the compiler may make four when the value comes out of an array in registers.
template <class T>
FD_DEVICE void store_16_global(void* p, const T& x) {
  static_assert(sizeof(T) == 16, "16 bytes");
  uint4 v;
  memcpy(&v, &x, 16);
  __stwb(static_cast<uint4*>(p), v);
}
template <class T>
FD_DEVICE void store_16_streaming(void* p, const T& x) {
  static_assert(sizeof(T) == 16, "16 bytes");
  uint4 v;
  memcpy(&v, &x, 16);
  __stcs(static_cast<uint4*>(p), v);
}

// ---- atomics (global or shared memory); all return the old value -------------------------------------------------------------
FD_DEVICE int32_t atomic_add(int32_t* p, int32_t v) { return atomicAdd(p, v); }
FD_DEVICE uint32_t atomic_add(uint32_t* p, uint32_t v) { return atomicAdd(p, v); }
FD_DEVICE uint64_t atomic_add(uint64_t* p, uint64_t v) {
  return atomicAdd(reinterpret_cast<unsigned long long*>(p), static_cast<unsigned long long>(v));
}
FD_DEVICE float atomic_add(float* p, float v) { return atomicAdd(p, v); }
FD_DEVICE double atomic_add(double* p, double v) { return atomicAdd(p, v); }
FD_DEVICE int32_t atomic_max(int32_t* p, int32_t v) { return atomicMax(p, v); }
FD_DEVICE int32_t atomic_cas(int32_t* p, int32_t expected, int32_t v) { return atomicCAS(p, expected, v); }
FD_DEVICE void fence_device() { __threadfence(); }
FD_DEVICE void fence_system() { __threadfence_system(); }

// ---- 16-bit floats (round to nearest even) -----------------------------------------------------------------------------------
FD_DEVICE float widen(f16 h) {
  __half v;
  memcpy(&v, &h, 2);
  return __half2float(v);
}
FD_DEVICE float widen(bf16 h) { return __uint_as_float(uint32_t(h.bits) << 16); }
FD_DEVICE f16 narrow_f16(float x) {
  const __half v = __float2half_rn(x);
  f16 r;
  memcpy(&r, &v, 2);
  return r;
}
FD_DEVICE f16 narrow_f16(double x) {
  const __half v = __double2half(x);
  f16 r;
  memcpy(&r, &v, 2);
  return r;
}
FD_DEVICE bf16 narrow_bf16(float x) {
  const __nv_bfloat16 v = __float2bfloat16_rn(x);
  bf16 r;
  memcpy(&r, &v, 2);
  return r;
}
FD_DEVICE bf16 narrow_bf16(double x) {
  const __nv_bfloat16 v = __double2bfloat16(x);
  bf16 r;
  memcpy(&r, &v, 2);
  return r;
}

// Both in one register, `low` in bits 0 to 15.
FD_DEVICE uint32_t narrow_bf16_pair(float low, float high) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
  uint32_t r;
  memcpy(&r, &v, 4);
  return r;
}

// ---- asynchronous copies to shared memory (cp.async, sm_80) -------------------------------------------------------------------
// Copies 16 bytes, of which the first `bytes` (0 to 16) come from `from` and the rest are zeros. Both addresses: multiples of 16
// (also where bytes is 0: pass any valid aligned pointer).
FD_DEVICE void copy_async_16(void* to_shared, const void* from, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to_shared)), "l"(from), "r"(bytes) : "memory");
}
// The same for 4 bytes (bytes 0 or 4), for rows that are not aligned to 16.
FD_DEVICE void copy_async_4(void* to_shared, const void* from, int bytes = 4) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to_shared)), "l"(from), "r"(bytes) : "memory");
}
FD_DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `pending` groups of this thread are under way; follow with sync_block() before others read.
template <int pending>
FD_DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// ---- tensor cores (mma.sync) ----------------------------------------------------------------------------------------------------
// Four 8x8 matrices of 16-bit elements: lane l gives the address of row l % 8 of matrix l / 8; register j gets of matrix j the two
// neighbours (row lane / 4, columns 2 (lane % 4) and + 1); _trans: of its transpose.
FD_DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
FD_DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// d += a b for one 16 x 8 tile, fp32 accumulators. Fragments as in the PTX ISA, "Matrix Fragments for mma.m16n8k16 / m16n8k8":
// d[0..1]: row lane / 4, columns 2 (lane % 4) + {0, 1}; d[2..3]: row + 8.
FD_DEVICE void mma_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], f16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
FD_DEVICE void mma_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bf16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// tf32: a[0] (row l / 4, k l % 4), a[1] row + 8, a[2] k + 4, a[3] both; b[0] (k l % 4, column l / 4), b[1] k + 4
FD_DEVICE void mma_1688_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
FD_DEVICE uint32_t round_tf32(float x) {  // to nearest, ties away from zero
  uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
  return r;
}

}  // namespace
}  // namespace fastdl
