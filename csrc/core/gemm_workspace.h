// How much scratch a matrix product needs, from its sizes alone: inference asks for it, the kernels of every instruction set and
// thread count stay within it.
#pragma once
#include <cstdint>

namespace fastdl {

// B is packed whole, but in slabs once that takes more than this many elements.
constexpr int64_t kGemmPackLimit = int64_t(8) << 20;
constexpr int64_t kGemmSlabK = 16384;  // longest k of such a slab

// Elements of one packed (k, n) matrix: columns padded to the widest vector.
constexpr int64_t gemm_packed_size(int64_t k, int64_t n) { return k * ((n + 15) / 16 * 16); }

// A small C with a long k is computed as this many partial sums over parts of k, added in order; a B that is packed in slabs is
// not.
constexpr int64_t gemm_splits(int64_t batch, int64_t m, int64_t n, int64_t k) {
  const int64_t tiles = ((m + 63) / 64) * ((n + 63) / 64);
  if (batch > 1 || tiles >= 8 || k < 2048 || gemm_packed_size(k, n) > kGemmPackLimit) return 1;
  return k / 512 < 8 ? k / 512 : 8;
}

// Products with one row or column split k into parts of about this many elements of the matrix.
constexpr int64_t kGemvPart = int64_t(1) << 16;
constexpr int64_t gemv_splits(int64_t n, int64_t k) {
  if (n > 512) return 1;
  const int64_t parts = k / (kGemvPart / (n > 0 ? n : 1));
  return parts < 1 ? 1 : parts < 32 ? parts : 32;
}

// Elements of packed matrices for `batch` products, as many at a time as the limit allows.
constexpr int64_t gemm_pack_elements(int64_t batch, int64_t n, int64_t k) {
  const int64_t one = gemm_packed_size(k, n);
  if (one >= kGemmPackLimit || one == 0) return one == 0 ? 0 : kGemmPackLimit;
  return batch < kGemmPackLimit / one ? batch * one : kGemmPackLimit / one * one;
}

// Products on AMX tiles (cpu/isa/gemm_amx.h) need none. gemm_has_tiles: whether they run here; set once, when the instruction set
// is chosen, as are vector_lanes, the floats of a vector. gemm_parts: bfloat16 parts of a float32, 3, or 2 or 1 where less accuracy
// is asked for (fd.set_matmul_precision).
extern bool gemm_has_tiles;
extern int vector_lanes;
extern int gemm_parts;

// Which products are worth their packing. Measured on Emerald Rapids: with a smaller C or k, multiply-adds are as fast; a small C
// with a long k is better cut along k.
constexpr int64_t kTileLeastSide = 64, kTileLeastArea = 64 * 128, kTileSmallArea = 192 * 192;
constexpr bool tiles_pay(int64_t m, int64_t n, int64_t k) {
  if (m < kTileLeastSide || n < kTileLeastSide || m * n < kTileLeastArea) return false;
  return m * n < kTileSmallArea ? k >= 64 && k < 2048 : k >= 32 && k <= int64_t(1) << 16;
}

// Elements of scratch for `batch` products (m, k) x (k, n). Kernels merge batch dimensions into rows where strides permit.
inline int64_t gemm_workspace_elements(int64_t batch, int64_t m, int64_t n, int64_t k) {
  if (m == 0 || n == 0 || k == 0 || batch == 0) return 0;
  if (batch > 1) {
    const int64_t packed = gemm_pack_elements(batch, n, k), merged = gemm_workspace_elements(1, batch * m, n, k);
    return packed > merged ? packed : merged;
  }
  if (m == 1 || n == 1) return gemv_splits(m == 1 ? n : m, k) * (m == 1 ? n : m);
  const int64_t splits = gemm_splits(1, m, n, k);
  return gemm_pack_elements(1, n, k) + (splits > 1 ? splits * m * n : 0);
}

}  // namespace fastdl
