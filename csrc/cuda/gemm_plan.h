// Host side of a product: which tile, how many parts of k, which operand can be read in vectors. Pure functions of sizes and
// strides, so that a test can ask them about every shape.
#pragma once
#include <type_traits>

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
  g.z = z, g.m = m, g.n = n, g.k = k, g.splits = 1;
  set_tiles(g, 128, 128);
  plan.large = has_large && g.tiles() >= kLargeTilesPerSm * multiprocessors;
  if (!plan.large) set_tiles(g, 64, 64);
  const int64_t wanted = ceil_div(kTilesPerSm * multiprocessors, max_of(g.tiles(), 1));
  // A part's length fits 31 bits.
  const int64_t splits = max_of(max_of(1, k >> 30), min_of(min_of(wanted, k / kSplitDepth), kMaxSplits));
  g.depth = max_of(step, ceil_div(ceil_div(k, splits), step) * step);
  g.splits = max_of(1, ceil_div(k, g.depth));
  if (g.splits > 1 || always_partial) plan.partial_bytes = g.splits * z * (m * n + m) * item;
  return plan;
}

inline bool is_tiny(const GemmProblem& p) { return p.k <= kTinyDepth || (max_of(p.m, p.n) <= kTinyLines && p.k <= 4 * kTinyLines); }

// `blocks` without splitting k; parts of k are multiples of `step`.
inline GemmPlan plan_skinny(const GemmProblem& p, int64_t item, int64_t blocks, int64_t step, int64_t multiprocessors) {
  GemmPlan plan = {};
  GemmTiling& g = plan.tiling;
  g.z = p.z, g.m = p.m, g.n = p.n, g.k = p.k;
  const int64_t wanted = ceil_div(4 * multiprocessors, max_of(blocks, 1));
  const int64_t splits = max_of(1, min_of(min_of(wanted, p.k / step), kMaxSplits));
  g.depth = max_of(step, ceil_div(ceil_div(p.k, splits), step) * step);
  g.splits = max_of(1, ceil_div(p.k, g.depth));
  if (g.splits > 1) plan.partial_bytes = g.splits * p.z * p.m * p.n * item;
  return plan;
}

// Whole chunks of `vector` elements need neighbours in memory, aligned, and everything else in multiples of a chunk: also the
// number of neighbours, unless copies can be cut short.
inline GemmSide side_of(const GemmOperand& o, int64_t lines, int64_t k, const GemmBatch& batch, const int64_t* batch_strides,
                        int64_t vector, bool can_cut) {
  // A stride that is never taken is what suits.
  const bool along_k = k > 1 ? o.k_stride == 1 : lines == 1 || o.line_stride != 1;
  const bool along_lines = !along_k && (lines == 1 || o.line_stride == 1);
  GemmSide s = {o.data, lines == 1 ? 0 : o.line_stride, k == 1 ? 0 : o.k_stride, ChunkOrder::AlongK, false};
  if (along_k) s.k_stride = 1;
  if (along_lines) s.line_stride = 1;
  const int64_t across = along_k ? s.line_stride : s.k_stride;
  s.whole =
      (along_k || along_lines) && across % vector == 0 && is_aligned(o.data) && (can_cut || (along_k ? k : lines) % vector == 0);
  for (int d = 0; d < batch.ndim; d++) s.whole &= batch_strides[d] % vector == 0;
  s.walk = along_k ? ChunkOrder::AlongK : s.whole ? ChunkOrder::AlongLines : ChunkOrder::AcrossLines;
  return s;
}

inline bool vector_out(const GemmEpilogue& e) { return e.row_stride % 4 == 0 && e.z_stride % 4 == 0 && is_aligned(e.out); }

inline GemmPlan plan_matrix(const GemmProblem& p, const DeviceContext& device) {
  const int64_t item = itemsize(p.a.dtype);
  return plan_gemm(p.z, p.m, p.n, p.k, item == 8 ? 8 : 4, item != 8, 64 / item, device.multiprocessors);
}

// The form for kernels that gather both operands.
template <class S>
MatrixForm<S> gathered(MatrixForm<S> form) {
  for (GemmSide* side : {&form.a, &form.b})
    if (side->walk == ChunkOrder::AlongLines) side->walk = ChunkOrder::AcrossLines;
  return form;
}

// Calls f(kind of A, kind of B, form) with Load constants: both operands read whole, or both gathered.
template <Load kLoad>
using LoadConstant = std::integral_constant<Load, kLoad>;
template <class S, class F>
void by_load(const MatrixForm<S>& form, const F& f) {
  constexpr LoadConstant<Load::WholeAlongK> k{};
  constexpr LoadConstant<Load::WholeAlongLines> lines{};
  constexpr LoadConstant<Load::Gathered> gather{};
  const bool a_k = form.a.walk == ChunkOrder::AlongK, b_k = form.b.walk == ChunkOrder::AlongK;
  if (!form.a.whole || !form.b.whole)
    f(gather, gather, gathered(form));
  else if (a_k && b_k)
    f(k, k, form);
  else if (a_k)
    f(k, lines, form);
  else if (b_k)
    f(lines, k, form);
  else
    f(lines, lines, form);
}

template <class S>
MatrixForm<S> matrix_form(const GemmProblem& p, const GemmPlan& plan, void* workspace) {
  constexpr int64_t vector = kPack<S> > 4 ? kPack<S> : 4;
  return {plan.tiling,
          side_of(p.a, p.m, p.k, p.batch, p.batch.a, vector, sizeof(S) == 2),
          side_of(p.b, p.n, p.k, p.batch, p.batch.b, vector, sizeof(S) == 2),
          p.batch,
          p.out,
          plan.partial_bytes ? workspace : nullptr,
          vector_out(p.out)};
}

}  // namespace
}  // namespace fastdl
