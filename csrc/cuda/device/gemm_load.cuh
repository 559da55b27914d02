// How a block reads its tiles of an operand. Threads take chunks of kVector neighbours; a loader knows where they lie in memory,
// the engine (gemm_engine.cuh) and its arithmetic know where they go in shared memory.
//
// Where the neighbours are together in memory, aligned to 16 bytes, a chunk is read whole; else its elements are gathered one by
// one, along k, by threads that run along whichever dimension is dense, so that a warp reads neighbours.
#pragma once
#include "cuda/device/divisor.cuh"
#include "cuda/device/pack.cuh"
#include "cuda/gemm.h"
#include "cuda/tune.h"

namespace fastdl {

// How the blocks share a product: z products, `splits` parts of `depth` of k each, tiles_m x tiles_n tiles of C.
struct GemmTiling {
  int64_t z, m, n, k, depth, tiles_m, tiles_n, splits;
  int64_t first_z;  // of the launch
  Divisor per_product, per_band, per_z;
  int64_t tiles() const { return z * splits * tiles_m * tiles_n; }
};

enum class ChunkOrder : uint8_t {
  AlongK,       // chunks along k; the next thread has the next chunk of the line
  AcrossLines,  // chunks along k; the next thread has the same k's of the next line
  AlongLines,   // chunks along lines; the next thread has the next chunk of the same k
};

// An operand in memory. whole: chunks are aligned, and read at once.
struct GemmSide {
  const void* data;
  int64_t line_stride, k_stride;
  ChunkOrder walk;
  bool whole;
};

namespace {

// What a kernel is compiled for: operands of any kind, or of one.
enum class Load { Any, WholeAlongK, WholeAlongLines, Gathered };

// Where a block works: product z, part `split` of k, tile (row, column) of C; k0 to k1 of k.
struct TilePlace {
  int64_t z;
  int32_t split, row, column;
  int64_t k0, k1;
};

// In bands of kTileBand rows of tiles.
FD_DEVICE TilePlace place_of(const GemmTiling& g, int32_t block) {
  int32_t at, in_band, split;
  const int32_t part = divide(block, g.per_product, at), band = divide(at, g.per_band, in_band), z = divide(part, g.per_z, split);
  const int32_t left = int32_t(g.tiles_m) - band * kTileBand, rows = left < kTileBand ? left : kTileBand;
  TilePlace p;
  p.z = g.first_z + z;
  p.split = split;
  p.column = in_band / rows;
  p.row = band * kTileBand + in_band - p.column * rows;
  p.k0 = split * g.depth;
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

// Which chunks of a (lines, depth) tile a thread takes: number i lies i line_steps and i k_steps after number 0.
template <int Lines, int Depth, int Threads, int Vector>
struct ChunkMap {
  static constexpr int kVector = Vector, kDepth = Depth, kChunks = Lines * Depth / Vector / Threads;
  static_assert(kChunks * Vector * Threads == Lines * Depth && Threads % Lines == 0, "whole chunks, whole rows of threads");
  static FD_DEVICE int line(ChunkOrder w, int thread) {
    return w == ChunkOrder::AlongK        ? thread / (Depth / Vector)
           : w == ChunkOrder::AcrossLines ? thread % Lines
                                          : thread % (Lines / Vector) * Vector;
  }
  static FD_DEVICE int k(ChunkOrder w, int thread) {
    return w == ChunkOrder::AlongK        ? thread % (Depth / Vector) * Vector
           : w == ChunkOrder::AcrossLines ? thread / Lines * Vector
                                          : thread / (Lines / Vector);
  }
  static FD_DEVICE int line_step(ChunkOrder w) { return w == ChunkOrder::AlongK ? Threads / (Depth / Vector) : 0; }
  static FD_DEVICE int k_step(ChunkOrder w) {
    return w == ChunkOrder::AlongK ? 0 : w == ChunkOrder::AcrossLines ? Threads / Lines * Vector : Threads / (Lines / Vector);
  }
};

// A chunk in memory: `count` of its elements exist; if none, p is anything.
template <class S>
struct Chunk {
  const S* p;
  int count;
};

// What all loaders have: which kinds of chunks there are, at compile time where the kernel is for one kind.
template <class Map, Load kLoad>
struct LoaderKind {
  ChunkOrder walk_;
  bool whole_;
  FD_DEVICE ChunkOrder walk() const {
    return kLoad == Load::WholeAlongK ? ChunkOrder::AlongK : kLoad == Load::WholeAlongLines ? ChunkOrder::AlongLines : walk_;
  }
  FD_DEVICE bool whole() const { return kLoad == Load::Any ? whole_ : kLoad != Load::Gathered; }
};

// A strided matrix.
template <class S, class Map, Load kLoad>
struct MatrixLoader : LoaderKind<Map, kLoad> {
  const S* p;     // the thread's first chunk in the current tile
  int32_t lines;  // how many exist from there on; of those that the tile has
  int32_t ks;
  int64_t line_stride, k_stride;

  FD_DEVICE void begin(const GemmSide& side, int64_t offset, int64_t line0, int64_t line_end, int64_t k0, int64_t k1, int thread) {
    this->walk_ = side.walk;
    this->whole_ = side.whole;
    const ChunkOrder walk = this->walk();
    const int64_t line = line0 + Map::line(walk, thread), k = k0 + Map::k(walk, thread);
    p = static_cast<const S*>(side.data) + offset + line * side.line_stride + k * side.k_stride;
    lines = int32_t(min_of(line_end - line, 1 << 16));
    ks = int32_t(k1 - k);
    k_stride = side.k_stride;
    line_stride = side.line_stride;
  }
  FD_DEVICE Chunk<S> chunk(int i) const {
    if (this->walk() == ChunkOrder::AlongK) {
      if (i * Map::line_step(ChunkOrder::AlongK) >= lines || ks <= 0) return {p, 0};
      return {p + i * Map::line_step(ChunkOrder::AlongK) * line_stride, ks < Map::kVector ? ks : Map::kVector};
    }
    if (i * Map::k_step(ChunkOrder::AlongLines) >= ks || lines <= 0) return {p, 0};
    return {p + i * Map::k_step(ChunkOrder::AlongLines) * k_stride, lines < Map::kVector ? lines : Map::kVector};
  }
  FD_DEVICE void gather(int i, S (&v)[Map::kVector]) const {
    const bool exists = i * Map::line_step(this->walk()) < lines;
    const S* from = p + i * Map::line_step(this->walk()) * line_stride + i * Map::k_step(this->walk()) * k_stride;
    const int32_t left = ks - i * Map::k_step(this->walk());
#pragma unroll
    for (int e = 0; e < Map::kVector; e++) v[e] = exists && e < left ? from[e * k_stride] : S{};
  }
  FD_DEVICE void advance() {
    p += kLoad == Load::WholeAlongK ? Map::kDepth : Map::kDepth * k_stride;
    ks -= Map::kDepth;
  }
};

// A form is a product as the engine sees it: its operands' loaders, and where rows of its results lie (Rows). This one: two strided
// matrices; conv_load.cuh has the others.
template <class S>
struct MatrixForm {
  using Element = S;
  GemmTiling tiling;
  GemmSide a, b;
  GemmBatch batch;
  GemmEpilogue out;
  void* partial;  // where the sums of parts go; null: one part, finished at once
  bool vector_out;

  template <class Map, Load kLoad>
  using LoadA = MatrixLoader<S, Map, kLoad>;
  template <class Map, Load kLoad>
  using LoadB = MatrixLoader<S, Map, kLoad>;

  struct Rows {
    int64_t offset_a, offset_b;  // of the product
    FD_DEVICE int64_t count(const MatrixForm& f) const { return f.tiling.m; }
    FD_DEVICE int64_t offset(const MatrixForm& f, int64_t z, int64_t m) const { return z * f.out.z_stride + m * f.out.row_stride; }
  };
  FD_DEVICE Rows find_rows(TilePlace& t) const {
    Rows r;
    batch_offsets(batch, t.z, r.offset_a, r.offset_b);
    return r;
  }
  template <class A, class B>
  FD_DEVICE void begin(const TilePlace& t, const Rows& r, int64_t m0, int64_t n0, A& load_a, B& load_b, int thread) const {
    load_a.begin(a, r.offset_a, m0, tiling.m, t.k0, t.k1, thread);
    load_b.begin(b, r.offset_b, n0, tiling.n, t.k0, t.k1, thread);
  }
  FD_DEVICE const S* any_a() const { return static_cast<const S*>(a.data); }
  FD_DEVICE const S* any_b() const { return static_cast<const S*>(b.data); }
  FD_DEVICE int64_t part_offset(int64_t z, int64_t m, int64_t n) const { return z * out.z_stride + m * out.row_stride + n; }
};

}  // namespace
}  // namespace fastdl
