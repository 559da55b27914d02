// Pooling of row-major planes (H, W): vectors run over W. For tensors of few channels and for users who pool an NCHW tensor on its
// own; converting to channels-last would cost more than the pooling.
//
// Windows and inputs at the sides, where windows are clipped, are done one by one; between them whole vectors of windows (forward)
// or of inputs (backward) share one set of taps. Backward exists for strides 1 and 2 without dilation: inference sends other
// gradients through the channels-last kernels.
#pragma once
#include "cpu/isa/pool.h"

namespace fastdl {
namespace {

// p[0], p[step], p[2 * step] ... in the first n lanes; nothing beyond the last of them is read. `fixed` is the step if that is 1
// or 2, else 0. Lanes of step 2 come in the order that one in-lane shuffle gives; in_order() puts a result right.
template <int fixed, class T>
FD_INLINE Vec<T> load_every(const T* p, int64_t step, int n) {
  using V = Vec<T>;
  constexpr int size = V::size, lane = 16 / sizeof(T);
  if constexpr (fixed == 1) return load_n(p, n);
  if constexpr (fixed == 2) {
    const int rest = 2 * n - size;  // elements of the second load, which ends at the last one that is needed
    const V a = n == size ? load(p) : load_partial(p, rest < 0 ? 2 * n - 1 : size);
    const V b = n == size ? load(p + size - 1) : load_partial(p + size - 1, rest < 0 ? 0 : rest);
    return permute2(a, b, [](int i) {
      const int k = i % lane * 2, start = i / lane * lane;
      return k < lane ? start + k : size + start + k - lane + 1;
    });
  }
  T lanes[size] = {};
  for (int i = 0; i < n; i++) lanes[i] = p[i * step];
  return load(lanes);
}
template <int fixed, class T>
FD_INLINE Vec<T> in_order(Vec<T> v) {
  constexpr int size = Vec<T>::size, half = 8 / sizeof(T);  // half a lane of 16 bytes
  if constexpr (fixed != 2 || size == 2 * half) return v;
  return permute2(v, v, [](int i) {
    const int k = i % (size / 2);
    return k / half * 2 * half + k % half + i / (size / 2) * half;
  });
}

// Vectors over [begin, end): f(first, lanes). The last vector starts early enough to be full and does some elements twice.
template <int size, class F>
FD_INLINE void for_whole(int64_t begin, int64_t end, F&& f) {
  if (end - begin < size) {
    if (end > begin) f(begin, int(end - begin));
    return;
  }
  for (int64_t o = begin;; o = min_of(o + size, end - size)) {
    f(o, size);
    if (o + size >= end) return;
  }
}

// The windows of a row that lie inside the image, found once: that takes divisions.
struct Columns : Axis {
  int64_t begin, end;
  explicit Columns(const Axis& w) : Axis(w), begin(w.first_whole()), end(w.end_whole()) {}
};

// f(row of outputs, its plane, its row in the plane) without a division per row.
template <class F>
FD_INLINE void for_rows(int64_t begin, int64_t end, int64_t rows, F&& f) {
  int64_t plane = begin / rows, row = begin % rows;
  for (int64_t r = begin; r < end; r++) {
    f(r, plane, row);
    if (++row == rows) row = 0, plane++;
  }
}

// ---- forward: one row of outputs; `x` is the input row under tap h0. Windows have taps [h0, h1) inside the image, h0 < h1. -----
template <class T>
void max_window_one(const T* x, T* y, uint8_t* taps, const Axis& h, const Axis& w, int64_t h0, int64_t h1, int64_t o) {
  using V = Vec<T>;  // one lane of it counts: selects do not branch, where winners cannot be predicted
  using I = typename V::Int;
  const int64_t w0 = w.first_tap(o), w1 = w.end_tap(o);
  V best(T(-__builtin_inff()));
  Vec<I> tap{I(kNoTap)};
  if (w0 < w1) best = V(x[w.position(o, w0)]), tap = Vec<I>(I(h0 * w.kernel + w0));
  for (int64_t i = h0; i < h1; i++)
    for (int64_t j = w0; j < w1; j++)
      take_greater(best, tap, V(x[(i - h0) * h.dilation * w.in + w.position(o, j)]), Vec<I>(I(i * w.kernel + j)));
  y[o] = best[0], taps[o] = uint8_t(tap[0]);
}

// `columns`: the window's columns if known at compile time, else 0.
template <int step, int columns, class T>
void max_pool_row(const T* x, T* y, uint8_t* taps, const Axis& h, const Columns& w, int64_t h0, int64_t h1) {
  using V = Vec<T>;
  using I = typename V::Int;
  const int64_t begin = w.begin, end = w.end, stride = w.stride, kernel = columns ? columns : w.kernel;
  const int64_t line = h.dilation * w.in, dilation = columns ? 1 : w.dilation;
  for (int64_t o = 0; o < begin; o++) max_window_one(x, y, taps, h, w, h0, h1, o);
  for (int64_t o = end; o < w.out; o++) max_window_one(x, y, taps, h, w, h0, h1, o);
  x -= w.pad;
  for_whole<V::size>(begin, end, [=](int64_t o, int lanes) __attribute__((always_inline)) {
    const T* q = x + o * stride;
    V best = load_every<step>(q, stride, lanes);
    Vec<I> tap{I(h0 * kernel)};
    for (int64_t i = h0; i < h1; i++, q += line)
      for (int j = 0; j < kernel; j++)  // the first tap meets itself, which changes nothing
        take_greater(best, tap, load_every<step>(q + j * dilation, stride, lanes), Vec<I>(I(i * kernel + j)));
    store_n(y + o, in_order<step>(best), lanes);
    store_bytes_n(taps + o, in_order<step>(tap), lanes);
  });
}

template <class T>
void max_pool_planes(const T* x, T* y, uint8_t* taps, int64_t planes, const Axis& h, const Axis& w) {
  const bool near = w.dilation == 1;
  const Columns columns(w);
  const auto row = w.stride == 1   ? near && w.kernel == 3 ? max_pool_row<1, 3, T> : max_pool_row<1, 0, T>
                   : w.stride == 2 ? near && w.kernel == 2   ? max_pool_row<2, 2, T>
                                     : near && w.kernel == 3 ? max_pool_row<2, 3, T>
                                                             : max_pool_row<2, 0, T>
                                   : max_pool_row<0, 0, T>;
  parallel_for(planes * h.out, row_grain(w.out * h.kernel * w.kernel), [&](int64_t begin, int64_t end) {
    for_rows(begin, end, h.out, [&](int64_t r, int64_t plane, int64_t oh) {
      const int64_t h0 = h.first_tap(oh), h1 = h.end_tap(oh);
      T* to = y + r * w.out;
      if (h0 < h1) return row(x + (plane * h.in + h.position(oh, h0)) * w.in, to, taps + r * w.out, h, columns, h0, h1);
      for (int64_t o = 0; o < w.out; o++) to[o] = T(-__builtin_inff()), taps[r * w.out + o] = kNoTap;
    });
  });
}

// Likewise; `rows` is the H part of the divisor. Rows are summed first, then the rows' sums.
template <int step, int columns, class T>
void avg_pool_row(const T* x, T* y, const Columns& w, int64_t h0, int64_t h1, T rows, bool with_pad) {
  using V = Vec<T>;
  const int64_t begin = w.begin, end = w.end, stride = w.stride, kernel = columns ? columns : w.kernel, line = w.in;
  const auto one = [&](int64_t o) {
    const int64_t w0 = w.first_tap(o), w1 = w.end_tap(o);
    T total = 0;
    for (int64_t i = h0; i < h1; i++) {
      T sum = 0;
      for (int64_t j = w0; j < w1; j++) {
        sum += x[(i - h0) * line + w.position(o, j)];
        FD_KEEP_POINTER(j);  // as in AvgTerm
      }
      total += sum;
    }
    y[o] = total / (rows * T(w.divisor(o, with_pad)));
  };
  for (int64_t o = 0; o < begin; o++) one(o);
  for (int64_t o = end; o < w.out; o++) one(o);
  const V divisor(rows * T(kernel));
  const T* top = x - w.pad;
  for_whole<V::size>(begin, end, [=](int64_t o, int lanes) __attribute__((always_inline)) {
    const T* q = top + o * stride;
    V total(0);
    for (int64_t i = h0; i < h1; i++, q += line) {
      V sum(0);
      for (int j = 0; j < kernel; j++) sum += load_every<step>(q + j, stride, lanes);
      total += sum;
    }
    store_n(y + o, in_order<step>(total / divisor), lanes);
  });
}

template <class T>
void avg_pool_planes(const T* x, T* y, int64_t planes, const Axis& h, const Axis& w, bool with_pad) {
  const auto row = w.stride == 1   ? w.kernel == 3 ? avg_pool_row<1, 3, T> : avg_pool_row<1, 0, T>
                   : w.stride == 2 ? w.kernel == 2   ? avg_pool_row<2, 2, T>
                                     : w.kernel == 3 ? avg_pool_row<2, 3, T>
                                                     : avg_pool_row<2, 0, T>
                                   : avg_pool_row<0, 0, T>;
  const Columns columns(w);
  parallel_for(planes * h.out, row_grain(w.out * min_of(h.kernel, h.in) * min_of(w.kernel, w.in)), [&](int64_t begin, int64_t end) {
    for_rows(begin, end, h.out, [&](int64_t r, int64_t plane, int64_t oh) {
      const int64_t h0 = h.first_tap(oh), h1 = h.end_tap(oh);
      const T* top = x + (plane * h.in + (h0 < h1 ? h.position(oh, h0) : 0)) * w.in;
      row(top, y + r * w.out, columns, h0, h1, T(h.divisor(oh, with_pad)), with_pad);
    });
  });
}

// ---- backward -------------------------------------------------------------------------------------------------------------------
// Column step * m + q of the input lies under tap j of window m + (q + pad - j) / step where that divides. `phase` is pad % step.
// Term says what a window gives: term.vector(at, lanes, number) and term.one(at, ow, i, j), with `at` the index of the window in
// the gradient and `number` that of the tap; and which windows the vectors may use, term.begin <= ow < term.end.
template <int step, int phase, int columns, class T, class Term>
void gather_row(T* dx, int64_t from, const Axis& h, const Axis& w, int64_t ih, const Covering& rows, const Term& shared) {
  using V = Vec<T>;
  const Term term = shared;  // stores to dx cannot change the copy
  const int64_t kernel = columns ? columns : w.kernel, half = w.pad / step, top = h.pad + ih, out = w.out, down = h.stride;
  const int64_t first = rows.first, end = rows.end;
  const auto one = [&](int64_t x) {
    T sum = 0;
    for (int64_t oh = first; oh < end; oh++) {
      const int64_t last = min_of(out - 1, (x + w.pad) / step);
      for (int64_t o = max_of<int64_t>(0, ceil_div<int64_t>(max_of<int64_t>(x + w.pad - kernel + 1, 0), step)); o <= last; o++)
        sum += term.one(from + oh * out + o, oh, o, top - oh * down, x + w.pad - o * step);
    }
    dx[x] = sum;
  };
  // windows of column q: m + half + (q + phase - j) / step for the j that fit
  const int64_t reach = half + (step - 1 + phase) / step;                              // the farthest to the right
  const int64_t lowest = half - (kernel - 1) / step;                                   // the farthest to the left, at most
  const int64_t begin = min_of(max_of<int64_t>(term.begin - lowest, 0), w.in / step);  // of m
  const int64_t stop = max_of(begin, min_of(term.end - reach, w.in / step));
  const bool vectors = stop - begin >= V::size;
  const int64_t left = vectors ? begin * step : w.in, right = vectors ? stop * step : w.in;
  for (int64_t x = 0; x < left; x++) one(x);
  for (int64_t x = right; x < w.in; x++) one(x);
  if (!vectors) return;
  for_whole<V::size>(begin, stop, [=](int64_t m, int lanes) __attribute__((always_inline)) {
    V sum[step];
    for (int q = 0; q < step; q++) sum[q] = V(0);
    for (int64_t oh = first; oh < end; oh++) {
      const int64_t at = from + oh * out + m + half, number = (top - oh * down) * kernel;
      for (int q = 0; q < step; q++) {
        const int lead = (q + phase) % step, most = int((kernel - 1 - lead) / step);  // taps lead, lead + step ...
        for (int k = lead < kernel ? most : -1; k >= 0; k--)                          // windows from left to right
          sum[q] = term.vector(sum[q], at + (q + phase - lead) / step - k, oh, lanes, number + lead + k * step);
      }
    }
    if constexpr (step == 1) {
      store(dx + m, sum[0]);
    } else {
      store(dx + 2 * m, zip_low(sum[0], sum[1]));
      store(dx + 2 * m + V::size, zip_high(sum[0], sum[1]));
    }
  });
}

template <class T, class Term>
void gather_planes(T* dx, int64_t planes, const Axis& h, const Axis& w, const Term& term) {
  const bool odd = w.pad % 2;
  const auto row = w.stride == 1   ? w.kernel == 3 ? gather_row<1, 0, 3, T, Term> : gather_row<1, 0, 0, T, Term>
                   : odd           ? w.kernel == 3 ? gather_row<2, 1, 3, T, Term> : gather_row<2, 1, 0, T, Term>
                   : w.kernel == 2 ? gather_row<2, 0, 2, T, Term>
                                   : gather_row<2, 0, 0, T, Term>;
  parallel_for(planes * h.in, row_grain(w.in), [&](int64_t begin, int64_t end) {
    Covering rows(h);
    for_rows(begin, end, h.in, [&](int64_t r, int64_t plane, int64_t ih) {
      if (ih == 0) rows = Covering(h);
      rows.move_to(ih);
      row(dx + r * w.in, plane * h.out * w.out, h, w, ih, rows, term);
    });
  });
}

template <class T>
struct MaxTerm {
  const T* g;
  const uint8_t* taps;
  int64_t columns, begin, end;
  FD_INLINE Vec<T> vector(Vec<T> sum, int64_t at, int64_t, int lanes, int64_t number) const {
    using I = typename Vec<T>::Int;
    return sum + select(load_bytes_n<I>(taps + at, lanes) == Vec<I>(I(number)), load_n(g + at, lanes), Vec<T>(0));
  }
  FD_INLINE T one(int64_t at, int64_t, int64_t, int64_t i, int64_t j) const {
    using I = typename Vec<T>::Int;
    return select(Vec<I>(I(taps[at])) == Vec<I>(I(i * columns + j)), Vec<T>(g[at]), Vec<T>(0))[0];
  }
};
// The commonest windows, 2 x 2 side by side, need no search for the windows of an input. halves(at, lanes, row, even, odd) gives
// what row 0 or 1 of the windows from `at` on take in their two columns.
template <class T, class Halves>
void spread_2x2_planes(T* dx, int64_t planes, const Axis& h, const Axis& w, const Halves& shared) {
  using V = Vec<T>;
  const int64_t pairs = min_of(w.out, w.in / 2);
  parallel_for(planes * h.in, row_grain(w.in), [&](int64_t begin, int64_t end) {
    const Halves halves = shared;  // stores to dx cannot change the copy
    for_rows(begin, end, h.in, [&](int64_t r, int64_t plane, int64_t ih) {
      T* to = dx + r * w.in;
      const int64_t oh = ih / 2, at = (plane * h.out + oh) * w.out;
      const int row = int(ih % 2);
      int64_t done = 0;  // what no window covers becomes 0
      if (oh < h.out) {
        for_whole<V::size>(0, pairs, [=](int64_t o, int lanes) __attribute__((always_inline)) {
          V even, odd;
          halves(at + o, lanes, row, even, odd);
          const V low = zip_low(even, odd), high = zip_high(even, odd);
          if (lanes == V::size) {
            store(to + 2 * o, low), store(to + 2 * o + V::size, high);
          } else {
            const int n = 2 * lanes;
            store_partial(to + 2 * o, low, n < V::size ? n : V::size);
            if (n > V::size) store_partial(to + 2 * o + V::size, high, n - V::size);
          }
        });
        done = 2 * pairs;
        if (pairs < w.out) {  // ceil_mode: one column wide
          V even, odd;
          halves(at + pairs, 1, row, even, odd);
          to[done++] = even[0];
        }
      }
      for (; done < w.in; done++) to[done] = 0;
    });
  });
}
inline bool halves(const Axis& a) { return a.kernel == 2 && a.stride == 2 && a.pad == 0; }
template <class T>
void max_pool_planes_backward(const T* g, const uint8_t* taps, T* dx, int64_t planes, const Axis& h, const Axis& w) {
  using V = Vec<T>;
  using I = typename V::Int;
  if (halves(h) && halves(w))
    return spread_2x2_planes(dx, planes, h, w, [=](int64_t at, int lanes, int row, V& even, V& odd) __attribute__((always_inline)) {
      const V v = load_n(g + at, lanes);
      const Vec<I> tap = load_bytes_n<I>(taps + at, lanes);
      even = select(tap == Vec<I>(I(2 * row)), v, V(0)), odd = select(tap == Vec<I>(I(2 * row + 1)), v, V(0));
    });
  gather_planes(dx, planes, h, w, MaxTerm<T>{g, taps, w.kernel, 0, w.out});
}

template <class T>
struct AvgTerm {
  const T* g;
  Axis h;
  Columns w;
  bool with_pad;
  int64_t top = h.first_whole(), bottom = h.end_whole(), begin = w.begin, end = w.end;
  T whole = scale(h.kernel, w.kernel);  // of windows inside the image: most of them

  static FD_INLINE T scale(int64_t rows, int64_t columns) { return T(1) / (T(rows) * T(columns)); }
  FD_INLINE Vec<T> vector(Vec<T> sum, int64_t at, int64_t oh, int lanes, int64_t) const {
    const T s = oh >= top && oh < bottom ? whole : scale(h.divisor(oh, with_pad), w.kernel);
    return fma(Vec<T>(s), load_n(g + at, lanes), sum);
  }
  FD_INLINE T one(int64_t at, int64_t oh, int64_t ow, int64_t, int64_t) const {
    FD_KEEP_POINTER(at);  // or GCC makes vectors of the few windows of one column, in kilobytes of code
    const bool inside = oh >= top && oh < bottom && ow >= begin && ow < end;
    return g[at] * (inside ? whole : scale(h.divisor(oh, with_pad), w.divisor(ow, with_pad)));
  }
};
template <class T>
void avg_pool_planes_backward(const T* g, T* dx, int64_t planes, const Axis& h, const Axis& w, bool with_pad) {
  using V = Vec<T>;
  if (halves(h) && halves(w) && h.in == 2 * h.out && w.in == 2 * w.out)  // so that all divisors are equal
    return spread_2x2_planes(dx, planes, h, w, [=](int64_t at, int lanes, int, V& even, V& odd) __attribute__((always_inline)) {
      even = odd = load_n(g + at, lanes) * V(T(0.25));
    });
  gather_planes(dx, planes, h, w, AvgTerm<T>{g, h, Columns(w), with_pad});
}

}  // namespace
}  // namespace fastdl
