// Depthwise convolutions: one filter per channel, nothing to multiply as a matrix, bound by memory. A thread has 16 bytes of
// channels and kStrip neighbours along the row of y (or of x, for dx), so that weights are read once for them and pixels come from
// the cache. dw sums over pixels: blocks have parts of them, whose sums a second kernel adds in order.
#include "cuda/conv_call.h"
#include "cuda/device/divisor.cuh"
#include "cuda/device/epilogue.cuh"
#include "cuda/tune.h"

namespace fastdl {
namespace {

constexpr int kThreads = 256, kStrip = 4;

// ---- y and dx ------------------------------------------------------------------------------------------------------
template <class S>
struct Depthwise {
  const S* source;   // x, or dy
  const S* weights;  // [tap][channel]
  GemmEpilogue out;
  Convert<S> convert;
  int64_t channels, threads;
  int32_t read[2], written[2], kernel[2], stride[2], padding[2], dilation[2];  // sizes read and written
  Divisor packs, strips, rows, by_stride[2];
  bool whole, whole_out;
};

template <class S>
struct DepthwisePack {
  const S* from;  // (channels, taps)
  S* to;          // (taps, channels)
  int64_t channels, taps;
};
template <class S>
FD_KERNEL(kThreads, 4)
depthwise_pack(const DepthwisePack<S> p) {
  const int64_t step = gridDim.x * int64_t(kThreads);
  for (int64_t i = blockIdx.x * int64_t(kThreads) + threadIdx.x; i < p.channels * p.taps; i += step) {
    const int64_t tap = i / p.channels;
    p.to[i] = p.from[(i - tap * p.channels) * p.taps + tap];
  }
}

// The position that tap t reads for written position i; -1: none.
template <bool forward, class S>
FD_DEVICE int32_t read_position(const Depthwise<S>& d, int axis, int32_t i, int32_t t) {
  if (forward) {
    const int32_t at = i * d.stride[axis] - d.padding[axis] + t * d.dilation[axis];
    return uint32_t(at) < uint32_t(d.read[axis]) ? at : -1;
  }
  const int32_t from = i + d.padding[axis] - t * d.dilation[axis];
  if (from < 0) return -1;
  int32_t rest;
  const int32_t at = divide(from, d.by_stride[axis], rest);
  return rest == 0 && at < d.read[axis] ? at : -1;
}

template <class S, bool forward>
FD_KERNEL(kThreads, 2)
depthwise_gather(const Depthwise<S> d) {
  using T = WideOf<S>;
  for (int64_t i = blockIdx.x * int64_t(kThreads) + threadIdx.x; i < d.threads; i += gridDim.x * int64_t(kThreads)) {
    int32_t pack, strip, row;
    const int32_t n = divide(divide(divide(int32_t(i), d.packs, pack), d.strips, strip), d.rows, row);
    const int64_t channel = int64_t(pack) * kPack<S>, count = d.channels - channel;
    const int32_t first = strip * kStrip;
    T sum[kStrip][kPack<S>] = {};
    for (int32_t r = 0; r < d.kernel[0]; r++) {
      const int32_t h = read_position<forward>(d, 0, row, r);
      if (h < 0) continue;
      const S* line = d.source + (int64_t(n) * d.read[0] + h) * d.read[1] * d.channels + channel;
      const S* weights = d.weights + int64_t(r) * d.kernel[1] * d.channels + channel;
      for (int32_t s = 0; s < d.kernel[1]; s++) {
        const Pack<S> w = load_pack(weights + s * d.channels, count, d.whole);
#pragma unroll
        for (int u = 0; u < kStrip; u++) {
          const int32_t at = read_position<forward>(d, 1, first + u, s);
          if (at < 0) continue;
          const Pack<S> x = load_pack(line + at * d.channels, count, d.whole);
#pragma unroll
          for (int e = 0; e < kPack<S>; e++) sum[u][e] += d.convert.wide(x.v[e]) * d.convert.wide(w.v[e]);
        }
      }
    }
    const int64_t to = ((int64_t(n) * d.written[0] + row) * d.written[1] + first) * d.channels + channel;
#pragma unroll
    for (int u = 0; u < kStrip; u++) {
      if (first + u >= d.written[1]) continue;
      constexpr int kRun = kPack<S> < 4 ? kPack<S> : 4;
#pragma unroll
      for (int e = 0; e < kPack<S>; e += kRun) {
        T v[4] = {};
#pragma unroll
        for (int j = 0; j < kRun; j++) {
          const bool exists = e + j < count;
          v[j] = sum[u][e + j] + (forward && exists ? bias_of<T>(d.out, 0, channel + e + j) : T(0));
        }
        if (forward && d.out.activation) {
#pragma unroll
          for (int j = 0; j < kRun; j++) v[j] = activate(v[j], d.out.activation);
        }
        store_4(d.out.out, d.out.dtype, to + u * d.channels + e, v, int(min_of(max_of(count - e, 0), kRun)), d.whole_out);
      }
    }
  }
}

// ---- dw and db -------------------------------------------------------------------------------------------------------
// Sums of part `split` of the pixels, for a tap (or, behind the last, for db) and 16 bytes x kWarp of channels.
template <class S>
struct DepthwiseWeight {
  const S *grad, *source;
  GemmEpilogue out;
  Convert<S> convert;
  WideOf<S>* partial;  // (splits, taps + 1, channels)
  int64_t channels, taps, splits, pixels_per_split, pixels;
  int32_t in[2], kernel[2], stride[2], padding[2], dilation[2];
  Divisor image, row, tiles, by_taps;
  bool whole;
};
constexpr int kPixelThreads = kThreads / kWarp;

template <class S>
struct DepthwiseStorage {
  WideOf<S> sum[kPixelThreads][kWarp * kPack<S>];
};

template <class S>
FD_KERNEL(kThreads, 2)
depthwise_weight(const DepthwiseWeight<S> d) {
  using T = WideOf<S>;
  auto& s = shared_memory<DepthwiseStorage<S>>();
  int32_t tile, tap;
  const int32_t split = divide(divide(int32_t(blockIdx.x), d.tiles, tile), d.by_taps, tap);
  const int lane = threadIdx.x % kWarp, which = threadIdx.x / kWarp;
  const int64_t first = int64_t(tile) * kWarp * kPack<S>, channel = first + lane * kPack<S>, count = d.channels - channel;
  const int32_t i = tap / d.kernel[1], j = tap - i * d.kernel[1];
  const int64_t end = min_of(d.pixels, (split + 1) * d.pixels_per_split);
  T sum[kPack<S>] = {};
  if (count > 0) {
    for (int64_t pixel = split * d.pixels_per_split + which; pixel < end; pixel += kPixelThreads) {
      const Pack<S> g = load_pack(d.grad + pixel * d.channels + channel, count, d.whole);
      if (tap == d.taps) {
#pragma unroll
        for (int e = 0; e < kPack<S>; e++) sum[e] += d.convert.wide(g.v[e]);
        continue;
      }
      int32_t rest, q;
      const int32_t n = divide(int32_t(pixel), d.image, rest), p = divide(rest, d.row, q);
      const int32_t h = p * d.stride[0] - d.padding[0] + i * d.dilation[0], w = q * d.stride[1] - d.padding[1] + j * d.dilation[1];
      if (uint32_t(h) >= uint32_t(d.in[0]) || uint32_t(w) >= uint32_t(d.in[1])) continue;
      const Pack<S> x = load_pack(d.source + ((int64_t(n) * d.in[0] + h) * d.in[1] + w) * d.channels + channel, count, d.whole);
#pragma unroll
      for (int e = 0; e < kPack<S>; e++) sum[e] += d.convert.wide(g.v[e]) * d.convert.wide(x.v[e]);
    }
  }
#pragma unroll
  for (int e = 0; e < kPack<S>; e++) s.sum[which][e * kWarp + lane] = sum[e];
  sync_block();
  for (int c = threadIdx.x; c < kWarp * kPack<S>; c += kThreads) {
    const int64_t at = first + c % kWarp * kPack<S> + c / kWarp;
    if (at >= d.channels) continue;
    T total = T(0);
    for (int t = 0; t < kPixelThreads; t++) total += s.sum[t][c];
    d.partial[(split * (d.taps + 1) + tap) * d.channels + at] = total;
  }
}

template <class S>
FD_KERNEL(kThreads, 4)
depthwise_add_parts(const DepthwiseWeight<S> d) {
  const int64_t size = (d.taps + 1) * d.channels, step = gridDim.x * int64_t(kThreads);
  for (int64_t i = blockIdx.x * int64_t(kThreads) + threadIdx.x; i < size; i += step) {
    WideOf<S> total = 0;
    for (int64_t split = 0; split < d.splits; split++) total += d.partial[split * size + i];
    const int64_t tap = i / d.channels, c = i - tap * d.channels;
    if (tap == d.taps)
      store_float(d.out.line_sums, d.out.dtype, c, total);
    else
      store_float(d.out.out, d.out.dtype, c * d.taps + tap, total);
  }
}

// ---- host -----------------------------------------------------------------------------------------------------------------------
template <class S, bool forward>
void run_gather(const Args& a, const ConvCall& c, const View& source, const View& w, const GemmEpilogue& out, Convert<S> convert) {
  S* packed = static_cast<S*>(a.workspace);
  const DepthwisePack<S> pack = {w.ptr<S>(), packed, c.in_channels, c.taps()};
  FD_LAUNCH(a, (depthwise_pack<S>), stride_grid(a.device, w.numel(), kThreads), kThreads, 0, pack);
  Depthwise<S> d = {};
  d.source = source.ptr<S>();
  d.weights = packed;
  d.out = out;
  d.convert = convert;
  d.channels = c.in_channels;
  for (int i = 0; i < 2; i++) {
    d.read[i] = int32_t(forward ? c.in[i] : c.out[i]);
    d.written[i] = int32_t(forward ? c.out[i] : c.in[i]);
    d.kernel[i] = int32_t(c.kernel[i]);
    d.stride[i] = int32_t(c.stride[i]);
    d.padding[i] = int32_t(c.padding[i]);
    d.dilation[i] = int32_t(c.dilation[i]);
    d.by_stride[i] = make_divisor(c.stride[i]);
  }
  const int64_t packs = ceil_div(d.channels, kPack<S>), strips = ceil_div(d.written[1], kStrip);
  d.packs = make_divisor(packs);
  d.strips = make_divisor(strips);
  d.rows = make_divisor(d.written[0]);
  d.threads = c.batch * d.written[0] * strips * packs;
  d.whole = d.channels % kPack<S> == 0 && is_aligned(d.source);
  d.whole_out = d.channels % 4 == 0 && is_aligned(out.out);
  FD_LAUNCH(a, (depthwise_gather<S, forward>), stride_grid(a.device, d.threads, kThreads), kThreads, 0, d);
}

// Blocks enough to fill the device, each with pixels enough to outweigh its part of the final addition.
template <class S>
int64_t depthwise_splits(const ConvCall& c, const DeviceContext& device) {
  const int64_t blocks = (c.taps() + 1) * ceil_div(c.in_channels, kWarp * kPack<S>);
  return max_of(1, min_of(min_of(ceil_div(kTilesPerSm * 2 * device.multiprocessors, blocks), c.out_pixels() / 256), kMaxSplits));
}

}  // namespace

int64_t depthwise_workspace(const ConvCall& c, DType dtype, bool weights, const DeviceContext& device) {
  if (!weights) return c.taps() * c.in_channels * itemsize(dtype);
  int64_t bytes = 0;
  by_float(dtype, [&](auto convert) {
    using S = typename decltype(convert)::Type;
    bytes = depthwise_splits<S>(c, device) * (c.taps() + 1) * c.in_channels * int64_t(sizeof(WideOf<S>));
  });
  return bytes;
}

void run_depthwise(const Args& a, const ConvCall& c, const View& source, const View& w, const GemmEpilogue& out) {
  by_float(source.dtype, [&](auto convert) {
    using S = typename decltype(convert)::Type;
    if (c.forward)
      run_gather<S, true>(a, c, source, w, out, convert);
    else
      run_gather<S, false>(a, c, source, w, out, convert);
  });
}

void run_depthwise_weight(const Args& a, const ConvCall& c, const GemmEpilogue& out) {
  const View &dy = a.in[0], &x = a.in[1];
  by_float(dy.dtype, [&](auto convert) {
    using S = typename decltype(convert)::Type;
    DepthwiseWeight<S> d = {};
    d.grad = dy.ptr<S>();
    d.source = x.ptr<S>();
    d.out = out;
    d.convert = convert;
    d.partial = static_cast<WideOf<S>*>(a.workspace);
    d.channels = c.in_channels;
    d.taps = c.taps();
    d.pixels = c.out_pixels();
    d.splits = depthwise_splits<S>(c, *a.device);
    d.pixels_per_split = ceil_div(d.pixels, d.splits);
    for (int i = 0; i < 2; i++) {
      d.in[i] = int32_t(c.in[i]);
      d.kernel[i] = int32_t(c.kernel[i]);
      d.stride[i] = int32_t(c.stride[i]);
      d.padding[i] = int32_t(c.padding[i]);
      d.dilation[i] = int32_t(c.dilation[i]);
    }
    const int64_t tiles = ceil_div(d.channels, kWarp * kPack<S>);
    d.image = make_divisor(c.out[0] * c.out[1]);
    d.row = make_divisor(c.out[1]);
    d.tiles = make_divisor(tiles);
    d.by_taps = make_divisor(d.taps + 1);
    d.whole = d.channels % kPack<S> == 0 && is_aligned(d.grad) && is_aligned(d.source);
    FD_LAUNCH(a, (depthwise_weight<S>), uint32_t(tiles * (d.taps + 1) * d.splits), kThreads, sizeof(DepthwiseStorage<S>), d);
    FD_LAUNCH(a, (depthwise_add_parts<S>), stride_grid(a.device, (d.taps + 1) * d.channels, kThreads), kThreads, 0, d);
  });
}

}  // namespace fastdl
