// Conv2d: geometry and scratch layout, shared by inference (which reserves the scratch) and the kernels (which use it).
// Everything depends on sizes only, never on the instruction set's or the pool's width, and saturates instead of overflowing.
#pragma once
#include <cstdint>

#include "core/gemm_workspace.h"

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

// Columns rounded up to the widest vector of any instruction set.
inline int64_t whole_vectors(int64_t n, int64_t item) { return (n + 64 / item - 1) / (64 / item) * (64 / item); }

// Winograd's algorithm for 3x3 kernels in float32: `chunks` parts with scratch of their own, for blocks of up to kWinogradTiles
// tiles of 4x4 output pixels. chunks == 0: not worth it, or not possible.
constexpr int64_t kWinogradTiles = 33;
struct WinogradPlan {
  int64_t tiles, chunks, chunk_floats;
};
inline WinogradPlan winograd_plan(const ConvShape& s, bool forward, int64_t item) {
  WinogradPlan p = {0, 0, 0};
  const int64_t source = forward ? s.in_channels : s.out_channels, columns = forward ? s.out_channels : s.in_channels;
  const int64_t* size = forward ? s.out : s.in;
  for (int axis = 0; axis < 2; axis++) {
    if (s.kernel[axis] != 3 || s.stride[axis] != 1 || s.dilation[axis] != 1) return p;
  }
  // Worth it: channels enough to outweigh the transforms, few pixels wasted in tiles at the edge, tiles enough to outweigh the
  // transform of the weights, and a block that stays in the L2 cache.
  if (item != 4 || s.groups != 1 || source % 16 || source < 32 || source > 384 || columns < 32) return p;
  const int64_t down = (size[0] + 3) / 4, across = (size[1] + 3) / 4;
  p.tiles = saturating_mul(s.batch, down, across);
  if (p.tiles < 48 || saturating_mul(size[0], size[1]) < saturating_mul(down, across, 10)) return p;
  p.chunk_floats = 36 * kWinogradTiles * (source + 32);
  p.chunks = (int64_t(6) << 20) / p.chunk_floats;  // 24 MB in all
  p.chunks = p.chunks > 32 ? 32 : p.chunks < 8 ? 8 : p.chunks;
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
  return all >= 512 || (all >= 128 && saturating_mul(s.group_in(), s.group_out()) >= 256 * 256);
}
// Taps outside the image are multiplied all the same, which multiply-adds leave out. With one tap, x and dy are packed for few
// products, kPackingProducts of which take as long as packing a number of each.
constexpr double kLeastShare = 0.6;
constexpr int64_t kPackingProducts = 45;
inline bool weight_tiles_pay(const ConvShape& s, int64_t item) {
  const int64_t in = s.group_in(), out = s.group_out();
  if (!conv_tiles_possible(s, item) || in % 4 || s.out_pixels() < 128) return false;  // x is packed by four channels
  if (s.taps() == 1 && (s.out_pixels() < 1024 || in * out < kPackingProducts * (in + out))) return false;
  double share = 1;  // of taps and pixels that are inside
  for (int axis = 0; axis < 2; axis++) {
    int64_t live = 0;
    for (int64_t k = 0; k < s.kernel[axis]; k++) {
      const Span span = inside(k * s.dilation[axis] - s.padding[axis], s.stride[axis], s.in[axis], 0, s.out[axis]);
      live += span.end - span.begin;
    }
    share *= double(live) / double(s.kernel[axis] * s.out[axis]);
  }
  return share >= kLeastShare;
}

// y = x * w, and dx = dy * flipped w: `source` channels are read, `columns` are written, per group.
struct ConvGatherPlan {
  int64_t zeros, positions, padded_input, weights, tile_weights, winograd_weights, winograd_scratch, wide_out, bytes;
  bool tiles;
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
  if (s.depthwise())
    p.weights = scratch.add(saturating_mul(s.taps(), s.in_channels, item));
  else
    p.weights = scratch.add(saturating_mul(s.groups, saturating_mul(s.taps(), source, whole_vectors(columns, item)), item));
  p.winograd = allow_winograd ? winograd_plan(s, forward, item) : WinogradPlan{0, 0, 0};
  // Tiles take sixteen pixels of a row. Where rows end elsewhere, Winograd's algorithm is faster, if it applies; not for
  // 16-bit numbers, as bfloat16 needs one product of tiles instead of six.
  const bool whole_rows = (forward ? s.out : s.in)[1] % 16 == 0;
  p.tiles = gather_tiles_pay(s, forward, item) && (p.winograd.chunks == 0 || whole_rows || narrow_out);
  if (p.tiles) p.winograd = {0, 0, 0};
  const int64_t tile_blocks = saturating_mul((source + 31) / 32, (columns + 31) / 32);  // six bytes for each weight
  p.tile_weights = scratch.add(p.tiles ? saturating_mul(s.groups, s.taps(), tile_blocks, 32 * 32 * 6) : 0);
  const bool winograd = p.winograd.chunks > 0;
  p.winograd_weights = scratch.add(winograd ? saturating_mul(36, source, whole_vectors(columns, item), item) : 0);
  p.winograd_scratch = scratch.add(winograd ? saturating_mul(p.winograd.chunks, p.winograd.chunk_floats, item) : 0);
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
  bool pad_input, pad_grad, direct, tiles;
};
constexpr int64_t kWeightBlockBytes = 64 << 10;  // of dy, that a part goes through at a time
// Whether the kernel can take the gradient of a max-pooling that follows, instead of dy, and spread it block by block.
inline bool conv_weight_spreads(const ConvShape& s, int64_t item) {
  const int64_t lanes = 64 / item;
  return s.groups == 1 && s.pads_input() && s.out_channels >= lanes &&
         saturating_mul(s.out[1], 2 * lanes, item) <= kWeightBlockBytes;
}
inline ConvWeightPlan conv_weight_plan(const ConvShape& s, int64_t item, bool narrow_out) {
  ConvWeightPlan p;
  ConvScratch scratch;
  const int64_t lanes = 64 / item, columns = whole_vectors(s.group_out(), item);
  const int64_t rows = saturating_mul(s.batch, s.out[0]), terms = saturating_mul(s.group_in(), s.taps()) + 1;
  // Parts enough to share among 16 threads, each with enough pixels to outweigh the final addition.
  const int64_t panels = saturating_mul(s.groups, (columns + 2 * lanes - 1) / (2 * lanes));
  int64_t splits = s.depthwise() ? 16 : panels < 16 ? 16 / (panels > 0 ? panels : 1) : 1;
  const int64_t most = s.out_pixels() / 256 + 1;
  p.tiles = weight_tiles_pay(s, item);
  const int64_t blocks = saturating_mul((s.group_in() + 31) / 32, panels);  // of 32 x 32 weights
  if (p.tiles) splits = blocks < 4 ? 8 : 32 / blocks > 1 ? 32 / blocks : 1;
  if (splits > most) splits = most;
  if (splits > rows) splits = rows > 0 ? rows : 1;
  p.rows_per_split = rows > 0 ? (rows + splits - 1) / splits : 0;
  if (p.tiles && p.rows_per_split > s.out[0]) p.rows_per_split = (p.rows_per_split + s.out[0] - 1) / s.out[0] * s.out[0];
  p.splits = rows > 0 ? (rows + p.rows_per_split - 1) / p.rows_per_split : 1;
  p.pad_input = s.pads_input() && (s.padding[0] || s.padding[1]);
  p.pad_grad = !s.depthwise() && s.out_channels < lanes;
  const bool reads_little = s.taps() >= 4 || saturating_mul(s.in_pixels(), s.in_channels, item) <= 1 << 20;
  p.direct =
      !p.tiles && p.splits == 1 && !s.depthwise() && s.group_in() > 0 && !s.pads_input() && s.taps() <= kDirectTaps && reads_little;
  p.padded_input = scratch.add(p.pad_input ? saturating_mul(s.batch, s.padded(0), s.padded(1), s.in_channels, item) : 0);
  p.padded_grad = scratch.add(p.pad_grad ? saturating_mul(s.out_pixels(), lanes, item) : 0);
  if (s.depthwise())
    p.sums = scratch.add(saturating_mul(p.splits, s.taps() + 1, s.in_channels, item));
  else
    p.sums = scratch.add(p.direct ? 0 : saturating_mul(saturating_mul(p.splits, s.groups), saturating_mul(terms, columns), item));
  p.wide_out = scratch.add(narrow_out ? saturating_mul(s.out_channels, terms, item) : 0);
  p.bytes = scratch.bytes;
  return p;
}

}  // namespace
}  // namespace fastdl
