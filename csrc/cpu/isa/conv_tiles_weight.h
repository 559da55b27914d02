// Gradient of conv2d by its weights on AMX tiles: for each tap, A is x moved by the tap, transposed (32 channels by pixels), B is
// dy (pixels by 32 channels), and k runs over pixels.
//
// The pixels of a band of rows are split into parts once. In a row of A, pixels lie in the order of an image with its border, and
// dy has zeros where that order passes a border: so a tap is nothing but another begin of the rows. An axis may be unfolded: A then
// holds a copy of the pixels for every tap along it, without a border, and with any step. That pays where the border is a large
// share of the image.
#pragma once
#include "cpu/isa/conv_tiles.h"
#include "cpu/isa/conv_weight.h"

namespace fastdl {
namespace {

// Pixels in the order of a grid (images, count[0], count[1]) over source pixels first + position * step; none outside [0, size).
struct PixelGrid {
  int64_t size[2], pitch, image;  // image: elements from one to the next
  int64_t images, count[2], step[2], first[2];
  int64_t n = 0, y = 0, x = 0;

  // Offsets of the next 32 pixels; -1: outside, or past the end.
  FD_INLINE void take(int64_t (&offset)[kSide]) {
    for (int64_t i = 0; i < kSide;) {
      if (n == images) {
        for (; i < kSide; i++) offset[i] = -1;
        return;
      }
      const int64_t sy = first[0] + y * step[0], end = min_of(kSide, i + count[1] - x);
      const int64_t row = n * image + sy * size[1] * pitch;
      const bool inside = uint64_t(sy) < uint64_t(size[0]);
      for (; i < end; i++, x++) {
        const int64_t sx = first[1] + x * step[1];
        offset[i] = inside && uint64_t(sx) < uint64_t(size[1]) ? row + sx * pitch : -1;
      }
      if (x < count[1]) return;
      x = 0;
      if (++y == count[0]) y = 0, n++;
    }
  }
};

alignas(64) constexpr float kNoPixel[kSide] = {};

struct PixelRows {
  const float* at[kSide];
  PixelRows(const float* base, const int64_t (&offset)[kSide]) {
    for (int i = 0; i < kSide; i++) at[i] = offset[i] < 0 ? kNoPixel : base + offset[i];
  }
};

// Four channels of sixteen pixels, transposed: vector j holds channel j.
FD_INLINE void read_columns(const float* const* at, int64_t channel, VecF (&out)[4]) {
  const auto lanes = [&](int i) __attribute__((always_inline)) {
    __m512 r = _mm512_castps128_ps512(_mm_loadu_ps(at[i] + channel));
    r = _mm512_insertf32x4(r, _mm_loadu_ps(at[i + 4] + channel), 1);
    r = _mm512_insertf32x4(r, _mm_loadu_ps(at[i + 8] + channel), 2);
    return VecF(VecF::Native(_mm512_insertf32x4(r, _mm_loadu_ps(at[i + 12] + channel), 3)));
  };
  const VecF r0 = lanes(0), r1 = lanes(1), r2 = lanes(2), r3 = lanes(3);
  const VecD a = bit_cast<double>(unpack_lo(r0, r1)), b = bit_cast<double>(unpack_lo(r2, r3));
  const VecD e = bit_cast<double>(unpack_hi(r0, r1)), f = bit_cast<double>(unpack_hi(r2, r3));
  out[0] = bit_cast<float>(unpack_lo(a, b));
  out[1] = bit_cast<float>(unpack_hi(a, b));
  out[2] = bit_cast<float>(unpack_lo(e, f));
  out[3] = bit_cast<float>(unpack_hi(e, f));
}

// A: `channels` rows (a multiple of four) of 32 pixels.
template <int parts>
inline __m512i pack_pixels_a(const PixelRows& pixels, int64_t channels, uint16_t* out, int64_t row_words, __m512i most) {
  for (int64_t c = 0; c < channels; c += 4) {
    VecF left[4], right[4];
    read_columns(pixels.at, c, left);
    read_columns(pixels.at + 16, c, right);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      const __m512 x = (__m512)left[j].v, y = (__m512)right[j].v;
      most = _mm512_max_epu32(most, _mm512_max_epu32(magnitude(x), magnitude(y)));
      split_row<parts>(x, y, out + (c + j) * row_words, kSide * row_words);
    }
  }
  return most;
}

// B: 32 pixels by one or two vectors of channels, pixels 2 p and 2 p + 1 in pairs.
template <int parts>
inline __m512i pack_pixels_b(const PixelRows& pixels, int vectors, uint16_t* out, __m512i most) {
  for (int half = 0; half < vectors; half++)
    for (int p = 0; p < 16; p++) {
      const __m512 x = _mm512_loadu_ps(pixels.at[2 * p] + half * 16), y = _mm512_loadu_ps(pixels.at[2 * p + 1] + half * 16);
      most = _mm512_max_epu32(most, _mm512_max_epu32(magnitude(x), magnitude(y)));
      split_pair<parts>(x, y, out + half * 512 + p * kSide);
    }
  return most;
}

// A band of pixels, and how it lies in the rows of A and in blocks of B.
template <int parts>
struct WeightBand {
  const WeightGrad<float>& w;
  PixelBlock pixels;
  bool unfold[2];
  int64_t width, region;         // of an image in a row of A
  int64_t image_blocks, blocks;  // of k: per image (or all, if they lie without gaps), in all
  int64_t row_words;             // of A, an odd number of lines: rows spread over the sets of the cache

  WeightBand(const WeightGrad<float>& w, const PixelBlock& pixels, const bool (&axes)[2])
      : w(w), pixels(pixels), unfold{axes[0], axes[1]} {
    const ConvShape& s = w.s;
    const int64_t rows = pixels.y1 - pixels.y0;
    width = s.out[1] + (unfold[1] ? 0 : (s.kernel[1] - 1) * s.dilation[1]);
    region = (rows + (unfold[0] ? 0 : (s.kernel[0] - 1) * s.dilation[0])) * width;
    image_blocks = ceil_div(dense() ? pixels.images * region : (rows - 1) * width + s.out[1], kSide);
    blocks = dense() ? image_blocks : image_blocks * pixels.images;
    const int64_t length = dense() ? blocks * kSide : pixels.images * region + 2 * kSide;
    row_words = (ceil_div(length, kSide) | 1) * kSide;
  }
  bool dense() const { return unfold[0] && unfold[1]; }
  int64_t copies() const { return (unfold[0] ? w.s.kernel[0] : 1) * (unfold[1] ? w.s.kernel[1] : 1); }
  int64_t a_block() const { return parts * kSide * row_words; }  // words of 32 channels
  int64_t a_words(int64_t channel_blocks) const { return copies() * channel_blocks * a_block(); }
  int64_t b_words(int64_t panels) const { return panels * blocks * block_words(parts); }
  // Where a tap of the first block of channels begins.
  int64_t tap_offset(int64_t tap, int64_t channel_blocks) const {
    const ConvShape& s = w.s;
    const int64_t v = tap / s.kernel[1], h = tap % s.kernel[1];
    const int64_t copy = (unfold[0] ? v * (unfold[1] ? s.kernel[1] : 1) : 0) + (unfold[1] ? h : 0);
    return copy * channel_blocks * a_block() + (unfold[0] ? 0 : v * s.dilation[0] * width) + (unfold[1] ? 0 : h * s.dilation[1]);
  }
  void set_offsets(int64_t* offset) const {
    for (int64_t b = 0; b < blocks; b++) offset[b] = b / image_blocks * region + b % image_blocks * kSide;
  }

  __m512i pack_a(int64_t group, int64_t first, int64_t last, uint16_t* out, __m512i most) const {
    const ConvShape& s = w.s;
    const int64_t rows = pixels.y1 - pixels.y0, image = w.x_size[0] * w.x_size[1] * s.in_channels;
    const float* base = w.x + pixels.n * image + group * s.group_in();
    PixelGrid grid = {
        {w.x_size[0], w.x_size[1]}, s.in_channels, image, pixels.images, {rows, width}, {s.stride[0], s.stride[1]}, {}};
    if (!unfold[0]) grid.count[0] += (s.kernel[0] - 1) * s.dilation[0];
    const int64_t across = unfold[1] ? s.kernel[1] : 1;
    for (int64_t copy = 0; copy < copies(); copy++) {
      grid.first[0] = pixels.y0 * s.stride[0] - w.padding[0] + copy / across * s.dilation[0];
      grid.first[1] = copy % across * s.dilation[1] - w.padding[1];
      grid.n = grid.y = grid.x = 0;
      for (int64_t at = 0; at < row_words; at += kSide) {
        int64_t offset[kSide];
        grid.take(offset);
        for (int64_t c = first; c < last; c++) {
          const int64_t channels = min_of(kSide, s.group_in() - c * kSide);
          most = pack_pixels_a<parts>(PixelRows(base + c * kSide, offset), channels,
                                      out + (copy * (last - first) + c - first) * a_block() + at, row_words, most);
        }
      }
    }
    return most;
  }

  __m512i pack_b(int64_t group, int64_t first, int64_t last, uint16_t* out, __m512i most) const {
    const ConvShape& s = w.s;
    const int64_t image = s.out[0] * s.out[1] * w.dy_pitch;
    for (int64_t i = 0; i < (dense() ? 1 : pixels.images); i++) {
      PixelGrid grid = {{pixels.y1, s.out[1]},          w.dy_pitch, image,         dense() ? pixels.images : 1,
                        {pixels.y1 - pixels.y0, width}, {1, 1},     {pixels.y0, 0}};
      for (int64_t b = 0; b < image_blocks; b++) {
        int64_t offset[kSide];
        grid.take(offset);
        for (int64_t p = first; p < last; p++) {
          const float* base = w.dy + (pixels.n + i) * image + w.first_column(group, p);
          most = pack_pixels_b<parts>(PixelRows(base, offset), w.panels().vectors(p),
                                      out + ((p - first) * blocks + i * image_blocks + b) * block_words(parts), most);
        }
      }
    }
    return most;
  }
};

// How the work is cut. Sums are cut in splits and bands, from sizes alone; the groups may follow the threads.
struct WeightTiles {
  int64_t channel_blocks, panels, channel_groups, panel_groups, band_rows;
  bool unfold[2];
  bool fits;  // the scratch holds a row
};

// What a pixel costs, about, per block of 32 x 32 channels: in nanoseconds, but only ratios matter.
template <int parts>
inline double pixel_cost(const WeightGrad<float>& w, const bool (&unfold)[2]) {
  const WeightBand<parts> image(w, {0, 1, 0, w.s.out[0]}, unfold);
  const double pixels = double(max_of<int64_t>(1, w.s.out[0] * w.s.out[1]));
  const double product = double(w.s.taps()) * kConvTileProduct * (image.dense() ? 1 : kConvTileShifted);
  const double share = image.dense() ? 1 : double(image.blocks * kSide) / pixels;
  const double packing = double(image.copies() * image.region) / pixels * kConvTilePacking;
  return share * product + packing / double(min_of<int64_t>(8, w.panels().count));
}

template <int parts>
inline WeightTiles plan_weight_tiles(const WeightGrad<float>& w) {
  const ConvShape& s = w.s;
  WeightTiles p = {ceil_div(s.group_in(), kSide), w.panels().count, 1, 1, 1, {true, true}, false};
  constexpr bool axes[3][2] = {{true, true}, {false, true}, {false, false}};
  for (const auto& unfold : axes)
    if ((unfold[0] || s.stride[0] == 1) && (unfold[1] || s.stride[1] == 1) &&
        pixel_cost<parts>(w, unfold) < pixel_cost<parts>(w, p.unfold))
      for (int axis = 0; axis < 2; axis++) p.unfold[axis] = unfold[axis];
  const auto piece_channels = [&] { return ceil_div(p.channel_blocks, p.channel_groups); };
  const auto piece_panels = [&] { return ceil_div(p.panels, p.panel_groups); };
  const auto fits = [&](int64_t images, int64_t rows) {
    if (images > kConvTileWords) return false;
    const WeightBand<parts> band(w, {0, images, 0, rows}, p.unfold);
    return band.row_words <= kConvTileWords && band.a_words(piece_channels()) + band.b_words(piece_panels()) <= kConvTileWords &&
           band.blocks <= kConvTileBlocks;
  };
  // Pieces enough for some threads, their sums in the cache. Packing costs least where A and B take as much of it.
  const int64_t copies = WeightBand<parts>(w, {0, 1, 0, 1}, p.unfold).copies();
  const auto cut = [&](int64_t wanted) {
    while (piece_channels() > 1 || piece_panels() > 1) {
      const int64_t sums = piece_channels() * piece_panels() * s.taps() * kSide * kSide;
      const bool many = w.splits * s.groups * p.channel_groups * p.panel_groups >= wanted;
      if (many && sums <= (fits(s.batch, s.out[0]) ? kConvTileFloats : kConvTileFloats / 2)) break;
      const bool cut_channels = piece_panels() == 1 || (piece_channels() > 1 && copies * piece_channels() >= piece_panels());
      (cut_channels ? p.channel_groups : p.panel_groups)++;
    }
  };
  cut(8);
  // as many rows as fit the scratch: whole images, or part of one
  p.fits = fits(1, 1);
  if (!p.fits) return p;
  if (fits(1, s.out[0])) {
    int64_t images = 1;
    while (images < s.batch && fits(images + 1, s.out[0])) images++;
    p.band_rows = images * s.out[0];
  } else {
    while (fits(1, p.band_rows + 1)) p.band_rows++;
  }
  cut(2 * num_threads());  // bands stay as they are, for equal sums
  return p;
}

// sums += or = a block.
FD_INLINE void add_block(const float* block, int64_t rows, int64_t width, float* sums, bool fresh) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < width; j += 16) {
      __m512 v = _mm512_load_ps(block + i * kSide + j);
      if (!fresh) v = _mm512_add_ps(v, _mm512_loadu_ps(sums + i * width + j));
      _mm512_storeu_ps(sums + i * width + j, v);
    }
}

// False where operands do not split well. Where pixels are not cut in parts, a piece finishes its own share of dw.
template <int parts>
inline bool weight_on_tiles(const WeightGrad<float>& w) {
  const ConvShape& s = w.s;
  const WeightTiles plan = plan_weight_tiles<parts>(w);
  if (!plan.fits) return false;
  Magnitudes found;
  const Blocks channels(plan.channel_blocks, ceil_div(plan.channel_blocks, plan.channel_groups));
  const Blocks panels(plan.panels, ceil_div(plan.panels, plan.panel_groups));
  const int64_t pieces = w.splits * s.groups * channels.count * panels.count;
  parallel_chunks(pieces, [&](int64_t piece) {
    const int64_t pb = piece % panels.count, cb = piece / panels.count % channels.count;
    const int64_t group = piece / panels.count / channels.count % s.groups,
                  split = piece / panels.count / channels.count / s.groups;
    const int64_t c0 = channels.begin(cb), c1 = channels.begin(cb + 1), p0 = panels.begin(pb), p1 = panels.begin(pb + 1);
    const int64_t dy_rows = min_of(s.batch * s.out[0] - split * w.rows_per_split, w.rows_per_split);
    piece_work(weight_macs(w, dy_rows, (c1 - c0) * kSide, (p1 - p0) * kSide), kConvPieceMacs);
    const ConvTileScratch scratch;
    if (!scratch.words) return found.fail();
    alignas(64) float block[kSide * kSide];
    int64_t offset[kConvTileBlocks];
    __m512i most_a = _mm512_setzero_si512(), most_b = most_a;
    const bool whole = w.splits == 1;
    const int64_t count = min_of(c1 * kSide, s.group_in()) - c0 * kSide;  // channels
    const int64_t layout = whole ? count : s.group_in(), first = whole ? 0 : c0 * kSide;
    const auto sums = [&](int64_t p) {  // [tap][layout channels][width]
      return whole ? scratch.floats() + (p - p0) * s.taps() * layout * kSide : w.panel_sums(split, group, p);
    };
    const auto bias_sums = [&](int64_t p) { return w.panel_sums(split, group, p) + (w.rows() - 1) * w.panels().width(p); };
    const TileRegisters tiles;
    for_bands(w, split, plan.band_rows, [&](const PixelBlock& pixels, bool fresh) {
      const WeightBand<parts> band(w, pixels, plan.unfold);
      uint16_t *const a = scratch.words, *const b = a + band.a_words(c1 - c0);
      most_a = band.pack_a(group, c0, c1, a, most_a);
      most_b = band.pack_b(group, p0, p1, b, most_b);
      band.set_offsets(offset);
      for (int64_t c = c0; c < c1; c++)
        for (int64_t tap = 0; tap < s.taps(); tap++) {
          const uint16_t* rows = a + (c - c0) * band.a_block() + band.tap_offset(tap, c1 - c0);
          const TileRows upper = {rows, offset, kSide * band.row_words, 2 * band.row_words};
          const TileRows lower = {rows + 16 * band.row_words, offset, upper.part_words, upper.row_bytes};
          const int64_t used = min_of(kSide, s.group_in() - c * kSide);
          for (int64_t p = p0; p < p1; p++) {
            const int64_t width = w.panels().width(p);
            multiply_rows<parts>(upper, lower, b + (p - p0) * band.blocks * block_words(parts), band.blocks, block, used, width);
            add_block(block, used, width, sums(p) + (tap * layout + first + (c - c0) * kSide) * width, fresh);
          }
        }
      if (cb > 0) return;
      for (int64_t p = p0; p < p1; p++) add_bias(WeightPanel<float>(w, group, p), pixels, fresh, bias_sums(p));
    });
    for (int64_t p = p0; whole && p < p1; p++) {
      const WeightPanel<float> panel(w, group, p);
      finish_channels(panel, sums(p), layout, 0, 1, 0, c0 * kSide, count);
      if (cb == 0) finish_bias(panel, bias_sums(p), 1, 0);
    }
    found.note_a(most_a);
    found.note_b(most_b);
  });
  if (!found.split_well(s.out_pixels())) return false;
  if (w.splits > 1) finish_weight_grad(w);
  return true;
}

inline bool weight_on_tiles(const WeightGrad<float>& w) {
  return with_parts(w.parts, [&](auto parts) { return weight_on_tiles<parts.count>(w); });
}

}  // namespace
}  // namespace fastdl
