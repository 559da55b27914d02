// conv2d and its gradient by the input on AMX tiles: the sums over taps of conv_gather.h, where A is pixels by 32 channels of one
// tap and B the weights of these channels for 32 columns.
//
// A piece of work takes a band of pixels and some panels of columns. It goes through the channels in passes: source pixels of the
// band, border included, are split into parts, one row of 64 bytes for each part of 32 channels, so that 16 neighbours in a row of
// pixels are a tile for every tap, read where it lies. Where rows of pixels do not end at a multiple of sixteen, a band is gone
// through in runs of positions, those between rows included, whose results are dropped; where that would be too many (or pixels are
// several positions apart), tiles that go over the end of a row are copied together first.
#pragma once
#include "cpu/isa/conv_gather.h"
#include "cpu/isa/conv_tiles.h"

namespace fastdl {
namespace {

// How source pixels are kept: along each axis the positions from first on, `every` apart, that the taps of a band reach.
struct TileSource {
  int64_t every[2], step[2], tap[2];  // source pixels per position; positions per output pixel, and per tap
  int64_t first[2];                   // position of the first pixel's first tap
  int64_t width, height, positions;   // per image; in all
};

// How the work is cut; from sizes alone, but sums depend on `pass_channels` only.
struct GatherTiles {
  int64_t channel_blocks, panels;
  int64_t pass_channels;           // blocks of 32 channels in a pass
  int64_t batch, rows;             // rows of output pixels
  int64_t band_images, band_rows;  // all rows if a band has several images
  int64_t panel_groups, piece_panels;
  bool fits;   // the scratch holds a row
  bool packs;  // a piece packs the weights it needs, when it needs them

  void set_images(int64_t most) { band_images = ceil_div(batch, ceil_div(batch, most)), band_rows = rows; }
  void set_rows(int64_t most) { band_images = 1, band_rows = ceil_div(rows, ceil_div(rows, most)); }
  int64_t bands_down() const { return ceil_div(rows, band_rows); }
  int64_t bands() const { return ceil_div(batch, band_images) * bands_down(); }
};

template <class T>
inline TileSource tile_source(const Gather<T>& g, int64_t images, int64_t rows) {
  TileSource s;
  for (int axis = 0; axis < 2; axis++) {
    s.every[axis] = g.ntaps[axis] == 1 ? g.step[axis] : greatest_divisor(g.step[axis], g.tap_step[axis]);
    s.step[axis] = g.step[axis] / s.every[axis];
    s.tap[axis] = g.tap_step[axis] / s.every[axis];
    s.first[axis] = (g.first_tap[axis] - g.low(axis)) / s.every[axis];
  }
  s.height = (rows - 1) * s.step[0] + (g.high(0) - g.low(0)) / s.every[0] + 1;
  s.width = (g.count[1] - 1) * s.step[1] + (g.high(1) - g.low(1)) / s.every[1] + 1;
  s.positions = images * s.height * s.width;
  return s;
}

// Words of scratch: the source of one pass, a strip of copied tiles, weights. The last tile of a run reads some positions beyond
// the source, for rows that are dropped.
template <int parts>
inline int64_t source_words(const TileSource& s, int64_t channels) {
  return s.positions * channels * parts * kSide;
}

template <int parts, class T>
inline GatherTiles plan_gather_tiles(const Gather<T>& g) {
  GatherTiles p;
  const int64_t taps = g.ntaps[0] * g.ntaps[1];
  p.channel_blocks = ceil_div(g.run, kSide);
  p.panels = ceil_div(g.columns, kSide);
  const int64_t most = max_of<int64_t>(1, kConvTilePass / taps);
  p.pass_channels = ceil_div(p.channel_blocks, ceil_div(p.channel_blocks, most));
  // bands whose source takes half of the scratch: whole images or rows of one
  const int64_t blocks = p.pass_channels * taps, room = kConvTileWords / 2;
  const auto fits = [&](int64_t images, int64_t rows) {
    if (images > room) return false;
    const TileSource source = tile_source(g, images, rows);
    return source.positions <= room && source_words<parts>(source, p.pass_channels) <= room;
  };
  p.batch = g.batch, p.rows = g.count[0];
  p.set_images(1);
  p.fits = fits(1, 1);
  if (!p.fits) return p;
  if (fits(1, p.rows)) {
    int64_t images = 1;
    while (images < g.batch && fits(images + 1, p.rows)) images++;
    p.set_images(images);
  } else {
    int64_t rows = 1;
    while (fits(1, rows + 1)) rows++;
    p.set_rows(rows);
  }
  // Panels whose weights for one pass stay in the cache; then pieces enough for the threads. Copied tiles and packed sources want
  // several panels, weights want many pixels.
  const int64_t at_once = max_of<int64_t>(1, room / (blocks * block_words(parts)) - 1),
                wanted = num_threads() == 1 ? 1 : 4 * num_threads();
  p.panel_groups = ceil_div(p.panels, at_once);
  const auto cut = [&](int64_t least_panels, int64_t least_pixels) {
    const auto few = [&] {  // too few, or some threads would have much more to do
      const int64_t pieces = p.bands() * g.groups * p.panel_groups, rounds = ceil_div<int64_t>(pieces, num_threads());
      const int64_t most = rounds * p.band_images * p.band_rows * ceil_div(p.panels, p.panel_groups);
      return pieces < wanted || double(most) * num_threads() > 1.1 * double(p.batch * p.rows * p.panels * g.groups);
    };
    while (few() && p.panel_groups < p.panels && ceil_div(p.panels, p.panel_groups + 1) >= least_panels) p.panel_groups++;
    while (few() && p.band_images > 1 && p.band_images / 2 * g.count[0] * g.count[1] >= least_pixels)
      p.set_images(p.band_images / 2);
    while (few() && p.band_images == 1 && p.band_rows / 2 * g.count[1] >= least_pixels) p.set_rows(p.band_rows / 2);
  };
  cut(4, 512), cut(2, 256), cut(1, 64);
  p.piece_panels = ceil_div(p.panels, p.panel_groups);
  p.panel_groups = ceil_div(p.panels, p.piece_panels);
  p.packs = p.bands() == 1;
  return p;
}

template <int parts>
struct GatherBand {
  const Gather<float>& g;
  const GatherTiles& plan;
  int64_t n, images, y0, rows;
  TileSource source;
  int64_t low[2];

  GatherBand(const Gather<float>& g, const GatherTiles& plan, int64_t band) : g(g), plan(plan) {
    n = band / plan.bands_down() * plan.band_images;
    images = min_of(plan.band_images, g.batch - n);
    y0 = band % plan.bands_down() * plan.band_rows;
    rows = min_of(plan.band_rows, g.count[0] - y0);
    source = tile_source(g, images, rows);
    low[0] = g.low(0) + y0 * g.step[0];
    low[1] = g.low(1);
  }
  int64_t pixels() const { return images * rows * g.count[1]; }
  bool in_runs() const { return TileSteps{source.step[0], source.step[1], source.width}.in_runs(g.count[0], g.count[1]); }
  int64_t run() const { return (rows - 1) * source.width + g.count[1]; }  // positions of an image, from the first pixel to the last
  int64_t strips() const { return in_runs() ? images * ceil_div(run(), kSide) : ceil_div(pixels(), kSide); }
  int64_t part_words() const { return source.positions * kSide; }

  // Splits channels [first, last) (in blocks of 32) of all positions: out[block][part][position][32].
  __m512i pack(int64_t group, int64_t first, int64_t last, uint16_t* out, __m512i most) const {
    const float* base = g.source + group * g.group_source;
    const __m512i none = _mm512_setzero_si512();
    const int64_t whole = min_of(last, g.run / kSide);  // blocks before have all their channels
    for (int64_t i = 0; i < images * source.height; i++) {
      const int64_t y = low[0] + i % source.height * source.every[0];
      const float* row = base + ((n + i / source.height) * g.size[0] + y) * g.size[1] * g.pitch;
      const bool inside = uint64_t(y) < uint64_t(g.size[0]);
      for (int64_t j = 0; j < source.width; j++, out += kSide) {
        const int64_t x = low[1] + j * source.every[1];
        uint16_t* to = out;
        if (!inside || uint64_t(x) >= uint64_t(g.size[1])) {
          for (int64_t part = 0; part < (last - first) * parts; part++) _mm512_store_si512(to + part * part_words(), none);
          continue;
        }
        const float* p = row + x * g.pitch + first * kSide;  // pixel by pixel: memory is read in order
        for (int64_t c = first; c < last; c++, p += kSide, to += parts * part_words()) {
          const __mmask16 mask0 = c < whole ? __mmask16(0xffff) : first_lanes(g.run - c * kSide),
                          mask1 = c < whole ? __mmask16(0xffff) : first_lanes(g.run - c * kSide - 16);
          const __m512 a = _mm512_maskz_loadu_ps(mask0, p), b = _mm512_maskz_loadu_ps(mask1, p + 16);
          most = _mm512_max_epu32(most, _mm512_max_epu32(magnitude(a), magnitude(b)));
          split_pair<parts>(a, b, to, part_words());
        }
      }
    }
    return most;
  }

  // Where the first tap of pixels [first, first + count) lies in a part, in words.
  void locate(int64_t first, int64_t count, int64_t* words) const {
    int64_t x = first % g.count[1], y = first / g.count[1] % rows, image = first / g.count[1] / rows;
    for (int64_t i = 0; i < count; y++) {
      if (y == rows) y = 0, image++;
      int64_t at =
          (image * source.height + y * source.step[0] + source.first[0]) * source.width + x * source.step[1] + source.first[1];
      for (; x < g.count[1] && i < count; i++, x++, at += source.step[1]) words[i] = at * kSide;
      x = 0;
    }
  }
  // Where each block of k (channels, then taps) of a pass begins, from the position of tap (0, 0).
  void set_offsets(int64_t channels, int64_t* offset) const {
    for (int64_t c = 0; c < channels; c++)
      for (int64_t v = 0; v < g.ntaps[0]; v++)
        for (int64_t h = 0; h < g.ntaps[1]; h++)
          *offset++ = c * parts * part_words() + (v * source.tap[0] * source.width + h * source.tap[1]) * kSide;
  }
  // A tile of pixels for all blocks, where it lies or copied to `copies`; words: where its 1 to 16 pixels begin.
  TileRows tile(const int64_t* words, int64_t count, const uint16_t* split, const int64_t* offset, const int64_t* copied,
                int64_t blocks, uint16_t* copies) const {
    const int64_t step = source.step[1] * kSide;
    bool neighbours = count == 16;
    for (int64_t i = 1; i < count; i++) neighbours = neighbours && words[i] == words[0] + i * step;
    if (neighbours) return {split + words[0], offset, part_words(), 2 * step};
    const uint16_t* rows_at[16];
    for (int64_t i = 0; i < 16; i++) rows_at[i] = split + words[min_of(i, count - 1)];
    for (int64_t b = 0; b < blocks; b++)
      for (int part = 0; part < parts; part++) {
        const int64_t shift = offset[b] + part * part_words();
        uint16_t* to = copies + copied[b] + part * kSide * kSide;
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) _mm512_store_si512(to + i * kSide, _mm512_load_si512(rows_at[i] + shift));
      }
    return {copies, copied, kSide * kSide, 2 * kSide};
  }
};

// False where operands do not split well; the output is not finished then.
template <int parts>
inline bool gather_on_tiles(const Gather<float>& g, const ConvPack<float>& pack, uint16_t* packed) {
  if (g.pixels() == 0 || g.columns == 0) return true;
  const GatherTiles plan = plan_gather_tiles<parts>(g);
  if (!plan.fits) return false;
  Magnitudes found;
  const int64_t taps = g.ntaps[0] * g.ntaps[1], panel_words = plan.channel_blocks * taps * block_words(parts);
  if (!plan.packs)
    parallel_chunks(g.groups * plan.panels * plan.channel_blocks, [&](int64_t task) {
      const int64_t block = task % plan.channel_blocks, panel = task / plan.channel_blocks;  // of all groups
      piece_work(kSide * kSide * taps, 2 * kGemmPackPiece);
      found.note_b(pack_tile_weights<parts>(pack, panel / plan.panels, panel % plan.panels, block,
                                            packed + panel * panel_words + block * taps * block_words(parts)));
    });
  const int64_t pieces = plan.bands() * g.groups * plan.panel_groups;
  parallel_chunks(pieces, [&](int64_t piece) {
    const int64_t group = piece / plan.bands() / plan.panel_groups,
                  p0 = piece / plan.bands() % plan.panel_groups * plan.piece_panels;
    const int64_t p1 = min_of(p0 + plan.piece_panels, plan.panels);
    const GatherBand<parts> band(g, plan, piece % plan.bands());
    piece_work(band.strips() * (p1 - p0) * plan.channel_blocks * taps * kBlockMacs, kConvPieceMacs);
    alignas(64) float sums[kSide * kSide];
    int64_t offset[kConvTilePass + kConvTileTaps], copied[kConvTilePass + kConvTileTaps];
    const ConvTileScratch scratch;
    if (!scratch.words) return found.fail();
    uint16_t* const split = scratch.words;
    uint16_t* const copies = split + source_words<parts>(band.source, plan.pass_channels);
    uint16_t* const own = copies + plan.pass_channels * taps * block_words(parts);
    Gemm<float> result = {};  // the band's pixels by the group's columns
    result.c = g.out + (band.n * g.count[0] + band.y0) * g.count[1] * g.out_pitch + group * g.columns;
    result.c_row = g.out_pitch;
    result.bias = g.bias ? g.bias + group * g.columns : nullptr;
    result.relu = g.relu, result.finish = g.activate;
    const bool past = plan.pass_channels >= plan.channel_blocks && g.columns % 16 == 0 && g.streams();
    __m512i most = _mm512_setzero_si512(), most_weights = most;
    const TileRegisters tiles;
    for (int64_t c = 0; c < plan.channel_blocks; c += plan.pass_channels) {
      const int64_t channels = min_of(plan.pass_channels, plan.channel_blocks - c), blocks = channels * taps;
      const bool first = c == 0, last = c + channels == plan.channel_blocks;
      most = band.pack(group, c, c + channels, split, most);
      band.set_offsets(channels, offset);
      for (int64_t b = 0; b < blocks; b++) copied[b] = b * block_words(parts);
      const uint16_t* weights = packed + (group * plan.panels + p0) * panel_words + c * taps * block_words(parts);
      int64_t next_panel = panel_words;
      if (plan.packs) {
        next_panel = blocks * block_words(parts);
        for (int64_t p = p0; p < p1; p++)
          for (int64_t block = 0; block < channels; block++) {
            uint16_t* to = own + (p - p0) * next_panel + block * taps * block_words(parts);
            most_weights = _mm512_max_epu32(most_weights, pack_tile_weights<parts>(pack, group, p, c + block, to));
          }
        weights = own;
      }
      // The sums of a strip; finish(f) calls f(at, count, pixel) for rows of them that are results, from that pixel of the band on.
      const auto multiply = [&](const TileRows& upper, const TileRows& lower, int64_t rows, const auto& finish) {
        for (int64_t p = p0; p < p1; p++) {
          const int64_t cols = min_of(kSide, g.columns - p * kSide);
          multiply_rows<parts>(upper, lower, weights + (p - p0) * next_panel, blocks, sums, rows, cols);
          finish([&](int64_t at, int64_t count, int64_t pixel) {
            finish_block(result, pixel, p * kSide, sums + at * kSide, int(count), int(cols), first, last, past);
          });
        }
      };
      if (band.in_runs()) {
        const int64_t width = band.source.width, run = band.run();
        for (int64_t image = 0; image < band.images; image++)
          for (int64_t at = 0; at < run; at += kSide) {
            const int64_t rows = min_of(kSide, run - at);
            const uint16_t* base =
                split + ((image * band.source.height + band.source.first[0]) * width + band.source.first[1] + at) * kSide;
            const TileRows upper = {base, offset, band.part_words(), 2 * kSide},
                           lower = {base + 16 * kSide, offset, band.part_words(), 2 * kSide};
            multiply(upper, lower, rows, [&](const auto& finish) {
              for (int64_t r = 0, x = at % width, y = at / width; r < rows; r += width - x, x = 0, y++)
                if (x < g.count[1]) finish(r, min_of(g.count[1] - x, rows - r), (image * band.rows + y) * g.count[1] + x);
            });
          }
        continue;
      }
      for (int64_t pixel = 0; pixel < band.pixels(); pixel += kSide) {
        const int64_t rows = min_of(kSide, band.pixels() - pixel);
        int64_t words[kSide];
        band.locate(pixel, rows, words);
        const TileRows upper = band.tile(words, min_of<int64_t>(16, rows), split, offset, copied, blocks, copies);
        const TileRows lower = rows > 16 ? band.tile(words + 16, rows - 16, split, offset, copied, blocks, copies + 512) : upper;
        multiply(upper, lower, rows, [&](const auto& finish) { finish(0, rows, pixel); });
      }
    }
    if (past) stream_fence();
    found.note_a(most);
    found.note_b(most_weights);
  });
  return found.split_well(g.run * taps);
}

// g covers all pixels of the output.
inline bool gather_on_tiles(const Gather<float>& g, const ConvPack<float>& pack, uint16_t* packed) {
  return with_parts(g.parts, [&](auto parts) { return gather_on_tiles<parts.count>(g, pack, packed); });
}

}  // namespace
}  // namespace fastdl
