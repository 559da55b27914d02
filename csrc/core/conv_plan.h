// Conv2d: geometry and scratch layout, shared by inference (which reserves the scratch) and the kernels (which use it).
// Everything depends on sizes and on the instruction set, which is chosen once, never on the pool's width, and saturates instead of
// overflowing.
#pragma once
#include <cstdint>

#include "core/gemm_workspace.h"
#include "core/view.h"

namespace fastdl {
namespace {

constexpr int64_t kTooLarge = int64_t(1) << 56;  // bytes; a plan that reaches it is refused by inference

inline int64_t saturating_mul(int64_t a, int64_t b) {
  int64_t r;
  return __builtin_mul_overflow(a, b, &r) || r > kTooLarge ? kTooLarge : r;
}
template <class... More>
inline int64_t saturating_mul(int64_t a, int64_t b, More... more) {
  return saturating_mul(saturating_mul(a, b), more...);
}

inline int64_t greatest_divisor(int64_t a, int64_t b) {  // of both, positive; not both are zero
  while (b) {
    const int64_t r = a % b;
    a = b, b = r;
  }
  return a < 0 ? -a : a;
}

// Output positions of one axis for which a tap reads inside [0, size): from begin on, before end.
struct Span {
  int64_t begin, end;
};
inline Span inside(int64_t shift, int64_t stride, int64_t size, int64_t begin, int64_t end) {
  const int64_t room = size - 1 - shift;  // position * stride <= room
  const int64_t low = shift >= 0 ? 0 : stride == 1 ? -shift : (-shift + stride - 1) / stride;
  const int64_t high = room < 0 ? 0 : (stride == 1 ? room : room / stride) + 1;
  const Span r = {begin > low ? begin : low, end < high ? end : high};
  return r.begin < r.end ? r : Span{begin, begin};
}

// x (N, C, H, W), w (O, C / groups, KH, KW), y (N, O, OH, OW). [0] is the vertical axis, [1] the horizontal one.
struct ConvShape {
  int64_t batch, in_channels, out_channels, groups;
  int64_t in[2], kernel[2], out[2], stride[2], padding[2], dilation[2];

  int64_t group_in() const { return in_channels / groups; }
  int64_t group_out() const { return out_channels / groups; }
  int64_t taps() const { return kernel[0] * kernel[1]; }
  int64_t in_pixels() const { return saturating_mul(batch, in[0], in[1]); }
  int64_t out_pixels() const { return saturating_mul(batch, out[0], out[1]); }
  // One filter per channel: vectors run along channels, there is nothing to multiply as a matrix.
  bool depthwise() const { return groups > 1 && groups == in_channels && groups == out_channels; }
  // Depthwise 3x3 kernels of step 1, which slide along a row (isa/conv_depthwise.h).
  bool slides() const {
    bool all = depthwise();
    for (int axis = 0; axis < 2; axis++) all = all && kernel[axis] == 3 && stride[axis] == 1 && dilation[axis] == 1;
    return all;
  }
  // 1x1 kernels of step 1, where no AMX tiles run: images are matrices of pixels by channels.
  bool product() const {
    bool all = !gemm_has_tiles && groups == 1 && in_channels > 4;
    for (int axis = 0; axis < 2; axis++) all = all && kernel[axis] == 1 && stride[axis] == 1 && padding[axis] == 0;
    return all;
  }
  // Step 1, and planes of moderate size for a row of the result.
  bool fits_planes() const {
    int64_t plane = 1;
    for (int axis = 0; axis < 2; axis++) {
      if (stride[axis] != 1) return false;
      plane = saturating_mul(plane, span(axis));
    }
    return !depthwise() && taps() <= 49 && saturating_mul(plane, group_in() + group_out()) <= int64_t(1) << 24;
  }
  // Few input channels: the taps of a kernel row and their channels are one contiguous run in a zero-padded copy of x.
  bool merges_row() const { return groups == 1 && in_channels <= 4 && dilation[1] == 1 && kernel[1] > 1 && thin_border(); }
  bool pads_input() const {
    return group_in() < 8 && !depthwise() && thin_border();
  }  // weights' gradient: rows are (tap, channel) pairs there
  bool thin_border() const { return saturating_mul(padded(0), padded(1)) <= 65536 + saturating_mul(4, in[0], in[1]); }
  int64_t padded(int axis) const { return in[axis] + 2 * padding[axis]; }
  // Positions along an axis between the first and the last tap of all pixels, of the output or of the gradient by the input.
  int64_t span(int axis) const {
    const int64_t reach = saturating_mul(kernel[axis], dilation[axis]), steps = saturating_mul(out[axis], stride[axis]);
    return reach + (steps > in[axis] ? steps : in[axis]);
  }
};
// Of an op with these views; attributes as in ops.def.
inline ConvShape conv_shape(const Attrs& attrs, const View& x, const View& w, const View& y) {
  ConvShape s;
  s.batch = x.shape[0], s.in_channels = x.shape[1], s.out_channels = y.shape[1], s.groups = attrs.i[6];
  for (int axis = 0; axis < 2; axis++) {
    s.stride[axis] = attrs.i[axis], s.padding[axis] = attrs.i[2 + axis], s.dilation[axis] = attrs.i[4 + axis];
    s.in[axis] = x.shape[2 + axis], s.kernel[axis] = w.shape[2 + axis], s.out[axis] = y.shape[2 + axis];
  }
  return s;
}

// Strides, dilation and taps along one axis. Taps that lie a multiple of `period` apart meet source positions of the same remainder
// modulo the stride; there are `count` such phases.
struct AxisPhases {
  int64_t stride, dilation, padding, taps, period, count;
  AxisPhases(const ConvShape& s, int axis)
      : stride(s.stride[axis]), dilation(s.dilation[axis]), padding(s.padding[axis]), taps(s.kernel[axis]) {
    period = stride / greatest_divisor(stride, dilation);
    count = period < taps ? period : taps;
  }
};

// Offsets in bytes into the workspace, each part 64-byte aligned.
struct ConvScratch {
  int64_t bytes = 0;
  int64_t add(int64_t n) {
    const int64_t at = bytes;
    if (bytes < kTooLarge && n < kTooLarge)
      bytes += (n + 63) / 64 * 64;
    else
      bytes = kTooLarge;
    return at;
  }
};

inline int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

// Columns rounded up to the widest vector of any instruction set.
inline int64_t whole_vectors(int64_t n, int64_t item) { return (n + 64 / item - 1) / (64 / item) * (64 / item); }

// Few columns leave lanes of their vectors unused; on planes (isa/conv_planes.h) lanes are pixels. Lanes that a product of one
// pixel, tap and channel takes either way: a vector of columns that is alone, or not full, costs more than its lanes; so do few
// channels, as each tap begins with pointers, or with sums of its own; and groups, each of which goes through lines of memory that
// lie apart. Planes have positions between rows, and for dw between images, and turning a number to planes or back costs as many
// lanes as here.
constexpr int64_t kPlaneColumns = 48;
struct PlaneCosts {
  double lone, part, few, groups, plane;
};
// Measured with vectors of sixteen floats on Emerald Rapids, and of eight on Zen 3. For others, which nobody measured, as with
// sixteen.
inline PlaneCosts plane_gather_costs() {
  return vector_lanes == 8 ? PlaneCosts{1.5, 1, 4, 1.4, 1.15} : PlaneCosts{1.5, 1, 0, 1, 1.05};
}
inline PlaneCosts plane_weight_costs() {
  return vector_lanes == 8 ? PlaneCosts{1.2, 1, 6, 1, 1.25} : PlaneCosts{1, 1.2, 0, 1, 1.19};
}
inline double column_lanes(const PlaneCosts& costs, const ConvShape& s, int64_t columns, int64_t source) {
  const int64_t lanes = vector_lanes == 8 ? 8 : 16, vectors = (columns + lanes - 1) / lanes;
  const bool lone = lanes == 8 ? vectors == 1 : vectors % 2;  // eight: one behind others is part of a tile of three (y, dx)
  return (double(vectors) + (lone ? costs.lone - 1 : 0)) * double(lanes) * (columns % lanes ? costs.part : 1) *
         (1 + costs.few / double(source)) * (s.groups > 1 ? costs.groups : 1);
}
inline double plane_lanes(const PlaneCosts& costs, const ConvShape& s, int64_t columns, int64_t source, double wide,
                          int64_t width) {
  const double turn = (width >= 16 ? 16.0 : 20.0) * double(source + columns) / double(s.taps() * source);
  return double((columns + 3) / 4 * 4) * wide * costs.plane + turn;
}
inline bool plane_gather_pays(const ConvShape& s, bool forward) {
  const int64_t *count = forward ? s.out : s.in, columns = forward ? s.group_out() : s.group_in();
  const int64_t source = forward ? s.group_in() : s.group_out();
  if (columns > kPlaneColumns || source == 0 || !s.fits_planes()) return false;
  const int64_t pitch = count[1] + (s.kernel[1] - 1) * s.dilation[1], run = ((count[0] - 1) * pitch + count[1] + 15) / 16 * 16;
  const PlaneCosts costs = plane_gather_costs();
  return plane_lanes(costs, s, columns, source, double(run) / double(count[0] * count[1]), count[1]) <
         column_lanes(costs, s, columns, source);
}
inline bool plane_weights_pay(const ConvShape& s) {
  const int64_t columns = s.group_out(), source = s.group_in();
  if (columns > kPlaneColumns || source == 0 || !s.fits_planes()) return false;
  double wide = 1;
  for (int axis = 0; axis < 2; axis++) wide *= double(s.out[axis] + (s.kernel[axis] - 1) * s.dilation[axis]) / double(s.out[axis]);
  const PlaneCosts costs = plane_weight_costs();
  return plane_lanes(costs, s, columns, source, wide, s.out[1]) < column_lanes(costs, s, columns, source);
}

// Winograd's algorithm for 3x3 kernels in float32: blocks of up to kWinogradTiles tiles of 4x4 output pixels; or where weights are
// large (of more than kWinogradWeights numbers, transformed) or tiles few, `round` tiles at a time, whose values all threads share.
// tiles == 0: not worth it, or not possible.
constexpr int64_t kWinogradTiles = 33, kWinogradRound = 96, kWinogradPart = 64, kWinogradWeights = 200000;
inline int64_t winograd_pitch(int64_t n) { return ((n + 15) / 16 | 1) * 16; }  // cache lines in odd number: rows share no sets
struct WinogradPlan {
  int64_t tiles, round, shared_floats;  // shared: weights, or values of a round
};
inline WinogradPlan winograd_plan(const ConvShape& s, bool forward, int64_t item) {
  const WinogradPlan none = {0, 0, 0};
  const int64_t source = forward ? s.in_channels : s.out_channels, columns = forward ? s.out_channels : s.in_channels;
  const int64_t* size = forward ? s.out : s.in;
  for (int axis = 0; axis < 2; axis++) {
    if (s.kernel[axis] != 3 || s.stride[axis] != 1 || s.dilation[axis] != 1) return none;
  }
  // Worth it: channels enough to outweigh the transforms, few pixels wasted in tiles at the edge, tiles enough to outweigh the
  // transform of the weights, and not so many channels that AMX tiles, where there are any, gain more.
  const int64_t most = gemm_has_tiles ? 384 : 2048, least = gemm_has_tiles ? 48 : 8;
  if (item != 4 || s.groups != 1 || source % 16 || source < 32 || source > most || columns < 32) return none;
  const int64_t down = (size[0] + 3) / 4, across = (size[1] + 3) / 4, tiles = saturating_mul(s.batch, down, across);
  if (tiles < least || saturating_mul(size[0], size[1]) < saturating_mul(down, across, 10)) return none;
  const int64_t weights = 36 * (saturating_mul(source, whole_vectors(columns, item)) + 16 * ((columns + 7) / 8));
  if (gemm_has_tiles || (tiles >= 48 && weights <= kWinogradWeights)) return {tiles, 0, weights};
  const int64_t rounds = (tiles + kWinogradRound - 1) / kWinogradRound, round = (tiles + rounds - 1) / rounds;
  return {tiles, round, 36 * (round * winograd_pitch(source) + 16)};
}

// The same for the gradient by the weights (isa/conv_winograd_weight.h): `round` tiles at a time, whose values fill up to
// kWinogradRoundFloats (twice that in a single round, or with many channels), and sums of `columns` columns, of up to
// kWinogradSumFloats. tiles == 0: not worth it, or not possible.
constexpr int64_t kWinogradRoundFloats = int64_t(1) << 19, kWinogradSumFloats = int64_t(3) << 19, kWinogradRoundMost = 192;
struct WinogradGradPlan {
  int64_t tiles, round, columns;
  int64_t rounds() const { return (tiles + round - 1) / round; }
  // Numbers of one of 36 values; a line more, since those of a tile or a sum are read or written together.
  int64_t x_plane(int64_t channels) const { return round * winograd_pitch(channels) + 16; }
  int64_t dy_plane() const { return round * winograd_pitch(columns) + 16; }
  int64_t sum_plane(int64_t channels) const { return channels * columns + 16; }
  int64_t floats(int64_t channels) const {
    return 36 * (x_plane(channels) + dy_plane() + (rounds() > 1 ? sum_plane(channels) : 0));
  }
};
inline WinogradGradPlan winograd_grad_plan(const ConvShape& s, int64_t item) {
  WinogradGradPlan p = {0, 0, 0};
  if (gemm_has_tiles) return p;
  for (int axis = 0; axis < 2; axis++) {
    if (s.kernel[axis] != 3 || s.stride[axis] != 1 || s.dilation[axis] != 1) return p;
  }
  const int64_t channels = s.in_channels, columns = s.out_channels, down = (s.out[0] + 3) / 4, across = (s.out[1] + 3) / 4;
  if (item != 4 || s.groups != 1 || channels % 16 || columns % 16 || channels < 32 || columns < 32) return p;
  if (channels > 4096 || saturating_mul(s.out[0], s.out[1]) < saturating_mul(down, across, 10)) return p;
  const int64_t tiles = saturating_mul(s.batch, down, across);
  if (tiles < 8) return p;
  p.tiles = p.round = tiles;  // in one round, if values fit: their sums are finished where they are formed
  const int64_t parts = tiles <= kWinogradRoundMost ? (columns + kWinogradPart - 1) / kWinogradPart : 0;
  for (int64_t passes = 1; passes <= parts; passes++) {  // few, whose columns threads share
    p.columns = ((columns - 1) / passes / kWinogradPart + 1) * kWinogradPart;
    if (p.columns > columns) p.columns = columns;
    if (p.floats(channels) <= 2 * kWinogradRoundFloats) return p;
  }
  p.columns = larger(kWinogradSumFloats / (36 * channels) / kWinogradPart * kWinogradPart, kWinogradPart);
  if (p.columns > columns) p.columns = columns;
  const int64_t tile = 36 * (winograd_pitch(channels) + winograd_pitch(p.columns)), wide = 2 * kWinogradRoundFloats / tile;
  int64_t most = kWinogradRoundFloats / tile;
  if (most > kWinogradRoundMost) most = kWinogradRoundMost;
  if (most < 48) most = wide < 48 ? wide : 48;  // many channels
  if (most < 16) return {0, 0, 0};              // sums would be read and written for too few products
  const int64_t rounds = (tiles + most - 1) / most;
  p.round = (tiles + rounds - 1) / rounds;
  return p;
}

// AMX tiles (isa/conv_tiles.h): float32, channels that fill most of the blocks of 32, and products enough to outweigh the packing.
// Measured on Emerald Rapids.
constexpr int64_t kConvTileTaps = 49, kConvTileSpan = int64_t(1) << 20;
inline bool fills_tiles(int64_t n) { return n >= 32 && n * 4 >= (n + 31) / 32 * 32 * 3; }
inline bool conv_tiles_possible(const ConvShape& s, int64_t item) {
  return gemm_has_tiles && item == 4 && !s.depthwise() && fills_tiles(s.group_in()) && fills_tiles(s.group_out()) &&
         s.taps() <= kConvTileTaps && s.span(0) <= kConvTileSpan && s.span(1) <= kConvTileSpan;
}
// A gradient by the input with steps falls into phases, each of which would pack its source: not here. The source positions that
// taps reach are all packed, which costs about half of a product of tiles each.
inline bool gather_tiles_pay(const ConvShape& s, bool forward, int64_t item) {
  if (!conv_tiles_possible(s, item) || (!forward && (s.stride[0] > 1 || s.stride[1] > 1))) return false;
  const int64_t* count = forward ? s.out : s.in;
  const int64_t pixels = saturating_mul(count[0], count[1]), columns = forward ? s.group_out() : s.group_in();
  int64_t positions = 1;
  for (int axis = 0; axis < 2; axis++) {
    const int64_t reach = (count[axis] - 1) * s.stride[axis] + (s.kernel[axis] - 1) * s.dilation[axis];
    const int64_t every = greatest_divisor(s.stride[axis], s.dilation[axis]);
    positions = saturating_mul(positions, s.kernel[axis] == 1 ? count[axis] : reach / every + 1);
  }
  if (2 * positions > saturating_mul(pixels, s.taps(), (columns + 31) / 32)) return false;
  const int64_t all = saturating_mul(s.batch, pixels);
  return all >= 256 || (all >= 128 && saturating_mul(s.group_in(), s.group_out()) >= 256 * 256);
}
// Images side by side (isa/conv_tiles_images.h): all source pixels of some groups of sixteen images are packed at a time, in up to
// kImageTileBytes, or of one group in up to kMostImageTileBytes. 0: that is too much.
constexpr int64_t kTileImages = 16, kImageTileBytes = int64_t(8) << 20, kMostImageTileBytes = int64_t(24) << 20;
inline int64_t image_tile_bytes(const ConvShape& s, bool forward) {  // of a group: six for each number
  const int64_t* size = forward ? s.in : s.out;
  return saturating_mul(size[0], size[1], s.groups, ((forward ? s.group_in() : s.group_out()) + 31) / 32, kTileImages * 32 * 6);
}
inline int64_t image_tile_groups(const ConvShape& s, bool forward) {
  const int64_t bytes = image_tile_bytes(s, forward), all = (s.batch + kTileImages - 1) / kTileImages;
  if (bytes == 0 || bytes > kMostImageTileBytes) return 0;
  const int64_t most = larger(1, kImageTileBytes / bytes), rounds = (all + most - 1) / most;
  return rounds > 0 ? (all + rounds - 1) / rounds : 0;
}
// Pairs of an output position and a tap of an axis that meet inside the image.
inline int64_t live_taps(const ConvShape& s, int axis) {
  int64_t live = 0;
  for (int64_t k = 0; k < s.kernel[axis]; k++) {
    const Span span = inside(k * s.dilation[axis] - s.padding[axis], s.stride[axis], s.in[axis], 0, s.out[axis]);
    live += span.end - span.begin;
  }
  return live;
}
// What the ways to compute y or dx cost, in products of one pixel and tap on tiles that lie in rows, 32 by 32 channels. Measured on
// Emerald Rapids: Winograd's algorithm for what it would be without its savings, multiply-adds; and images side by side, whose
// source pixels are packed apart and whose results lie apart.
constexpr double kWinogradCost = 1.2, kMultiplyAdds = 2.4, kImageTiles = 1.08, kImagePacking = 1.5, kImageWriting = 0.7;
// Tiles of sixteen pixels where rows of `count` of them end within a tile: they are gone through in runs, with the positions
// between rows, which are `width` apart, or tiles over the end of a row are copied together, which takes about as long as their
// products (0.9 and 1.15 times as long, measured for rows of 28 and 14).
constexpr int64_t tile_run(int64_t rows, int64_t count, int64_t width) { return ((rows - 1) * width + count + 15) / 16 * 16; }
inline double copied_tiles(int64_t rows, int64_t count) {
  const double share = double(16 - greatest_divisor(16, count)) / double(count);
  return double(rows * count) * (share < 1 ? 1 + share : 2);
}
inline bool tile_runs_pay(int64_t rows, int64_t count, int64_t width) {
  return count % 16 != 0 && width > count && double(tile_run(rows, count, width)) <= copied_tiles(rows, count);
}
// How pixels lie there: positions from one to the next, down and across, and from row to row.
struct TileSteps {
  int64_t down, across, width;
  bool in_runs(int64_t rows, int64_t count) const { return down == 1 && across == 1 && tile_runs_pay(rows, count, width); }
};
inline TileSteps tile_steps(const ConvShape& s, bool forward) {
  int64_t step[2], tap[2];
  for (int axis = 0; axis < 2; axis++) {
    const int64_t stride = forward ? s.stride[axis] : 1;
    const int64_t every = s.kernel[axis] == 1 ? stride : greatest_divisor(stride, s.dilation[axis]);
    step[axis] = stride / every, tap[axis] = s.dilation[axis] / every;
  }
  const int64_t count = forward ? s.out[1] : s.in[1];
  return {step[0], step[1], (count - 1) * step[1] + (s.kernel[1] - 1) * tap[1] + 1};
}
inline bool image_tiles_pay(const ConvShape& s, bool forward, bool rows, bool winograd, int64_t item) {
  if (!conv_tiles_possible(s, item) || image_tile_groups(s, forward) == 0) return false;
  const int64_t *size = forward ? s.in : s.out, *count = forward ? s.out : s.in, columns = forward ? s.group_out() : s.group_in(),
                source = forward ? s.group_in() : s.group_out();
  const double images = double((s.batch + kTileImages - 1) / kTileImages * kTileImages), batch = double(s.batch),
               live = double(live_taps(s, 0)) * double(live_taps(s, 1)), taps = double(s.taps());
  if (images * live < 128 * taps) return false;
  const double packing = double(size[0] * size[1]) * kImagePacking / double((columns + 31) / 32),
               writing = double(count[0] * count[1]) * kImageWriting / double((source + 31) / 32);
  const double here = images * (live * kImageTiles + packing + writing);
  double other = batch * live * kMultiplyAdds;
  if (rows) {
    const TileSteps steps = tile_steps(s, forward);
    double positions = double(count[0] * count[1]);
    if (steps.in_runs(count[0], count[1]))
      positions = double(tile_run(count[0], count[1], steps.width));
    else if (steps.width > count[1])
      positions = copied_tiles(count[0], count[1]);
    const double all = batch * positions * taps;
    if (all < other) other = all;
  }
  if (winograd) {
    const double all = batch * double((count[0] + 3) / 4 * ((count[1] + 3) / 4) * 16) * taps * kWinogradCost;
    if (all < other) other = all;
  }
  return here < other;
}
// The gradient by the weights (isa/conv_tiles_weight.h): its sums run over rows of y. A block of 32 terms is `pixels` neighbours in
// a row by `images` images; where there are few images, each is cut in `cuts` parts of `rows` rows, which count as images.
struct WeightBlocks {
  int64_t images, pixels, columns, cuts, rows, groups;  // columns: blocks in a row; groups: of images
  int64_t splits, rows_per_split;                       // rows of all groups, in parts with sums of their own
};
// What a product of one pixel, tap and 32 x 32 channels costs there, all taps together: terms that are computed, but for taps
// outside the image where these are whole rows or blocks; and packing, for each block of channels that dy and x meet, x with the
// rows around a band of at most kWeightBandPixels.
constexpr double kPackGrad = 0.9, kPackInput = 0.7, kWeightMultiplyAdds = 2.0;
constexpr int64_t kWeightBandPixels = 2700;  // of x, in pixels of all images of a group
inline double weight_blocks(const ConvShape& s, WeightBlocks& best) {
  double least = -1, live[2];
  int64_t reach[2];
  for (int axis = 0; axis < 2; axis++) {
    live[axis] = double(live_taps(s, axis)) / double(s.kernel[axis]);
    reach[axis] = (s.kernel[axis] - 1) * s.dilation[axis] / s.stride[axis];
  }
  const double pack_grad = kPackGrad / double((s.group_in() + 31) / 32),
               pack_input = kPackInput / double((s.group_out() + 31) / 32);
  for (int64_t images = 2; images <= 32; images *= 2)
    for (int64_t cuts = 1; cuts <= images && cuts <= s.out[0]; cuts++) {
      WeightBlocks b = {images, 32 / images, 0, cuts, (s.out[0] + cuts - 1) / cuts, (s.batch * cuts + images - 1) / images, 1, 0};
      b.columns = (s.out[1] + b.pixels - 1) / b.pixels;
      const double down = cuts == 1 ? live[0] : double(b.rows), across = b.pixels == 1 ? live[1] : double(b.columns * b.pixels);
      const double terms = double(b.groups * images) * down * across / double(s.out_pixels());
      const int64_t line = (b.columns * b.pixels + reach[1]) * images, band = kWeightBandPixels / line - reach[0];
      const int64_t rows = band < 1 ? 1 : band < b.rows ? band : b.rows;
      const double halo = double(rows + reach[0]) / double(rows);
      const double cost = terms * (double(s.taps()) + pack_grad + pack_input * halo) * (1 + 0.002 * double(images + cuts));
      if (least < 0 || cost < least) least = cost, best = b;
    }
  return least;
}
inline bool weight_tiles_pay(const ConvShape& s, int64_t item) {
  if (!conv_tiles_possible(s, item) || s.group_out() % 4 || s.out_pixels() < 128) return false;  // dy is packed by four channels
  WeightBlocks blocks;
  const double live = double(live_taps(s, 0)) * double(live_taps(s, 1)) / double(s.out[0] * s.out[1]);
  return weight_blocks(s, blocks) <= kWeightMultiplyAdds * live;
}

// y = x * w, and dx = dy * flipped w: `source` channels are read, `columns` are written, per group. Weights for tiles are packed
// for some columns at a time, in up to kTileWeightBytes (or 32 columns of every group); for multiply-adds in up to
// kPlainWeightBytes (or 128 columns), or where they only stand in for tiles of images, or for Winograd's algorithm in rounds, in
// kSpareWeightBytes (or 32 columns): there, weights lie in scratch of threads.
constexpr int64_t kTileWeightBytes = int64_t(8) << 20, kSpareWeightBytes = int64_t(1) << 20, kPlainWeightBytes = int64_t(5) << 19;
// The columns of a pass, in panels of 32, where a panel takes so many bytes of `room`: passes are about equal.
inline int64_t pass_panels(int64_t columns, int64_t panel_bytes, int64_t room) {
  const int64_t panels = (columns + 31) / 32, most = larger(1, room / larger(1, panel_bytes)),
                passes = larger(1, (panels + most - 1) / most);
  return (panels + passes - 1) / passes;
}
struct ConvGatherPlan {
  int64_t pass_columns;  // of a group, whose weights are packed together; whole blocks of 32, or all
  int64_t zeros, positions, padded_input, weights, tile_source, winograd_shared, wide_out, bytes;
  bool product, planes, tiles, runs,
      images;  // tiles, images: on AMX tiles, pixels of a row (runs: and those between rows), or images, side by side
  WinogradPlan winograd;
};
inline ConvGatherPlan conv_gather_plan(const ConvShape& s, bool forward, int64_t item, bool narrow_out, bool allow_winograd) {
  ConvGatherPlan p;
  ConvScratch scratch;
  const int64_t source = forward ? s.group_in() : s.group_out(), columns = forward ? s.group_out() : s.group_in();
  const bool pad = forward && s.merges_row() && (s.padding[0] || s.padding[1]);
  p.zeros = scratch.add(saturating_mul(source + 1, item));
  p.positions = scratch.add(saturating_mul(s.taps(), 8));
  p.padded_input = scratch.add(pad ? saturating_mul(s.batch, s.padded(0), s.padded(1), s.in_channels, item) : 0);
  p.winograd = allow_winograd ? winograd_plan(s, forward, item) : WinogradPlan{0, 0, 0};
  // Tiles take sixteen pixels of a row. Where rows end elsewhere, Winograd's algorithm, if it applies, is as fast within a tenth
  // (images of 14 to 56) while the tile unit runs at its full rate, and faster when it does not; not for 16-bit numbers, as
  // bfloat16 needs one product of tiles instead of six.
  const bool whole_rows = (forward ? s.out : s.in)[1] % 16 == 0;
  p.tiles = gather_tiles_pay(s, forward, item) && (p.winograd.tiles == 0 || whole_rows || narrow_out);
  p.images = image_tiles_pay(s, forward, p.tiles, p.winograd.tiles > 0 && !narrow_out, item);
  p.tiles = p.tiles && !p.images;
  p.runs = p.tiles && tile_steps(s, forward).in_runs((forward ? s.out : s.in)[0], (forward ? s.out : s.in)[1]);
  if (p.tiles || p.images) p.winograd = {0, 0, 0};
  p.planes = !p.tiles && !p.images && p.winograd.tiles == 0 && !(forward && s.merges_row()) && plane_gather_pays(s, forward);
  p.product = s.product() && !p.planes;
  // Weights as tiles or as multiply-adds want them: where tiles give up, multiply-adds come next, and pack them anew.
  const int64_t tile_panel = saturating_mul(s.taps(), (source + 31) / 32, 32 * 32 * 6),
                plain_panel = saturating_mul(s.taps(), source, 32 * item);
  p.pass_columns = columns;
  if (s.groups == 1 && p.winograd.tiles == 0 && !p.product && !p.planes && !(forward && s.merges_row()))
    p.pass_columns =
        32 * (p.tiles ? pass_panels(columns, tile_panel, kTileWeightBytes)
                      : pass_panels(columns, plain_panel,
                                    p.images ? kSpareWeightBytes : larger(kPlainWeightBytes, saturating_mul(4, plain_panel))));
  if (p.winograd.round) p.pass_columns = 32 * pass_panels(columns, plain_panel, kSpareWeightBytes);
  if (p.pass_columns > columns) p.pass_columns = columns;
  int64_t weights = s.depthwise()
                        ? saturating_mul(s.taps(), s.in_channels, item)
                        : saturating_mul(s.groups, saturating_mul(s.taps(), source, whole_vectors(p.pass_columns, item)), item);
  if (p.tiles) weights = larger(weights, saturating_mul(s.groups, (p.pass_columns + 31) / 32, tile_panel));
  if (p.product) weights = larger(weights, saturating_mul(gemm_workspace_elements(1, s.out_pixels(), columns, source), item));
  const bool winograd = p.winograd.tiles > 0;
  p.weights = scratch.add(weights);
  p.tile_source = scratch.add(p.images ? saturating_mul(image_tile_groups(s, forward), image_tile_bytes(s, forward)) : 0);
  p.winograd_shared = scratch.add(winograd ? saturating_mul(p.winograd.shared_floats, item) : 0);
  p.wide_out = scratch.add(narrow_out ? saturating_mul(forward ? s.out_pixels() : s.in_pixels(), columns, s.groups, item) : 0);
  p.bytes = scratch.bytes;
  return p;
}

// dw, db: pixels are split into `splits` parts of whole rows of y; each part has sums of its own, added in order at the end.
// direct: one part, few taps; a block of input channels goes through all pixels before the next, so that its sums fit the stack.
constexpr int64_t kDirectTaps = 25;
struct ConvWeightPlan {
  int64_t splits, rows_per_split;  // rows of y, counted over the batch
  int64_t padded_input, padded_grad, sums, wide_out, bytes;
  bool pad_input, pad_grad, direct, tiles, planes, product;
  WeightBlocks blocks;  // on AMX tiles
  WinogradGradPlan winograd;
};
constexpr int64_t kConvProductChannels = kGemmPackLimit / 2048;  // x of kConvProductPixels is packed whole
constexpr int64_t kConvProductPixels = 2040;     // of a 1x1 convolution at a time: too few for sums in parts (gemm_splits)
constexpr int64_t kWeightFewSums = 256 << 10;    // numbers
constexpr int64_t kWeightBlockBytes = 64 << 10;  // of dy, that a part goes through at a time
// Whether the kernel can take the gradient of a max-pooling that follows, instead of dy, and spread it block by block.
inline bool conv_weight_spreads(const ConvShape& s, int64_t item) {
  const int64_t lanes = 64 / item;
  return s.groups == 1 && s.pads_input() && s.out_channels >= lanes &&
         saturating_mul(s.out[1], 2 * lanes, item) <= kWeightBlockBytes;
}
// filters: of all, where `some` has only some of them, which are summed as with all.
inline ConvWeightPlan conv_weight_plan(const ConvShape& some, int64_t item, bool narrow_out, bool allow_winograd,
                                       int64_t filters = 0) {
  ConvWeightPlan p;
  ConvScratch scratch;
  ConvShape s = some;
  if (filters > 0) s.out_channels = filters;
  const int64_t lanes = 64 / item, columns = whole_vectors(s.group_out(), item), own = whole_vectors(some.group_out(), item);
  const int64_t rows = saturating_mul(s.batch, s.out[0]), terms = saturating_mul(s.group_in(), s.taps()) + 1;
  // Parts enough to share among 16 threads, each with enough pixels to outweigh the final addition.
  const int64_t panels = saturating_mul(s.groups, (columns + 2 * lanes - 1) / (2 * lanes));
  p.tiles = weight_tiles_pay(s, item);  // multiply-adds are what is left where tiles give up: no memory is kept for many parts
  p.winograd = allow_winograd && !p.tiles ? winograd_grad_plan(s, item) : WinogradGradPlan{0, 0, 0};
  const bool winograd = p.winograd.tiles > 0;
  if (p.winograd.columns > some.out_channels) p.winograd.columns = some.out_channels;
  p.planes = !p.tiles && !winograd && !conv_weight_spreads(s, item) && plane_weights_pay(s);
  p.product = s.product() && !p.planes && some.out_channels >= lanes && !s.pads_input() && s.in_channels <= kConvProductChannels;
  int64_t splits = s.depthwise() ? 16 : panels < 16 && !p.tiles && !winograd && !p.product ? 16 / (panels > 0 ? panels : 1) : 1;
  if (splits > 1 && !s.depthwise()) {  // among 32 where the sums of all parts are few, as in first layers
    const int64_t sums = saturating_mul(s.groups, terms, columns), few = kWeightFewSums / (sums > 0 ? sums : 1);
    int64_t more = 32 / (panels > 0 ? panels : 1);
    if (more > few) more = few;
    if (more > s.out_pixels() / 512) more = s.out_pixels() / 512;
    if (splits < more) splits = more;
  }
  const int64_t most = s.out_pixels() / 256 + 1;
  if (splits > most) splits = most;
  if (splits > rows) splits = rows > 0 ? rows : 1;
  p.rows_per_split = rows > 0 ? (rows + splits - 1) / splits : 0;
  p.splits = rows > 0 ? (rows + p.rows_per_split - 1) / p.rows_per_split : 1;
  int64_t tile_sums = 0;
  if (p.tiles) {
    WeightBlocks& b = p.blocks;
    weight_blocks(s, b);
    const int64_t all = saturating_mul((s.group_in() + 31) / 32, (s.group_out() + 31) / 32, s.groups), k_rows = b.groups * b.rows;
    int64_t parts = all < 4 ? 8 : 32 / all > 1 ? 32 / all : 1;
    if (parts > most) parts = most;
    b.rows_per_split = (k_rows + parts - 1) / parts;
    if (b.rows_per_split > b.rows) b.rows_per_split = (b.rows_per_split + b.rows - 1) / b.rows * b.rows;
    b.splits = (k_rows + b.rows_per_split - 1) / b.rows_per_split;
    const int64_t own_blocks = saturating_mul((some.group_out() + 31) / 32, s.groups);
    if (b.splits > 1)
      tile_sums = saturating_mul(b.splits, saturating_mul((s.group_in() + 31) / 32, own_blocks, s.taps(), 1024 * item) +
                                               saturating_mul(own_blocks, 32, item));
  }
  p.pad_input = s.pads_input() && (s.padding[0] || s.padding[1]);
  p.pad_grad = !s.depthwise() && s.out_channels < lanes;
  const bool reads_little = s.taps() >= 4 || saturating_mul(s.in_pixels(), s.in_channels, item) <= 1 << 20;
  p.direct = !p.planes && p.splits == 1 && !s.depthwise() && s.group_in() > 0 && !s.pads_input() && s.taps() <= kDirectTaps &&
             reads_little;
  p.padded_input = scratch.add(p.pad_input ? saturating_mul(s.batch, s.padded(0), s.padded(1), s.in_channels, item) : 0);
  p.padded_grad = scratch.add(p.pad_grad ? saturating_mul(s.out_pixels(), lanes, item) : 0);
  if (s.depthwise())
    p.sums = scratch.add(saturating_mul(p.splits, s.taps() + 1, s.in_channels, item));
  else {
    int64_t plain = p.direct ? 0 : saturating_mul(saturating_mul(p.splits, s.groups), saturating_mul(terms, own), item);
    const int64_t pixels = s.out_pixels() < kConvProductPixels ? s.out_pixels() : kConvProductPixels;
    if (p.product) plain = saturating_mul(gemm_workspace_elements(1, some.out_channels, s.in_channels, pixels), item);
    p.sums = scratch.add(winograd ? p.winograd.floats(s.in_channels) * item : plain > tile_sums ? plain : tile_sums);
  }
  p.wide_out = scratch.add(narrow_out ? saturating_mul(some.out_channels, terms, item) : 0);
  p.bytes = scratch.bytes;
  return p;
}

}  // namespace
}  // namespace fastdl
