// Gradient of conv2d by its weights and bias: dw[tap][ci][co] = sum over pixels of x[pixel moved by tap][ci] * dy[pixel][co], the
// product of a transposed matrix with another, by the same register tile: rows are input channels (or, when there are few, pairs of
// tap and channel), columns output channels, and k runs along a row of pixels. Taps on the border shorten that run.
//
// Pixels are split into parts that depend on sizes only; each part sums in scratch of its own, [tap][ci][co] and one row for db.
// The parts are then added in order and brought to (O, C / groups, KH, KW). Large dw needs no parts: it is finished block by block.
#pragma once
#include "core/partition.h"
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
  int64_t filters, first_filter;  // of a group; dy may begin at a later one, and have only some of them
  int64_t dy_pitch;
  bool pairs;     // rows are (tap, channel) pairs
  int parts = 0;  // as in Gather
  // Not null: dy is the gradient of max-pooling with windows side by side, of `window` size, `pooled` of them each way.
  const uint8_t* taps = nullptr;
  int64_t window[2], pooled[2];
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

// Rows [y0, y1) of output pixels of `images` images from n on.
struct PixelBlock {
  int64_t n, images, y0, y1;
};

// Calls f(block, first) on part `split` of the pixels, in blocks of at most `most` rows.
template <class T, class F>
FD_INLINE void for_bands(const WeightGrad<T>& w, int64_t split, int64_t most, F&& f) {
  const int64_t height = w.s.out[0], begin = split * w.rows_per_split, end = min_of(w.s.batch * height, begin + w.rows_per_split);
  for (int64_t r = begin; r < end;) {
    const int64_t y = r % height, room = min_of(end - r, most);
    const int64_t images = y == 0 ? max_of<int64_t>(1, room / height) : 1, rows = min_of(room, height - y);
    f(PixelBlock{r / height, images, y, y + rows}, r == begin);
    r += images * rows;
  }
}

// The same in blocks whose dy stays in the cache.
template <class T, class F>
FD_INLINE void for_blocks(const WeightGrad<T>& w, int64_t split, int64_t width, F&& f) {
  const int64_t row_bytes = max_of<int64_t>(1, w.s.out[1] * width * int64_t(sizeof(T)));
  for_bands(w, split, max_of<int64_t>(1, kWeightBlockBytes / row_bytes), f);
}

// What the tiles of one panel have in common.
template <class T>
struct WeightPanel {
  const WeightGrad<T>& w;
  int64_t group, p, width;
  int vectors;
  T* spread = nullptr;  // where w.taps is given: a block of the real dy, one panel wide
  WeightPanel(const WeightGrad<T>& w, int64_t group, int64_t p)
      : w(w), group(group), p(p), width(w.panels().width(p)), vectors(w.panels().vectors(p)) {}

  const T* x(int64_t n) const { return w.x + n * w.x_size[0] * w.x_size[1] * w.s.in_channels + group * w.s.group_in(); }
  const T* dy(int64_t n) const { return w.dy + n * w.s.out[0] * w.s.out[1] * w.dy_pitch + w.first_column(group, p); }
  // The block's dy and the distance of its pixels; spread_block() first where there is something to spread.
  int64_t pitch() const { return spread ? width : w.dy_pitch; }
  const T* dy(const PixelBlock& block) const { return spread ? spread : dy(block.n) + block.y0 * w.s.out[1] * w.dy_pitch; }
  ConvTile<T> tile(const PixelBlock& block, bool fresh, int64_t x_pitch, int64_t x_image) const {
    ConvTile<T> t = {};
    t.row_step = 0;
    t.a_segment = w.s.stride[0] * w.x_size[1] * x_pitch;
    t.a_k = w.s.stride[1] * x_pitch;
    t.b_k = pitch();
    t.b_segment = w.s.out[1] * pitch();
    t.groups = block.images;
    t.a_group = x_image;
    t.b_group = w.s.out[0] * w.s.out[1] * pitch();
    t.tail = Vec<T>::size;
    t.accumulate = !fresh;
    t.relu = false;
    t.bias = nullptr;
    return t;
  }
};

// Channels of x around a block, and the distances of its pixels and images: in x itself, or copied (strip_source).
template <class T>
struct StripSource {
  const T* x;  // the first pixel of the block's first image, at the first channel
  int64_t pitch, image;
};

// `count` channels from `channel` on, all taps: sums[tap][layout channels], these from `at` on.
template <class T>
void add_channels(const WeightPanel<T>& panel, const PixelBlock& block, bool fresh, const StripSource<T>& source, int64_t count,
                  T* sums, int64_t layout, int64_t at) {
  const WeightGrad<T>& w = panel.w;
  const ConvShape& s = w.s;
  const T *dy = panel.dy(block), *rows[kConvRows];
  T* c[kConvRows];
  ConvTile<T> t = panel.tile(block, fresh, source.pitch, source.image);
  t.rows = rows;
  t.c = c;
  int64_t v = 0, h = -1;
  for (int64_t tap = 0; tap < s.taps(); tap++) {
    if (++h == s.kernel[1]) h = 0, v++;
    const int64_t shift_y = v * s.dilation[0] - w.padding[0], shift_x = h * s.dilation[1] - w.padding[1];
    const Span ys = inside(shift_y, s.stride[0], w.x_size[0], block.y0, block.y1);
    const Span xs = inside(shift_x, s.stride[1], w.x_size[1], 0, s.out[1]);
    t.segments = xs.begin < xs.end ? ys.end - ys.begin : 0;
    if (t.segments == 0 && !fresh) continue;
    t.k = xs.end - xs.begin;
    t.b = dy + ((ys.begin - block.y0) * s.out[1] + xs.begin) * panel.pitch();
    const int64_t pixel = (ys.begin * s.stride[0] + shift_y) * w.x_size[1] + xs.begin * s.stride[1] + shift_x;
    const T* from = t.segments ? source.x + pixel * source.pitch : source.x;
    for (int64_t i = 0; i < count; i++) {
      rows[i] = from + i;
      c[i] = sums + (tap * layout + at + i) * panel.width;
    }
    run_tile(panel.vectors, count, t);
  }
}

// The panel's columns of the block's dy, from the gradient of the windows: each goes to the tap that was the maximum.
template <class T>
void spread_block(const WeightPanel<T>& panel, const PixelBlock& block) {
  using I = typename Vec<T>::Int;
  const WeightGrad<T>& w = panel.w;
  const int64_t columns = w.s.out[1], width = panel.width, channels = w.s.out_channels;
  const int64_t down = w.window[0], across = w.window[1], rows = w.pooled[0], wide = w.pooled[1];
  const int64_t covered = min_of(columns, wide * across), column = w.first_column(panel.group, panel.p);
  T* to = panel.spread;
  for (int64_t n = block.n; n < block.n + block.images; n++)
    for (int64_t y = block.y0; y < block.y1; y++, to += columns * width) {
      const int64_t oh = y / down, row = y % down * across, end = oh < rows ? covered : 0;
      int64_t from = (n * rows + oh) * wide * channels + column;
      for (int64_t x = 0; x < end; x += across, from += channels) {
        const int64_t most = min_of(across, end - x);
        for (int64_t j = 0; j < width; j += Vec<T>::size) {
          const Vec<I> tap = load_bytes<I>(w.taps + from + j);
          const Vec<T> v = load(w.dy + from + j);
          for (int64_t i = 0; i < most; i++) store(to + (x + i) * width + j, select(tap == Vec<I>(I(row + i)), v, Vec<T>(T(0))));
        }
      }
      __builtin_memset(to + end * width, 0, size_t((columns - end) * width) * sizeof(T));
    }
}

// Whether a block of dy is copied, one panel wide, and channels of x around it: pixels that lie a power of two apart share few sets
// of the caches.
template <class T>
FD_INLINE bool copies_blocks(const WeightGrad<T>& w) {
  return FD_VEC_BYTES < 64 && !w.pairs && !w.taps && w.s.taps() >= 4 &&
         w.s.out[1] * 2 * Vec<T>::size * int64_t(sizeof(T)) <= kWeightBlockBytes;
}
template <class T>
void copy_block(const WeightPanel<T>& panel, const PixelBlock& block) {
  const T* from = panel.dy(block.n) + block.y0 * panel.w.s.out[1] * panel.w.dy_pitch;
  T *to = panel.spread, *const end = to + block.images * (block.y1 - block.y0) * panel.w.s.out[1] * panel.width;
  for (; to < end; from += panel.w.dy_pitch, to += panel.width)
    for (int64_t j = 0; j < panel.width; j += Vec<T>::size) store(to + j, load(from + j));
}

// Channels from `channel` on, as many as a tile has rows, copied to scratch of the thread where that pays.
template <class T>
StripSource<T> strip_source(const WeightPanel<T>& panel, const PixelBlock& block, int64_t channel, bool copies) {
  constexpr int64_t lanes = Vec<T>::size, width = (kConvWeightRows + lanes - 1) / lanes * lanes;
  const WeightGrad<T>& w = panel.w;
  const int64_t line = w.x_size[1] * w.s.in_channels, image = w.x_size[0] * line;
  const StripSource<T> plain = {panel.x(block.n) + channel, w.s.in_channels, image};
  if (!copies || w.s.group_in() < width) return plain;
  const int64_t reach = (w.s.kernel[0] - 1) * w.s.dilation[0], low = block.y0 * w.s.stride[0] - w.padding[0];
  const int64_t y0 = max_of<int64_t>(0, low), y1 = min_of(w.x_size[0], low + (block.y1 - 1 - block.y0) * w.s.stride[0] + reach + 1);
  const int64_t rows = max_of<int64_t>(0, y1 - y0), first = min_of(channel, w.s.group_in() - width), pixels = rows * w.x_size[1];
  if (block.images * pixels * width * int64_t(sizeof(T)) > 4 * kWeightBlockBytes) return plain;  // taps that reach far
  T* to = static_cast<T*>(thread_scratch(max_of<int64_t>(1, block.images * pixels) * width * int64_t(sizeof(T))));
  if (!to) return plain;
  const StripSource<T> strip = {to + (channel - first) - y0 * w.x_size[1] * width, width, pixels * width};
  for (int64_t n = 0; n < block.images; n++) {
    const T* from = panel.x(block.n + n) + y0 * line + first;
    for (int64_t i = 0; i < pixels; i++, from += w.s.in_channels, to += width)
      for (int64_t j = 0; j < width; j += lanes) store(to + j, load(from + j));
  }
  return strip;
}

// The same for rows that are (tap, channel) pairs, on padded x: no tap falls outside.
template <class T>
void add_pairs(const WeightPanel<T>& panel, const PixelBlock& block, bool fresh, T* sums) {
  const WeightGrad<T>& w = panel.w;
  const ConvShape& s = w.s;
  const T *x = panel.x(block.n), *rows[kConvRows];
  T* c[kConvRows];
  ConvTile<T> t = panel.tile(block, fresh, s.in_channels, w.x_size[0] * w.x_size[1] * s.in_channels);
  t.rows = rows;
  t.c = c;
  t.segments = block.y1 - block.y0;
  t.k = s.out[1];
  t.b = panel.dy(block);
  const Blocks tiles(w.rows() - 1, kConvWeightRows);
  for (int64_t b = 0; b < tiles.count; b++) {
    const int64_t first = tiles.begin(b), count = tiles.begin(b + 1) - first;
    for (int64_t i = 0; i < count; i++) {
      const int64_t tap = (first + i) / s.group_in(), channel = (first + i) % s.group_in();
      const int64_t y = block.y0 * s.stride[0] + tap / s.kernel[1] * s.dilation[0], h = tap % s.kernel[1] * s.dilation[1];
      rows[i] = x + (y * w.x_size[1] + h) * s.in_channels + channel;
      c[i] = sums + (first + i) * panel.width;
    }
    run_tile(panel.vectors, count, t);
  }
}

// db of the panel's columns: sums of rows of pixels, added to the sum of rows.
template <class T>
void add_bias(const WeightPanel<T>& panel, const PixelBlock& block, bool fresh, T* total) {
  const int64_t pixels = panel.w.s.out[1], pitch = panel.pitch(), rows = block.images * (block.y1 - block.y0);
  const T* dy = panel.dy(block);  // images > 1 only with all their rows, so rows are neighbours
  for (int64_t j = 0; j < panel.width; j += Vec<T>::size) {
    Vec<T> all = fresh ? Vec<T>(T(0)) : load(total + j);
    for (int64_t y = 0; y < rows; y++) {
      const T* row = dy + y * pixels * pitch + j;
      Vec<T> even(T(0)), odd(T(0));
      int64_t i = 0;
      for (; i + 2 <= pixels; i += 2) {
        even += load(row + i * pitch);
        odd += load(row + (i + 1) * pitch);
      }
      if (i < pixels) even += load(row + i * pitch);
      all += even + odd;
    }
    store(total + j, all);
  }
}

// dw[o][channel + i][tap] from sums[tap][layout channels] of `parts` parts: parts added, then squares transposed. [begin, end): the
// values i * taps + tap; begin is a multiple of a vector.
template <class T>
void finish_channels(const WeightPanel<T>& panel, const T* sums, int64_t layout, int64_t parts, int64_t part, int64_t channel,
                     int64_t begin, int64_t until) {
  constexpr int lanes = Vec<T>::size;
  const WeightGrad<T>& w = panel.w;
  const int64_t taps = w.s.taps(), filter = w.s.group_in() * taps;
  const int64_t own = panel.group * w.s.group_out() + w.panels().begin(panel.p), end = own + w.panels().used(panel.p);
  for (int v = 0; v < panel.vectors; v++) {
    const int64_t column = w.first_column(panel.group, panel.p) + v * lanes;
    const int64_t skip = max_of<int64_t>(0, own - column), last = min_of<int64_t>(lanes, end - column);
    int64_t i = begin / taps, tap = begin % taps;
    for (int64_t j = begin; j < until; j += lanes) {
      const int n = int(min_of<int64_t>(lanes, until - j));
      Vec<T> square[lanes];
      for (int r = 0; r < lanes; r++) {
        square[r] = Vec<T>(T(0));
        if (r >= n) continue;
        const T* from = sums + (tap * layout + i) * panel.width + v * lanes;
        for (int64_t k = 0; k < parts; k++) square[r] += load(from + k * part);
        if (++tap == taps) tap = 0, i++;
      }
      transpose_rows(square);
      for (int64_t r = skip; r < last; r++) store_partial(w.dw + (column + r) * filter + channel * taps + j, square[r], n);
    }
  }
}

template <class T>
void finish_bias(const WeightPanel<T>& panel, const T* sums, int64_t parts, int64_t part) {
  const WeightGrad<T>& w = panel.w;
  const int64_t own = panel.group * w.s.group_out() + w.panels().begin(panel.p), used = w.panels().used(panel.p);
  const T* from = sums + own - w.first_column(panel.group, panel.p);
  for (int64_t i = 0; i < used; i++) {
    T total = from[i];
    for (int64_t k = 1; k < parts; k++) total += from[i + k * part];
    w.db[own + i] = total;
  }
}

// Multiply-adds of `rows` rows of dy, `channels` channels of x and the columns of a panel.
template <class T>
FD_INLINE int64_t weight_macs(const WeightGrad<T>& w, int64_t rows, int64_t channels, int64_t width) {
  return rows * w.s.out[1] * w.s.taps() * channels * width;
}

// Into how many ranges to cut `tiles` blocks of channels, in each of `products` parts of the work with `rows` rows of dy: `ranges`,
// or more for many threads.
template <class T>
int64_t channel_ranges(const WeightGrad<T>& w, int64_t products, int64_t tiles, int64_t ranges, int64_t rows) {
  const int64_t macs = max_of<int64_t>(1, weight_macs(w, rows, kConvWeightRows, w.panels().most * Vec<T>::size));
  return tiles <= 1 ? 1 : fair_cut(products, 1, tiles, {1, ranges}, ceil_div(kConvPieceMacs, macs), num_threads()).cols;
}

// One part, sums on the stack: each block of channels goes through all pixels and is finished at once.
template <class T>
void direct_weight_grad(const WeightGrad<T>& w) {
  const int64_t panels = w.panels().count, products = w.s.groups * panels;
  const Blocks tiles(w.s.group_in(), kConvWeightRows);
  const int64_t at_once = ceil_div(tiles.count, max_of<int64_t>(1, 32 / products));
  const int64_t ranges = channel_ranges(w, products, tiles.count, ceil_div(tiles.count, at_once), w.s.batch * w.s.out[0]);
  parallel_chunks(products * ranges, [&](int64_t chunk) {
    const int64_t r = chunk % ranges, p = chunk / ranges % panels, b0 = r * tiles.count / ranges,
                  b1 = (r + 1) * tiles.count / ranges;
    WeightPanel<T> panel(w, chunk / ranges / panels, p);
    piece_work(weight_macs(w, w.s.batch * w.s.out[0], tiles.begin(b1) - tiles.begin(b0), panel.width), kConvPieceMacs);
    alignas(64) T sums[kDirectTaps * kConvWeightRows * 2 * Vec<T>::size];
    alignas(64) T copied[kWeightBlockBytes / sizeof(T)];
    const bool copies = copies_blocks(w);
    for (int64_t b = b0; b < b1; b++) {
      const int64_t first = tiles.begin(b), count = tiles.begin(b + 1) - first;
      panel.spread = copies ? copied : nullptr;
      for_blocks(w, 0, panel.width, [&](const PixelBlock& block, bool fresh) {
        if (copies) copy_block(panel, block);
        add_channels(panel, block, fresh, strip_source(panel, block, first, copies), count, sums, count, 0);
      });
      panel.spread = nullptr;
      finish_channels(panel, sums, count, 1, 0, first, 0, count * w.s.taps());
    }
    if (r > 0) return;
    for_blocks(w, 0, panel.width, [&](const PixelBlock& block, bool fresh) { add_bias(panel, block, fresh, sums); });
    finish_bias(panel, sums, 1, 0);
  });
}

// The sums of all parts.
template <class T>
void add_weight_grad(const WeightGrad<T>& w) {
  const int64_t panels = w.panels().count, channels = w.s.group_in(), last = w.rows() - 1;
  const Blocks tiles(channels, kConvWeightRows);
  const int64_t products = w.splits * w.s.groups * panels;
  const int64_t ranges = w.pairs || w.taps ? 1 : channel_ranges(w, products, tiles.count, 1, w.rows_per_split);
  parallel_chunks(products * ranges, [&](int64_t chunk) {
    const int64_t p = chunk % panels, group = chunk / panels % w.s.groups, split = chunk / panels / w.s.groups % w.splits;
    const int64_t r = chunk / products, b0 = r * tiles.count / ranges, b1 = (r + 1) * tiles.count / ranges;
    WeightPanel<T> panel(w, group, p);
    const int64_t rows = min_of(w.s.batch * w.s.out[0] - split * w.rows_per_split, w.rows_per_split);
    piece_work(weight_macs(w, rows, b1 > b0 ? tiles.begin(b1) - tiles.begin(b0) : 0, panel.width), kConvPieceMacs);
    alignas(64) T spread[kWeightBlockBytes / sizeof(T)];
    const bool copies = copies_blocks(w);
    if (w.taps || copies) panel.spread = spread;
    T* sums = w.panel_sums(split, group, p);
    for_blocks(w, split, panel.width, [&](const PixelBlock& block, bool fresh) {
      if (w.taps) spread_block(panel, block);
      if (copies) copy_block(panel, block);
      if (w.pairs)
        add_pairs(panel, block, fresh, sums);
      else
        for (int64_t b = b0; b < b1; b++) {
          const int64_t first = tiles.begin(b), count = tiles.begin(b + 1) - first;
          add_channels(panel, block, fresh, strip_source(panel, block, first, copies), count, sums, channels, first);
        }
      if (r == 0) add_bias(panel, block, fresh, sums + last * panel.width);
    });
  });
}

// dw and db from the sums.
template <class T>
void finish_weight_grad(const WeightGrad<T>& w) {
  const int64_t panels = w.panels().count, channels = w.s.group_in(), last = w.rows() - 1;
  const int64_t part = w.s.groups * w.panels().whole() * w.rows();
  const int64_t values = channels * w.s.taps(), row = max_of<int64_t>(1, w.panels().most * Vec<T>::size * w.splits);
  const int64_t least = ceil_div(ceil_div(kConvSumsPiece, row), ColumnBlocks::kUnit) * ColumnBlocks::kUnit;
  const ColumnBlocks slices(w.s.groups * panels, max_of<int64_t>(1, values), 1024, least, num_threads());
  parallel_chunks(w.s.groups * panels * slices.count, [&](int64_t task) {
    const int64_t c = task % slices.count, which = task / slices.count;
    const WeightPanel<T> panel(w, which / panels, which % panels);
    const T* sums = w.panel_sums(0, panel.group, panel.p);
    if (c == 0) finish_bias(panel, sums + last * panel.width, w.splits, part);
    const int64_t begin = slices.begin(c), end = min_of(values, slices.begin(c + 1));
    piece_work((end - begin) * w.splits * panel.width, least * row);
    finish_channels(panel, sums, channels, w.splits, part, 0, begin, end);
  });
}

template <class T>
void weight_grad(const WeightGrad<T>& w) {
  add_weight_grad(w);
  finish_weight_grad(w);
}

}  // namespace
}  // namespace fastdl
