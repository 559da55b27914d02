// Shapes, dtypes and memory layout of pooling. Sizes and limits follow PyTorch.
#include "infer.h"

namespace fastdl {
namespace {

using Long = long long;  // for printf

constexpr int kAxisH = 2, kAxisW = 3, kPlanes = 12;  // dims of H and W; the attribute slot that tells kernels the layout
constexpr int64_t kLargest = 0x7fffffff;             // limit of window parameters: products of two of them never overflow

void check_image(const Call& c, const View& x, const char* what, bool need_pixels) {
  if (x.ndim != 4) fail(ErrorCode::Shape, "%s: %s is %s; need 4 dimensions (N, C, H, W)", op_name(c), what, shape_text(x).c_str());
  if (need_pixels && (x.shape[kAxisH] == 0 || x.shape[kAxisW] == 0))
    fail(ErrorCode::Shape, "%s: %s is %s; H and W must not be 0", op_name(c), what, shape_text(x).c_str());
}

// Checks i0 .. i7 and gives avg_pool2d the dilation 1 that its kernels rely on.
void check_windows(Call& c, bool max) {
  int64_t* i = c.attrs.i;
  if (!max) {
    if (i[6] > 1 || i[7] > 1) fail(ErrorCode::Value, "%s: average pooling has no dilation", op_name(c));
    i[6] = i[7] = 1;
  }
  static const char* const names[] = {"kernel_size", "stride", "padding", "dilation"};
  for (int k = 0; k < 8; k++) {
    const int64_t low = k / 2 == 2 ? 0 : 1;
    if (i[k] < low || i[k] > kLargest)
      fail(ErrorCode::Value, "%s: %s (%lld, %lld); need values from %lld to %lld", op_name(c), names[k / 2], Long(i[k / 2 * 2]),
           Long(i[k / 2 * 2 + 1]), Long(low), Long(kLargest));
  }
  if (i[4] > i[0] / 2 || i[5] > i[1] / 2)
    fail(ErrorCode::Value, "%s: padding (%lld, %lld) is more than half of kernel_size (%lld, %lld)", op_name(c), Long(i[4]),
         Long(i[5]), Long(i[0]), Long(i[1]));
  if (max && i[0] * i[1] > 255)
    fail(ErrorCode::Shape, "%s: a window of %lld x %lld has more than 255 elements, the most that is supported", op_name(c),
         Long(i[0]), Long(i[1]));
}

// Number of windows along an axis of `in` elements; axis 0 is H, 1 is W.
int64_t window_count(const Call& c, int axis, int64_t in) {
  const int64_t kernel = c.attrs.i[axis], stride = c.attrs.i[2 + axis], pad = c.attrs.i[4 + axis], dilation = c.attrs.i[6 + axis];
  const bool ceil_mode = c.attrs.i[8];
  if (in >> 61) fail(ErrorCode::Shape, "%s: size %lld is too large", op_name(c), Long(in));
  const int64_t room =
      in + 2 * pad - (kernel - 1) * dilation - 1 + (ceil_mode ? stride - 1 : 0);  // start positions after the first
  int64_t out = room < 0 ? 0 : room / stride + 1;
  if (ceil_mode && out > 0 && (out - 1) * stride >= in + pad)
    out--;  // the last window must start inside the input or its left padding
  if (out < 1)
    fail(ErrorCode::Shape, "%s: %s = %lld with padding %lld is shorter than the window (kernel %lld, dilation %lld)", op_name(c),
         axis ? "W" : "H", Long(in), Long(pad), Long(kernel), Long(dilation));
  return out;
}

// Row-major images are pooled as they lie where there is a kernel for that (float, double); else memory is channels-last.
bool row_major(const Call& c, const View& x) {
  const bool one_pixel = x.shape[kAxisH] == 1 && x.shape[kAxisW] == 1;  // both layouts are the same: take the one over channels
  return x.contiguous() && !one_pixel && itemsize(c.compute) > 2;
}

void choose_layout(Call& c, bool planes, int inputs) {
  c.attrs.i[kPlanes] = planes;
  (planes ? c.contiguous_inputs : c.channels_last_inputs) |= (1u << inputs) - 1;
}

void check_taps(Call& c, const char* name, DType dtype) {
  if (c.in[1].dtype != dtype)
    fail(ErrorCode::DType, "%s: %s are %s; need %s as the forward op returns", op_name(c), name, dtype_name(c.in[1].dtype),
         dtype_name(dtype));
  if (!same_shape(c.in[0], c.in[1]))
    fail(ErrorCode::Shape, "%s: gradient is %s, %s are %s; need equal shapes", op_name(c), shape_text(c.in[0]).c_str(), name,
         shape_text(c.in[1]).c_str());
  c.own_dtype_inputs |= 2;
}

void check_input_size(const Call& c, int64_t h, int64_t w) {
  if (h < 1 || w < 1) fail(ErrorCode::Shape, "%s: input size (%lld, %lld); need at least 1", op_name(c), Long(h), Long(w));
}

// Adaptive kernels multiply input by output sizes.
void check_adaptive(const Call& c, const View& x, int64_t h, int64_t w) {
  if (h > kLargest || w > kLargest || x.shape[kAxisH] > kLargest || x.shape[kAxisW] > kLargest)
    fail(ErrorCode::Shape, "%s: sizes (%lld, %lld) for %s; the most that is supported is %lld", op_name(c), Long(h), Long(w),
         shape_text(x).c_str(), Long(kLargest));
}

}  // namespace

void infer_pool2d(Call& c) {
  const View& x = c.in[0];
  const bool max = c.op == OpId::max_pool2d;
  check_image(c, x, "input", true);
  check_windows(c, max);
  c.compute = lift_dtype(c, x.dtype);
  const int64_t shape[] = {x.shape[0], x.shape[1], window_count(c, 0, x.shape[kAxisH]), window_count(c, 1, x.shape[kAxisW])};
  const bool planes = row_major(c, x);
  choose_layout(c, planes, 1);
  const Layout layout = planes ? Layout::Contiguous : Layout::ChannelsLast;
  set_out(c, 0, c.compute, shape, 4, layout);
  if (max) set_out(c, 1, DType::uint8, shape, 4, layout);
}

void infer_pool2d_backward(Call& c) {
  const View& g = c.in[0];
  const bool max = c.op == OpId::max_pool2d_backward;
  const int64_t h = c.attrs.i[10], w = c.attrs.i[11];
  check_image(c, g, "gradient", true);
  check_windows(c, max);
  check_input_size(c, h, w);
  c.compute = lift_dtype(c, g.dtype);
  const int64_t oh = window_count(c, 0, h), ow = window_count(c, 1, w);
  if (g.shape[kAxisH] != oh || g.shape[kAxisW] != ow)
    fail(ErrorCode::Shape, "%s: gradient is %s, but pooling an input of (%lld, %lld) gives (%lld, %lld)", op_name(c),
         shape_text(g).c_str(), Long(h), Long(w), Long(oh), Long(ow));
  if (max) check_taps(c, "taps", DType::uint8);
  const int64_t* i = c.attrs.i;
  // Planes have a kernel where columns stride by 1 or 2; averages of windows that overlap are faster over channels.
  const bool simple = i[3] <= 2 && i[6] == 1 && i[7] == 1, apart = i[0] <= i[2] && i[1] <= i[3];
  const bool planes = simple && (max || apart) && row_major(c, max ? c.in[1] : g);
  choose_layout(c, planes, max ? 2 : 1);
  const int64_t shape[] = {g.shape[0], g.shape[1], h, w};
  set_out(c, 0, c.compute, shape, 4, planes ? Layout::Contiguous : Layout::ChannelsLast);
}

void infer_adaptive_pool2d(Call& c) {
  const View& x = c.in[0];
  check_image(c, x, "input", true);
  const int64_t h = c.attrs.i[0], w = c.attrs.i[1];
  if (h < 0 || w < 0) fail(ErrorCode::Shape, "%s: output size (%lld, %lld) is negative", op_name(c), Long(h), Long(w));
  check_adaptive(c, x, h, w);
  c.compute = lift_dtype(c, x.dtype);
  const int64_t shape[] = {x.shape[0], x.shape[1], h, w};
  c.channels_last_inputs |= 1;
  set_out(c, 0, c.compute, shape, 4, Layout::ChannelsLast);
  if (c.op == OpId::adaptive_max_pool2d) set_out(c, 1, DType::int64, shape, 4, Layout::ChannelsLast);
}

void infer_adaptive_pool2d_backward(Call& c) {
  const View& g = c.in[0];
  const bool max = c.op == OpId::adaptive_max_pool2d_backward;
  const int64_t h = c.attrs.i[0], w = c.attrs.i[1];
  check_image(c, g, "gradient", false);
  check_input_size(c, h, w);
  check_adaptive(c, g, h, w);
  if (max) check_taps(c, "indices", DType::int64);
  c.compute = lift_dtype(c, g.dtype);
  c.channels_last_inputs |= max ? 3 : 1;
  const int64_t shape[] = {g.shape[0], g.shape[1], h, w};
  set_out(c, 0, c.compute, shape, 4, Layout::ChannelsLast);
}

}  // namespace fastdl
