// Convolutions as matrix products, without im2col: loaders that find each element of the implied matrix in the image. Images are
// NHWC, so neighbours along channels share a chunk. After CUTLASS's implicit_gemm_convolution.md.
//
//   GatherForm   y, and dx:  rows = pixels that are written, columns = channels written, k = (tap, channel read)
//   WeightForm   dw:         rows = output channels, columns = (tap, input channel), k = output pixels
//
// One product per group. For dx with a stride, also one per phase: pixels of the same remainder modulo the stride see the same
// taps, so each phase is a convolution of its own with stride 1 on every period-th tap, without a multiplication by zero.
#pragma once
#include "cuda/device/divisor.cuh"
#include "cuda/device/gemm_load.cuh"

namespace fastdl {

// One axis. `source` positions are read, `out` positions are written; ConvCall::fits_31_bits (conv_call.h) proves that no sum below
// overflows.
struct ConvAxis {
  int32_t source, out, stride, padding, dilation, taps, phases, period;
};

struct ConvGeometry {
  ConvAxis axis[2];
  bool forward;              // y; else dx
  int32_t channels;          // read, of one group
  int32_t columns;           // written, of one group
  int64_t pitch, out_pitch;  // channels of all groups
  // Pixels of an image and of a row, of phases that have all ceil(out / phases) positions along an axis [0] and one fewer [1].
  Divisor image[2][2], row[2];
};

namespace {

// One phase of one axis: `count` positions begin, begin + step ... are written; tap i of the phase reads source position
// first + move * (number of the written position) + i * tap_step. `before`: taps of earlier phases, in the packed weights.
struct AxisPhase {
  int32_t count, begin, step, first, move, tap_step, taps, before;
  bool one_fewer;
};
FD_DEVICE AxisPhase phase_of(const ConvAxis& a, bool forward, int32_t remainder) {
  if (forward) return {a.out, 0, 1, -a.padding, a.stride, a.dilation, a.taps, 0, false};
  AxisPhase p;
  p.begin = remainder;
  p.step = a.stride;
  p.move = 1;
  p.count = (a.out - remainder + a.stride - 1) / a.stride;
  p.one_fewer = p.count < (a.out + a.stride - 1) / a.stride;
  // Position i gets tap t from source position (i + padding - t * dilation) / stride where that is whole.
  int32_t tap = 0;
  const int32_t tries = int32_t(min_of(a.period, a.taps));
  while (tap < tries && (remainder + a.padding - tap * a.dilation) % a.stride != 0) tap++;
  p.taps = tap < tries ? (a.taps - tap + a.period - 1) / a.period : 0;
  p.first = (remainder + a.padding - tap * a.dilation) / a.stride;
  p.tap_step = -(a.dilation / (a.stride / a.period));
  p.before = a.taps / a.period * tap + int32_t(min_of(a.taps % a.period, tap));
  return p;
}

// Rows of the product -> pixels of the image that is written.
struct GatherRows {
  AxisPhase phase[2];
  Divisor image, row;
  int64_t group, pixels, base, k;
  int32_t out[2];

  FD_DEVICE void pixel(int64_t m, int32_t& n, int32_t& i, int32_t& j) const {
    int32_t rest;
    n = divide(int32_t(m), image, rest);
    i = divide(rest, row, j);
  }
  FD_DEVICE int64_t offset(int64_t m, int64_t pitch) const {
    int32_t n, i, j;
    pixel(m, n, i, j);
    const int64_t line = int64_t(n) * out[0] + phase[0].begin + i * phase[0].step;
    return base + (line * out[1] + phase[1].begin + j * phase[1].step) * pitch;
  }
};

constexpr int32_t kNowhere = -(1 << 30);  // a position that stays outside of the image, whatever the tap

// The pixels that a (tap, channel) meets. Whole: channels are a multiple of a chunk.
template <class S, class Map, Load kLoad>
struct GatherLoader : LoaderKind<Map, kLoad> {
  const S* image[Map::kChunks];  // of each of the thread's pixels, at the group's first channel
  int32_t at[Map::kChunks][2];   // position of the first tap
  int32_t tap[2], channel;       // of the chunk's first k
  int32_t ks;
  int32_t size[2], tap_step[2], taps_across, channels;
  int64_t pitch;

  FD_DEVICE void begin(const S* source, const ConvGeometry& g, const GatherRows& rows, const TilePlace& t, int64_t m0, bool whole,
                       int thread) {
    this->walk_ = ChunkOrder::AlongK;
    this->whole_ = whole;
    pitch = g.pitch;
    channels = g.channels;
    taps_across = rows.phase[1].taps;
#pragma unroll
    for (int a = 0; a < 2; a++) size[a] = g.axis[a].source, tap_step[a] = rows.phase[a].tap_step;
    const int64_t line = m0 + Map::line(ChunkOrder::AlongK, thread), k = t.k0 + Map::k(ChunkOrder::AlongK, thread);
    ks = int32_t(t.k1 - k);
    tap[0] = tap[1] = channel = 0;
    if (ks > 0) {
      const int32_t which = int32_t(k / channels);
      channel = int32_t(k - int64_t(which) * channels);
      tap[0] = which / taps_across;
      tap[1] = which - tap[0] * taps_across;
    }
#pragma unroll
    for (int i = 0; i < Map::kChunks; i++) {
      const int64_t m = line + i * Map::line_step(ChunkOrder::AlongK);
      image[i] = source;
      at[i][0] = at[i][1] = kNowhere;
      if (m >= rows.pixels) continue;
      int32_t n, p, q;
      rows.pixel(m, n, p, q);
      image[i] += int64_t(n) * size[0] * size[1] * pitch;
      at[i][0] = rows.phase[0].first + p * rows.phase[0].move;
      at[i][1] = rows.phase[1].first + q * rows.phase[1].move;
    }
  }
  FD_DEVICE void step(int32_t& i, int32_t& j, int32_t& c, int32_t by) const {
    c += by;
    while (c >= channels) {
      c -= channels;
      if (++j == taps_across) j = 0, i++;
    }
  }
  // The element of pixel number `chunk` at (i, j, c), or null beside the image.
  FD_DEVICE const S* find(int chunk, int32_t i, int32_t j, int32_t c) const {
    const int32_t h = at[chunk][0] + i * tap_step[0], w = at[chunk][1] + j * tap_step[1];
    if (uint32_t(h) >= uint32_t(size[0]) || uint32_t(w) >= uint32_t(size[1])) return nullptr;
    return image[chunk] + (int64_t(h) * size[1] + w) * pitch + c;
  }
  FD_DEVICE Chunk<S> chunk(int i) const {
    const S* p = ks > 0 ? find(i, tap[0], tap[1], channel) : nullptr;
    return {p, p ? Map::kVector : 0};
  }
  FD_DEVICE void gather(int chunk, S (&v)[Map::kVector]) const {
    int32_t i = tap[0], j = tap[1], c = channel;
#pragma unroll
    for (int e = 0; e < Map::kVector; e++) {
      const S* p = e < ks ? find(chunk, i, j, c) : nullptr;
      v[e] = p ? *p : S{};
      if (e < ks) step(i, j, c, 1);
    }
  }
  FD_DEVICE void advance() {
    ks -= Map::kDepth;
    if (ks > 0) step(tap[0], tap[1], channel, Map::kDepth);
  }
};

// z counts (group, phase along the first axis, phase along the second).
template <class S>
struct GatherForm {
  using Element = S;
  static constexpr Load kWhole = Load::WholeAlongK;
  GemmTiling tiling;
  ConvGeometry g;
  const S* source;
  GemmSide weights;     // of one group and phase: (column, k)
  int64_t weight_taps;  // elements of one tap of a group: columns x channels
  GemmEpilogue out;
  void* partial;
  bool vector_out, whole;  // whole: both operands

  template <class Map, Load kLoad>
  using LoadA = GatherLoader<S, Map, kLoad>;
  template <class Map, Load kLoad>
  using LoadB = MatrixLoader<S, Map, kLoad>;

  struct Rows : GatherRows {
    FD_DEVICE int64_t count(const GatherForm&) const { return this->pixels; }
    FD_DEVICE int64_t offset(const GatherForm& f, int64_t, int64_t m) const { return GatherRows::offset(m, f.g.out_pitch); }
  };
  FD_DEVICE Rows rows_of(int64_t z) const {
    Rows r;
    const int32_t phases = g.axis[0].phases * g.axis[1].phases;
    r.group = z / phases;
    const int32_t phase = int32_t(z - r.group * phases), first = phase / g.axis[1].phases;
    r.phase[0] = phase_of(g.axis[0], g.forward, first);
    r.phase[1] = phase_of(g.axis[1], g.forward, phase - first * g.axis[1].phases);
    r.image = g.image[r.phase[0].one_fewer][r.phase[1].one_fewer];
    r.row = g.row[r.phase[1].one_fewer];
    r.pixels = tiling.m / g.image[0][0].value * r.phase[0].count * r.phase[1].count;
    r.out[0] = g.axis[0].out;
    r.out[1] = g.axis[1].out;
    r.base = r.group * g.columns;
    r.k = int64_t(r.phase[0].taps) * r.phase[1].taps * g.channels;
    return r;
  }
  FD_DEVICE Rows find_rows(TilePlace& t) const {
    const Rows r = rows_of(t.z);
    t.k1 = min_of(t.k1, r.k);
    return r;
  }
  template <class A, class B>
  FD_DEVICE void begin(const TilePlace& t, const Rows& r, int64_t m0, int64_t n0, A& load_a, B& load_b, int thread) const {
    load_a.begin(source + r.group * g.channels, g, r, t, m0, whole, thread);
    const int64_t taps_before = int64_t(r.phase[0].before) * g.axis[1].taps + int64_t(r.phase[0].taps) * r.phase[1].before;
    GemmSide side = weights;
    side.line_stride = r.k;
    const int64_t offset = (r.group * g.axis[0].taps * g.axis[1].taps + taps_before) * weight_taps;
    load_b.begin(side, offset, n0, tiling.n, t.k0, t.k1, thread);
  }
  FD_DEVICE const S* any_a() const { return source; }
  FD_DEVICE const S* any_b() const { return static_cast<const S*>(weights.data); }
  FD_DEVICE int64_t part_offset(int64_t z, int64_t m, int64_t n) const {
    const Rows r = rows_of(z);
    return m < r.pixels ? r.offset(*this, z, m) + n : -1;
  }
};

// x by (tap, channel) and output pixel: a thread stays with its taps and goes through the pixels.
template <class S, class Map, Load kLoad>
struct TapLoader : LoaderKind<Map, kLoad> {
  const S* p;
  int32_t offset[2];  // what the tap adds to the pixel's position
  int32_t pixel, ks;
  int32_t size[2], stride[2];
  int64_t pitch;
  Divisor image, row;

  FD_DEVICE void begin(const S* source, const ConvGeometry& g, const TilePlace& t, int64_t n0, int64_t columns, bool whole,
                       int thread) {
    this->whole_ = whole;
    this->walk_ = this->whole() ? ChunkOrder::AlongLines : ChunkOrder::AcrossLines;
    p = source;
    pitch = g.pitch;
    image = g.image[0][0];
    row = g.row[0];
    pixel = int32_t(t.k0) + Map::k(this->walk(), thread);
    ks = int32_t(t.k1) - pixel;
#pragma unroll
    for (int a = 0; a < 2; a++) size[a] = g.axis[a].source, stride[a] = g.axis[a].stride;
    offset[0] = offset[1] = kNowhere;
    const int64_t n = n0 + Map::line(this->walk(), thread);
    if (n >= columns) return;
    const int32_t tap = int32_t(n / g.channels), i = tap / g.axis[1].taps;
    p += n - int64_t(tap) * g.channels;
    offset[0] = i * g.axis[0].dilation - g.axis[0].padding;
    offset[1] = (tap - i * g.axis[1].taps) * g.axis[1].dilation - g.axis[1].padding;
  }
  FD_DEVICE const S* find(int32_t k) const {
    int32_t rest, q;
    const int32_t n = divide(pixel + k, image, rest), i = divide(rest, row, q);
    const int32_t h = i * stride[0] + offset[0], w = q * stride[1] + offset[1];
    if (uint32_t(h) >= uint32_t(size[0]) || uint32_t(w) >= uint32_t(size[1])) return nullptr;
    return p + ((int64_t(n) * size[0] + h) * size[1] + w) * pitch;
  }
  FD_DEVICE Chunk<S> chunk(int i) const {
    const int k = i * Map::k_step(ChunkOrder::AlongLines);
    const S* from = k < ks ? find(k) : nullptr;
    return {from, from ? Map::kVector : 0};
  }
  FD_DEVICE void gather(int i, S (&v)[Map::kVector]) const {
#pragma unroll
    for (int e = 0; e < Map::kVector; e++) {
      const int k = i * Map::k_step(ChunkOrder::AcrossLines) + e;
      const S* from = k < ks ? find(k) : nullptr;
      v[e] = from ? *from : S{};
    }
  }
  FD_DEVICE void advance() {
    pixel += Map::kDepth;
    ks -= Map::kDepth;
  }
};

// z counts groups.
template <class S>
struct WeightForm {
  using Element = S;
  static constexpr Load kWhole = Load::WholeAlongLines;
  GemmTiling tiling;
  ConvGeometry g;  // axis: source = x, out = y; channels of x
  GemmSide grad;   // (output channel, pixel), of the first group
  const S* source;
  GemmEpilogue out;
  void* partial;
  bool vector_out, whole;  // whole: both operands

  template <class Map, Load kLoad>
  using LoadA = MatrixLoader<S, Map, kLoad>;
  template <class Map, Load kLoad>
  using LoadB = TapLoader<S, Map, kLoad>;

  struct Rows {  // without parts: one tap
    FD_DEVICE int64_t count(const WeightForm& f) const { return f.tiling.m; }
    FD_DEVICE int64_t offset(const WeightForm& f, int64_t z, int64_t m) const { return (z * f.tiling.m + m) * f.tiling.n; }
  };
  FD_DEVICE Rows find_rows(TilePlace&) const { return {}; }
  template <class A, class B>
  FD_DEVICE void begin(const TilePlace& t, const Rows&, int64_t m0, int64_t n0, A& load_a, B& load_b, int thread) const {
    load_a.begin(grad, t.z * tiling.m, m0, tiling.m, t.k0, t.k1, thread);
    load_b.begin(source + t.z * g.channels, g, t, n0, tiling.n, whole, thread);
  }
  FD_DEVICE const S* any_a() const { return static_cast<const S*>(grad.data); }
  FD_DEVICE const S* any_b() const { return source; }
  // dw is (output channel, input channel, tap)
  FD_DEVICE int64_t part_offset(int64_t z, int64_t m, int64_t n) const {
    const int64_t taps = int64_t(g.axis[0].taps) * g.axis[1].taps, tap = n / g.channels, channel = n - tap * g.channels;
    return ((z * tiling.m + m) * g.channels + channel) * taps + tap;
  }
};

}  // namespace
}  // namespace fastdl
