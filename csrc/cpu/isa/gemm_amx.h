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

// How products are cut. Blocks of 32 x 32 of C are counted along the rows of groups of panels, group after group; a piece is a
// stretch of them, as long as any other. Pieces follow the thread count, the order of sums does not.
struct TilePlan {
  int64_t strips, panels, k_blocks;  // of 32
  int64_t kc;                        // blocks of k that are summed in the tiles
  int64_t width;                     // strips or panels that a pass over kc blocks keeps packed
  int64_t group, pieces;             // panels, and pieces of the whole batch
};

inline TilePlan plan_tiles(const Gemm<float>& g, int64_t batch, int threads) {
  TilePlan p;
  p.strips = ceil_div(g.m, kSide), p.panels = ceil_div(g.n, kSide), p.k_blocks = ceil_div(g.k, kSide);
  p.kc = ceil_div(p.k_blocks, ceil_div(p.k_blocks, (g.k <= kTileKc ? kTileKc : kTilePassKc) / kSide));
  p.width = kTilePassBlocks / p.kc;
  p.group = p.panels, p.pieces = 1;
  if (threads == 1) return p;
  // What a thread does, in products of blocks: it also packs the lines that its stretches touch. As many pieces as cost hardly more
  // than one for each thread, as threads are not equally fast.
  const int64_t blocks = batch * p.strips * p.panels, most = blocks * p.k_blocks * kBlockMacs / kTileChunkMacs;
  double least = 0;
  for (int64_t rounds = 1; rounds <= 4; rounds++) {
    const int64_t pieces = max_of<int64_t>(1, min_of(rounds * threads, most));
    const double each = double(blocks) / double(pieces), number = double(ceil_div<int64_t>(pieces, threads));
    double cost = 0;
    int64_t group = 0;
    for (int64_t wide = p.panels; wide > 0; wide = min_of(wide - 1, ceil_div(p.panels, ceil_div(p.panels, wide) + 1))) {
      const int64_t high = min_of(p.strips, int64_t(each / double(wide)) + 1);
      const int64_t kept = min_of(wide, high);
      const double packs = double(kept + max_of(wide, high) * ceil_div(kept, p.width)), crossed = each / double(p.strips * wide);
      const double now = number * (each + kTilePackCost * packs * max_of(crossed, 1.0));
      if (group == 0 || now < cost) cost = now, group = wide;
    }
    if (rounds > 1 && cost > kTileCutLoss * least) break;
    if (rounds == 1) least = cost;
    p.group = group, p.pieces = pieces;
  }
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
inline bool wants_tiles(const Gemm<T>&) {
  return false;
}
template <>
inline bool wants_tiles(const Gemm<float>& g) {
  return !g.accumulate && !g.mirror && tiles_pay(g.m, g.n, g.k);
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

// Brings one of `shares` shares of `lanes` rows of A, or columns of B, for `depth` of k, to L2.
FD_INLINE void fetch_lanes(const float* from, int64_t lane, int64_t k, int64_t lanes, int64_t depth, int64_t share,
                           int64_t shares) {
  const bool along_k = k == 1;
  if (!along_k && lane != 1) return;
  const int64_t lines = along_k ? lanes : depth, length = along_k ? depth : lanes;
  for (int64_t l = share * lines / shares; l < (share + 1) * lines / shares; l++)
    for (int64_t j = 0; j < length; j += 16) __builtin_prefetch(from + l * (along_k ? lane : k) + j, 0, 2);
}

// Blocks of C that lie in one group of panels, in passes over k: some strips of A, or panels of B if those are fewer, are packed
// and stay in L2; each panel, or strip, is packed just before it is multiplied with all of them. What threads share would have to
// come from memory or other cores, which costs more than to pack it once more.
template <int parts>
struct TilePiece {
  const Gemm<float>& g;
  const TilePlan& plan;
  __m512i most_a, most_b;  // largest magnitudes

  void pack_a(int64_t s0, int64_t s1, int64_t k, int64_t blocks, uint16_t* out) {
    for (int64_t s = s0; s < s1; s++, out += blocks * block_words(parts))
      most_a = pack_a_strip<parts>(g, s * kSide, k * kSide, min_of((k + blocks) * kSide, g.k), out, most_a);
  }
  void pack_b(int64_t p0, int64_t p1, int64_t k, int64_t blocks, uint16_t* out) {
    most_b = pack_b_panels<parts>(g, p0, p1, k, k + blocks, out, blocks * block_words(parts), most_b);
  }
  void fetch_a(int64_t s, int64_t k, int64_t blocks, int64_t share, int64_t shares) const {
    fetch_lanes(g.a + s * kSide * g.a_row + k * kSide * g.a_k, g.a_row, g.a_k, min_of(kSide, g.m - s * kSide),
                min_of(blocks * kSide, g.k - k * kSide), share, shares);
  }
  void fetch_b(int64_t p, int64_t k, int64_t blocks, int64_t share, int64_t shares) const {
    fetch_lanes(g.b + p * kSide * g.b_col + k * kSide * g.b_k, g.b_col, g.b_k, min_of(kSide, g.n - p * kSide),
                min_of(blocks * kSide, g.k - k * kSide), share, shares);
  }

  // Blocks [begin, begin + count) of the group of panels from p0 on; memory: for width + 1 packed lines of kc blocks.
  void run(int64_t p0, int64_t begin, int64_t count, uint16_t* memory) {
    alignas(64) float sums[kSide * kSide];
    const int64_t row = min_of(plan.group, plan.panels - p0);  // of the group
    int64_t p1 = p0 + row, s0 = begin / row, s1 = ceil_div(begin + count, row), skipped = begin % row,
            left = s1 * row - begin - count;
    if (s1 - s0 == 1) p0 += skipped, p1 -= left, skipped = left = 0;
    const auto counted = [&](int64_t s, int64_t p) { return (s > s0 || p - p0 >= skipped) && (s + 1 < s1 || p1 - p > left); };
    const bool keep_a = s1 - s0 < p1 - p0;
    const int64_t first_kept = keep_a ? s0 : p0, kept = keep_a ? s1 - s0 : p1 - p0, passes = ceil_div(kept, plan.width);
    const int64_t first = keep_a ? p0 : s0, last = keep_a ? p1 : s1;  // of the others
    for (int64_t pass = 0; pass < passes; pass++) {
      const int64_t from = first_kept + pass * kept / passes, to = first_kept + (pass + 1) * kept / passes;
      for (int64_t k = 0; k < plan.k_blocks; k += plan.kc) {
        const int64_t blocks = min_of(plan.kc, plan.k_blocks - k), line = blocks * block_words(parts);
        uint16_t* const packed = memory + (to - from) * line;
        keep_a ? pack_a(from, to, k, blocks, memory) : pack_b(from, to, k, blocks, memory);
        for (int64_t i = first; i < last; i++) {
          keep_a ? pack_b(i, i + 1, k, blocks, packed) : pack_a(i, i + 1, k, blocks, packed);
          for (int64_t j = from; j < to; j++) {
            const int64_t s = keep_a ? j : i, p = keep_a ? i : j;
            if (i + 1 < last)
              keep_a ? fetch_b(i + 1, k, blocks, j - from, to - from) : fetch_a(i + 1, k, blocks, j - from, to - from);
            const uint16_t* const there = memory + (j - from) * line;
            if (counted(s, p)) run_block<parts>(g, plan, s, p, k, blocks, keep_a ? there : packed, keep_a ? packed : there, sums);
          }
        }
      }
    }
  }
};

// Products first .. first + count - 1 of a batch, at most kTileBatch; returns, as bits, which do not split well and are not
// finished.
constexpr int64_t kTileBatch = 64;
template <int parts>
inline uint64_t gemm_tiles_parts(const Gemm<float>& all, const GemmBatch& batch, int64_t first, int64_t count) {
  const TilePlan plan = plan_tiles(all, count, num_threads());
  const int64_t one = plan.strips * plan.panels, group = plan.strips * plan.group;  // blocks of a product, of a group of panels
  Magnitudes found[kTileBatch];
  parallel_chunks(plan.pieces, [&](int64_t piece) {
    const int64_t end = (piece + 1) * count * one / plan.pieces;
    int64_t at = piece * count * one / plan.pieces;
    piece_work((end - at) * plan.k_blocks * kBlockMacs, 2 * kTileChunkMacs);
    uint16_t* const memory = static_cast<uint16_t*>(thread_scratch(2 * (plan.width + 1) * plan.kc * block_words(parts)));
    const TileRegisters tiles;
    while (at < end) {
      const int64_t item = at / one, begin = at % one % group, blocks = min_of(min_of(end - at, group - begin), one - at % one);
      if (memory) {
        const Gemm<float> g = batch_item(all, batch, first + item);
        TilePiece<parts> part = {g, plan, _mm512_setzero_si512(), _mm512_setzero_si512()};
        part.run(at % one / group * plan.group, begin, blocks, memory);
        found[item].note_a(part.most_a);
        found[item].note_b(part.most_b);
      } else {
        found[item].fail();
      }
      at += blocks;
    }
  });
  uint64_t failed = 0;
  for (int64_t i = 0; i < count; i++) failed |= uint64_t(!found[i].split_well(all.k)) << i;
  return failed;
}

// f(Parts<n>): n as asked for, or, if that is 0, by the setting of precision.
template <int n>
struct Parts {
  static constexpr int count = n;
};
template <class F>
inline auto with_parts(int asked, const F& f) {
  const int parts = asked ? asked : gemm_parts;
  return parts == 3 ? f(Parts<3>()) : parts == 2 ? f(Parts<2>()) : f(Parts<1>());
}

// C = A B for some matrices of a batch, see gemm_tiles_parts. Three parts for the accuracy of float32, two for about 16 bits, one
// for that of bfloat16.
inline uint64_t gemm_tiles(const Gemm<float>& g, const GemmBatch& batch, int64_t first, int64_t count) {
  return with_parts(0, [&](auto parts) { return gemm_tiles_parts<parts.count>(g, batch, first, count); });
}
template <class T>
inline uint64_t gemm_tiles(const Gemm<T>&, const GemmBatch&, int64_t, int64_t) {
  return 0;  // never wanted
}

}  // namespace
}  // namespace fastdl
