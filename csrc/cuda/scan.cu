// cumsum, cumprod along an axis of any strided view. Floats accumulate in double (as on the CPU), integers in 64 bits.
//
// Lines (the axis lies innermost): a block per line walks it in tiles of 1024 elements; a thread scans four neighbours, warps and
// the block scan the threads' totals (W. Hillis, G. Steele, "Data parallel algorithms", 1986). Columns (another dim lies
// innermost): a thread per line, neighbours side by side. Where lines are few and long they are cut into pieces, by sizes only: a
// first launch finds the total of each piece, and the scan of a piece starts from the totals before it, combined in a fixed order.
#include "cuda/device/element.cuh"
#include "cuda/device/reduce.cuh"

namespace fastdl {
namespace {

constexpr int kThreads = 256;
constexpr int kRun = 4;
constexpr int kTile = kThreads * kRun;

struct Scan {
  Walk<2> lines;  // operands: input, output
  const char* in;
  char* out;
  void* totals;  // [pieces][lines], or null: one piece
  DType in_dtype, out_dtype;
  int32_t in_item, out_item;
  int32_t in_step, out_step;  // along the axis
  uint32_t n, piece;          // elements per line and per piece
  bool in_runs, out_runs;     // lines: four neighbours at one access
  bool find_totals;           // the first launch
};

// C: what elements are loaded and stored as; A: the accumulator.
template <class C, class A>
FD_DEVICE A load_one(const Scan& s, int64_t line, uint32_t i) {
  C v[1];
  load_elements(s.in + (line + int64_t(i) * s.in_step) * s.in_item, s.in_dtype, v);
  return A(v[0]);
}
template <class C, class A>
FD_DEVICE void store_one(const Scan& s, int64_t line, uint32_t i, A x) {
  const C v[1] = {C(x)};
  char* const p = s.out + (line + int64_t(i) * s.out_step) * s.out_item;
  if (s.out_dtype == DType::bool_)
    *reinterpret_cast<bool*>(p) = v[0] != C(0);
  else
    store_elements(p, s.out_dtype, v);
}

template <class A>
struct ScanStorage {
  A warps[kThreads / kWarp];
};
// What lies before this thread's value in the block, and in `total` the value of all.
template <class Op, class A>
FD_DEVICE A block_exclusive(A v, A* warps, A& total) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (int d = 1; d < kWarp; d *= 2) {
    const A before = shuffle_up(v, d);
    if (lane >= d) v = Op::of(before, v);
  }
  if (lane == kWarp - 1) warps[warp] = v;
  const A left = shuffle_up(v, 1);
  sync_block();
  A before = Op::template identity<A>();
  total = before;
#pragma unroll
  for (int w = 0; w < kThreads / kWarp; w++) {
    if (w == warp) before = total;
    total = Op::of(total, warps[w]);
  }
  sync_block();
  return lane == 0 ? before : Op::of(before, left);
}

template <class Op, class C, class A>
FD_KERNEL(kThreads, 4)
scan_lines(const Scan s) {
  auto& storage = shared_memory<ScanStorage<A>>();
  int32_t at[2];
  locate(s.lines, blockIdx.x, at);
  const uint32_t lines = gridDim.x, begin = blockIdx.y * s.piece, end = uint32_t(min_of(s.n, int64_t(begin) + s.piece));
  A* const totals = static_cast<A*>(s.totals);
  A carry = Op::template identity<A>();
  if (totals && !s.find_totals) {
#pragma unroll 1
    for (uint32_t p = threadIdx.x; p < blockIdx.y; p += kThreads) carry = Op::of(carry, totals[int64_t(p) * lines + blockIdx.x]);
    carry = block_reduce<Op>(carry, storage.warps);
    sync_block();
  }
#pragma unroll 1
  for (uint32_t tile = begin; tile < end; tile += kTile) {
    const uint32_t first = tile + threadIdx.x * kRun;
    const bool whole = first + kRun <= end;
    A v[kRun];
    if (s.in_runs && whole) {
      C c[kRun];
      load_elements(s.in + (at[0] + int64_t(first)) * s.in_item, s.in_dtype, c);
#pragma unroll
      for (int j = 0; j < kRun; j++) v[j] = A(c[j]);
    } else {
#pragma unroll
      for (int j = 0; j < kRun; j++) v[j] = first + j < end ? load_one<C, A>(s, at[0], first + j) : Op::template identity<A>();
    }
#pragma unroll
    for (int j = 1; j < kRun; j++) v[j] = Op::of(v[j - 1], v[j]);
    A total;
    const A before = Op::of(carry, block_exclusive<Op>(v[kRun - 1], storage.warps, total));
    carry = Op::of(carry, total);
    if (s.find_totals) continue;
    if (s.out_runs && whole) {
      C c[kRun];
#pragma unroll
      for (int j = 0; j < kRun; j++) c[j] = C(Op::of(before, v[j]));
      store_elements(s.out + (at[1] + int64_t(first)) * s.out_item, s.out_dtype, c);
    } else {
#pragma unroll
      for (int j = 0; j < kRun; j++)
        if (first + j < end) store_one<C>(s, at[1], first + j, Op::of(before, v[j]));
    }
  }
  if (s.find_totals && threadIdx.x == 0) totals[int64_t(blockIdx.y) * lines + blockIdx.x] = carry;
}

template <class Op, class C, class A>
FD_KERNEL(kThreads, 4)
scan_columns(const Scan s) {
  const uint32_t lines = s.lines.n, line = blockIdx.x * kThreads + threadIdx.x;
  if (line >= lines) return;
  int32_t at[2];
  locate(s.lines, line, at);
  const uint32_t begin = blockIdx.y * s.piece, end = uint32_t(min_of(s.n, int64_t(begin) + s.piece));
  A* const totals = static_cast<A*>(s.totals);
  A carry = Op::template identity<A>();
  if (totals && !s.find_totals)
#pragma unroll 1
    for (uint32_t p = 0; p < blockIdx.y; p++) carry = Op::of(carry, totals[int64_t(p) * lines + line]);
#pragma unroll 1
  for (uint32_t i = begin; i < end; i += kRun) {
    A v[kRun];
#pragma unroll
    for (int j = 0; j < kRun; j++)
      if (i + j < end) v[j] = load_one<C, A>(s, at[0], i + j);
#pragma unroll
    for (int j = 0; j < kRun; j++)
      if (i + j < end) {
        carry = Op::of(carry, v[j]);
        if (!s.find_totals) store_one<C>(s, at[1], i + j, carry);
      }
  }
  if (s.find_totals) totals[int64_t(blockIdx.y) * lines + line] = carry;
}

// ---- host ----------------------------------------------------------------------------------------------------------------------
struct ScanPlan {
  Plan<2> lines;
  int64_t count, n, in_step, out_step;  // lines, elements of each
  bool columns;
  int64_t blocks, pieces, piece;
};

ScanPlan plan_of(const Args& a) {
  constexpr int64_t kEnoughBlocks = 256, kManyBlocks = 512;
  const View &x = a.in[0], &y = a.out[0];
  const int axis = int(a.attrs->i[0]);
  View in = x, out = y;
  in.shape[axis] = out.shape[axis] = 1;
  const View* const views[2] = {&in, &out};
  ScanPlan p{};
  p.lines = make_plan(views);
  p.count = in.numel(), p.n = x.shape[axis];
  p.in_step = x.strides[axis], p.out_step = y.strides[axis];
  const auto magnitude = [](int64_t s) { return s < 0 ? -s : s; };
  p.columns = p.count >= 4 && (p.n < 32 || magnitude(p.in_step) > magnitude(p.lines.stride[0][0]));
  p.blocks = p.columns ? ceil_div(p.count, kThreads) : p.count;
  const int64_t grain = p.columns ? 64 : 4 * kTile;
  p.pieces = p.blocks >= kEnoughBlocks ? 1 : max_of(min_of(kManyBlocks / max_of(p.blocks, 1), p.n / grain), 1);
  p.piece = max_of(ceil_div(ceil_div(p.n, p.pieces), grain) * grain, 1);
  p.pieces = max_of(ceil_div(p.n, p.piece), 1);
  return p;
}

template <class A>
int64_t workspace(const Args& a) {
  const ScanPlan p = plan_of(a);
  constexpr int64_t kLimit = int64_t(1) << 30;  // kernels count along the axis in 32 bits
  if (p.n >= kLimit || p.in_step >= kLimit || p.in_step <= -kLimit || p.out_step >= kLimit) return -1;
  return p.pieces > 1 ? p.pieces * p.count * int64_t(sizeof(A)) : 0;
}

template <class Op, class C, class A>
void scan_row(const Args& a) {
  const ScanPlan p = plan_of(a);
  if (p.n == 0) return;
  in_parts(p.lines, [&](const Plan<2>& part) {
    Scan s{};
    s.lines = make_walk(part);
    s.in = part.data[0], s.out = part.data[1];
    s.totals = p.pieces > 1 ? a.workspace : nullptr;
    s.in_dtype = a.in[0].dtype, s.out_dtype = a.out[0].dtype;
    s.in_item = int32_t(part.item[0]), s.out_item = int32_t(part.item[1]);
    s.in_step = int32_t(p.in_step), s.out_step = int32_t(p.out_step);
    s.n = uint32_t(p.n), s.piece = uint32_t(p.piece);
    const auto runs = [&](int k, int64_t step) {
      bool fits = step == 1 && aligned(part.data[k], min_of(16, kRun * part.item[k]));
      for (int d = 0; d < part.ndim; d++) fits &= part.shape[d] == 1 || part.stride[d][k] % kRun == 0;
      return fits;
    };
    s.in_runs = runs(0, p.in_step);
    s.out_runs = runs(1, p.out_step) && s.out_dtype != DType::bool_;
    const dim3 grid(unsigned(p.columns ? ceil_div(s.lines.n, kThreads) : s.lines.n), unsigned(p.pieces));
    for (int pass = p.pieces > 1 ? 0 : 1; pass < 2; pass++) {
      s.find_totals = pass == 0;
      if (p.columns)
        FD_LAUNCH(a, (scan_columns<Op, C, A>), grid, kThreads, 0, s);
      else
        FD_LAUNCH(a, (scan_lines<Op, C, A>), grid, kThreads, sizeof(ScanStorage<A>), s);
    }
  });
}

}  // namespace

// clang-format off
#define ROWS(op, Op) \
  {OpId::op, kF32ish, scan_row<Op, float, double>, workspace<double>}, \
  {OpId::op, kF64, scan_row<Op, double, double>, workspace<double>}, \
  {OpId::op, kMaskInt | kMaskBool, scan_row<Op, int64_t, int64_t>, workspace<int64_t>},
FD_CUDA_TABLE(scan) = {ROWS(cumsum, SumOp) ROWS(cumprod, ProductOp) {}};
// clang-format on
}  // namespace fastdl
