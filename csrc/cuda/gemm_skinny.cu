// Products with few rows or few columns, which read every element of the wide operand once: bound by memory, not arithmetic.
//
//   wide operand dense along k      each warp has some of its lines; lanes read 16-byte chunks along k, warps take turns
//   wide operand dense along lines  each lane has 16 bytes' worth of its lines; warps take turns along k
//   tiny matrices, short k          one thread per element of C
//
// Partial sums of lanes, then warps, are added in a fixed order; parts of k as everywhere (gemm_engine.cuh).
#include "cuda/device/gemm_engine.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/gemm_plan.h"

namespace fastdl {
namespace {

constexpr int kSkinnyThreads = 256, kSkinnyWarps = kSkinnyThreads / kWarp;

template <class S>
struct SkinnyForm {
  MatrixForm<S> product;
  GemmSide narrow, wide;
  int64_t wide_lines;
  int32_t narrow_lines;
  bool narrow_is_b;  // the narrow operand's lines are columns of C
  Convert<S> convert;
};

template <class T, class S>
FD_DEVICE void finish(const MatrixForm<S>& f, int32_t split, int64_t z, int64_t m, int64_t n, T sum) {
  const GemmTiling& g = f.tiling;
  if (f.partial) {
    static_cast<T*>(f.partial)[((split * g.z + z) * g.m + m) * g.n + n] = sum;
    return;
  }
  store_float(f.out.out, f.out.dtype, f.part_offset(z, m, n), activate(sum + bias_of<T>(f.out, z, n), f.out.activation));
}
template <class T, class S>
FD_DEVICE void finish(const SkinnyForm<S>& f, int32_t split, int64_t z, int32_t narrow, int64_t wide, T sum) {
  if (narrow >= f.narrow_lines || wide >= f.wide_lines) return;
  if (f.narrow_is_b)
    finish(f.product, split, z, wide, narrow, sum);
  else
    finish(f.product, split, z, narrow, wide, sum);
}

// Which product, part of k and lines a block has.
struct SkinnyPlace {
  int64_t z, first_line, k0, k1, narrow_offset, wide_offset;
  int32_t split;
};
template <class S>
FD_DEVICE SkinnyPlace place_of(const SkinnyForm<S>& f, int lines_per_block) {
  const GemmTiling& g = f.product.tiling;
  SkinnyPlace p;
  int32_t at;
  const int32_t part = divide(int32_t(blockIdx.x), g.per_product, at);
  p.z = g.first_z + divide(part, g.per_z, p.split);
  p.first_line = int64_t(at) * lines_per_block;
  p.k0 = p.split * g.depth;
  p.k1 = min_of(p.k0 + g.depth, g.k);
  if (f.narrow_is_b)
    batch_offsets(f.product.batch, p.z, p.wide_offset, p.narrow_offset);
  else
    batch_offsets(f.product.batch, p.z, p.narrow_offset, p.wide_offset);
  return p;
}

// Elements k, k + 1 ... of a line, this lane's share of kWarp chunks from `first` on: a whole chunk, or every kWarp-th element.
template <class S>
FD_DEVICE Pack<S> read_share(const GemmSide& side, const S* line, int64_t first, int64_t end, int lane, bool whole) {
  Pack<S> r = {};
  if (whole) {
    const int64_t k = first + lane * kPack<S>;
    if (k < end) r = load_16<Pack<S>>(line + k);
    return r;
  }
#pragma unroll
  for (int e = 0; e < kPack<S>; e++) {
    const int64_t k = first + e * kWarp + lane;
    if (k < end) r.v[e] = line[k * side.k_stride];
  }
  return r;
}

template <int kNarrow>
constexpr int kLinesPerBlock = kNarrow > 4 ? 2 : 4;

template <class T, int kNarrow>
struct AlongKStorage {
  T sums[kSkinnyWarps][kLinesPerBlock<kNarrow> * kNarrow];
};

template <class S, int kNarrow>
FD_KERNEL(kSkinnyThreads, 2)
skinny_along_k(const SkinnyForm<S> f) {
  using T = WideOf<S>;
  constexpr int kLines = kLinesPerBlock<kNarrow>, kChunk = kWarp * kPack<S>;
  auto& s = shared_memory<AlongKStorage<T, kNarrow>>();
  const int thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
  const SkinnyPlace p = place_of(f, kLines);
  const S* narrow = static_cast<const S*>(f.narrow.data) + p.narrow_offset;
  const S* wide = static_cast<const S*>(f.wide.data) + p.wide_offset + p.first_line * f.wide.line_stride;
  const bool whole = f.narrow.whole && f.wide.whole;

  T sum[kLines][kNarrow] = {};
  for (int64_t k = p.k0 + warp * kChunk; k < p.k1; k += kSkinnyWarps * kChunk) {
    Pack<S> w[kLines];
#pragma unroll
    for (int i = 0; i < kLines; i++) {
      const int64_t end = p.first_line + i < f.wide_lines ? p.k1 : 0;
      w[i] = read_share(f.wide, wide + i * f.wide.line_stride, k, end, lane, whole);
    }
#pragma unroll
    for (int j = 0; j < kNarrow; j++) {
      const Pack<S> x = read_share(f.narrow, narrow + j * f.narrow.line_stride, k, j < f.narrow_lines ? p.k1 : 0, lane, whole);
#pragma unroll
      for (int e = 0; e < kPack<S>; e++) {
#pragma unroll
        for (int i = 0; i < kLines; i++) sum[i][j] += f.convert.wide(x.v[e]) * f.convert.wide(w[i].v[e]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kLines; i++) {
#pragma unroll
    for (int j = 0; j < kNarrow; j++) {
      const T total = warp_reduce<SumOp>(sum[i][j]);
      if (lane == 0) s.sums[warp][i * kNarrow + j] = total;
    }
  }
  sync_block();
  if (thread < kLines * kNarrow) {
    T total = T(0);
    for (int w = 0; w < kSkinnyWarps; w++) total += s.sums[w][thread];
    finish(f, p.split, p.z, thread % kNarrow, p.first_line + thread / kNarrow, total);
  }
}

template <class S, int kNarrow>
struct AlongLinesStorage {
  WideOf<S> sums[kSkinnyWarps][kNarrow * kWarp * kPack<S>];
};

template <class S, int kNarrow>
FD_KERNEL(kSkinnyThreads, sizeof(S) == 8 ? 1 : 2)
skinny_along_lines(const SkinnyForm<S> f) {
  using T = WideOf<S>;
  constexpr int kLines = kWarp * kPack<S>;  // of a block
  auto& s = shared_memory<AlongLinesStorage<S, kNarrow>>();
  const int thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
  const SkinnyPlace p = place_of(f, kLines);
  const S* narrow = static_cast<const S*>(f.narrow.data) + p.narrow_offset;
  const S* wide = static_cast<const S*>(f.wide.data) + p.wide_offset + p.first_line;
  const int64_t left = f.wide_lines - p.first_line;

  T sum[kNarrow][kPack<S>] = {};
#pragma unroll 4
  for (int64_t k = p.k0 + warp; k < p.k1; k += kSkinnyWarps) {
    const GemmSide along = {nullptr, 0, 1, ChunkOrder::AlongK, false};  // lines take the place of k here
    const Pack<S> w = read_share(along, wide + k * f.wide.k_stride, 0, left, lane, f.wide.whole);
#pragma unroll
    for (int j = 0; j < kNarrow; j++) {
      const T x = j < f.narrow_lines ? f.convert.wide(narrow[j * f.narrow.line_stride + k * f.narrow.k_stride]) : T(0);
#pragma unroll
      for (int e = 0; e < kPack<S>; e++) sum[j][e] += x * f.convert.wide(w.v[e]);
    }
  }
#pragma unroll
  for (int j = 0; j < kNarrow; j++) {
#pragma unroll
    for (int e = 0; e < kPack<S>; e++)
      s.sums[warp][j * kLines + (f.wide.whole ? lane * kPack<S> + e : e * kWarp + lane)] = sum[j][e];
  }
  sync_block();
#pragma unroll 1
  for (int i = thread; i < kNarrow * kLines; i += kSkinnyThreads) {
    T total = T(0);
    for (int w = 0; w < kSkinnyWarps; w++) total += s.sums[w][i];
    finish(f, p.split, p.z, i / kLines, p.first_line + i % kLines, total);
  }
}

template <class S>
FD_KERNEL(256, 4)
gemm_tiny(const MatrixForm<S> f, const Convert<S> convert) {
  using T = WideOf<S>;
  const GemmTiling& g = f.tiling;
  const int64_t size = g.z * g.m * g.n;
  for (int64_t i = blockIdx.x * int64_t(256) + threadIdx.x; i < size; i += gridDim.x * int64_t(256)) {
    const int64_t row = i / g.n, n = i - row * g.n, z = row / g.m, m = row - z * g.m;
    int64_t offset_a, offset_b;
    batch_offsets(f.batch, z, offset_a, offset_b);
    const S* a = static_cast<const S*>(f.a.data) + offset_a + m * f.a.line_stride;
    const S* b = static_cast<const S*>(f.b.data) + offset_b + n * f.b.line_stride;
    T sum = T(0);
    for (int64_t k = 0; k < g.k; k++) sum += convert.wide(a[k * f.a.k_stride]) * convert.wide(b[k * f.b.k_stride]);
    finish(f, 0, z, m, n, sum);
  }
}

template <class S, class Kernel, class Storage>
void launch(const Args& a, SkinnyForm<S> f, int64_t lines_per_block, Kernel kernel, const Storage*) {
  GemmTiling& g = f.product.tiling;
  const int64_t per_product = ceil_div(f.wide_lines, lines_per_block), most = max_of(1, kMaxGrid / (per_product * g.splits));
  g.per_product = make_divisor(per_product);
  g.per_z = make_divisor(g.splits);
  for (g.first_z = 0; g.first_z < g.z; g.first_z += most) {
    const int64_t blocks = min_of(most, g.z - g.first_z) * g.splits * per_product;
    FD_LAUNCH(a, kernel, uint32_t(blocks), kSkinnyThreads, sizeof(Storage), f);
  }
  if (f.product.partial)
    FD_LAUNCH(a, (gemm_add_parts<WideOf<S>, MatrixForm<S>>), stride_grid(a.device, g.z * g.m * g.n, 256), 256, 0, f.product);
}

template <class S, int kNarrow>
void launch_narrow(const Args& a, const SkinnyForm<S>& f) {
  if (f.wide.k_stride == 1 || f.wide.line_stride != 1)
    launch(a, f, kLinesPerBlock<kNarrow>, skinny_along_k<S, kNarrow>, static_cast<AlongKStorage<WideOf<S>, kNarrow>*>(nullptr));
  else
    launch(a, f, kWarp * kPack<S>, skinny_along_lines<S, kNarrow>, static_cast<AlongLinesStorage<S, kNarrow>*>(nullptr));
}

bool narrow_is_b(const GemmProblem& p) { return p.n < p.m; }

GemmPlan plan_of(const GemmProblem& p, const DeviceContext& device) {
  const int64_t item = itemsize(p.a.dtype), wide = max_of(p.m, p.n), pack = 16 / item;
  const GemmOperand& o = narrow_is_b(p) ? p.a : p.b;
  const bool along_k = o.k_stride == 1 || o.line_stride != 1;
  const int64_t lines = along_k ? (min_of(p.m, p.n) > 4 ? 2 : 4) : kWarp * pack;
  // A part is long enough for every warp to read some chunks.
  return plan_skinny(p, item == 8 ? 8 : 4, p.z * ceil_div(wide, lines), along_k ? 4 * kSkinnyThreads * pack : 16 * kSkinnyWarps,
                     device.multiprocessors);
}

}  // namespace

bool is_skinny(const GemmProblem& p) {
  if (p.out.line_sums) return false;
  return is_tiny(p) || min_of(p.m, p.n) <= (itemsize(p.a.dtype) == 2 ? kSkinnyLines16 : kSkinnyLines);
}

int64_t gemm_skinny_workspace(const GemmProblem& p, const DeviceContext& device) {
  return is_tiny(p) ? 0 : plan_of(p, device).partial_bytes;
}

void run_gemm_skinny(const Args& a, const GemmProblem& p) {
  by_float(p.a.dtype, [&](auto convert) {
    using S = typename decltype(convert)::Type;
    if (is_tiny(p)) {
      GemmPlan plan = {};
      plan.tiling.z = p.z, plan.tiling.m = p.m, plan.tiling.n = p.n, plan.tiling.k = p.k, plan.tiling.splits = 1;
      FD_LAUNCH(a, (gemm_tiny<S>), stride_grid(a.device, p.z * p.m * p.n, 256), 256, 0, matrix_form<S>(p, plan, nullptr), convert);
      return;
    }
    SkinnyForm<S> f = {};
    f.product = matrix_form<S>(p, plan_of(p, *a.device), a.workspace);
    f.narrow_is_b = narrow_is_b(p);
    f.narrow = f.narrow_is_b ? f.product.b : f.product.a;
    f.wide = f.narrow_is_b ? f.product.a : f.product.b;
    f.wide_lines = f.narrow_is_b ? p.m : p.n;
    f.narrow_lines = int32_t(f.narrow_is_b ? p.n : p.m);
    f.convert = convert;
    // Both operands' chunks must be along k, with none cut short.
    if (f.wide.k_stride == 1 || f.wide.line_stride != 1) {
      const bool whole = f.narrow.whole && f.narrow.k_stride == 1 && f.wide.whole && p.k % kPack<S> == 0;
      f.narrow.whole = f.wide.whole = whole;
    } else {
      f.wide.whole &= f.wide_lines % kPack<S> == 0;
    }
    if (f.narrow_lines == 1)
      launch_narrow<S, 1>(a, f);
    else
      launch_narrow<S, sizeof(S) == 2 ? kSkinnyLines16 : kSkinnyLines>(a, f);
  });
}

}  // namespace fastdl
