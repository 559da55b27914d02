// Products of float32 matrices on AMX's bfloat16 tiles, as accurate as float32 multiply-adds.
//
// Method: each operand is split in three bfloat16 parts, x = x1 + x2 + x3, whose 8 bits each hold float32's 24. Six of the nine
// products of parts, accumulated in float32 by the tile unit, reach float32 accuracy; the other three are below 2^-24 of the result
// (Henry, Tang and Heinecke 2019, arXiv 1904.06376). Sums over blocks of k are added in float32 outside the tiles.
//
// The tile unit flushes denormal numbers, and infinities do not split. So the largest magnitude of each packed block is noted:
// where it is not finite, or so small that parts of typical elements would vanish, gemm_tiles() gives up and the caller multiplies
// again in float32. Elements below 2^-110 beside large ones lose relative accuracy, not absolute.
#pragma once
#include "core/partition.h"
#include "cpu/isa/gemv.h"
#include "cpu/isa/tiles_amx.h"
#include "cpu/tune_tiles.h"
#include "cpu/vec/transpose.h"

namespace fastdl {
namespace {

constexpr int64_t kSide = 32;  // C is computed in blocks of 32 x 32: 2 x 2 tiles
// Words of a packed 32 x 32 block of A or B: for each part two tiles of 512.
constexpr int64_t block_words(int parts) { return parts * kSide * kSide; }
// What a piece of work packs for itself: some panels of B (few rows), or a strip of A. Too much for the stacks of small threads.
constexpr int64_t kScratchWords = max_of(kTilePackCols / kSide * (kTilePackKc / kSide), kTileKc / kSide) * block_words(3);
inline uint16_t* tile_scratch() { return static_cast<uint16_t*>(thread_scratch(2 * kScratchWords)); }
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

template <int parts, bool whole>
FD_INLINE __m512i pack_a_rows(const Block& b, uint16_t* out, __m512i most) {  // rows are i, columns k
  for (int i = 0; i < kSide; i++) {
    const __m512 x = whole ? _mm512_loadu_ps(b.from + i * b.row) : block_row(b, i, 0);
    const __m512 y = whole ? _mm512_loadu_ps(b.from + i * b.row + 16) : block_row(b, i, 1);
    most = _mm512_max_epu32(most, _mm512_max_epu32(magnitude(x), magnitude(y)));
    split_pair<parts>(x, y, out + i * kSide);  // rows of 32 words; 16 of them are one tile
  }
  return most;
}

template <int parts, bool whole>
FD_INLINE __m512i pack_b_rows(const Block& b, uint16_t* out, __m512i most) {  // rows are k, columns j
  for (int half = 0; half < 2; half++)
    for (int p = 0; p < 16; p++) {
      const __m512 x = whole ? _mm512_loadu_ps(b.from + p * b.row + half * 16) : block_row(b, p, half);
      const __m512 y = whole ? _mm512_loadu_ps(b.from + (p + 16) * b.row + half * 16) : block_row(b, p + 16, half);
      most = _mm512_max_epu32(most, _mm512_max_epu32(magnitude(x), magnitude(y)));
      split_pair<parts>(x, y, out + half * 512 + p * kSide);
    }
  return most;
}

// The block with rows along the other axis, in scratch of 32 x 32.
inline Block turned(const float* from, int64_t row, int64_t column, int rows, int cols, float* scratch) {
  if (row == 1) {
    for (int c = 0; c < cols; c += 16)  // whole vectors of rows where they exist
      for (int r = 0; r < rows; r += 16) {
        if (cols - c >= 16 && rows - r >= 16) {
          transpose(from + c * column + r, column, scratch + r * kSide + c, kSide, int64_t(16), int64_t(16));
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

// Packs rows [i0, i0 + 32) of A for k in [k0, k1), block by block. Adds to the largest magnitudes.
template <int parts>
inline __m512i pack_a_strip(const Gemm<float>& g, int64_t i0, int64_t k0, int64_t k1, uint16_t* out, __m512i most) {
  alignas(64) float scratch[kSide * kSide];
  const int rows = int(min_of(kSide, g.m - i0));
  for (int64_t k = k0; k < k1; k += kSide, out += block_words(parts)) {
    const int cols = int(min_of(kSide, k1 - k));
    const float* from = g.a + i0 * g.a_row + k * g.a_k;
    const Block b = g.a_k == 1 ? Block{from, g.a_row, rows, cols} : turned(from, g.a_row, g.a_k, rows, cols, scratch);
    most = rows == kSide && cols == kSide ? pack_a_rows<parts, true>(b, out, most) : pack_a_rows<parts, false>(b, out, most);
  }
  return most;
}

// Packs panels [p0, p1) of 32 columns of B for blocks [kb0, kb1) of k: panel p starts at out + (p - p0) * panel_words.
template <int parts>
inline __m512i pack_b_panels(const Gemm<float>& g, int64_t p0, int64_t p1, int64_t kb0, int64_t kb1, uint16_t* out,
                             int64_t panel_words, __m512i most) {
  alignas(64) float scratch[kSide * kSide];
  for (int64_t kb = kb0; kb < kb1; kb++) {
    const int64_t k = kb * kSide;
    const int rows = int(min_of(kSide, g.k - k));
    for (int64_t p = p0; p < p1; p++) {
      const int64_t j = p * kSide;
      const int cols = int(min_of(kSide, g.n - j));
      const float* from = g.b + k * g.b_k + j * g.b_col;
      const Block b = g.b_col == 1 ? Block{from, g.b_k, rows, cols} : turned(from, g.b_k, g.b_col, rows, cols, scratch);
      uint16_t* to = out + (p - p0) * panel_words + (kb - kb0) * block_words(parts);
      most = rows == kSide && cols == kSide ? pack_b_rows<parts, true>(b, to, most) : pack_b_rows<parts, false>(b, to, most);
    }
  }
  return most;
}

FD_INLINE void prefetch_lines(const void* p) {  // 2 KB into L1
#pragma GCC unroll 32
  for (int line = 0; line < 32; line++) __builtin_prefetch(static_cast<const char*>(p) + line * 64);
}

// The accumulators of a block of C, 2 x 2 tiles of which rows x cols are wanted: of rows the upper tile, both, or the lower one.
// Rows of out are out_row floats apart.
constexpr int kUpperRows = 1, kBothRows = 2, kLowerRows = 3;
FD_INLINE void clear_block() {
  FD_TILE_ZERO(0);
  FD_TILE_ZERO(1);
  FD_TILE_ZERO(2);
  FD_TILE_ZERO(3);
}
template <int rows, int cols>
FD_INLINE void store_block(float* out, int64_t out_row) {
  FD_TILE_STORE(0, out, out_row * 4);
  if (cols == 2) FD_TILE_STORE(1, out + 16, out_row * 4);
  if (rows == 2) FD_TILE_STORE(2, out + 16 * out_row, out_row * 4);
  if (rows == 2 && cols == 2) FD_TILE_STORE(3, out + 16 * out_row + 16, out_row * 4);
}

// Brings a part of a packed block of B to tiles 6 and 7.
template <int cols>
FD_INLINE void load_packed_b(const uint16_t* b, int part) {
  FD_TILE_LOAD(6, b + part * 1024, 64);
  if (cols == 2) FD_TILE_LOAD(7, b + part * 1024 + 512, 64);
}

// Adds the product of a block of A, which load_a(part) brings to tiles 4 and 5, and of B, which load_b(part) brings to tiles 6
// and 7. Neighbouring products share an operand; fetch_a(i) and fetch_b(i), i < parts, fetch a part of the next blocks into L1
// meanwhile.
template <int parts, int rows, int cols, class LoadA, class LoadB, class FetchA, class FetchB>
FD_INLINE void add_product(const LoadA& load_a, const LoadB& load_b, const FetchA& fetch_a, const FetchB& fetch_b) {
  const auto multiply = [&]() __attribute__((always_inline)) {
    if (rows != kLowerRows) FD_TILE_MULTIPLY(0, 4, 6);
    if (rows != kLowerRows && cols == 2) FD_TILE_MULTIPLY(1, 4, 7);
    if (rows != kUpperRows) FD_TILE_MULTIPLY(2, 5, 6);
    if (rows != kUpperRows && cols == 2) FD_TILE_MULTIPLY(3, 5, 7);
  };
  if constexpr (parts == 3) {
    load_a(0), load_b(2), multiply(), fetch_a(0);
    load_b(1), multiply(), fetch_a(1);
    load_a(1), multiply(), fetch_a(2);
    load_b(0), multiply(), fetch_b(0);
    load_a(2), multiply(), fetch_b(1);
    load_a(0), multiply(), fetch_b(2);
  } else if constexpr (parts == 2) {
    load_a(0), load_b(1), multiply(), fetch_a(0), fetch_a(1);
    load_b(0), multiply(), fetch_b(0);
    load_a(1), multiply(), fetch_b(1);
  } else {
    load_a(0), load_b(0), multiply(), fetch_a(0), fetch_b(0);
  }
}

// The same for a packed block of B, which the next one follows.
template <int parts, int rows, int cols, class LoadA, class FetchA>
FD_INLINE void add_product(const LoadA& load_a, const uint16_t* b, const FetchA& fetch_a) {
  add_product<parts, rows, cols>(
      load_a, [&](int part) __attribute__((always_inline)) { load_packed_b<cols>(b, part); }, fetch_a,
      [&](int part) __attribute__((always_inline)) { prefetch_lines(b + block_words(parts) + part * 1024); });
}

// out (32 x 32) = the product of `blocks` blocks of A and B, both packed.
template <int parts, int rows, int cols>
__attribute__((noinline)) void multiply_blocks(const uint16_t* a, const uint16_t* b, int64_t blocks, float* out, int64_t out_row) {
  clear_block();
  for (; blocks > 0; blocks--, a += block_words(parts), b += block_words(parts)) {
    const auto load_a = [&](int part) __attribute__((always_inline)) {
      FD_TILE_LOAD(4, a + part * 1024, 64);
      if (rows == 2) FD_TILE_LOAD(5, a + part * 1024 + 512, 64);
    };
    add_product<parts, rows, cols>(
        load_a, b, [&](int part) __attribute__((always_inline)) { prefetch_lines(a + block_words(parts) + part * 1024); });
  }
  store_block<rows, cols>(out, out_row);
}

template <int parts>
inline void multiply_blocks(const uint16_t* a, const uint16_t* b, int64_t blocks, float* out, int rows, int cols) {
  if (rows > 16)
    return cols > 16 ? multiply_blocks<parts, 2, 2>(a, b, blocks, out, kSide)
                     : multiply_blocks<parts, 2, 1>(a, b, blocks, out, kSide);
  return cols > 16 ? multiply_blocks<parts, 1, 2>(a, b, blocks, out, kSide)
                   : multiply_blocks<parts, 1, 1>(a, b, blocks, out, kSide);
}

// C block (rows x cols) = or += sums, then bias, relu, other activations. past: whole vectors go past the caches, to aligned lines.
inline void finish_block(const Gemm<float>& g, int64_t i0, int64_t j0, const float* sums, int rows, int cols, bool first, bool last,
                         bool past = false) {
  for (int i = 0; i < rows; i++) {
    float* c = g.c + (i0 + i) * g.c_row + j0;
    for (int half = 0; half < 2; half++) {
      const __mmask16 mask = first_lanes(cols - half * 16);
      if (!mask) break;
      __m512 v = _mm512_load_ps(sums + i * kSide + half * 16);
      if (!first) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, c + half * 16));
      if (last && g.bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, g.bias + j0 + half * 16));
      if (last && g.relu) v = _mm512_max_ps(_mm512_setzero_ps(), v);  // NaN, as second operand, stays NaN
      if (past && mask == 0xffff)
        _mm512_stream_ps(c + half * 16, v);
      else
        _mm512_mask_storeu_ps(c + half * 16, mask, v);
    }
    if (last && g.finish) g.finish(c, cols);
  }
}

constexpr int64_t kBlockMacs = kSide * kSide * kSide;

// How one product is cut: pieces of row_blocks x col_blocks, each some strips of 32 rows and panels of 32 columns.
struct TilePlan {
  int64_t strips, panels, k_blocks;  // of 32
  int64_t kc;                        // blocks of k that are summed in the tiles
  int64_t row_blocks, col_blocks;
  bool shared_a;  // A is packed once for all pieces, else by each piece
};

inline TilePlan plan_tiles(const Gemm<float>& g) {
  TilePlan p;
  p.strips = ceil_div(g.m, kSide), p.panels = ceil_div(g.n, kSide), p.k_blocks = ceil_div(g.k, kSide);
  const int64_t depth = (p.strips <= kTileFewStrips ? kTilePackKc : kTileKc) / kSide;
  p.kc = ceil_div(p.k_blocks, ceil_div(p.k_blocks, depth));
  p.col_blocks = ceil_div(p.panels, kTileCols / kSide);
  p.row_blocks = 1;
  while (p.row_blocks * p.col_blocks < kGemmChunks && g.m * g.n / (p.row_blocks * p.col_blocks) * g.k >= 2 * kTileChunkMacs) {
    const bool can_rows = p.row_blocks * 2 <= p.strips, can_cols = p.col_blocks * 2 <= p.panels;
    if (can_rows)
      p.row_blocks *= 2;
    else if (can_cols)
      p.col_blocks *= 2;
    else
      break;
  }
  const int64_t least = ceil_div(kTileChunkMacs, p.k_blocks * kBlockMacs);
  const Cut cut = fair_cut(1, p.strips, p.panels, {p.row_blocks, p.col_blocks}, least, num_threads());
  p.row_blocks = cut.rows, p.col_blocks = cut.cols;
  p.shared_a = p.col_blocks > 1;
  return p;
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

// The largest magnitudes of both operands, noted by all pieces of work.
class Magnitudes {
 public:
  void note_a(__m512i v) { raise(&a_, largest(v)); }
  void note_b(__m512i v) { raise(&b_, largest(v)); }
  void fail() { raise(&a_, kMostBits); }  // as if the operands did not split
  bool split_well(int64_t k) const { return splits_well(a_, b_, k); }

 private:
  static void raise(uint32_t* at, uint32_t value) {
    uint32_t old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (old < value && !__atomic_compare_exchange_n(at, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
  }
  uint32_t a_ = 0, b_ = 0;
};

template <class T>
inline bool wants_tiles(const Gemm<T>&, const GemmBatch&) {
  return false;
}
template <>
inline bool wants_tiles(const Gemm<float>& g, const GemmBatch& batch) {
  return batch.count == 1 && !g.accumulate && !g.mirror && tiles_pay(g.m, g.n, g.k);
}

// One block of C over `blocks` blocks of k from k on.
template <int parts>
FD_INLINE void run_block(const Gemm<float>& g, const TilePlan& plan, int64_t s, int64_t p, int64_t k, int64_t blocks,
                         const uint16_t* a, const uint16_t* b, float* sums) {
  const int64_t i = s * kSide, j = p * kSide;
  const int rows = int(min_of(kSide, g.m - i)), cols = int(min_of(kSide, g.n - j));
  const bool first = k == 0, last = k + blocks >= plan.k_blocks;
  if (rows == kSide && cols == kSide) {
    float* c = g.c + i * g.c_row + j;
    for (int r = 0; r < kSide; r++) __builtin_prefetch(c + r * g.c_row, 1), __builtin_prefetch(c + r * g.c_row + 31, 1);
    if (first && !(last && (g.bias || g.relu || g.finish))) return multiply_blocks<parts, 2, 2>(a, b, blocks, c, g.c_row);
  }
  multiply_blocks<parts>(a, b, blocks, sums, rows, cols);
  finish_block(g, i, j, sums, rows, cols, first, last);
}

// Pieces of columns, where all rows use what a piece packs: at least eight, where there are as many panels.
inline int64_t few_rows_pieces(const TilePlan& plan) {
  const int64_t width = max_of(int64_t(1), min_of(kTilePackCols / kSide, plan.panels / 8));
  return ceil_div(plan.panels, width);
}

// Few rows: A is packed once, and each piece of columns packs its part of B into memory that stays in L2, just before all rows use
// it.
template <int parts>
inline bool gemm_tiles_few_rows(const Gemm<float>& g, const TilePlan& plan, float* workspace) {
  uint16_t* const packed_a = reinterpret_cast<uint16_t*>(workspace);
  Magnitudes found;
  const int64_t least = ceil_div(kGemmPackPiece, kSide * kSide);
  const int64_t depths = fair_cut(1, plan.strips, plan.k_blocks, {plan.strips, 1}, least, num_threads()).cols;  // parts of k
  parallel_chunks(plan.strips * depths, [&](int64_t task) {
    const int64_t s = task / depths, k0 = task % depths * plan.k_blocks / depths, k1 = (task % depths + 1) * plan.k_blocks / depths;
    piece_work((k1 - k0) * kSide * kSide, 2 * kGemmPackPiece);
    found.note_a(pack_a_strip<parts>(g, s * kSide, k0 * kSide, min_of(k1 * kSide, g.k),
                                     packed_a + (s * plan.k_blocks + k0) * block_words(parts), _mm512_setzero_si512()));
  });
  const int64_t pieces = few_rows_pieces(plan), kc = plan.kc;
  parallel_chunks(pieces, [&](int64_t piece) {
    const int64_t p0 = piece * plan.panels / pieces, p1 = (piece + 1) * plan.panels / pieces;
    piece_work((p1 - p0) * plan.strips * plan.k_blocks * kBlockMacs, 2 * kTileChunkMacs);
    uint16_t* const packed_b = tile_scratch();
    if (!packed_b) return found.fail();
    alignas(64) float sums[kSide * kSide];
    const TileRegisters tiles;
    __m512i largest_b = _mm512_setzero_si512();
    for (int64_t k = 0; k < plan.k_blocks; k += kc) {
      const int64_t blocks = min_of(kc, plan.k_blocks - k);
      largest_b = pack_b_panels<parts>(g, p0, p1, k, k + blocks, packed_b, blocks * block_words(parts), largest_b);
      for (int64_t p = p0; p < p1; p++)
        for (int64_t s = 0; s < plan.strips; s++)
          run_block<parts>(g, plan, s, p, k, blocks, packed_a + (s * plan.k_blocks + k) * block_words(parts),
                           packed_b + (p - p0) * blocks * block_words(parts), sums);
    }
    found.note_b(largest_b);
  });
  return found.split_well(g.k);
}

// Any other: both operands are packed (A by the piece that uses it, if that is only one), then pieces of C are computed.
template <int parts>
inline bool gemm_tiles_blocks(const Gemm<float>& g, const TilePlan& plan, float* workspace) {
  const int64_t line = plan.k_blocks * block_words(parts);  // of one strip or panel
  uint16_t* const packed_b = reinterpret_cast<uint16_t*>(workspace);
  uint16_t* const packed_a = packed_b + plan.panels * line;
  Magnitudes found;
  const int64_t share = max_of(int64_t(1), min_of(int64_t(4), plan.panels / kGemmChunks));  // panels in one task
  const int64_t b_tasks = ceil_div(plan.panels, share), lines = b_tasks + (plan.shared_a ? plan.strips : 0);
  const int64_t most = plan.k_blocks * kSide * kSide / kGemmPackPiece;                      // of the lesser tasks, those of A
  const int64_t depths = fair_parts(b_tasks, share, lines - b_tasks, most, num_threads());  // parts of k
  parallel_chunks(lines * depths, [&](int64_t task) {
    const __m512i none = _mm512_setzero_si512();
    const int64_t i = task / depths, k0 = task % depths * plan.k_blocks / depths, k1 = (task % depths + 1) * plan.k_blocks / depths;
    const int64_t p0 = i * share, p1 = min_of(p0 + share, plan.panels), s = i - b_tasks;
    piece_work((s < 0 ? p1 - p0 : 1) * (k1 - k0) * kSide * kSide, 2 * kGemmPackPiece);
    if (s < 0)
      found.note_b(pack_b_panels<parts>(g, p0, p1, k0, k1, packed_b + p0 * line + k0 * block_words(parts), line, none));
    else
      found.note_a(pack_a_strip<parts>(g, s * kSide, k0 * kSide, min_of(k1 * kSide, g.k),
                                       packed_a + s * line + k0 * block_words(parts), none));
  });
  if (plan.shared_a && !found.split_well(g.k)) return false;

  const int64_t pieces = plan.row_blocks * plan.col_blocks;
  parallel_chunks(pieces, [&](int64_t piece) {
    const int64_t rb = piece % plan.row_blocks, cb = piece / plan.row_blocks;
    const int64_t s0 = rb * plan.strips / plan.row_blocks, s1 = (rb + 1) * plan.strips / plan.row_blocks;
    const int64_t p0 = cb * plan.panels / plan.col_blocks, p1 = (cb + 1) * plan.panels / plan.col_blocks;
    piece_work((s1 - s0) * (p1 - p0) * plan.k_blocks * kBlockMacs, 2 * kTileChunkMacs);
    uint16_t* const strip = plan.shared_a ? nullptr : tile_scratch();
    if (!plan.shared_a && !strip) return found.fail();
    alignas(64) float sums[kSide * kSide];
    const TileRegisters tiles;
    __m512i most = _mm512_setzero_si512();
    for (int64_t k = 0; k < plan.k_blocks; k += plan.kc) {
      const int64_t blocks = min_of(plan.kc, plan.k_blocks - k);
      for (int64_t s = s0; s < s1; s++) {
        const uint16_t* a = packed_a + s * line + k * block_words(parts);
        if (!plan.shared_a) {
          most = pack_a_strip<parts>(g, s * kSide, k * kSide, min_of((k + blocks) * kSide, g.k), strip, most);
          a = strip;
        }
        for (int64_t p = p0; p < p1; p++)
          run_block<parts>(g, plan, s, p, k, blocks, a, packed_b + p * line + k * block_words(parts), sums);
      }
    }
    found.note_a(most);
  });
  return found.split_well(g.k);
}

template <int parts>
inline bool gemm_tiles_parts(const Gemm<float>& g, float* workspace) {
  if (tile_workspace_elements(g.m, g.n, g.k) > kTileLimit) {  // two products, on the halves of the longer side
    Gemm<float> first = g, second = g;
    if (g.n >= g.m) {
      first.n = ceil_div(g.n / 2, kSide) * kSide;
      second.n -= first.n, second.b += first.n * g.b_col, second.c += first.n;
      if (g.bias) second.bias += first.n;
    } else {
      first.m = ceil_div(g.m / 2, kSide) * kSide;
      second.m -= first.m, second.a += first.m * g.a_row, second.c += first.m * g.c_row;
    }
    return gemm_tiles_parts<parts>(first, workspace) && gemm_tiles_parts<parts>(second, workspace);
  }
  const TilePlan plan = plan_tiles(g);
  const bool shared = cut_share(1, 1, plan.panels, {1, few_rows_pieces(plan)}, num_threads()) > kTileFewShare;  // by many threads
  return plan.strips <= kTileFewStrips && !shared ? gemm_tiles_few_rows<parts>(g, plan, workspace)
                                                  : gemm_tiles_blocks<parts>(g, plan, workspace);
}

// f(Parts<n>): n as asked for, or, if that is 0, by the setting of precision.
template <int n>
struct Parts {
  static constexpr int count = n;
};
template <class F>
inline bool with_parts(int asked, const F& f) {
  const int parts = asked ? asked : gemm_parts;
  return parts == 3 ? f(Parts<3>()) : parts == 2 ? f(Parts<2>()) : f(Parts<1>());
}

// C = A B; false where the operands do not split well, then C is not finished. parts: three for the accuracy of float32, two for
// about 16 bits, one for that of bfloat16.
template <class T>
inline bool gemm_tiles(const Gemm<T>&, T*) {
  return false;
}
template <>
inline bool gemm_tiles(const Gemm<float>& g, float* workspace) {
  return with_parts(0, [&](auto parts) { return gemm_tiles_parts<parts.count>(g, workspace); });
}

}  // namespace
}  // namespace fastdl
