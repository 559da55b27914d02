// adaptive_avg_pool2d, adaptive_max_pool2d and their gradients on channels-last memory (see device/pool.cuh). Output o of `out`
// covers inputs floor(o * in / out) .. ceil((o + 1) * in / out) - 1. Max-pooling keeps the place h * W + w of each maximum as
// int64.
#include "cuda/device/pool.cuh"

namespace fastdl {
namespace {

struct AdaptiveWindows {
  AdaptiveAxis axis;
  Division by_in, by_out;

  FD_DEVICE int64_t in() const { return axis.in; }
  FD_DEVICE int64_t out() const { return axis.out; }
  FD_DEVICE int64_t first_input(int64_t o) const { return axis.first_input(o, by_out); }
  FD_DEVICE int64_t end_input(int64_t o) const { return axis.end_input(o, by_out); }
  FD_DEVICE int64_t first_window(int64_t i) const { return axis.first_window(i, by_in); }
  FD_DEVICE int64_t end_window(int64_t i) const { return axis.end_window(i, by_in); }
  FD_DEVICE int64_t divisor(int64_t o) const { return end_input(o) - first_input(o); }
};

struct AdaptivePool {
  AdaptiveWindows h, w;
  Images images;
};
AdaptivePool pool_of(const View& x, const View& y) {
  AdaptivePool p{};
  AdaptiveWindows* of_axis[] = {&p.h, &p.w};
  for (int d = 0; d < 2; d++) {
    const AdaptiveAxis axis{x.shape[2 + d], y.shape[2 + d]};
    const int64_t greatest = axis.in * axis.out + axis.in + axis.out;
    *of_axis[d] = {axis, division(max_of(1, axis.in), greatest), division(max_of(1, axis.out), greatest)};
  }
  p.images = Images::of(x, false);
  return p;
}

template <class T, int V>
FD_KERNEL(kPoolThreads, 3)
adaptive_max_pool_kernel(const T* x, T* y, int64_t* indices, Grid grid, AdaptiveWindows hs, AdaptiveWindows ws, int64_t channels,
                         Convert<T> as) {
  using W = WideOf<T>;
  int64_t n, oh, ow, c;
  if (!grid.locate(n, oh, ow, c)) return;
  const int64_t h0 = hs.first_input(oh), h1 = hs.end_input(oh), w0 = ws.first_input(ow), w1 = ws.end_input(ow);
  W best[V];
  Cell<int64_t, V> index;
#pragma unroll
  for (int k = 0; k < V; k++) best[k] = W(-__builtin_huge_val()), index.v[k] = h0 * ws.in() + w0;
  for (int64_t h = h0; h < h1; h++) {
    const T* p = x + ((n * hs.in() + h) * ws.in() + w0) * channels + c * V;
    for (int64_t w = w0; w < w1; w++, p += channels) {
      const Cell<T, V> v = load_cell<V>(p);
#pragma unroll
      for (int k = 0; k < V; k++) {
        const W a = as.wide(v.v[k]);
        if (wins(a, best[k])) best[k] = a, index.v[k] = h * ws.in() + w;
      }
    }
  }
  const int64_t to = ((n * hs.out() + oh) * ws.out() + ow) * channels + c * V;
  Cell<T, V> r;
#pragma unroll
  for (int k = 0; k < V; k++) r.v[k] = as.narrow(best[k]);
  store_cell(y + to, r);
  store_cell(indices + to, index);
}

template <class T, int V>
FD_KERNEL(kPoolThreads, 3)
adaptive_max_pool_gradient_kernel(const T* g, const int64_t* indices, T* dx, Grid grid, AdaptiveWindows hs, AdaptiveWindows ws,
                                  int64_t channels, Convert<T> as) {
  using W = WideOf<T>;
  int64_t n, h, w, c;
  if (!grid.locate(n, h, w, c)) return;
  const int64_t h0 = hs.first_window(h), h1 = hs.end_window(h), w0 = ws.first_window(w), w1 = ws.end_window(w),
                self = h * ws.in() + w;
  W sum[V] = {};
  for (int64_t oh = h0; oh < h1; oh++)
#pragma unroll 2
    for (int64_t ow = w0; ow < w1; ow++) {
      const int64_t at = ((n * hs.out() + oh) * ws.out() + ow) * channels + c * V;
      const Cell<int64_t, V> index = load_cell<V>(indices + at);
      const Cell<T, V> v = load_cell<V>(g + at);
#pragma unroll
      for (int k = 0; k < V; k++) sum[k] += index.v[k] == self ? as.wide(v.v[k]) : W(0);
    }
  Cell<T, V> r;
#pragma unroll
  for (int k = 0; k < V; k++) r.v[k] = as.narrow(sum[k]);
  store_cell(dx + ((n * hs.in() + h) * ws.in() + w) * channels + c * V, r);
}

template <bool max, bool backward>
void adaptive_pool_row(const Args& a) {
  const View &in = a.in[0], &out = a.out[0];
  const AdaptivePool p = backward ? pool_of(out, in) : pool_of(in, out);
  if (out.numel() == 0) return;
  const View& index = backward ? a.in[a.nin - 1] : a.out[a.nout - 1];  // of max-pooling
  by_float(out.dtype, [&](auto as) {
    using T = typename decltype(as)::Type;
    by_channels<T>(p.images.c, {in.data, out.data, max ? index.data : nullptr}, [&](auto v) {
      constexpr int V = v.value;
      const Grid grid = grid_over(p.images.n, out.shape[2], out.shape[3], p.images.c / V);
      const T* from = in.ptr<const T>();
      T* to = out.ptr<T>();
      if constexpr (max && backward)
        FD_LAUNCH(a, (adaptive_max_pool_gradient_kernel<T, V>), grid.blocks(), kPoolThreads, 0, from, index.ptr<const int64_t>(),
                  to, grid, p.h, p.w, p.images.c, as);
      else if constexpr (max)
        FD_LAUNCH(a, (adaptive_max_pool_kernel<T, V>), grid.blocks(), kPoolThreads, 0, from, to, index.ptr<int64_t>(), grid, p.h,
                  p.w, p.images.c, as);
      else if constexpr (backward)
        FD_LAUNCH(a, (mean_pool_gradient_kernel<T, V, AdaptiveWindows>), grid.blocks(), kPoolThreads, 0, from, to, grid, p.h, p.w,
                  p.images.c, as);
      else
        FD_LAUNCH(a, (mean_pool_kernel<T, V, AdaptiveWindows>), grid.blocks(), kPoolThreads, 0, from, to, grid, p.h, p.w,
                  p.images.c, as);
    });
  });
}

}  // namespace

FD_CUDA_TABLE(adaptive_pool) = {{OpId::adaptive_avg_pool2d, kMaskFloat, adaptive_pool_row<false, false>, nullptr},
                                {OpId::adaptive_avg_pool2d_backward, kMaskFloat, adaptive_pool_row<false, true>, nullptr},
                                {OpId::adaptive_max_pool2d, kMaskFloat, adaptive_pool_row<true, false>, nullptr},
                                {OpId::adaptive_max_pool2d_backward, kMaskFloat, adaptive_pool_row<true, true>, nullptr},
                                {}};

}  // namespace fastdl
