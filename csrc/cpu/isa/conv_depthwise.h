// Depthwise convolution and its gradients: vectors along channels, one filter per channel. 3x3 kernels of step 1 slide along a row,
// so that each vector of the image is loaded once for all columns of the kernel; other kernels take a few pixels at a time.
#pragma once
#include "core/partition.h"
#include "cpu/isa/conv_gather.h"
#include "cpu/isa/conv_weight.h"
#include "cpu/vec/registers.h"

namespace fastdl {
namespace {

// ---- 3x3, step 1 ---------------------------------------------------------------------------------------------------------------
// f(begin, end) as constants, of those of three rows from `top` on that are inside [0, size).
template <int begin, int end>
struct RowRange {
  static constexpr int first = begin, last = end;
};
template <class F>
FD_INLINE void with_rows(int64_t top, int64_t size, const F& f) {
  const int64_t begin = max_of<int64_t>(0, -top), end = min_of<int64_t>(3, size - top);
  if (begin >= end) return f(RowRange<0, 0>());
  switch (begin * 4 + end) {
    case 1:
      return f(RowRange<0, 1>());
    case 2:
      return f(RowRange<0, 2>());
    case 3:
      return f(RowRange<0, 3>());
    case 6:
      return f(RowRange<1, 2>());
    case 7:
      return f(RowRange<1, 3>());
    default:
      return f(RowRange<2, 3>());
  }
}

// Rows of the result that are computed together read common rows of the source. Narrow vectors have registers for one only.
constexpr int kSlidingRows = FD_VEC_BYTES == 64 ? 2 : 1;

template <class T>
struct SlidingRow {
  const T* source;  // of its first row: maybe outside, then it is not read
  T* out;
  // The rows that come next are fetched in order, a share for each vector of channels, so that the hardware runs ahead. Not those
  // of another piece of work: fetching what another core writes would take it away.
  const T *next, *next_out;
  const T* weights[3][3];  // by position in the source, not by tap
  const T* bias;
  int64_t row, out_row, pitch, out_pitch;
  int64_t low, width, count;  // source column of pixel 0's first tap; columns of the source, and of the result
  bool relu, past;
};

// `rows` rows of the result, channels c .. c + lanes - 1; of the rows + 2 rows of the source, those from `begin` to `end` are
// inside.
template <class T, int rows, int begin, int end, bool whole>
__attribute__((noinline)) void slide(const SlidingRow<T>& t, int64_t c, int lanes) {
  const auto read = [&](const T* p) __attribute__((always_inline)) { return whole ? load(p) : load_partial(p, lanes); };
  Vec<T> w[3][3];
#pragma GCC unroll 3
  for (int v = 0; v < 3; v++) {
#pragma GCC unroll 3
    for (int h = 0; h < 3; h++) w[v][h] = read(t.weights[v][h] + c);
  }
  const Vec<T> start = t.bias ? read(t.bias + c) : Vec<T>(T(0));
  const T* source = t.source + (t.low * t.pitch + c);
  T* out = t.out + c - 2 * t.out_pitch;
  const T *ahead = t.next + c * t.width, *out_ahead = t.next_out + c * t.count;
  // Three results of each row are under way: column i of the source is the last of a, the second of b and the first of z.
  const auto add = [&](Vec<T>(&a)[rows], Vec<T>(&b)[rows], Vec<T>(&z)[rows]) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int r = begin; r < end; r++) {
      const Vec<T> x = read(source + r * t.row);
#pragma GCC unroll 2
      for (int o = 0; o < rows; o++) {
        if (r < o || r > o + 2) continue;
        a[o] = fma(x, w[r - o][2], a[o]);
        b[o] = fma(x, w[r - o][1], b[o]);
        z[o] = fma(x, w[r - o][0], z[o]);
      }
    }
#pragma GCC unroll 2
    for (int o = 0; o < rows; o++) {
      __builtin_prefetch(ahead + o * t.row);
      if (!t.past) __builtin_prefetch(out_ahead + o * t.out_row, 1);
    }
  };
  const auto finish = [&](Vec<T>(&a)[rows]) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int o = 0; o < rows; o++) {
      if (t.relu) a[o] = max(Vec<T>(T(0)), a[o]);  // NaN, as second operand, stays NaN
      T* to = out + o * t.out_row;
      if (t.past)
        stream_store(to, a[o]);
      else if (whole)
        store(to, a[o]);
      else
        store_partial(to, a[o], lanes);
      a[o] = start;
    }
  };
  const auto move = [&]() __attribute__((always_inline)) {
    source += t.pitch, out += t.out_pitch, ahead += Vec<T>::size, out_ahead += Vec<T>::size;
  };
  Vec<T> a[rows], b[rows], z[rows];
#pragma GCC unroll 2
  for (int o = 0; o < rows; o++) a[o] = b[o] = z[o] = start;
  int64_t i = 0;
  const auto step = [&]() __attribute__((always_inline)) {
    if (uint64_t(t.low + i) < uint64_t(t.width)) add(a, b, z);
    if (i >= 2) finish(a);
#pragma GCC unroll 2
    for (int o = 0; o < rows; o++) a[o] = b[o], b[o] = z[o], z[o] = start;
    move(), i++;
  };
  while (i < 2 || t.low + i < 0) {
    step();
    if (i == t.count + 2) return;
  }
  for (const int64_t last = min_of(t.count + 2, t.width - t.low); i + 3 <= last; i += 3) {
    add(a, b, z), finish(a), move();
    add(b, z, a), finish(b), move();
    add(z, a, b), finish(z), move();
  }
  while (i < t.count + 2) step();
}

// All channels; begin, end as in slide().
template <class T, int rows, int begin, int end>
void slide_channels(const SlidingRow<T>& t) {
  constexpr int64_t lanes = Vec<T>::size;
  int64_t c = 0;
  for (; c + lanes <= t.pitch; c += lanes) slide<T, rows, begin, end, true>(t, c, int(lanes));
  if (c < t.pitch) slide<T, rows, begin, end, false>(t, c, int(t.pitch - c));
}
// Rows [first, last) of the result, counted over the batch.
template <class T>
void slide_rows(const Gather<T>& g, int64_t first, int64_t last) {
  SlidingRow<T> t;
  for (int v = 0; v < 3; v++)
    for (int h = 0; h < 3; h++) {
      const int64_t tap = (g.tap_step[0] > 0 ? v : 2 - v) * 3 + (g.tap_step[1] > 0 ? h : 2 - h);
      t.weights[v][h] = g.weights + (g.first_row + tap) * g.pitch;
    }
  t.bias = g.bias;
  t.pitch = g.pitch, t.row = g.size[1] * g.pitch;
  t.out_pitch = g.out_pitch, t.out_row = g.out_size[1] * g.out_pitch;
  t.low = g.low(1), t.width = g.size[1], t.count = g.count[1];
  t.relu = g.relu, t.past = g.streams();
  for (int64_t r = first; r < last;) {
    const int64_t n = r / g.count[0], y = r % g.count[0], top = y + g.low(0);
    t.source = g.source + (n * g.size[0] + top) * t.row;
    t.out = g.out + ((n * g.out_size[0] + g.out_begin[0] + y) * g.out_size[1] + g.out_begin[1]) * g.out_pitch;
    const auto fetch = [&](int64_t rows) {
      t.next = r + rows < last ? t.source + (rows + 2) * t.row : t.source;
      t.next_out = r + rows < last ? t.out + rows * t.out_row : t.out;
    };
    const auto finish = [&](int64_t rows) {
      for (int64_t i = 0; g.activate && i < rows * t.count; i++) g.activate(t.out + i * g.out_pitch, g.pitch);
      r += rows;
    };
    if (kSlidingRows == 2 && r + 1 < last && y + 1 < g.count[0] && top >= -1 && top + 3 <= g.size[0] && g.size[0] > 2) {
      fetch(2);
      const bool above = top == -1, below = top + 3 == g.size[0];
      if (above)  // then not below: there are more than two rows
        slide_channels<T, 2, 1, 4>(t);
      else
        below ? slide_channels<T, 2, 0, 3>(t) : slide_channels<T, 2, 0, 4>(t);
      finish(2);
      continue;
    }
    fetch(1);
    with_rows(top, g.size[0], [&](auto rows) { slide_channels<T, 1, rows.first, rows.last>(t); });
    finish(1);
  }
  if (t.past) stream_fence();
}

// ---- any kernel: `count` neighbouring pixels share each vector of weights ------------------------------------------------------
// Output pixels x .. x + count - 1 of row (n, y), channels c .. c + lanes - 1. checked: taps may fall on the border.
template <int count, bool checked, bool whole, class T>
FD_INLINE void depthwise_pixels(const Gather<T>& g, const T* image, int64_t y, int64_t x, T* out, int64_t out_step, int64_t c,
                                int lanes, bool past) {
  const auto read = [&](const T* p) __attribute__((always_inline)) { return whole ? load(p) : load_partial(p, lanes); };
  const int64_t step = g.step[1] * g.pitch;
  Vec<T> acc[count];
#pragma GCC unroll 8
  for (int i = 0; i < count; i++) acc[i] = Vec<T>(T(0));
  for (int64_t v = 0; v < g.ntaps[0]; v++) {
    const int64_t sy = y * g.step[0] + g.first_tap[0] + v * g.tap_step[0];
    if (uint64_t(sy) >= uint64_t(g.size[0])) continue;
    const T* row = image + sy * g.size[1] * g.pitch + c;
    const T* w = g.weights + (g.first_row + v * g.ntaps[1]) * g.pitch + c;
    for (int64_t h = 0; h < g.ntaps[1]; h++, w += g.pitch) {
      const int64_t sx = x * g.step[1] + g.first_tap[1] + h * g.tap_step[1];
      if (checked && uint64_t(sx) >= uint64_t(g.size[1])) continue;
      const T* p = row + sx * g.pitch;
      const Vec<T> weight = read(w);
#pragma GCC unroll 8
      for (int i = 0; i < count; i++, p += step) acc[i] = fma(read(p), weight, acc[i]);
    }
  }
  if (g.bias) {
    const Vec<T> bias = read(g.bias + c);
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) acc[i] += bias;
  }
  if (g.relu) {
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) acc[i] = max(Vec<T>(T(0)), acc[i]);  // NaN, as second operand, stays NaN
  }
  out += c;
  if (past) {
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) stream_store(out + i * out_step, acc[i]);
    return;  // no activation there
  }
#pragma GCC unroll 8
  for (int i = 0; i < count; i++) {
    if (whole)
      store(out + i * out_step, acc[i]);
    else
      store_partial(out + i * out_step, acc[i], lanes);
  }
  for (int i = 0; g.activate && i < count; i++) g.activate(out + i * out_step, lanes);
}

// Pixels of a row in [begin, end) have no tap outside.
template <class T>
Span inner_pixels(const Gather<T>& g) {
  const int64_t low = g.low(1), room = g.size[1] - 1 - g.high(1);
  const int64_t begin = min_of(g.count[1], low >= 0 ? int64_t(0) : ceil_div(-low, g.step[1]));
  return {begin, max_of(begin, min_of(g.count[1], room < 0 ? int64_t(0) : room / g.step[1] + 1))};
}

// fetch_out, fetch_source: what the row below writes, and what it is the first to read, comes from memory, and this thread computes
// that row next. With many pixels side by side, no machine fetches ahead by itself.
template <class T>
void depthwise_row(const Gather<T>& g, int64_t n, int64_t y, bool past, bool fetch_out, bool fetch_source) {
  constexpr int lanes = Vec<T>::size, line = 64 / int(sizeof(T));
  const T* image = g.source + n * g.size[0] * g.size[1] * g.pitch;
  const int64_t oy = g.out_begin[0] + y * g.out_step[0];
  T* out = g.out + ((n * g.out_size[0] + oy) * g.out_size[1] + g.out_begin[1]) * g.out_pitch;
  const int64_t step = g.out_step[1] * g.out_pitch;
  // Blocks of pixels, whose channels are the inner loop, so that memory is read in order; the last goes back where too few are
  // left.
  const int64_t below = y * g.step[0] + g.high(0) + 1, fresh = max_of<int64_t>(0, below);
  const int64_t fresh_end = fetch_source ? min_of(g.size[0], below + g.step[0]) : 0;
  const auto pixels = [&](auto number, auto checked, int64_t x) __attribute__((always_inline)) {
    constexpr int count = decltype(number){};
    constexpr bool at_border = decltype(checked){} == 1;
    const int64_t share = count * g.step[1] * lanes;  // of the source below, which is read in order, for each vector of channels
    const T* ahead = image + (fresh * g.size[1] + x * g.step[1]) * g.pitch;
    for (int64_t c = 0; c < g.pitch; c += lanes, ahead += share) {
      for (int64_t sy = fresh; sy < fresh_end; sy++)
        for (int64_t i = 0; i < share; i += line) __builtin_prefetch(ahead + (sy - fresh) * g.size[1] * g.pitch + i);
      for (int64_t i = 0; fetch_out && c % line == 0 && i < count; i++)
        __builtin_prefetch(out + g.out_step[0] * g.out_size[1] * g.out_pitch + (x + i) * step + c, 1);
      const int64_t used = min_of<int64_t>(lanes, g.pitch - c);
      if (used == lanes)
        depthwise_pixels<count, at_border, true>(g, image, y, x, out + x * step, step, c, lanes, past);
      else
        depthwise_pixels<count, at_border, false>(g, image, y, x, out + x * step, step, c, int(used), past);
    }
  };
  const Index<true> checked;
  const Index<false> inside;
  const Span inner = inner_pixels(g);
  int64_t x = 0;
  for (; x < inner.begin; x++) pixels(Index<1>(), checked, x);
  const bool eight = inner.end - x >= 8, four = inner.end - x >= 4;
  for (; eight && inner.end - x > 4; x += 8) pixels(Index<8>(), inside, min_of(x, inner.end - 8));
  for (; four && x < inner.end; x += 4) pixels(Index<4>(), inside, min_of(x, inner.end - 4));
  for (x = min_of(x, inner.end); x < g.count[1]; x++) pixels(Index<1>(), checked, x);
}

// grids: of pixels in the same rows, whose columns take turns.
template <class T>
void depthwise_gather(const Gather<T>* grids, int64_t ngrids, bool sliding) {
  const Gather<T>& g = grids[0];
  const int64_t work = g.count[1] * g.pitch * (g.ntaps[0] * g.ntaps[1] + 1) * ngrids;
  const bool past = g.streams();
  // From memory this saves half of the time and more; from the third level it would cost more than it gains. Not where steps leave
  // pixels out, nor for one of several threads behind the end of its rows.
  const int64_t numbers = g.batch * (g.size[0] * g.size[1] + g.out_size[0] * g.out_size[1]) * g.pitch;
  const bool fetches = numbers * int64_t(sizeof(T)) > kConvStreamBytes && g.step[0] <= g.ntaps[0] && g.step[1] <= g.ntaps[1];
  const bool alone = num_threads() == 1;
  parallel_for(g.batch * g.count[0], max_of<int64_t>(1, (1 << 19) / max_of<int64_t>(1, work)), [&](int64_t begin, int64_t end) {
    if (sliding) return slide_rows(g, begin, end);
    for (int64_t r = begin; r < end; r++) {
      const bool next = fetches && (alone || r + 1 < end) && (r + 1) % g.count[0] != 0;
      for (int64_t i = 0; i < ngrids; i++)
        depthwise_row(grids[i], r / g.count[0], r % g.count[0], past, next && !past, next && i == 0);
    }
    if (past) stream_fence();
  });
}

// ---- dw[tap][c] and db[c] ------------------------------------------------------------------------------------------------------
// 3x3 of step 1: a row of dy, and three rows of x of which those from `begin` to `end` are inside.
template <class T>
struct SlidingWeights {
  const T *dy, *x;  // x: the first row at the first tap of pixel 0, maybe outside
  int64_t pitch, row, low, width, count;
  T* sums;  // [tap or bias][channel]
};

template <class T, int begin, int end, bool whole>
__attribute__((noinline)) void slide_weights(const SlidingWeights<T>& t, int64_t c, int lanes) {
  const auto read = [&](const T* p) __attribute__((always_inline)) { return whole ? load(p) : load_partial(p, lanes); };
  const T *dy = t.dy + c, *x = t.x + c;
  const T *dy_ahead = t.dy + (t.pitch + c) * t.count, *x_ahead = t.x + 3 * t.row + c * t.width;  // the next rows, as in slide()
  Vec<T> acc[3][3], total(T(0));
#pragma GCC unroll 3
  for (int v = begin; v < end; v++) {
#pragma GCC unroll 3
    for (int h = 0; h < 3; h++) acc[v][h] = Vec<T>(T(0));
  }
  const auto move = [&]() __attribute__((always_inline)) {
    dy += t.pitch, x += t.pitch, dy_ahead += Vec<T>::size, x_ahead += Vec<T>::size;
  };
  const auto edge = [&](int64_t i) __attribute__((always_inline)) {  // a pixel with taps outside
    const Vec<T> g = read(dy);
    total += g;
#pragma GCC unroll 3
    for (int h = 0; h < 3; h++) {
      if (uint64_t(t.low + i + h) >= uint64_t(t.width)) continue;
#pragma GCC unroll 3
      for (int v = begin; v < end; v++) acc[v][h] = fma(g, read(x + v * t.row + h * t.pitch), acc[v][h]);
    }
    move();
  };
  // Columns of x under the taps of a pixel, the last of them fetched for it.
  Vec<T> p[3], q[3], s[3];
  const auto fetch = [&](int column, Vec<T>(&to)[3]) __attribute__((always_inline)) {
#pragma GCC unroll 3
    for (int v = begin; v < end; v++) to[v] = read(x + v * t.row + column * t.pitch);
  };
  const auto add = [&](const Vec<T>(&first)[3], const Vec<T>(&second)[3], Vec<T>(&third)[3]) __attribute__((always_inline)) {
    fetch(2, third);
    const Vec<T> g = read(dy);
    __builtin_prefetch(dy_ahead), __builtin_prefetch(x_ahead);
    total += g;
#pragma GCC unroll 3
    for (int v = begin; v < end; v++) {
      acc[v][0] = fma(g, first[v], acc[v][0]);
      acc[v][1] = fma(g, second[v], acc[v][1]);
      acc[v][2] = fma(g, third[v], acc[v][2]);
    }
    move();
  };
  const int64_t inner = min_of(t.count, max_of<int64_t>(0, -t.low)), inner_end = min_of(t.count, t.width - 2 - t.low);
  int64_t i = 0;
  for (; i < inner; i++) edge(i);
  if (i < inner_end) {
    fetch(0, p), fetch(1, q);
    for (; i + 3 <= inner_end; i += 3) add(p, q, s), add(q, s, p), add(s, p, q);
    for (; i < inner_end; i++) {
      add(p, q, s);
#pragma GCC unroll 3
      for (int v = begin; v < end; v++) p[v] = q[v], q[v] = s[v];
    }
  }
  for (; i < t.count; i++) edge(i);
  const auto note = [&](int64_t tap, Vec<T> v) __attribute__((always_inline)) {
    T* to = t.sums + tap * t.pitch + c;
    store_partial(to, load_partial(to, lanes) + v, lanes);
  };
#pragma GCC unroll 3
  for (int v = begin; v < end; v++) {
#pragma GCC unroll 3
    for (int h = 0; h < 3; h++) note(v * 3 + h, acc[v][h]);
  }
  note(9, total);
}
template <class T, int begin, int end>
void slide_weights(const SlidingWeights<T>& t, int64_t c, int lanes) {
  lanes == Vec<T>::size ? slide_weights<T, begin, end, true>(t, c, lanes) : slide_weights<T, begin, end, false>(t, c, lanes);
}

// Any kernel.
template <class T>
struct DepthwiseRow {
  const T *dy, *x;  // row of dy; row of x at the first tap of the row of the kernel, maybe before its begin
  int64_t pitch, x_step, tap_step;
  int used;  // channels

  FD_INLINE Vec<T> read(const T* p) const { return used == Vec<T>::size ? load(p) : load_partial(p, used); }
  // acc[h] += dy[i] * x[i, tap h] for pixels [begin, end) and `count` taps from `tap` on, all inside; dy is read once.
  template <int count>
  FD_INLINE void add(int64_t tap, int64_t begin, int64_t end, Vec<T> (&acc)[count]) const {
    Vec<T> even[count], odd[count];
#pragma GCC unroll 4
    for (int h = 0; h < count; h++) even[h] = acc[h], odd[h] = Vec<T>(T(0));
    const T *g = dy + begin * pitch, *q = x + begin * x_step + tap * tap_step;
    int64_t i = begin;
    for (; i + 2 <= end; i += 2, g += 2 * pitch, q += 2 * x_step) {
      const Vec<T> g0 = read(g), g1 = read(g + pitch);
#pragma GCC unroll 4
      for (int h = 0; h < count; h++) {
        even[h] = fma(g0, read(q + h * tap_step), even[h]);
        odd[h] = fma(g1, read(q + x_step + h * tap_step), odd[h]);
      }
    }
    if (i < end) {
      const Vec<T> g0 = read(g);
#pragma GCC unroll 4
      for (int h = 0; h < count; h++) even[h] = fma(g0, read(q + h * tap_step), even[h]);
    }
#pragma GCC unroll 4
    for (int h = 0; h < count; h++) acc[h] = even[h] + odd[h];
  }
  // The same where taps differ in the pixels for which they are inside: the common ones together, the rest tap by tap.
  template <int count>
  FD_INLINE void add_taps(const ConvShape& s, int64_t tap, T* sums) const {
    Vec<T> acc[count];
    Span spans[count], common = {0, s.out[1]};
    for (int h = 0; h < count; h++) {
      acc[h] = Vec<T>(T(0));
      spans[h] = inside((tap + h) * s.dilation[1] - s.padding[1], s.stride[1], s.in[1], 0, s.out[1]);
      common = {max_of(common.begin, spans[h].begin), min_of(common.end, spans[h].end)};
    }
    if (common.begin >= common.end) common = {s.out[1], s.out[1]};
    add<count>(tap, common.begin, common.end, acc);
    for (int h = 0; h < count; h++) {
      Vec<T> one[1] = {acc[h]};
      add<1>(tap + h, spans[h].begin, min_of(spans[h].end, common.begin), one);
      add<1>(tap + h, max_of(spans[h].begin, common.end), spans[h].end, one);
      T* to = sums + (tap + h) * pitch;
      store_partial(to, load_partial(to, used) + one[0], used);
    }
  }
};

// Rows [begin, end) of dy, counted over the batch; channels [c0, c1). Channels are the inner loop, so that memory is read in order.
template <class T>
void depthwise_weight_rows(const WeightGrad<T>& w, int64_t begin, int64_t end, int64_t c0, int64_t c1, T* sums) {
  constexpr int lanes = Vec<T>::size;
  const ConvShape& s = w.s;
  const int64_t pitch = s.in_channels, taps = s.kernel[1];
  for (int64_t tap = 0; tap <= s.taps(); tap++) {
    for (int64_t c = c0; c < c1; c++) sums[tap * pitch + c] = T(0);
  }
  for (int64_t r = begin; r < end; r++) {
    const int64_t n = r / s.out[0], y = r % s.out[0];
    if (s.slides()) {
      const int64_t top = y - s.padding[0], row = s.in[1] * pitch;
      const T* first = w.x + (n * s.in[0] + top) * row - s.padding[1] * pitch;
      const SlidingWeights<T> t = {w.dy + r * s.out[1] * pitch, first, pitch, row, -s.padding[1], s.in[1], s.out[1], sums};
      with_rows(top, s.in[0], [&](auto rows) {
        for (int64_t c = c0; c < c1; c += lanes) slide_weights<T, rows.first, rows.last>(t, c, int(min_of<int64_t>(lanes, c1 - c)));
      });
      continue;
    }
    for (int64_t c = c0; c < c1; c += lanes) {
      DepthwiseRow<T> row = {w.dy + r * s.out[1] * pitch + c,    nullptr, pitch, s.stride[1] * pitch, s.dilation[1] * pitch,
                             int(min_of<int64_t>(lanes, c1 - c))};
      for (int64_t v = 0; v < s.kernel[0]; v++) {
        const int64_t iy = y * s.stride[0] + v * s.dilation[0] - s.padding[0];
        if (uint64_t(iy) >= uint64_t(s.in[0])) continue;
        row.x = w.x + ((n * s.in[0] + iy) * s.in[1] - s.padding[1]) * pitch + c;
        T* to = sums + v * taps * pitch + c;
        int64_t h = 0;
        for (; h + 3 <= taps; h += 3) row.template add_taps<3>(s, h, to);
        for (; h < taps; h++) row.template add_taps<1>(s, h, to);
      }
      Vec<T> total(T(0));
      for (int64_t i = 0; i < s.out[1]; i++) total += row.read(row.dy + i * pitch);
      T* to = sums + s.taps() * pitch + c;
      store_partial(to, load_partial(to, row.used) + total, row.used);
    }
  }
}

template <class T>
void depthwise_weight_grad(const WeightGrad<T>& w) {
  constexpr int lanes = Vec<T>::size;
  const ConvShape& s = w.s;
  const int64_t taps = s.taps(), part = (taps + 1) * s.in_channels;
  const int64_t least = ceil_div(kConvPieceMacs / 4, max_of<int64_t>(1, w.rows_per_split * s.out[1] * taps));
  const ColumnBlocks blocks(w.splits, max_of<int64_t>(1, s.in_channels), 16 * lanes, max_of<int64_t>(1, least), num_threads());
  parallel_chunks(w.splits * blocks.count, [&](int64_t chunk) {
    const int64_t split = chunk / blocks.count, b = chunk % blocks.count, begin = split * w.rows_per_split;
    const int64_t c0 = blocks.begin(b), c1 = min_of(s.in_channels, blocks.begin(b + 1));
    piece_work(min_of(s.batch * s.out[0] - begin, w.rows_per_split) * s.out[1] * taps * (c1 - c0), kConvPieceMacs / 4);
    depthwise_weight_rows(w, begin, min_of(s.batch * s.out[0], begin + w.rows_per_split), c0, c1, w.sums + split * part);
  });
  for (int64_t row = 0; row <= taps; row++) {
    for (int64_t c = 0; c < s.in_channels; c += lanes) {
      const int used = int(min_of<int64_t>(lanes, s.in_channels - c));
      Vec<T> total(T(0));
      for (int64_t split = 0; split < w.splits; split++)
        total += load_partial(w.sums + split * part + row * s.in_channels + c, used);
      for (int i = 0; i < used; i++) (row < taps ? w.dw[(c + i) * taps + row] : w.db[c + i]) = total[i];
    }
  }
}

}  // namespace
}  // namespace fastdl
