// 3x3 convolution of step 1 in a quarter of the multiplications: Winograd's F(4x4, 3x3) (Lavin and Gray, 2016). A tile of 4x4
// output pixels comes from 6x6 pixels d of the source as A^T [ sum over channels (G w G^T) * (B^T d B) ] A, so that what is left is
// 36 matrix products of tiles x channels by channels x columns, done by the register tiles of conv_tile.h and gemm_tile.h.
//
// The matrices follow from interpolation at 0, +-sqrt(1/2), +-sqrt(2) and infinity. At these points rounding errors are about twice
// those of the direct sum (rms, 64 to 512 channels); at the usual 0, +-1, +-2 they would be four times as large, and ten at worst.
//
// A chunk goes through its tiles in blocks that stay in the L2 cache, with scratch of its thread:
//   tiles[36][block][channels], then per panel of columns  products[36][block][width].
#pragma once
#include "cpu/isa/conv_gather.h"

namespace fastdl {
namespace {

constexpr int64_t kWinogradBlock = kWinogradTiles / kConvRows * kConvRows;
constexpr int64_t kWinogradChunks = 32;  // wanted, however few threads
constexpr float kRoot2 = 1.41421356237309505f, kRootHalf = 0.70710678118654752f;

// B^T d: six pixels to six values.
FD_INLINE void winograd_source(VecF (&d)[6]) {
  const VecF even = d[4] - d[2] * VecF(2), odd = d[3] * VecF(kRootHalf) - d[1] * VecF(kRoot2);
  const VecF even2 = d[4] - d[2] * VecF(0.5f), odd2 = d[3] * VecF(kRoot2) - d[1] * VecF(kRootHalf);
  d[0] = d[0] - d[2] * VecF(2.5f) + d[4];
  d[5] = d[1] - d[3] * VecF(2.5f) + d[5];
  d[1] = even + odd;
  d[2] = even - odd;
  d[3] = even2 + odd2;
  d[4] = even2 - odd2;
}

// G g: three taps to six values.
FD_INLINE void winograd_weights(const VecF (&g)[3], VecF (&u)[6]) {
  const VecF even = (g[0] + g[2] * VecF(0.5f)) * VecF(-2.0f / 3), odd = g[1] * VecF(kRootHalf * -2 / 3);
  const VecF even2 = (g[0] + g[2] * VecF(2)) * VecF(1.0f / 6), odd2 = g[1] * VecF(kRoot2 / 6);
  u[0] = g[0];
  u[1] = even + odd;
  u[2] = even - odd;
  u[3] = even2 + odd2;
  u[4] = even2 - odd2;
  u[5] = g[2];
}

// A^T m: six values to four pixels.
FD_INLINE void winograd_result(const VecF (&m)[6], VecF (&y)[4]) {
  const VecF even = m[1] + m[2], odd = m[1] - m[2], even2 = m[3] + m[4], odd2 = m[3] - m[4];
  y[0] = m[0] + even + even2;
  y[1] = odd * VecF(kRootHalf) + odd2 * VecF(kRoot2);
  y[2] = even * VecF(0.5f) + even2 * VecF(2);
  y[3] = odd * VecF(kRootHalf / 2) + odd2 * VecF(2 * kRoot2) + m[5];
}

// Channels [c0, c1) of a packed panel (row v of tap t at packed[t * packed_plane + v * width]; packed_plane < 0: taps from the last
// to the first) to 36 values, `plane` apart. Planes are not a power of two apart: what is read or written together would share a
// set of the caches.
inline void winograd_pack(const float* packed, int64_t packed_plane, int64_t width, int64_t c0, int64_t c1, float* out,
                          int64_t plane) {
  if (packed_plane < 0) packed -= 8 * packed_plane;
  for (int64_t i = c0 * width; i < c1 * width; i += VecF::size) {
    VecF rows[6][3];
#pragma GCC unroll 3
    for (int h = 0; h < 3; h++) {
      VecF g[3], u[6];
#pragma GCC unroll 3
      for (int v = 0; v < 3; v++) g[v] = load(packed + (v * 3 + h) * packed_plane + i);
      winograd_weights(g, u);
#pragma GCC unroll 6
      for (int v = 0; v < 6; v++) rows[v][h] = u[v];
    }
#pragma GCC unroll 6
    for (int v = 0; v < 6; v++) {
      VecF u[6];
      winograd_weights(rows[v], u);
#pragma GCC unroll 6
      for (int h = 0; h < 6; h++) store(out + (v * 6 + h) * plane + i, u[h]);
    }
  }
}

struct WinogradTile {
  int64_t n, y, x;  // first output pixel
};
FD_INLINE WinogradTile winograd_tile(const Gather<float>& g, int64_t i) {
  const int64_t across = ceil_div<int64_t>(g.count[1], 4), down = ceil_div<int64_t>(g.count[0], 4);
  return {i / across / down, i / across % down * 4, i % across * 4};
}

// 6x6 pixels of an image from (y, x) on, channels [begin, end), to their 36 values, `plane` apart.
__attribute__((noinline)) inline void winograd_read(const float* image, const int64_t* size, int64_t pitch, int64_t y, int64_t x,
                                                    int64_t begin, int64_t end, float* to, int64_t plane) {
  const bool inner = y >= 0 && x >= 0 && y + 6 <= size[0] && x + 6 <= size[1];
  for (int64_t c = begin; c < end; c += VecF::size) {
    VecF rows[6][6];
#pragma GCC unroll 6
    for (int h = 0; h < 6; h++) {
      VecF d[6];
#pragma GCC unroll 6
      for (int v = 0; v < 6; v++) {
        const bool inside = inner || (uint64_t(y + v) < uint64_t(size[0]) && uint64_t(x + h) < uint64_t(size[1]));
        d[v] = inside ? load(image + ((y + v) * size[1] + x + h) * pitch + c) : VecF(0.0f);
      }
      winograd_source(d);
#pragma GCC unroll 6
      for (int v = 0; v < 6; v++) rows[v][h] = d[v];
    }
#pragma GCC unroll 6
    for (int v = 0; v < 6; v++) {
      winograd_source(rows[v]);
#pragma GCC unroll 6
      for (int h = 0; h < 6; h++) store(to + (v * 6 + h) * plane + c, rows[v][h]);
    }
  }
}

// The same of what tile i reads.
inline void winograd_read(const Gather<float>& g, int64_t i, int64_t begin, int64_t end, float* to, int64_t plane) {
  const WinogradTile t = winograd_tile(g, i);
  winograd_read(g.source + t.n * g.size[0] * g.size[1] * g.pitch, g.size, g.pitch, t.y + g.low(0), t.x + g.low(1), begin, end, to,
                plane);
}

// Tile i of the block: output pixels of one panel from the 36 products.
__attribute__((noinline)) inline void winograd_write(const Gather<float>& g, const WinogradTile& t, int64_t i,
                                                     const Panels<float>& panels, int64_t p, const float* products, int64_t plane) {
  const int64_t width = panels.width(p);
  const int64_t height = min_of<int64_t>(4, g.count[0] - t.y), across = min_of<int64_t>(4, g.count[1] - t.x);
  for (int64_t j = 0; j < width; j += VecF::size) {
    const int used = int(min_of<int64_t>(VecF::size, panels.used(p) - j));
    const float* from = products + i * width + j;
    VecF rows[4][6];
#pragma GCC unroll 6
    for (int h = 0; h < 6; h++) {
      VecF m[6], y[4];
#pragma GCC unroll 6
      for (int v = 0; v < 6; v++) m[v] = load(from + (v * 6 + h) * plane);
      winograd_result(m, y);
#pragma GCC unroll 4
      for (int v = 0; v < 4; v++) rows[v][h] = y[v];
    }
    const int64_t column = panels.begin(p) + j;
    const VecF bias = g.bias ? load_partial(g.bias + column, used) : VecF(0.0f);
    for (int64_t v = 0; v < height; v++) {
      VecF y[4];
      winograd_result(rows[v], y);
      float* out = g.out + ((t.n * g.out_size[0] + t.y + v) * g.out_size[1] + t.x) * g.out_pitch + column;
      for (int64_t h = 0; h < across; h++, out += g.out_pitch) {
        VecF r = y[h] + bias;
        if (g.relu) r = max(VecF(0.0f), r);
        store_partial(out, r, used);
        if (g.activate) g.activate(out, used);
      }
    }
  }
}

// Fetches where tiles [value * count / 36, (value + 1) * count / 36) of `count` from `first` on will be written, of a panel from
// `column` on: with each of the 36 products some, as stores that miss the caches would wait for one another.
FD_INLINE void winograd_fetch(const Gather<float>& g, int64_t first, int64_t count, int64_t value, int64_t column) {
  for (int64_t i = first + value * count / 36; kWinogradFetches && i < first + (value + 1) * count / 36; i++) {
    const WinogradTile t = winograd_tile(g, i);
    const int64_t height = min_of<int64_t>(4, g.count[0] - t.y), across = min_of<int64_t>(4, g.count[1] - t.x);
    for (int64_t v = 0; v < height; v++) {
      const float* out = g.out + ((t.n * g.out_size[0] + t.y + v) * g.out_size[1] + t.x) * g.out_pitch + column;
      for (int64_t h = 0; h < across; h++, out += g.out_pitch) __builtin_prefetch(out, 1, 2);
    }
  }
}

// Transformed weights of panel p: 36 planes of channels x width, and where they begin.
FD_INLINE int64_t winograd_plane(const Gather<float>& g, const Panels<float>& panels, int64_t p) {
  return g.run * panels.width(p) + 16;
}
FD_INLINE int64_t winograd_panel(const Gather<float>& g, const Panels<float>& panels, int64_t p) {
  return 36 * (panels.begin(p) * g.run + p * 16);
}

// From tap to tap of packed weights, in the order in which they lie on the source.
FD_INLINE int64_t winograd_taps_step(const Gather<float>& g, int64_t step) { return g.tap_step[0] < 0 ? -step : step; }

// Tiles [first, last) by panels [p0, p1).
inline void winograd_block(const Gather<float>& g, const float* weights, int64_t first, int64_t last, int64_t p0, int64_t p1,
                           float* tiles) {
  const Panels<float> panels(g.columns, 2);
  float* products = tiles + 36 * kWinogradBlock * g.run;
  for (int64_t i = first; i < last; i++) winograd_read(g, i, 0, g.run, tiles + (i - first) * g.run, kWinogradBlock * g.run);
  const float* rows[kConvRows];
  float* c[kConvRows];
  ConvTile<float> t = {};
  t.groups = 1;
  t.rows = rows;
  t.row_step = 0;
  t.a_segment = t.b_segment = 0;
  t.a_k = 1;
  t.segments = 1;
  t.k = g.run;
  t.c = c;
  t.tail = VecF::size;
  t.accumulate = t.relu = false;
  t.bias = nullptr;
  const Blocks strips(last - first, kConvRows);
  for (int64_t p = p0; p < p1; p++) {
    const int64_t width = panels.width(p);
    t.b_k = width;
    for (int64_t value = 0; value < 36; value++) {
      winograd_fetch(g, first, last - first, value, panels.begin(p));
      t.b = weights + winograd_panel(g, panels, p) + value * winograd_plane(g, panels, p);
      for (int64_t s = 0; s < strips.count; s++) {
        const int64_t begin = strips.begin(s), count = strips.begin(s + 1) - begin;
        for (int64_t i = 0; i < count; i++) {
          rows[i] = tiles + (value * kWinogradBlock + begin + i) * g.run;
          c[i] = products + (value * kWinogradBlock + begin + i) * width;
        }
        run_tile(panels.vectors(p), count, t);
      }
    }
    for (int64_t i = first; i < last; i++)
      winograd_write(g, winograd_tile(g, i), i - first, panels, p, products, kWinogradBlock * width);
  }
}

// Few tiles for the weights, which are 36 / 9 times as large here: tiles go in rounds whose values all threads share, in the L2 and
// L3 caches, and each chunk transforms the weights of its panels for itself, one after another. Scratch of a thread, for a panel:
//   packed[9][channels][width], weights[36][channels][width], products[36][tiles][width].
inline bool winograd_rounds(const Gather<float>& g, const ConvPack<float>& pack, const WinogradPlan& plan, float* values) {
  constexpr int64_t lanes = VecF::size;
  int failed = 0;
  const Panels<float> panels(g.columns, 2);
  const int64_t pitch = winograd_pitch(g.run), plane = plan.round * pitch + 16, parts = ceil_div(g.run, kWinogradPart);
  for (int64_t first = 0; first < plan.tiles; first += plan.round) {
    const int64_t count = min_of(plan.round, plan.tiles - first);
    parallel_for(count * parts, 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t row = i / parts, c = i % parts * kWinogradPart;
        winograd_read(g, first + row, c, min_of(g.run, c + kWinogradPart), values + row * pitch, plane);
      }
    });
    const Blocks all(count, kTileRows[2]);
    const int64_t macs = 36 * g.run * kTileRows[2] * panels.most * lanes;
    const Cut cut = fair_cut(1, all.count, panels.count, {1, panels.count}, ceil_div(kConvPieceMacs, macs), num_threads());
    parallel_chunks(cut.rows * cut.cols, [&](int64_t chunk) {
      const int64_t d = chunk % cut.rows, a = chunk / cut.rows;
      const int64_t s0 = d * all.count / cut.rows, s1 = (d + 1) * all.count / cut.rows;
      const int64_t p0 = a * panels.count / cut.cols, p1 = (a + 1) * panels.count / cut.cols;
      piece_work((s1 - s0) * (p1 - p0) * macs, kConvPieceMacs);
      ConvPack<float> own = pack;
      own.channels = g.run + 1;  // rows from tap to tap
      const int64_t most = panels.most * lanes, floats = own.rows() * most + 36 * ((g.run + plan.round) * most + 32);
      float* const packed = static_cast<float*>(thread_scratch(floats * int64_t(sizeof(float))));
      if (!packed) return __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
      for (int64_t p = p0; p < p1; p++) {
        const int64_t width = panels.width(p);
        const int64_t weight_plane = winograd_plane(g, panels, p);
        float *const weights = packed + own.rows() * width, *const products = weights + 36 * weight_plane;
        own.out = packed - panels.begin(p) * own.rows();
        for (int64_t v = p * 2; v < p * 2 + panels.vectors(p); v++) pack_block(own, 0, v, 0, g.run);
        winograd_pack(packed, winograd_taps_step(g, own.channels * width), width, 0, g.run, weights, weight_plane);
        const int64_t product_plane = plan.round * width + 16;
        Tile<float> t;
        t.a_row = pitch;
        t.a_k = 1;
        t.k = g.run;
        t.b_k = t.c_row = width;
        t.tail = int(lanes);
        t.prefetch = t.fetch_c = t.accumulate = t.relu = false;
        t.bias = nullptr;
        const int64_t i0 = all.begin(s0), i1 = all.begin(s1);
        for (int64_t value = 0; value < 36; value++) {
          winograd_fetch(g, first + i0, i1 - i0, value, panels.begin(p));
          t.b = weights + value * weight_plane;
          for (int64_t i = s0; i < s1; i++) {
            const int64_t row = all.begin(i);
            t.a = values + value * plane + row * pitch;
            t.c = products + value * product_plane + row * width;
            run_tile(panels.vectors(p), int(all.begin(i + 1) - row), t);
          }
        }
        for (int64_t i = i0; i < i1; i++) winograd_write(g, winograd_tile(g, first + i), i, panels, p, products, product_plane);
      }
    });
    if (failed) return false;
  }
  return true;
}

// g as for gather(), with 3x3 taps of distance 1; shared: plan.shared_floats numbers. False where a thread finds no scratch.
inline bool winograd(const Gather<float>& g, const ConvPack<float>& pack, const WinogradPlan& plan, float* shared) {
  if (plan.round) return winograd_rounds(g, pack, plan, shared);
  const Panels<float> panels(g.columns, 2);
  pack_weights(pack);
  parallel_for(panels.count * g.run, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const int64_t p = i / g.run, c = i % g.run, next = min_of(g.run, c + end - i), width = panels.width(p);
      winograd_pack(pack.out + panels.begin(p) * g.run * 9, winograd_taps_step(g, g.run * width), width, c, next,
                    shared + winograd_panel(g, panels, p), winograd_plane(g, panels, p));
      i += next - c;
    }
  });
  const int64_t blocks = ceil_div(plan.tiles, kWinogradBlock), wide = min_of<int64_t>(4, panels.count);
  Cut cut = {ceil_div(blocks, ceil_div(blocks, min_of(kWinogradChunks, blocks))), 1};
  cut.cols = max_of<int64_t>(1, min_of(wide, kWinogradChunks / cut.rows));
  const int64_t macs = 36 * g.run * panels.most * VecF::size;
  cut = fair_cut(1, plan.tiles, panels.count, cut, ceil_div(kConvPieceMacs, macs), num_threads());
  int failed = 0;
  parallel_chunks(cut.rows * cut.cols, [&](int64_t chunk) {
    const int64_t d = chunk % cut.rows, a = chunk / cut.rows;
    const int64_t t0 = d * plan.tiles / cut.rows, t1 = (d + 1) * plan.tiles / cut.rows;
    const int64_t p0 = a * panels.count / cut.cols, p1 = (a + 1) * panels.count / cut.cols;
    piece_work((t1 - t0) * (p1 - p0) * macs, kConvPieceMacs);
    float* const tiles =
        static_cast<float*>(thread_scratch(36 * kWinogradBlock * (g.run + 2 * VecF::size) * int64_t(sizeof(float))));
    if (!tiles) return __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
    const Blocks own(t1 - t0, kWinogradBlock);
    for (int64_t b = 0; b < own.count; b++) winograd_block(g, shared, t0 + own.begin(b), t0 + own.begin(b + 1), p0, p1, tiles);
  });
  return !failed;
}

}  // namespace
}  // namespace fastdl
