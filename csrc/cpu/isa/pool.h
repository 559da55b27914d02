// What the pooling kernels share beside the geometry of windows (math/window.h): loops over channels in vectors.
#pragma once
#include "cpu/isa/channels.h"
#include "math/window.h"

namespace fastdl {
namespace {

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

// dx[at + c] = sum of scale(h, w) * g[h, w, c] over windows [h0, h1) x [w0, w1) of a channels-last image g of `width` columns.
template <class T, class Scale>
FD_INLINE void spread_windows(const T* g, const Result<T>& dx, int64_t at, int64_t channels, int64_t width, int64_t h0, int64_t h1,
                              int64_t w0, int64_t w1, Scale&& scale) {
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
    for (int k = 0; k < n; k++) dx.store(at + c + k * V::size, sum[k], lanes);
  });
}

}  // namespace
}  // namespace fastdl
