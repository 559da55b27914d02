// What the pooling kernels share: the geometry of windows along one axis, and loops over channels in vectors.
#pragma once
#include "cpu/isa/channels.h"

namespace fastdl {
namespace {

constexpr int kMaxTaps = 255;  // windows of max-pooling have at most 255 taps, so that a tap number fits a byte ...
constexpr int kNoTap = 255;    // ... and 255 says that a (dilated) window holds no element at all

// One spatial axis of a pooling op. Output o covers input positions o * stride - pad + k * dilation, 0 <= k < kernel.
struct Axis {
  int64_t in, out, kernel, stride, pad, dilation;

  int64_t start(int64_t o) const { return o * stride - pad; }
  // Taps [first_tap, end_tap) of window o lie inside the input. (Divisions are slow: only windows at the border need one.)
  int64_t first_tap(int64_t o) const {
    const int64_t s = start(o);
    return s >= 0 ? 0 : min_of(kernel, ceil_div(-s, dilation));
  }
  int64_t end_tap(int64_t o) const {
    const int64_t room = in - start(o);
    return room > (kernel - 1) * dilation ? kernel : room <= 0 ? 0 : ceil_div(room, dilation);
  }
  int64_t position(int64_t o, int64_t tap) const { return start(o) + tap * dilation; }
  // Windows [first_whole, end_whole) lie inside the input with all their taps.
  int64_t first_whole() const { return min_of(out, ceil_div(pad, stride)); }
  int64_t end_whole() const {
    const int64_t last_start = in + pad - (kernel - 1) * dilation - 1;
    return max_of(first_whole(), last_start < 0 ? 0 : min_of(out, last_start / stride + 1));
  }
  // Number of positions that window o averages over: inside the input, or inside the padded input.
  int64_t divisor(int64_t o, bool with_pad) const {
    const int64_t s = start(o), e = min_of(s + kernel, in + pad);
    return with_pad ? e - s : min_of(e, in) - max_of<int64_t>(s, 0);
  }
  // The tap by which window o holds input position i, which must lie in the window's span; -1 if i falls between taps.
  int64_t tap_at(int64_t o, int64_t i) const {
    const int64_t offset = i - start(o);
    return dilation == 1 ? offset : offset % dilation ? -1 : offset / dilation;
  }
};

// The windows [first, end) whose span holds input position i, for i that only grows.
struct Covering {
  Axis axis;
  int64_t first = 0, end = 0;
  explicit Covering(const Axis& axis) : axis(axis) {}
  void move_to(int64_t i) {
    while (end < axis.out && axis.start(end) <= i) end++;
    while (first < end && axis.start(first) + (axis.kernel - 1) * axis.dilation < i) first++;
  }
};

// best, tap = v, number where v is greater; the first NaN stays.
template <class V, class I>
FD_INLINE void take_greater(V& best, I& tap, V v, I number) {
  const I better = ~(v <= best) & (best == best);
  best = select(better, v, best);
  tap = select(better, number, tap);
}

// y[c] = mean of x over positions [h0, h1) x [w0, w1) of a channels-last image of `width` columns. Rows are summed first, then the
// rows' sums, which keeps the error of large windows down.
template <class T>
FD_INLINE void mean_window(const T* x, T* y, int64_t channels, int64_t width, int64_t h0, int64_t h1, int64_t w0, int64_t w1,
                           Vec<WideOf<T>> divisor) {
  using V = Vec<WideOf<T>>;
  for_channels<V::size>(channels, [&](int64_t c, int lanes, auto count) {
    constexpr int n = decltype(count)::value;
    V total[n];
    for (int k = 0; k < n; k++) total[k] = V(0);
    for (int64_t h = h0; h < h1; h++) {
      V line[n];
      for (int k = 0; k < n; k++) line[k] = V(0);
      for (int64_t w = w0; w < w1; w++)
        for (int k = 0; k < n; k++) line[k] += load_n(x + (h * width + w) * channels + c + k * V::size, lanes);
      for (int k = 0; k < n; k++) total[k] += line[k];
    }
    for (int k = 0; k < n; k++) store_n(y + c + k * V::size, total[k] / divisor, lanes);
  });
}

// dx[c] = sum of scale(h, w) * g[h, w, c] over windows [h0, h1) x [w0, w1) of a channels-last image g of `width` columns.
template <class T, class Scale>
FD_INLINE void spread_windows(const T* g, T* dx, int64_t channels, int64_t width, int64_t h0, int64_t h1, int64_t w0, int64_t w1,
                              Scale&& scale) {
  using V = Vec<WideOf<T>>;
  for_channels<V::size>(channels, [&](int64_t c, int lanes, auto count) {
    constexpr int n = decltype(count)::value;
    V sum[n];
    for (int k = 0; k < n; k++) sum[k] = V(0);
    for (int64_t h = h0; h < h1; h++)
      for (int64_t w = w0; w < w1; w++) {
        const V s = scale(h, w);
        for (int k = 0; k < n; k++) sum[k] = fma(s, load_n(g + (h * width + w) * channels + c + k * V::size, lanes), sum[k]);
      }
    for (int k = 0; k < n; k++) store_n(dx + c + k * V::size, sum[k], lanes);
  });
}

}  // namespace
}  // namespace fastdl
