// max_pool2d, avg_pool2d and their gradients (see device/pool.cuh). Max-pooling keeps the number of the winning tap of each window
// as a byte: the first of equal maxima wins, the first NaN wins over everything.
#include "cuda/device/pool.cuh"

namespace fastdl {
namespace {

struct Windows {
  Axis axis;
  Division by_stride, by_dilation;
  bool with_pad;

  FD_DEVICE int64_t in() const { return axis.in; }
  FD_DEVICE int64_t out() const { return axis.out; }
  // of average pooling, which has no dilation
  FD_DEVICE int64_t first_input(int64_t o) const { return greater(axis.start(o), 0); }
  FD_DEVICE int64_t end_input(int64_t o) const { return lesser(axis.start(o) + axis.kernel, axis.in); }
  FD_DEVICE int64_t divisor(int64_t o) const { return axis.divisor(o, with_pad); }
  // The windows whose span holds input i.
  FD_DEVICE int64_t first_window(int64_t i) const {
    const int64_t last_before = i + axis.pad - (axis.kernel - 1) * axis.dilation - 1;  // a window that starts there ends before i
    return last_before < 0 ? 0 : by_stride.quotient(last_before) + 1;
  }
  FD_DEVICE int64_t end_window(int64_t i) const { return lesser(axis.out, by_stride.quotient(i + axis.pad) + 1); }
};

struct Pool {
  Windows h, w;
  Images images;
};
// x: the view of the input's shape, y: of the output's
Pool pool_of(const View& x, const View& y, const Attrs& a) {
  Pool p{};
  Windows* of_axis[] = {&p.h, &p.w};
  for (int d = 0; d < 2; d++) {
    const Axis axis{x.shape[2 + d], y.shape[2 + d], a.i[d], a.i[2 + d], a.i[4 + d], a.i[6 + d]};
    const int64_t span = axis.kernel * axis.dilation;
    *of_axis[d] = {axis, division(axis.stride, axis.in + axis.pad), division(axis.dilation, axis.in + axis.pad + span),
                   a.i[9] != 0};
  }
  p.images = Images::of(x, a.i[12] != 0);
  return p;
}

template <class T, int V>
FD_KERNEL(kPoolThreads, 3)
max_pool_kernel(const T* x, T* y, uint8_t* taps, Grid grid, Windows hs, Windows ws, int64_t channels, Convert<T> as) {
  using W = WideOf<T>;
  int64_t n, oh, ow, c;
  if (!grid.locate(n, oh, ow, c)) return;
  const Axis &h = hs.axis, &w = ws.axis;
  const int h0 = int(h.first_tap(oh, hs.by_dilation)), h1 = int(h.end_tap(oh, hs.by_dilation));
  const int w0 = int(w.first_tap(ow, ws.by_dilation)), w1 = int(w.end_tap(ow, ws.by_dilation));
  W best[V];
  Cell<uint8_t, V> tap;
  const bool any = h0 < h1 && w0 < w1;
#pragma unroll
  for (int k = 0; k < V; k++) best[k] = W(-__builtin_huge_val()), tap.v[k] = uint8_t(any ? h0 * int(w.kernel) + w0 : kNoTap);
  for (int i = h0; i < h1; i++) {
    const T* p = x + ((n * h.in + h.position(oh, i)) * w.in + w.position(ow, w0)) * channels + c * V;
    for (int j = w0; j < w1; j++, p += w.dilation * channels) {
      const Cell<T, V> v = load_cell<V>(p);
#pragma unroll
      for (int k = 0; k < V; k++) {
        const W a = as.wide(v.v[k]);
        if (wins(a, best[k])) best[k] = a, tap.v[k] = uint8_t(i * int(w.kernel) + j);
      }
    }
  }
  const int64_t to = ((n * h.out + oh) * w.out + ow) * channels + c * V;
  Cell<T, V> r;
#pragma unroll
  for (int k = 0; k < V; k++) r.v[k] = as.narrow(best[k]);
  store_cell(y + to, r);
  store_cell(taps + to, tap);
}

template <class T, int V>
FD_KERNEL(kPoolThreads, 3)
max_pool_gradient_kernel(const T* g, const uint8_t* taps, T* dx, Grid grid, Windows hs, Windows ws, int64_t channels,
                         Convert<T> as) {
  using W = WideOf<T>;
  int64_t n, h, w, c;
  if (!grid.locate(n, h, w, c)) return;
  const int64_t h0 = hs.first_window(h), h1 = hs.end_window(h), w0 = ws.first_window(w), w1 = ws.end_window(w);
  W sum[V] = {};
  for (int64_t oh = h0; oh < h1; oh++) {
    const int64_t i = hs.axis.tap_at(oh, h, hs.by_dilation);
    if (i < 0) continue;
#pragma unroll 2
    for (int64_t ow = w0; ow < w1; ow++) {
      const int64_t j = ws.axis.tap_at(ow, w, ws.by_dilation), at = ((n * hs.out() + oh) * ws.out() + ow) * channels + c * V;
      if (j < 0) continue;
      const Cell<uint8_t, V> tap = load_cell<V>(taps + at);
      const Cell<T, V> v = load_cell<V>(g + at);
      const int number = int(i * ws.axis.kernel + j);
#pragma unroll
      for (int k = 0; k < V; k++) sum[k] += tap.v[k] == number ? as.wide(v.v[k]) : W(0);
    }
  }
  Cell<T, V> r;
#pragma unroll
  for (int k = 0; k < V; k++) r.v[k] = as.narrow(sum[k]);
  store_cell(dx + ((n * hs.in() + h) * ws.in() + w) * channels + c * V, r);
}

void max_pool_row(const Args& a) {
  const Pool p = pool_of(a.in[0], a.out[0], *a.attrs);
  if (a.out[0].numel() == 0) return;
  by_float(a.out[0].dtype, [&](auto as) {
    using T = typename decltype(as)::Type;
    by_channels<T>(p.images.c, {a.in[0].data, a.out[0].data, a.out[1].data}, [&](auto v) {
      constexpr int V = v.value;
      const Grid grid = grid_over(p.images.n, p.h.axis.out, p.w.axis.out, p.images.c / V);
      FD_LAUNCH(a, (max_pool_kernel<T, V>), grid.blocks(), kPoolThreads, 0, a.in[0].ptr<const T>(), a.out[0].ptr<T>(),
                a.out[1].ptr<uint8_t>(), grid, p.h, p.w, p.images.c, as);
    });
  });
}

void max_pool_backward_row(const Args& a) {
  const Pool p = pool_of(a.out[0], a.in[0], *a.attrs);
  if (a.out[0].numel() == 0) return;
  by_float(a.out[0].dtype, [&](auto as) {
    using T = typename decltype(as)::Type;
    by_channels<T>(p.images.c, {a.in[0].data, a.in[1].data, a.out[0].data}, [&](auto v) {
      constexpr int V = v.value;
      const Grid grid = grid_over(p.images.n, p.h.axis.in, p.w.axis.in, p.images.c / V);
      FD_LAUNCH(a, (max_pool_gradient_kernel<T, V>), grid.blocks(), kPoolThreads, 0, a.in[0].ptr<const T>(),
                a.in[1].ptr<const uint8_t>(), a.out[0].ptr<T>(), grid, p.h, p.w, p.images.c, as);
    });
  });
}

template <bool backward>
void avg_pool_row(const Args& a) {
  const View &in = a.in[0], &out = a.out[0];
  const Pool p = backward ? pool_of(out, in, *a.attrs) : pool_of(in, out, *a.attrs);
  if (out.numel() == 0) return;
  by_float(out.dtype, [&](auto as) {
    using T = typename decltype(as)::Type;
    by_channels<T>(p.images.c, {in.data, out.data}, [&](auto v) {
      constexpr int V = v.value;
      if constexpr (backward) {
        const Grid grid = grid_over(p.images.n, p.h.axis.in, p.w.axis.in, p.images.c / V);
        FD_LAUNCH(a, (mean_pool_gradient_kernel<T, V, Windows>), grid.blocks(), kPoolThreads, 0, in.ptr<const T>(), out.ptr<T>(),
                  grid, p.h, p.w, p.images.c, as);
      } else {
        const Grid grid = grid_over(p.images.n, p.h.axis.out, p.w.axis.out, p.images.c / V);
        FD_LAUNCH(a, (mean_pool_kernel<T, V, Windows>), grid.blocks(), kPoolThreads, 0, in.ptr<const T>(), out.ptr<T>(), grid, p.h,
                  p.w, p.images.c, as);
      }
    });
  });
}

}  // namespace

FD_CUDA_TABLE(pool) = {{OpId::max_pool2d, kMaskFloat, max_pool_row, nullptr},
                       {OpId::max_pool2d_backward, kMaskFloat, max_pool_backward_row, nullptr},
                       {OpId::avg_pool2d, kMaskFloat, avg_pool_row<false>, nullptr},
                       {OpId::avg_pool2d_backward, kMaskFloat, avg_pool_row<true>, nullptr},
                       {}};

}  // namespace fastdl
