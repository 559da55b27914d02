// Gradient of conv2d by its weights on AMX tiles: dw[tap] = dy^T x moved by the tap, a product whose k runs over pixels and images.
//
// A block of k is some neighbouring pixels of a row of dy by some images, 32 in all (WeightBlocks). A is dy, transposed: 32 filters
// by a block. B is x: pairs of images are the pairs of a tile of B, so that a row of the tile belongs to one pixel, and any sixteen
// rows on end are a tile: x is split into parts once and serves all taps, whose rows of pixels outside the image are left out.
// With a step, pixels that a tap reads are neighbours: x is kept by its remainders.
#pragma once
#include "cpu/isa/conv_tiles.h"
#include "cpu/isa/conv_weight.h"

namespace fastdl {
namespace {

alignas(64) constexpr float kNoPixel[kSide] = {};

// Along one axis, tap k of position i reads source position i * stride + k * dilation - padding: of its phase, the
// (i + ahead(k))-th.
struct TapPhases : AxisPhases {
  using AxisPhases::AxisPhases;
  int64_t phase(int64_t tap) const { return tap % period; }
  int64_t ahead(int64_t tap) const { return tap * dilation / stride; }
  int64_t length(int64_t positions) const { return positions + ahead(taps - 1); }  // of a phase, for so many outputs
  int64_t source(int64_t phase, int64_t at) const { return at * stride + phase * dilation % stride - padding; }
};

// Rows [y0, y1) of `groups` groups of images from `group` on.
struct KRows {
  int64_t group, groups, y0, y1;
};

// How the work is cut. Sums are cut in splits and bands, from sizes alone; the ranges of a piece may follow the threads.
struct WeightTiles {
  int64_t in_blocks, out_blocks, band_rows, in_groups, out_groups;
  bool fits, whole;  // whole: one band takes all, so that sums are finished as soon as they are made
};

template <int parts>
struct WeightBand {
  const WeightGrad<float>& w;
  const WeightBlocks& k;
  TapPhases down, across;
  KRows rows;

  WeightBand(const WeightGrad<float>& w, const WeightBlocks& k, const KRows& rows)
      : w(w), k(k), down(w.s, 0), across(w.s, 1), rows(rows) {}
  static int64_t row_words() { return parts * 2 * kSide; }  // of B, for each pixel and pair of images
  int64_t height() const { return rows.y1 - rows.y0; }
  int64_t blocks() const { return rows.groups * height() * k.columns; }
  int64_t width() const { return across.length(k.columns * k.pixels); }
  int64_t source_rows() const { return down.count * down.length(height()); }  // of a group
  int64_t a_words() const { return blocks() * block_words(parts); }           // of 32 filters
  int64_t b_words() const {                                                   // of 32 channels
    return saturating_mul(rows.groups, source_rows(), saturating_mul(across.count, width(), k.images / 2 * row_words()));
  }

  // Image i of a group: where its first row of dy is; false if there is none.
  bool locate(int64_t group, int64_t i, int64_t& n, int64_t& y) const {
    const int64_t part = group * k.images + i;
    n = part / k.cuts, y = part % k.cuts * k.rows;
    return n < w.s.batch;
  }

  // dy of `count` blocks of filters: [block of filters][block of k][half][part][16 filters][32 pixels]; adds their sums to bias,
  // sixteen for each filter, if that is given.
  __m512i pack_a(int64_t conv_group, int64_t first, int64_t count, uint16_t* out, float* bias, __m512i most) const {
    const ConvShape& s = w.s;
    int64_t block = 0;
    for (int64_t g = 0; g < rows.groups; g++)
      for (int64_t y = rows.y0; y < rows.y1; y++)
        for (int64_t j = 0; j < k.columns; j++, block++) {
          const float* at[kSide];
          for (int64_t i = 0; i < k.images; i++) {
            int64_t n, top;
            const bool exists = locate(rows.group + g, i, n, top) && top + y < s.out[0];
            const float* row = w.dy + (exists ? (n * s.out[0] + top + y) * s.out[1] * w.dy_pitch : 0) + conv_group * s.group_out();
            for (int64_t x = 0; x < k.pixels; x++) {
              const int64_t column = j * k.pixels + x;
              at[x * k.images + i] = exists && column < s.out[1] ? row + column * w.dy_pitch : nullptr;
            }
          }
          for (int64_t p = 0; p < count; p++) {
            const float* pixel[kSide];
            for (int i = 0; i < kSide; i++) pixel[i] = at[i] ? at[i] + (first + p) * kSide : kNoPixel;
            const int64_t filters = min_of(kSide, s.group_out() - (first + p) * kSide);
            most = pack_filters(pixel, filters, out + p * a_words() + block * block_words(parts),
                                bias ? bias + p * kSide * 16 : nullptr, most);
          }
        }
    return most;
  }
  // One block: filters is a multiple of four.
  static __m512i pack_filters(const float* const (&pixel)[kSide], int64_t filters, uint16_t* out, float* bias, __m512i most) {
    for (int64_t c = 0; c < filters; c += 4) {
      VecF left[4], right[4];
      read_columns(pixel, c, left);
      read_columns(pixel + 16, c, right);
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) {
        const __m512 a = (__m512)left[j].v, b = (__m512)right[j].v;
        most = _mm512_max_epu32(most, _mm512_max_epu32(magnitude(a), magnitude(b)));
        split_row<parts>(a, b, out + (c + j) / 16 * parts * 512 + (c + j) % 16 * kSide, 512);
        if (bias) store(bias + (c + j) * 16, load(bias + (c + j) * 16) + (left[j] + right[j]));
      }
    }
    return most;
  }

  // x of 32 channels: [group][phase][source row][phase][pixel][pair of images][part][32 channels], pairs of words.
  __m512i pack_b(int64_t conv_group, int64_t block, uint16_t* out, __m512i most) const {
    const ConvShape& s = w.s;
    const int64_t left = s.group_in() - block * kSide, tall = down.length(height());
    const __mmask16 mask0 = first_lanes(left), mask1 = first_lanes(left - 16);
    const float* base = w.x + conv_group * s.group_in() + block * kSide;
    for (int64_t g = 0; g < rows.groups; g++)
      for (int64_t t = 0; t < source_rows(); t++) {
        const int64_t sy = down.source(t / tall, rows.y0 + t % tall);
        const float* row[kSide];
        for (int64_t i = 0; i < k.images; i++) {
          int64_t n, top;
          const bool exists = locate(rows.group + g, i, n, top);
          const int64_t y = top * s.stride[0] + sy;
          row[i] = exists && uint64_t(y) < uint64_t(s.in[0]) ? base + (n * s.in[0] + y) * s.in[1] * s.in_channels : nullptr;
        }
        for (int64_t phase = 0; phase < across.count; phase++)
          for (int64_t at = 0; at < width(); at++) {
            const int64_t x = across.source(phase, at);
            const bool inside = uint64_t(x) < uint64_t(s.in[1]);
            for (int64_t i = 0; i < k.images; i += 2, out += row_words()) {
              const float *a = inside && row[i] ? row[i] + x * s.in_channels : kNoPixel,
                          *b = inside && row[i + 1] ? row[i + 1] + x * s.in_channels : kNoPixel;
              const __m512 a0 = _mm512_maskz_loadu_ps(mask0, a), b0 = _mm512_maskz_loadu_ps(mask0, b);
              const __m512 a1 = _mm512_maskz_loadu_ps(mask1, a + 16), b1 = _mm512_maskz_loadu_ps(mask1, b + 16);
              most = _mm512_max_epu32(most, _mm512_max_epu32(magnitude(a0), magnitude(b0)));
              most = _mm512_max_epu32(most, _mm512_max_epu32(magnitude(a1), magnitude(b1)));
              split_pair<parts>(a0, b0, out, 2 * kSide);
              split_pair<parts>(a1, b1, out + kSide, 2 * kSide);
            }
          }
      }
    return most;
  }

  // The blocks of a tap.
  void list(int64_t tap, TileBlocks& out) const {
    const ConvShape& s = w.s;
    const int64_t v = tap / s.kernel[1], h = tap % s.kernel[1];
    const Span span = inside(h * s.dilation[1] - s.padding[1], s.stride[1], s.in[1], 0, s.out[1]);
    const int64_t j0 = span.begin / k.pixels, j1 = span.begin < span.end ? ceil_div(span.end, k.pixels) : j0;
    const int64_t line = across.count * width(), group = source_rows() * line, pixel = k.images / 2 * row_words();
    const int64_t first = down.source(down.phase(v), rows.y0 + down.ahead(v)), step = s.stride[0];
    int64_t at = (down.phase(v) * down.length(height()) + down.ahead(v)) * line + across.phase(h) * width() + across.ahead(h),
            n = 0;
    for (int64_t y = 0; y < height(); y++, at += line) {
      bool live = false;  // some image has the row of x
      for (int64_t cut = 0; cut < k.cuts; cut++) live |= uint64_t(first + (cut * k.rows + y) * step) < uint64_t(s.in[0]);
      for (int64_t g = 0; live && g < rows.groups; g++)
        for (int64_t j = j0; j < j1; j++, n++) {
          out.a[0][n] = ((g * height() + y) * k.columns + j) * block_words(parts);
          out.a[1][n] = out.a[0][n] + parts * 512;
          out.b[n] = (at + g * group + j * k.pixels) * pixel;
        }
    }
    out.count = n;
  }
};

constexpr int64_t kWeightPass = 8;    // blocks of k that are summed in the tiles: more would round more
constexpr int64_t kMostFilters = 64;  // blocks of them in a piece

template <int parts>
inline WeightTiles plan_weight_tiles(const WeightGrad<float>& w, const WeightBlocks& k) {
  const ConvShape& s = w.s;
  WeightTiles p = {ceil_div(s.group_in(), kSide), ceil_div(s.group_out(), kSide), k.rows_per_split, 1, 1, true, true};
  const auto band = [&](int64_t rows) {
    return WeightBand<parts>(w, k, {0, max_of<int64_t>(1, rows / k.rows), 0, min_of(rows, k.rows)});
  };
  // Bands whose x takes two fifths of the scratch, if it can be, while dy of some blocks of filters takes the rest: few blocks if
  // all rows fit, as sums need not be added up then.
  const auto fits = [&](int64_t rows, int64_t filters) {
    const WeightBand<parts> b = band(rows);
    const int64_t needed = b.b_words() + min_of(ceil_div(w.filters, kSide), filters) * b.a_words();
    return b.blocks() <= kTileBlocks && (needed <= kConvTileWords || (b.blocks() <= kTileBlocks / 5 && filters > 2)) &&
           b.b_words() <= (rows > 1 ? kConvTileWords / 5 * 2 : kConvTileWords - b.a_words());
  };
  p.whole = k.splits == 1 && fits(k.rows_per_split, 2);
  for (int64_t bands = 2; !p.whole && p.band_rows > 1 && !fits(p.band_rows, 4); bands++) {
    p.band_rows = ceil_div(k.rows_per_split, bands);
    if (p.band_rows > k.rows) p.band_rows = ceil_div(p.band_rows, k.rows) * k.rows;
  }
  p.fits = p.whole || fits(p.band_rows, 4);
  if (!p.fits) return p;
  const WeightBand<parts> chosen = band(p.band_rows);
  int64_t piece_in = p.in_blocks, piece_out = max_of<int64_t>(1, min_of(min_of(p.out_blocks, kMostFilters),
                                                                        (kConvTileWords - chosen.b_words()) / chosen.a_words()));
  const int64_t most_sums = p.whole || k.splits > 1 ? p.in_blocks * piece_out
                                                    : (kConvTileFloats - kMostFilters * kSide * 16) / (s.taps() * kSide * kSide);
  piece_out = min_of(piece_out, most_sums);
  piece_in = min_of(piece_in, most_sums / piece_out);
  const int64_t wanted = num_threads() == 1 ? 1 : 4 * num_threads();
  const auto pieces = [&] { return k.splits * s.groups * ceil_div(p.in_blocks, piece_in) * ceil_div(p.out_blocks, piece_out); };
  while (pieces() < wanted && (piece_in > 1 || piece_out > 1)) (piece_in > 1 && piece_in * 2 >= piece_out ? piece_in : piece_out)--;
  const Cut cut = fair_cut(k.splits * s.groups, p.in_blocks, p.out_blocks,
                           {ceil_div(p.in_blocks, piece_in), ceil_div(p.out_blocks, piece_out)}, 1, num_threads());
  p.in_groups = cut.rows, p.out_groups = cut.cols;
  return p;
}

// sums += a block.
FD_INLINE void add_block(const float* block, float* sums) {
  for (int64_t i = 0; i < kSide * kSide; i += 16)
    _mm512_store_ps(sums + i, _mm512_add_ps(_mm512_load_ps(block + i), _mm512_load_ps(sums + i)));
}

FD_INLINE float* weights_of(const WeightGrad<float>& w, int64_t conv_group, int64_t filter, int64_t c) {
  return w.dw + ((conv_group * w.s.group_out() + filter) * w.s.group_in() + c * kSide) * w.s.taps();
}
// Fetches dw of 32 filters by 32 channels to be written, one of `taps` shares of it.
inline void prefetch_weights(const WeightGrad<float>& w, int64_t conv_group, int64_t p, int64_t c, int64_t share) {
  const int64_t taps = w.s.taps(), length = min_of(kSide, w.s.group_in() - c * kSide) * taps;
  for (int64_t o = p * kSide + share * kSide / taps; o < min_of(p * kSide + (share + 1) * kSide / taps, w.s.group_out()); o++) {
    float* out = weights_of(w, conv_group, o, c);
    for (int64_t i = 0; i < length; i += 16) __builtin_prefetch(out + i, 1);
    __builtin_prefetch(out + length - 1, 1);
  }
}

// dw of filters [o0, o1) of 32, by 32 channels, from sums[part][tap][32][32], parts `part` floats apart.
inline void finish_weights(const WeightGrad<float>& w, int64_t conv_group, int64_t p, int64_t c, const float* sums, int64_t parts,
                           int64_t part, int64_t o0 = 0, int64_t o1 = kSide) {
  const ConvShape& s = w.s;
  const int64_t taps = s.taps(), filters = min_of(kSide, s.group_out() - p * kSide),
                channels = min_of(kSide, s.group_in() - c * kSide);
  for (int64_t o = o0; o < min_of(o1, filters); o++) {
    float* out = weights_of(w, conv_group, p * kSide + o, c);
    for (int64_t first = 0; first < taps; first += 16) {
      const int64_t count = min_of<int64_t>(16, taps - first);
      alignas(64) float total[16][kSide];
      const float* at[16];
      for (int64_t tap = 0; tap < 16; tap++) {
        at[tap] = tap < count ? sums + ((first + tap) * kSide + o) * kSide : kNoPixel;
        if (parts == 1 || tap >= count) continue;
        for (int64_t j = 0; j < kSide; j += 16) {
          VecF all = load(at[tap] + j);
          for (int64_t i = 1; i < parts; i++) all += load(at[tap] + i * part + j);
          store(total[tap] + j, all);
        }
        at[tap] = total[tap];
      }
      const __mmask16 mask = first_lanes(count);
      for (int64_t i = 0; i < channels; i += 4) {
        VecF columns[4];
        read_columns(at, i, columns);
        for (int64_t j = 0; j < min_of<int64_t>(4, channels - i); j++)
          _mm512_mask_storeu_ps(out + (i + j) * taps + first, mask, (__m512)columns[j].v);
      }
    }
  }
}

// False where operands do not split well.
template <int parts>
inline bool weight_on_tiles(const WeightGrad<float>& w, const WeightBlocks& k) {
  const ConvShape& s = w.s;
  const WeightTiles plan = plan_weight_tiles<parts>(w, k);
  if (!plan.fits) return false;
  Magnitudes found;
  const int64_t tap_sums = s.taps() * kSide * kSide, pairs = plan.in_blocks * plan.out_blocks;  // of blocks
  const int64_t part = s.groups * pairs * tap_sums + s.groups * plan.out_blocks * kSide;        // sums of a split, then bias
  const auto bias_sums = [&](int64_t split) { return w.sums + split * part + s.groups * pairs * tap_sums; };
  if (w.filters > s.group_out())  // some filters of all go where all would go
    parallel_for(s.out_pixels(), ceil_div<int64_t>(1 << 16, w.filters), [&](int64_t begin, int64_t end) {
      __m512i most = _mm512_setzero_si512();
      for (int64_t pixel = begin; pixel < end; pixel++)
        for (int64_t o = 0; o < w.filters; o += 16)
          most = _mm512_max_epu32(
              most, magnitude(_mm512_maskz_loadu_ps(first_lanes(w.filters - o), w.dy - w.first_filter + pixel * w.dy_pitch + o)));
      found.note_a(most);
    });
  parallel_chunks(k.splits * s.groups * plan.in_groups * plan.out_groups, [&](int64_t piece) {
    const int64_t in = piece % plan.in_groups, out = piece / plan.in_groups % plan.out_groups;
    const int64_t c0 = in * plan.in_blocks / plan.in_groups, c1 = (in + 1) * plan.in_blocks / plan.in_groups;
    const int64_t p0 = out * plan.out_blocks / plan.out_groups, p1 = (out + 1) * plan.out_blocks / plan.out_groups;
    const int64_t group = piece / plan.in_groups / plan.out_groups % s.groups,
                  split = piece / plan.in_groups / plan.out_groups / s.groups;
    int64_t done = 0;  // products of blocks
    const ConvTileScratch scratch;
    if (!scratch.words) return found.fail();
    alignas(64) float block[kSide * kSide] = {};
    TileBlocks list;
    __m512i most_a = _mm512_setzero_si512(), most_b = most_a;
    float* const bias = scratch.floats() + kConvTileFloats - (p1 - p0) * kSide * 16;
    if (c0 == 0) __builtin_memset(bias, 0, size_t((p1 - p0) * kSide * 16) * sizeof(float));
    const auto sums = [&](int64_t p, int64_t c) {
      if (plan.whole) return scratch.floats();
      if (k.splits == 1) return scratch.floats() + ((p - p0) * (c1 - c0) + c - c0) * tap_sums;
      return w.sums + split * part + ((group * plan.out_blocks + p) * plan.in_blocks + c) * tap_sums;
    };
    const TileRegisters tiles;
    const int64_t begin = split * k.rows_per_split, end = min_of(begin + k.rows_per_split, k.groups * k.rows);
    for (int64_t r = begin; r < end;) {
      const int64_t y = r % k.rows, room = min_of(end - r, plan.band_rows);
      const int64_t groups = y == 0 ? max_of<int64_t>(1, room / k.rows) : 1, height = min_of(room, k.rows - y);
      const WeightBand<parts> band(w, k, {r / k.rows, groups, y, y + height});
      uint16_t *const a = scratch.words, *const b = a + (p1 - p0) * band.a_words();
      most_a = band.pack_a(group, p0, p1 - p0, a, c0 == 0 ? bias : nullptr, most_a);
      for (int64_t c = c0; c < c1; c++) {
        most_b = band.pack_b(group, c, b, most_b);
        for (int64_t p = p0; p < p1; p++) {
          float* to = sums(p, c);
          const bool both = s.group_out() - p * kSide > 16, wide = s.group_in() - c * kSide > 16;
          for (int64_t tap = 0; tap < s.taps(); tap++, to += kSide * kSide) {
            if (plan.whole) prefetch_weights(w, group, p, c, tap);
            band.list(tap, list);
            done += list.count;
            const uint16_t* filters = a + (p - p0) * band.a_words();
            const int64_t products = max_of<int64_t>(1, ceil_div(list.count, kWeightPass));
            for (int64_t i = 0; i < products; i++) {
              list.begin = i * list.count / products, list.upper = list.lower = (i + 1) * list.count / products;
              list.both = both ? list.upper : list.begin;
              const bool fresh = i == 0 && r == begin;
              float* const result = fresh ? to : block;
              wide ? multiply_listed<parts, 2>(filters, RowsB<parts>{b}, list, result, result + 16 * kSide, kSide)
                   : multiply_listed<parts, 1>(filters, RowsB<parts>{b}, list, result, result + 16 * kSide, kSide);
              if (!fresh) add_block(block, to);
            }
          }
          if (plan.whole) finish_weights(w, group, p, c, scratch.floats(), 1, 0);
        }
      }
      r += groups * height;
    }
    for (int64_t p = p0; k.splits == 1 && !plan.whole && p < p1; p++)
      for (int64_t c = c0; c < c1; c++) finish_weights(w, group, p, c, sums(p, c), 1, 0);
    for (int64_t i = p0 * kSide; c0 == 0 && i < min_of(p1 * kSide, s.group_out()); i++)
      (k.splits == 1 ? w.db + group * s.group_out() : bias_sums(split) + group * plan.out_blocks * kSide)[i] =
          reduce_add(load(bias + (i - p0 * kSide) * 16));
    found.note_a(most_a);
    found.note_b(most_b);
    piece_work(done * kBlockMacs, kConvPieceMacs);
  });
  if (!found.split_well(s.out_pixels())) return false;
  if (k.splits == 1) return true;
  const int64_t filter = kSide * s.taps() * k.splits;  // its sums
  const int64_t cuts =
      fair_cut(1, s.groups * pairs, kSide, {s.groups * pairs, 1}, ceil_div(kConvSumsPiece, filter), num_threads()).cols;
  parallel_chunks(s.groups * pairs * cuts, [&](int64_t task) {
    const int64_t pair = task / cuts, o0 = task % cuts * kSide / cuts, o1 = (task % cuts + 1) * kSide / cuts;
    const int64_t c = pair % plan.in_blocks, p = pair / plan.in_blocks % plan.out_blocks, group = pair / pairs;
    piece_work((o1 - o0) * filter, kConvSumsPiece);
    finish_weights(w, group, p, c, w.sums + pair * tap_sums, k.splits, part, o0, o1);
    for (int64_t i = p * kSide + o0; c == 0 && i < min_of(p * kSide + o1, s.group_out()); i++) {
      const float* from = bias_sums(0) + group * plan.out_blocks * kSide + i;
      float total = from[0];
      for (int64_t split = 1; split < k.splits; split++) total += from[split * part];
      w.db[group * s.group_out() + i] = total;
    }
  });
  return true;
}

inline bool weight_on_tiles(const WeightGrad<float>& w, const WeightBlocks& k) {
  return with_parts(w.parts, [&](auto parts) { return weight_on_tiles<parts.count>(w, k); });
}

}  // namespace
}  // namespace fastdl
