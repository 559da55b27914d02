// Products of bfloat16 matrices on AMX tiles: sums in float32, one rounding at the end.
//
// Method: both operands are packed as they are, in blocks of 32 x 32. A block of A has its 32 rows of 32 k; one of B has pairs of k
// side by side, in two tiles: the even columns, then the odd ones. So two rows of B become tiles by a shift and a blend, and two
// tiles of sums become a row of bfloat16 in the same way. An operand whose other axis is contiguous is turned in squares of 16 x 16
// pairs.
//
// C is computed in blocks of 32 x 32, 2 x 2 tiles. Each piece of work packs a block of B that stays in L2, then strip by strip of A
// chunks of k that stay in L1 while all panels of B stream past it, by loads that leave L1 alone: a tile comes from L2 for two
// products, which L2 delivers in their time. Sums wait in L2, as float32, for the next chunk. Blocks of 48 x 32 with sums in tiles
// for all of k need fewer loads, but most of them from L2. How sums are cut follows from k alone, how C is cut from the threads as
// well. The tile unit flushes denormal numbers.
#pragma once
#include "cpu/isa/gemm_amx.h"

namespace fastdl {
namespace {

constexpr int64_t kHalf = 16;                    // rows of a tile
constexpr int64_t kTileWords = 512;              // 16 rows of 32
constexpr int64_t kPanelWords = 2 * kTileWords;  // of a panel of B, for 32 of k
constexpr int64_t kNarrowSums = kSide * kSide;   // of a block of C

struct NarrowPlan {
  int64_t tiles, strips;           // rows in tiles, in strips of up to two tiles
  int64_t panels, k_blocks;        // of 32
  int64_t kc, chunk;               // blocks of k in one pass, of which so many of a strip stay in L1
  int64_t row_blocks, col_blocks;  // pieces of work

  FD_INLINE int64_t tile(int64_t strip) const { return strip * tiles / strips; }  // its first
};
inline NarrowPlan plan_narrow(int64_t m, int64_t n, int64_t k, int64_t batch) {
  NarrowPlan p;
  p.tiles = ceil_div(m, kHalf), p.strips = ceil_div(p.tiles, int64_t(2));
  p.panels = ceil_div(n, kSide), p.k_blocks = ceil_div(k, kSide);
  p.kc = ceil_div(p.k_blocks, ceil_div(p.k_blocks, kNarrowKc / kSide));
  p.chunk = ceil_div(p.kc, ceil_div(p.kc, kNarrowChunk));
  p.row_blocks = ceil_div(p.strips, kNarrowStrips), p.col_blocks = ceil_div(p.panels, kNarrowBlocks / p.kc);
  for (;;) {  // finer until there is enough to share
    const int64_t pieces = p.row_blocks * p.col_blocks, rows = p.strips / p.row_blocks, cols = p.panels / p.col_blocks;
    if (batch * pieces >= num_threads() || rows * cols * p.k_blocks < 2 * kNarrowChunkBlocks) break;
    if (cols >= 2 && cols >= rows / 2)
      p.col_blocks *= 2;
    else if (rows >= 2)
      p.row_blocks *= 2;
    else
      break;
  }
  return p;
}
// Words that a piece needs: a strip of A, panels of B, sums of blocks of C.
inline int64_t narrow_scratch_words(const NarrowPlan& plan) {
  const int64_t strips = ceil_div(plan.strips, plan.row_blocks), panels = ceil_div(plan.panels, plan.col_blocks);
  const int64_t sums = plan.kc < plan.k_blocks ? strips * panels : plan.chunk < plan.kc ? panels : 1;
  return plan.chunk * 2 * kTileWords + panels * plan.kc * kPanelWords + sums * kNarrowSums * 2;
}

// The first `left` of 32 words.
FD_INLINE __mmask32 first_words(int64_t left) { return left >= 32 ? ~__mmask32(0) : (__mmask32(1) << left) - 1; }

// Rows of words, rows x cols of which exist; others count as zero. Columns are adjacent.
struct WordRows {
  const bf16* from;
  int64_t row;
  int rows, cols;
};
template <bool whole>
FD_INLINE __m512i words_of(const WordRows& b, int r) {
  if (whole) return _mm512_loadu_si512(b.from + r * b.row);
  return r < b.rows ? _mm512_maskz_loadu_epi16(first_words(b.cols), b.from + r * b.row) : _mm512_setzero_si512();
}
// Pairs [p0, p1) of rows: pair p of the even columns at out + 32 p, of the odd ones 512 words on.
template <bool whole>
FD_INLINE void pack_pairs(const WordRows& b, int p0, int p1, uint16_t* out) {
  const __mmask32 odd = 0xaaaaaaaa;
#pragma GCC unroll 4
  for (int p = p0; p < p1; p++) {
    const __m512i x = words_of<whole>(b, 2 * p), y = words_of<whole>(b, 2 * p + 1);
    _mm512_store_si512(out + p * kSide, _mm512_mask_blend_epi16(odd, x, _mm512_slli_epi32(y, 16)));
    _mm512_store_si512(out + kTileWords + p * kSide, _mm512_mask_blend_epi16(odd, _mm512_srli_epi32(x, 16), y));
  }
}
template <bool whole>
FD_INLINE void pack_rows(const WordRows& b, int r0, int r1, uint16_t* out) {
#pragma GCC unroll 8
  for (int r = r0; r < r1; r++) _mm512_store_si512(out + r * kSide, words_of<whole>(b, r));
}
FD_INLINE void turn_pairs(const uint16_t* in, int64_t in_row, uint16_t* out) {  // in[l][p] -> out[p][l], 16 x 16 pairs
  transpose_square(reinterpret_cast<const float*>(in), in_row / 2, reinterpret_cast<float*>(out), int64_t(16));
}

// An operand as lines along k: rows of A or columns of B.
struct Lines {
  const bf16* data;
  int64_t line, step;  // from one line to the next, and along k
  int64_t lines, k;

  FD_INLINE bool along_lines() const { return line == 1 && step != 1; }
  FD_INLINE const bf16* at(int64_t l, int64_t q) const { return data + l * line + q * kSide * step; }
  // Block (line l, k 32 q) of `count` lines in rows along k, copied where k is not contiguous.
  FD_INLINE WordRows rows(int64_t l, int64_t q, int64_t count, uint16_t* copy) const {
    const int have = int(min_of(count, lines - l)), ks = int(min_of(kSide, k - q * kSide));
    const bf16* from = at(l, q);
    if (step == 1) return {from, line, have, ks};
    for (int i = 0; i < have; i++)
      for (int k = 0; k < ks; k++) copy[i * kSide + k] = from[i * line + k * step].bits;
    return {reinterpret_cast<const bf16*>(copy), kSide, have, ks};
  }
  // The same in rows along lines.
  FD_INLINE WordRows columns(int64_t l, int64_t q, int64_t count) const {
    return {at(l, q), step, int(min_of(kSide, k - q * kSide)), int(min_of(count, lines - l))};
  }
};
constexpr int kRun = 8;  // rows that are read from end to end before the next, for the hardware's prefetch

// Panels of B from column l on, for blocks [q0, q0 + blocks) of k: panel p at out + p * blocks * kPanelWords.
inline void pack_right(const Lines& o, int64_t l, int64_t panels, int64_t q0, int64_t blocks, uint16_t* out) {
  alignas(64) uint16_t copy[kPanelWords], lines[kPanelWords];
  for (int64_t q = 0; q < blocks; q++) {
    const bool full_k = (q0 + q + 1) * kSide <= o.k;
    for (int p0 = 0; p0 < kSide / 2; p0 += o.along_lines() ? kRun / 2 : int(kSide / 2)) {
      for (int64_t p = 0; p < panels; p++) {
        uint16_t* const to = out + (p * blocks + q) * kPanelWords;
        const int64_t first = l + p * kSide;
        const bool whole = full_k && first + kSide <= o.lines;
        if (o.along_lines()) {
          const WordRows b = o.columns(first, q0 + q, kSide);
          whole ? pack_pairs<true>(b, p0, p0 + kRun / 2, to) : pack_pairs<false>(b, p0, p0 + kRun / 2, to);
          continue;
        }
        const WordRows b = o.rows(first, q0 + q, kSide, copy);
        const uint16_t* words = reinterpret_cast<const uint16_t*>(b.from);
        int64_t row = b.row;
        if (!whole) pack_rows<false>(b, 0, int(kSide), lines), words = lines, row = kSide;
        turn_pairs(words, 2 * row, to);
        turn_pairs(words + row, 2 * row, to + kTileWords);
      }
    }
  }
}
// A strip of A from row l on: block q at out + q * tiles * kTileWords.
inline void pack_left(const Lines& o, int64_t l, int tiles, int64_t q0, int64_t blocks, uint16_t* out) {
  alignas(64) uint16_t copy[kPanelWords], turned[kTileWords];
  if (o.along_lines()) {
    for (int64_t q = 0; q < blocks; q++) {
      const bool full_k = (q0 + q + 2) * kSide <= o.k;
      for (int t = 0; t < tiles; t++, out += kTileWords) {
        const WordRows b = o.columns(l + t * kHalf, q0 + q, kHalf);
        // sixteen columns, the lower half of 32: pairs of the even ones, then of the odd ones
        pack_pairs<false>(b, 0, int(kSide / 2), copy);
        if (full_k && t % 2 == 0)
          for (int r = 0; r < kSide; r++) __builtin_prefetch(b.from + (kSide + r) * b.row);
        for (int odd = 0; odd < 2; odd++) {
          turn_pairs(copy + odd * kTileWords, kSide, turned);
          for (int r = 0; r < kHalf / 2; r++)
            _mm512_store_si512(out + (2 * r + odd) * kSide, _mm512_load_si512(turned + r * kSide));
        }
      }
    }
    return;
  }
  for (int t = 0; t < tiles; t++, l += kHalf, out += kTileWords) {
    const bool full = l + kHalf <= o.lines;
    for (int r0 = 0; r0 < int(kHalf); r0 += o.step == 1 ? kRun : int(kHalf)) {
      for (int64_t q = 0; q < blocks; q++) {
        uint16_t* const to = out + q * tiles * kTileWords;
        const WordRows b = o.rows(l, q0 + q, kHalf, copy);
        const int r1 = o.step == 1 ? r0 + kRun : int(kHalf);
        full && (q0 + q + 1) * kSide <= o.k ? pack_rows<true>(b, r0, r1, to) : pack_rows<false>(b, r0, r1, to);
      }
    }
  }
}

// Rounds the rows of a block of sums into C.
inline void finish_narrow(const Gemm<bf16>& g, int64_t i0, int64_t j0, float* sums, int64_t rows) {
  const __mmask32 mask = first_words(g.n - j0);
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
                                         19, 3, 18, 2, 17, 1, 16, 0);
  __m512i bias = _mm512_setzero_si512();
  if (g.bias) bias = _mm512_maskz_loadu_epi16(mask, g.bias + j0);
  const __m512 bias_even = _mm512_castsi512_ps(_mm512_slli_epi32(bias, 16));
  const __m512 bias_odd = _mm512_castsi512_ps(_mm512_and_si512(bias, _mm512_set1_epi32(int(0xffff0000))));
  for (int64_t r = 0; r < rows; r++) {
    float* s = sums + r * kSide;
    __m512 even = _mm512_load_ps(s), odd = _mm512_load_ps(s + 16);
    if (g.bias) even = _mm512_add_ps(even, bias_even), odd = _mm512_add_ps(odd, bias_odd);
    if (g.relu) even = _mm512_max_ps(_mm512_setzero_ps(), even), odd = _mm512_max_ps(_mm512_setzero_ps(), odd);  // NaN stays
    if (g.finish) {
      _mm512_store_ps(s, even), _mm512_store_ps(s + 16, odd);
      g.finish(s, kSide);
      even = _mm512_load_ps(s), odd = _mm512_load_ps(s + 16);
    }
    const __m512i words = _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
    _mm512_mask_storeu_epi16(g.c + (i0 + r) * g.c_row + j0, mask, words);
  }
}

// out (16 tiles x 32 floats, even columns first) = start (null: zero) + the product of `blocks` blocks of A and B. A stays in L1,
// as tiles of B go past it.
template <int tiles>
__attribute__((noinline)) void multiply_narrow(const uint16_t* a, const uint16_t* b, int64_t blocks, const float* start,
                                               float* out) {
  constexpr int64_t row = kSide * 4, half = kHalf * kSide;
  if (start) {
    FD_TILE_LOAD_PAST(0, start, row);
    FD_TILE_LOAD_PAST(2, start + 16, row);
    if (tiles > 1) {
      FD_TILE_LOAD_PAST(1, start + half, row);
      FD_TILE_LOAD_PAST(3, start + half + 16, row);
    }
  } else {
    FD_TILE_ZERO(0);
    FD_TILE_ZERO(1);
    FD_TILE_ZERO(2);
    FD_TILE_ZERO(3);
  }
  for (; blocks > 0; blocks--, a += tiles * kTileWords, b += kPanelWords) {
    FD_TILE_LOAD_PAST(6, b, 64);
    FD_TILE_LOAD(4, a, 64);
    FD_TILE_MULTIPLY(0, 4, 6);
    if (tiles > 1) {
      FD_TILE_LOAD(5, a + kTileWords, 64);
      FD_TILE_MULTIPLY(1, 5, 6);
    }
    FD_TILE_LOAD_PAST(7, b + kTileWords, 64);
    FD_TILE_MULTIPLY(2, 4, 7);
    if (tiles > 1) FD_TILE_MULTIPLY(3, 5, 7);
  }
  FD_TILE_STORE(0, out, row);
  FD_TILE_STORE(2, out + 16, row);
  if (tiles > 1) {
    FD_TILE_STORE(1, out + half, row);
    FD_TILE_STORE(3, out + half + 16, row);
  }
}

// Strips [s0, s1) x panels [p0, p1) of C.
inline void narrow_piece(const Gemm<bf16>& g, const NarrowPlan& plan, int64_t s0, int64_t s1, int64_t p0, int64_t p1,
                         uint16_t* scratch) {
  const Lines a = {g.a, g.a_row, g.a_k, g.m, g.k}, b = {g.b, g.b_col, g.b_k, g.n, g.k};
  const int64_t panels = p1 - p0;
  uint16_t* const strip = scratch;
  uint16_t* const packed_b = strip + plan.chunk * 2 * kTileWords;
  float* const sums = reinterpret_cast<float*>(packed_b + panels * plan.kc * kPanelWords);
  const int64_t of_panel = plan.chunk < plan.k_blocks ? kNarrowSums : 0,
                of_strip = plan.kc < plan.k_blocks ? panels * kNarrowSums : 0;
  const TileRegisters registers;
  for (int64_t k = 0; k < plan.k_blocks; k += plan.kc) {
    const int64_t end = min_of(k + plan.kc, plan.k_blocks);
    for (int64_t q = k; q < end; q += plan.chunk)
      pack_right(b, p0 * kSide, panels, q, min_of(plan.chunk, end - q), packed_b + (q - k) * panels * kPanelWords);
    for (int64_t s = s0; s < s1; s++) {
      const int64_t i = plan.tile(s) * kHalf, next = plan.tile(s + 1) * kHalf, rows = min_of(next, g.m) - i;
      const int tiles = int((next - i) / kHalf);
      const auto multiply = tiles == 2 ? multiply_narrow<2> : multiply_narrow<1>;
      for (int64_t q = k; q < end; q += plan.chunk) {
        const int64_t blocks = min_of(plan.chunk, end - q);
        pack_left(a, i, tiles, q, blocks, strip);
        const uint16_t* panel = packed_b + (q - k) * panels * kPanelWords;
        for (int64_t p = 0; p < panels; p++, panel += blocks * kPanelWords) {
          float* const kept = sums + (s - s0) * of_strip + p * of_panel;
          multiply(strip, panel, blocks, q > 0 ? kept : nullptr, kept);
          if (q + blocks == plan.k_blocks) finish_narrow(g, i, (p0 + p) * kSide, kept, rows);
        }
      }
    }
  }
}

// The same without tiles, for what they cannot do: k of 0, or no memory to pack to.
inline void narrow_plain(const Gemm<bf16>& g, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  for (int64_t i = i0; i < i1; i++)
    for (int64_t j = j0; j < j1; j++) {
      float sum = 0;
      for (int64_t k = 0; k < g.k; k++)
        sum += load_wide_one(g.a + i * g.a_row + k * g.a_k) * load_wide_one(g.b + k * g.b_k + j * g.b_col);
      if (g.bias) sum += load_wide_one(g.bias + j);
      if (g.relu) sum = sum < 0 ? 0 : sum;  // NaN stays
      if (g.finish) g.finish(&sum, 1);
      store_narrow_one(g.c + i * g.c_row + j, sum);
    }
}

// C = A B for every matrix of the batch. Needs no workspace.
inline void gemm_narrow(Gemm<bf16> g, ProductBatch batch) {
  if (batch.count == 0 || g.m == 0 || g.n == 0) return;
  merge_rows(g, batch);
  const NarrowPlan plan = plan_narrow(g.m, g.n, max_of(g.k, int64_t(1)), batch.count);
  const int64_t pieces = plan.row_blocks * plan.col_blocks, words = narrow_scratch_words(plan);
  const int64_t blocks = max_of(plan.strips * plan.panels * plan.k_blocks / pieces, int64_t(1));
  const int64_t group = pieces > 1 ? 1 : max_of(int64_t(1), kNarrowChunkBlocks / blocks);  // small products share a chunk
  parallel_for(batch.count * pieces, group, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const Gemm<bf16> one = batch_item(g, batch, i / pieces);
      const int64_t rb = i % pieces % plan.row_blocks, cb = i % pieces / plan.row_blocks;
      const int64_t s0 = rb * plan.strips / plan.row_blocks, s1 = (rb + 1) * plan.strips / plan.row_blocks;
      const int64_t p0 = cb * plan.panels / plan.col_blocks, p1 = (cb + 1) * plan.panels / plan.col_blocks;
      uint16_t* const scratch = g.k > 0 ? static_cast<uint16_t*>(thread_scratch(2 * words)) : nullptr;
      if (scratch)
        narrow_piece(one, plan, s0, s1, p0, p1, scratch);
      else
        narrow_plain(one, plan.tile(s0) * kHalf, min_of(plan.tile(s1) * kHalf, g.m), p0 * kSide, min_of(p1 * kSide, g.n));
    }
  });
}

}  // namespace
}  // namespace fastdl
