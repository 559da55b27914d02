// Arithmetic for 16-bit floats on tensor cores (mma.sync m16n8k16, PTX ISA "Warp Level Matrix Multiply-Accumulate"), sums in float.
// Tiles wait in shared memory as they lie in memory, as [line][k] or [k][line], in 16-byte slots that are permuted so that neither
// copies nor ldmatrix meet bank conflicts; ldmatrix transposes the latter kind.
#pragma once
#include "cuda/device/gemm_engine.cuh"

namespace fastdl {
namespace {

// Slots of 16 bytes, 64 bytes along k. [line][k]: 4 slots per line, 2 lines per 128 bytes. [k][line]: 8 to 32 per k; ldmatrix
// reads 8 k's of a slot at once, float's loads (gemm_split.cuh) 2 slots at every fourth k.
template <class S, int kLines, bool kAlongK>
struct SlotOperand {
  static constexpr int kVector = 16 / sizeof(S);
  static constexpr bool kDense = kAlongK;
  Pack<S> slots[kLines * 4];

  // The slot of the chunk at (line, k).
  FD_DEVICE Pack<S>* slot(int line, int k) {
    if (kAlongK) return slots + line * 4 + (k / kVector ^ (line >> 1 & 3));
    return slots + k * (kLines / kVector) + (line / kVector ^ (sizeof(S) == 2 ? k & 7 : k / 4 % 4 * 2));
  }
  FD_DEVICE S* at(int k, int line) { return slot(line, k)->v + (kAlongK ? k : line) % kVector; }
  FD_DEVICE void put(int line, int k, ChunkOrder, const S (&x)[kVector]) {
    Pack<S> pack;
#pragma unroll
    for (int e = 0; e < kVector; e++) pack.v[e] = x[e];
    store_16(slot(line, k), pack);
  }
};

// The sums of a warp's tile of C, WarpM x WarpN, as mma leaves them.
template <int WarpM, int WarpN, int kWarpsM>
struct MmaSums {
  static constexpr int kTilesM = WarpM / 16, kTilesN = WarpN / 8;
  float c[kTilesM][kTilesN][4];
  int row0, column0, lane;

  FD_DEVICE explicit MmaSums(int thread) {
    lane = thread % 32;
    row0 = thread / 32 % kWarpsM * WarpM;
    column0 = thread / 32 / kWarpsM * WarpN;
    clear();
  }
  FD_DEVICE void clear() {
#pragma unroll
    for (int i = 0; i < kTilesM; i++) {
#pragma unroll
      for (int j = 0; j < kTilesN; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) c[i][j][e] = 0;
      }
    }
  }
  // The rows `first` to first + WarpM of the block's tile, by the warps that have them; a thread holds 2 neighbours of each 8
  // columns.
  FD_DEVICE void write(float* band, int pitch, int first) const {
    if (row0 != first) return;
#pragma unroll
    for (int i = 0; i < kTilesM * 2; i++) {
      float* row = band + (i * 8 + lane / 4) * pitch + column0 + lane % 4 * 2;
#pragma unroll
      for (int j = 0; j < kTilesN; j++) store_8(row + j * 8, Pair<float>{c[i / 2][j][i % 2 * 2], c[i / 2][j][i % 2 * 2 + 1]});
    }
  }
};

// Tiles of kM x kN by warps of WarpM x WarpN.
template <class S, int M, int N, int WarpM, int WarpN, Load LoadA, Load LoadB, int BlocksPerSm>
struct MmaMath : MmaSums<WarpM, WarpN, M / WarpM> {
  using Base = MmaSums<WarpM, WarpN, M / WarpM>;
  using Base::Base;
  using Base::c, Base::row0, Base::column0, Base::lane, Base::kTilesM, Base::kTilesN;
  using Sum = float;
  static constexpr int kM = M, kN = N, kDepth = 32, kVector = 8, kBlocksPerSm = BlocksPerSm;
  static constexpr int kBandRows = WarpM, kThreads = 32 * (M / WarpM) * (N / WarpN);
  static constexpr Load kLoadA = LoadA, kLoadB = LoadB;
  static constexpr bool kTransA = LoadA == Load::WholeAlongLines, kTransB = LoadB == Load::WholeAlongLines;
  static constexpr bool kMayFail = false, kAsync = LoadA != Load::Gathered, kCopyA = false, kCopyB = false;
  static_assert((LoadA == Load::Gathered) == (LoadB == Load::Gathered), "both operands by asynchronous copies, or none");
  static constexpr int kStages = kAsync ? 4 : 2;
  using OperandA = SlotOperand<S, M, !kTransA>;
  using OperandB = SlotOperand<S, N, !kTransB>;

  // 16 lines of A: matrices of lines 0-7 and 8-15 at k 0-7, then both at k 8-15.
  FD_DEVICE void read_a(uint32_t (&r)[4], OperandA& from, int line, int k) const {
    if constexpr (kTransA)
      ldmatrix_x4_trans(r, from.slot(line + (lane & 8), k + lane % 8 + (lane & 16) / 2));
    else
      ldmatrix_x4(r, from.slot(line + lane % 16, k + (lane & 16) / 2));
  }
  // 16 lines of B: k 0-7 and 8-15 of lines 0-7, then both of lines 8-15.
  FD_DEVICE void read_b(uint32_t (&r)[4], OperandB& from, int line, int k) const {
    if constexpr (kTransB)
      ldmatrix_x4_trans(r, from.slot(line + (lane & 16) / 2, k + lane % 16));
    else
      ldmatrix_x4(r, from.slot(line + lane % 8 + (lane & 16) / 2, k + (lane & 8)));
  }
  FD_DEVICE void multiply(OperandA& from_a, OperandB& from_b, bool) {
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t a[kTilesM][4], b[kTilesN / 2][4];
#pragma unroll
      for (int i = 0; i < kTilesM; i++) read_a(a[i], from_a, row0 + i * 16, k);
#pragma unroll
      for (int j = 0; j < kTilesN / 2; j++) read_b(b[j], from_b, column0 + j * 16, k);
#pragma unroll
      for (int i = 0; i < kTilesM; i++) {
#pragma unroll
        for (int j = 0; j < kTilesN; j++) mma_16816(c[i][j], a[i], {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]}, S{});
      }
    }
  }
};

template <class S, Load A, Load B>
using MmaLarge = MmaMath<S, 128, 128, 64, A == Load::Gathered ? 32 : 64, A, B, A == Load::Gathered ? 1 : 2>;
template <class S, Load A, Load B>
using MmaSmall = MmaMath<S, 64, 64, 32, 32, A, B, A == Load::Gathered ? 3 : 4>;

}  // namespace
}  // namespace fastdl
