// What convolutions on AMX tiles have in common: products as in gemm_amx.h (float32 as sums of bfloat16 parts), but each tile of A
// lies wherever its block of k does, at any distance between rows. So a source that is split into parts once serves all taps.
//   conv_tiles_gather.h  y, and dx        conv_tiles_weight.h  dw
#pragma once
#include "cpu/isa/gemm_amx.h"

namespace fastdl {
namespace {

constexpr int64_t kConvTileWords = int64_t(640) << 10;  // scratch of a piece of work: with its results it stays in 2 MB of L2
constexpr int64_t kConvTileSums = int64_t(300) << 10;   // floats
thread_local uint16_t conv_tile_scratch[kConvTileWords] __attribute__((aligned(64)));
thread_local float conv_tile_sums[kConvTileSums] __attribute__((aligned(64)));
constexpr int64_t kConvTileBlocks = 512;  // of k in one pass, at most

// Sixteen rows of A for every block of k: part s of block b begins at base + offset[b] + s * part_words.
struct TileRows {
  const uint16_t* base;
  const int64_t* offset;
  int64_t part_words, row_bytes;
};

FD_INLINE void prefetch_rows(const uint16_t* p, int64_t row_bytes) {  // the last line of each row, which may begin anywhere
#pragma GCC unroll 16
  for (int r = 0; r < 16; r++) __builtin_prefetch(reinterpret_cast<const char*>(p) + r * row_bytes + 62);
}

// out (32 x 32) = the product of `blocks` blocks of A, in two tiles of rows, and of B, which is packed.
template <int parts, int rows, int cols>
__attribute__((noinline)) void multiply_rows(const TileRows& upper, const TileRows& lower, const uint16_t* b, int64_t blocks,
                                             float* out) {
  FD_TILE_ZERO(0);
  FD_TILE_ZERO(1);
  FD_TILE_ZERO(2);
  FD_TILE_ZERO(3);
  const uint16_t *a0 = upper.base + upper.offset[0], *a1 = lower.base + lower.offset[0], *next0 = a0, *next1 = a1;
  const auto load_a = [&](int part) __attribute__((always_inline)) {
    FD_TILE_LOAD(4, a0 + part * upper.part_words, upper.row_bytes);
    if (rows == 2) FD_TILE_LOAD(5, a1 + part * lower.part_words, lower.row_bytes);
  };
  const auto load_b = [&](int part) __attribute__((always_inline)) {
    FD_TILE_LOAD(6, b + part * 1024, 64);
    if (cols == 2) FD_TILE_LOAD(7, b + part * 1024 + 512, 64);
  };
  const auto multiply = [&]() __attribute__((always_inline)) {
    FD_TILE_MULTIPLY(0, 4, 6);
    if (cols == 2) FD_TILE_MULTIPLY(1, 4, 7);
    if (rows == 2) FD_TILE_MULTIPLY(2, 5, 6);
    if (rows == 2 && cols == 2) FD_TILE_MULTIPLY(3, 5, 7);
  };
  const auto fetch_a = [&](int part) __attribute__((always_inline)) {
    prefetch_rows(next0 + part * upper.part_words, upper.row_bytes);
    if (rows == 2) prefetch_rows(next1 + part * lower.part_words, lower.row_bytes);
  };
  for (int64_t block = 0; block < blocks; block++, b += block_words(parts)) {
    const uint16_t* next_b = b + block_words(parts);
    const int64_t next = block + 1 < blocks ? block + 1 : block;
    next0 = upper.base + upper.offset[next], next1 = lower.base + lower.offset[next];
    if constexpr (parts == 3) {
      load_a(0), load_b(2), multiply(), fetch_a(0);
      load_b(1), multiply(), fetch_a(1);
      load_a(1), multiply(), fetch_a(2);
      load_b(0), multiply(), prefetch_lines(next_b);
      load_a(2), multiply(), prefetch_lines(next_b + 1024);
      load_a(0), multiply(), prefetch_lines(next_b + 2048);
    } else if constexpr (parts == 2) {
      load_a(0), load_b(1), multiply(), fetch_a(0), fetch_a(1);
      load_b(0), multiply(), prefetch_lines(next_b);
      load_a(1), multiply(), prefetch_lines(next_b + 1024);
    } else {
      load_a(0), load_b(0), multiply(), fetch_a(0), prefetch_lines(next_b);
    }
    a0 = next0, a1 = next1;
  }
  FD_TILE_STORE(0, out, 128);
  if (cols == 2) FD_TILE_STORE(1, out + 16, 128);
  if (rows == 2) FD_TILE_STORE(2, out + 16 * 32, 128);
  if (rows == 2 && cols == 2) FD_TILE_STORE(3, out + 16 * 32 + 16, 128);
}

template <int parts>
inline void multiply_rows(const TileRows& upper, const TileRows& lower, const uint16_t* b, int64_t blocks, float* out, int64_t rows,
                          int64_t cols) {
  if (rows > 16)
    return cols > 16 ? multiply_rows<parts, 2, 2>(upper, lower, b, blocks, out)
                     : multiply_rows<parts, 2, 1>(upper, lower, b, blocks, out);
  return cols > 16 ? multiply_rows<parts, 1, 2>(upper, lower, b, blocks, out)
                   : multiply_rows<parts, 1, 1>(upper, lower, b, blocks, out);
}

// The largest magnitudes of both operands, noted by all pieces of work.
class Magnitudes {
 public:
  void note_a(__m512i v) { raise(&a_, largest(v)); }
  void note_b(__m512i v) { raise(&b_, largest(v)); }
  bool split_well(int64_t k) const { return splits_well(a_, b_, k); }

 private:
  static void raise(uint32_t* at, uint32_t value) {
    uint32_t old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (old < value && !__atomic_compare_exchange_n(at, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
  }
  uint32_t a_ = 0, b_ = 0;
};

}  // namespace
}  // namespace fastdl
