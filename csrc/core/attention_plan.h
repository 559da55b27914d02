// How attention is cut, and how much scratch that takes: inference asks for it, the kernels of every instruction set and thread
// count stay within it.
#pragma once
#include <cstdint>

#include "gemm_workspace.h"

namespace fastdl {

constexpr int64_t kAttentionQueries = 32;  // rows of the query in one block, at most
constexpr int64_t kAttentionKeys = 128;    // keys in one block: its scores stay in L1
constexpr int64_t kAttentionGroup = 4;     // blocks of queries in one piece of work
constexpr int64_t kAttentionPieces = 16;   // pieces wanted, so that threads finish together
// Of the next piece, rows of up to so many bytes are fetched meanwhile, if they are no more than that together.
constexpr int64_t kAttentionAheadRow = 256, kAttentionAhead = 512 << 10;

// Heads: all leading dimensions together.
struct AttentionShape {
  int64_t heads, queries, keys, width, value_width;
};

constexpr int64_t attention_padded(int64_t n) { return (n + 15) / 16 * 16; }

// Elements of scratch for one piece of work on register tiles: blocks of the operands, scores, a mask, a result.
constexpr int64_t attention_register_scratch(const AttentionShape& s, bool backward) {
  const int64_t e = attention_padded(s.width), v = attention_padded(s.value_width), q = kAttentionQueries, k = kAttentionKeys;
  const int64_t scores = q * k, turned = q * e + (backward ? 2 * q * v : 0);
  const int64_t rows = backward ? k * e + q * e + q * v : k * v + q * v;
  return turned + rows + (backward ? 3 : 2) * scores;
}

// The same on AMX tiles: packed blocks of 32 x 32, up to two bfloat16 per element, and floats.
constexpr int64_t attention_tile_scratch(const AttentionShape& s, bool backward) {
  const int64_t e = (s.width + 31) / 32, v = (s.value_width + 31) / 32, side = 32 * 32, k = kAttentionKeys / 32,
                group = kAttentionGroup;
  const int64_t packed = backward ? (2 * k + 2) * e + (k + 2) * v + k + 2 : (k + group) * e + k * v + k;
  const int64_t floats = backward ? (1 + k) * e + (2 + k) * v + 3 * k + 2 : e + group * v + 2 * k + 1;
  return (packed + floats) * side;
}
// parts: as set by fd.set_matmul_precision. Measured on Emerald Rapids: with three, packing the scores costs more than tiles save,
// also where vectors pack while tiles multiply (then the gradient takes 1.15 of the time): of a block of queries and one of keys
// some 90 KB are packed or summed, and tiles that come from the second level take twice as long.
constexpr bool attention_tiles_pay(const AttentionShape& s, int parts) {
  const int64_t least = parts == 1 ? 24 : 48;
  return parts < 3 && s.width >= least && s.value_width >= least && s.queries >= 24 && s.keys >= 24;
}

// Elements of scratch for one piece of work.
inline int64_t attention_scratch(const AttentionShape& s, bool backward) {
  const int64_t registers = attention_register_scratch(s, backward);
  if (!gemm_has_tiles || !attention_tiles_pay(s, 1)) return registers;  // the precision may change before the kernel runs
  const int64_t tiles = attention_tile_scratch(s, backward);
  return tiles > registers ? tiles : registers;
}

// Gradients: a head's keys in so many parts, each with a gradient of the query of its own, where there are few heads.
constexpr int64_t attention_splits(const AttentionShape& s) {
  if (s.heads <= 0 || s.heads >= kAttentionPieces) return 1;
  const int64_t wanted = (kAttentionPieces + s.heads - 1) / s.heads, blocks = (s.keys + kAttentionKeys - 1) / kAttentionKeys;
  return blocks < 1 ? 1 : wanted < blocks ? wanted : blocks;
}

// Elements of workspace: scratch for one piece, for threads that have no memory of their own, and the parts' gradients.
inline int64_t attention_workspace(const AttentionShape& s, bool backward) {
  const int64_t splits = backward ? attention_splits(s) : 1;
  return attention_scratch(s, backward) + (splits > 1 ? splits * s.heads * s.queries * s.width : 0);
}

}  // namespace fastdl
