// Gradient of 3x3 weights of step 1 in a quarter of the multiplications: what conv_winograd.h does, transposed (Lavin and Gray,
// 2016). A tile of 4x4 pixels of dy and the 6x6 pixels d of x around it give
//   dw = G^T [ sum over tiles (B^T d B) * (A dy A^T) ] G,
// so that what is left is 36 matrix products of channels x tiles by tiles x columns, done by the register tile of gemm_tile.h.
//
// Tiles go in rounds, whose values stay in the L2 and L3 caches: x[36][round][channels], dy[36][round][columns]; the sums
// [36][channels][columns] of all rounds are kept, for some columns at a time. Rounds follow from sizes only.
#pragma once
#include "cpu/isa/conv_weight.h"
#include "cpu/isa/conv_winograd.h"

namespace fastdl {
namespace {

constexpr int64_t kWinogradChannels = kTileRows[2] > 12 ? kTileRows[2] : 12;  // whose sums are finished at a time

// A m: four pixels of a gradient to six values.
FD_INLINE void winograd_gradient(const VecF (&g)[4], VecF (&m)[6]) {
  const VecF even = g[0] + g[2] * VecF(0.5f), odd = g[1] * VecF(kRootHalf) + g[3] * VecF(kRootHalf / 2);
  const VecF even2 = g[0] + g[2] * VecF(2), odd2 = g[1] * VecF(kRoot2) + g[3] * VecF(2 * kRoot2);
  m[0] = g[0];
  m[1] = even + odd;
  m[2] = even - odd;
  m[3] = even2 + odd2;
  m[4] = even2 - odd2;
  m[5] = g[3];
}

// G^T u: six values to three taps.
FD_INLINE void winograd_taps(const VecF (&u)[6], VecF (&w)[3]) {
  const VecF even = (u[1] + u[2]) * VecF(1.0f / 3), odd = (u[1] - u[2]) * VecF(kRootHalf * -2 / 3);
  const VecF even2 = (u[3] + u[4]) * VecF(1.0f / 3), odd2 = (u[3] - u[4]) * VecF(kRoot2 / 6);
  w[0] = u[0] - even * VecF(2) + even2 * VecF(0.5f);
  w[1] = odd + odd2;
  w[2] = even2 - even + u[5];
}

// 4x4 pixels of dy from (y, x) on, columns [begin, end), to their 36 values.
inline void winograd_read_gradient(const float* image, const int64_t* size, int64_t pitch, int64_t y, int64_t x, int64_t begin,
                                   int64_t end, float* to, int64_t plane) {
  const int64_t down = min_of<int64_t>(4, size[0] - y), across = min_of<int64_t>(4, size[1] - x);
  const float* from = image + (y * size[1] + x) * pitch;
  for (int64_t c = begin; c < end; c += VecF::size) {
    VecF rows[6][4];
#pragma GCC unroll 4
    for (int h = 0; h < 4; h++) {
      VecF g[4], m[6];
#pragma GCC unroll 4
      for (int v = 0; v < 4; v++) g[v] = v < down && h < across ? load(from + (v * size[1] + h) * pitch + c) : VecF(0.0f);
      winograd_gradient(g, m);
#pragma GCC unroll 6
      for (int v = 0; v < 6; v++) rows[v][h] = m[v];
    }
#pragma GCC unroll 6
    for (int v = 0; v < 6; v++) {
      VecF m[6];
      winograd_gradient(rows[v], m);
#pragma GCC unroll 6
      for (int h = 0; h < 6; h++) store(to + (v * 6 + h) * plane + c, m[h]);
    }
  }
}

// The work of a gradient and where its values lie.
struct WinogradGrad {
  const WeightGrad<float>& w;
  const WinogradGradPlan& plan;
  int64_t channels, columns, first;  // columns [first, first + columns) of the sums
  int64_t x_pitch, dy_pitch, x_plane, dy_plane, sum_plane;
  float *x, *dy, *sums;

  WinogradGrad(const WeightGrad<float>& w, const WinogradGradPlan& plan)
      : w(w),
        plan(plan),
        channels(w.s.in_channels),
        columns(0),
        first(0),
        x_pitch(winograd_pitch(channels)),
        dy_pitch(winograd_pitch(plan.columns)),
        x_plane(plan.x_plane(channels)),
        dy_plane(plan.dy_plane()),
        sum_plane(plan.sum_plane(channels)),
        x(w.sums),
        dy(x + 36 * x_plane),
        sums(dy + 36 * dy_plane) {}
};

// Values of tiles [t0, t1): of x too if `both`.
inline void winograd_values(const WinogradGrad& g, int64_t t0, int64_t t1, bool both) {
  const ConvShape& s = g.w.s;
  const int64_t down = ceil_div<int64_t>(s.out[0], 4), across = ceil_div<int64_t>(s.out[1], 4);
  const int64_t x_parts = both ? ceil_div(g.channels, kWinogradPart) : 0, parts = x_parts + ceil_div(g.columns, kWinogradPart);
  parallel_for((t1 - t0) * parts, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t row = i / parts, t = t0 + row, part = i % parts, n = t / across / down;
      const int64_t y = t / across % down * 4, x = t % across * 4;
      if (part < x_parts) {
        const int64_t c = part * kWinogradPart;
        winograd_read(g.w.x + n * s.in[0] * s.in[1] * s.in_channels, s.in, s.in_channels, y - s.padding[0], x - s.padding[1], c,
                      min_of(g.channels, c + kWinogradPart), g.x + row * g.x_pitch, g.x_plane);
      } else {
        const int64_t c = (part - x_parts) * kWinogradPart;
        winograd_read_gradient(g.w.dy + n * s.out[0] * s.out[1] * g.w.dy_pitch + g.first, s.out, g.w.dy_pitch, y, x, c,
                               min_of(g.columns, c + kWinogradPart), g.dy + row * g.dy_pitch, g.dy_plane);
      }
    }
  });
}

// Strips [s0, s1) of channels by a panel of columns from `column` on: sums over `count` tiles, to `sums`, where rows of the panel
// are `sum_row` apart; added to those before if `accumulate`.
inline void winograd_sums(const WinogradGrad& g, const Blocks& strips, int64_t s0, int64_t s1, int64_t value, int64_t column,
                          int vectors, int64_t count, bool accumulate, float* sums, int64_t sum_row) {
  Tile<float> t;
  t.a_row = 1;
  t.a_k = g.x_pitch;
  t.k = count;
  t.b = g.dy + value * g.dy_plane + column;
  t.b_k = g.dy_pitch;
  t.c_row = sum_row;
  t.tail = VecF::size;
  t.prefetch = t.fetch_c = t.relu = false;
  t.accumulate = accumulate;
  t.bias = nullptr;
  for (int64_t i = s0; i < s1; i++) {
    const int64_t channel = strips.begin(i);
    t.a = g.x + value * g.x_plane + channel;
    t.c = sums + (channel - strips.begin(s0)) * sum_row;
    run_tile(vectors, int(strips.begin(i + 1) - channel), t);
  }
}

// The same for all channels and the columns at hand, to g.sums.
inline void winograd_all_sums(const WinogradGrad& g, int64_t count, bool accumulate) {
  const Blocks strips(g.channels, kTileRows[2]);
  const Panels<float> panels(g.columns, 2);
  const int64_t macs = max_of<int64_t>(1, count * kTileRows[2] * panels.most * VecF::size);
  const Cut cut = fair_cut(36, strips.count, panels.count, {1, 1}, ceil_div(kConvPieceMacs, macs), num_threads());
  parallel_chunks(36 * cut.rows * cut.cols, [&](int64_t chunk) {
    const int64_t value = chunk / cut.rows / cut.cols, r = chunk % cut.rows, c = chunk / cut.rows % cut.cols;
    const int64_t s0 = r * strips.count / cut.rows, s1 = (r + 1) * strips.count / cut.rows;
    const int64_t p0 = c * panels.count / cut.cols, p1 = (c + 1) * panels.count / cut.cols;
    piece_work((s1 - s0) * (p1 - p0) * macs, kConvPieceMacs);
    for (int64_t p = p0; p < p1; p++)
      winograd_sums(g, strips, s0, s1, value, panels.begin(p), panels.vectors(p), count, accumulate,
                    g.sums + value * g.sum_plane + strips.begin(s0) * g.plan.columns + panels.begin(p), g.plan.columns);
  });
}

// dw of channels [channel, channel + count) and a panel from sums, whose rows and planes are `row` and `plane` apart.
inline void winograd_finish(const WeightPanel<float>& panel, int64_t channel, int64_t count, const float* sums, int64_t row,
                            int64_t plane) {
  alignas(64) float taps[9 * kWinogradChannels * 2 * VecF::size];
  for (int64_t i = 0; i < count; i++)
    for (int64_t j = 0; j < panel.width; j += VecF::size) {
      VecF rows[3][6];
#pragma GCC unroll 6
      for (int h = 0; h < 6; h++) {
        VecF u[6], w[3];
#pragma GCC unroll 6
        for (int v = 0; v < 6; v++) u[v] = load(sums + (v * 6 + h) * plane + i * row + j);
        winograd_taps(u, w);
#pragma GCC unroll 3
        for (int v = 0; v < 3; v++) rows[v][h] = w[v];
      }
#pragma GCC unroll 3
      for (int v = 0; v < 3; v++) {
        VecF w[3];
        winograd_taps(rows[v], w);
#pragma GCC unroll 3
        for (int h = 0; h < 3; h++) store(taps + ((v * 3 + h) * count + i) * panel.width + j, w[h]);
      }
    }
  finish_channels(panel, taps, count, 1, 0, channel, 0, count * 9);
}

// dw of the columns at hand, and db. count: tiles of the only round, whose sums are yet to be formed, in the L2 cache, or 0.
inline void winograd_panels(const WinogradGrad& g, int64_t count) {
  const int64_t most = g.w.panels().most * VecF::size, first = g.first / most, panels = ceil_div(g.columns, most);
  // Half as many channels at a time where threads would not finish together.
  const int64_t whole = ceil_div(g.channels, kWinogradChannels), half = ceil_div(g.channels, kWinogradChannels / 2);
  const auto share = [&](int64_t rows) { return cut_share(1, rows, panels, {rows, panels}, num_threads()); };
  const int64_t channels = share(whole) > 1.1 && share(half) < share(whole) ? kWinogradChannels / 2 : kWinogradChannels;
  const Blocks strips(g.channels, min_of<int64_t>(kTileRows[2], channels));
  const Blocks blocks(strips.count, max_of<int64_t>(1, channels / kTileRows[2]));
  parallel_chunks(panels * blocks.count, [&](int64_t chunk) {
    const int64_t p = chunk % panels, b = chunk / panels;
    const WeightPanel<float> panel(g.w, 0, first + p);
    alignas(64) float sums[36 * (kWinogradChannels * 2 * VecF::size + 16)];
    if (b == 0) {
      for_blocks(g.w, 0, panel.width, [&](const PixelBlock& block, bool fresh) { add_bias(panel, block, fresh, sums); });
      finish_bias(panel, sums, 1, 0);
    }
    const int64_t s0 = blocks.begin(b), s1 = blocks.begin(b + 1), channel = strips.begin(s0), end = strips.begin(s1);
    piece_work(36 * max_of<int64_t>(count, 1) * (end - channel) * panel.width, count ? kConvPieceMacs : kConvSumsPiece);
    if (count == 0)
      return winograd_finish(panel, channel, end - channel, g.sums + channel * g.plan.columns + p * most, g.plan.columns,
                             g.sum_plane);
    const int64_t plane = (end - channel) * panel.width + 16;
    for (int64_t value = 0; value < 36; value++)
      winograd_sums(g, strips, s0, s1, value, p * most, panel.vectors, count, false, sums + value * plane, panel.width);
    winograd_finish(panel, channel, end - channel, sums, panel.width, plane);
  });
}

inline void winograd_weight_grad(const WeightGrad<float>& w, const WinogradGradPlan& plan) {
  WinogradGrad g(w, plan);
  for (; g.first < w.s.out_channels; g.first += plan.columns) {
    g.columns = min_of(plan.columns, w.s.out_channels - g.first);
    for (int64_t t = 0; t < plan.tiles; t += plan.round) {
      const int64_t end = min_of(plan.tiles, t + plan.round);
      winograd_values(g, t, end, g.first == 0 || plan.rounds() > 1);
      if (plan.rounds() > 1) winograd_all_sums(g, end - t, t > 0);
    }
    winograd_panels(g, plan.rounds() > 1 ? 0 : plan.tiles);
  }
}

}  // namespace
}  // namespace fastdl
