// 3x3 convolution of step 1 in a quarter of the multiplications: Winograd's F(4x4, 3x3) (Lavin and Gray, 2016). A tile of 4x4
// output pixels comes from 6x6 pixels d of the source as A^T [ sum over channels (G w G^T) * (B^T d B) ] A, so that what is left is
// 36 matrix products of tiles x channels by channels x columns, done by the register tile of conv_tile.h.
//
// The matrices follow from interpolation at 0, +-sqrt(1/2), +-sqrt(2) and infinity. At these points rounding errors are about twice
// those of the direct sum (rms, 64 to 512 channels); at the usual 0, +-1, +-2 they would be four times as large, and ten at worst.
//
// A chunk goes through its tiles in blocks that stay in the L2 cache, with scratch of its own:
//   tiles[36][block][channels], then per panel of columns  products[36][block][width].
#pragma once
#include "cpu/isa/conv_gather.h"

namespace fastdl {
namespace {

constexpr int64_t kWinogradBlock = kWinogradTiles / kConvRows * kConvRows;
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

// Packed weights (rows tap * channels + c, by panels) to [panel][36][channels][width].
inline void winograd_pack(const float* packed, int64_t channels, const Panels<float>& panels, float* out) {
  parallel_for(panels.count * channels, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t p = i / channels, c = i % channels, width = panels.width(p);
      for (int64_t j = 0; j < width; j += VecF::size) {
        const float* from = packed + panels.begin(p) * 9 * channels + c * width + j;
        float* to = out + panels.begin(p) * 36 * channels + c * width + j;
        VecF rows[6][3];
        for (int h = 0; h < 3; h++) {
          VecF g[3], u[6];
          for (int v = 0; v < 3; v++) g[v] = load(from + (v * 3 + h) * channels * width);
          winograd_weights(g, u);
          for (int v = 0; v < 6; v++) rows[v][h] = u[v];
        }
        for (int v = 0; v < 6; v++) {
          VecF u[6];
          winograd_weights(rows[v], u);
          for (int h = 0; h < 6; h++) store(to + (v * 6 + h) * channels * width, u[h]);
        }
      }
    }
  });
}

struct WinogradTile {
  int64_t n, y, x;  // first output pixel
};
FD_INLINE WinogradTile winograd_tile(const Gather<float>& g, int64_t i) {
  const int64_t across = ceil_div<int64_t>(g.count[1], 4), down = ceil_div<int64_t>(g.count[0], 4);
  return {i / across / down, i / across % down * 4, i % across * 4};
}

// Tile i of the block: its 36 values of all channels.
inline void winograd_read(const Gather<float>& g, const WinogradTile& t, int64_t i, float* tiles) {
  const int64_t y0 = t.y + g.low(0), x0 = t.x + g.low(1), plane = kWinogradBlock * g.run;
  const bool inner = y0 >= 0 && x0 >= 0 && y0 + 6 <= g.size[0] && x0 + 6 <= g.size[1];
  const float* image = g.source + t.n * g.size[0] * g.size[1] * g.pitch;
  for (int64_t c = 0; c < g.run; c += VecF::size) {
    VecF rows[6][6];
#pragma GCC unroll 6
    for (int h = 0; h < 6; h++) {
      VecF d[6];
#pragma GCC unroll 6
      for (int v = 0; v < 6; v++) {
        const int64_t y = y0 + v, x = x0 + h;
        const bool inside = inner || (uint64_t(y) < uint64_t(g.size[0]) && uint64_t(x) < uint64_t(g.size[1]));
        d[v] = inside ? load(image + (y * g.size[1] + x) * g.pitch + c) : VecF(0.0f);
      }
      winograd_source(d);
#pragma GCC unroll 6
      for (int v = 0; v < 6; v++) rows[v][h] = d[v];
    }
    float* to = tiles + i * g.run + c;
#pragma GCC unroll 6
    for (int v = 0; v < 6; v++) {
      winograd_source(rows[v]);
#pragma GCC unroll 6
      for (int h = 0; h < 6; h++) store(to + (v * 6 + h) * plane, rows[v][h]);
    }
  }
}

// Tile i of the block: output pixels of one panel from the 36 products.
inline void winograd_write(const Gather<float>& g, const WinogradTile& t, int64_t i, const Panels<float>& panels, int64_t p,
                           const float* products) {
  const int64_t width = panels.width(p), plane = kWinogradBlock * width;
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

// Tiles [first, last) by panels [p0, p1).
inline void winograd_block(const Gather<float>& g, const float* weights, int64_t first, int64_t last, int64_t p0, int64_t p1,
                           float* tiles) {
  const Panels<float> panels(g.columns, 2);
  float* products = tiles + 36 * kWinogradBlock * g.run;
  for (int64_t i = first; i < last; i++) winograd_read(g, winograd_tile(g, i), i - first, tiles);
  const float* rows[kConvRows];
  float* c[kConvRows];
  ConvTile<float> t;
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
      t.b = weights + panels.begin(p) * 36 * g.run + value * g.run * width;
      for (int64_t s = 0; s < strips.count; s++) {
        const int64_t begin = strips.begin(s), count = strips.begin(s + 1) - begin;
        for (int64_t i = 0; i < count; i++) {
          rows[i] = tiles + (value * kWinogradBlock + begin + i) * g.run;
          c[i] = products + (value * kWinogradBlock + begin + i) * width;
        }
        run_tile(panels.vectors(p), count, t);
      }
    }
    for (int64_t i = first; i < last; i++) winograd_write(g, winograd_tile(g, i), i - first, panels, p, products);
  }
}

// g as for gather(), with 3x3 taps of distance 1; packed, weights, scratch: see ConvGatherPlan. Weights are packed in the order in
// which taps lie on the source.
inline void winograd(const Gather<float>& g, const ConvPack<float>& pack, const WinogradPlan& plan, float* weights,
                     float* scratch) {
  const Panels<float> panels(g.columns, 2);
  pack_weights(pack);
  winograd_pack(pack.out, g.run, panels, weights);
  const int64_t blocks = ceil_div(plan.tiles, kWinogradBlock), wide = min_of<int64_t>(4, panels.count);
  Cut cut = {ceil_div(blocks, ceil_div(blocks, min_of(plan.chunks, blocks))), 1};
  cut.cols = max_of<int64_t>(1, min_of(wide, plan.chunks / cut.rows));
  // Many threads: finer, as far as there is scratch.
  const int64_t macs = 36 * g.run * panels.most * VecF::size, threads = min_of<int64_t>(num_threads(), plan.chunks);
  const int64_t least = ceil_div(kConvPieceMacs, macs);
  Cut fair = fair_cut(1, plan.tiles, panels.count, cut, least, int(threads));
  if (fair.rows * fair.cols > plan.chunks) fair = fair_cut(1, plan.tiles, panels.count, {1, 1}, least, int(threads));
  if (fair.rows * fair.cols <= plan.chunks) cut = fair;
  parallel_chunks(cut.rows * cut.cols, [&](int64_t chunk) {
    const int64_t d = chunk % cut.rows, a = chunk / cut.rows;
    const int64_t t0 = d * plan.tiles / cut.rows, t1 = (d + 1) * plan.tiles / cut.rows;
    const int64_t p0 = a * panels.count / cut.cols, p1 = (a + 1) * panels.count / cut.cols;
    piece_work((t1 - t0) * 36 * g.run * (p1 - p0) * panels.most * VecF::size, kConvPieceMacs);
    const Blocks own(t1 - t0, kWinogradBlock);
    for (int64_t b = 0; b < own.count; b++)
      winograd_block(g, weights, t0 + own.begin(b), t0 + own.begin(b + 1), p0, p1, scratch + chunk * plan.chunk_floats);
  });
}

}  // namespace
}  // namespace fastdl
