// Products of float32 matrices on AMX's bfloat16 tiles, as accurate as float32 multiply-adds: operands are split in three parts,
// see gemm_amx_pack.h. Sums over blocks of k are added in float32 outside the tiles.
//
// Where the largest magnitude of an operand is not finite, or so small that parts of typical elements would vanish, gemm_tiles()
// gives up and the caller multiplies again in float32. Elements below 2^-110 beside large ones lose relative accuracy, not
// absolute.
#pragma once
#include "cpu/isa/gemm_amx_pack.h"

namespace fastdl {
namespace {

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

// A bias for 32 columns as a product of tiles, of ones and of its three parts: their sum is exact, so it is added with one
// rounding.
struct BiasTiles {
  alignas(64) uint16_t ones[512], left[512], right[512];  // rows of pairs: (1, 1), (1, 0), 0...; (b1, b2), (b3, 0), 0...

  BiasTiles() {
    for (int i = 0; i < 512; i++) ones[i] = i % kSide < 3 ? 0x3f80 : 0, left[i] = right[i] = 0;
  }
  // Whether it splits exactly: every number is 0 or of a size that products of parts may have.
  bool set(const float* bias) {
    const __m512 x = _mm512_loadu_ps(bias), y = _mm512_loadu_ps(bias + 16);
    for (const __m512 v : {x, y}) {
      const __m512i size = magnitude(v);
      const __mmask16 fine =
          _mm512_cmplt_epu32_mask(_mm512_sub_epi32(size, _mm512_set1_epi32(kLeastBits)), _mm512_set1_epi32(kMostBits - kLeastBits));
      if (__mmask16(fine | _mm512_testn_epi32_mask(size, size)) != 0xffff) return false;
    }
    const __m512i high = _mm512_set1_epi32(int(0xffff0000));
    const auto place = [&](__m512 v, uint16_t* to) {
      const __m512 first = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(v), high)), rest = _mm512_sub_ps(v, first);
      const __m512i second = _mm512_and_si512(_mm512_castps_si512(rest), high);
      const __m512i third = _mm512_castps_si512(_mm512_sub_ps(rest, _mm512_castsi512_ps(second)));
      _mm512_store_si512(to, _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(first), 16), second));
      _mm512_store_si512(to + kSide, _mm512_srli_epi32(third, 16));
    };
    place(x, left), place(y, right);
    return true;
  }
  FD_INLINE void add() const {
    FD_TILE_LOAD(4, ones, 64);
    FD_TILE_LOAD(6, left, 64);
    FD_TILE_LOAD(7, right, 64);
    FD_TILE_MULTIPLY(0, 4, 6);
    FD_TILE_MULTIPLY(1, 4, 7);
    FD_TILE_MULTIPLY(2, 4, 6);
    FD_TILE_MULTIPLY(3, 4, 7);
  }
};

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

// What else is done during the products of a block of C, a little with each product of tiles, beside which vector instructions run.
// Strides in floats.
struct Meanwhile {
  // an operand that is packed next: rows [begin, end) of each block of k, `width` floats of each, are fetched to L2
  const float* from;
  int64_t block, row;
  int begin, end, width;
  // if c is given, the rows of C are fetched to L1, some during each of the products of `blocks` blocks
  float* c;
  int64_t c_row, blocks;
  // if sums is given, it collects the sums of 32 lanes of `depth` rows: masks say which lanes exist
  const float* summed;
  int64_t sum_row, depth;
  __mmask16 left, right;
  float* sums;

  // Step `part` of `parts` of the product of block kb.
  FD_INLINE void operator()(int64_t kb, int part, int parts) const {
    const float* const p = from + kb * block;
    for (int r = begin + part; r < end; r += parts)
      for (int i = 0; i < width; i += 16) __builtin_prefetch(p + r * row + i, 0, 2);
    if (c) {
      for (int64_t r = kSide * kb / blocks + part, last = kSide * (kb + 1) / blocks; r < last; r += parts)
        __builtin_prefetch(c + r * c_row, 1), __builtin_prefetch(c + r * c_row + kSide - 1, 1);
    }
    if (sums) {
      __m512 x = _mm512_setzero_ps(), y = x;
      for (int64_t r = kSide * kb + part, last = min_of(kSide * (kb + 1), depth); r < last; r += parts) {
        x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(left, summed + r * sum_row));
        y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(right, summed + r * sum_row + 16));
      }
      _mm512_store_ps(sums, _mm512_add_ps(x, _mm512_load_ps(sums)));
      _mm512_store_ps(sums + 16, _mm512_add_ps(y, _mm512_load_ps(sums + 16)));
    }
  }
};
constexpr Meanwhile kNothing = {};

// Adds the product of `blocks` blocks of A and B, both packed.
template <int parts, int rows, int cols>
FD_INLINE void add_blocks(const uint16_t* a, const uint16_t* b, int64_t blocks, const Meanwhile& meanwhile, int64_t kb) {
  for (; blocks > 0; blocks--, kb++, a += block_words(parts), b += block_words(parts)) {
    const auto load_a = [&](int part) __attribute__((always_inline)) {
      FD_TILE_LOAD(4, a + part * 1024, 64);
      if (rows == 2) FD_TILE_LOAD(5, a + part * 1024 + 512, 64);
    };
    add_product<parts, rows, cols>(
        load_a, [&](int part) __attribute__((always_inline)) { load_packed_b<cols>(b, part); },
        [&](int part) __attribute__((always_inline)) {
          prefetch_lines(a + block_words(parts) + part * 1024);
          meanwhile(kb, part, 2 * parts);
        },
        [&](int part) __attribute__((always_inline)) {
          prefetch_lines(b + block_words(parts) + part * 1024);
          meanwhile(kb, parts + part, 2 * parts);
        });
  }
}
// out (32 x 32) = that product, and the bias if there is one.
template <int parts, int rows, int cols>
__attribute__((noinline)) void multiply_blocks(const uint16_t* a, const uint16_t* b, int64_t blocks, float* out, int64_t out_row,
                                               const BiasTiles* bias = nullptr, const Meanwhile& meanwhile = kNothing) {
  clear_block();
  add_blocks<parts, rows, cols>(a, b, blocks, meanwhile, 0);
  if (bias) bias->add();
  store_block<rows, cols>(out, out_row);
}

// Adds the product of a block of A and of B, 2 x 2 tiles, and meanwhile packs another, whole block, on vector units, beside which
// the tile unit works. turn: the block's lanes are adjacent, not its k.
template <int parts, bool right, bool turn>
__attribute__((noinline)) __m512i add_and_pack(const uint16_t* a, const uint16_t* b, const PackTask& task, int64_t stride,
                                               __m512i most, const Meanwhile& meanwhile, int64_t kb) {
  alignas(64) float scratch[kSide * kSide];
  constexpr int steps = 2 * parts, turns = turn ? (steps + 2) / 3 : 0;  // steps, of which the first only turn
  const Block block = {turn ? scratch : task.from, turn ? kSide : stride, int(kSide), int(kSide)};
  const auto pack = [&](int step) __attribute__((always_inline)) {
    if (step < turns)
      return turn_squares(task.from, stride, scratch, 4 * step / max_of(turns, 1), 4 * (step + 1) / max_of(turns, 1));
    const int begin = (step - turns) * int(kSide) / (steps - turns), end = (step - turns + 1) * int(kSide) / (steps - turns);
    most = right ? pack_b_rows<parts, true>(block, task.out, most, begin, end)
                 : pack_a_rows<parts, true>(block, task.out, most, begin, end);
  };
  const auto load_a = [&](int part) __attribute__((always_inline)) {
    FD_TILE_LOAD(4, a + part * 1024, 64);
    FD_TILE_LOAD(5, a + part * 1024 + 512, 64);
  };
  add_product<parts, 2, 2>(
      load_a, [&](int part) __attribute__((always_inline)) { load_packed_b<2>(b, part); },
      [&](int part) __attribute__((always_inline)) {
        pack(part);
        meanwhile(kb, part, 2 * parts);
      },
      [&](int part) __attribute__((always_inline)) {
        pack(parts + part);
        meanwhile(kb, parts + part, 2 * parts);
      });
  return most;
}

template <int parts>
inline void multiply_blocks(const uint16_t* a, const uint16_t* b, int64_t blocks, float* out, int64_t out_row, int rows, int cols,
                            const BiasTiles* bias, const Meanwhile& meanwhile) {
  if (rows > 16)
    return cols > 16 ? multiply_blocks<parts, 2, 2>(a, b, blocks, out, out_row, bias, meanwhile)
                     : multiply_blocks<parts, 2, 1>(a, b, blocks, out, out_row, bias, meanwhile);
  return cols > 16 ? multiply_blocks<parts, 1, 2>(a, b, blocks, out, out_row, bias, meanwhile)
                   : multiply_blocks<parts, 1, 1>(a, b, blocks, out, out_row, bias, meanwhile);
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

// Blocks of C that lie in one group of panels, in passes over k: some strips of A, or panels of B if those are fewer, are packed
// and stay in L2; each panel, or strip, is packed and multiplied with all of them. What threads share would have to come from
// memory or other cores, which costs more than to pack it once more. Where a line of blocks is whole, it is packed while it is
// multiplied for the first time, some blocks ahead.
template <int parts>
struct TilePiece {
  const Gemm<float>& g;
  const TilePlan& plan;
  Operand operands[2];  // A, B
  __m512i most[2];      // largest magnitudes
  BiasTiles bias;

  TilePiece(const Gemm<float>& g, const TilePlan& plan)
      : g(g),
        plan(plan),
        operands{{g.a, g.a_row, g.a_k, g.m, g.k, false}, {g.b, g.b_col, g.b_k, g.n, g.k, true}},
        most{_mm512_setzero_si512(), _mm512_setzero_si512()} {}

  // Block kb of a line goes to out + (kb - k) * block_words.
  struct Line {
    bool right;
    int64_t at;
    uint16_t* out;  // null: no line
  };
  PackTask task(const Line& line, int64_t k, int64_t kb) const {
    return task_of(operands[line.right], line.at, kb, line.out + (kb - k) * block_words(parts));
  }
  void pack(const Line& line, int64_t k, int64_t begin, int64_t end) {
    if (!line.out) return;
    for (int64_t kb = begin; kb < end; kb++)
      most[line.right] = pack_block<parts>(operands[line.right], task(line, k, kb), most[line.right]);
  }

  // Adds the product of blocks at a and b, and packs block kb of the line.
  void add_step(const uint16_t* a, const uint16_t* b, const Line& line, int64_t k, int64_t kb, const Meanwhile& meanwhile,
                int64_t step) {
    const Operand& o = operands[line.right];
    const PackTask t = task(line, k, kb);
    __m512i& found = most[line.right];
    if (line.right)
      found = o.lane == 1 ? add_and_pack<parts, true, false>(a, b, t, o.k, found, meanwhile, step)
                          : add_and_pack<parts, true, true>(a, b, t, o.lane, found, meanwhile, step);
    else
      found = o.k == 1 ? add_and_pack<parts, false, false>(a, b, t, o.lane, found, meanwhile, step)
                       : add_and_pack<parts, false, true>(a, b, t, o.k, found, meanwhile, step);
  }
  bool packs_along(const Line& line, int64_t kb) const {
    const Operand& o = operands[line.right];
    return line.out && (o.lane == 1 || o.k == 1) && (line.at + 1) * kSide <= o.lanes && (kb + 1) * kSide <= o.depth;
  }

  // So many blocks ahead: what was stored last step reaches L1 only when that step's products are done.
  static int64_t ahead_of(int64_t blocks) { return min_of(int64_t(2), blocks); }

  // out (32 x 32) = the product of blocks [k, k + blocks) of a strip and a panel, and meanwhile packs what is left of a line that
  // takes part, from its third block on, and the first two of the next.
  void multiply_and_pack(const uint16_t* a, const uint16_t* b, int64_t k, int64_t blocks, const Line& fresh, const Line& next,
                         float* out, int64_t out_row, const BiasTiles* added, const Meanwhile& meanwhile) {
    clear_block();
    for (int64_t kb = 0; kb < blocks; kb++, a += block_words(parts), b += block_words(parts)) {
      const int64_t ahead = kb + ahead_of(blocks), which = k + (ahead < blocks ? ahead : ahead - blocks);
      const Line& line = ahead < blocks ? fresh : next;
      if (packs_along(line, which)) {
        add_step(a, b, line, k, which, meanwhile, kb);
        continue;
      }
      pack(line, k, which, which + 1);
      add_blocks<parts, 2, 2>(a, b, 1, meanwhile, kb);
    }
    if (added) added->add();
    store_block<2, 2>(out, out_row);
  }

  // Block (s, p) of C over blocks [k, k + blocks) of k.
  void run_block(int64_t s, int64_t p, int64_t k, int64_t blocks, const uint16_t* a, const uint16_t* b, const Line& fresh,
                 const Line& next, float* sums, Meanwhile meanwhile) {
    const int64_t i = s * kSide, j = p * kSide;
    const int rows = int(min_of(kSide, g.m - i)), cols = int(min_of(kSide, g.n - j));
    const bool first = k == 0, last = k + blocks >= plan.k_blocks, whole = rows == kSide && cols == kSide;
    float* const c = g.c + i * g.c_row + j;
    if (whole) meanwhile.c = c, meanwhile.c_row = g.c_row, meanwhile.blocks = blocks;
    alignas(64) float row_sums[kSide];
    const bool summed = g.row_sums && p == 0;
    if (summed) {
      for (float& sum : row_sums) sum = 0;
      meanwhile.summed = g.a + i + k * kSide * g.a_k, meanwhile.sum_row = g.a_k, meanwhile.depth = g.k - k * kSide;
      meanwhile.left = first_lanes(rows), meanwhile.right = first_lanes(rows - 16), meanwhile.sums = row_sums;
    }
    const bool biased = whole && first && last && g.bias && !g.relu && !g.finish && bias.set(g.bias + j);
    const bool direct = whole && first && (biased || !(last && (g.bias || g.relu || g.finish)));
    float* const out = direct ? c : sums;
    const int64_t out_row = direct ? g.c_row : kSide;
    if ((fresh.out || next.out) && rows > 16 && cols > 16) {
      multiply_and_pack(a, b, k, blocks, fresh, next, out, out_row, biased ? &bias : nullptr, meanwhile);
    } else {
      pack(fresh, k, k + ahead_of(blocks), k + blocks);
      pack(next, k, k, k + ahead_of(blocks));
      multiply_blocks<parts>(a, b, blocks, out, out_row, rows, cols, biased ? &bias : nullptr, meanwhile);
    }
    if (!direct) finish_block(g, i, j, sums, rows, cols, first, last);
    if (summed)
      for (int x = 0; x < rows; x++) g.row_sums[i + x] = first ? row_sums[x] : g.row_sums[i + x] + row_sums[x];
  }

  // Share `share` of `shares` of a line's rows, of each of its blocks from k on.
  Meanwhile fetching(bool right, int64_t line, int64_t k, int64_t share, int64_t shares) const {
    const Operand& o = operands[right];
    Meanwhile ahead = kNothing;
    if (o.lane != 1 && o.k != 1) return ahead;
    ahead.from = o.from + line * kSide * o.lane + k * kSide * o.k;
    ahead.block = kSide * o.k, ahead.row = o.k == 1 ? o.lane : o.k;
    ahead.width = ((reinterpret_cast<uintptr_t>(ahead.from) / sizeof(float)) | uintptr_t(ahead.row)) % 16 ? 48 : 32;
    const int64_t rows = o.k == 1 ? min_of(kSide, o.lanes - line * kSide) : kSide;
    ahead.begin = int(rows * share / shares), ahead.end = int(rows * (share + 1) / shares);
    return ahead;
  }

  // Blocks [begin, begin + count) of the group of panels from p0 on; memory: for width + 2 packed lines of kc blocks.
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
    const Line none = {false, 0, nullptr};
    // rows of memory that belong to all kept lines, and lie in pages of their own, or nearly so: each is read for all lines at once
    const Operand &of_kept = operands[!keep_a], &of_others = operands[keep_a];
    const bool together = of_kept.lane == 1 && of_kept.k * int64_t(sizeof(float)) >= kTilePageBytes;
    const bool fetched = of_others.lanes * of_others.depth * int64_t(sizeof(float)) > kTileFetchBytes;
    for (int64_t pass = 0; pass < passes; pass++) {
      const int64_t from = first_kept + pass * kept / passes, to = first_kept + (pass + 1) * kept / passes;
      for (int64_t k = 0; k < plan.k_blocks; k += plan.kc) {
        const int64_t blocks = min_of(plan.kc, plan.k_blocks - k), words = blocks * block_words(parts);
        const auto kept_line = [&](int64_t j) { return Line{!keep_a, j, memory + (j - from) * words}; };
        const auto other_line = [&](int64_t i) { return Line{keep_a, i, memory + (to - from + i % 2) * words}; };
        for (int64_t kb = k; kb < k + blocks; kb++)
          for (int64_t j = from; j < (together ? to : from + 1); j++) pack(kept_line(j), k, kb, kb + 1);
        pack(other_line(first), k, k, k + ahead_of(blocks));
        for (int64_t i = first; i < last; i++) {
          for (int64_t j = from; j < to; j++) {
            const Line one = kept_line(j), other = other_line(i);
            const bool packs_kept = i == first && !together;
            const Line fresh = j == from ? other : packs_kept ? one : none;
            const Line next = j + 1 < to ? (packs_kept ? kept_line(j + 1) : none) : i + 1 < last ? other_line(i + 1) : none;
            Meanwhile meanwhile = kNothing;
            if (packs_kept && j + 1 < to)
              meanwhile = fetching(!keep_a, j + 1, k, 0, 1);
            else if (i + 1 < last && fetched)
              meanwhile = packs_kept ? fetching(keep_a, i + 1, k, 0, 1) : fetching(keep_a, i + 1, k, j - from, to - from);
            const int64_t s = keep_a ? j : i, p = keep_a ? i : j;
            const uint16_t *a = keep_a ? one.out : other.out, *b = keep_a ? other.out : one.out;
            if (counted(s, p)) {
              run_block(s, p, k, blocks, a, b, fresh, next, sums, meanwhile);
            } else {
              pack(fresh, k, k + ahead_of(blocks), k + blocks);
              pack(next, k, k, k + ahead_of(blocks));
            }
          }
        }
      }
    }
  }
};

// Sums of up to 32 rows of A from row i on.
inline void sum_rows_plainly(const Gemm<float>& g, int64_t i) {
  for (const int64_t end = min_of(i + kSide, g.m); i < end; i++) {
    float sum = 0;
    for (int64_t k = 0; k < g.k; k++) sum += g.a[i * g.a_row + k * g.a_k];
    g.row_sums[i] = sum;
  }
}

// Products first .. first + count - 1 of a batch, at most kTileBatch; returns, as bits, which do not split well and are not
// finished.
constexpr int64_t kTileBatch = 64;
template <int parts>
inline uint64_t gemm_tiles_parts(const Gemm<float>& all, const ProductBatch& batch, int64_t first, int64_t count) {
  const TilePlan plan = plan_tiles(all, count, num_threads());
  const int64_t one = plan.strips * plan.panels, group = plan.strips * plan.group;  // blocks of a product, of a group of panels
  Magnitudes found[kTileBatch];
  parallel_chunks(plan.pieces, [&](int64_t piece) {
    const int64_t end = (piece + 1) * count * one / plan.pieces;
    int64_t at = piece * count * one / plan.pieces;
    piece_work((end - at) * plan.k_blocks * kBlockMacs, 2 * kTileChunkMacs);
    uint16_t* const memory = static_cast<uint16_t*>(thread_scratch(2 * (plan.width + 2) * plan.kc * block_words(parts)));
    const TileRegisters tiles;
    while (at < end) {
      const int64_t item = at / one, begin = at % one % group, blocks = min_of(min_of(end - at, group - begin), one - at % one);
      if (memory) {
        const Gemm<float> g = batch_item(all, batch, first + item);
        TilePiece<parts> part(g, plan);
        part.run(at % one / group * plan.group, begin, blocks, memory);
        found[item].note_a(part.most[0]);
        found[item].note_b(part.most[1]);
      } else {  // no memory: the product is made again, the sums are not
        found[item].fail();
        const int64_t p0 = at % one / group * plan.group, row = min_of(plan.group, plan.panels - p0);
        for (int64_t i = begin; all.row_sums && p0 == 0 && i < begin + blocks; i++)
          if (i % row == 0) sum_rows_plainly(all, i / row * kSide);
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
inline uint64_t gemm_tiles(const Gemm<float>& g, const ProductBatch& batch, int64_t first, int64_t count) {
  return with_parts(0, [&](auto parts) { return gemm_tiles_parts<parts.count>(g, batch, first, count); });
}
template <class T>
inline uint64_t gemm_tiles(const Gemm<T>&, const ProductBatch&, int64_t, int64_t) {
  return 0;  // never wanted
}

}  // namespace
}  // namespace fastdl
