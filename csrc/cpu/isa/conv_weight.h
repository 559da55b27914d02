// Gradient of conv2d by its weights and bias: dw[tap][ci][co] = sum over pixels of x[pixel moved by tap][ci] * dy[pixel][co], the
// product of a transposed matrix with another, by the same register tile: rows are input channels (or, when there are few, pairs of
// tap and channel), columns output channels, and k runs along a row of pixels. Taps on the border shorten that run.
//
// Pixels are split into parts that depend on sizes only; each part sums in scratch of its own, [tap][ci][co] and one row for db.
// finish_weights() adds the parts in order and brings the result to (O, C / groups, KH, KW).
#pragma once
#include "cpu/isa/conv_pack.h"

namespace fastdl {
namespace {

#if FD_VEC_BYTES == 64
constexpr int kConvWeightRows = 10;  // k moves by any stride here: one register more than in the forward direction
#else
constexpr int kConvWeightRows = kConvRows;
#endif

template <class T>
struct WeightGrad {
  ConvShape s;
  int64_t splits, rows_per_split;
  const T *x, *dy;
  int64_t x_size[2], padding[2];  // of x as stored, maybe padded already
  int64_t dy_pitch;
  bool pairs;  // rows are (tap, channel) pairs
  T* sums;
  T *dw, *db;

  int64_t rows() const { return s.group_in() * s.taps() + 1; }  // the last row is db
  Panels<T> panels() const { return Panels<T>(s.group_out(), dy_pitch >= 2 * Vec<T>::size ? 2 : 1); }
  // dy is read in whole vectors, so a panel at its right edge starts further left; the columns before its own are not used.
  int64_t first_column(int64_t group, int64_t p) const {
    return min_of(group * s.group_out() + panels().begin(p), dy_pitch - panels().width(p));
  }
  T* panel_sums(int64_t split, int64_t group, int64_t p) const {
    return sums + ((split * s.groups + group) * panels().whole() + panels().begin(p)) * rows();
  }
};

// Output positions of one axis for which tap k reads inside x: [begin, end).
struct Span {
  int64_t begin, end;
};
FD_INLINE Span inside(int64_t shift, int64_t stride, int64_t size, int64_t begin, int64_t end) {
  const int64_t room = size - 1 - shift;  // position * stride <= room
  const int64_t low = shift >= 0 ? 0 : ceil_div(-shift, stride), high = room < 0 ? 0 : room / stride + 1;
  const Span r = {max_of(begin, low), min_of(end, high)};
  return r.begin < r.end ? r : Span{begin, begin};
}

// Rows of output pixels [y0, y1) of image n, for one panel. fresh: sums are not yet set.
template <class T>
void weight_block(const WeightGrad<T>& w, int64_t group, int64_t p, int64_t n, int64_t y0, int64_t y1, T* sums, bool fresh) {
  constexpr int lanes = Vec<T>::size;
  const ConvShape& s = w.s;
  const Panels<T> panels = w.panels();
  const int64_t width = panels.width(p), channels = s.group_in(), pitch = s.in_channels, out_row = s.out[1] * w.dy_pitch;
  const T* x = w.x + n * w.x_size[0] * w.x_size[1] * pitch + group * channels;
  const T* dy = w.dy + n * s.out[0] * out_row + w.first_column(group, p);
  const T* rows[kConvRows];
  T* c[kConvRows];
  ConvTile<T> t;
  t.rows = rows;
  t.row_step = 0;
  t.a_segment = s.stride[0] * w.x_size[1] * pitch;
  t.a_k = s.stride[1] * pitch;
  t.b_k = w.dy_pitch;
  t.b_segment = out_row;
  t.c = c;
  t.tail = lanes;
  t.accumulate = !fresh;
  t.relu = false;
  t.bias = nullptr;
  if (w.pairs) {
    t.segments = y1 - y0;
    t.k = s.out[1];
    t.b = dy + y0 * out_row;
    const Blocks tiles(w.rows() - 1, kConvWeightRows);
    for (int64_t b = 0; b < tiles.count; b++) {
      const int64_t first = tiles.begin(b), count = tiles.begin(b + 1) - first;
      for (int64_t i = 0; i < count; i++) {
        const int64_t tap = (first + i) / channels, channel = (first + i) % channels;
        const int64_t iy = y0 * s.stride[0] + tap / s.kernel[1] * s.dilation[0], ix = tap % s.kernel[1] * s.dilation[1];
        rows[i] = x + (iy * w.x_size[1] + ix) * pitch + channel;
        c[i] = sums + (first + i) * width;
      }
      run_tile(panels.vectors(p), count, t);
    }
  } else {
    const Blocks tiles(channels, kConvWeightRows);
    for (int64_t tap = 0; tap < s.taps(); tap++) {
      const int64_t shift_y = tap / s.kernel[1] * s.dilation[0] - w.padding[0];
      const int64_t shift_x = tap % s.kernel[1] * s.dilation[1] - w.padding[1];
      const Span ys = inside(shift_y, s.stride[0], w.x_size[0], y0, y1),
                 xs = inside(shift_x, s.stride[1], w.x_size[1], 0, s.out[1]);
      t.segments = xs.begin < xs.end ? ys.end - ys.begin : 0;
      if (t.segments == 0 && !fresh) continue;
      t.k = xs.end - xs.begin;
      t.b = dy + ys.begin * out_row + xs.begin * w.dy_pitch;
      const int64_t start = ((ys.begin * s.stride[0] + shift_y) * w.x_size[1] + xs.begin * s.stride[1] + shift_x) * pitch;
      for (int64_t b = 0; b < tiles.count; b++) {
        const int64_t first = tiles.begin(b), count = tiles.begin(b + 1) - first;
        for (int64_t i = 0; i < count; i++) {
          rows[i] = t.segments ? x + (start + first + i) : x;
          c[i] = sums + (tap * channels + first + i) * width;
        }
        run_tile(panels.vectors(p), count, t);
      }
    }
  }
  // db: sums of a row of pixels, added to the sum of rows
  T* total = sums + (w.rows() - 1) * width;
  for (int64_t j = 0; j < width; j += lanes) {
    Vec<T> all = fresh ? Vec<T>(T(0)) : load(total + j);
    for (int64_t y = y0; y < y1; y++) {
      const T* row = dy + y * out_row + j;
      Vec<T> even(T(0)), odd(T(0));
      int64_t i = 0;
      for (; i + 2 <= s.out[1]; i += 2) {
        even += load(row + i * w.dy_pitch);
        odd += load(row + (i + 1) * w.dy_pitch);
      }
      if (i < s.out[1]) even += load(row + i * w.dy_pitch);
      all += even + odd;
    }
    store(total + j, all);
  }
}

// One part of the pixels, one panel: in blocks of rows whose x and dy stay in the L2 cache.
template <class T>
void weight_chunk(const WeightGrad<T>& w, int64_t split, int64_t group, int64_t p) {
  const ConvShape& s = w.s;
  T* sums = w.panel_sums(split, group, p);
  const int64_t width = w.panels().width(p), total = s.batch * s.out[0];
  const int64_t begin = split * w.rows_per_split, end = min_of(total, begin + w.rows_per_split);
  const int64_t row_bytes = (s.out[1] * width + s.stride[0] * w.x_size[1] * s.group_in()) * int64_t(sizeof(T));
  const int64_t most = max_of<int64_t>(1, (192 << 10) / max_of<int64_t>(1, row_bytes));
  bool fresh = true;
  for (int64_t r = begin; r < end;) {
    const int64_t n = r / s.out[0], y = r % s.out[0], next = min_of(min_of(end, r + most), (n + 1) * s.out[0]);
    weight_block(w, group, p, n, y, y + next - r, sums, fresh);
    fresh = false;
    r = next;
  }
  if (fresh)
    for (int64_t i = 0; i < w.rows() * width; i++) sums[i] = T(0);
}

// dw[o][ci][tap] for `lanes` output channels and input channels [r0, r1): the parts added, then squares transposed.
template <class T>
void finish_block(const WeightGrad<T>& w, int64_t group, int64_t p, int64_t half, int64_t r0, int64_t r1) {
  constexpr int lanes = Vec<T>::size;
  const Panels<T> panels = w.panels();
  const int64_t width = panels.width(p), channels = w.s.group_in(), taps = w.s.taps();
  const int64_t own = group * w.s.group_out() + panels.begin(p), column = w.first_column(group, p) + half * lanes;
  const int64_t skip = max_of<int64_t>(0, own - column), last = min_of<int64_t>(lanes, own + panels.used(p) - column);
  const T* sums = w.panel_sums(0, group, p) + half * lanes;
  const int64_t part = w.s.groups * panels.whole() * w.rows();
  int64_t channel = r0, tap = 0;
  for (int64_t j = r0 * taps; j < r1 * taps; j += lanes) {
    const int n = int(min_of<int64_t>(lanes, r1 * taps - j));
    Vec<T> square[lanes];
    for (int i = 0; i < lanes; i++) {
      square[i] = Vec<T>(T(0));
      if (i >= n) continue;
      const T* from = sums + (tap * channels + channel) * width;
      for (int64_t split = 0; split < w.splits; split++) square[i] += load(from + split * part);
      if (++tap == taps) tap = 0, channel++;
    }
    transpose_rows(square);
    for (int64_t i = skip; i < last; i++) store_partial(w.dw + (column + i) * channels * taps + j, square[i], n);
  }
  if (r0 == 0) {
    Vec<T> all(T(0));
    for (int64_t split = 0; split < w.splits; split++) all += load(sums + split * part + (w.rows() - 1) * width);
    T values[lanes];
    store(values, all);
    for (int64_t i = skip; i < last; i++) w.db[column + i] = values[i];
  }
}

template <class T>
void weight_grad(const WeightGrad<T>& w) {
  const Panels<T> panels = w.panels();
  parallel_chunks(w.splits * w.s.groups * panels.count, [&](int64_t chunk) {
    const int64_t p = chunk % panels.count, group = chunk / panels.count % w.s.groups, split = chunk / panels.count / w.s.groups;
    weight_chunk(w, split, group, p);
  });
  const int64_t channels = w.s.group_in(), slice = max_of<int64_t>(1, 1024 / w.s.taps());
  const int64_t slices = max_of<int64_t>(1, ceil_div(channels, slice)), vectors = panels.whole() / Vec<T>::size;
  parallel_for(w.s.groups * vectors * slices, 4, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; c++) {
      const int64_t s = c % slices, v = c / slices % vectors, group = c / slices / vectors;
      finish_block(w, group, v / panels.most, v % panels.most, s * slice, min_of(channels, (s + 1) * slice));
    }
  });
}

// ---- depthwise: dw[tap][c] and db[c], vectors along channels ------------------------------------------------------------------
template <class T>
void depthwise_weight_rows(const WeightGrad<T>& w, int64_t begin, int64_t end, int64_t c, int used, T* sums) {
  const ConvShape& s = w.s;
  const int64_t pitch = s.in_channels, step = s.stride[1] * pitch;
  const auto read = [&](const T* p) { return used == Vec<T>::size ? load(p) : load_partial(p, used); };
  for (int64_t tap = 0; tap <= s.taps(); tap++) store_partial(sums + tap * pitch + c, Vec<T>(T(0)), used);
  const auto add = [&](int64_t row, Vec<T> v) {
    T* to = sums + row * pitch + c;
    store_partial(to, load_partial(to, used) + v, used);
  };
  for (int64_t r = begin; r < end; r++) {
    const int64_t n = r / s.out[0], y = r % s.out[0];
    const T* dy = w.dy + r * s.out[1] * pitch + c;
    for (int64_t v = 0; v < s.kernel[0]; v++) {
      const int64_t iy = y * s.stride[0] + v * s.dilation[0] - s.padding[0];
      if (uint64_t(iy) >= uint64_t(s.in[0])) continue;
      const T* x = w.x + (n * s.in[0] + iy) * s.in[1] * pitch + c;
      for (int64_t h = 0; h < s.kernel[1]; h++) {
        const int64_t shift = h * s.dilation[1] - s.padding[1];
        const Span xs = inside(shift, s.stride[1], s.in[1], 0, s.out[1]);
        const T *g = dy + xs.begin * pitch, *q = x + (xs.begin * s.stride[1] + shift) * pitch;
        Vec<T> a0(T(0)), a1(T(0)), a2(T(0)), a3(T(0));
        int64_t i = xs.begin;
        for (; i + 4 <= xs.end; i += 4, g += 4 * pitch, q += 4 * step) {
          a0 = fma(read(g), read(q), a0);
          a1 = fma(read(g + pitch), read(q + step), a1);
          a2 = fma(read(g + 2 * pitch), read(q + 2 * step), a2);
          a3 = fma(read(g + 3 * pitch), read(q + 3 * step), a3);
        }
        for (; i < xs.end; i++, g += pitch, q += step) a0 = fma(read(g), read(q), a0);
        add(v * s.kernel[1] + h, (a0 + a1) + (a2 + a3));
      }
    }
    Vec<T> total(T(0));
    for (int64_t i = 0; i < s.out[1]; i++) total += read(dy + i * pitch);
    add(s.taps(), total);
  }
}

template <class T>
void depthwise_weight_grad(const WeightGrad<T>& w) {
  constexpr int lanes = Vec<T>::size;
  const ConvShape& s = w.s;
  const int64_t blocks = ceil_div<int64_t>(s.in_channels, lanes), taps = s.taps(), part = (taps + 1) * s.in_channels;
  parallel_chunks(w.splits * blocks, [&](int64_t chunk) {
    const int64_t split = chunk / blocks, c = chunk % blocks * lanes, begin = split * w.rows_per_split;
    const int used = int(min_of<int64_t>(lanes, s.in_channels - c));
    depthwise_weight_rows(w, begin, min_of(s.batch * s.out[0], begin + w.rows_per_split), c, used, w.sums + split * part);
  });
  for (int64_t row = 0; row <= taps; row++) {
    for (int64_t c = 0; c < s.in_channels; c++) {
      T total(0);
      for (int64_t split = 0; split < w.splits; split++) total += w.sums[split * part + row * s.in_channels + c];
      (row < taps ? w.dw[c * taps + row] : w.db[c]) = total;
    }
  }
}

}  // namespace
}  // namespace fastdl
