// Passes for updates of parameters: each runs as soon as its gradient is there, and large gradients of linear layers and
// convolutions exist only some filters at a time.
#include <algorithm>

#include "conv_plan.h"
#include "gemm_workspace.h"
#include "plan.h"

namespace fastdl {

namespace {

// A gradient of so many bytes is made and used up in pieces of about kPieceBytes, of whole groups of filters each.
// For linear layers that saves memory, not time.
constexpr int64_t kLeastCut = int64_t(2) << 20, kLeastCutLinear = int64_t(8) << 20;
constexpr int64_t kPieceBytes = int64_t(5) << 18, kPieceFilters = 64;

// Whether v lies filter behind filter, so that some filters are a view of their own.
bool by_filters(const View& v, const View& like) {
  return v.given() && v.dtype == like.dtype && v.ndim == like.ndim && dense(v) &&
         std::equal(v.shape, v.shape + v.ndim, like.shape) && v.strides[0] * v.shape[0] == v.numel();
}

// Rows of dw (m, n) = g^T (m, k) x (k, n) in a piece of about `some` of them, or 0. Pieces go the way that the whole would go, so
// that sums are the same, and x, which each piece packs for itself, is not so long that this takes more than it saves. Not on
// tiles: all of g decides whether they are accurate.
int64_t rows_of_piece(int64_t m, int64_t n, int64_t k, int64_t some, bool tiles) {
  if (k > 2 * some || some >= m || (tiles && tiles_pay(m, n, k))) return 0;
  const int64_t pieces = (m + some - 1) / some, rows = (m + 16 * pieces - 1) / (16 * pieces) * 16;
  for (const int64_t part : {rows, m - (m - 1) / rows * rows})
    if (part < 2 || (tiles && tiles_pay(part, n, k)) || gemm_splits(1, part, n, k) != gemm_splits(1, m, n, k)) return 0;
  return rows;
}

// The number of filters in a piece of the gradient that step s makes for step `update`, or 0: it stays whole.
int64_t filters_of_piece(const Program& p, const Step& s, const Step& update) {
  const View &dw = view_at(p, s, 0), &g = view_at(p, s, s.nout);
  const int64_t bytes = dw.numel() * itemsize(dw.dtype);
  const bool conv = op_is(s, "conv2d_backward_weight");
  if (s.nin != 2 || s.device.kind != Device::CPU || !wide_float(s) || dw.dtype != s.compute || !family_is(update, "optim") ||
      bytes < (conv ? kLeastCut : kLeastCutLinear) || p.places[s.first_view].offset ||
      p.blocks[size_t(block_at(p, s, 0))].bytes != bytes)
    return 0;
  if (conv ? s.attrs.i[6] != 1 || dw.shape[0] % kPieceFilters || g.strides[1] != 1
           : !g.contiguous() || !view_at(p, s, s.nout + 1).contiguous())
    return 0;
  for (int v = 0; v < update.nout + update.nin - 1; v++) {  // all arrays; the hyper-parameters come last
    if (view_at(p, update, v).given() && !by_filters(view_at(p, update, v), dw)) return 0;
    for (int w = s.nout; w < s.nout + s.nin; w++)
      if (writes(update, v) && may_overlap(p, block_at(p, update, v), block_at(p, s, w))) return 0;
  }
  const int64_t some = std::max(kPieceBytes / (bytes / dw.shape[0]) / kPieceFilters * kPieceFilters, kPieceFilters);
  const bool tiles = gemm_has_tiles && s.compute == DType::float32;
  return conv ? some : rows_of_piece(dw.shape[0], dw.shape[1], g.numel() / dw.shape[0], some, tiles);
}

// Step s with `count` filters from `from` on: views 0 and 1 of a gradient's step are dw and db, 2 is g (N, filters, H, W) or, as
// one matrix, (rows, filters); all arrays of an update.
Step some_filters(Program& p, const Step& s, int made, int64_t from, int64_t count) {
  const bool update = family_is(s, "optim"), linear = op_is(s, "linear_backward_weight");
  Step part = s;
  part.first_view = uint32_t(p.views.size());
  for (int v = 0; v < s.nout + s.nin; v++) {
    View view = view_at(p, s, v);
    Place at = p.places[s.first_view + uint32_t(v)];
    // db of a linear layer is made whole, with the first piece
    const int axis = update ? (v < s.nout + s.nin - 1 ? 0 : -1) : linear && v == 1 ? -1 : v < 2 ? 0 : v == 2 ? 1 : -1;
    if (linear && v == 1 && from > 0) view.ndim = -1, view.data = nullptr, at = Place{};
    if (linear && v == 2) {
      const int64_t filters = view.shape[view.ndim - 1], rows = view.numel() / filters;
      view.ndim = 2, view.shape[0] = rows, view.shape[1] = view.strides[0] = filters, view.strides[1] = 1;
    }
    if (axis >= 0 && view.given()) {
      view.shape[axis] = count;
      if (at.block != made) at.offset += from * view.strides[axis] * itemsize(view.dtype);
    }
    p.views.push_back(view), p.places.push_back(at);
  }
  return part;
}

}  // namespace

// In the recorded order all gradients exist at once before the first update. Each update, and the step counter that it reads, moves
// to right behind the last launch that it depends on. A gradient that nobody sees afterwards then lives for two launches, and is
// still in the cache. Nothing moves before a launch that may refuse its indices: an update is made only when the step succeeds.
void advance_updates(Program& p) {
  std::vector<bool> counts(p.blocks.size());  // read by an update
  for (const Step& s : p.steps)
    for (int v = s.nout; family_is(s, "optim") && v < s.nout + s.nin; v++)
      if (const int b = block_at(p, s, v); b >= 0) counts[b] = true;
  const auto counter = [&](const Step& s) {
    const int b = s.nout == 1 ? block_at(p, s, 0) : -1;
    return b >= 0 && counts[b] && is_elementwise(*s.op) && p.blocks[b].kind == Block::Held && view_at(p, s, 0).numel() == 1;
  };
  for (size_t k = 0; k < p.steps.size(); k++) {
    const Step s = p.steps[k];
    if (s.device.kind != Device::CPU || s.group >= 0 || !(family_is(s, "optim") || counter(s))) continue;
    size_t to = k;
    while (to > 0 && p.steps[to - 1].check != IndexCheck::At && !ordered(p, p.steps[to - 1], s)) to--;
    while (to < k && to > 0 && p.steps[to].group >= 0 && p.steps[to - 1].group == p.steps[to].group) to++;  // groups stay whole
    std::rotate(p.steps.begin() + long(to), p.steps.begin() + long(k), p.steps.begin() + long(k) + 1);
  }
}

// The gradient of a layer's filters, read by one update only, in pieces: some filters' gradient, their update, and so on, in the
// memory of one piece. The kernel of convolutions gets the number of all filters (i13) and that of the
// first one (i14), goes the way and sums in the order in which it would for all.
void split_updates(Program& p) {
  const std::vector<int> written = count_writes(p), read = count_reads(p);
  std::vector<Step> steps;
  std::vector<bool> taken(p.steps.size());
  for (size_t k = 0; k < p.steps.size(); k++) {
    if (taken[k]) continue;
    const Step gradient = p.steps[k];
    const int made = block_at(p, gradient, 0);
    const bool conv = op_is(gradient, "conv2d_backward_weight");
    bool possible = (conv || op_is(gradient, "linear_backward_weight")) && made_once(p, written, made) && read[size_t(made)] == 1 &&
                    p.blocks[size_t(made)].bytes >= kLeastCut;
    size_t at = k + 1;  // the update; what lies between goes before both, if it does not need the gradient, or else behind both
    std::vector<size_t> before, behind;
    for (; possible && at < p.steps.size(); at++) {
      const Step& s = p.steps[at];
      bool reads = false, first = !ordered(p, gradient, s);
      for (int v = s.nout; v < s.nout + s.nin; v++) reads = reads || block_at(p, s, v) == made;
      if (reads) break;
      for (const size_t j : behind) first = first && !ordered(p, p.steps[j], s);
      (first ? before : behind).push_back(at);
      possible = s.group < 0 && s.check != IndexCheck::At && !taken[at];
    }
    const int64_t piece = possible && at < p.steps.size() ? filters_of_piece(p, gradient, p.steps[at]) : 0;
    possible = piece > 0;
    for (const size_t j : behind) possible = possible && !ordered(p, p.steps[j], p.steps[at]);
    if (!possible) {
      steps.push_back(gradient);
      continue;
    }
    const Step update = p.steps[at];
    const View all = view_at(p, gradient, 0);
    for (const size_t j : before) steps.push_back(p.steps[j]);
    for (int64_t from = 0; from < all.shape[0]; from += piece) {
      const int64_t count = std::min(piece, all.shape[0] - from);
      steps.push_back(some_filters(p, gradient, made, from, count));
      if (conv) {
        Step& part = steps.back();
        part.attrs.i[13] = all.shape[0], part.attrs.i[14] = from;
        const ConvShape shape = conv_shape(part.attrs, view_at(p, part, 3), view_at(p, part, 0), view_at(p, part, 2));
        part.workspace = conv_weight_plan(shape, itemsize(all.dtype), false, part.attrs.i[15], all.shape[0]).bytes;
      }
      steps.push_back(some_filters(p, update, made, from, count));
    }
    for (const size_t j : behind) steps.push_back(p.steps[j]);
    for (size_t j = k; j <= at; j++) taken[j] = true;
    p.blocks[size_t(made)].bytes = all.numel() / all.shape[0] * piece * itemsize(all.dtype);
  }
  p.steps = steps;
}

}  // namespace fastdl
