// Convolution of step 1 in groups of few channels, and its gradients: lanes are pixels, as the channels of a group would fill a
// part of a vector only. A band of an image is turned into planes, one per channel, with a border of zeros. Rows of a plane follow
// each other, so that a tap is a distance within it, and vectors run over the ends of rows: what they compute there is left out (y,
// dx), or is a product with zero (dw).
#pragma once
#include "cpu/isa/conv_weight.h"
#include "cpu/vec/interleave.h"
#include "cpu/vec/transpose.h"

namespace fastdl {
namespace {

// Sums in registers: channels by vectors of pixels, and for dw channels by taps of a row.
constexpr int kPlaneChannels = FD_VEC_BYTES == 64 ? 8 : 4, kPlaneVectors = 3;
constexpr int64_t kPlaneBytes = int64_t(256) << 10;       // of the planes of a band for y or dx, which stay in the L2 cache
constexpr int64_t kPlaneFilterBytes = int64_t(32) << 10;  // of those planes of dy that are read together

// Lane i of the result is the sum of the lanes of v[i].
template <int n = 1, class T>
FD_INLINE Vec<T> sum_lanes(Vec<T> (&v)[Vec<T>::size]) {
  constexpr int half = Vec<T>::size / n / 2;
#pragma GCC unroll 8
  for (int i = 0; i < half; i++) v[i] = interleave<false>(v[i], v[i + half]) + interleave<true>(v[i], v[i + half]);
  if constexpr (half > 1)
    return sum_lanes<2 * n>(v);
  else
    return v[0];
}

// Planes of some channels: rows `pitch` apart, and room for a vector that runs over the last.
struct Planes {
  int64_t channels, rows, pitch, size;
  Planes(int64_t channels, int64_t rows, int64_t pitch)
      : channels(channels), rows(rows), pitch(pitch), size((rows * pitch + 31) / 16 * 16) {}
  int64_t elements() const { return channels * size; }

  // `count` rows from an image of height x width pixels, `step` elements apart: row r and column j are its row `top` + r and column
  // `left` + j, or zero outside. Zeros behind the last.
  template <class T>
  void fill(const T* image, int64_t height, int64_t width, int64_t step, int64_t top, int64_t left, int64_t count, T* out) const {
    const int64_t inner = min_of(pitch, max_of<int64_t>(0, -left)), inner_end = max_of(inner, min_of(pitch, width - left));
    constexpr int64_t lanes = Vec<T>::size;
    const auto clear = [&](T* row, int64_t begin, int64_t end) {  // by whole vectors: what follows is filled later
      for (int64_t c = 0; c < channels; c++)
        for (int64_t i = begin; i < end; i += lanes) store(row + c * size + i, Vec<T>(T(0)));
    };
    for (int64_t r = 0; r < count; r++, out += pitch) {
      if (uint64_t(top + r) >= uint64_t(height)) {
        clear(out, 0, pitch);
        continue;
      }
      clear(out, 0, inner);
      transpose(image + ((top + r) * width + left + inner) * step, step, out + inner, size, inner_end - inner, channels);
      clear(out, inner_end, pitch);
    }
    clear(out, 0, 1);
  }
};

// out[c][i] = bias[c] + sum over terms k of weights[k][c] * source[offset[k] + i], for `vectors` vectors of i and `channels`
// planes.
template <class T, int channels, int vectors>
__attribute__((noinline)) void plane_sums(const T* source, const int64_t* offset, int64_t terms, const T* weights, const T* bias,
                                          bool relu, T* out, int64_t out_plane) {
  constexpr int lanes = Vec<T>::size;
  Vec<T> acc[channels][vectors];
#pragma GCC unroll 8
  for (int c = 0; c < channels; c++) {
#pragma GCC unroll 3
    for (int j = 0; j < vectors; j++) acc[c][j] = Vec<T>(bias[c]);
  }
  for (int64_t k = 0; k < terms; k++, weights += channels) {
    const T* p = source + offset[k];
    Vec<T> x[vectors];
#pragma GCC unroll 3
    for (int j = 0; j < vectors; j++) x[j] = load(p + j * lanes);
#pragma GCC unroll 8
    for (int c = 0; c < channels; c++) {
      Vec<T> w(weights[c]);
      FD_KEEP_VECTOR(w.v);
#pragma GCC unroll 3
      for (int j = 0; j < vectors; j++) acc[c][j] = fma(w, x[j], acc[c][j]);
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < channels; c++) {
#pragma GCC unroll 3
    for (int j = 0; j < vectors; j++) {
      if (relu) acc[c][j] = max(Vec<T>(T(0)), acc[c][j]);  // NaN, as second operand, stays NaN
      store(out + c * out_plane + j * lanes, acc[c][j]);
    }
  }
}

template <class T, int channels>
FD_INLINE auto plane_sums_of(int64_t vectors) {
  return vectors >= 3 ? plane_sums<T, channels, 3> : vectors == 2 ? plane_sums<T, channels, 2> : plane_sums<T, channels, 1>;
}

// Channels in whole blocks of registers, the last of which may be of four.
inline int64_t plane_channels(int64_t n) { return ceil_div<int64_t>(n, 4) * 4; }
inline int64_t plane_block(int64_t left) { return left >= kPlaneChannels ? kPlaneChannels : 4; }

// How y or dx are cut: bands of rows of an image by some groups of channels.
struct PlaneCut {
  int64_t groups, group_cuts, rows, bands;
};

template <class T>
struct PlaneGather {
  const Gather<T>& g;
  const ConvPack<T>& pack;
  int64_t reach[2], taps, terms, filters;  // filters: columns of a group, in whole blocks of registers
  PlaneGather(const Gather<T>& g, const ConvPack<T>& pack) : g(g), pack(pack) {
    for (int axis = 0; axis < 2; axis++) reach[axis] = g.high(axis) - g.low(axis);
    taps = g.ntaps[0] * g.ntaps[1], terms = taps * g.run;
    filters = plane_channels(g.columns);
  }
  int64_t pitch() const { return g.count[1] + reach[1]; }
  Planes source(int64_t groups, int64_t rows) const { return Planes(groups * g.run, rows + reach[0], pitch()); }
  Planes result(int64_t groups, int64_t rows) const { return Planes(groups * filters, rows, pitch()); }

  // Groups whose channels fill vectors, and rows whose planes fit.
  PlaneCut cut() const {
    PlaneCut c;
    c.groups = min_of(g.groups, ceil_div<int64_t>(Vec<T>::size, min_of(g.run, g.columns)));
    c.rows = g.count[0];
    const auto elements = [&] { return source(c.groups, c.rows).elements() + result(c.groups, c.rows).elements(); };
    while (c.rows > 1 && elements() * int64_t(sizeof(T)) > kPlaneBytes) c.rows = ceil_div<int64_t>(c.rows, 2);
    c.group_cuts = ceil_div(g.groups, c.groups);
    const int64_t row = g.count[1] * terms * g.columns * c.groups, least = ceil_div(kConvPieceMacs, row);
    while (c.rows > least && g.batch * c.group_cuts * ceil_div(g.count[0], c.rows) < 4 * num_threads() && num_threads() > 1)
      c.rows = max_of(least, c.rows / 2);
    c.bands = ceil_div(g.count[0], c.rows);
    return c;
  }

  // Weights of a group: [block of filters][k][filter], k as in offsets().
  T* weights(int64_t group) const { return pack.out + group * terms * filters; }
  void pack_group(int64_t group) const {
    for (int64_t first = 0, block; first < filters; first += block) {
      block = plane_block(filters - first);
      for (int64_t j = 0; j < block; j++) {
        const bool exists = first + j < g.columns;
        const T* w = pack.weights + group * pack.group_stride + (exists ? first + j : 0) * pack.column_stride;
        T* const to = weights(group) + first * terms + j;
        for (int64_t c = 0; c < g.run; c++, w += pack.channel_stride)
          for (int64_t tap = 0; tap < taps; tap++) to[(c * taps + pack.position[tap]) * block] = exists ? w[tap] : T(0);
      }
    }
  }
  void offsets(const Planes& p, int64_t* out) const {
    for (int64_t c = 0; c < g.run; c++)
      for (int64_t v = 0; v < g.ntaps[0]; v++)
        for (int64_t h = 0; h < g.ntaps[1]; h++)
          *out++ = c * p.size + (g.first_tap[0] + v * g.tap_step[0] - g.low(0)) * p.pitch + g.first_tap[1] + h * g.tap_step[1] -
                   g.low(1);
  }

  // Rows [y0, y0 + rows) of image n, groups [first, first + groups).
  void run(int64_t n, int64_t y0, int64_t rows, int64_t first, int64_t groups, T* memory) const {
    const Planes in = source(groups, rows), to = result(groups, rows);
    T *const x = memory, *const y = x + in.elements(), bias[kPlaneColumns] = {};
    int64_t* const offset = reinterpret_cast<int64_t*>(y + to.elements());
    in.fill(g.source + n * g.size[0] * g.size[1] * g.pitch + first * g.group_source, g.size[0], g.size[1], g.pitch, y0 + g.low(0),
            g.low(1), in.rows, x);
    offsets(in, offset);
    const int64_t length = (rows - 1) * in.pitch + g.count[1], vectors = ceil_div<int64_t>(length, Vec<T>::size);
    for (int64_t i = 0; i < groups; i++) {
      for (int64_t j = 0; g.bias && j < g.columns; j++) bias[j] = g.bias[(first + i) * g.columns + j];
      for (int64_t v = 0; v < vectors; v += kPlaneVectors)
        for (int64_t c = 0, block; c < filters; c += block) {
          block = plane_block(filters - c);
          const int64_t at = v * Vec<T>::size;
          (block == 4 ? plane_sums_of<T, 4>(vectors - v) : plane_sums_of<T, kPlaneChannels>(vectors - v))(
              x + i * g.run * in.size + at, offset, terms, weights(first + i) + c * terms, bias + c, g.relu,
              y + (i * filters + c) * to.size + at, to.size);
        }
    }
    for (int64_t r = 0; r < rows; r++) {
      T* out = g.out + ((n * g.out_size[0] + y0 + r) * g.out_size[1]) * g.out_pitch + first * g.columns;
      if (filters == g.columns)
        transpose(y + r * in.pitch, to.size, out, g.out_pitch, groups * g.columns, g.count[1]);
      else
        for (int64_t i = 0; i < groups; i++)
          transpose(y + i * filters * to.size + r * in.pitch, to.size, out + i * g.columns, g.out_pitch, g.columns, g.count[1]);
      for (int64_t i = 0; g.activate && i < g.count[1]; i++) g.activate(out + i * g.out_pitch, groups * g.columns);
    }
  }
  int64_t bytes(int64_t groups, int64_t rows) const {
    return (source(groups, rows).elements() + result(groups, rows).elements()) * int64_t(sizeof(T)) + terms * 8;
  }
};

// g covers all pixels of the result, and its steps are 1.
template <class T>
bool gather_planes(const Gather<T>& g, const ConvPack<T>& pack) {
  const PlaneGather<T> all(g, pack);
  const PlaneCut cut = all.cut();
  parallel_for(g.groups, max_of<int64_t>(1, kGemmPackPiece / (all.terms * all.filters)), [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; group++) all.pack_group(group);
  });
  int failed = 0;
  parallel_chunks(g.batch * cut.bands * cut.group_cuts, [&](int64_t piece) {
    const int64_t group = piece % cut.group_cuts * g.groups / cut.group_cuts,
                  groups = (piece % cut.group_cuts + 1) * g.groups / cut.group_cuts - group;
    const int64_t band = piece / cut.group_cuts % cut.bands, y0 = band * g.count[0] / cut.bands,
                  rows = (band + 1) * g.count[0] / cut.bands - y0;
    piece_work(rows * g.count[1] * groups * all.terms * g.columns, kConvPieceMacs);
    T* const memory = static_cast<T*>(thread_scratch(all.bytes(groups, rows)));
    if (!memory) return __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
    all.run(piece / cut.group_cuts / cut.bands, y0, rows, group, groups, memory);
  });
  return !failed;
}

// ---- dw and db -----------------------------------------------------------------------------------------------------------
// sums[f][h] = or += the sum over `length` pixels i of dy[f][i] * x[h * step + i], of `filters` planes of dy and `taps` taps of a
// row.
template <class T, int filters, int taps>
__attribute__((noinline)) void plane_products(const T* dy, int64_t dy_plane, const T* x, int64_t step, int64_t length, bool fresh,
                                              T* sums) {
  constexpr int lanes = Vec<T>::size, count = filters * taps, squares = (count + lanes - 1) / lanes;
  Vec<T> acc[squares * lanes];
#pragma GCC unroll 32
  for (int k = 0; k < squares * lanes; k++) acc[k] = Vec<T>(T(0));
  for (int64_t i = 0; i < length; i += lanes) {
    Vec<T> p[taps];
#pragma GCC unroll 3
    for (int h = 0; h < taps; h++) p[h] = load(x + h * step + i);
#pragma GCC unroll 8
    for (int f = 0; f < filters; f++) {
      Vec<T> g = load(dy + f * dy_plane + i);
      FD_KEEP_VECTOR(g.v);
#pragma GCC unroll 3
      for (int h = 0; h < taps; h++) acc[f * taps + h] = fma(g, p[h], acc[f * taps + h]);
    }
  }
#pragma GCC unroll 8
  for (int s = 0; s < squares; s++) {
    Vec<T> square[lanes];
#pragma GCC unroll 16
    for (int k = 0; k < lanes; k++) square[k] = acc[s * lanes + k];
    const Vec<T> sum = sum_lanes(square);
    const int used = s + 1 < squares ? lanes : count - s * lanes;
    T* to = sums + s * lanes;
    store_partial(to, fresh ? sum : sum + load_partial(to, used), used);
  }
}
template <class T, int filters>
FD_INLINE auto plane_products_of(int64_t taps) {
  return taps == 3 ? plane_products<T, filters, 3> : taps == 2 ? plane_products<T, filters, 2> : plane_products<T, filters, 1>;
}

template <class T>
struct PlaneWeights {
  const WeightGrad<T>& w;
  int64_t values, filters, reach[2];  // values: of a filter, and its bias
  explicit PlaneWeights(const WeightGrad<T>& w) : w(w) {
    values = w.s.group_in() * w.s.taps() + 1;
    filters = plane_channels(w.s.group_out());
    for (int axis = 0; axis < 2; axis++) reach[axis] = (w.s.kernel[axis] - 1) * w.s.dilation[axis];
  }
  int64_t pitch() const { return w.s.out[1] + reach[1]; }
  int64_t groups() const { return min_of(w.s.groups, ceil_div<int64_t>(Vec<T>::size, min_of(w.s.group_in(), w.s.group_out()))); }
  // A band of rows, or several images, each with a border of zeros below. Filters' planes stay in the first-level cache.
  Planes planes(int64_t channels, int64_t rows) const {
    return Planes(channels, rows + ceil_div(rows, w.s.out[0]) * reach[0], pitch());
  }
  int64_t band_rows() const {
    const auto fits = [&](int64_t rows) {
      return planes(kPlaneChannels, rows).elements() * int64_t(sizeof(T)) <= kPlaneFilterBytes;
    };
    int64_t rows = w.s.out[0];
    while (rows > 1 && !fits(rows)) rows = ceil_div<int64_t>(rows, 2);
    while (rows >= w.s.out[0] && rows < w.rows_per_split && fits(rows + w.s.out[0])) rows += w.s.out[0];
    return rows;
  }
  // Scratch: planes of x, of dy and of filters that do not exist, and sums.
  int64_t grad_at() const { return planes(groups() * w.s.group_in(), band_rows()).elements(); }
  int64_t sums_at() const {
    return grad_at() + planes(groups() * w.s.group_out() + filters - w.s.group_out(), band_rows()).elements();
  }
  int64_t bytes() const { return (sums_at() + groups() * filters * values) * int64_t(sizeof(T)); }

  // A part of the pixels, groups [first, first + count): out[filter][value]; false where one is not finite.
  bool run(int64_t split, int64_t first, int64_t count, T* memory, T* out) const {
    const ConvShape& s = w.s;
    T *const x = memory, *const dy = memory + grad_at(), *total = memory + sums_at();
    for_bands(w, split, band_rows(), [&](const PixelBlock& block, bool fresh) {
      const int64_t rows = block.y1 - block.y0 + reach[0];  // of an image
      const Planes in(count * s.group_in(), block.images * rows, pitch()), to(count * s.group_out(), block.images * rows, pitch());
      const int64_t length = (in.rows - reach[0] - 1) * in.pitch + s.out[1];
      for (int64_t i = 0; i < block.images; i++) {
        const int64_t n = block.n + i, at = i * rows * in.pitch;
        in.fill(w.x + n * s.in[0] * s.in[1] * s.in_channels + first * s.group_in(), s.in[0], s.in[1], s.in_channels,
                block.y0 - s.padding[0], -s.padding[1], rows, x + at);
        to.fill(w.dy + n * s.out[0] * s.out[1] * w.dy_pitch + first * s.group_out(), block.y1, s.out[1], w.dy_pitch, block.y0, 0,
                rows, dy + at);
      }
      const int64_t exist = count * s.group_out();  // numbers in planes of others would be multiplied, slowly if denormal
      __builtin_memset(dy + exist * to.size, 0, size_t((filters - s.group_out()) * to.size) * sizeof(T));
      for (int64_t i = 0; i < count; i++)
        add(in, x + i * s.group_in() * in.size, to, dy + i * s.group_out() * to.size, length, total + i * filters * values, fresh);
    });
    T bad = T(0);  // NaN where a sum is not finite
    for (int64_t i = 0; i < count; i++, out += s.group_out() * values, total += filters * values) {
      const T* from = total;
      for (int64_t f = 0, block; f < filters; f += block) {
        block = plane_block(filters - f);
        for (int64_t v = 0, taps; v < values; v += taps) {  // as add() leaves them
          taps = v + 1 == values ? 1 : min_of<int64_t>(3, s.kernel[1] - v % s.kernel[1]);
          for (int64_t j = 0; j < block; j++)
            for (int64_t h = 0; h < taps; h++, from++)
              if (f + j < s.group_out()) bad += T(0) * (out[(f + j) * values + v + h] = *from);
        }
      }
    }
    return bad == T(0);
  }
  // sums[block of filters][channel][row of the kernel][some taps][filter][tap], then db of the block.
  void add(const Planes& in, const T* x, const Planes& to, const T* dy, int64_t length, T* sums, bool fresh) const {
    const ConvShape& s = w.s;
    for (int64_t f = 0, block; f < filters; f += block, dy += block * to.size) {
      block = plane_block(filters - f);
      for (int64_t c = 0; c < s.group_in(); c++)
        for (int64_t v = 0; v < s.kernel[0]; v++) {
          const T* row = x + c * in.size + v * s.dilation[0] * in.pitch;
          for (int64_t h = 0, taps; h < s.kernel[1]; h += taps, sums += block * taps) {
            taps = min_of<int64_t>(3, s.kernel[1] - h);
            (block == 4 ? plane_products_of<T, 4>(taps) : plane_products_of<T, kPlaneChannels>(taps))(
                dy, to.size, row + h * s.dilation[1], s.dilation[1], length, fresh, sums);
          }
        }
      for (int64_t j = 0; j < block; j++, sums++) {
        Vec<T> all(T(0));
        for (int64_t i = 0; i < length; i += Vec<T>::size) all += load(dy + j * to.size + i);
        *sums = reduce_add(all) + (fresh ? T(0) : *sums);
      }
    }
  }
};

// False where a product with a pixel that does not exist may have reached a sum; dw and db are not finished then.
template <class T>
bool weight_planes(const WeightGrad<T>& w) {
  const PlaneWeights<T> all(w);
  const ConvShape& s = w.s;
  const int64_t part = s.out_channels * all.values, work = w.rows_per_split * s.out[1] * s.group_out() * all.values;  // of a group
  const int64_t least = ceil_div(kConvPieceMacs, max_of<int64_t>(1, work));
  const int64_t cuts = fair_cut(w.splits, 1, s.groups, {1, ceil_div(s.groups, all.groups())}, least, num_threads()).cols;
  int failed = 0;
  parallel_chunks(w.splits * cuts, [&](int64_t piece) {
    const int64_t split = piece / cuts, first = piece % cuts * s.groups / cuts,
                  count = (piece % cuts + 1) * s.groups / cuts - first;
    piece_work(
        min_of(s.batch * s.out[0] - split * w.rows_per_split, w.rows_per_split) * s.out[1] * count * s.group_out() * all.values,
        kConvPieceMacs);
    T* const memory = static_cast<T*>(thread_scratch(all.bytes()));
    if (!memory || !all.run(split, first, count, memory, w.sums + split * part + first * s.group_out() * all.values))
      __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
  });
  if (failed) return false;
  parallel_for(s.out_channels, max_of<int64_t>(1, kConvPieceMacs / (w.splits * all.values)), [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; o++)
      for (int64_t v = 0; v < all.values; v++) {
        T total = T(0);
        for (int64_t split = 0; split < w.splits; split++) total += w.sums[split * part + o * all.values + v];
        (v + 1 < all.values ? w.dw[o * (all.values - 1) + v] : w.db[o]) = total;
      }
  });
  return true;
}

}  // namespace
}  // namespace fastdl
