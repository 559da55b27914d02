// Blocks of attention on AMX tiles, for the precisions "high" and "medium", each float32 as two or one bfloat16 parts (see
// gemm_amx.h): 32 queries by 32 keys, in passes of kAttentionKeys keys. Scores are transposed here, too, a row per key. So
// exp(score - peak) is packed as it lies, as left operand for the gradients of keys and values and as right operand for the result
// and the gradient of the query, which come out transposed.
#pragma once
#include "cpu/isa/attention.h"
#include "cpu/isa/gemm_amx.h"

namespace fastdl {
namespace {

constexpr int64_t kBlockFloats = kSide * kSide;
constexpr int kTileVectors = 2;  // a row of 32 scores
constexpr uint32_t kOneBits = 0x3f800000;

// Blocks and floats, one after the other.
struct Scratch {
  float* next;
  float* floats(int64_t blocks) {
    float* const p = next;
    next += blocks * kBlockFloats;
    return p;
  }
  template <int parts>
  uint16_t* packed(int64_t blocks) {
    uint16_t* const p = reinterpret_cast<uint16_t*>(next);
    next += blocks * block_words(parts) / 2;
    return p;
  }
};

// A block whose element (r, c) lies at from[r * row + c * col]; scratch where columns are not adjacent.
inline Block block_of(const float* from, int64_t row, int64_t col, int64_t rows, int64_t cols, float* scratch) {
  const int r = int(min_of(rows, kSide)), c = int(min_of(cols, kSide));
  return col == 1 ? Block{from, row, r, c} : turned(from, row, col, r, c, scratch);
}
template <int parts>
inline __m512i pack_left(const Block& b, uint16_t* out, __m512i most) {
  return b.rows == kSide && b.cols == kSide ? pack_a_rows<parts, true>(b, out, most) : pack_a_rows<parts, false>(b, out, most);
}
template <int parts>
inline __m512i pack_right(const Block& b, uint16_t* out, __m512i most) {
  return b.rows == kSide && b.cols == kSide ? pack_b_rows<parts, true>(b, out, most) : pack_b_rows<parts, false>(b, out, most);
}

// c += the product of one block each.
template <int parts>
__attribute__((noinline)) void add_block(const uint16_t* a, const uint16_t* b, float* c) {
  FD_TILE_LOAD(0, c, kSide * 4);
  FD_TILE_LOAD(1, c + 16, kSide * 4);
  FD_TILE_LOAD(2, c + 16 * kSide, kSide * 4);
  FD_TILE_LOAD(3, c + 16 * kSide + 16, kSide * 4);
  const auto load_a = [&](int part) __attribute__((always_inline)) {
    FD_TILE_LOAD(4, a + part * 1024, 64);
    FD_TILE_LOAD(5, a + part * 1024 + 512, 64);
  };
  add_product<parts, 2, 2>(load_a, b, [](int) {});
  store_block<2, 2>(c, kSide);
}

// to += rows x cols of a block; the sum is never -0 where `to` is 0.
inline void add_rows(const float* block, int64_t rows, int64_t cols, float* to, int64_t to_row) {
  for (int64_t i = 0; i < rows; i++)
    for (int half = 0; half < 2; half++) {
      const __mmask16 mask = first_lanes(cols - half * 16);
      float* const p = to + i * to_row + half * 16;
      _mm512_mask_storeu_ps(p, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, p), _mm512_load_ps(block + i * kSide + half * 16)));
    }
}

// Rows [from, to) of scores count for nothing.
inline void clear_scores(float* scores, int64_t from, int64_t to) {
  __builtin_memset(scores + from * kSide, 0, size_t((to - from) * kSide) * sizeof(float));
}

// A block of queries, scaled, or of other rows, with a row per column of theirs: in[i][e] -> out[e * 32 + i], packed as right
// operand.
template <int parts>
inline __m512i pack_turned(const float* in, int64_t row, int64_t col, int64_t rows, int64_t width, float scale, float* floats,
                           uint16_t* out, __m512i most) {
  turn_rows(in, row, col, rows, width, kSide, floats);
  if (scale != 1)
    for (int64_t x = 0; x < width * kSide; x += VecF::size) store(floats + x, load(floats + x) * VecF(scale));
  for (int64_t e = 0; e < width; e += kSide, out += block_words(parts))
    most = pack_right<parts>({floats + e * kSide, kSide, int(min_of(kSide, width - e)), int(kSide)}, out, most);
  return most;
}

template <int parts>
inline bool forward_tiles(const Forward<float>& f, int64_t head, int64_t begin, int64_t end, float* memory, Ahead& ahead) {
  constexpr int64_t words = block_words(parts), passes = kAttentionKeys / kSide;
  const AttentionShape& s = f.s;
  const int64_t e = ceil_div(s.width, kSide), w = ceil_div(s.value_width, kSide), blocks = ceil_div(end - begin, kSide);
  Scratch scratch{memory};
  uint16_t* const keys = scratch.packed<parts>(passes * e);
  uint16_t* const values = scratch.packed<parts>(passes * w);
  uint16_t* const queries = scratch.packed<parts>(blocks * e);
  uint16_t* const weights = scratch.packed<parts>(passes);
  float* const turned_rows = scratch.floats(e);
  float* const scores = scratch.floats(passes);
  float* const mask_block = scratch.floats(passes);
  float* const product = scratch.floats(1);
  float* const sums = scratch.floats(blocks * w);  // of each block of queries: a row per column of the values
  const float *k = f.k[head], *v = f.v[head], *mask = f.mask[head];
  const auto block_at = [&](int64_t b) { return BlockAt{head, begin + b * kSide, min_of(kSide, end - begin - b * kSide)}; };

  __m512i most_q = _mm512_setzero_si512(), most_k = most_q, most_v = most_q;
  Running<float, kTileVectors> running[kAttentionGroup];
  for (int64_t b = 0; b < blocks; b++) {
    const BlockAt at = block_at(b);
    most_q = pack_turned<parts>(f.q[head] + at.i0 * f.q.row, f.q.row, f.q.col, at.rows, s.width, f.scale, turned_rows,
                                queries + b * e * words, most_q);
    for (int n = 0; n < kTileVectors; n++) running[b].peak[n] = VecF(-kInf<float>), running[b].total[n] = VecF(0.0f);
  }
  __builtin_memset(sums, 0, size_t(blocks * w * kBlockFloats) * sizeof(float));
  const TileRegisters tiles;
  const int64_t in_sight = keys_in_sight(s, block_at(blocks - 1), f.causal);
  for (int64_t j0 = 0; j0 < in_sight; j0 += kAttentionKeys) {
    const int64_t here = min_of(kAttentionKeys, in_sight - j0), key_blocks = ceil_div(here, kSide);
    for (int64_t j = 0; j < key_blocks; j++) {
      const int64_t at = j0 + j * kSide, rows = in_sight - at;
      for (int64_t x = 0; x < e; x++)
        most_k =
            pack_left<parts>(block_of(k + at * f.k.row + x * kSide * f.k.col, f.k.row, f.k.col, rows, s.width - x * kSide, product),
                             keys + (j * e + x) * words, most_k);
      for (int64_t x = 0; x < w; x++)
        most_v = pack_left<parts>(
            block_of(v + at * f.v.row + x * kSide * f.v.col, f.v.col, f.v.row, s.value_width - x * kSide, rows, product),
            values + (x * key_blocks + j) * words, most_v);
    }
    for (int64_t b = 0; b < blocks; b++) {
      const BlockAt at = block_at(b);
      const int64_t seen = min_of(here, keys_in_sight(s, at, f.causal) - j0), seen_blocks = ceil_div(seen, kSide);
      if (seen <= 0) continue;
      for (int64_t j = 0; j < seen_blocks; j++)
        multiply_blocks<parts, 2, 2>(keys + j * e * words, queries + b * e * words, e, scores + j * kBlockFloats, kSide);
      if (j0 == 0)
        for (int n = 0; n < kAheadForward; n++) ahead();
      mask_scores<float, kTileVectors>(scores, mask, f.mask.row, f.mask.col, at, j0, seen, f.causal, mask_block);
      VecF before[kTileVectors];
      soften<float, kTileVectors>(scores, seen, running[b], before);
      clear_scores(scores, seen, seen_blocks * kSide);
      for (int64_t j = 0; j < seen_blocks; j++)
        pack_b_rows<parts, true>({scores + j * kBlockFloats, kSide, int(kSide), int(kSide)}, weights + j * words, most_v);
      for (int64_t x = 0; x < w; x++) {
        multiply_blocks<parts, 2, 2>(values + x * key_blocks * words, weights, seen_blocks, product, kSide);
        float* const sum = sums + (b * w + x) * kBlockFloats;
        for (int64_t at_row = 0; at_row < kBlockFloats; at_row += kSide)
          for (int n = 0; n < kTileVectors; n++) {
            float* const p = sum + at_row + n * VecF::size;
            store(p, fma(load(p), before[n], load(product + at_row + n * VecF::size)));
          }
      }
    }
  }
  if (!splits_well(largest(most_q), largest(most_k), s.width) || !splits_well(kOneBits, largest(most_v), s.keys)) return false;
  for (int64_t b = 0; b < blocks; b++) {
    const BlockAt at = block_at(b);
    VecF factor[kTileVectors];
    for (int n = 0; n < kTileVectors; n++) {
      const int part = int(max_of(int64_t(0), min_of(int64_t(VecF::size), at.rows - n * VecF::size)));
      const VecF total = running[b].total[n], peak = running[b].peak[n];
      factor[n] = select(total == VecF(0.0f), VecF(0.0f), VecF(1.0f) / total);
      store_partial(f.factor[head] + at.i0 + n * VecF::size, factor[n], part);
      store_partial(f.peak[head] + at.i0 + n * VecF::size, select(peak == VecF(-kInf<float>), VecF(0.0f), peak), part);
    }
    for (int64_t x = 0; x < w; x++) {
      float* const sum = sums + (b * w + x) * kBlockFloats;
      for (int64_t p = 0; p < kBlockFloats; p += VecF::size) store(sum + p, load(sum + p) * factor[p / VecF::size % kTileVectors]);
      float* const y = f.y[head] + at.i0 * f.y.row + x * kSide;
      const int64_t cols = min_of(kSide, s.value_width - x * kSide);
      if (at.rows == kSide && cols == kSide) {
        transpose_whole<kSide>(static_cast<const float*>(sum), kSide, y, f.y.row);
        continue;
      }
      transpose_whole<kSide>(static_cast<const float*>(sum), kSide, product, kSide);
      for (int64_t i = 0; i < at.rows; i++) __builtin_memcpy(y + i * f.y.row, product + i * kSide, size_t(cols) * sizeof(float));
    }
  }
  return true;
}

template <int parts>
inline bool backward_tiles(const Backward<float>& b, int64_t head, int64_t begin, int64_t end, float* dq, int64_t dq_row,
                           float* memory, Ahead& ahead) {
  constexpr int64_t words = block_words(parts), passes = kAttentionKeys / kSide;
  const AttentionShape& s = b.s;
  const int64_t e = ceil_div(s.width, kSide), w = ceil_div(s.value_width, kSide);
  Scratch scratch{memory};
  uint16_t* const keys = scratch.packed<parts>(passes * e);         // left operands: rows of keys, ...
  uint16_t* const turned_keys = scratch.packed<parts>(passes * e);  // ... of their columns, ...
  uint16_t* const values = scratch.packed<parts>(passes * w);
  uint16_t* const left = scratch.packed<parts>(2);
  uint16_t* const turned_queries = scratch.packed<parts>(e);  // right operands
  uint16_t* const queries = scratch.packed<parts>(e);
  uint16_t* const turned_gradients = scratch.packed<parts>(w);
  uint16_t* const gradients = scratch.packed<parts>(w);
  uint16_t* const right = scratch.packed<parts>(passes);
  float* const query_rows = scratch.floats(e);
  float* const gradient_rows = scratch.floats(w);
  float* const result_rows = scratch.floats(w);
  float* const scores = scratch.floats(passes);
  float* const slopes = scratch.floats(passes);
  float* const mask_block = scratch.floats(passes);
  float* const key_sums = scratch.floats(passes * e);
  float* const value_sums = scratch.floats(passes * w);
  float* const product = scratch.floats(2);
  const float *q = b.q[head], *k = b.k[head], *v = b.v[head], *g = b.g[head], *y = b.y[head], *mask = b.mask[head];

  const __m512i none = _mm512_setzero_si512();
  __m512i most_q = none, most_scaled = none, most_k = none, most_v = none, most_g = none, most_p = none, most_ds = none;
  clear_rows(dq, dq_row, 0, s.queries, s.width);
  const TileRegisters tiles;
  for (int64_t j0 = begin; j0 < end; j0 += kAttentionKeys) {
    const int64_t here = min_of(kAttentionKeys, end - j0), key_blocks = ceil_div(here, kSide);
    for (int64_t j = 0; j < key_blocks; j++) {
      const int64_t at = j0 + j * kSide, rows = end - at;
      for (int64_t x = 0; x < e; x++) {
        const float* const from = k + at * b.k.row + x * kSide * b.k.col;
        const int64_t cols = s.width - x * kSide;
        most_k = pack_left<parts>(block_of(from, b.k.row, b.k.col, rows, cols, product), keys + (j * e + x) * words, most_k);
        pack_left<parts>(block_of(from, b.k.col, b.k.row, cols, rows, product), turned_keys + (x * key_blocks + j) * words, none);
      }
      for (int64_t x = 0; x < w; x++)
        most_v = pack_left<parts>(
            block_of(v + at * b.v.row + x * kSide * b.v.col, b.v.row, b.v.col, rows, s.value_width - x * kSide, product),
            values + (j * w + x) * words, most_v);
    }
    __builtin_memset(key_sums, 0, size_t(passes * e * kBlockFloats) * sizeof(float));
    __builtin_memset(value_sums, 0, size_t(passes * w * kBlockFloats) * sizeof(float));
    for (int64_t i0 = b.causal ? j0 / kSide * kSide : 0; i0 < s.queries; i0 += kSide) {
      const BlockAt at{head, i0, min_of(kSide, s.queries - i0)};
      const float *q_at = q + i0 * b.q.row, *g_at = g + i0 * b.g.row;
      most_scaled = pack_turned<parts>(q_at, b.q.row, b.q.col, at.rows, s.width, b.scale, query_rows, turned_queries, most_scaled);
      most_g = pack_turned<parts>(g_at, b.g.row, b.g.col, at.rows, s.value_width, 1, gradient_rows, turned_gradients, most_g);
      turn_rows(y + i0 * b.y.row, b.y.row, b.y.col, at.rows, s.value_width, kSide, result_rows);
      for (int64_t x = 0; x < e; x++)
        most_q = pack_right<parts>(block_of(q_at + x * kSide * b.q.col, b.q.row, b.q.col, at.rows, s.width - x * kSide, product),
                                   queries + x * words, most_q);
      for (int64_t x = 0; x < w; x++)
        pack_right<parts>(block_of(g_at + x * kSide * b.g.col, b.g.row, b.g.col, at.rows, s.value_width - x * kSide, product),
                          gradients + x * words, none);
      const Saved<float, kTileVectors> saved(b.peak[head] + i0, b.factor[head] + i0, at.rows, gradient_rows, result_rows,
                                             s.value_width);
      const int64_t seen = min_of(here, keys_in_sight(s, at, b.causal) - j0), seen_blocks = ceil_div(seen, kSide);
      for (int64_t j = 0; j < seen_blocks; j++) {
        multiply_blocks<parts, 2, 2>(keys + j * e * words, turned_queries, e, scores + j * kBlockFloats, kSide);
        multiply_blocks<parts, 2, 2>(values + j * w * words, turned_gradients, w, slopes + j * kBlockFloats, kSide);
      }
      if (j0 == begin)
        for (int n = 0; n < kAheadBackward; n++) ahead();
      mask_scores<float, kTileVectors>(scores, mask, b.mask.row, b.mask.col, at, j0, seen, b.causal, mask_block);
      differentiate<float, kTileVectors>(scores, slopes, seen, saved, b.scale);
      clear_scores(scores, seen, seen_blocks * kSide);
      clear_scores(slopes, seen, seen_blocks * kSide);
      for (int64_t j = 0; j < seen_blocks; j++) {
        const Block p{scores + j * kBlockFloats, kSide, int(kSide), int(kSide)},
            ds{slopes + j * kBlockFloats, kSide, int(kSide), int(kSide)};
        most_p = pack_a_rows<parts, true>(p, left, most_p);
        most_ds = pack_a_rows<parts, true>(ds, left + words, most_ds);
        pack_b_rows<parts, true>(ds, right + j * words, none);
        for (int64_t x = 0; x < w; x++) add_block<parts>(left, gradients + x * words, value_sums + (j * w + x) * kBlockFloats);
        for (int64_t x = 0; x < e; x++) add_block<parts>(left + words, queries + x * words, key_sums + (j * e + x) * kBlockFloats);
      }
      for (int64_t x = 0; x < e; x++) {
        multiply_blocks<parts, 2, 2>(turned_keys + x * key_blocks * words, right, seen_blocks, product, kSide);
        float *const rows = product + kBlockFloats, *const to = dq + i0 * dq_row + x * kSide;
        transpose_whole<kSide>(static_cast<const float*>(product), kSide, rows, kSide);
        add_rows(rows, at.rows, min_of(kSide, s.width - x * kSide), to, dq_row);
      }
    }
    clear_rows(b.dk[head], b.dk.row, j0, j0 + here, s.width);
    clear_rows(b.dv[head], b.dv.row, j0, j0 + here, s.value_width);
    for (int64_t j = 0; j < key_blocks; j++) {
      const int64_t at = j0 + j * kSide, rows = min_of(kSide, end - at);
      for (int64_t x = 0; x < e; x++)
        add_rows(key_sums + (j * e + x) * kBlockFloats, rows, min_of(kSide, s.width - x * kSide),
                 b.dk[head] + at * b.dk.row + x * kSide, b.dk.row);
      for (int64_t x = 0; x < w; x++)
        add_rows(value_sums + (j * w + x) * kBlockFloats, rows, min_of(kSide, s.value_width - x * kSide),
                 b.dv[head] + at * b.dv.row + x * kSide, b.dv.row);
    }
  }
  const uint32_t p = largest(most_p), ds = largest(most_ds), queries_most = largest(most_q), keys_most = largest(most_k);
  return splits_well(largest(most_scaled), keys_most, s.width) && splits_well(largest(most_g), largest(most_v), s.value_width) &&
         splits_well(p, largest(most_g), s.queries) && splits_well(ds, queries_most, s.queries) &&
         splits_well(ds, keys_most, s.keys);
}

template <>
inline bool attention_tiles(const Forward<float>& f, Ahead& ahead, int64_t head, int64_t begin, int64_t end, float* scratch) {
  if (!attention_tiles_pay(f.s, gemm_parts)) return false;
  return gemm_parts == 1 ? forward_tiles<1>(f, head, begin, end, scratch, ahead)
                         : forward_tiles<2>(f, head, begin, end, scratch, ahead);
}
template <>
inline bool attention_tiles(const Backward<float>& b, Ahead& ahead, int64_t head, int64_t begin, int64_t end, float* dq,
                            int64_t dq_row, float* scratch) {
  if (!attention_tiles_pay(b.s, gemm_parts)) return false;
  return gemm_parts == 1 ? backward_tiles<1>(b, head, begin, end, dq, dq_row, scratch, ahead)
                         : backward_tiles<2>(b, head, begin, end, dq, dq_row, scratch, ahead);
}

}  // namespace
}  // namespace fastdl
