// Host side of a product: which tile, how many parts of k, which operand can be read in vectors. Pure functions of sizes and
// strides, so that a test can ask them about every shape.
#pragma once
#include "cuda/device/gemm_load.cuh"

namespace fastdl {
namespace {

struct GemmPlan {
  bool large;
  GemmTiling tiling;
  int64_t partial_bytes;  // of workspace, 0: one part
};

inline void set_tiles(GemmTiling& g, int64_t tile_m, int64_t tile_n) {
  g.tiles_m = ceil_div(g.m, tile_m);
  g.tiles_n = max_of(1, ceil_div(g.n, tile_n));  // also without columns there may be sums of lines
}

// item: bytes of a sum. step: of k that a block takes at a time.
inline GemmPlan plan_gemm(int64_t z, int64_t m, int64_t n, int64_t k, int64_t item, bool has_large, int64_t step,
                          int64_t multiprocessors, bool always_partial = false) {
  GemmPlan plan = {};
  GemmTiling& g = plan.tiling;
  g = {z, m, n, k, k, 0, 0, 1};
  set_tiles(g, 128, 128);
  plan.large = has_large && g.tiles() >= kLargeTilesPerSm * multiprocessors;
  if (!plan.large) set_tiles(g, 64, 64);
  const int64_t wanted = ceil_div(kTilesPerSm * multiprocessors, max_of(g.tiles(), 1));
  const int64_t splits = max_of(1, min_of(min_of(wanted, k / kSplitDepth), kMaxSplits));
  g.depth = max_of(step, ceil_div(ceil_div(k, splits), step) * step);
  g.splits = max_of(1, ceil_div(k, g.depth));
  if (g.splits > 1 || always_partial) plan.partial_bytes = g.splits * z * (m * n + m) * item;
  return plan;
}

// 16-byte chunks need: neighbours in memory, and everything else in multiples of 4 elements.
inline GemmSide side_of(const GemmOperand& o, int64_t lines, int64_t k, const GemmBatch* batch, const int64_t* batch_strides) {
  GemmSide s = {o.data, o.line_stride, o.k_stride, false, false};
  if (lines == 1) s.line_stride = o.k_stride == 1 ? max_of(4, k) : 1;
  if (k == 1) s.k_stride = s.line_stride == 1 ? max_of(4, lines) : 1;
  s.along_k = s.k_stride == 1 || s.line_stride != 1;
  const int64_t along = s.along_k ? s.k_stride : s.line_stride, across = s.along_k ? s.line_stride : s.k_stride;
  bool whole = true;
  if (batch) {
    for (int d = 0; d < batch->ndim; d++) whole &= batch_strides[d] % 4 == 0;
  }
  s.vector =
      along == 1 && (across % 4 == 0 || (s.along_k ? lines : k) == 1) && whole && reinterpret_cast<uintptr_t>(o.data) % 16 == 0;
  return s;
}

inline bool vector_out(const GemmEpilogue& e) {
  return e.row_stride % 4 == 0 && e.z_stride % 4 == 0 && reinterpret_cast<uintptr_t>(e.out) % 16 == 0;
}

inline uint32_t tile_grid(int64_t tiles) { return uint32_t(min_of(tiles, kMaxGrid)); }

}  // namespace
}  // namespace fastdl
