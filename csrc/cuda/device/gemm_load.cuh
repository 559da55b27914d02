// How a block reads its tiles of an operand: threads take chunks of 4 neighbours, along k or along lines, whichever lies together
// in memory. A loader knows the addresses; the engines (gemm_ffma.cuh) know where chunks go in shared memory.
#pragma once
#include "cuda/device/epilogue.cuh"
#include "cuda/tune.h"

namespace fastdl {

// How the blocks share a product: z products, `splits` parts of `depth` of k each, tiles_m x tiles_n tiles of C.
struct GemmTiling {
  int64_t z, m, n, k, depth, tiles_m, tiles_n, splits;
  int64_t tiles() const { return z * splits * tiles_m * tiles_n; }
};

// An operand in memory. along_k: neighbours along k share a chunk; vector: whole chunks are aligned.
struct GemmSide {
  const void* data;
  int64_t line_stride, k_stride;
  bool along_k, vector;
};

namespace {

struct TilePlace {
  int64_t z, split, m0, n0, k0, k1;
};

// Tile number -> place, in bands of kTileBand rows of tiles.
template <int kM, int kN>
FD_DEVICE TilePlace place_of(const GemmTiling& g, int64_t tile) {
  const int64_t per_product = g.tiles_m * g.tiles_n, part = tile / per_product, at = tile - part * per_product;
  const int64_t band = at / (kTileBand * g.tiles_n), first = band * kTileBand, in_band = at - first * g.tiles_n;
  const int64_t rows = min_of(kTileBand, g.tiles_m - first), column = in_band / rows;
  TilePlace p;
  p.z = part / g.splits;
  p.split = part - p.z * g.splits;
  p.m0 = (first + in_band - column * rows) * kM;
  p.n0 = column * kN;
  p.k0 = p.split * g.depth;
  p.k1 = min_of(p.k0 + g.depth, g.k);
  return p;
}

FD_DEVICE void batch_offsets(const GemmBatch& batch, int64_t z, int64_t& a, int64_t& b) {
  a = b = 0;
  for (int d = batch.ndim - 1; d >= 0; d--) {
    const int64_t rest = z / batch.shape[d], i = z - rest * batch.shape[d];
    a += i * batch.a[d];
    b += i * batch.b[d];
    z = rest;
  }
}

template <class S>
FD_DEVICE auto widen_or_keep(S x) {
  if constexpr (sizeof(S) == 2)
    return widen(x);
  else
    return x;
}

// Four elements from p on, `stride` apart, of which `count` exist; the others are zeros.
template <class T, class S>
FD_DEVICE void load_4(T (&r)[4], const S* p, int64_t stride, int64_t count, bool vector) {
  if (vector && count >= 4) {
    if constexpr (sizeof(S) == 4) {
      const auto x = load_16<Pack16<S>>(p);
#pragma unroll
      for (int j = 0; j < 4; j++) r[j] = x.v[j];
      return;
    } else if constexpr (sizeof(S) == 8) {
      const auto x = load_16<Pack16<S>>(p), y = load_16<Pack16<S>>(p + 2);
#pragma unroll
      for (int j = 0; j < 2; j++) r[j] = x.v[j], r[j + 2] = y.v[j];
      return;
    }
  }
#pragma unroll
  for (int j = 0; j < 4; j++) r[j] = j < count ? T(widen_or_keep(p[j * stride])) : T(0);
}

// Which chunks of a (kLines, kDepth) tile a thread takes: number i is `line_step` lines and `k_step` k's after number i - 1.
template <int kLines, int kDepth, int kThreads>
struct ChunkMap {
  static constexpr int kChunks = kLines * kDepth / 4 / kThreads;
  static_assert(kChunks * 4 * kThreads == kLines * kDepth && kThreads % (kLines / 4) == 0, "whole chunks");
  static FD_DEVICE int line(bool along_k, int thread) { return along_k ? thread / (kDepth / 4) : thread % (kLines / 4) * 4; }
  static FD_DEVICE int k(bool along_k, int thread) { return along_k ? thread % (kDepth / 4) * 4 : thread / (kLines / 4); }
  static FD_DEVICE int line_step(bool along_k) { return along_k ? kThreads / (kDepth / 4) : 0; }
  static FD_DEVICE int k_step(bool along_k) { return along_k ? 0 : kThreads / (kLines / 4); }
};

// Tiles of a strided matrix.
template <class S, class Map, int kDepth>
struct MatrixLoader {
  const S* p;         // the thread's first chunk in the current tile
  int64_t lines, ks;  // elements that exist from the chunk's first on
  int64_t line_stride, k_stride;
  bool along_k, vector;

  FD_DEVICE void begin(const GemmSide& side, int64_t offset, int64_t line0, int64_t line_end, int64_t k0, int64_t k1, int thread) {
    along_k = side.along_k;
    vector = side.vector;
    line_stride = side.line_stride;
    k_stride = side.k_stride;
    const int64_t line = line0 + Map::line(along_k, thread), k = k0 + Map::k(along_k, thread);
    p = static_cast<const S*>(side.data) + offset + line * line_stride + k * k_stride;
    lines = line_end - line;
    ks = k1 - k;
  }
  template <class T>
  FD_DEVICE void load(T (&r)[Map::kChunks][4]) {
    if (along_k) {
#pragma unroll
      for (int i = 0; i < Map::kChunks; i++) {
        const int step = i * Map::line_step(true);
        load_4(r[i], p + step * line_stride, k_stride, step < lines ? ks : 0, vector);
      }
    } else {
#pragma unroll
      for (int i = 0; i < Map::kChunks; i++) {
        const int step = i * Map::k_step(false);
        load_4(r[i], p + step * k_stride, line_stride, step < ks ? lines : 0, vector);
      }
    }
    p += kDepth * k_stride;
    ks -= kDepth;
  }
};

// Where the rows of a product lie in C.
struct MatrixRows {
  int64_t count, base, pitch;
  FD_DEVICE int64_t offset(int64_t m) const { return base + m * pitch; }
};

// A form is a product as the engines see it: its operands' loaders and the place of its results. This one: two strided matrices;
// conv_load.cuh has the others.
template <class S>
struct MatrixForm {
  GemmTiling tiling;
  GemmSide a, b;
  GemmBatch batch;
  GemmEpilogue out;
  void* partial;  // where the sums of parts go; null: one part, finished at once
  bool vector_out;

  template <class Map, int kDepth>
  using LoadA = MatrixLoader<S, Map, kDepth>;
  template <class Map, int kDepth>
  using LoadB = MatrixLoader<S, Map, kDepth>;

  template <class A, class B>
  FD_DEVICE MatrixRows begin(TilePlace& t, A& load_a, B& load_b, int thread) const {
    int64_t offset_a, offset_b;
    batch_offsets(batch, t.z, offset_a, offset_b);
    load_a.begin(a, offset_a, t.m0, tiling.m, t.k0, t.k1, thread);
    load_b.begin(b, offset_b, t.n0, tiling.n, t.k0, t.k1, thread);
    return {tiling.m, t.z * out.z_stride, out.row_stride};
  }
  FD_DEVICE int64_t part_offset(int64_t z, int64_t m, int64_t n) const { return z * out.z_stride + m * out.row_stride + n; }
};

}  // namespace
}  // namespace fastdl
