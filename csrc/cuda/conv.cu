// conv2d and its gradients on channels-last memory, as implicit matrix products (device/conv_load.cuh).
#include "cuda/device/conv_load.cuh"
#include "cuda/device/gemm_ffma.cuh"
#include "cuda/gemm_plan.h"

namespace fastdl {
namespace {

// ---- geometry -------------------------------------------------------------------------------------------------------------
struct ConvCall {
  int64_t batch, groups, in_channels, out_channels;
  ConvGeometry g;
  int64_t in[2], out[2], kernel[2];
  int64_t taps() const { return kernel[0] * kernel[1]; }
};

ConvCall call_of(const Args& a, const View& x, const View& w, const View& y, bool forward) {
  ConvCall c = {};
  c.batch = x.shape[0];
  c.in_channels = x.shape[1];
  c.out_channels = y.shape[1];
  c.groups = a.attrs->i[6];
  ConvGeometry& g = c.g;
  g.forward = forward;
  int64_t most[2];  // positions of a phase along each axis
  for (int i = 0; i < 2; i++) {
    ConvAxis& axis = g.axis[i];
    c.in[i] = x.shape[2 + i];
    c.out[i] = y.shape[2 + i];
    c.kernel[i] = w.shape[2 + i];
    axis.source = int32_t(forward ? c.in[i] : c.out[i]);
    axis.out = int32_t(forward ? c.out[i] : c.in[i]);
    axis.stride = int32_t(a.attrs->i[i]);
    axis.padding = int32_t(a.attrs->i[2 + i]);
    axis.dilation = int32_t(a.attrs->i[4 + i]);
    axis.taps = int32_t(c.kernel[i]);
    axis.phases = axis.period = 1;
    most[i] = axis.out;
    if (forward) continue;
    int32_t gcd = axis.stride, other = axis.dilation;
    while (other) {
      const int32_t rest = gcd % other;
      gcd = other;
      other = rest;
    }
    axis.period = axis.stride / gcd;
    axis.phases = int32_t(min_of(axis.stride, axis.out));
    most[i] = ceil_div(axis.out, axis.stride);
  }
  for (int i = 0; i < 2; i++) {
    g.row[i] = make_divider(max_of(1, most[1] - i));
    for (int j = 0; j < 2; j++) g.image[i][j] = make_divider(max_of(1, (most[0] - i) * (most[1] - j)));
  }
  const int64_t in = c.in_channels / c.groups, out = c.out_channels / c.groups;
  g.channels = int32_t(forward ? in : out);
  g.columns = int32_t(forward ? out : in);
  g.pitch = forward ? c.in_channels : c.out_channels;
  g.out_pitch = forward ? c.out_channels : c.in_channels;
  return c;
}

// ---- y and dx ---------------------------------------------------------------------------------------------------------------
// w (O, C / groups, KH, KW) -> of each group, of each phase: [column][tap of the phase][channel read]
struct PackWeights {
  const void* from;
  void* to;
  ConvGeometry g;
  int64_t size;
};
FD_DEVICE int32_t taps_before(const ConvAxis& a, int32_t phase) {
  return a.taps / a.period * phase + int32_t(min_of(a.taps % a.period, phase));
}
template <class T>
FD_KERNEL(256, 4)
conv_pack_weights(const PackWeights p) {
  const ConvGeometry& g = p.g;
  const int64_t taps = int64_t(g.axis[0].taps) * g.axis[1].taps;
  for (int64_t at = blockIdx.x * int64_t(256) + threadIdx.x; at < p.size; at += gridDim.x * int64_t(256)) {
    const int64_t filter = at / taps, tap = at - filter * taps;
    const int64_t inner = g.forward ? g.channels : g.columns, outer = g.forward ? g.columns : g.channels;
    const int64_t o = filter / inner, in = filter - o * inner, group = o / outer, in_group = o - group * outer;
    const int64_t column = g.forward ? in_group : in, channel = g.forward ? in : in_group;
    const int32_t r = int32_t(tap / g.axis[1].taps), s = int32_t(tap - int64_t(r) * g.axis[1].taps);
    const int32_t v = r % g.axis[0].period, h = s % g.axis[1].period;
    const int64_t down = (g.axis[0].taps - v + g.axis[0].period - 1) / g.axis[0].period;
    const int64_t across = (g.axis[1].taps - h + g.axis[1].period - 1) / g.axis[1].period;
    const int64_t before = int64_t(taps_before(g.axis[0], v)) * g.axis[1].taps + down * taps_before(g.axis[1], h);
    const int64_t in_phase = r / g.axis[0].period * across + s / g.axis[1].period;
    const int64_t to = ((group * taps + before) * g.columns + column * down * across + in_phase) * g.channels + channel;
    static_cast<T*>(p.to)[to] = static_cast<const T*>(p.from)[at];
  }
}

template <class T, class Form>
void launch(const Args& a, const GemmPlan& plan, const Form& form) {
  if constexpr (sizeof(T) == 8)
    launch_gemm<FfmaSmall<T, 2>>(a, form);
  else if (plan.large)
    launch_gemm<FfmaLarge<T, Load::Any, Load::Any, 1>>(a, form);
  else
    launch_gemm<FfmaSmall<T, 3>>(a, form);
}

struct GatherPlan {
  GemmPlan gemm;
  int64_t packed_bytes, bytes;
};
template <class T>
GatherPlan plan_gather(const ConvCall& c, const DeviceContext& device) {
  const ConvGeometry& g = c.g;
  const int64_t phases = int64_t(g.axis[0].phases) * g.axis[1].phases, m = c.batch * g.image[0][0].divisor;
  const bool empty = c.batch * g.axis[0].out * g.axis[1].out == 0;
  const int64_t k = int64_t(g.channels) * ceil_div(g.axis[0].taps, g.axis[0].period) * ceil_div(g.axis[1].taps, g.axis[1].period);
  GatherPlan p;
  p.gemm = plan_gemm(c.groups * phases, empty ? 0 : m, g.columns, k, sizeof(T), sizeof(T) == 4, kFfmaDepth,
                     phases == 1 ? device.multiprocessors : 1);
  p.packed_bytes = ceil_div(c.groups * c.taps() * g.columns * g.channels * int64_t(sizeof(T)), 256) * 256;
  p.bytes = p.packed_bytes + p.gemm.partial_bytes;
  return p;
}

template <class T>
void gather(const Args& a, const ConvCall& c, const View& source, const View& w, const GemmEpilogue& out) {
  if (c.batch * c.groups * c.g.columns * c.g.axis[0].out * c.g.axis[1].out == 0) return;
  const GatherPlan plan = plan_gather<T>(c, *a.device);
  const int64_t weights = c.groups * c.taps() * c.g.columns * c.g.channels;
  if (weights) {
    const PackWeights pack = {w.data, a.workspace, c.g, weights};
    FD_LAUNCH(a, (conv_pack_weights<T>), uint32_t(min_of(ceil_div(weights, 256), 8 * a.device->multiprocessors)), 256, 0, pack);
  }
  GatherForm<T> form = {};
  form.tiling = plan.gemm.tiling;
  form.g = c.g;
  form.source = source.ptr<T>();
  form.weights = {a.workspace, 0, 1, Walk::AlongK, c.g.channels % 4 == 0};
  form.weight_taps = int64_t(c.g.columns) * c.g.channels;
  form.out = out;
  form.partial = plan.gemm.partial_bytes ? static_cast<char*>(a.workspace) + plan.packed_bytes : nullptr;
  form.vector_out = c.g.columns % 4 == 0 && is_aligned(out.out);
  form.whole_source = c.g.channels % 4 == 0 && is_aligned(source.data);
  launch<T>(a, plan.gemm, form);
}

ConvCall forward_call(const Args& a) { return call_of(a, a.in[0], a.in[1], a.out[0], true); }
ConvCall backward_input_call(const Args& a) { return call_of(a, a.out[0], a.in[1], a.in[0], false); }
ConvCall backward_weight_call(const Args& a) { return call_of(a, a.in[1], a.out[0], a.in[0], true); }

template <class T>
void conv2d(const Args& a) {
  const View &bias = a.in[2], &y = a.out[0];
  const ConvCall c = forward_call(a);
  GemmEpilogue out = {};
  out.out = y.data;
  out.dtype = y.dtype;
  out.bias = bias.given() ? bias.data : nullptr;
  out.bias_dtype = bias.dtype;
  out.bias_z_stride = c.g.columns;
  out.activation = int8_t(a.attrs->i[7]);
  gather<T>(a, c, a.in[0], a.in[1], out);
}

template <class T>
void conv2d_backward_input(const Args& a) {
  GemmEpilogue out = {};
  out.out = a.out[0].data;
  out.dtype = a.out[0].dtype;
  gather<T>(a, backward_input_call(a), a.in[0], a.in[1], out);
}

template <class T, ConvCall (*call)(const Args&)>
int64_t gather_workspace(const Args& a) {
  return plan_gather<T>(call(a), *a.device).bytes;
}

// ---- dw and db ----------------------------------------------------------------------------------------------------------------
template <class T>
GemmPlan plan_weight(const ConvCall& c, const DeviceContext& device) {
  return plan_gemm(c.groups, c.g.columns, c.taps() * c.g.channels, c.batch * c.out[0] * c.out[1], sizeof(T), sizeof(T) == 4,
                   kFfmaDepth, device.multiprocessors, c.taps() > 1);
}

template <class T>
void conv2d_backward_weight(const Args& a) {
  const View &dy = a.in[0], &x = a.in[1], &dw = a.out[0], &db = a.out[1];
  const ConvCall c = backward_weight_call(a);
  if (c.out_channels == 0) return;
  const GemmPlan plan = plan_weight<T>(c, *a.device);
  WeightForm<T> form = {};
  form.tiling = plan.tiling;
  form.g = c.g;
  const bool whole = c.g.columns % 4 == 0 && is_aligned(dy.data);
  form.grad = {dy.data, 1, c.out_channels, whole ? Walk::AlongLines : Walk::AcrossLines, whole};
  form.source = x.ptr<T>();
  form.out.out = dw.data;
  form.out.line_sums = db.data;
  form.out.dtype = dw.dtype;
  form.partial = plan.partial_bytes ? a.workspace : nullptr;
  form.vector_out = c.g.channels % 4 == 0 && is_aligned(dw.data);
  form.whole_source = c.g.channels % 4 == 0 && is_aligned(x.data);
  launch<T>(a, plan, form);
}
template <class T>
int64_t weight_workspace(const Args& a) {
  return plan_weight<T>(backward_weight_call(a), *a.device).partial_bytes;
}

}  // namespace

FD_CUDA_TABLE(conv) = {
    {OpId::conv2d, kF32, conv2d<float>, gather_workspace<float, forward_call>},
    {OpId::conv2d, kF64, conv2d<double>, gather_workspace<double, forward_call>},
    {OpId::conv2d_backward_input, kF32, conv2d_backward_input<float>, gather_workspace<float, backward_input_call>},
    {OpId::conv2d_backward_input, kF64, conv2d_backward_input<double>, gather_workspace<double, backward_input_call>},
    {OpId::conv2d_backward_weight, kF32, conv2d_backward_weight<float>, weight_workspace<float>},
    {OpId::conv2d_backward_weight, kF64, conv2d_backward_weight<double>, weight_workspace<double>},
    {},
};

}  // namespace fastdl
