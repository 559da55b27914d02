// Shapes, memory layout and scratch of attention and its gradient.
#include "core/attention_plan.h"
#include "infer.h"

namespace fastdl {
namespace {

constexpr int64_t kMostElements = int64_t(1) << 48;  // of scratch; beyond that no memory would do

// Query, key, value at inputs first .. first + 2, and the mask after them. Everything is computed in one dtype.
AttentionShape check_operands(Call& c, int first) {
  const View &q = c.in[first], &k = c.in[first + 1], &v = c.in[first + 2], &mask = c.in[first + 3];
  const int n = q.ndim;
  bool fits = n >= 2 && k.ndim == n && v.ndim == n && q.shape[n - 1] == k.shape[n - 1] && k.shape[n - 2] == v.shape[n - 2];
  for (int d = 0; fits && d < n - 2; d++) fits = k.shape[d] == q.shape[d] && v.shape[d] == q.shape[d];
  if (!fits)
    fail(ErrorCode::Shape,
         "%s: query is %s, key is %s, value is %s; need (..., L, E), (..., S, E), (..., S, V) with equal sizes before", op_name(c),
         shape_text(q).c_str(), shape_text(k).c_str(), shape_text(v).c_str());
  if (mask.given()) {
    bool broadcasts = mask.ndim <= n;
    for (int d = 0; broadcasts && d < mask.ndim; d++) {
      const int at = d + n - mask.ndim;
      const int64_t want = at == n - 1 ? k.shape[n - 2] : q.shape[at];
      broadcasts = mask.shape[d] == want || mask.shape[d] == 1;
    }
    if (!broadcasts) {
      int64_t want[kMaxDims];
      for (int d = 0; d < n; d++) want[d] = d == n - 1 ? k.shape[n - 2] : q.shape[d];
      fail(ErrorCode::Shape, "%s: mask is %s; need a shape that broadcasts to %s", op_name(c), shape_text(mask).c_str(),
           shape_text(want, n).c_str());
    }
  }
  const DType d = promote_inputs(c, 0, c.nin);
  if (d == DType::float16 || d == DType::bfloat16)
    fail(ErrorCode::DType, "%s: got %s; needs float32 or float64 (nn.functional.scaled_dot_product_attention converts)", op_name(c),
         dtype_name(d));
  c.compute = lift_dtype(c, d);
  AttentionShape s{1, q.shape[n - 2], k.shape[n - 2], q.shape[n - 1], v.shape[n - 1]};
  for (int i = first; i < first + 3; i++) checked_numel(op_name(c), c.in[i].shape, c.in[i].ndim, 16);
  for (int i = 0; i < n - 2; i++) s.heads *= q.shape[i];
  return s;
}

void set_workspace(Call& c, const AttentionShape& s, bool backward) {
  int64_t partial;
  if (s.width > kMostElements / 1024 || s.value_width > kMostElements / 1024 ||
      __builtin_mul_overflow(s.queries, s.width, &partial) || partial > kMostElements)
    fail(ErrorCode::OutOfMemory, "%s: sizes too large for memory", op_name(c));
  c.workspace = attention_workspace(s, backward) * itemsize(c.compute);
}

// A result lies as the operand does, one row per place or one per head and place: what follows is then a view of it.
Layout layout_like(const View& v) {
  const auto step = [&](int d) { return v.strides[d] < 0 ? -v.strides[d] : v.strides[d]; };
  return v.ndim >= 3 && v.shape[v.ndim - 3] > 1 && v.shape[v.ndim - 2] > 1 && step(v.ndim - 3) < step(v.ndim - 2)
             ? Layout::PlacesFirst
             : Layout::Contiguous;
}

}  // namespace

void infer_attention(Call& c) {
  const AttentionShape s = check_operands(c, 0);
  const View& q = c.in[0];
  int64_t shape[kMaxDims];
  for (int d = 0; d < q.ndim - 1; d++) shape[d] = q.shape[d];
  shape[q.ndim - 1] = s.value_width;
  set_out(c, 0, c.compute, shape, q.ndim, layout_like(q));
  for (int k = 1; k <= 2; k++) set_out(c, k, c.compute, shape, q.ndim - 1);
  set_workspace(c, s, false);
}

void infer_attention_backward(Call& c) {
  const AttentionShape s = check_operands(c, 1);
  const View &g = c.in[0], &q = c.in[1], &y = c.in[5];
  bool fits = g.ndim == q.ndim && y.ndim == q.ndim;
  for (int d = 0; fits && d < q.ndim; d++) {
    const int64_t want = d == q.ndim - 1 ? s.value_width : q.shape[d];
    fits = g.shape[d] == want && y.shape[d] == want;
  }
  for (int k = 6; k <= 7; k++) {
    fits = fits && c.in[k].ndim == q.ndim - 1;
    for (int d = 0; fits && d < q.ndim - 1; d++) fits = c.in[k].shape[d] == q.shape[d];
  }
  if (!fits)
    fail(ErrorCode::Shape,
         "%s: gradient is %s, y is %s, peak is %s, factor is %s; need them as attention returns them for query %s", op_name(c),
         shape_text(g).c_str(), shape_text(y).c_str(), shape_text(c.in[6]).c_str(), shape_text(c.in[7]).c_str(),
         shape_text(q).c_str());
  for (int k = 0; k < 3; k++) set_out(c, k, c.compute, c.in[k + 1].shape, q.ndim, layout_like(c.in[k + 1]));
  c.contiguous_inputs |= 1u << 6 | 1u << 7;
  set_workspace(c, s, true);
}

}  // namespace fastdl
