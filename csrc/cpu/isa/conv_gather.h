// Sum over taps: what conv2d and its gradient by the input have in common. Output pixel (y, x) of a grid is
//
//   out[y][x][:] = sum over taps (v, h) of source[y * step + v][x * step + h][:] * weights[v, h]      (border: 0)
//
// For conv2d the taps v, h are kernel position * dilation - padding. For the gradient by the input with stride s, input pixels of
// the same remainder modulo s see the same taps of the kernel; each remainder is one such grid over dy with step 1, so no zeros are
// inserted.
#pragma once
#include "core/partition.h"
#include "cpu/isa/activate.h"
#include "cpu/isa/conv_pack.h"
#include "cpu/isa/past_caches.h"

namespace fastdl {
namespace {

// A result of this size is stored past the caches: with its source and what a training step reads in between it does not stay in a
// core's share of the third level, and missing stores read each line before they write it. Measured with one thread: 19 GB/s at any
// size, where ordinary stores reach 20 within that share and 5.5 beyond.
constexpr int64_t kConvStreamBytes = 8 << 20;

template <class T>
struct Gather {
  int64_t batch, groups;
  // source pixels (batch, size[0], size[1]), `pitch` elements apart
  const T* source;
  int64_t size[2], pitch, group_source;
  int64_t step[2];
  int64_t ntaps[2], first_tap[2], tap_step[2];  // v, h = first_tap + i * tap_step
  int64_t run;                                  // elements per tap
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
  bool triple = false;     // of the panels of weights, if packed already
  int parts = 0;           // on tiles: bfloat16 numbers that make up an operand; 0: as the setting of precision asks

  // Whether whole vectors of the result go past the caches; not if an activation reads them again.
  bool streams() const {
    const int64_t line = 64 / int64_t(sizeof(T)), all = batch * out_size[0] * out_size[1] * out_pitch;
    return Vec<T>::size == line && all >= kConvStreamBytes / int64_t(sizeof(T)) && out_pitch % line == 0 && !activate &&
           reinterpret_cast<uintptr_t>(out) % 64 == 0;
  }
  int64_t pixels() const { return batch * count[0] * count[1]; }
  // Extreme taps of an axis.
  int64_t low(int axis) const { return first_tap[axis] + min_of<int64_t>(0, (ntaps[axis] - 1) * tap_step[axis]); }
  int64_t high(int axis) const { return first_tap[axis] + max_of<int64_t>(0, (ntaps[axis] - 1) * tap_step[axis]); }
};

// The pixels of a tile: where they read their first tap (position and element index, maybe outside) and where they write.
template <class T>
struct PixelTile {
  int64_t y[kConvRows], x[kConvRows], index[kConvRows];
  T* out[kConvRows];
  bool inner;  // no tap of any pixel is outside
};

// Walks the grid in row-major order.
template <class T>
struct PixelCursor {
  const Gather<T>& g;
  int64_t n, y, x, reach[2];
  PixelCursor(const Gather<T>& g, int64_t pixel)
      : g(g), n(pixel / g.count[1] / g.count[0]), y(pixel / g.count[1] % g.count[0]), x(pixel % g.count[1]) {
    for (int axis = 0; axis < 2; axis++) reach[axis] = g.high(axis) - g.low(axis);
  }
  FD_INLINE bool inside(int axis, int64_t first) const {  // first: position of the first tap
    const int64_t lowest = first + (g.tap_step[axis] < 0 ? -reach[axis] : 0);
    return lowest >= 0 && lowest + reach[axis] < g.size[axis];
  }
  FD_INLINE void take(int64_t rows, PixelTile<T>& t) {
    t.inner = true;
    for (int64_t i = 0; i < rows;) {
      const int64_t end = min_of(rows, i + g.count[1] - x);  // pixels i .. end - 1 are neighbours in a row
      const int64_t sy = y * g.step[0] + g.first_tap[0], sx = x * g.step[1] + g.first_tap[1];
      int64_t index = ((n * g.size[0] + sy) * g.size[1] + sx) * g.pitch;
      const int64_t oy = g.out_begin[0] + y * g.out_step[0], ox = g.out_begin[1] + x * g.out_step[1];
      T* out = g.out + ((n * g.out_size[0] + oy) * g.out_size[1] + ox) * g.out_pitch;
      t.inner = t.inner && inside(0, sy) && inside(1, sx) && inside(1, sx + (end - i - 1) * g.step[1]);
      x += end - i;
      for (int64_t at = sx; i < end; i++, at += g.step[1], index += g.step[1] * g.pitch, out += g.out_step[1] * g.out_pitch) {
        t.y[i] = sy;
        t.x[i] = at;
        t.index[i] = index;
        t.out[i] = out;
      }
      if (x < g.count[1]) break;
      x = 0;
      if (++y == g.count[0]) y = 0, n++;
    }
  }
};

constexpr int64_t kTapsAtOnce = 64;  // pointers for so many taps lie on the stack

// Pointers to the source rows of taps [tap0, tap1) for each pixel of a tile at the border.
template <class T>
FD_INLINE void point_rows(const Gather<T>& g, const PixelTile<T>& t, int64_t rows, const T* source, int64_t tap0, int64_t tap1,
                          const T** table) {
  for (int64_t tap = tap0; tap < tap1; tap++, table += kConvRows) {
    const int64_t v = tap / g.ntaps[1] * g.tap_step[0], h = tap % g.ntaps[1] * g.tap_step[1];
    const int64_t shift = (v * g.size[1] + h) * g.pitch;
    for (int64_t i = 0; i < rows; i++) {
      const bool inside = (uint64_t(t.y[i] + v) < uint64_t(g.size[0])) & (uint64_t(t.x[i] + h) < uint64_t(g.size[1]));
      table[i] = inside ? source + (t.index[i] + shift) : g.zeros;
    }
  }
}

// Pixels [m0, m1) by panels [p0, p1) of one group.
template <class T>
void gather_chunk(const Gather<T>& g, int64_t group, int64_t m0, int64_t m1, int64_t p0, int64_t p1) {
  const Panels<T> panels(g.columns, 2, g.triple);
  const int64_t taps = g.ntaps[0] * g.ntaps[1];
  const T* source = g.source + group * g.group_source;
  const T* table[kTapsAtOnce * kConvRows];
  // Sums over this many taps, whole rows of them where they fit; the same for all pixels, as who shares a tile follows the chunks.
  const bool whole_rows = g.ntaps[1] <= kTapsAtOnce;
  const int64_t taps_at_once = whole_rows ? kTapsAtOnce / g.ntaps[1] * g.ntaps[1] : kTapsAtOnce;
  const bool one_run = g.tap_step[1] * g.pitch == g.run;  // taps of a row follow each other in memory
  PixelTile<T> pixels;
  ConvTile<T> t = {};
  t.rows = table;
  t.a_k = 1;
  t.c = pixels.out;
  PixelCursor<T> cursor(g, m0);
  const int64_t tiles = ceil_div<int64_t>(m1 - m0, kConvRows), least = (m1 - m0) / tiles, more = (m1 - m0) % tiles;
  for (int64_t block = 0; block < tiles; block++) {
    const int64_t rows = least + (block < more ? 1 : 0);
    cursor.take(rows, pixels);
    for (int64_t tap = 0; tap < taps; tap += taps_at_once) {
      const int64_t tap_end = min_of(taps, tap + taps_at_once);
      if (pixels.inner && whole_rows) {  // taps at regular distances from one pointer per pixel
        const int64_t shift = tap / g.ntaps[1] * g.tap_step[0] * g.size[1] * g.pitch;
        for (int64_t i = 0; i < rows; i++) table[i] = source + pixels.index[i] + shift;
        t.row_step = 0;
        t.segments = one_run ? 1 : g.ntaps[1];
        t.k = one_run ? g.ntaps[1] * g.run : g.run;
        t.a_segment = g.tap_step[1] * g.pitch;
        t.groups = (tap_end - tap) / g.ntaps[1];
        t.a_group = g.tap_step[0] * g.size[1] * g.pitch;
      } else {
        point_rows(g, pixels, rows, source, tap, tap_end, table);
        t.row_step = kConvRows;
        t.k = g.run;
        t.segments = tap_end - tap;
        t.a_segment = 0;
        t.groups = 1;
        t.a_group = 0;
      }
      const bool last = tap_end == taps;
      t.accumulate = tap > 0;
      t.relu = last && g.relu;
      for (int64_t p = p0; p < p1; p++) {
        const int64_t width = panels.width(p);
        t.c_column = group * g.columns + panels.begin(p);
        t.b = g.weights + group * g.weight_group + panels.begin(p) * g.weight_rows + (g.first_row + tap * g.run) * width;
        t.b_k = width;
        t.b_segment = t.k * width;
        t.b_group = t.segments * t.b_segment;
        t.tail = panels.tail(p);
        t.bias = last && g.bias ? g.bias + t.c_column : nullptr;
        run_tile(panels.vectors(p), rows, t);
        if (last && g.activate) {
          for (int64_t i = 0; i < rows; i++) g.activate(pixels.out[i] + t.c_column, panels.used(p));
        }
      }
      if (last) break;
    }
  }
}

// Chunks are blocks of pixels by as many panels as stay in the L2 cache; pixels are the inner index, so that threads share panels.
// Where panels alone give chunks enough, evenly, each chunk packs its own weights, to find them in the cache. given: null if packed
// already.
template <class T>
void gather(Gather<T> g, const ConvPack<T>* given) {
  const int64_t pixels = g.pixels();
  if (pixels == 0 || g.columns == 0) return;
  ConvPack<T> own = {};
  const ConvPack<T>* const pack = given ? &own : nullptr;
  if (given) {
    own = *given;
    own.triple = g.triple = kConvTripleRows > 0;
  }
  const Panels<T> panels(g.columns, 2, g.triple);
  const int64_t depth = g.ntaps[0] * g.ntaps[1] * g.run;
  const int64_t panel_bytes = max_of<int64_t>(1, depth * panels.most * Vec<T>::size * int64_t(sizeof(T)));
  const Blocks across(panels.count, max_of<int64_t>(1, (int64_t(1) << 20) / panel_bytes));
  const int64_t products = across.count * g.groups;
  const int64_t tiles = ceil_div<int64_t>(pixels, kConvRows);
  const bool packs = pack && products >= 8 && pixels <= 1024 && cut_share(1, tiles, products, {1, products}, num_threads()) < 1.1;
  const int64_t width = ceil_div(panels.count, across.count) * panels.most * Vec<T>::size;
  const int64_t work = kConvRows * (depth + 8) * width;  // multiply-adds in a tile, per chunk
  const int64_t fair = ceil_div<int64_t>(tiles * products, 64), least = ceil_div(kConvPieceMacs, work);
  const int64_t strips = ceil_div(tiles, max_of(fair, least));
  const Cut cut = fair_cut(1, tiles, products, {packs ? 1 : strips, products}, packs ? tiles : least, num_threads());
  const Blocks down(pixels, ceil_div(tiles, cut.rows) * kConvRows);
  if (pack && !packs) pack_weights(*pack);
  parallel_chunks(down.count * products, [&](int64_t chunk) {
    const int64_t m = chunk % down.count, p = chunk / down.count % across.count, group = chunk / down.count / across.count;
    const int64_t p0 = across.begin(p), p1 = across.begin(p + 1);
    const int64_t v0 = p0 * panels.most, v1 = p1 == panels.count ? panels.all : p1 * panels.most;
    piece_work((down.begin(m + 1) - down.begin(m)) * (v1 - v0) * Vec<T>::size * depth, kConvPieceMacs);
    if (packs) {
      for (int64_t v = v0; v < v1; v++) pack_block(*pack, group, v, 0, pack->channels);
    }
    gather_chunk(g, group, down.begin(m), down.begin(m + 1), p0, p1);
  });
}

}  // namespace
}  // namespace fastdl
