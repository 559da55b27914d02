// Shapes and dtypes of the ops that move memory.
#include "infer.h"

namespace fastdl {

void infer_copy(Call& c) {
  const View& x = c.in[0];
  const int64_t d = c.attrs.i[0], layout = c.attrs.i[1];
  if (d < -1 || d >= kNumDTypes) fail(ErrorCode::DType, "copy: unknown dtype code %lld", static_cast<long long>(d));
  if (layout < 0 || layout > int(Layout::ChannelsLast))
    fail(ErrorCode::Value, "copy: unknown layout code %lld", static_cast<long long>(layout));
  if (layout == int(Layout::ChannelsLast) && x.ndim < 3)
    fail(ErrorCode::Shape, "copy: channels-last memory needs at least 3 dimensions, got shape %s", shape_text(x).c_str());
  c.compute = x.dtype;
  set_out(c, 0, d < 0 ? x.dtype : DType(d), x.shape, x.ndim, Layout(layout));
}

void infer_fill(Call& c) {
  c.compute = c.in[0].dtype;
  set_out(c, 0, c.compute, c.in[0].shape, c.in[0].ndim, Layout::Like);
  c.out[0].alias = 0;
}

void infer_concat(Call& c) {
  if (c.nin < 1) fail(ErrorCode::Value, "concat: needs at least one tensor");
  const View& x = c.in[0];
  if (x.ndim < 1) fail(ErrorCode::Shape, "concat: 0-dimensional tensors cannot be concatenated; use stack");
  const int axis = normal_axis(c, c.attrs.i[0], x.ndim);
  c.attrs.i[0] = axis;
  int64_t shape[kMaxDims];
  for (int i = 0; i < x.ndim; i++) shape[i] = x.shape[i];
  for (int k = 1; k < c.nin; k++) {
    const View& v = c.in[k];
    bool fits = v.ndim == x.ndim;
    for (int i = 0; i < x.ndim && fits; i++) fits = i == axis || v.shape[i] == x.shape[i];
    if (!fits)
      fail(ErrorCode::Shape, "concat: tensor 0 is %s, tensor %d is %s; all sizes but that of axis %d must be equal",
           shape_text(x).c_str(), k, shape_text(v).c_str(), axis);
    if (__builtin_add_overflow(shape[axis], v.shape[axis], &shape[axis])) fail(ErrorCode::Shape, "concat: the result is too large");
  }
  c.compute = promote_inputs(c, 0, c.nin);
  set_out(c, 0, c.compute, shape, x.ndim, Layout::Like);
}

void infer_pad(Call& c) {
  const View& x = c.in[0];
  int64_t shape[kMaxDims];
  for (int i = 0; i < x.ndim; i++) {
    const int64_t before = c.attrs.i[2 * i], after = c.attrs.i[2 * i + 1];
    if (before < 0 || after < 0)
      fail(ErrorCode::Value, "pad: widths must not be negative, got (%lld, %lld) for dimension %d", static_cast<long long>(before),
           static_cast<long long>(after), i);
    if (__builtin_add_overflow(x.shape[i], before, &shape[i]) || __builtin_add_overflow(shape[i], after, &shape[i]))
      fail(ErrorCode::Shape, "pad: the result is too large");
  }
  c.compute = x.dtype;
  set_out(c, 0, x.dtype, shape, x.ndim, Layout::Like);
}

void infer_flip(Call& c) {
  const View& x = c.in[0];
  if (c.attrs.i[0] < 0 || c.attrs.i[0] >> x.ndim)
    fail(ErrorCode::Index, "flip: axes mask %llx is out of range for %d dimensions", static_cast<long long>(c.attrs.i[0]), x.ndim);
  c.compute = x.dtype;
  set_out_like(c, x.dtype, x);
}

void infer_tri(Call& c) {
  const View& x = c.in[0];
  if (x.ndim < 2) fail(ErrorCode::Shape, "%s: needs at least 2 dimensions, got shape %s", op_name(c), shape_text(x).c_str());
  const int64_t rows = x.shape[x.ndim - 2], cols = x.shape[x.ndim - 1];
  int64_t& k = c.attrs.i[0];  // diagonals beyond the matrix mean the same as its last ones
  k = k > cols ? cols : k < -rows ? -rows : k;
  c.compute = x.dtype;
  set_out_like(c, x.dtype, x);
}

}  // namespace fastdl
