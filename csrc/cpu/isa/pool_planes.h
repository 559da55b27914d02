// Pooling of row-major planes (H, W): vectors run over W. For tensors of few channels and for users who pool an NCHW tensor on its
// own; converting to channels-last would cost more than the pooling. Backward exists for 2 x 2 windows of stride 2 only: inference
// sends other gradients through the channels-last kernels.
#pragma once
#include "cpu/isa/pool.h"

namespace fastdl {
namespace {

// p[0], p[step], p[2 * step] ... in the first n lanes. `fixed` is the step if that is 1 or 2, else 0.
template <int fixed, class T>
FD_INLINE Vec<WideOf<T>> load_every(const T* p, int64_t step, int n) {
  using V = Vec<WideOf<T>>;
  if constexpr (fixed == 1) return load_n(p, n);
  if constexpr (fixed == 2)
    if (n == V::size)  // the second load ends at the last element that is needed
      return permute2(load_wide(p), load_wide(p + V::size - 1), [](int i) { return 2 * i < V::size ? 2 * i : 2 * i + 1; });
  WideOf<T> lanes[V::size] = {};
  for (int i = 0; i < n; i++) lanes[i] = load_wide_one(p + i * step);
  return load(lanes);
}

// Calls f(first window, lanes) over the windows of one row: clipped ones alone, whole ones in vectors. The last vector starts early
// enough to be full and does some windows twice.
template <int size, class F>
FD_INLINE void for_windows(const Axis& w, F&& f) {
  const int64_t whole = w.first_whole(), end = w.end_whole();
  for (int64_t o = 0; o < whole; o++) f(o, 1);
  if (end - whole < size) {
    if (end > whole) f(whole, int(end - whole));
  } else {
    for (int64_t o = whole; o + size <= end; o += size) f(o, size);
    if ((end - whole) % size) f(end - size, size);
  }
  for (int64_t o = end; o < w.out; o++) f(o, 1);
}

// One row of outputs; `x` is the input row under tap h0. Windows have taps [h0, h1) inside the image.
template <int step, class T>
void max_pool_row(const T* x, T* y, uint8_t* taps, Axis h, Axis w, int64_t h0, int64_t h1) {
  using V = Vec<WideOf<T>>;
  using I = typename V::Int;
  for_windows<V::size>(w, [&](int64_t o, int lanes) {
    const int64_t w0 = w.first_tap(o), w1 = w.end_tap(o);
    V best(-__builtin_inff());
    Vec<I> tap{I(kNoTap)};
    if (h0 < h1 && w0 < w1) best = load_every<step>(x + w.position(o, w0), w.stride, lanes), tap = Vec<I>(I(h0 * w.kernel + w0));
    for (int64_t i = h0; i < h1; i++) {
      const T* q = x + (i - h0) * h.dilation * w.in + w.position(o, w0);
      for (int64_t j = w0; j < w1; j++, q += w.dilation)
        take_greater(best, tap, load_every<step>(q, w.stride, lanes), Vec<I>(I(i * w.kernel + j)));
    }
    store_n(y + o, best, lanes);
    store_bytes_n(taps + o, tap, lanes);
  });
}

template <class T>
void max_pool_planes(const T* x, T* y, uint8_t* taps, int64_t planes, const Axis& h, const Axis& w) {
  const auto row = w.stride == 1 ? max_pool_row<1, T> : w.stride == 2 ? max_pool_row<2, T> : max_pool_row<0, T>;
  parallel_for(planes * h.out, row_grain(w.out * h.kernel * w.kernel), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t oh = r % h.out, h0 = h.first_tap(oh), h1 = h.end_tap(oh);
      const T* top = x + (r / h.out * h.in + (h0 < h1 ? h.position(oh, h0) : 0)) * w.in;
      row(top, y + r * w.out, taps + r * w.out, h, w, h0, h1);
    }
  });
}

// Likewise; `rows` is the H part of the divisor.
template <int step, class T>
void avg_pool_row(const T* x, T* y, Axis w, int64_t h0, int64_t h1, WideOf<T> rows, bool with_pad) {
  using V = Vec<WideOf<T>>;
  for_windows<V::size>(w, [&](int64_t o, int lanes) {
    const int64_t w0 = w.first_tap(o), w1 = w.end_tap(o);
    V total(0);
    for (int64_t i = h0; i < h1; i++) {
      const T* q = x + (i - h0) * w.in + w.position(o, w0);
      V line(0);
      for (int64_t j = w0; j < w1; j++, q++) line += load_every<step>(q, w.stride, lanes);
      total += line;
    }
    store_n(y + o, total / V(rows * WideOf<T>(w.divisor(o, with_pad))), lanes);
  });
}

template <class T>
void avg_pool_planes(const T* x, T* y, int64_t planes, const Axis& h, const Axis& w, bool with_pad) {
  const auto row = w.stride == 1 ? avg_pool_row<1, T> : w.stride == 2 ? avg_pool_row<2, T> : avg_pool_row<0, T>;
  parallel_for(planes * h.out, row_grain(w.out * min_of(h.kernel, h.in) * min_of(w.kernel, w.in)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t oh = r % h.out, h0 = h.first_tap(oh), h1 = h.end_tap(oh);
      const T* top = x + (r / h.out * h.in + h.position(oh, h0)) * w.in;
      row(top, y + r * w.out, w, h0, h1, WideOf<T>(h.divisor(oh, with_pad)), with_pad);
    }
  });
}

// dx of 2 x 2 windows of stride 2: row(index of the first window, its column, its row, row inside the window, lanes, even, odd)
// sets the gradients of the even and of the odd columns under `lanes` windows.
template <class T, class Row>
void spread_2x2_planes(T* dx, int64_t planes, const Axis& h, const Axis& w, Row&& row) {
  using V = Vec<WideOf<T>>;
  const int64_t pairs = min_of(w.out, w.in / 2);
  parallel_for(planes * h.in, row_grain(w.in), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      T* to = dx + r * w.in;
      const int64_t ih = r % h.in, oh = ih / 2, from = (r / h.in * h.out + oh) * w.out;
      if (oh >= h.out) {  // a last row that no window covers
        for (int64_t i = 0; i < w.in; i++) to[i] = T{};
        continue;
      }
      const auto pair = [&](int64_t o, int lanes) {
        V even, odd;
        row(from + o, o, oh, int(ih % 2), lanes, even, odd);
        if (lanes == V::size) {
          store_narrow(to + 2 * o, zip_low(even, odd));
          store_narrow(to + 2 * o + V::size, zip_high(even, odd));
        } else {
          for (int k = 0; k < lanes; k++) {
            store_narrow_one(to + 2 * (o + k), even[k]);
            if (2 * (o + k) + 1 < w.in) store_narrow_one(to + 2 * (o + k) + 1, odd[k]);
          }
        }
      };
      if (pairs < V::size) {
        if (pairs) pair(0, int(pairs));
      } else {
        for (int64_t o = 0; o + V::size <= pairs; o += V::size) pair(o, V::size);
        if (pairs % V::size) pair(pairs - V::size, V::size);
      }
      if (pairs < w.out)
        pair(pairs, 1);  // ceil_mode: the last window is one column wide
      else if (2 * pairs < w.in)
        to[2 * pairs] = T{};
    }
  });
}

template <class T>
void max_pool_2x2_planes_backward(const T* g, const uint8_t* taps, T* dx, int64_t planes, const Axis& h, const Axis& w) {
  using V = Vec<WideOf<T>>;
  using I = typename V::Int;
  spread_2x2_planes(dx, planes, h, w, [&](int64_t at, int64_t, int64_t, int row, int lanes, V& even, V& odd) {
    const V v = load_n(g + at, lanes);
    const Vec<I> tap = load_bytes_n<I>(taps + at, lanes);
    even = select(tap == Vec<I>(I(2 * row)), v, V(0));
    odd = select(tap == Vec<I>(I(2 * row + 1)), v, V(0));
  });
}

template <class T>
void avg_pool_2x2_planes_backward(const T* g, T* dx, int64_t planes, const Axis& h, const Axis& w) {
  using W = WideOf<T>;
  using V = Vec<W>;
  spread_2x2_planes(dx, planes, h, w, [&](int64_t at, int64_t ow, int64_t oh, int, int lanes, V& even, V& odd) {
    even = odd = load_n(g + at, lanes) * V(W(1) / (W(h.divisor(oh, false)) * W(w.divisor(ow, false))));
  });
}

}  // namespace
}  // namespace fastdl
