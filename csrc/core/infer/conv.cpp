// Shapes and checks of conv2d and its gradients. Kernels trust what passes here.
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "core/conv_plan.h"
#include "core/infer/infer.h"

namespace fastdl {
namespace {

constexpr int64_t kMaxSetting = int64_t(1) << 31;  // of stride, padding, dilation: products of two stay far from overflow

std::atomic<bool>& winograd_allowed() {
  static std::atomic<bool> allowed([] {
    const char* text = getenv("FASTDL_WINOGRAD");
    return !text || strcmp(text, "0") != 0;
  }());
  return allowed;
}

const char* axis_name(int axis) { return axis == 0 ? "height" : "width"; }

void need_rank4(const Call& c, int k, const char* name) {
  if (c.in[k].ndim != 4)
    fail(ErrorCode::Shape, "%s: %s must have 4 axes, got shape %s", op_name(c), name, shape_text(c.in[k]).c_str());
}

ConvShape read_settings(const Call& c) {
  ConvShape s = {};
  for (int axis = 0; axis < 2; axis++) {
    s.stride[axis] = c.attrs.i[axis];
    s.padding[axis] = c.attrs.i[2 + axis];
    s.dilation[axis] = c.attrs.i[4 + axis];
    if (s.stride[axis] < 1 || s.stride[axis] > kMaxSetting)
      fail(ErrorCode::Value, "%s: stride must be 1 to 2^31, got %lld", op_name(c), (long long)s.stride[axis]);
    if (s.padding[axis] < 0 || s.padding[axis] > kMaxSetting)
      fail(ErrorCode::Value, "%s: padding must be 0 to 2^31, got %lld", op_name(c), (long long)s.padding[axis]);
    if (s.dilation[axis] < 1 || s.dilation[axis] > kMaxSetting)
      fail(ErrorCode::Value, "%s: dilation must be 1 to 2^31, got %lld", op_name(c), (long long)s.dilation[axis]);
  }
  s.groups = c.attrs.i[6];
  if (s.groups < 1) fail(ErrorCode::Value, "%s: groups must be 1 or more, got %lld", op_name(c), (long long)s.groups);
  return s;
}

// Output size of one axis; checks that the kernel fits.
int64_t out_size(const Call& c, const ConvShape& s, int axis) {
  const int64_t in = s.in[axis], kernel = s.kernel[axis];
  if (kernel < 1)
    fail(ErrorCode::Shape, "%s: kernel %s must be 1 or more, got %lld", op_name(c), axis_name(axis), (long long)kernel);
  // in < 2^62 as it is the size of a tensor or was bounded; kernel * dilation may be larger than any input
  const __int128 reach = __int128(s.dilation[axis]) * (kernel - 1) + 1, room = __int128(in) + 2 * s.padding[axis];
  if (reach > room)
    fail(ErrorCode::Shape, "%s: kernel %s %lld with dilation %lld is larger than the padded input: %lld + 2 * %lld", op_name(c),
         axis_name(axis), (long long)kernel, (long long)s.dilation[axis], (long long)in, (long long)s.padding[axis]);
  const __int128 out = (room - reach) / s.stride[axis] + 1;
  return out > kTooLarge ? kTooLarge : int64_t(out);
}

void need_groups(const Call& c, const ConvShape& s) {
  if (s.in_channels % s.groups || s.out_channels % s.groups)
    fail(ErrorCode::Shape, "%s: groups = %lld must divide the input channels, %lld, and the output channels, %lld", op_name(c),
         (long long)s.groups, (long long)s.in_channels, (long long)s.out_channels);
}

void need_same(const Call& c, const char* what, int64_t got, int64_t need) {
  if (got != need) fail(ErrorCode::Shape, "%s: %s is %lld, need %lld", op_name(c), what, (long long)got, (long long)need);
}

void reserve(Call& c, int64_t bytes) {
  if (bytes >= kTooLarge) fail(ErrorCode::OutOfMemory, "%s: sizes too large for memory", op_name(c));
  c.workspace = bytes;
}

// Outputs have the promoted float dtype; f16 and bf16 compute in float32.
DType choose_dtypes(Call& c) {
  DType out = c.in[0].dtype;
  for (int k = 1; k < c.nin; k++) {
    if (c.in[k].given()) out = promote(out, c.in[k].dtype);
  }
  if (is_complex(out)) fail(ErrorCode::DType, "%s: complex numbers are not supported", op_name(c));
  if (!is_float(out)) out = float_of(out);
  c.compute = out == DType::float64 ? DType::float64 : DType::float32;
  return out;
}

}  // namespace

bool set_conv_winograd(bool allowed) { return winograd_allowed().exchange(allowed); }

void infer_conv2d(Call& c) {
  need_rank4(c, 0, "x");
  need_rank4(c, 1, "w");
  const View &x = c.in[0], &w = c.in[1], &bias = c.in[2];
  ConvShape s = read_settings(c);
  s.batch = x.shape[0];
  s.in_channels = x.shape[1];
  s.out_channels = w.shape[0];
  need_groups(c, s);
  if (w.shape[1] != s.group_in())
    fail(ErrorCode::Shape, "%s: channels differ: x is %s, w is %s, groups = %lld; need w.shape[1] == x.shape[1] / groups",
         op_name(c), shape_text(x).c_str(), shape_text(w).c_str(), (long long)s.groups);
  if (bias.given() && (bias.ndim != 1 || bias.shape[0] != s.out_channels))
    fail(ErrorCode::Shape, "%s: bias must have shape (%lld,), got %s", op_name(c), (long long)s.out_channels,
         shape_text(bias).c_str());
  for (int axis = 0; axis < 2; axis++) {
    s.in[axis] = x.shape[2 + axis];
    s.kernel[axis] = w.shape[2 + axis];
    s.out[axis] = out_size(c, s, axis);
  }
  if (c.attrs.i[7] < 0 || c.attrs.i[7] > 5)
    fail(ErrorCode::Value, "%s: activation code %lld; need 0 to 5", op_name(c), (long long)c.attrs.i[7]);
  const DType dtype = choose_dtypes(c);
  const int64_t shape[4] = {s.batch, s.out_channels, s.out[0], s.out[1]};
  checked_numel(op_name(c), shape, 4, 8);
  set_out(c, 0, dtype, shape, 4, Layout::ChannelsLast);
  c.channels_last_inputs |= 1;
  c.contiguous_inputs |= 2 | 4;
  c.attrs.i[8] = winograd_allowed();
  reserve(c, conv_gather_plan(s, true, itemsize(c.compute), dtype != c.compute, c.attrs.i[8]).bytes);
}

void infer_conv2d_backward(Call& c) {
  const bool by_input = c.op == OpId::conv2d_backward_input;
  need_rank4(c, 0, "g");
  need_rank4(c, 1, by_input ? "w" : "x");
  const View &g = c.in[0], &other = c.in[1];
  ConvShape s = read_settings(c);
  s.batch = g.shape[0];
  s.out_channels = g.shape[1];
  if (by_input) {
    if (__builtin_mul_overflow(other.shape[1], s.groups, &s.in_channels))
      fail(ErrorCode::Shape, "%s: groups = %lld is too large", op_name(c), (long long)s.groups);
    need_same(c, "w.shape[0]", other.shape[0], s.out_channels);
  } else {
    s.in_channels = other.shape[1];
    need_same(c, "batch size of x", other.shape[0], s.batch);
  }
  need_groups(c, s);
  for (int axis = 0; axis < 2; axis++) {
    const int64_t given = c.attrs.i[7 + axis];
    if (given < 0 || given > kTooLarge) fail(ErrorCode::Value, "%s: size %lld is out of range", op_name(c), (long long)given);
    s.in[axis] = by_input ? given : other.shape[2 + axis];
    s.kernel[axis] = by_input ? other.shape[2 + axis] : given;
    s.out[axis] = g.shape[2 + axis];
    const int64_t expected = out_size(c, s, axis);
    if (expected != s.out[axis])
      fail(ErrorCode::Shape, "%s: g has %s %lld, but input %lld, kernel %lld, stride %lld, padding %lld, dilation %lld give %lld",
           op_name(c), axis_name(axis), (long long)s.out[axis], (long long)s.in[axis], (long long)s.kernel[axis],
           (long long)s.stride[axis], (long long)s.padding[axis], (long long)s.dilation[axis], (long long)expected);
  }
  const DType dtype = choose_dtypes(c);
  c.channels_last_inputs |= 1;
  if (by_input) {
    c.contiguous_inputs |= 2;
    const int64_t shape[4] = {s.batch, s.in_channels, s.in[0], s.in[1]};
    checked_numel(op_name(c), shape, 4, 8);
    set_out(c, 0, dtype, shape, 4, Layout::ChannelsLast);
    c.attrs.i[9] = winograd_allowed();
    reserve(c, conv_gather_plan(s, false, itemsize(c.compute), dtype != c.compute, c.attrs.i[9]).bytes);
  } else {
    c.channels_last_inputs |= 2;
    const int64_t shape[4] = {s.out_channels, s.group_in(), s.kernel[0], s.kernel[1]};
    checked_numel(op_name(c), shape, 4, 8);
    set_out(c, 0, dtype, shape, 4);
    set_out(c, 1, dtype, shape, 1);
    c.attrs.i[15] = winograd_allowed();
    reserve(c, conv_weight_plan(s, itemsize(c.compute), dtype != c.compute, c.attrs.i[15]).bytes);
  }
}

}  // namespace fastdl
