// conv2d and its gradients on channels-last memory, as implicit matrix products (device/conv_load.cuh): from views to forms, for
// the files that hold the kernels. Such a file says how a form is launched: launch_form(args, plan, form), with form.whole telling
// whether both operands are read in whole chunks.
//
// Kernels of 1x1 without stride and padding are plain products (run_gemm).
#pragma once
#include "cuda/conv_call.h"
#include "cuda/device/conv_load.cuh"
#include "cuda/device/gemm_engine.cuh"
#include "cuda/gemm_plan.h"

namespace fastdl {
namespace {

// ---- geometry -------------------------------------------------------------------------------------------------------------
inline ConvGeometry geometry_of(const ConvCall& c) {
  ConvGeometry g = {};
  g.forward = c.forward;
  int64_t most[2];  // positions of a phase along each axis
  for (int i = 0; i < 2; i++) {
    ConvAxis& axis = g.axis[i];
    axis.source = int32_t(c.forward ? c.in[i] : c.out[i]);
    axis.out = int32_t(c.forward ? c.out[i] : c.in[i]);
    axis.stride = int32_t(c.stride[i]);
    axis.padding = int32_t(c.padding[i]);
    axis.dilation = int32_t(c.dilation[i]);
    axis.taps = int32_t(c.kernel[i]);
    axis.phases = axis.period = 1;
    most[i] = axis.out;
    if (c.forward) continue;
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
    g.row[i] = make_divisor(most[1] - i);
    for (int j = 0; j < 2; j++) g.image[i][j] = make_divisor((most[0] - i) * (most[1] - j));
  }
  g.channels = int32_t(c.forward ? c.group_in() : c.group_out());
  g.columns = int32_t(c.forward ? c.group_out() : c.group_in());
  g.pitch = c.forward ? c.in_channels : c.out_channels;
  g.out_pitch = c.forward ? c.out_channels : c.in_channels;
  return g;
}

// The three products of a plain kernel: (pixels, channels) and (output channels, input channels), per group.
inline GemmProblem plain_problem(const ConvCall& c, const void* a, const void* b, DType dtype, const GemmEpilogue& out,
                                 bool weights) {
  GemmProblem p = {};
  const int64_t in = c.group_in(), o = c.group_out(), pixels = c.out_pixels();
  p.z = c.groups;
  p.batch.ndim = 1;
  p.batch.shape[0] = c.groups;
  p.out = out;
  if (weights) {
    p.m = o, p.n = in, p.k = pixels;
    p.a = {a, dtype, 1, c.out_channels};
    p.b = {b, dtype, 1, c.in_channels};
    p.batch.a[0] = o, p.batch.b[0] = in;
    p.out.row_stride = in, p.out.z_stride = o * in;
  } else if (c.forward) {
    p.m = pixels, p.n = o, p.k = in;
    p.a = {a, dtype, c.in_channels, 1};
    p.b = {b, dtype, in, 1};
    p.batch.a[0] = in, p.batch.b[0] = o * in;
    p.out.row_stride = c.out_channels, p.out.z_stride = o;
  } else {
    p.m = pixels, p.n = in, p.k = o;
    p.a = {a, dtype, c.out_channels, 1};
    p.b = {b, dtype, 1, in};
    p.batch.a[0] = o, p.batch.b[0] = o * in;
    p.out.row_stride = c.in_channels, p.out.z_stride = in;
  }
  return p;
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

template <class S>
constexpr int64_t kStepOf = sizeof(S) == 8 ? 16 : 64 / sizeof(S);  // of k, of the engine

struct GatherPlan {
  GemmPlan gemm;
  int64_t packed_bytes;
};
template <class S>
GatherPlan plan_gather(const ConvCall& c, const ConvGeometry& g, const DeviceContext& device) {
  const int64_t phases = int64_t(g.axis[0].phases) * g.axis[1].phases, m = c.batch * g.image[0][0].value;
  const int64_t k = g.channels * ceil_div(g.axis[0].taps, g.axis[0].period) * ceil_div(g.axis[1].taps, g.axis[1].period);
  GatherPlan p;
  p.gemm = plan_gemm(c.groups * phases, m, g.columns, k, sizeof(WideOf<S>), sizeof(S) < 8, kStepOf<S>,
                     phases == 1 ? device.multiprocessors : 1);
  p.packed_bytes = ceil_div(c.groups * c.taps() * g.columns * g.channels * int64_t(sizeof(S)), 256) * 256;
  return p;
}

// y or dx, by the form; `launch` is the file's launch_form.
template <class S, class Launch>
void run_gather(const Args& a, const ConvCall& c, const View& source, const View& w, const GemmEpilogue& out,
                const Launch& launch) {
  if (a.out[0].numel() == 0) return;
  if (c.depthwise()) return run_depthwise(a, c, source, w, out);
  if (c.plain()) return run_gemm(a, plain_problem(c, source.data, w.data, source.dtype, out, false));
  const ConvGeometry g = geometry_of(c);
  const GatherPlan plan = plan_gather<S>(c, g, *a.device);
  const int64_t weights = w.numel();
  if (weights) {
    const PackWeights pack = {w.data, a.workspace, g, weights};
    FD_LAUNCH(a, (conv_pack_weights<S>), stride_grid(a.device, weights, 256), 256, 0, pack);
  }
  constexpr int64_t vector = kPack<S> > 4 ? kPack<S> : 4;
  GatherForm<S> form = {};
  form.tiling = plan.gemm.tiling;
  form.g = g;
  form.source = source.ptr<S>();
  form.whole = g.channels % vector == 0 && is_aligned(source.data);
  form.weights = {a.workspace, 0, 1, ChunkOrder::AlongK, form.whole};
  form.weight_taps = int64_t(g.columns) * g.channels;
  form.out = out;
  form.partial = plan.gemm.partial_bytes ? static_cast<char*>(a.workspace) + plan.packed_bytes : nullptr;
  form.vector_out = g.columns % 4 == 0 && is_aligned(out.out);
  launch(a, plan.gemm, form);
}
template <class S>
int64_t gather_workspace(const Args& a, const ConvCall& c, const View& source) {
  if (!c.fits_31_bits()) return -1;
  if (a.out[0].numel() == 0) return 0;
  if (c.depthwise()) return depthwise_workspace(c, source.dtype, false, *a.device);
  if (c.plain()) return gemm_workspace(plain_problem(c, nullptr, nullptr, source.dtype, {}, false), *a.device);
  const GatherPlan p = plan_gather<S>(c, geometry_of(c), *a.device);
  return p.packed_bytes + p.gemm.partial_bytes;
}

inline GemmEpilogue forward_epilogue(const Args& a, const ConvCall& c) {
  const View& bias = a.in[2];
  GemmEpilogue out = {};
  out.out = a.out[0].data;
  out.dtype = a.out[0].dtype;
  out.bias = bias.given() ? bias.data : nullptr;
  out.bias_dtype = bias.dtype;
  out.bias_z_stride = c.group_out();
  out.activation = int8_t(a.attrs->i[7]);
  return out;
}
inline GemmEpilogue backward_input_epilogue(const Args& a) {
  GemmEpilogue out = {};
  out.out = a.out[0].data;
  out.dtype = a.out[0].dtype;
  return out;
}

// ---- dw and db ----------------------------------------------------------------------------------------------------------------
template <class S>
GemmPlan plan_weight(const ConvCall& c, const DeviceContext& device) {
  return plan_gemm(c.groups, c.group_out(), c.taps() * c.group_in(), c.out_pixels(), sizeof(WideOf<S>), sizeof(S) < 8, kStepOf<S>,
                   device.multiprocessors, c.taps() > 1);
}
inline GemmEpilogue backward_weight_epilogue(const Args& a) {
  GemmEpilogue out = {};
  out.out = a.out[0].data;
  out.line_sums = a.out[1].data;
  out.dtype = a.out[0].dtype;
  return out;
}

template <class S, class Launch>
void run_weight(const Args& a, const Launch& launch) {
  const View &dy = a.in[0], &x = a.in[1];
  const ConvCall c = backward_weight_call(a);
  const GemmEpilogue out = backward_weight_epilogue(a);
  if (c.out_channels == 0) return;
  if (c.depthwise()) return run_depthwise_weight(a, c, out);
  if (c.plain()) return run_gemm(a, plain_problem(c, dy.data, x.data, x.dtype, out, true));
  const GemmPlan plan = plan_weight<S>(c, *a.device);
  constexpr int64_t vector = kPack<S> > 4 ? kPack<S> : 4;
  WeightForm<S> form = {};
  form.tiling = plan.tiling;
  form.g = geometry_of(c);
  form.whole = c.group_out() % vector == 0 && c.group_in() % vector == 0 && is_aligned(dy.data) && is_aligned(x.data);
  form.grad = {dy.data, 1, c.out_channels, form.whole ? ChunkOrder::AlongLines : ChunkOrder::AcrossLines, form.whole};
  form.source = x.ptr<S>();
  form.out = out;
  form.partial = plan.partial_bytes ? a.workspace : nullptr;
  form.vector_out = c.group_in() % 4 == 0 && is_aligned(out.out);
  launch(a, plan, form);
}
template <class S>
int64_t weight_workspace(const Args& a) {
  const ConvCall c = backward_weight_call(a);
  if (c.out_channels == 0) return 0;
  if (!c.fits_31_bits()) return -1;
  if (c.depthwise()) return depthwise_workspace(c, a.in[0].dtype, true, *a.device);
  if (c.plain())
    return gemm_workspace(plain_problem(c, nullptr, nullptr, a.in[0].dtype, backward_weight_epilogue(a), true), *a.device);
  return plan_weight<S>(c, *a.device).partial_bytes;
}

}  // namespace

// The six functions of a dtype's rows, around `launch(args, plan, form)`.
#define FD_CONV_ROWS(S, dtypes, launch)                                                                                       \
  {OpId::conv2d, dtypes,                                                                                                      \
   [](const Args& a) { run_gather<S>(a, forward_call(a), a.in[0], a.in[1], forward_epilogue(a, forward_call(a)), launch); },  \
   [](const Args& a) { return gather_workspace<S>(a, forward_call(a), a.in[0]); }},                                           \
      {OpId::conv2d_backward_input, dtypes,                                                                                   \
       [](const Args& a) { run_gather<S>(a, backward_input_call(a), a.in[0], a.in[1], backward_input_epilogue(a), launch); }, \
       [](const Args& a) { return gather_workspace<S>(a, backward_input_call(a), a.in[0]); }},                                \
      {OpId::conv2d_backward_weight, dtypes, [](const Args& a) { run_weight<S>(a, launch); }, weight_workspace<S>},

}  // namespace fastdl
