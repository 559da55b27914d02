// conv2d and its gradient by the input, on channels-last (NHWC) memory: matrix products over addresses, without im2col.
//   conv_tile.h    the register tile: rows of A anywhere in memory        conv_pack.h    layouts of weights and borders
//   conv_gather.h  y, and dx: sums over taps                              conv_weight.*  dw and db: sums over pixels
//   conv_winograd*.h  3x3 kernels                                         conv_product.h  1x1 kernels
//   conv_first.h   y for images with few channels                         conv_depthwise.h  one filter per channel
//   conv_planes.h  few channels per group: lanes are pixels               conv_tiles*.h  y, dx and dw on AMX tiles
// Here, and for dw and db in conv_weight.cpp, the ops are put into these forms. Sums are cut by sizes only: results are bitwise
// equal for any number of threads.
#include "cpu/isa/conv_depthwise.h"
#include "cpu/isa/conv_first.h"
#include "cpu/isa/conv_gather.h"
#include "cpu/isa/conv_planes.h"
#include "cpu/isa/conv_product.h"
#include "cpu/isa/conv_tile_kernel.h"
#include "cpu/isa/conv_winograd.h"
#if defined(__AMX_BF16__)
#include "cpu/isa/conv_tiles_gather.h"
#include "cpu/isa/conv_tiles_images.h"
#endif

namespace fastdl {
namespace {

// Depthwise weights (C, 1, KH, KW) to [position][C].
template <class T>
void pack_depthwise(const ConvShape& s, const T* w, const int64_t* position, T* out) {
  for (int64_t tap = 0; tap < s.taps(); tap++) {
    for (int64_t c = 0; c < s.in_channels; c++) out[position[tap] * s.in_channels + c] = w[c * s.taps() + tap];
  }
}

// All results on AMX tiles with images side by side; false where that is not planned, or not accurate.
template <class T>
bool by_images(const Args& a, const ConvShape& s, bool forward, const ConvGatherPlan& plan, const Gather<T>& g,
               const ConvPack<T>& pack) {
#if defined(__AMX_BF16__)
  if constexpr (sizeof(T) == 4) return plan.images && images_on_tiles(s, forward, g, pack, scratch<uint16_t>(a, plan.tile_source));
#endif
  return (void)a, (void)s, (void)forward, (void)plan, (void)g, (void)pack, false;
}

// Columns of all groups, `width` at a time: calls f(g, pack) for them.
template <class T, class F>
void for_columns(int64_t width, const Gather<T>& g, const ConvPack<T>& pack, F f) {
  for (int64_t c = 0; c < g.columns; c += width) {
    Gather<T> part = g;
    ConvPack<T> part_pack = pack;
    part_pack.columns = part.columns = min_of(width, g.columns - c);
    part_pack.weights += c * pack.column_stride;
    part.out += c;
    if (part.bias) part.bias += c;
    part.weight_group = part_pack.group_size();
    f(part, part_pack);
  }
}

template <class T>
void products(const Args& a, const ConvGatherPlan& plan, const Gather<T>& g, const ConvPack<T>* pack) {
  if (plan.product) return product_pixels(g, *pack, scratch<T>(a, plan.weights));
  if (plan.planes && gather_planes(g, *pack)) return;
  if constexpr (sizeof(T) == 4) {
#if defined(__AMX_BF16__)
    if (plan.tiles && gather_on_tiles(g, *pack, scratch<uint16_t>(a, plan.weights))) return;
#endif
    if (plan.winograd.tiles && winograd(g, *pack, plan.winograd, scratch<T>(a, plan.winograd_shared))) return;
    if (plan.winograd.round) {  // a thread found no scratch: there is space for the weights of a pass
      return for_columns(plan.pass_columns, g, *pack,
                         [](const Gather<T>& part, const ConvPack<T>& weights) { gather(part, &weights); });
    }
  }
  gather(g, pack);
}

// In rounds of Winograd's algorithm threads pack the weights that they need.
inline int64_t columns_at_once(const ConvGatherPlan& plan, int64_t columns) {
  return plan.winograd.round ? columns : plan.pass_columns;
}

template <class T>
void conv2d_kernel(const Args& a) {
  const View &x = a.in[0], &w = a.in[1], &y = a.out[0];
  const ConvShape s = conv_shape(*a.attrs, x, w, y);
  const bool narrow = y.dtype != dtype_of<T>();
  const ConvGatherPlan plan = conv_gather_plan(s, true, sizeof(T), narrow, a.attrs->i[8]);
  if (y.numel() == 0) return;

  Gather<T> g;
  g.parts = parts_of(y.dtype);
  g.batch = s.batch;
  g.groups = s.groups;
  g.source = x.ptr<T>();
  g.pitch = s.in_channels;
  g.group_source = s.group_in();
  g.run = s.group_in();
  g.out = narrow ? scratch<T>(a, plan.wide_out) : y.ptr<T>();
  g.out_pitch = s.out_channels;
  g.columns = s.group_out();
  T* zeros = scratch<T>(a, plan.zeros);
  set_zeros(zeros, s.group_in());
  g.zeros = zeros;
  T* packed = scratch<T>(a, plan.weights);
  g.weights = packed;
  g.first_row = 0;
  g.bias = a.in[2].given() ? a.in[2].ptr<T>() : nullptr;
  g.relu = a.attrs->i[7] == 1;
  g.activate = activation<T>(a.attrs->i[7]);
  int64_t* position = scratch<int64_t>(a, plan.positions);
  for (int64_t tap = 0; tap < s.taps(); tap++) position[tap] = tap;
  for (int axis = 0; axis < 2; axis++) {
    g.size[axis] = s.in[axis];
    g.step[axis] = s.stride[axis];
    g.ntaps[axis] = s.kernel[axis];
    g.first_tap[axis] = -s.padding[axis];
    g.tap_step[axis] = s.dilation[axis];
    g.out_size[axis] = g.count[axis] = s.out[axis];
    g.out_begin[axis] = 0;
    g.out_step[axis] = 1;
  }
  if (s.depthwise()) {
    pack_depthwise(s, w.ptr<T>(), position, packed);
    depthwise_gather(&g, 1, s.slides());
  } else {
    const int64_t taps = s.taps(), filter = taps * s.group_in();
    const ConvPack<T> pack = {w.ptr<T>(),    s.group_out() * filter, filter, taps,     s.groups,
                              s.group_out(), s.group_in(),           taps,   position, packed};
    g.weight_rows = filter;
    g.weight_group = pack.group_size();
    if (s.merges_row()) {  // one tap per kernel row, on padded rows
      g.run = s.kernel[1] * s.in_channels;
      g.ntaps[1] = 1;
      if (s.padding[0] || s.padding[1]) {
        T* padded = scratch<T>(a, plan.padded_input);
        pad_input(s, x.ptr<T>(), padded);
        g.source = padded;
      }
      for (int axis = 0; axis < 2; axis++) g.size[axis] = s.padded(axis), g.first_tap[axis] = 0;
      pack_weights(pack);
      if (!gather_first(g)) gather<T>(g, nullptr);
    } else if (!by_images(a, s, true, plan, g, pack)) {
      for_columns(columns_at_once(plan, g.columns), g, pack,
                  [&](const Gather<T>& part, const ConvPack<T>& weights) { products(a, plan, part, &weights); });
    }
  }
  if constexpr (sizeof(T) == 4) {
    if (narrow) narrow_output(g.out, y);
  }
}

// One axis of the gradient by the input. Input position i gets tap k from output position (i + padding - k * dilation) / stride
// where that is whole. So positions of the same remainder modulo stride (a phase) see the same taps, those k that leave
// k * dilation - padding with that remainder: every period-th tap.
struct Phases : AxisPhases {
  using AxisPhases::AxisPhases;
  int64_t size(int64_t phase) const { return ceil_div(taps - phase, period); }
  int64_t tap(int64_t phase, int64_t i) const { return phase + i * period; }
  int64_t remainder(int64_t phase) const {
    const int64_t r = (phase * dilation - padding) % stride;
    return r < 0 ? r + stride : r;
  }
  // Output position of tap i, minus (input position - remainder) / stride, is first + i * step.
  int64_t first(int64_t phase) const { return (remainder(phase) + padding - phase * dilation) / stride; }
  int64_t step() const { return -(period * dilation / stride); }
};

template <class T>
void conv2d_backward_input_kernel(const Args& a) {
  const View &dy = a.in[0], &w = a.in[1], &dx = a.out[0];
  const ConvShape s = conv_shape(*a.attrs, dx, w, dy);
  const bool narrow = dx.dtype != dtype_of<T>();
  const ConvGatherPlan plan = conv_gather_plan(s, false, sizeof(T), narrow, a.attrs->i[9]);
  if (dx.numel() == 0) return;

  Gather<T> g;
  g.parts = parts_of(dx.dtype);
  g.batch = s.batch;
  g.groups = s.groups;
  g.source = dy.ptr<T>();
  g.pitch = s.out_channels;
  g.group_source = g.run = s.group_out();
  g.out = narrow ? scratch<T>(a, plan.wide_out) : dx.ptr<T>();
  g.out_pitch = s.in_channels;
  g.columns = s.group_in();
  T* zeros = scratch<T>(a, plan.zeros);
  set_zeros(zeros, s.group_out());
  g.zeros = zeros;
  T* packed = scratch<T>(a, plan.weights);
  g.weights = packed;
  g.bias = nullptr;
  g.relu = false;
  g.activate = nullptr;
  int64_t* position = scratch<int64_t>(a, plan.positions);
  const Phases rows(s, 0), cols(s, 1);
  // The taps of one pair of phases are neighbours, in the order in which the pairs are visited below.
  int64_t next = 0;
  for (int64_t v = 0; v < rows.count; v++) {
    for (int64_t h = 0; h < cols.count; h++) {
      for (int64_t i = 0; i < rows.size(v); i++) {
        for (int64_t j = 0; j < cols.size(h); j++) position[rows.tap(v, i) * s.kernel[1] + cols.tap(h, j)] = next++;
      }
    }
  }
  const int64_t taps = s.taps(), filter = taps * s.group_in();
  const ConvPack<T> pack = {w.ptr<T>(),   s.group_out() * filter, taps, filter,   s.groups,
                            s.group_in(), s.group_out(),          taps, position, packed};
  g.weight_rows = taps * s.group_out();
  g.weight_group = pack.group_size();
  for (int axis = 0; axis < 2; axis++) g.size[axis] = s.out[axis];
  if (by_images(a, s, false, plan, g, pack)) {
    if constexpr (sizeof(T) == 4) {
      if (narrow) narrow_output(g.out, dx);
    }
    return;
  }
  const bool one_phase = rows.count * cols.count == 1;
  if (s.depthwise()) pack_depthwise(s, w.ptr<T>(), position, packed);
  if (rows.count < rows.stride || cols.count < cols.stride) {  // pixels that no tap reads
    T* out = g.out;
    parallel_for(dx.numel(), 65536, [&](int64_t begin, int64_t end) { set_zeros(out + begin, end - begin); });
  }
  const Phases* phases[2] = {&rows, &cols};
  for_columns(columns_at_once(plan, g.columns), g, pack, [&](Gather<T> part, ConvPack<T> weights) {
    if (!s.depthwise() && !one_phase) {
      weights.triple = part.triple = kConvTripleRows > 0;
      pack_weights(weights);
    }
    constexpr int64_t kGridsOfRow = 4;  // the columns of a row that take turns are computed together, for the sake of memory
    Gather<T> row_grids[kGridsOfRow];
    int64_t first = 0, grids = 0;  // tap
    for (int64_t v = 0; v < rows.count; v++) {
      for (int64_t h = 0; h < cols.count; h++) {
        for (int axis = 0; axis < 2; axis++) {
          const int64_t phase = axis == 0 ? v : h;
          part.ntaps[axis] = phases[axis]->size(phase);
          part.first_tap[axis] = phases[axis]->first(phase);
          part.tap_step[axis] = phases[axis]->step();
          part.step[axis] = 1;
          part.out_begin[axis] = phases[axis]->remainder(phase);
          part.out_size[axis] = s.in[axis];
          part.out_step[axis] = s.stride[axis];
          part.count[axis] = part.out_begin[axis] < s.in[axis] ? ceil_div(s.in[axis] - part.out_begin[axis], s.stride[axis]) : 0;
        }
        part.first_row = s.depthwise() ? first : first * part.run;
        first += part.ntaps[0] * part.ntaps[1];
        if (!s.depthwise())
          products(a, plan, part, one_phase ? &weights : nullptr);
        else if (part.pixels() > 0)
          row_grids[grids++] = part;
        if (grids == kGridsOfRow || (grids > 0 && h == cols.count - 1)) {
          depthwise_gather(row_grids, grids, s.slides());
          grids = 0;
        }
      }
    }
  });
  if constexpr (sizeof(T) == 4) {
    if (narrow) narrow_output(g.out, dx);
  }
}

}  // namespace

const ConvTileTable<float> FD_SHARED_NAME(conv_tiles_f32) = compiled_conv_tiles<float>();
#if !defined(__AMX_BF16__)
const ConvTileTable<double> FD_SHARED_NAME(conv_tiles_f64) = compiled_conv_tiles<double>();
#endif

FD_KERNEL_TABLE(conv) = {
    {OpId::conv2d, kF32, conv2d_kernel<float>},
    {OpId::conv2d_backward_input, kF32, conv2d_backward_input_kernel<float>},
    FD_ROWS_WITHOUT_TILES({OpId::conv2d, kF64, conv2d_kernel<double>},
                          {OpId::conv2d_backward_input, kF64, conv2d_backward_input_kernel<double>}){},
};

}  // namespace fastdl
