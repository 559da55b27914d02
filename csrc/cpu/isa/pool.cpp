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
      const int64_t first = i == h0 ? w0 + 1 : w0;
      const T* q = x + (i - h0) * dh + (first - w0) * dw + c;
      for (int64_t j = first; j < w1; j++, q += dw) {
        const Vec<I> number(I(i * p.w.kernel + j));
        for (int k = 0; k < n; k++) take_greater(best[k], tap[k], load_n(q + k * V::size, lanes), number);
      }
    }
    for (int k = 0; k < n; k++) {
      store_n(y + c + k * V::size, best[k], lanes);
      store_bytes_n(taps + c + k * V::size, tap[k], lanes);
    }
  });
}

// The commonest windows, whole and without dilation, with their size known at compile time. x: the first tap of the first window.
template <int kh, int kw, class T>
FD_INLINE void max_whole_windows(const T* x, T* y, uint8_t* taps, const Pool& p, int64_t windows) {
  using V = Vec<WideOf<T>>;
  using I = typename V::Int;
  const int64_t channels = p.c, row = p.w.in * channels, step = p.w.stride * channels;
  for (int64_t o = 0; o < windows; o++, x += step, y += channels, taps += channels)
    for_channels<V::size>(channels, [&](int64_t c, int lanes, auto count) {
      for (int k = 0; k < decltype(count)::value; k++, c += V::size) {
        V best = load_n(x + c, lanes);
        Vec<I> tap{I(0)};
#pragma GCC unroll 3
        for (int i = 0; i < kh; i++)
#pragma GCC unroll 3
          for (int j = 0; j < kw; j++)
            if (i + j > 0) take_greater(best, tap, load_n(x + i * row + j * channels + c, lanes), Vec<I>(I(i * kw + j)));
        store_n(y + c, best, lanes);
        store_bytes_n(taps + c, tap, lanes);
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
  const int64_t row = p.w.in * p.c, near = p.h.dilation == 1 && p.w.dilation == 1 && p.h.kernel == p.w.kernel ? p.h.kernel : 0;
  const int64_t whole = p.w.first_whole(), whole_end = near == 2 || near == 3 ? p.w.end_whole() : whole;
  parallel_for(p.n * p.h.out, row_grain(p.w.out * p.c * p.h.kernel * p.w.kernel), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t oh = r % p.h.out;
      const int64_t h0 = p.h.first_tap(oh), h1 = p.h.end_tap(oh);
      const T* top = x + (r / p.h.out * p.h.in + p.h.position(oh, h0)) * row;
      for (int64_t ow = 0; ow < p.w.out; ow++) {
        if (ow == whole && ow < whole_end && h1 - h0 == near) {
          const int64_t at = (r * p.w.out + ow) * p.c;
          const T* first = top + p.w.position(ow, 0) * p.c;
          if (near == 2)
            max_whole_windows<2, 2>(first, y + at, taps + at, p, whole_end - ow);
          else
            max_whole_windows<3, 3>(first, y + at, taps + at, p, whole_end - ow);
          ow = whole_end - 1;
          continue;
        }
        const int64_t at = (r * p.w.out + ow) * p.c, w0 = p.w.first_tap(ow);
        max_window(top + p.w.position(ow, w0) * p.c, y + at, taps + at, p, row, h0, h1, w0, p.w.end_tap(ow));
      }
    }
  });
}

// Gradients of windows that tile the input (kernel == stride, no padding): put(dx, index in it of the window's first column, index
// of the window, row inside the window, columns) writes one row of one window. Rows and columns that no window covers become 0.
bool tiles(const Axis& a) { return a.kernel == a.stride && a.pad == 0 && a.dilation == 1; }
bool tiles(const Pool& p) { return tiles(p.h) && tiles(p.w); }
template <class T, class Put>
void spread_tiles(const Pool& p, const Result<T>& shared, Put&& put) {
  const int64_t covered = min_of(p.w.in, p.w.out * p.w.stride);
  parallel_for(p.n * p.h.in, row_grain(p.w.in * p.c), [&](int64_t begin, int64_t end) {
    const Result<T> dx = shared;  // a copy that stores cannot change
    for (int64_t r = begin; r < end; r++) {
      const int64_t row = r * p.w.in * p.c;
      int64_t rest = row + covered * p.c;
      const int64_t h = r % p.h.in, oh = h / p.h.stride, from = (r / p.h.in * p.h.out + oh) * p.w.out;
      if (oh >= p.h.out)
        rest = row;
      else
        for (int64_t ow = 0; ow < p.w.out; ow++)
          put(dx, row + ow * p.w.stride * p.c, (from + ow) * p.c, h % p.h.stride, min_of(p.w.kernel, p.w.in - ow * p.w.stride));
      __builtin_memset(dx.to + rest, 0, size_t(row + p.w.in * p.c - rest) * sizeof(T));
    }
    dx.finish();
  });
}

template <class T>
void max_pool2d_backward_kernel(const Args& a) {
  using V = Vec<WideOf<T>>;
  using I = typename V::Int;
  const Pool p(a.out[0], a.in[0], *a.attrs);
  const T* g = a.in[0].ptr<T>();
  const uint8_t* taps = a.in[1].ptr<uint8_t>();
  if constexpr (sizeof(T) > 2)
    if (p.planes) return max_pool_planes_backward(g, taps, a.out[0].ptr<T>(), p.n * p.c, p.h, p.w);
  const Result<T> result(a.out[0].ptr<T>(), a.out[0].numel(), p.c);
  if (tiles(p))
    return spread_tiles(p, result, [&](const Result<T>& dx, int64_t to, int64_t at, int64_t row, int64_t columns) {
      for_channels<V::size>(p.c, [&](int64_t c, int lanes, auto count) {
        for (int k = 0; k < decltype(count)::value; k++, c += V::size) {
          const V v = load_n(g + at + c, lanes);
          const Vec<I> tap = load_bytes_n<I>(taps + at + c, lanes);
          for (int64_t j = 0; j < columns; j++)
            dx.store(to + j * p.c + c, select(tap == Vec<I>(I(row * p.w.kernel + j)), v, V(0)), lanes);
        }
      });
    });
  parallel_for(p.n * p.h.in, row_grain(p.w.in * p.c), [&](int64_t begin, int64_t end) {
    const Result<T> dx = result;
    for (int64_t r = begin; r < end; r++) {
      const int64_t h = r % p.h.in, image = r / p.h.in * p.h.out;
      Covering rows(p.h), columns(p.w);
      rows.move_to(h);
      for (int64_t w = 0; w < p.w.in; w++) {
        columns.move_to(w);
        for_channels<V::size>(p.c, [&](int64_t c, int lanes, auto count) {
          constexpr int n = decltype(count)::value;
          V sum[n];
          for (int k = 0; k < n; k++) sum[k] = V(0);
          for (int64_t oh = rows.first; oh < rows.end; oh++)
            for (int64_t ow = columns.first; ow < columns.end; ow++) {
              const int64_t at = ((image + oh) * p.w.out + ow) * p.c + c, i = p.h.tap_at(oh, h), j = p.w.tap_at(ow, w);
              if (i < 0 || j < 0) continue;
              const Vec<I> number(I(i * p.w.kernel + j));
              for (int k = 0; k < n; k++) {
                const Vec<I> tap = load_bytes_n<I>(taps + at + k * V::size, lanes);
                sum[k] += select(tap == number, load_n(g + at + k * V::size, lanes), V(0));
              }
            }
          for (int k = 0; k < n; k++) dx.store((r * p.w.in + w) * p.c + c + k * V::size, sum[k], lanes);
        });
      }
    }
    dx.finish();
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
  if constexpr (sizeof(T) > 2)
    if (p.planes) return avg_pool_planes_backward(g, a.out[0].ptr<T>(), p.n * p.c, p.h, p.w, p.with_pad);
  const Result<T> result(a.out[0].ptr<T>(), a.out[0].numel(), p.c);
  if (tiles(p) && p.h.in % p.h.stride == 0 && p.w.in % p.w.stride == 0)  // so that all divisors are equal
    return spread_tiles(p, result, [&](const Result<T>& dx, int64_t to, int64_t at, int64_t, int64_t columns) {
      const V scale(W(1) / (W(p.h.kernel) * W(p.w.kernel)));
      for_channels<V::size>(p.c, [&](int64_t c, int lanes, auto count) {
        for (int k = 0; k < decltype(count)::value; k++, c += V::size) {
          const V v = load_n(g + at + c, lanes) * scale;
          for (int64_t j = 0; j < columns; j++) dx.store(to + j * p.c + c, v, lanes);
        }
      });
    });
  parallel_for(p.n * p.h.in, row_grain(p.w.in * p.c), [&](int64_t begin, int64_t end) {
    const Result<T> dx = result;
    for (int64_t r = begin; r < end; r++) {
      const T* image = g + r / p.h.in * p.h.out * p.w.out * p.c;
      Covering rows(p.h), columns(p.w);
      rows.move_to(r % p.h.in);
      for (int64_t w = 0; w < p.w.in; w++) {
        columns.move_to(w);
        spread_windows(
            image, dx, (r * p.w.in + w) * p.c, p.c, p.w.out, rows.first, rows.end, columns.first, columns.end,
            [&](int64_t oh, int64_t ow) { return V(W(1) / (W(p.h.divisor(oh, p.with_pad)) * W(p.w.divisor(ow, p.with_pad)))); });
      }
    }
    dx.finish();
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
