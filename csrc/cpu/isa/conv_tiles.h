// What convolutions on AMX tiles have in common: products as in gemm_amx.h (float32 as sums of bfloat16 parts), but each tile of A
// lies wherever its block of k does, at any distance between rows. So a source that is split into parts once serves all taps.
//   conv_tiles_gather.h  y, and dx        conv_tiles_weight.h  dw
#pragma once
#include "cpu/isa/gemm_amx.h"

namespace fastdl {
namespace {

// Scratch of a piece of work: packed operands, which stay in 2 MB of L2 with the results in use, and floats.
constexpr int64_t kConvTileWords = int64_t(640) << 10, kConvTileFloats = int64_t(300) << 10;
struct ConvTileScratch {
  uint16_t* words = static_cast<uint16_t*>(thread_scratch(2 * kConvTileWords + 4 * kConvTileFloats));  // null: there is none
  float* floats() const { return reinterpret_cast<float*>(words + kConvTileWords); }
};
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
  clear_block();
  for (int64_t block = 0; block < blocks; block++, b += block_words(parts)) {
    const int64_t next = block + 1 < blocks ? block + 1 : block;
    const uint16_t *a0 = upper.base + upper.offset[block], *a1 = lower.base + lower.offset[block];
    const uint16_t *next0 = upper.base + upper.offset[next], *next1 = lower.base + lower.offset[next];
    const auto load_a = [&](int part) __attribute__((always_inline)) {
      FD_TILE_LOAD(4, a0 + part * upper.part_words, upper.row_bytes);
      if (rows == 2) FD_TILE_LOAD(5, a1 + part * lower.part_words, lower.row_bytes);
    };
    add_product<parts, rows, cols>(load_a, b, [&](int part) __attribute__((always_inline)) {
      prefetch_rows(next0 + part * upper.part_words, upper.row_bytes);
      if (rows == 2) prefetch_rows(next1 + part * lower.part_words, lower.row_bytes);
    });
  }
  store_block<rows, cols>(out, kSide);
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

}  // namespace
}  // namespace fastdl
