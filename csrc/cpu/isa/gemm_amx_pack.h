// Operands of products on AMX tiles, split and packed.
//
// Each float32 number is split in three bfloat16 parts, x = x1 + x2 + x3, whose 8 bits each hold float32's 24. Six of the nine
// products of parts, accumulated in float32 by the tile unit, reach float32 accuracy; the other three are below 2^-24 of the result
// (Henry, Tang and Heinecke 2019, arXiv 1904.06376).
//
// The tile unit flushes denormal numbers, and infinities do not split. So the largest magnitude of each packed block is noted.
#pragma once
#include "cpu/isa/gemv.h"
#include "cpu/isa/tiles_amx.h"
#include "cpu/tune_tiles.h"
#include "cpu/vec/transpose.h"

namespace fastdl {
namespace {

constexpr int64_t kSide = 32;  // C is computed in blocks of 32 x 32: 2 x 2 tiles
// Words of a packed 32 x 32 block of A or B: for each part two tiles of 512.
constexpr int64_t block_words(int parts) { return parts * kSide * kSide; }
constexpr uint32_t kMostBits = 0x7f000000;   // 2^127: rounding to bfloat16 stays finite below
constexpr int kLeastProduct = -70;           // exponent of the largest product: parts that count stay far above 2^-126
constexpr uint32_t kLeastBits = 0x12800000;  // 2^-90

// The first `left` of sixteen lanes.
FD_INLINE __mmask16 first_lanes(int64_t left) {
  return left >= 16 ? __mmask16(0xffff) : left <= 0 ? __mmask16(0) : __mmask16((1u << left) - 1);
}

// Packs two vectors of floats as words, for each part; parts are part_words apart. join(a, b): the upper halves of their lanes as
// one vector of words. The first part is rounded to nearest, what is left is cut: 24 bits make three parts either way, and as what
// is left has either sign, the products left out do not add up. The last part of one or two is rounded as well. In integers, as
// that is fewer instructions than converting and interleaving; numbers that are not finite come out wrong and are noticed by their
// magnitude.
template <int parts, class Join>
FD_INLINE void split(__m512 x, __m512 y, uint16_t* out, int64_t part_words, const Join& join) {
  const __m512i high = _mm512_set1_epi32(int(0xffff0000)), half = _mm512_set1_epi32(0x8000);
#pragma GCC unroll 3
  for (int part = 0; part < parts; part++) {
    const bool round = part == 0 || (parts == 2 && part == 1);
    __m512i a = _mm512_castps_si512(x), b = _mm512_castps_si512(y);
    if (round) a = _mm512_add_epi32(a, half), b = _mm512_add_epi32(b, half);
    _mm512_store_si512(out + part * part_words, join(a, b));
    if (part + 1 == parts) break;
    x = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_and_si512(a, high)));
    y = _mm512_sub_ps(y, _mm512_castsi512_ps(_mm512_and_si512(b, high)));
  }
}
// As pairs: out[2 l] = x[l], out[2 l + 1] = y[l].
template <int parts>
FD_INLINE void split_pair(__m512 x, __m512 y, uint16_t* out, int64_t part_words = kSide * kSide) {
  const __m512i high = _mm512_set1_epi32(int(0xffff0000));
  split<parts>(x, y, out, part_words, [&](__m512i a, __m512i b) __attribute__((always_inline)) {
    return _mm512_ternarylogic_epi32(_mm512_srli_epi32(a, 16), b, high, 0xf8);
  });
}
// In order: x, then y.
template <int parts>
FD_INLINE void split_row(__m512 x, __m512 y, uint16_t* out, int64_t part_words) {
  const __m512i odd = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27, 25, 23, 21, 19,
                                       17, 15, 13, 11, 9, 7, 5, 3, 1);
  split<parts>(x, y, out, part_words,
               [&](__m512i a, __m512i b) __attribute__((always_inline)) { return _mm512_permutex2var_epi16(a, odd, b); });
}

// A 32 x 32 block whose rows are read as vectors: element (r, c) at from[r * row + c], rows x cols of them exist, others count as
// zero. Within k, pair p holds k = p and k = p + 16, for A and B alike.
struct Block {
  const float* from;
  int64_t row;
  int rows, cols;
};

FD_INLINE __m512 block_row(const Block& b, int r, int half) {
  if (r >= b.rows) return _mm512_setzero_ps();
  return _mm512_maskz_loadu_ps(first_lanes(b.cols - half * 16), b.from + r * b.row + half * 16);
}

FD_INLINE __m512i magnitude(__m512 x) { return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)); }

// Rows [begin, end) of a packed block, of 32.
template <int parts, bool whole>
FD_INLINE __m512i pack_a_rows(const Block& b, uint16_t* out, __m512i most, int begin = 0, int end = kSide) {  // rows: i, columns: k
  for (int i = begin; i < end; i++) {
    const __m512 x = whole ? _mm512_loadu_ps(b.from + i * b.row) : block_row(b, i, 0);
    const __m512 y = whole ? _mm512_loadu_ps(b.from + i * b.row + 16) : block_row(b, i, 1);
    most = _mm512_max_epu32(most, _mm512_max_epu32(magnitude(x), magnitude(y)));
    split_pair<parts>(x, y, out + i * kSide);  // rows of 32 words; 16 of them are one tile
  }
  return most;
}
template <int parts, bool whole>
FD_INLINE __m512i pack_b_rows(const Block& b, uint16_t* out, __m512i most, int begin = 0, int end = kSide) {  // rows: k, columns: j
  for (int i = begin; i < end; i++) {  // pairs of the left sixteen columns, then of the right ones
    const int half = i / 16, p = i % 16;
    const __m512 x = whole ? _mm512_loadu_ps(b.from + p * b.row + half * 16) : block_row(b, p, half);
    const __m512 y = whole ? _mm512_loadu_ps(b.from + (p + 16) * b.row + half * 16) : block_row(b, p + 16, half);
    most = _mm512_max_epu32(most, _mm512_max_epu32(magnitude(x), magnitude(y)));
    split_pair<parts>(x, y, out + i * kSide);
  }
  return most;
}

// Squares [begin, end) of 16 x 16, of four, of a block whose rows are its columns in memory, `column` elements apart.
FD_INLINE void turn_squares(const float* from, int64_t column, float* scratch, int begin, int end) {
  for (int square = begin; square < end; square++) {
    const int r = square % 2 * 16, c = square / 2 * 16;
    transpose_whole<16>(from + c * column + r, column, scratch + r * kSide + c, kSide);
  }
}

// The block with rows along the other axis, in scratch of 32 x 32.
inline Block turned(const float* from, int64_t row, int64_t column, int rows, int cols, float* scratch) {
  if (row == 1) {
    for (int c = 0; c < cols; c += 16)  // whole vectors of rows where they exist
      for (int r = 0; r < rows; r += 16) {
        if (cols - c >= 16 && rows - r >= 16) {
          transpose_whole<16>(from + c * column + r, column, scratch + r * kSide + c, kSide);
          continue;
        }
        for (int i = r; i < rows && i < r + 16; i++)
          for (int j = c; j < cols && j < c + 16; j++) scratch[i * kSide + j] = from[j * column + i];
      }
  } else {
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < cols; j++) scratch[i * kSide + j] = from[i * row + j * column];
  }
  return {scratch, kSide, rows, cols};
}

// An operand as lines of blocks: strips of 32 rows of A, or panels of 32 columns of B. Blocks of a line lie along k.
struct Operand {
  const float* from;
  int64_t lane, k;       // strides
  int64_t lanes, depth;  // sizes: m or n, and that of k
  bool right;            // B
};

// Where block kb of a line is to be packed, and how large it is.
struct PackTask {
  const float* from;
  uint16_t* out;
  int lanes, depth;
};
FD_INLINE PackTask task_of(const Operand& o, int64_t line, int64_t kb, uint16_t* out) {
  return {o.from + line * kSide * o.lane + kb * kSide * o.k, out, int(min_of(kSide, o.lanes - line * kSide)),
          int(min_of(kSide, o.depth - kb * kSide))};
}

// Packs a block of any size and strides. Returns the largest magnitudes, those so far included.
template <int parts>
__attribute__((noinline)) __m512i pack_block(const Operand& o, const PackTask& t, __m512i most) {
  alignas(64) float scratch[kSide * kSide];
  const int rows = o.right ? t.depth : t.lanes, cols = o.right ? t.lanes : t.depth;
  const int64_t row = o.right ? o.k : o.lane, col = o.right ? o.lane : o.k;
  const Block b = col == 1 ? Block{t.from, row, rows, cols} : turned(t.from, row, col, rows, cols, scratch);
  if (rows == kSide && cols == kSide)
    return o.right ? pack_b_rows<parts, true>(b, t.out, most) : pack_a_rows<parts, true>(b, t.out, most);
  return o.right ? pack_b_rows<parts, false>(b, t.out, most) : pack_a_rows<parts, false>(b, t.out, most);
}

FD_INLINE uint32_t largest(__m512i v) { return _mm512_reduce_max_epu32(v); }
// Whether operands with these largest magnitudes split: no part overflows or is flushed where it counts, nor do sums of k products.
FD_INLINE bool splits_well(uint32_t a, uint32_t b, int64_t k) {
  if (a >= kMostBits || b >= kMostBits) return false;
  if (a == 0 || b == 0) return true;
  if (a < kLeastBits || b < kLeastBits) return false;
  const int product = int(a >> 23) + int(b >> 23) - 2 * 127;  // its exponent, or one less
  return product >= kLeastProduct && product + 2 + (64 - __builtin_clzll(uint64_t(k))) <= 126;
}

}  // namespace
}  // namespace fastdl
