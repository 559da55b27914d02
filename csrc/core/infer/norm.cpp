// Shapes, dtypes, memory layout and scratch space of layer_norm and batch_norm.
#include "infer.h"

namespace fastdl {
namespace {

using Long = long long;  // for printf

// Saved statistics of 16-bit floats are float.
DType stats_dtype(DType compute) { return compute == DType::float16 || compute == DType::bfloat16 ? DType::float32 : compute; }

int64_t product(const Call& c, int64_t a, int64_t b) {
  int64_t r;
  if (__builtin_mul_overflow(a, b, &r) || r < 0) fail(ErrorCode::Shape, "%s: the tensor is too large", op_name(c));
  return r;
}

// An optional parameter of the given shape; it keeps its own float dtype.
void check_param(Call& c, int k, const char* name, const int64_t* shape, int ndim) {
  const View& v = c.in[k];
  if (!v.given()) return;
  bool fits = v.ndim == ndim;
  for (int i = 0; i < ndim && fits; i++) fits = v.shape[i] == shape[i];
  if (!fits)
    fail(ErrorCode::Shape, "%s: %s is %s; need %s", op_name(c), name, shape_text(v).c_str(), shape_text(shape, ndim).c_str());
  if (!is_float(v.dtype)) fail(ErrorCode::DType, "%s: %s is %s; need a float dtype", op_name(c), name, dtype_name(v.dtype));
  c.own_dtype_inputs |= 1u << k;
}

// mean and rstd as the forward op returned them, inputs 2 and 3.
void check_stats(Call& c, const int64_t* shape, int ndim) {
  for (int k = 2; k <= 3; k++) {
    const View& v = c.in[k];
    const char* name = k == 2 ? "mean" : "rstd";
    bool fits = v.ndim == ndim;
    for (int i = 0; i < ndim && fits; i++) fits = v.shape[i] == shape[i];
    if (!fits)
      fail(ErrorCode::Shape, "%s: %s is %s; need %s", op_name(c), name, shape_text(v).c_str(), shape_text(shape, ndim).c_str());
    if (v.dtype != stats_dtype(c.compute))
      fail(ErrorCode::DType, "%s: %s is %s; need %s, as the forward op returns for %s", op_name(c), name, dtype_name(v.dtype),
           dtype_name(stats_dtype(c.compute)), dtype_name(c.compute));
    c.own_dtype_inputs |= 1u << k;
    c.contiguous_inputs |= 1u << k;
  }
}

// The gradient is cast to the dtype of the input.
void check_gradient(Call& c) {
  if (!same_shape(c.in[0], c.in[1]))
    fail(ErrorCode::Shape, "%s: gradient is %s, input is %s; need equal shapes", op_name(c), shape_text(c.in[0]).c_str(),
         shape_text(c.in[1]).c_str());
  lift_dtype(c, c.in[0].dtype);
  c.compute = lift_dtype(c, c.in[1].dtype);
}

// ---- layer_norm: slot i0 normalised dims; i1 elements per row, i2 rows per block (backward) are filled in for the kernels ----
struct RowShape {
  int64_t rows, length;
  const int64_t* inner;  // the normalised shape
  int outer_dims, inner_dims;
};
RowShape row_shape(Call& c, const View& x) {
  const int64_t dims = c.attrs.i[0];
  if (dims < 1 || dims > x.ndim)
    fail(ErrorCode::Shape, "%s: normalises the last %lld dimensions, but the input is %s", op_name(c), Long(dims),
         shape_text(x).c_str());
  RowShape s{1, 1, x.shape + x.ndim - dims, int(x.ndim - dims), int(dims)};
  for (int i = 0; i < s.outer_dims; i++) s.rows = product(c, s.rows, x.shape[i]);
  for (int i = 0; i < s.inner_dims; i++) s.length = product(c, s.length, s.inner[i]);
  c.attrs.i[1] = s.length;
  return s;
}

// ---- batch_norm: i1 (row-major planes) and i2 (rows per block of statistics) are filled in for the kernels -------------------
// i3 (relu) and i4 (only from kept factors) are set by the passes of captured programs (plan_norms.cpp, plan_recompute.cpp).
struct ChannelShape {
  int64_t channels, count, blocks;  // count: elements per channel
};
ChannelShape channel_shape(Call& c, const View& x, uint32_t inputs) {
  if (x.ndim < 2)
    fail(ErrorCode::Shape, "%s: input is %s; need at least 2 dimensions (N, C, ...)", op_name(c), shape_text(x).c_str());
  int64_t plane = 1;
  for (int i = 2; i < x.ndim; i++) plane = product(c, plane, x.shape[i]);
  ChannelShape s{x.shape[1], product(c, x.shape[0], plane), 0};
  const bool planes = plane > 1 && x.contiguous() && itemsize(c.compute) > 2;  // 16-bit floats have the kernel over rows only
  const int64_t block = planes ? plane : s.channels >= 512 ? 128 : 256;
  s.blocks = s.count / block + (s.count % block != 0);
  c.attrs.i[1] = planes;
  c.attrs.i[2] = block;
  (planes || x.ndim == 2 ? c.contiguous_inputs : c.channels_last_inputs) |= inputs;
  return s;
}
Layout channel_layout(const Call& c, const View& x) {
  return c.attrs.i[1] || x.ndim == 2 ? Layout::Contiguous : Layout::ChannelsLast;
}

}  // namespace

void infer_layer_norm(Call& c) {
  const View& x = c.in[0];
  const RowShape s = row_shape(c, x);
  check_param(c, 1, "weight", s.inner, s.inner_dims);
  check_param(c, 2, "bias", s.inner, s.inner_dims);
  c.compute = lift_dtype(c, x.dtype);
  c.contiguous_inputs |= 7;
  set_out(c, 0, c.compute, x.shape, x.ndim);
  set_out(c, 1, stats_dtype(c.compute), x.shape, s.outer_dims);
  set_out(c, 2, stats_dtype(c.compute), x.shape, s.outer_dims);
  c.workspace = product(c, s.length, 2 * itemsize(stats_dtype(c.compute)));
}

void infer_layer_norm_backward(Call& c) {
  const View &x = c.in[1], &weight = c.in[4];
  check_gradient(c);
  const RowShape s = row_shape(c, x);
  check_stats(c, x.shape, s.outer_dims);
  check_param(c, 4, "weight", s.inner, s.inner_dims);
  c.contiguous_inputs |= 1 | 2 | 16;
  // Rows enough that a block's partial sums stay small beside what it reads and writes, and few, so that many threads share them.
  const int64_t block = s.length > 512 ? 16 : s.length < 16 ? 512 : 8192 / s.length;
  c.attrs.i[2] = block;
  const DType params = weight.given() ? weight.dtype : c.compute;
  set_out(c, 0, c.compute, x.shape, x.ndim);
  set_out(c, 1, params, s.inner, s.inner_dims);
  set_out(c, 2, params, s.inner, s.inner_dims);
  const int64_t blocks = s.rows / block + 1;
  c.workspace = product(c, product(c, s.length, 2 * blocks + 1), itemsize(stats_dtype(c.compute)));
}

void infer_batch_norm(Call& c) {
  const View &x = c.in[0], &running_mean = c.in[3], &running_var = c.in[4];
  const bool training = c.attrs.i[0];
  c.compute = lift_dtype(c, x.dtype);
  const ChannelShape s = channel_shape(c, x, 1);
  static const char* const names[] = {"", "weight", "bias", "running_mean", "running_var"};
  for (int k = 1; k <= 4; k++) check_param(c, k, names[k], &s.channels, 1);
  if (running_mean.given() != running_var.given())
    fail(ErrorCode::Value, "%s: needs both running_mean and running_var, or none", op_name(c));
  if (!training && !running_mean.given()) fail(ErrorCode::Value, "%s: evaluation needs running_mean and running_var", op_name(c));
  if (training && running_mean.given() && s.channels > 1 && (running_mean.strides[0] == 0 || running_var.strides[0] == 0))
    fail(ErrorCode::Value, "%s: running statistics are broadcast; need memory of their own to be updated", op_name(c));
  if (training && s.count == 1)
    fail(ErrorCode::Value, "%s: training needs more than 1 value per channel, got input %s", op_name(c), shape_text(x).c_str());
  set_out(c, 0, c.compute, x.shape, x.ndim, channel_layout(c, x));
  set_out(c, 1, stats_dtype(c.compute), &s.channels, 1);
  set_out(c, 2, stats_dtype(c.compute), &s.channels, 1);
  c.workspace = product(c, s.channels, 3 * itemsize(stats_dtype(c.compute)));
  if (training) c.workspace += product(c, product(c, s.channels, s.blocks), 2 * sizeof(double));
}

void infer_batch_norm_backward(Call& c) {
  const View &x = c.in[1], &weight = c.in[4];
  check_gradient(c);
  const ChannelShape s = channel_shape(c, x, 1 | 2);
  check_stats(c, &s.channels, 1);
  check_param(c, 4, "weight", &s.channels, 1);
  const DType params = weight.given() ? weight.dtype : c.compute;
  set_out(c, 0, c.compute, x.shape, x.ndim, channel_layout(c, x));
  set_out(c, 1, params, &s.channels, 1);
  set_out(c, 2, params, &s.channels, 1);
  c.workspace = product(c, product(c, s.channels, 2 * s.blocks + 3), itemsize(stats_dtype(c.compute)));
}

}  // namespace fastdl
