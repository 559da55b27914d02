// Arithmetic for float on tensor cores.
//
// At float's accuracy: x = high + middle + low, bfloat16 each. High is x rounded, middle and low the rest rounded: 8 + 8 + 8 bits
// hold float's 24, and exponents are float's own. Of the nine products of parts, the six largest are kept; the others are below
// 2^-25 of the whole. Tensor cores sum less exactly than float does (they cut off), so that only 16 terms of k, smallest products
// first, are summed there, and the rest by plain additions. After H. Ootomo & R. Yokota, "Recovering single precision accuracy from
// Tensor Cores" (2022), and G. Henry, P. Tang & A. Heinecke, "Leveraging the bfloat16 artificial intelligence datatype for
// higher-precision computations" (2019). Infinities, NaNs and numbers that round to infinity make a sum that is not finite: such a
// tile is computed again by plain multiply-adds. Parts below 2^-133 are lost, so factors below 2^-109 count with fewer bits.
//
// Rounded: factors become tf32, 11 bits.
#pragma once
#include "cuda/device/gemm_mma.cuh"

namespace fastdl {
namespace {

// Two neighbours along k, as three pairs of bfloat16.
struct SplitPair {
  uint32_t part[3];
};
FD_DEVICE SplitPair split(float x, float y) {
  SplitPair r;
#pragma unroll
  for (int i = 0; i < 3; i++) {
    r.part[i] = narrow_bf16_pair(x, y);
    x -= bit_cast<float>(r.part[i] << 16);
    y -= bit_cast<float>(r.part[i] & 0xffff0000u);
  }
  return r;
}

template <Precision precision, int M, int N, int WarpM, int WarpN, Load LoadA, Load LoadB, int BlocksPerSm>
struct FloatMath : MmaSums<WarpM, WarpN, M / WarpM> {
  using Base = MmaSums<WarpM, WarpN, M / WarpM>;
  using Base::Base;
  using Base::c, Base::row0, Base::column0, Base::lane, Base::kTilesM, Base::kTilesN;
  using Sum = float;
  static constexpr int kM = M, kN = N, kDepth = 16, kVector = 4, kBlocksPerSm = BlocksPerSm, kStages = 4;
  static constexpr int kBandRows = WarpM, kThreads = 32 * (M / WarpM) * (N / WarpN);
  static constexpr Load kLoadA = LoadA, kLoadB = LoadB;
  static constexpr bool kMayFail = precision == Precision::Highest, kAsync = true, kCopyA = false, kCopyB = false;
  using OperandA = SlotOperand<float, M, LoadA == Load::WholeAlongK>;
  using OperandB = SlotOperand<float, N, LoadB == Load::WholeAlongK>;

  // Lane l has k = 4 (l % 4) + 0 to 3 of the line. mma would have other k's there, but A and B agree, and sums do not mind.
  template <class Operand>
  FD_DEVICE void read(float (&r)[4], Operand& from, int line) const {
    const int k = int(threadIdx.x) % 4 * 4;
    if constexpr (Operand::kDense) {
      read_4(r, from.slot(line, k)->v);
    } else {
#pragma unroll
      for (int e = 0; e < 4; e++) r[e] = *from.at(k + e, line);
    }
  }
  FD_DEVICE void multiply(OperandA& from_a, OperandB& from_b, bool plain) {
    if (kMayFail && plain)
      multiply_plain(from_a, from_b);
    else if constexpr (precision == Precision::Highest)
      multiply_split(from_a, from_b);
    else
      multiply_rounded(from_a, from_b);
  }
  FD_DEVICE void multiply_split(OperandA& from_a, OperandB& from_b) {
    // Parts of A and B that meet, smallest products first.
    constexpr int kPartA[6] = {2, 0, 1, 1, 0, 0}, kPartB[6] = {0, 2, 1, 0, 1, 0};
    SplitPair b[kTilesN][2];
#pragma unroll
    for (int j = 0; j < kTilesN; j++) {
      float x[4];
      read(x, from_b, column0 + j * 8 + lane / 4);
      b[j][0] = split(x[0], x[1]);
      b[j][1] = split(x[2], x[3]);
    }
#pragma unroll
    for (int i = 0; i < kTilesM; i++) {
      SplitPair a[4];  // as mma wants them: rows 0-7 and 8-15 of the first half of k, then of the second
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float x[4];
        read(x, from_a, row0 + i * 16 + h * 8 + lane / 4);
        a[h] = split(x[0], x[1]);
        a[h + 2] = split(x[2], x[3]);
      }
      float sum[kTilesN][4] = {};
#pragma unroll
      for (int p = 0; p < 6; p++) {
        const int u = kPartA[p], v = kPartB[p];
#pragma unroll
        for (int j = 0; j < kTilesN; j++)
          mma_16816(sum[j], {a[0].part[u], a[1].part[u], a[2].part[u], a[3].part[u]}, {b[j][0].part[v], b[j][1].part[v]}, bf16{});
      }
#pragma unroll
      for (int j = 0; j < kTilesN; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) c[i][j][e] += sum[j][e];
      }
    }
  }
  FD_DEVICE void multiply_rounded(OperandA& from_a, OperandB& from_b) {
    uint32_t b[kTilesN][4];
#pragma unroll
    for (int j = 0; j < kTilesN; j++) read_rounded(b[j], from_b, column0 + j * 8 + lane / 4);
#pragma unroll
    for (int i = 0; i < kTilesM; i++) {
      uint32_t low[4], high[4];  // rows 0-7 and 8-15
      read_rounded(low, from_a, row0 + i * 16 + lane / 4);
      read_rounded(high, from_a, row0 + i * 16 + 8 + lane / 4);
#pragma unroll
      for (int k = 0; k < 4; k += 2) {
#pragma unroll
        for (int j = 0; j < kTilesN; j++)
          mma_1688_tf32(c[i][j], {low[k], high[k], low[k + 1], high[k + 1]}, {b[j][k], b[j][k + 1]});
      }
    }
  }
  template <class Operand>
  FD_DEVICE void read_rounded(uint32_t (&r)[4], Operand& from, int line) const {
    float x[4];
    read(x, from, line);
#pragma unroll
    for (int e = 0; e < 4; e++) r[e] = round_tf32(x[e]);
  }
  // The same sums without tensor cores, in the same places.
  FD_DEVICE void multiply_plain(OperandA& from_a, OperandB& from_b) {
#pragma unroll 1
    for (int k = 0; k < kDepth; k++) {
#pragma unroll
      for (int i = 0; i < kTilesM * 2; i++) {
        const float a = *from_a.at(k, row0 + i * 8 + lane / 4);
#pragma unroll
        for (int j = 0; j < kTilesN * 2; j++)
          c[i / 2][j / 2][i % 2 * 2 + j % 2] += a * *from_b.at(k, column0 + j / 2 * 8 + lane % 4 * 2 + j % 2);
      }
    }
  }
  FD_DEVICE bool failed() const {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kTilesM; i++) {
#pragma unroll
      for (int j = 0; j < kTilesN; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) sum += c[i][j][e] * 0.0f;
      }
    }
    return sum != 0.0f;  // NaN
  }
};

template <Precision precision, Load A, Load B>
using FloatLarge = FloatMath<precision, 128, 128, 64, 32, A, B, 1>;
template <Precision precision, Load A, Load B>
using FloatSmall = FloatMath<precision, 64, 64, 32, 32, A, B, 2>;

}  // namespace
}  // namespace fastdl
