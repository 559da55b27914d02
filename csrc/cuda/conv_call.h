// A call of conv2d or one of its gradients, in numbers.
#pragma once
#include "cuda/gemm.h"

namespace fastdl {

// x (batch, in_channels, in), w (out_channels, in_channels / groups, kernel), y (batch, out_channels, out).
struct ConvCall {
  int64_t batch, groups, in_channels, out_channels;
  int64_t in[2], out[2], kernel[2], stride[2], padding[2], dilation[2];
  bool forward;

  int64_t taps() const { return kernel[0] * kernel[1]; }
  int64_t group_in() const { return in_channels / groups; }
  int64_t group_out() const { return out_channels / groups; }
  int64_t in_pixels() const { return batch * in[0] * in[1]; }
  int64_t out_pixels() const { return batch * out[0] * out[1]; }
  // A product of matrices as they are.
  bool plain() const {
    bool yes = taps() == 1;
    for (int i = 0; i < 2; i++) yes &= stride[i] == 1 && padding[i] == 0;
    return yes;
  }
  // One filter per channel: nothing to multiply as a matrix.
  bool depthwise() const { return groups > 1 && groups == in_channels && groups == out_channels; }
  // Whether positions, pixels and terms count in 31 bits, as the kernels do; the host has those for more.
  bool fits_31_bits() const {
    constexpr int64_t kLimit = int64_t(1) << 30;
    bool yes = in_pixels() < kLimit && out_pixels() < kLimit && taps() * max_of(group_in(), group_out()) < kLimit;
    for (int i = 0; i < 2; i++) yes &= in[i] + 2 * padding[i] < kLimit;
    return yes && (!depthwise() || max_of(in_pixels(), out_pixels()) * in_channels < 2 * kLimit);
  }
};

// conv_depthwise.cu, every dtype.
int64_t depthwise_workspace(const ConvCall& c, DType dtype, bool weights, const DeviceContext& device);
void run_depthwise(const Args& a, const ConvCall& c, const View& source, const View& w, const GemmEpilogue& out);
void run_depthwise_weight(const Args& a, const ConvCall& c, const GemmEpilogue& out);

namespace {

inline ConvCall call_of(const Args& a, const View& x, const View& w, const View& y, bool forward) {
  ConvCall c = {};
  c.forward = forward;
  c.batch = x.shape[0];
  c.in_channels = x.shape[1];
  c.out_channels = y.shape[1];
  c.groups = a.attrs->i[6];
  for (int i = 0; i < 2; i++) {
    c.in[i] = x.shape[2 + i];
    c.out[i] = y.shape[2 + i];
    c.kernel[i] = w.shape[2 + i];
    c.padding[i] = a.attrs->i[2 + i];
    // Settings that do not matter are made small.
    c.stride[i] = min_of(a.attrs->i[i], c.in[i] + 2 * c.padding[i] + 1);
    c.dilation[i] = c.kernel[i] > 1 ? a.attrs->i[4 + i] : 1;
  }
  return c;
}
inline ConvCall forward_call(const Args& a) { return call_of(a, a.in[0], a.in[1], a.out[0], true); }
inline ConvCall backward_input_call(const Args& a) { return call_of(a, a.out[0], a.in[1], a.in[0], false); }
inline ConvCall backward_weight_call(const Args& a) { return call_of(a, a.in[1], a.out[0], a.in[0], true); }

}  // namespace
}  // namespace fastdl
