// Sum over taps: what conv2d and its gradient by the input have in common. Output pixel (y, x) of a grid is
//
//   out[y][x][:] = sum over taps (v, h) of source[y * step + v][x * step + h][:] * weights[v, h]      (border: 0)
//
// For conv2d the offsets are kernel position * dilation - padding. For the gradient by the input with stride s, input pixels of the
// same remainder modulo s see the same taps of the kernel; each remainder is one such grid over dy with step 1, so no zeros are
// inserted.
#pragma once
#include "cpu/isa/activate.h"
#include "cpu/isa/conv_pack.h"

namespace fastdl {
namespace {

template <class T>
struct Gather {
  int64_t batch, groups;
  // source pixels (batch, size[0], size[1]), `pitch` elements apart
  const T* source;
  int64_t size[2], pitch, group_source;
  int64_t step[2], ntaps[2];
  const int64_t* offset[2];
  int64_t run;  // elements per tap
  // output pixels (batch, out_size[0], out_size[1]); the grid is every out_step-th pixel from out_begin, count of them
  T* out;
  int64_t out_size[2], out_pitch, out_begin[2], out_step[2], count[2];
  int64_t columns;  // per group
  const T* zeros;
  const T* weights;  // panels (or rows of channels if depthwise)
  int64_t weight_rows, first_row, weight_group;
  const T* bias;
  bool relu;
  ActivateFn<T> activate;  // other activations, or null

  int64_t pixels() const { return batch * count[0] * count[1]; }
};

// Where the pixels of a tile read and write.
template <class T>
struct PixelTile {
  int64_t y[kConvRows], x[kConvRows], base[kConvRows];  // source position of offset (0, 0), maybe outside; its element index
  T* out[kConvRows];
};

template <class T>
FD_INLINE void locate_pixels(const Gather<T>& g, int64_t first, int64_t rows, PixelTile<T>& t) {
  int64_t x = first % g.count[1], y = first / g.count[1] % g.count[0], n = first / g.count[1] / g.count[0];
  for (int64_t i = 0; i < rows; i++) {
    t.y[i] = y * g.step[0];
    t.x[i] = x * g.step[1];
    t.base[i] = ((n * g.size[0] + t.y[i]) * g.size[1] + t.x[i]) * g.pitch;
    const int64_t oy = g.out_begin[0] + y * g.out_step[0], ox = g.out_begin[1] + x * g.out_step[1];
    t.out[i] = g.out + ((n * g.out_size[0] + oy) * g.out_size[1] + ox) * g.out_pitch;
    if (++x == g.count[1]) {
      x = 0;
      if (++y == g.count[0]) y = 0, n++;
    }
  }
}

constexpr int64_t kTapsAtOnce = 64;  // pointers for so many taps lie on the stack

// Pointers to the source rows of taps [tap0, tap1) for each pixel of the tile.
template <class T>
FD_INLINE void point_rows(const Gather<T>& g, const PixelTile<T>& t, int64_t rows, int64_t group, int64_t tap0, int64_t tap1,
                          const T** table) {
  const T* source = g.source + group * g.group_source;
  for (int64_t tap = tap0; tap < tap1; tap++, table += kConvRows) {
    const int64_t v = g.offset[0][tap / g.ntaps[1]], h = g.offset[1][tap % g.ntaps[1]];
    const int64_t shift = (v * g.size[1] + h) * g.pitch;
    for (int64_t i = 0; i < rows; i++) {
      const bool inside = (uint64_t(t.y[i] + v) < uint64_t(g.size[0])) & (uint64_t(t.x[i] + h) < uint64_t(g.size[1]));
      table[i] = inside ? source + (t.base[i] + shift) : g.zeros;
    }
  }
}

// Pixels [m0, m1) by panels [p0, p1) of one group.
template <class T>
void gather_chunk(const Gather<T>& g, int64_t group, int64_t m0, int64_t m1, int64_t p0, int64_t p1) {
  const Panels<T> panels(g.columns, 2);
  const int64_t taps = g.ntaps[0] * g.ntaps[1];
  const T* table[kTapsAtOnce * kConvRows];
  PixelTile<T> pixels;
  T* c[kConvRows];
  ConvTile<T> t;
  t.rows = table;
  t.row_step = kConvRows;
  t.a_segment = 0;
  t.a_k = 1;
  t.k = g.run;
  t.c = c;
  const Blocks tiles(m1 - m0, kConvRows);
  for (int64_t block = 0; block < tiles.count; block++) {
    const int64_t first = m0 + tiles.begin(block), rows = m0 + tiles.begin(block + 1) - first;
    locate_pixels(g, first, rows, pixels);
    for (int64_t tap = 0; tap < taps; tap += kTapsAtOnce) {
      t.segments = min_of(taps - tap, kTapsAtOnce);
      point_rows(g, pixels, rows, group, tap, tap + t.segments, table);
      const bool last = tap + t.segments == taps;
      t.accumulate = tap > 0;
      t.relu = last && g.relu;
      for (int64_t p = p0; p < p1; p++) {
        const int64_t column = group * g.columns + panels.begin(p), width = panels.width(p);
        for (int64_t i = 0; i < rows; i++) c[i] = pixels.out[i] + column;
        t.b = g.weights + group * g.weight_group + panels.begin(p) * g.weight_rows + (g.first_row + tap * g.run) * width;
        t.b_k = width;
        t.b_segment = g.run * width;
        t.tail = panels.tail(p);
        t.bias = last && g.bias ? g.bias + column : nullptr;
        run_tile(panels.vectors(p), rows, t);
        if (last && g.activate) {
          for (int64_t i = 0; i < rows; i++) g.activate(c[i], panels.used(p));
        }
      }
    }
  }
}

// Chunks are blocks of pixels by as many panels as stay in the L2 cache; pixels are the inner index, so that threads share panels.
template <class T>
void gather(const Gather<T>& g) {
  const int64_t pixels = g.pixels();
  if (pixels == 0 || g.columns == 0) return;
  const Panels<T> panels(g.columns, 2);
  const int64_t depth = g.ntaps[0] * g.ntaps[1] * g.run;
  const int64_t panel_bytes = max_of<int64_t>(1, depth * panels.most * Vec<T>::size * int64_t(sizeof(T)));
  const Blocks across(panels.count, max_of<int64_t>(1, (int64_t(1) << 20) / panel_bytes));
  const int64_t tiles = ceil_div<int64_t>(pixels, kConvRows);
  const int64_t work = kConvRows * (depth + 8) * ceil_div(g.columns, across.count);  // multiply-adds in a tile, per chunk
  const int64_t fair = ceil_div<int64_t>(tiles * across.count * g.groups, 64), least = ceil_div<int64_t>(1 << 19, work);
  const Blocks down(pixels, max_of(fair, least) * kConvRows);
  parallel_chunks(down.count * across.count * g.groups, [&](int64_t chunk) {
    const int64_t m = chunk % down.count, p = chunk / down.count % across.count, group = chunk / down.count / across.count;
    gather_chunk(g, group, down.begin(m), down.begin(m + 1), across.begin(p), across.begin(p + 1));
  });
}

// ---- depthwise: vectors along channels, `count` neighbouring pixels share each vector of weights --------------------------------
// Output pixels x .. x + count - 1 of row (n, y), channels c .. c + lanes - 1. checked: taps may fall on the border.
template <int count, bool checked, class T>
FD_INLINE void depthwise_pixels(const Gather<T>& g, const T* image, int64_t y, int64_t x, T* out, int64_t out_step, int64_t c,
                                int lanes) {
  const bool whole = lanes == Vec<T>::size;
  const int64_t step = g.step[1] * g.pitch;
  Vec<T> acc[count];
#pragma GCC unroll 8
  for (int i = 0; i < count; i++) acc[i] = Vec<T>(T(0));
  for (int64_t v = 0; v < g.ntaps[0]; v++) {
    const int64_t sy = y * g.step[0] + g.offset[0][v];
    if (uint64_t(sy) >= uint64_t(g.size[0])) continue;
    const T* row = image + sy * g.size[1] * g.pitch + c;
    const T* w = g.weights + (g.first_row + v * g.ntaps[1]) * g.pitch + c;
    for (int64_t h = 0; h < g.ntaps[1]; h++, w += g.pitch) {
      const int64_t sx = x * g.step[1] + g.offset[1][h];
      if (checked && uint64_t(sx) >= uint64_t(g.size[1])) continue;
      const T* p = row + sx * g.pitch;
      if (whole) {
        const Vec<T> weight = load(w);
#pragma GCC unroll 8
        for (int i = 0; i < count; i++) acc[i] = fma(load(p + i * step), weight, acc[i]);
      } else {
        const Vec<T> weight = load_partial(w, lanes);
#pragma GCC unroll 8
        for (int i = 0; i < count; i++) acc[i] = fma(load_partial(p + i * step, lanes), weight, acc[i]);
      }
    }
  }
  Vec<T> bias(T(0));
  if (g.bias) bias = load_partial(g.bias + c, lanes);
#pragma GCC unroll 8
  for (int i = 0; i < count; i++) {
    Vec<T> r = g.bias ? acc[i] + bias : acc[i];
    if (g.relu) r = max(Vec<T>(T(0)), r);
    if (whole)
      store(out + i * out_step + c, r);
    else
      store_partial(out + i * out_step + c, r, lanes);
    if (g.activate) g.activate(out + i * out_step + c, lanes);
  }
}

template <class T>
void depthwise_row(const Gather<T>& g, int64_t n, int64_t y, int64_t inner_begin, int64_t inner_end) {
  constexpr int lanes = Vec<T>::size;
  const T* image = g.source + n * g.size[0] * g.size[1] * g.pitch;
  const int64_t oy = g.out_begin[0] + y * g.out_step[0];
  T* out = g.out + ((n * g.out_size[0] + oy) * g.out_size[1] + g.out_begin[1]) * g.out_pitch;
  const int64_t step = g.out_step[1] * g.out_pitch;
  for (int64_t c = 0; c < g.pitch; c += lanes) {
    const int used = int(min_of<int64_t>(lanes, g.pitch - c));
    int64_t x = 0;
    for (; x < inner_begin; x++) depthwise_pixels<1, true>(g, image, y, x, out + x * step, step, c, used);
    for (; x + 8 <= inner_end; x += 8) depthwise_pixels<8, false>(g, image, y, x, out + x * step, step, c, used);
    for (; x + 4 <= inner_end; x += 4) depthwise_pixels<4, false>(g, image, y, x, out + x * step, step, c, used);
    for (; x < g.count[1]; x++) depthwise_pixels<1, true>(g, image, y, x, out + x * step, step, c, used);
  }
}

template <class T>
void depthwise_gather(const Gather<T>& g) {
  if (g.pixels() == 0) return;
  int64_t low = 0, high = 0;  // extreme offsets: pixels in [inner_begin, inner_end) have no tap outside
  for (int64_t h = 0; h < g.ntaps[1]; h++) {
    low = h == 0 ? g.offset[1][h] : min_of(low, g.offset[1][h]);
    high = h == 0 ? g.offset[1][h] : max_of(high, g.offset[1][h]);
  }
  const int64_t inner_begin = min_of(g.count[1], low >= 0 ? int64_t(0) : ceil_div(-low, g.step[1]));
  const int64_t room = g.size[1] - 1 - high;
  const int64_t inner_end = max_of(inner_begin, min_of(g.count[1], room < 0 ? int64_t(0) : room / g.step[1] + 1));
  const int64_t work = g.count[1] * g.pitch * (g.ntaps[0] * g.ntaps[1] + 1);
  parallel_for(g.batch * g.count[0], max_of<int64_t>(1, (1 << 17) / max_of<int64_t>(1, work)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) depthwise_row(g, r / g.count[0], r % g.count[0], inner_begin, inner_end);
  });
}

}  // namespace
}  // namespace fastdl
