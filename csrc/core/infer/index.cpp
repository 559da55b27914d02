// Inference of the indexing ops. Indices are int64 and checked here, all of them, so that an error leaves no tensor half-written.
#include "core/infer/infer.h"

namespace fastdl {
namespace {

using Text = std::string;
Text text(const View& v) { return shape_text(v); }

// f(pointer, stride, length) for each line of a strided int64 tensor.
template <class F>
void for_lines(const View& v, F&& f) {
  const auto* base = v.ptr<const int64_t>();
  const int64_t n = v.numel();
  if (n == 0) return;
  if (v.contiguous()) {
    f(base, int64_t(1), n);
    return;
  }
  const int last = v.ndim - 1;  // >= 0: a 0-d tensor is contiguous
  const int64_t lines = n / v.shape[last];
  for (int64_t line = 0; line < lines; line++) {
    int64_t rest = line, offset = 0;
    for (int d = last - 1; d >= 0; d--) {
      offset += rest % v.shape[d] * v.strides[d];
      rest /= v.shape[d];
    }
    f(base + offset, v.strides[last], v.shape[last]);
  }
}

void require_indices(const Call& c, const View& idx, const char* what) {
  if (idx.dtype != DType::int64) fail(ErrorCode::DType, "%s: %s must be int64, got %s", op_name(c), what, dtype_name(idx.dtype));
}

// Every value of idx must lie in [lo, size). Extremes first (a branch-free pass), the culprit only when there is one.
void check_bounds(const Call& c, const View& idx, int64_t lo, int axis, int64_t size) {
  if (!idx.data) return;  // in a device's memory, where the kernel checks
  int64_t least = 0, greatest = lo < 0 ? -1 : 0;
  bool any = false;
  for_lines(idx, [&](const int64_t* p, int64_t stride, int64_t n) {
    int64_t a = p[0], b = p[0];
    for (int64_t i = 0; i < n; i++) {
      const int64_t v = p[i * stride];
      a = v < a ? v : a;
      b = v > b ? v : b;
    }
    least = any && least < a ? least : a;
    greatest = any && greatest > b ? greatest : b;
    any = true;
  });
  if (!any || (least >= lo && greatest < size)) return;
  bool found = false;
  for_lines(idx, [&](const int64_t* p, int64_t stride, int64_t n) {
    for (int64_t i = 0; i < n && !found; i++) {
      const int64_t v = p[i * stride];
      if (v >= lo && v < size) continue;
      found = true;
      if (axis >= 0)
        fail(ErrorCode::Index, "%s: index %lld is out of bounds for axis %d of size %lld", op_name(c), static_cast<long long>(v),
             axis, static_cast<long long>(size));
      fail(ErrorCode::Index, "%s: class %lld is out of bounds; need 0 <= class < %lld", op_name(c), static_cast<long long>(v),
           static_cast<long long>(size));
    }
  });
}

// The shape to which k index tensors broadcast.
int broadcast_indices(const Call& c, const View* idx, int k, int64_t* shape) {
  int ndim = 0;
  for (int t = 0; t < k; t++) ndim = idx[t].ndim > ndim ? idx[t].ndim : ndim;
  for (int d = 0; d < ndim; d++) shape[d] = 1;
  for (int t = 0; t < k; t++)
    for (int d = 0; d < idx[t].ndim; d++) {
      int64_t& s = shape[ndim - idx[t].ndim + d];
      const int64_t own = idx[t].shape[d];
      if (own == 1 || own == s) continue;
      if (s != 1) {
        Text all;
        for (int u = 0; u < k; u++) all += (u ? ", " : "") + text(idx[u]);
        fail(ErrorCode::Index, "%s: index tensors of shapes %s do not broadcast together", op_name(c), all.c_str());
      }
      s = own;
    }
  return ndim;
}

// Inputs first .. first + k - 1 of c index the leading dims of x.
int infer_leading_indices(Call& c, int first, int64_t* shape) {
  const View& x = c.in[0];
  const int k = c.nin - first;
  if (k < 1 || k > x.ndim)
    fail(ErrorCode::Index, "%s: %d index tensors for x of shape %s; need 1 to %d", op_name(c), k, text(x).c_str(), int(x.ndim));
  for (int t = 0; t < k; t++) {
    require_indices(c, c.in[first + t], "indices");
    c.own_dtype_inputs |= 1u << (first + t);
  }
  const int ndim = broadcast_indices(c, c.in + first, k, shape);
  const int rank = ndim + x.ndim - k;
  if (rank > kMaxDims) fail(ErrorCode::Shape, "%s: result of %d dimensions; at most %d are supported", op_name(c), rank, kMaxDims);
  for (int d = k; d < x.ndim; d++) shape[ndim + d - k] = x.shape[d];
  bool empty = false;  // no position is looked up, so none is checked, as in NumPy
  for (int d = 0; d < ndim; d++) empty |= shape[d] == 0;
  for (int t = 0; t < k && !empty; t++) check_bounds(c, c.in[first + t], -x.shape[t], t, x.shape[t]);
  return rank;
}

}  // namespace

void infer_take(Call& c) {
  const View &x = c.in[0], &idx = c.in[1];
  if (x.ndim == 0) fail(ErrorCode::Shape, "take: x is a scalar; need at least 1 dimension");
  const int axis = normal_axis(c, c.attrs.i[0], x.ndim);
  c.attrs.i[0] = axis;
  require_indices(c, idx, "indices");
  const int rank = x.ndim - 1 + idx.ndim;
  if (rank > kMaxDims) fail(ErrorCode::Shape, "take: result of %d dimensions; at most %d are supported", rank, kMaxDims);
  check_bounds(c, idx, -x.shape[axis], axis, x.shape[axis]);
  int64_t shape[2 * kMaxDims];
  int n = 0;
  for (int d = 0; d < axis; d++) shape[n++] = x.shape[d];
  for (int d = 0; d < idx.ndim; d++) shape[n++] = idx.shape[d];
  for (int d = axis + 1; d < x.ndim; d++) shape[n++] = x.shape[d];
  c.compute = x.dtype;
  c.own_dtype_inputs |= 1u << 1;
  set_out(c, 0, x.dtype, shape, rank);
}

void infer_take_backward(Call& c) {
  const View &g = c.in[0], &idx = c.in[1];
  require_indices(c, idx, "indices");
  const int ndim = g.ndim - idx.ndim + 1;  // of the result
  if (ndim < 1)
    fail(ErrorCode::Shape, "take_backward: g is %s, indices are %s; need the dimensions of the indices in g", text(g).c_str(),
         text(idx).c_str());
  if (ndim > kMaxDims) fail(ErrorCode::Shape, "take_backward: result of %d dimensions; at most %d are supported", ndim, kMaxDims);
  const int axis = normal_axis(c, c.attrs.i[0], ndim);
  c.attrs.i[0] = axis;
  const int64_t size = c.attrs.i[1];
  if (size < 0) fail(ErrorCode::Value, "take_backward: size %lld of the axis is negative", static_cast<long long>(size));
  int64_t shape[kMaxDims];
  for (int d = 0; d < ndim; d++) shape[d] = d < axis ? g.shape[d] : d == axis ? size : g.shape[d + idx.ndim - 1];
  for (int d = 0; d < idx.ndim; d++)
    if (g.shape[axis + d] != idx.shape[d])
      fail(ErrorCode::Shape, "take_backward: g is %s, indices are %s; need g.shape[%d:%d] == indices.shape", text(g).c_str(),
           text(idx).c_str(), axis, axis + idx.ndim);
  check_bounds(c, idx, -size, axis, size);
  c.compute = g.dtype;
  c.own_dtype_inputs |= 1u << 1;
  c.contiguous_inputs |= 1u << 0;
  set_out(c, 0, g.dtype, shape, ndim);
  int64_t words;  // of the sort: an end per row of the result, an entry per index
  if (__builtin_add_overflow(size, idx.numel(), &words) || __builtin_mul_overflow(words, int64_t(8), &c.workspace))
    fail(ErrorCode::Shape, "take_backward: size %lld of the axis is too large", static_cast<long long>(size));
}

void infer_take_along_axis(Call& c) {
  const View &x = c.in[0], &idx = c.in[1];
  require_indices(c, idx, "indices");
  if (x.ndim != idx.ndim || x.ndim == 0)
    fail(ErrorCode::Shape, "take_along_axis: x is %s, indices are %s; need the same number of dimensions, at least 1",
         text(x).c_str(), text(idx).c_str());
  const int axis = normal_axis(c, c.attrs.i[0], x.ndim);
  c.attrs.i[0] = axis;
  int64_t shape[kMaxDims];
  bool empty = false;
  for (int d = 0; d < x.ndim; d++) {
    const int64_t a = x.shape[d], b = idx.shape[d];
    if (d != axis && a != b && a != 1 && b != 1)
      fail(ErrorCode::Shape, "take_along_axis: x is %s, indices are %s; they must broadcast on every axis but %d", text(x).c_str(),
           text(idx).c_str(), axis);
    shape[d] = d == axis || a == 1 ? b : a;
    empty |= shape[d] == 0;
  }
  if (!empty) check_bounds(c, idx, -x.shape[axis], axis, x.shape[axis]);
  c.compute = x.dtype;
  c.own_dtype_inputs |= 1u << 1;
  set_out(c, 0, x.dtype, shape, x.ndim);
}

void infer_scatter_add(Call& c) {
  const View &x = c.in[0], &idx = c.in[1], &values = c.in[2];
  require_indices(c, idx, "indices");
  bool fits = x.ndim == idx.ndim && x.ndim == values.ndim && x.ndim > 0;
  const int axis = normal_axis(c, c.attrs.i[0], x.ndim);
  c.attrs.i[0] = axis;
  for (int d = 0; d < x.ndim && fits; d++) fits = idx.shape[d] == values.shape[d] && (d == axis || idx.shape[d] == x.shape[d]);
  if (!fits)
    fail(ErrorCode::Shape,
         "scatter_add: x is %s, indices are %s, values are %s; need indices.shape == values.shape, equal to x.shape but on axis %d",
         text(x).c_str(), text(idx).c_str(), text(values).c_str(), axis);
  check_bounds(c, idx, -x.shape[axis], axis, x.shape[axis]);
  c.compute = promote(x.dtype, values.dtype);
  c.own_dtype_inputs |= 1u << 1;
  c.contiguous_inputs |= 7u;
  set_out(c, 0, c.compute, x.shape, x.ndim);
  if (itemsize(c.compute) == 2 && is_float(c.compute)) c.workspace = x.numel() * 4;  // sums in float
}

void infer_index_get(Call& c) {
  int64_t shape[2 * kMaxDims];
  if (c.nin < 2) fail(ErrorCode::Index, "index_get: no index tensor given");
  const int rank = infer_leading_indices(c, 1, shape);
  c.compute = c.in[0].dtype;
  set_out(c, 0, c.compute, shape, rank);
}

void infer_index_put(Call& c) {
  int64_t shape[2 * kMaxDims];
  if (c.nin < 3) fail(ErrorCode::Index, "index_put: no index tensor given");
  const View &x = c.in[0], &values = c.in[1];
  const int rank = infer_leading_indices(c, 2, shape);
  bool fits = values.ndim <= rank;
  for (int d = 0; d < values.ndim && fits; d++) {
    const int64_t own = values.shape[d], want = shape[rank - values.ndim + d];
    fits = own == 1 || own == want;
  }
  if (!fits)
    fail(ErrorCode::Shape, "index_put: values of shape %s do not broadcast to the indexed shape %s", text(values).c_str(),
         shape_text(shape, rank).c_str());
  if (c.attrs.i[0] && x.dtype == DType::bool_)
    fail(ErrorCode::DType, "index_put: bool values cannot be added up; need a number dtype");
  c.compute = x.dtype;
  set_out(c, 0, x.dtype, x.shape, x.ndim);
  c.out[0].alias = 0;
}

void infer_nonzero(Call& c) {
  const View &x = c.in[0], &count = c.in[1];
  if (count.dtype != DType::int64 || count.ndim != 0)
    fail(ErrorCode::DType, "nonzero: count must be an int64 scalar, got %s of shape %s", dtype_name(count.dtype),
         text(count).c_str());
  const int64_t rows = count.data ? *count.ptr<const int64_t>() : 0, shape[2] = {rows, x.ndim};
  if (rows < 0 || rows > x.numel())
    fail(ErrorCode::Value, "nonzero: count is %lld for %lld elements", static_cast<long long>(rows),
         static_cast<long long>(x.numel()));
  c.compute = x.dtype;
  c.own_dtype_inputs |= 1u << 1;
  c.contiguous_inputs |= 1u << 0;
  set_out(c, 0, DType::int64, shape, 2);
}

void infer_one_hot(Call& c) {
  const View& idx = c.in[0];
  require_indices(c, idx, "classes");
  const int64_t classes = c.attrs.i[0];
  int64_t dtype = c.attrs.i[1];
  if (classes < 0) fail(ErrorCode::Value, "one_hot: number of classes is %lld; need 0 or more", static_cast<long long>(classes));
  if (dtype == -1) dtype = int64_t(DType::int64);
  if (dtype < 0 || dtype >= kNumDTypes) fail(ErrorCode::DType, "one_hot: unknown dtype code %lld", static_cast<long long>(dtype));
  if (idx.ndim == kMaxDims) fail(ErrorCode::Shape, "one_hot: classes of %d dimensions; at most %d", kMaxDims, kMaxDims - 1);
  check_bounds(c, idx, 0, -1, classes);
  int64_t shape[kMaxDims];
  for (int d = 0; d < idx.ndim; d++) shape[d] = idx.shape[d];
  shape[idx.ndim] = classes;
  c.compute = DType(dtype);
  c.own_dtype_inputs |= 1u << 0;
  set_out(c, 0, c.compute, shape, idx.ndim + 1);
}

}  // namespace fastdl
