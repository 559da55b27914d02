// What the pooling kernels share. Memory is channels-last (N, H, W, C); row-major planes are the same with N * C images of one
// channel. A thread has one position of the array that it writes and V neighbouring channels: 16 bytes of them where C allows it.
// Forward kernels walk the window of an output; gradients gather: an input sums, in a fixed order, over the windows that hold it.
#pragma once
#include <initializer_list>

#include "cuda/device/divide.cuh"
#include "cuda/device/pack.cuh"
#include "math/window.h"

namespace fastdl {
namespace {

constexpr int kPoolThreads = 256;

// The cells of an (n, h, w, c) array, c in packs.
struct Grid {
  int64_t cells;
  Division by_c, by_w, by_h;

  FD_DEVICE bool locate(int64_t& n, int64_t& h, int64_t& w, int64_t& c) const {
    n = blockIdx.x * int64_t(kPoolThreads) + threadIdx.x;
    if (n >= cells) return false;
    c = by_c.split(n);
    w = by_w.split(n);
    h = by_h.split(n);
    return true;
  }
  uint32_t blocks() const { return uint32_t(ceil_div(cells, kPoolThreads)); }
};
inline Grid grid_over(int64_t n, int64_t h, int64_t w, int64_t c) {
  const int64_t cells = n * h * w * c;
  return {cells, division(c, cells), division(w, cells), division(h, cells)};
}

// Images of channels-last memory.
struct Images {
  int64_t n, c;

  // of a 4-d view that is row-major (planes) or channels-last
  static Images of(const View& v, bool planes) {
    return planes ? Images{v.shape[0] * v.shape[1], 1} : Images{v.shape[0], v.shape[1]};
  }
};

// run(V as an integral constant): 16 bytes of channels if their number and all addresses allow it, else 1.
template <class T, class F>
void by_channels(int64_t c, std::initializer_list<const void*> addresses, const F& run) {
  bool packs = c % kPack<T> == 0;
  for (const void* p : addresses) packs &= is_aligned(p);
  by_packs<T>(packs, run);
}

// v is greater, or the first NaN
template <class W>
FD_DEVICE bool wins(W v, W best) {
  return !(v <= best) && best == best;
}

// y = mean of the window, whose rows are summed first, then the rows' sums: this keeps the error of large windows down.
// Windows: first_input(o), end_input(o), divisor(o) per axis.
template <class T, int V, class Windows>
FD_KERNEL(kPoolThreads, 3)
mean_pool_kernel(const T* x, T* y, Grid grid, Windows hs, Windows ws, int64_t channels, Convert<T> as) {
  using W = WideOf<T>;
  int64_t n, oh, ow, c;
  if (!grid.locate(n, oh, ow, c)) return;
  const int64_t h0 = hs.first_input(oh), h1 = hs.end_input(oh), w0 = ws.first_input(ow), w1 = ws.end_input(ow);
  W total[V] = {};
  for (int64_t h = h0; h < h1; h++) {
    const T* p = x + ((n * hs.in() + h) * ws.in() + w0) * channels + c * V;
    W line[V] = {};
#pragma unroll 4
    for (int64_t w = w0; w < w1; w++, p += channels) {
      const Cell<T, V> v = load_cell<V>(p);
#pragma unroll
      for (int k = 0; k < V; k++) line[k] += as.wide(v.v[k]);
    }
#pragma unroll
    for (int k = 0; k < V; k++) total[k] += line[k];
  }
  const W divisor = W(hs.divisor(oh)) * W(ws.divisor(ow));
  Cell<T, V> r;
#pragma unroll
  for (int k = 0; k < V; k++) r.v[k] = as.narrow(total[k] / divisor);
  store_cell(y + ((n * hs.out() + oh) * ws.out() + ow) * channels + c * V, r);
}

// dx = sum over the windows that hold the input of g / divisor.
template <class T, int V, class Windows>
FD_KERNEL(kPoolThreads, 3)
mean_pool_gradient_kernel(const T* g, T* dx, Grid grid, Windows hs, Windows ws, int64_t channels, Convert<T> as) {
  using W = WideOf<T>;
  int64_t n, h, w, c;
  if (!grid.locate(n, h, w, c)) return;
  const int64_t h0 = hs.first_window(h), h1 = hs.end_window(h), w0 = ws.first_window(w), w1 = ws.end_window(w);
  W sum[V] = {};
  for (int64_t oh = h0; oh < h1; oh++) {
    const T* p = g + ((n * hs.out() + oh) * ws.out() + w0) * channels + c * V;
    const W rows = W(hs.divisor(oh));
#pragma unroll 1
    for (int64_t ow = w0; ow < w1; ow++, p += channels) {
      const W scale = W(1) / (rows * W(ws.divisor(ow)));
      const Cell<T, V> v = load_cell<V>(p);
#pragma unroll
      for (int k = 0; k < V; k++) sum[k] = fma(scale, as.wide(v.v[k]), sum[k]);
    }
  }
  Cell<T, V> r;
#pragma unroll
  for (int k = 0; k < V; k++) r.v[k] = as.narrow(sum[k]);
  store_cell(dx + ((n * hs.in() + h) * ws.in() + w) * channels + c * V, r);
}

}  // namespace
}  // namespace fastdl
