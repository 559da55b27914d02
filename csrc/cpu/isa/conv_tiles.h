// What convolutions on AMX tiles have in common: products as in gemm_amx.h (float32 as sums of bfloat16 parts), but each tile of A
// lies wherever its block of k does, at any distance between rows. So a source that is split into parts once serves all taps.
//   conv_tiles_gather.h  y, and dx: pixels of a row side by side      conv_tiles_images.h  the same: images side by side
//   conv_tiles_weight.h  dw
#pragma once
#include "cpu/isa/conv_gather.h"
#include "cpu/isa/gemm_amx.h"

namespace fastdl {
namespace {

// Scratch of a piece of work: packed operands, which stay in 2 MB of L2 with the results in use, and floats.
constexpr int64_t kConvTileWords = int64_t(640) << 10, kConvTileFloats = int64_t(300) << 10;
struct ConvTileScratch {
  uint16_t* words;  // null: there is none
  explicit ConvTileScratch(int64_t more_words = 0)
      : words(static_cast<uint16_t*>(thread_scratch(2 * (kConvTileWords + more_words) + 4 * kConvTileFloats))) {}
  float* floats() const { return reinterpret_cast<float*>(words + kConvTileWords); }
  uint16_t* more() const { return reinterpret_cast<uint16_t*>(floats() + kConvTileFloats); }
};

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

// Blocks of k of two tiles of rows: where both tiles of A and B begin, in words; first those of both tiles, then of one. Parts of a
// tile of A follow each other.
constexpr int64_t kTileBlocks = 128;  // at most
struct TileBlocks {
  int64_t a[2][kTileBlocks], b[kTileBlocks];
  int64_t begin, both, upper, lower;  // of one product: where it begins, and the ends
  int64_t count;                      // of all products
};

FD_INLINE void prefetch_tile(const uint16_t* p) {  // 1 KB into L1
#pragma GCC unroll 16
  for (int line = 0; line < 16; line++) __builtin_prefetch(p + line * 32);
}

// Panels of B: packed blocks, or rows of a tile that hold all parts of 32 columns, any sixteen of which on end are a block.
struct PackedB {
  const uint16_t* at;
  template <int cols>
  FD_INLINE void load(int64_t offset, int part) const {
    load_packed_b<cols>(at + offset, part);
  }
};
template <int parts>
struct RowsB {
  const uint16_t* at;
  template <int cols>
  FD_INLINE void load(int64_t offset, int part) const {
    FD_TILE_LOAD(6, at + offset + part * 2 * kSide, parts * 4 * kSide);
    if (cols == 2) FD_TILE_LOAD(7, at + offset + part * 2 * kSide + kSide, parts * 4 * kSide);
  }
};

template <int parts, int rows, int cols, class B>
FD_INLINE void add_listed(const uint16_t* a, const B& b, const TileBlocks& list, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    const int64_t next = i + 1 < list.count ? i + 1 : i;
    const auto load_a = [&](int part) __attribute__((always_inline)) {
      if (rows != kLowerRows) FD_TILE_LOAD(4, a + list.a[0][i] + part * 512, 64);
      if (rows != kUpperRows) FD_TILE_LOAD(5, a + list.a[1][i] + part * 512, 64);
    };
    const auto fetch_a = [&](int part) __attribute__((always_inline)) {
      if (rows != kLowerRows) prefetch_tile(a + list.a[0][next] + part * 512);
      if (rows != kUpperRows) prefetch_tile(a + list.a[1][next] + part * 512);
    };
    add_product<parts, rows, cols>(
        load_a, [&](int part) __attribute__((always_inline)) { b.template load<cols>(list.b[i], part); }, fetch_a,
        [&](int part) __attribute__((always_inline)) { prefetch_lines(b.at + list.b[next] + part * 1024); });
  }
}

// The product of two tiles of rows and a panel of B, to rows `row` floats apart.
template <int parts, int cols, class B>
__attribute__((noinline)) void multiply_listed(const uint16_t* a, const B& b, const TileBlocks& list, float* upper, float* lower,
                                               int64_t row) {
  clear_block();
  add_listed<parts, kBothRows, cols>(a, b, list, list.begin, list.both);
  add_listed<parts, kUpperRows, cols>(a, b, list, list.both, list.upper);
  add_listed<parts, kLowerRows, cols>(a, b, list, list.upper, list.lower);
  FD_TILE_STORE(0, upper, row * 4);
  if (cols == 2) FD_TILE_STORE(1, upper + 16, row * 4);
  FD_TILE_STORE(2, lower, row * 4);
  if (cols == 2) FD_TILE_STORE(3, lower + 16, row * 4);
}

// Four columns of sixteen rows, transposed: out[j] holds column first + j.
FD_INLINE void read_columns(const float* const* at, int64_t first, VecF* out) {
  const auto lanes = [&](int i) __attribute__((always_inline)) {
    __m512 r = _mm512_castps128_ps512(_mm_loadu_ps(at[i] + first));
    r = _mm512_insertf32x4(r, _mm_loadu_ps(at[i + 4] + first), 1);
    r = _mm512_insertf32x4(r, _mm_loadu_ps(at[i + 8] + first), 2);
    return VecF(VecF::Native(_mm512_insertf32x4(r, _mm_loadu_ps(at[i + 12] + first), 3)));
  };
  const VecF r0 = lanes(0), r1 = lanes(1), r2 = lanes(2), r3 = lanes(3);
  const VecD a = bit_cast<double>(unpack_lo(r0, r1)), b = bit_cast<double>(unpack_lo(r2, r3));
  const VecD e = bit_cast<double>(unpack_hi(r0, r1)), f = bit_cast<double>(unpack_hi(r2, r3));
  out[0] = bit_cast<float>(unpack_lo(a, b));
  out[1] = bit_cast<float>(unpack_hi(a, b));
  out[2] = bit_cast<float>(unpack_lo(e, f));
  out[3] = bit_cast<float>(unpack_hi(e, f));
}

// The first `count` columns of a square of sixteen rows, `rows` of which exist, as do the masked columns; the others count as zero.
FD_INLINE void read_square(const float* from, int64_t rows, int64_t row, __mmask16 mask, int64_t count, VecF (&out)[16]) {
  const float* at[16];
  alignas(64) float copy[16][16];
  const bool whole = rows == 16 && mask == 0xffff;
#pragma GCC unroll 16
  for (int64_t i = 0; i < 16; i++) {
    at[i] = whole ? from + i * row : copy[i];
    if (whole) continue;
    const bool exists = i < rows;
    _mm512_store_ps(copy[i], _mm512_maskz_loadu_ps(exists ? mask : __mmask16(0), from + (exists ? i * row : 0)));
  }
  for (int64_t j = 0; j < count; j += 4) read_columns(at, j, out + j);
}

// Weights of 32 channels for one panel of columns, tap by tap; returns the largest magnitudes. Rows p and p + 16 of k share a row
// of a tile of B.
template <int parts>
inline __m512i pack_tile_weights(const ConvPack<float>& pack, int64_t group, int64_t panel, int64_t block, uint16_t* out) {
  const int64_t taps = pack.taps, first = block * kSide, low = min_of<int64_t>(16, pack.channels - first),
                high = min_of<int64_t>(16, max_of<int64_t>(0, pack.channels - first - 16));  // channels of both halves
  __m512i most = _mm512_setzero_si512();
  for (int64_t half = 0; half < 2; half++) {
    const int64_t column = panel * kSide + half * 16, used = min_of<int64_t>(16, pack.columns - column);
    if (used <= 0) break;
    const float *x = pack.weights + group * pack.group_stride + first * pack.channel_stride + column * pack.column_stride,
                *y = x + 16 * pack.channel_stride;
    const auto write = [&](int64_t tap, int64_t p, __m512 a, __m512 b) __attribute__((always_inline)) {
      most = _mm512_max_epu32(most, _mm512_max_epu32(magnitude(a), magnitude(b)));
      split_pair<parts>(a, b, out + pack.position[tap] * block_words(parts) + half * 512 + p * kSide);
    };
    if (pack.column_stride == 1) {  // one tap, and columns are contiguous
      const __mmask16 mask = first_lanes(used);
      for (int64_t p = 0; p < 16; p++)
        write(0, p, _mm512_maskz_loadu_ps(p < low ? mask : __mmask16(0), x + p * pack.channel_stride),
              _mm512_maskz_loadu_ps(p < high ? mask : __mmask16(0), y + p * pack.channel_stride));
      continue;
    }
    // Runs of memory along channels and taps, or along taps: squares of sixteen columns and as many elements are transposed.
    const bool long_run = pack.channel_stride == taps;
    const int64_t length = long_run ? 16 * taps : taps;
    for (int64_t r = 0; r < (long_run ? 1 : 16); r++, x += pack.channel_stride, y += pack.channel_stride) {
      const int64_t x_end = long_run ? low * taps : r < low ? taps : 0, y_end = long_run ? high * taps : r < high ? taps : 0;
      int64_t p = r, tap = 0;
      for (int64_t j = 0; j < length; j += 16) {
        const __mmask16 x_mask = first_lanes(x_end - j), y_mask = first_lanes(y_end - j);
        const int64_t count = min_of<int64_t>(16, length - j);
        VecF a[16], b[16];
        read_square(x + j, used, pack.column_stride, x_mask, count, a),
            read_square(y + j, used, pack.column_stride, y_mask, count, b);
        for (int64_t i = 0; i < count; i++) {
          write(tap, p, (__m512)a[i].v, (__m512)b[i].v);
          if (++tap == taps) tap = 0, p++;
        }
      }
    }
  }
  return most;
}

}  // namespace
}  // namespace fastdl
