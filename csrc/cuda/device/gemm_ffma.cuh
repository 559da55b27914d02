// Arithmetic for float and double on plain multiply-adds: kRows x kColumns sums per thread, tiles in shared memory as [k][line].
// After S. Boehm, How to Optimize a CUDA Matmul Kernel (2022), and CUTLASS's efficient_gemm.md.
//
// Lanes lie 4 x 8 on a warp's tile and own 4 x 4 blocks, 16 rows and 32 columns apart: a warp reads 4 vectors of A and 8 of B,
// each without bank conflicts.
#pragma once
#include "cuda/device/gemm_engine.cuh"

namespace fastdl {
namespace {

template <class T, int kLines, int kDepth>
struct FfmaOperand {
  static constexpr int kPad = 32 / sizeof(T);  // after every 4 k's: chunks along k are stored without bank conflicts
  T v[kDepth * kLines + kDepth / 4 * kPad];

  FD_DEVICE T* at(int k, int line) { return v + k * kLines + k / 4 * kPad + line; }
  FD_DEVICE T* slot(int line, int k) { return at(k, line); }
  FD_DEVICE void put(int line, int k, ChunkOrder walk, const T (&x)[4]) {
    if (walk == ChunkOrder::AlongLines) {
      T* p = at(k, line);
#pragma unroll
      for (int i = 0; i < 4; i += kPack<T>) {
        Pack<T> pack;
#pragma unroll
        for (int j = 0; j < kPack<T>; j++) pack.v[j] = x[i + j];
        store_16(p + i, pack);
      }
    } else {
#pragma unroll
      for (int j = 0; j < 4; j++) *at(k + j, line) = x[j];
    }
  }
};

constexpr int kFfmaDepth = 16;

template <class T, int M, int N, int Rows, int Columns, Load LoadA, Load LoadB, int BlocksPerSm>
struct FfmaMath {
  using Sum = T;
  static constexpr int kM = M, kN = N, kDepth = kFfmaDepth, kVector = 4, kStages = 2, kBlocksPerSm = BlocksPerSm;
  static constexpr int kWarpM = 4 * Rows, kWarpN = 8 * Columns, kWarpsM = M / kWarpM, kThreads = 32 * kWarpsM * (N / kWarpN);
  static constexpr int kBandRows = kWarpM;
  static constexpr bool kMayFail = false, kAsync = false, kCopyA = LoadA == Load::WholeAlongLines,
                        kCopyB = LoadB == Load::WholeAlongLines;
  static constexpr Load kLoadA = LoadA, kLoadB = LoadB;
  // All of kDepth takes more registers than two blocks leave in one case.
  static constexpr int kUnroll = kCopyA && kCopyB ? 8 : kDepth;
  using OperandA = FfmaOperand<T, M, kDepth>;
  using OperandB = FfmaOperand<T, N, kDepth>;

  T c[Rows][Columns];
  int row0, column0;

  FD_DEVICE explicit FfmaMath(int thread) {
    const int lane = thread % 32, warp = thread / 32;
    row0 = warp % kWarpsM * kWarpM + lane / 8 * 4;
    column0 = warp / kWarpsM * kWarpN + lane % 8 * 4;
    clear();
  }
  FD_DEVICE void clear() {
#pragma unroll
    for (int i = 0; i < Rows; i++) {
#pragma unroll
      for (int j = 0; j < Columns; j++) c[i][j] = T(0);
    }
  }
  FD_DEVICE void multiply(OperandA& from_a, OperandB& from_b, bool) {
#pragma unroll kUnroll
    for (int k = 0; k < kDepth; k++) {
      T a[Rows], b[Columns];
#pragma unroll
      for (int i = 0; i < Rows; i += 4) read_4(a + i, from_a.at(k, row0 + i * 4));
#pragma unroll
      for (int j = 0; j < Columns; j += 4) read_4(b + j, from_b.at(k, column0 + j * 8));
#pragma unroll
      for (int j = 0; j < Columns; j++) {
#pragma unroll
        for (int i = 0; i < Rows; i++) c[i][j] += a[i] * b[j];
      }
    }
  }
  // The rows `first` to first + kBandRows of the tile, by the warps that have them.
  FD_DEVICE void write(T* band, int pitch, int first) const {
    if (row0 - row0 % kWarpM != first) return;
#pragma unroll
    for (int i = 0; i < Rows; i++) {
#pragma unroll
      for (int j = 0; j < Columns; j += kPack<T>) {
        Pack<T> x;
#pragma unroll
        for (int e = 0; e < kPack<T>; e++) x.v[e] = c[i][j + e];
        store_16(band + (row0 - first + i / 4 * 16 + i % 4) * pitch + column0 + j / 4 * 32 + j % 4, x);
      }
    }
  }
};

// The blocks per multiprocessor leave as many registers as the loaders take: matrices need few, images more.
template <class T, Load A, Load B, int BlocksPerSm>
using FfmaLarge = FfmaMath<T, 128, 128, 8, 8, A, B, BlocksPerSm>;
template <class T, int BlocksPerSm>
using FfmaSmall = FfmaMath<T, 64, 64, 8, 4, Load::Any, Load::Any, BlocksPerSm>;

}  // namespace
}  // namespace fastdl
