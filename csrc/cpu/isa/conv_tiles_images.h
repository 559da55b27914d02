// conv2d and its gradient by the input on AMX tiles, images side by side: a tile of A is one source pixel of sixteen images by 32
// channels. So tiles are whole for images of any width, every tap, step and dilation reads tiles where they lie, and taps outside
// the image are left out: a fifth of all products for 3x3 kernels on 8 x 8 pixels, a third on 4 x 4.
//
// The source is split into parts once, by whole groups of sixteen images. A piece of work takes some result tiles and panels of
// columns, two tiles at a time: taps that both have, then those of one alone.
#pragma once
#include "cpu/isa/conv_gather.h"
#include "cpu/isa/conv_tiles.h"

namespace fastdl {
namespace {

// How the work is cut; from sizes and threads, but sums depend on `pass_channels` only.
struct ImageTiles {
  int64_t pixels[2], source[2], steps;  // of the result and of the source; steps: between neighbours that see the same taps
  int64_t channel_blocks, panels, pass_channels, round_groups;  // groups of images that are packed at a time
  int64_t pass_panels;                                          // whose weights are packed at a time
  int64_t least;                                                // pairs times panels of a piece
  int64_t panel_groups, bands;                                  // bands of pairs of tiles
  bool packs;                                                   // a piece packs the weights that it needs, when it needs them

  int64_t tiles(int64_t groups) const { return pixels[0] * pixels[1] * groups; }
  // Tile t: the groups of images of a pixel, and pixels that see the same taps, are neighbours.
  FD_INLINE void place(int64_t t, int64_t groups, int64_t& group, int64_t& y, int64_t& x) const {
    group = t % groups, y = t / groups / pixels[1];
    x = t / groups % pixels[1];
    if (steps == 1) return;
    const int64_t longer = ceil_div(pixels[1], steps), rest = pixels[1] - (longer - 1) * steps;  // phases of `longer` pixels
    const int64_t phase = x < rest * longer ? x / longer : rest + (x - rest * longer) / (longer - 1);
    const int64_t at = x < rest * longer ? x % longer : (x - rest * longer) % (longer - 1);
    x = phase + at * steps;
  }
};

constexpr int64_t kPairsAlone = 64;  // of tiles, in pieces of one panel

template <int parts>
inline ImageTiles plan_image_tiles(const ConvShape& s, const Gather<float>& g, bool forward) {
  ImageTiles p;
  for (int axis = 0; axis < 2; axis++) p.pixels[axis] = (forward ? s.out : s.in)[axis], p.source[axis] = g.size[axis];
  p.steps = forward ? 1 : min_of(s.stride[1], p.pixels[1]);
  p.channel_blocks = ceil_div(g.run, kSide);
  p.panels = ceil_div(g.columns, kSide);
  int64_t live = 1;  // taps that a pixel sees, at most
  for (int axis = 0; axis < 2; axis++) live *= forward ? s.kernel[axis] : ceil_div(s.kernel[axis], AxisPhases(s, axis).period);
  const int64_t most = max_of<int64_t>(1, min_of(kConvTilePass / live, kTilePanelBytes / (2 * s.taps() * block_words(parts))));
  p.pass_channels = ceil_div(p.channel_blocks, ceil_div(p.channel_blocks, most));
  p.round_groups = image_tile_groups(s, forward);
  // Panels whose weights for one pass stay in the cache; then pieces enough for the threads.
  const int64_t panel_bytes = 2 * p.pass_channels * s.taps() * block_words(parts), most_panels = kTilePanelBytes / panel_bytes;
  const int64_t wanted = num_threads() == 1 ? 1 : 4 * num_threads(), pairs = ceil_div<int64_t>(p.tiles(p.round_groups), 2);
  p.panel_groups = ceil_div(p.panels, max_of<int64_t>(1, most_panels));
  // Two panels or more share the source's tiles; one each where that gives all pieces that are wanted: they pack their own weights.
  const bool alone = p.panels >= wanted && pairs <= kPairsAlone;
  while (g.groups * p.panel_groups < wanted && (alone || p.panel_groups * 2 <= p.panels) && pairs <= 512) p.panel_groups++;
  p.bands = min_of(ceil_div<int64_t>(pairs, 8), ceil_div(wanted, g.groups * p.panel_groups));
  const int64_t macs = p.channel_blocks * s.taps() * kBlockMacs;  // of a pair and a panel
  p.least = ceil_div(kConvPieceMacs, macs);
  const Cut cut = fair_cut(g.groups, pairs, p.panels, {p.bands, p.panel_groups}, p.least, num_threads());
  p.bands = cut.rows, p.panel_groups = cut.cols;
  p.packs = p.bands == 1 && p.round_groups * kTileImages >= g.batch;
  const int64_t panel = s.groups * p.channel_blocks * s.taps() * kSide * kSide * 6;
  p.pass_panels = p.packs ? p.panels : pass_panels(g.columns, panel, kTileWeightBytes);
  return p;
}

// Source position that a tap of an output position reads, along one axis; -1: none.
FD_INLINE int64_t tap_source(const ConvShape& s, bool forward, int axis, int64_t at, int64_t tap) {
  const int64_t reach = tap * s.dilation[axis] - s.padding[axis];
  if (forward) {
    const int64_t i = at * s.stride[axis] + reach;
    return uint64_t(i) < uint64_t(s.in[axis]) ? i : -1;
  }
  const int64_t i = at - reach;
  return i >= 0 && i % s.stride[axis] == 0 && i / s.stride[axis] < s.out[axis] ? i / s.stride[axis] : -1;
}

template <int parts>
struct ImagePack {
  const ConvShape& s;
  const Gather<float>& g;
  const ImageTiles& plan;
  bool forward;

  // Tiles of A: [conv group][images][block of channels][y][x][part][image][32 channels].
  int64_t tile_words() const { return parts * kTileImages * kSide; }
  int64_t block_tiles() const { return plan.source[0] * plan.source[1]; }
  int64_t tile(int64_t conv_group, int64_t groups, int64_t group, int64_t block) const {
    return ((conv_group * groups + group) * plan.channel_blocks + block) * block_tiles();
  }
  // Whether a tap reads this position of the source.
  bool is_read(int axis, int64_t at) const {
    for (int64_t tap = 0; tap < s.kernel[axis]; tap++)
      if (tap_source(s, !forward, axis, at, tap) >= 0) return true;
    return false;
  }
  // Splits pixels [x0, x1) of row y, of group `group` of the images from n0 on.
  __m512i pack_row(int64_t conv_group, int64_t n0, int64_t groups, int64_t group, int64_t y, int64_t x0, int64_t x1, uint16_t* out,
                   __m512i most) const {
    const int64_t n = n0 + group * kTileImages, images = min_of(kTileImages, g.batch - n), image = g.size[0] * g.size[1] * g.pitch;
    const float* row = g.source + n * image + (y * g.size[1] + x0) * g.pitch + conv_group * g.group_source;
    if (!is_read(0, y)) return most;
    for (int64_t x = x0; x < x1; x++, row += g.pitch) {
      if (!is_read(1, x)) continue;
      for (int64_t c = 0; c < plan.channel_blocks; c++) {
        uint16_t* to = out + (tile(conv_group, groups, group, c) + y * g.size[1] + x) * tile_words();
        const __mmask16 mask0 = first_lanes(g.run - c * kSide), mask1 = first_lanes(g.run - c * kSide - 16);
        const float* from = row + c * kSide;
        for (int64_t i = 0; i < images; i++, from += image) {
          const __m512 a = _mm512_maskz_loadu_ps(mask0, from), b = _mm512_maskz_loadu_ps(mask1, from + 16);
          __builtin_prefetch(from + g.pitch), __builtin_prefetch(from + g.pitch + 16);
          most = _mm512_max_epu32(most, _mm512_max_epu32(magnitude(a), magnitude(b)));
          split_pair<parts>(a, b, to + i * kSide, kTileImages * kSide);
        }
        for (int64_t i = images; i < kTileImages; i++)
          for (int part = 0; part < parts; part++)
            _mm512_store_si512(to + (part * kTileImages + i) * kSide, _mm512_setzero_si512());
      }
    }
    return most;
  }

  // Taps that a position of the result sees, along one axis.
  int64_t live(int axis, int64_t at) const {
    int64_t taps = 0;
    for (int64_t tap = 0; tap < s.kernel[axis]; tap++) taps += tap_source(s, forward, axis, at, tap) >= 0;
    return taps;
  }
  // Where band `band` of `bands` begins, in pairs of tiles: bands have about as many products as others.
  int64_t first_pair(int64_t band, int64_t bands, int64_t groups) const {
    const int64_t tiles = plan.tiles(groups);
    if (band == 0 || band == bands) return band == 0 ? 0 : ceil_div<int64_t>(tiles, 2);
    int64_t down = 0, across = 0, before = 0, y = 0;
    for (int64_t i = 0; i < plan.pixels[0]; i++) down += live(0, i);
    for (int64_t i = 0; i < plan.pixels[1]; i++) across += live(1, i);
    const int64_t products = down * across * groups * band / bands;
    for (; y + 1 < plan.pixels[0]; y++) {
      const int64_t row = live(0, y) * across * groups;
      if (before + row > products) break;
      before += row;
    }
    int64_t t = y * plan.pixels[1] * groups;
    for (; t < tiles; t++) {
      int64_t group, at, x;
      plan.place(t, groups, group, at, x);
      before += live(0, at) * live(1, x);
      if (before > products) break;
    }
    return ceil_div<int64_t>(t, 2);
  }

  // The blocks of tiles first and first + 1 (if count == 2) for channels [c, c + channels).
  void list(int64_t conv_group, int64_t groups, int64_t first, int64_t count, int64_t c, int64_t channels, TileBlocks& out) const {
    int64_t at[2][kConvTileTaps];
    const int64_t taps = s.taps();
    for (int64_t i = 0; i < 2; i++) {
      int64_t group, y, x;
      plan.place(first + min_of(i, count - 1), groups, group, y, x);
      for (int64_t tap = 0; tap < taps; tap++) {
        const int64_t sy = tap_source(s, forward, 0, y, tap / s.kernel[1]), sx = tap_source(s, forward, 1, x, tap % s.kernel[1]);
        at[i][tap] = sy < 0 || sx < 0 || i >= count ? -1 : tile(conv_group, groups, group, c) + sy * plan.source[1] + sx;
      }
    }
    int64_t n = 0;
    const auto add = [&](bool upper, bool lower) {
      for (int64_t tap = 0; tap < taps; tap++) {
        if (upper != (at[0][tap] >= 0) || lower != (at[1][tap] >= 0)) continue;
        for (int64_t block = 0; block < channels; block++, n++) {
          for (int i = 0; i < 2; i++) out.a[i][n] = (at[i][tap] + block * block_tiles()) * tile_words();
          out.b[n] = (block * taps + tap) * block_words(parts);
        }
      }
      return n;
    };
    out.begin = 0, out.both = add(true, true), out.upper = add(true, false), out.count = out.lower = add(false, true);
  }
};

// False where operands do not split well; the output is not finished then. g: source, result and epilogue; source: for a round of
// images. Weights that more than one piece needs are packed behind the scratch that the calling thread has as one of the workers.
template <int parts>
inline bool images_on_tiles(const ConvShape& s, bool forward, const Gather<float>& g, ConvPack<float> pack, uint16_t* source) {
  const ImageTiles plan = plan_image_tiles<parts>(s, g, forward);
  const ImagePack<parts> images = {s, g, plan, forward};
  const int64_t taps = s.taps(), panel_words = plan.channel_blocks * taps * block_words(parts);
  const ConvTileScratch own(plan.packs ? 0 : g.groups * plan.pass_panels * panel_words);
  if (!own.words) return false;
  uint16_t* const weights = own.more();
  int64_t position[kConvTileTaps];
  for (int64_t tap = 0; tap < taps; tap++) position[tap] = tap;
  pack.position = position;
  Magnitudes found;
  const int64_t out_image = plan.pixels[0] * plan.pixels[1] * g.out_pitch;
  for (int64_t n0 = 0; n0 < g.batch; n0 += plan.round_groups * kTileImages) {
    const int64_t groups = min_of(plan.round_groups, ceil_div(g.batch - n0, kTileImages));
    const int64_t rows = g.groups * groups * plan.source[0];
    const int64_t width = plan.source[1], pixel = kTileImages * plan.channel_blocks * kSide;  // elements of one, of all images
    const int64_t cuts = fair_cut(1, rows, width, {rows, 1}, ceil_div(kGemmPackPiece, pixel), num_threads()).cols;  // of a row
    const int64_t tiles = plan.tiles(groups), pairs = ceil_div<int64_t>(tiles, 2);
    for (int64_t w0 = 0; w0 < plan.panels; w0 += plan.pass_panels) {  // weights of panels [w0, w1) at a time
      const int64_t w1 = min_of(w0 + plan.pass_panels, plan.panels), passes = ceil_div(plan.panels, plan.pass_panels);
      const int64_t source_tasks = w0 == 0 ? rows * cuts : 0;
      const int64_t weight_tasks = plan.packs || (n0 > 0 && passes == 1) ? 0 : g.groups * (w1 - w0) * plan.channel_blocks;
      parallel_chunks(source_tasks + weight_tasks, [&](int64_t task) {
        const __m512i none = _mm512_setzero_si512();
        if (task < source_tasks) {
          const int64_t x0 = task % cuts * width / cuts, x1 = (task % cuts + 1) * width / cuts, row = task / cuts;
          const int64_t y = row % plan.source[0], group = row / plan.source[0] % groups;
          piece_work((x1 - x0) * pixel, 2 * kGemmPackPiece);
          return found.note_a(images.pack_row(row / plan.source[0] / groups, n0, groups, group, y, x0, x1, source, none));
        }
        const int64_t at = task - source_tasks, block = at % plan.channel_blocks,
                      panel = at / plan.channel_blocks;  // of all groups
        piece_work(kSide * kSide * taps, 2 * kGemmPackPiece);
        found.note_b(pack_tile_weights<parts>(pack, panel / (w1 - w0), w0 + panel % (w1 - w0), block,
                                              weights + panel * panel_words + block * taps * block_words(parts)));
      });
      Cut cut = {min_of(plan.bands * passes, pairs), ceil_div((w1 - w0) * plan.panel_groups, plan.panels)};
      if (passes > 1) cut = fair_cut(g.groups, pairs, w1 - w0, cut, plan.least, num_threads());
      const int64_t ranges = cut.cols, bands = cut.rows;
      parallel_chunks(g.groups * ranges * bands, [&](int64_t piece) {
        const int64_t band = piece % bands, conv_group = piece / bands / ranges, range = piece / bands % ranges;
        const int64_t p0 = w0 + range * (w1 - w0) / ranges, p1 = w0 + (range + 1) * (w1 - w0) / ranges;
        const int64_t first_pair = images.first_pair(band, bands, groups), last_pair = images.first_pair(band + 1, bands, groups);
        int64_t products = 0;  // of sixteen pixels by 32 channels and columns
        const ConvTileScratch scratch;
        if (!scratch.words) return found.fail();
        alignas(64) float sums[kSide * kSide];
        TileBlocks blocks;
        Gemm<float> result = {};
        result.c_row = out_image;
        result.bias = g.bias ? g.bias + conv_group * g.columns : nullptr;
        result.relu = g.relu, result.finish = g.activate;
        __m512i most = _mm512_setzero_si512();
        const TileRegisters registers;
        for (int64_t c = 0; c < plan.channel_blocks; c += plan.pass_channels) {
          const int64_t channels = min_of(plan.pass_channels, plan.channel_blocks - c);
          const bool first = c == 0, last = c + channels == plan.channel_blocks;
          const uint16_t* b = weights + (conv_group * (w1 - w0) + p0 - w0) * panel_words + c * taps * block_words(parts);
          int64_t next_panel = panel_words;
          if (plan.packs) {
            b = scratch.words, next_panel = channels * taps * block_words(parts);
            for (int64_t p = p0; p < p1; p++)
              for (int64_t block = 0; block < channels; block++)
                most = _mm512_max_epu32(
                    most, pack_tile_weights<parts>(pack, conv_group, p, c + block,
                                                   scratch.words + (p - p0) * next_panel + block * taps * block_words(parts)));
          }
          for (int64_t pair = first_pair; pair < last_pair; pair++) {
            const int64_t count = min_of<int64_t>(2, tiles - 2 * pair);
            images.list(conv_group, groups, 2 * pair, count, c, channels, blocks);
            products += (blocks.both + blocks.count) * (p1 - p0);
            float* out[2];
            int64_t images_of[2] = {};
            for (int64_t i = 0; i < count; i++) {
              int64_t group, y, x;
              plan.place(2 * pair + i, groups, group, y, x);
              const int64_t n = n0 + group * kTileImages;
              images_of[i] = min_of(kTileImages, g.batch - n);
              out[i] = g.out + n * out_image + (y * plan.pixels[1] + x) * g.out_pitch + conv_group * g.columns;
            }
            const bool direct =
                first && last && !g.bias && !g.relu && !g.activate && images_of[0] + images_of[1] == 2 * kTileImages;
            for (int64_t p = p0; p < p1; p++) {
              const int64_t cols = min_of(kSide, g.columns - p * kSide);
              for (int64_t i = 0; i < count; i++)
                for (int64_t image = 0; image < images_of[i]; image++)
                  for (int64_t j = 0; j < cols; j += 16) __builtin_prefetch(out[i] + image * out_image + p * kSide + j, 1);
              const PackedB panel = {b + (p - p0) * next_panel};
              if (direct && cols == kSide) {
                multiply_listed<parts, 2>(source, panel, blocks, out[0] + p * kSide, out[1] + p * kSide, out_image);
                continue;
              }
              cols > 16 ? multiply_listed<parts, 2>(source, panel, blocks, sums, sums + 16 * kSide, kSide)
                        : multiply_listed<parts, 1>(source, panel, blocks, sums, sums + 16 * kSide, kSide);
              for (int64_t i = 0; i < count; i++) {
                result.c = out[i];
                finish_block(result, 0, p * kSide, sums + i * 16 * kSide, int(images_of[i]), int(cols), first, last);
              }
            }
          }
        }
        found.note_b(most);
        piece_work(products * kBlockMacs / 2, kConvPieceMacs);
      });
    }
  }
  return found.split_well(g.run * taps);
}

inline bool images_on_tiles(const ConvShape& s, bool forward, const Gather<float>& g, const ConvPack<float>& pack,
                            uint16_t* source) {
  return with_parts(g.parts, [&](auto parts) { return images_on_tiles<parts.count>(s, forward, g, pack, source); });
}

}  // namespace
}  // namespace fastdl
