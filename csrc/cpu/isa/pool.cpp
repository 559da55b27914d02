// max_pool2d, avg_pool2d and their backward passes.
//
// Shapes are logical (N, C, H, W). Memory is either channels-last (N, H, W, C), where vectors run over C and windows need no
// special care at borders, or row-major planes, where vectors run over W (pool_planes.h). Inference chooses and says so in
// attribute i12.
//
// Max-pooling keeps the running maximum and, as one byte per output, the number of the winning tap in its window. The first of
// equal maxima wins, the first NaN wins over everything. Backward passes gather: every input sums the windows that it won (or that
// averaged it), in a fixed order, and is written once; nothing is cleared first, nothing is scattered.
#include "cpu/isa/pool.h"
#include "cpu/isa/pool_planes.h"

namespace fastdl {
namespace {

struct Pool {
  int64_t n, c;
  Axis h, w;
  bool with_pad, planes;

  Pool(const View& x, const View& y, const Attrs& a)
      : n(x.shape[0]),
        c(x.shape[1]),
        h{x.shape[2], y.shape[2], a.i[0], a.i[2], a.i[4], a.i[6]},
        w{x.shape[3], y.shape[3], a.i[1], a.i[3], a.i[5], a.i[7]},
        with_pad(a.i[9]),
        planes(a.i[12]) {}
};

// One window of max-pooling, taps [h0, h1) x [w0, w1); x points at the first of them, its rows are `row` elements apart.
template <class T>
FD_INLINE void max_window(const T* x, T* y, uint8_t* taps, const Pool& p, int64_t row, int64_t h0, int64_t h1, int64_t w0,
                          int64_t w1) {
  using V = Vec<WideOf<T>>;
  using I = typename V::Int;
  const int64_t dh = h1 - h0 > 1 ? p.h.dilation * row : 0, dw = w1 - w0 > 1 ? p.w.dilation * p.c : 0;
  for_channels<V::size>(p.c, [&](int64_t c, int lanes, auto count) {
    constexpr int n = decltype(count)::value;
    V best[n];
    Vec<I> tap[n];
    for (int k = 0; k < n; k++) best[k] = V(-__builtin_inff()), tap[k] = Vec<I>(I(kNoTap));
    if (h0 < h1 && w0 < w1)
      for (int k = 0; k < n; k++) best[k] = load_n(x + c + k * V::size, lanes), tap[k] = Vec<I>(I(h0 * p.w.kernel + w0));
    for (int64_t i = h0; i < h1; i++) {
      const T* q = x + (i - h0) * dh + c;
      for (int64_t j = w0; j < w1; j++, q += dw) {
        const Vec<I> number(I(i * p.w.kernel + j));
        for (int k = 0; k < n; k++) take_greater(best[k], tap[k], load_n(q + k * V::size, lanes), number);
      }
    }
    for (int k = 0; k < n; k++) {
      store_n(y + c + k * V::size, best[k], lanes);
      if (lanes == V::size)
        store_bytes(taps + c + k * V::size, tap[k]);
      else
        store_bytes_partial(taps + c, tap[k], lanes);
    }
  });
}

template <class T>
void max_pool2d_kernel(const Args& a) {
  const Pool p(a.in[0], a.out[0], *a.attrs);
  const T* x = a.in[0].ptr<T>();
  T* y = a.out[0].ptr<T>();
  uint8_t* taps = a.out[1].ptr<uint8_t>();
  if constexpr (sizeof(T) > 2)
    if (p.planes) return max_pool_planes(x, y, taps, p.n * p.c, p.h, p.w);
  const int64_t row = p.w.in * p.c;
  parallel_for(p.n * p.h.out, row_grain(p.w.out * p.c * p.h.kernel * p.w.kernel), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t oh = r % p.h.out;
      const int64_t h0 = p.h.first_tap(oh), h1 = p.h.end_tap(oh);
      const T* top = x + (r / p.h.out * p.h.in + p.h.position(oh, h0)) * row;
      for (int64_t ow = 0; ow < p.w.out; ow++) {
        const int64_t at = (r * p.w.out + ow) * p.c, w0 = p.w.first_tap(ow);
        max_window(top + p.w.position(ow, w0) * p.c, y + at, taps + at, p, row, h0, h1, w0, p.w.end_tap(ow));
      }
    }
  });
}

// The windows along one axis that hold input position i, with the tap by which they hold it, in ascending order.
struct Cover {
  int count;
  int64_t window[kMaxTaps];
  int64_t tap[kMaxTaps];
  Cover(const Axis& axis, int64_t i) : count(0) {
    for (int64_t o = axis.first_window(i), end = axis.end_window(i); o < end; o++) {
      const int64_t offset = i - axis.start(o);
      if (axis.dilation > 1 && offset % axis.dilation) continue;
      window[count] = o, tap[count] = offset / axis.dilation, count++;
    }
  }
};

template <class T>
void max_pool2d_backward_kernel(const Args& a) {
  using V = Vec<WideOf<T>>;
  using I = typename V::Int;
  const Pool p(a.out[0], a.in[0], *a.attrs);
  const T* g = a.in[0].ptr<T>();
  const uint8_t* taps = a.in[1].ptr<uint8_t>();
  T* dx = a.out[0].ptr<T>();
  if constexpr (sizeof(T) > 2)
    if (p.planes) return max_pool_2x2_planes_backward(g, taps, dx, p.n * p.c, p.h, p.w);
  parallel_for(p.n * p.h.in, row_grain(p.w.in * p.c), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const Cover rows(p.h, r % p.h.in);
      const int64_t image = r / p.h.in * p.h.out;
      for (int64_t w = 0; w < p.w.in; w++) {
        const Cover columns(p.w, w);
        for_channels<V::size>(p.c, [&](int64_t c, int lanes, auto count) {
          constexpr int n = decltype(count)::value;
          V sum[n];
          for (int k = 0; k < n; k++) sum[k] = V(0);
          for (int i = 0; i < rows.count; i++)
            for (int j = 0; j < columns.count; j++) {
              const int64_t at = ((image + rows.window[i]) * p.w.out + columns.window[j]) * p.c + c;
              const Vec<I> number(I(rows.tap[i] * p.w.kernel + columns.tap[j]));
              for (int k = 0; k < n; k++) {
                const uint8_t* t = taps + at + k * V::size;
                const Vec<I> tap = lanes == V::size ? load_bytes<I>(t) : load_bytes_partial<I>(t, lanes);
                sum[k] += select(tap == number, load_n(g + at + k * V::size, lanes), V(0));
              }
            }
          for (int k = 0; k < n; k++) store_n(dx + (r * p.w.in + w) * p.c + c + k * V::size, sum[k], lanes);
        });
      }
    }
  });
}

template <class T>
void avg_pool2d_kernel(const Args& a) {
  using V = Vec<WideOf<T>>;
  const Pool p(a.in[0], a.out[0], *a.attrs);
  const T* x = a.in[0].ptr<T>();
  T* y = a.out[0].ptr<T>();
  if constexpr (sizeof(T) > 2)
    if (p.planes) return avg_pool_planes(x, y, p.n * p.c, p.h, p.w, p.with_pad);
  parallel_for(p.n * p.h.out, row_grain(p.w.in * p.c * min_of(p.h.kernel, p.h.in)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t oh = r % p.h.out, h0 = max_of<int64_t>(p.h.start(oh), 0), h1 = min_of(p.h.start(oh) + p.h.kernel, p.h.in);
      const T* image = x + r / p.h.out * p.h.in * p.w.in * p.c;
      for (int64_t ow = 0; ow < p.w.out; ow++) {
        const int64_t w0 = max_of<int64_t>(p.w.start(ow), 0), w1 = min_of(p.w.start(ow) + p.w.kernel, p.w.in);
        const V divisor(WideOf<T>(p.h.divisor(oh, p.with_pad)) * WideOf<T>(p.w.divisor(ow, p.with_pad)));
        mean_window(image, y + (r * p.w.out + ow) * p.c, p.c, p.w.in, h0, h1, w0, w1, divisor);
      }
    }
  });
}

template <class T>
void avg_pool2d_backward_kernel(const Args& a) {
  using W = WideOf<T>;
  using V = Vec<W>;
  const Pool p(a.out[0], a.in[0], *a.attrs);
  const T* g = a.in[0].ptr<T>();
  T* dx = a.out[0].ptr<T>();
  if constexpr (sizeof(T) > 2)
    if (p.planes) return avg_pool_2x2_planes_backward(g, dx, p.n * p.c, p.h, p.w);
  parallel_for(p.n * p.h.in, row_grain(p.w.in * p.c), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t h = r % p.h.in, oh0 = p.h.first_window(h), oh1 = p.h.end_window(h);
      const T* image = g + r / p.h.in * p.h.out * p.w.out * p.c;
      for (int64_t w = 0; w < p.w.in; w++)
        spread_windows(
            image, dx + (r * p.w.in + w) * p.c, p.c, p.w.out, oh0, oh1, p.w.first_window(w), p.w.end_window(w),
            [&](int64_t oh, int64_t ow) { return V(W(1) / (W(p.h.divisor(oh, p.with_pad)) * W(p.w.divisor(ow, p.with_pad)))); });
    }
  });
}

}  // namespace
}  // namespace fastdl

#define FD_ROWS(op, kernel)                                                                                     \
  {OpId::op, kF32, kernel<float>}, {OpId::op, kF64, kernel<double>}, {OpId::op, kF16, kernel<::fastdl::f16>}, { \
    OpId::op, kBF16, kernel<::fastdl::bf16>                                                                     \
  }
using namespace fastdl;
FD_KERNEL_TABLE(pool) = {FD_ROWS(max_pool2d, max_pool2d_kernel),
                         FD_ROWS(max_pool2d_backward, max_pool2d_backward_kernel),
                         FD_ROWS(avg_pool2d, avg_pool2d_kernel),
                         FD_ROWS(avg_pool2d_backward, avg_pool2d_backward_kernel),
                         {}};
