// The engine for float and double on plain multiply-adds: C tiles of kM x kN per block, kRows x kColumns sums per thread in
// registers. Tiles of A and B wait in shared memory as [k][line], two of each: while one is multiplied, the next is on its way
// from global memory to registers. After S. Boehm, How to Optimize a CUDA Matmul Kernel (2022), and CUTLASS's efficient_gemm.md.
//
// Lanes lie 4 x 8 on a warp's tile and own 4 x 4 blocks, 16 rows and 32 columns apart: a warp reads 4 vectors of A and 8 of B,
// each without bank conflicts.
#pragma once
#include "cuda/device/gemm_load.cuh"

namespace fastdl {
namespace {

template <int M, int N, int Depth, int Rows, int Columns, int BlocksPerSm>
struct FfmaTile {
  static constexpr int kM = M, kN = N, kDepth = Depth, kRows = Rows, kColumns = Columns;
  static constexpr int kWarpM = 4 * Rows, kWarpN = 8 * Columns, kWarpsM = M / kWarpM;
  static constexpr int kThreads = 32 * kWarpsM * (N / kWarpN), kBlocksPerSm = BlocksPerSm;
};
// The blocks per multiprocessor leave as many registers as the loaders take: matrices need few, images more.
constexpr int kFfmaDepth = 16;
template <int BlocksPerSm>
using FfmaLarge = FfmaTile<128, 128, kFfmaDepth, 8, 8, BlocksPerSm>;
template <int BlocksPerSm>
using FfmaSmall = FfmaTile<64, 64, kFfmaDepth, 8, 4, BlocksPerSm>;

// [k][line], with 32 bytes after every 4 k's: chunks along k are stored without bank conflicts.
template <class T, int kLines, int kDepth>
struct FfmaOperand {
  static constexpr int kPad = 32 / sizeof(T);
  T v[kDepth * kLines + kDepth / 4 * kPad];
  FD_DEVICE T* at(int k, int line) { return v + k * kLines + k / 4 * kPad + line; }
};
template <class T, class Tile>
struct FfmaStorage {
  struct Stage {
    FfmaOperand<T, Tile::kM, Tile::kDepth> a;
    FfmaOperand<T, Tile::kN, Tile::kDepth> b;
  } stage[2];
};

template <class T>
FD_DEVICE void read_4(T* r, const T* shared) {
  constexpr int kVector = 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < 4; i += kVector) {
    const auto x = load_16<Pack16<T>>(shared + i);
#pragma unroll
    for (int j = 0; j < kVector; j++) r[i + j] = x.v[j];
  }
}

template <class Map, class T, class Operand>
FD_DEVICE void store_chunks(Operand& to, const T (&r)[Map::kChunks][4], bool along_k, int thread) {
  const int line = Map::line(along_k, thread), k = Map::k(along_k, thread);
#pragma unroll
  for (int i = 0; i < Map::kChunks; i++) {
    if (along_k) {
#pragma unroll
      for (int j = 0; j < 4; j++) *to.at(k + j, line + i * Map::line_step(true)) = r[i][j];
    } else {
      constexpr int kVector = 16 / sizeof(T);
      T* p = to.at(k + i * Map::k_step(false), line);
#pragma unroll
      for (int j = 0; j < 4; j += kVector) {
        Pack16<T> x;
#pragma unroll
        for (int e = 0; e < kVector; e++) x.v[e] = r[i][j + e];
        store_16(p + j, x);
      }
    }
  }
}

template <class T, class Tile, class Form>
FD_DEVICE void ffma_tile(const Form& form, int64_t tile, FfmaStorage<T, Tile>& s) {
  constexpr int kDepth = Tile::kDepth, kRows = Tile::kRows, kColumns = Tile::kColumns;
  using MapA = ChunkMap<Tile::kM, kDepth, Tile::kThreads>;
  using MapB = ChunkMap<Tile::kN, kDepth, Tile::kThreads>;
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  TilePlace t = place_of<Tile::kM, Tile::kN>(form.tiling, tile);
  typename Form::template LoadA<MapA, kDepth> load_a;
  typename Form::template LoadB<MapB, kDepth> load_b;
  const auto rows = form.begin(t, load_a, load_b, thread);
  if (t.m0 >= rows.count) return;

  const int row0 = warp % Tile::kWarpsM * Tile::kWarpM + lane / 8 * 4, column0 = warp / Tile::kWarpsM * Tile::kWarpN + lane % 8 * 4;
  const bool sums_lines = form.out.line_sums && t.n0 == 0 && thread < Tile::kM;
  T c[kRows][kColumns], from_a[MapA::kChunks][4], from_b[MapB::kChunks][4], line_sum = T(0);
#pragma unroll
  for (int i = 0; i < kRows; i++) {
#pragma unroll
    for (int j = 0; j < kColumns; j++) c[i][j] = T(0);
  }
  const int64_t steps = ceil_div(max_of(t.k1 - t.k0, 0), kDepth);
  if (steps > 0) {
    load_a.load(from_a);
    load_b.load(from_b);
  }
  for (int64_t step = 0; step < steps; step++) {
    auto& stage = s.stage[step % 2];
    store_chunks<MapA>(stage.a, from_a, load_a.along_k, thread);
    store_chunks<MapB>(stage.b, from_b, load_b.along_k, thread);
    sync_block();  // also: everyone has left the other stage
    if (step + 1 < steps) {
      load_a.load(from_a);
      load_b.load(from_b);
    }
#pragma unroll
    for (int k = 0; k < kDepth; k++) {
      T a[kRows], b[kColumns];
#pragma unroll
      for (int i = 0; i < kRows; i += 4) read_4(a + i, stage.a.at(k, row0 + i * 4));
#pragma unroll
      for (int j = 0; j < kColumns; j += 4) read_4(b + j, stage.b.at(k, column0 + j * 8));
#pragma unroll
      for (int i = 0; i < kRows; i++) {
#pragma unroll
        for (int j = 0; j < kColumns; j++) c[i][j] += a[i] * b[j];
      }
    }
    if (sums_lines) {
#pragma unroll
      for (int k = 0; k < kDepth; k++) line_sum += *stage.a.at(k, thread);
    }
  }

  const GemmTiling& g = form.tiling;
  const int64_t part = t.split * g.z + t.z;
  if (sums_lines && t.m0 + thread < rows.count) {
    if (form.partial)
      static_cast<T*>(form.partial)[g.splits * g.z * g.m * g.n + part * g.m + t.m0 + thread] = line_sum;
    else
      store_float(form.out.line_sums, form.out.dtype, t.z * g.m + t.m0 + thread, line_sum);
  }
  // One row at a time, the next one moved into its place: code for one row, not for kRows of them.
#pragma unroll 1
  for (int i = 0; i < kRows; i++) {
    const int64_t m = t.m0 + row0 + i / 4 * 16 + i % 4;
    if (m < rows.count) {
      const int64_t row = form.partial ? (part * g.m + m) * g.n : rows.offset(m);
#pragma unroll
      for (int j = 0; j < kColumns; j += 4) {
        const int64_t n = t.n0 + column0 + j * 8;
        const int count = int(max_of(min_of(g.n - n, 4), 0));
        T v[4];
#pragma unroll
        for (int e = 0; e < 4; e++) v[e] = c[0][j + e];
        if (form.partial) {
          store_4(form.partial, kDTypeOf<T>, row + n, v, count, g.n % 4 == 0);
          continue;
        }
#pragma unroll
        for (int e = 0; e < 4; e++) {
          if (form.out.bias && e < count)
            v[e] += load_float<T>(form.out.bias, form.out.bias_dtype, t.z * form.out.bias_z_stride + n + e);
          v[e] = activate(v[e], form.out.activation);
        }
        store_4(form.out.out, form.out.dtype, row + n, v, count, form.vector_out);
      }
    }
#pragma unroll
    for (int u = 0; u + 1 < kRows; u++) {
#pragma unroll
      for (int j = 0; j < kColumns; j++) c[u][j] = c[u + 1][j];
    }
  }
}

template <class T, class Tile, class Form>
FD_KERNEL(Tile::kThreads, Tile::kBlocksPerSm)
gemm_ffma(const Form form) {
  auto& s = shared_memory<FfmaStorage<T, Tile>>();
  const int64_t tiles = form.tiling.z * form.tiling.splits * form.tiling.tiles_m * form.tiling.tiles_n;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    ffma_tile<T, Tile>(form, tile, s);
    sync_block();  // before the next tile's first stage is written
  }
}

// Adds the sums of parts in their order and finishes them; the columns sums of lines (as row m * n on) likewise.
template <class T, class Form>
FD_KERNEL(256, 4)
gemm_add_parts(const Form form) {
  const GemmTiling& g = form.tiling;
  const T* partial = static_cast<const T*>(form.partial);
  const int64_t size = g.z * g.m * g.n, sums = form.out.line_sums ? g.z * g.m : 0;
  for (int64_t i = blockIdx.x * int64_t(256) + threadIdx.x; i < size + sums; i += gridDim.x * int64_t(256)) {
    const bool is_sum = i >= size;
    const T* p = is_sum ? partial + g.splits * size + (i - size) : partial + i;
    const int64_t step = is_sum ? g.z * g.m : size;
    T total = T(0);
    for (int64_t part = 0; part < g.splits; part++) total += p[part * step];
    if (is_sum) {
      store_float(form.out.line_sums, form.out.dtype, i - size, total);
      continue;
    }
    const int64_t row = i / g.n, n = i - row * g.n, z = row / g.m, m = row - z * g.m;
    if (form.out.bias) total += load_float<T>(form.out.bias, form.out.bias_dtype, z * form.out.bias_z_stride + n);
    const int64_t at = form.part_offset(z, m, n);  // < 0: a row that this product lacks
    if (at >= 0) store_float(form.out.out, form.out.dtype, at, activate(total, form.out.activation));
  }
}

}  // namespace
}  // namespace fastdl
