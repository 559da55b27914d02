// Reductions over any set of axes of any strided view: the walks that sums, extrema, variances and arg-reductions share.
//
// A plan orders and merges kept and reduced dims by the input's memory. Then one of two kernels:
//   rows     a reduced dim lies innermost: a group of 1 to 256 threads per output reads packs of four neighbouring elements
//   columns  a kept dim lies innermost: a thread owns one output, or four neighbouring ones, and takes every k-th element of each
// Where the outputs alone give too few blocks, the elements of each are cut into pieces, by sizes only; their partial results go to
// the workspace and are merged by a third kernel. All orders of combination are fixed.
//
// What is reduced is said by a reducer R: Number (the type elements are loaded as), State (what is kept per output and merged), and
// Lane, which collects elements one by one: add(x, index), then flush() now and then, so that no float sum grows by more than some
// 32 elements before it becomes one term of the next level.
#pragma once
#include "cuda/device/element.cuh"
#include "cuda/device/reduce.cuh"

namespace fastdl {
namespace {

constexpr int kReduceThreads = 256;
constexpr int kPack = 4;  // neighbouring elements that a thread loads at once
template <class C>
constexpr int kPacks = sizeof(C) == 4 ? 4 : 2;  // loads in flight
template <class C>
constexpr int kFlush = 32 / kPacks<C>;  // iterations between flushes

// How elements are seen by a maximum, and what becomes of a sum: bits of ReduceParams::view.
constexpr int kTruth = 1;     // 1 where not zero, else 0
constexpr int kReversed = 2;  // in reverse order: the maximum is then the minimum
constexpr int kUnsigned = 4;  // uint64 as int64 of the same order
constexpr int kMean = 8;      // for sums: divided by the divisor

struct ReduceParams {
  int view;
  double divisor;  // of means and variances
};

struct Reduce {
  Walk<2> kept;     // operands: input, output
  Walk<1> reduced;  // in ordered reductions row-major, else innermost in memory first
  const char* in;
  char* out;
  void* partial;  // [pieces][outs], or null: one piece
  DType in_dtype, out_dtype;
  int32_t in_item, out_item;
  uint32_t outs, n;                 // outputs; elements of each
  uint32_t piece;                   // elements per piece
  uint32_t columns, column_blocks;  // columns: size of the innermost kept dim, and blocks that it takes
  int32_t out_step;                 // columns: stride of neighbouring outputs
  int64_t first_index;              // of the elements, in the whole
  int32_t first_piece;
  int log_lanes;  // rows: threads per output; columns: threads along the outputs
  bool packs;
  ReduceParams params;
};

// ---- device ------------------------------------------------------------------------------------------------------------------
template <class R>
using NumberOf = typename R::Number;
template <class R>
using StateOf = typename R::State;

template <class R>
FD_DEVICE void put_result(const Reduce& r, int64_t at, const StateOf<R>& state) {
  const typename R::Result y[1] = {R::finish(state, r.params)};
  if (r.out_dtype == DType::bool_)
    *reinterpret_cast<bool*>(r.out + at) = y[0] != typename R::Result(0);
  else
    store_elements(r.out + at * r.out_item, r.out_dtype, y);
}

// Over groups of 2^log_lanes neighbouring threads; the first of each group gets the result. storage: one state per warp.
template <class R>
FD_DEVICE StateOf<R> reduce_lanes(StateOf<R> state, int log_lanes, StateOf<R>* storage) {
  const int in_warp = log_lanes < 5 ? log_lanes : 5;
#pragma unroll 1
  for (int m = 1 << in_warp >> 1; m > 0; m /= 2) {
    const StateOf<R> other = exchange(state, m);
    state = threadIdx.x & m ? R::merge(other, state) : R::merge(state, other);
  }
  if (log_lanes <= 5) return state;
  const int warp = threadIdx.x / kWarp, warps = 1 << (log_lanes - 5);
  if (threadIdx.x % kWarp == 0) storage[warp] = state;
  sync_block();
  if ((threadIdx.x & ((1 << log_lanes) - 1)) == 0)
#pragma unroll 1
    for (int i = 1; i < warps; i++) state = R::merge(state, storage[warp + i]);
  return state;
}

template <class R>
struct RowStorage {
  StateOf<R> warps[kReduceThreads / kWarp];
};

template <class R>
FD_KERNEL(kReduceThreads, R::kBlocksPerSm)
reduce_rows(const Reduce r) {
  using C = NumberOf<R>;
  auto& s = shared_memory<RowStorage<R>>();
  const uint32_t lanes = 1u << r.log_lanes, lane = threadIdx.x & (lanes - 1);
  const uint32_t o = blockIdx.x * (kReduceThreads >> r.log_lanes) + (threadIdx.x >> r.log_lanes);
  StateOf<R> state = R::identity();
  int32_t at[2] = {};
  if (o < r.outs) {
    locate(r.kept, o, at);
    const char* const row = r.in + int64_t(at[0]) * r.in_item;
    const uint32_t begin = blockIdx.y * r.piece, end = uint32_t(min_of(r.n, int64_t(begin) + r.piece));
    typename R::Lane acc[kPack];
    const auto one = [&](uint32_t e) {
      int32_t offset[1];
      locate(r.reduced, e, offset);
      C v[1];
      load_elements(row + int64_t(offset[0]) * r.in_item, r.in_dtype, v);
      return R::prepare(v[0], r.params);
    };
    int rounds = 0;
    if (r.packs) {
      uint32_t first = begin;
      if (r.reduced.ndim == 1) {  // up to where packs are aligned
        const uint32_t pack_bytes = uint32_t(min_of(16, kPack * r.in_item));
        const uint32_t past = uint32_t(reinterpret_cast<uintptr_t>(row + int64_t(begin) * r.in_item)) & (pack_bytes - 1);
        first = uint32_t(min_of(end, begin + int64_t((pack_bytes - past) & (pack_bytes - 1)) / r.in_item));
      }
      const uint32_t packs = (end - first) / kPack, rest = first + packs * kPack;
#pragma unroll 1
      for (uint32_t q = lane; q < packs; q += lanes * kPacks<C>) {
        C v[kPacks<C>][kPack];
#pragma unroll
        for (int u = 0; u < kPacks<C>; u++)
          if (q + u * lanes < packs) {
            int32_t offset[1];
            locate(r.reduced, first + (q + u * lanes) * kPack, offset);
            load_elements(row + int64_t(offset[0]) * r.in_item, r.in_dtype, v[u]);
          }
#pragma unroll
        for (int u = 0; u < kPacks<C>; u++)
          if (q + u * lanes < packs) {
#pragma unroll
            for (int j = 0; j < kPack; j++) acc[j].add(R::prepare(v[u][j], r.params), first + (q + u * lanes) * kPack + j);
          }
        if (++rounds % kFlush<C> == 0) {
#pragma unroll
          for (int j = 0; j < kPack; j++) acc[j].flush();
        }
      }
      typename R::Lane ends;  // of its own: positions must grow within a lane
#pragma unroll 1
      for (uint32_t e = begin + lane; e < first; e += lanes) ends.add(one(e), e);
#pragma unroll 1
      for (uint32_t e = rest + lane; e < end; e += lanes) ends.add(one(e), e);
      state = ends.result();
    } else {
#pragma unroll 1
      for (uint32_t e = begin + lane; e < end; e += lanes * kPack) {
        C v[kPack];
#pragma unroll
        for (int j = 0; j < kPack; j++)
          if (e + j * lanes < end) v[j] = one(e + j * lanes);
#pragma unroll
        for (int j = 0; j < kPack; j++)
          if (e + j * lanes < end) acc[j].add(v[j], e + j * lanes);
        if (++rounds % 32 == 0) {
#pragma unroll
          for (int j = 0; j < kPack; j++) acc[j].flush();
        }
      }
    }
    state = R::merge(R::merge(R::merge(acc[0].result(), acc[1].result()), R::merge(acc[2].result(), acc[3].result())), state);
  }
  state = reduce_lanes<R>(state, r.log_lanes, s.warps);
  if (lane != 0 || o >= r.outs) return;
  R::shift(state, r.first_index);
  if (r.partial)
    static_cast<StateOf<R>*>(r.partial)[int64_t(r.first_piece + blockIdx.y) * r.outs + o] = state;
  else
    put_result<R>(r, at[1], state);
}

template <class R>
struct ColumnStorage {
  StateOf<R> threads[kPack][kReduceThreads];
};

template <class R>
FD_KERNEL(kReduceThreads, R::kBlocksPerSm)
reduce_columns(const Reduce r) {
  using C = NumberOf<R>;
  auto& s = shared_memory<ColumnStorage<R>>();
  const uint32_t lanes = 1u << r.log_lanes, lane = threadIdx.x & (lanes - 1);
  const uint32_t group = threadIdx.x >> r.log_lanes, groups = kReduceThreads >> r.log_lanes;
  const uint32_t width = r.packs ? kPack : 1;
  const uint32_t outer = blockIdx.x / r.column_blocks, column = ((blockIdx.x - outer * r.column_blocks) * lanes + lane) * width;
  const uint32_t o = outer * r.columns + column;
  const bool inside = column < r.columns;
  int32_t at[2] = {};
  StateOf<R> state[kPack];
#pragma unroll
  for (int j = 0; j < kPack; j++) state[j] = R::identity();
  if (inside) {
    locate(r.kept, o, at);
    const char* const top = r.in + int64_t(at[0]) * r.in_item;
    const uint32_t begin = blockIdx.y * r.piece, end = uint32_t(min_of(r.n, int64_t(begin) + r.piece));
    typename R::Lane acc[kPack];
    int rounds = 0;
#pragma unroll 1
    for (uint32_t e = begin + group; e < end; e += groups * kPacks<C>) {
      C v[kPacks<C>][kPack];
#pragma unroll
      for (int u = 0; u < kPacks<C>; u++)
        if (e + u * groups < end) {
          int32_t offset[1];
          locate(r.reduced, e + u * groups, offset);
          const char* const p = top + int64_t(offset[0]) * r.in_item;
          if (r.packs) {
            load_elements(p, r.in_dtype, v[u]);
          } else {
            C one[1];
            load_elements(p, r.in_dtype, one);
#pragma unroll
            for (int j = 0; j < kPack; j++) v[u][j] = one[0];
          }
        }
#pragma unroll
      for (int u = 0; u < kPacks<C>; u++)
        if (e + u * groups < end) {
#pragma unroll
          for (int j = 0; j < kPack; j++) acc[j].add(R::prepare(v[u][j], r.params), e + u * groups);
        }
      if (++rounds % kFlush<C> == 0) {
#pragma unroll
        for (int j = 0; j < kPack; j++) acc[j].flush();
      }
    }
#pragma unroll
    for (int j = 0; j < kPack; j++) state[j] = acc[j].result();
  }
#pragma unroll
  for (int j = 0; j < kPack; j++) s.threads[j][threadIdx.x] = state[j];
#pragma unroll 1
  for (uint32_t g = groups / 2; g > 0; g /= 2) {
    sync_block();
    if (group < g) {
#pragma unroll
      for (int j = 0; j < kPack; j++) {
        state[j] = R::merge(state[j], s.threads[j][threadIdx.x + (g << r.log_lanes)]);
        s.threads[j][threadIdx.x] = state[j];
      }
    }
  }
  if (group != 0 || !inside) return;
#pragma unroll
  for (int j = 0; j < kPack; j++) {
    if (uint32_t(j) >= width) break;
    R::shift(state[j], r.first_index);
    if (r.partial)
      static_cast<StateOf<R>*>(r.partial)[int64_t(r.first_piece + blockIdx.y) * r.outs + o + j] = state[j];
    else
      put_result<R>(r, at[1] + j * r.out_step, state[j]);
  }
}

// Merges the partial results of `pieces` pieces.
template <class R>
FD_KERNEL(kReduceThreads, R::kBlocksPerSm)
merge_pieces(const Reduce r, int32_t pieces) {
  auto& s = shared_memory<RowStorage<R>>();
  const uint32_t lanes = 1u << r.log_lanes, lane = threadIdx.x & (lanes - 1);
  const uint32_t o = blockIdx.x * (kReduceThreads >> r.log_lanes) + (threadIdx.x >> r.log_lanes);
  StateOf<R> state = R::identity();
  if (o < r.outs)
    for (int32_t p = lane; p < pieces; p += lanes)
      state = R::merge(state, static_cast<const StateOf<R>*>(r.partial)[int64_t(p) * r.outs + o]);
  state = reduce_lanes<R>(state, r.log_lanes, s.warps);
  if (lane != 0 || o >= r.outs) return;
  int32_t at[2];
  locate(r.kept, o, at);
  put_result<R>(r, at[1], state);
}

// ---- host --------------------------------------------------------------------------------------------------------------------
struct ReducePlan {
  Plan<2> kept;  // operands: input, output
  Plan<1> reduced;
  int64_t outs, n;
};

inline int64_t stride_key(int64_t s) { return s == 0 ? INT64_MAX : s < 0 ? -s : s; }  // broadcast dims outermost

template <int operands>
void add_dim(Plan<operands>& p, int64_t size, const int64_t (&stride)[operands], bool sorted) {
  int at = p.ndim++;
  for (; sorted && at > 0 && stride_key(p.stride[at - 1][0]) > stride_key(stride[0]); at--) {
    p.shape[at] = p.shape[at - 1];
    for (int k = 0; k < operands; k++) p.stride[at][k] = p.stride[at - 1][k];
  }
  p.shape[at] = size;
  for (int k = 0; k < operands; k++) p.stride[at][k] = stride[k];
}

// x to y over the axes of `mask`. ordered: elements keep their row-major order.
inline ReducePlan make_reduce_plan(const View& x, const View& y, int64_t mask, bool ordered) {
  ReducePlan p{};
  const int64_t item = itemsize(x.dtype);
  p.kept.item[0] = p.reduced.item[0] = item, p.kept.item[1] = itemsize(y.dtype);
  p.kept.data[0] = x.ptr<char>(), p.kept.data[1] = y.ptr<char>();
  p.outs = p.n = 1;
  for (int d = x.ndim - 1; d >= 0; d--) {
    const int64_t size = x.shape[d];
    const bool gone = mask >> d & 1;
    (gone ? p.n : p.outs) *= size;
    if (size == 1) continue;
    int64_t s = x.strides[d];
    if (!gone) {
      add_dim(p.kept, size, {s, y.strides[d]}, true);
      continue;
    }
    if (s < 0 && !ordered && size > 0) p.kept.data[0] += (size - 1) * s * item, s = -s;
    add_dim(p.reduced, size, {s}, !ordered);
  }
  merge_dims(p.kept);
  merge_dims(p.reduced);
  return p;
}

// How a plan is launched; by sizes and strides only.
struct ReduceShape {
  bool rows, packs;
  int log_lanes;
  int64_t columns, column_blocks, blocks, pieces, piece;
};
inline int log2_up(int64_t x) {
  int l = 0;
  while ((int64_t(1) << l) < x) l++;
  return l;
}

inline ReduceShape shape_of(const ReducePlan& p) {
  constexpr int64_t kEnoughBlocks = 512, kManyBlocks = 1024;
  ReduceShape s{};
  const Plan<2>& k = p.kept;
  const Plan<1>& r = p.reduced;
  const int64_t inner_r = r.shape[0], step_r = stride_key(r.stride[0][0]), inner_k = k.shape[0],
                step_k = stride_key(k.stride[0][0]);
  const bool short_runs = r.ndim > 1 && inner_r < 16 && inner_k >= 8;
  s.rows = p.outs == 1 || p.n <= 1 || (step_r < step_k && !short_runs);
  int64_t grain;
  s.packs = (s.rows ? r.stride[0][0] : k.stride[0][0]) == 1;
  if (s.rows) {
    if (r.ndim > 1) s.packs &= inner_r % kPack == 0;
    for (int d = 1; d < r.ndim; d++) s.packs &= r.stride[d][0] % kPack == 0;
    if (r.ndim > 1)  // with one dim, a row finds its first aligned element itself
      for (int d = 0; d < k.ndim; d++) s.packs &= k.stride[d][0] % kPack == 0 || k.shape[d] == 1;
    s.log_lanes = int(min_of(log2_up(ceil_div(p.n, 4 * kPack)), 8));
    if (p.outs >= 8192) s.log_lanes = int(min_of(s.log_lanes, 5));
    s.blocks = ceil_div(p.outs, kReduceThreads >> s.log_lanes);
    grain = kReduceThreads * 4 * kPack;
  } else {
    s.packs &= inner_k % kPack == 0;
    for (int d = 1; d < k.ndim; d++) s.packs &= k.stride[d][0] % kPack == 0;
    for (int d = 0; d < r.ndim; d++) s.packs &= r.stride[d][0] % kPack == 0;
    s.columns = inner_k;
    const int64_t threads = s.packs ? inner_k / kPack : inner_k;
    s.log_lanes = int(min_of(log2_up(threads), 5));
    s.column_blocks = ceil_div(threads, int64_t(1) << s.log_lanes);
    s.blocks = p.outs / inner_k * s.column_blocks;
    grain = (kReduceThreads >> s.log_lanes) * 8;
  }
  s.pieces = s.blocks >= kEnoughBlocks ? 1 : max_of(min_of(ceil_div(kManyBlocks, max_of(s.blocks, 1)), p.n / grain), 1);
  s.piece = max_of(ceil_div(ceil_div(p.n, s.pieces), grain) * grain, 1);
  s.pieces = max_of(ceil_div(p.n, s.piece), 1);
  return s;
}

// Extent of offsets, in elements.
template <int operands>
int64_t extent_of(const Plan<operands>& p, int k) {
  int64_t e = 0;
  for (int d = 0; d < p.ndim; d++) e += (p.shape[d] - 1) * (p.stride[d][k] < 0 ? -p.stride[d][k] : p.stride[d][k]);
  return e;
}

// Visits parts of the plan that 32-bit indices and offsets serve: whole(part) once per group of outputs, before that stage(part,
// index of its first element) for each of its slices along the reduced dims if there is more than one.
constexpr int64_t kHalfLimit = int64_t(1) << 30;
template <class F>
void by_outputs(const ReducePlan& p, const F& run) {
  int largest = 0;
  int64_t extent = 0;
  for (int d = 0; d < p.kept.ndim; d++)
    for (int k = 0; k < 2; k++) {
      const int64_t s = p.kept.stride[d][k], e = (p.kept.shape[d] - 1) * (s < 0 ? -s : s);
      if (e > extent) extent = e, largest = d;
    }
  if (p.outs < kHalfLimit && extent_of(p.kept, 0) < kHalfLimit && extent_of(p.kept, 1) < kHalfLimit) return run(p);
  if (extent == 0) largest = p.kept.ndim - 1;
  ReducePlan part = p;
  const int64_t whole = p.kept.shape[largest], half = whole / 2;
  part.kept.shape[largest] = half, part.outs = p.outs / whole * half;
  by_outputs(part, run);
  part.kept.shape[largest] = whole - half, part.outs = p.outs / whole * (whole - half);
  for (int k = 0; k < 2; k++) part.kept.data[k] += half * p.kept.stride[largest][k] * p.kept.item[k];
  by_outputs(part, run);
}
// Slices of the outermost reduced dim that 32-bit indices serve.
inline int64_t slices_of(const ReducePlan& p) {
  if (p.n < kHalfLimit && extent_of(p.reduced, 0) < kHalfLimit) return 1;
  return max_of(p.n, extent_of(p.reduced, 0)) / (kHalfLimit / 2) + 1;
}
inline ReducePlan slice_of(const ReducePlan& p, int64_t slices, int64_t i, int64_t* first_index) {
  ReducePlan part = p;
  int d = p.reduced.ndim - 1;
  const int64_t size = p.reduced.shape[d], each = ceil_div(size, slices), begin = min_of(i * each, size);
  part.reduced.shape[d] = min_of(each, size - begin);
  part.n = p.n / size * part.reduced.shape[d];
  part.kept.data[0] += begin * p.reduced.stride[d][0] * p.reduced.item[0];
  *first_index = p.n / size * begin;
  return part;
}

template <class State>
int64_t reduce_workspace_of(const ReducePlan& plan) {
  if (plan.outs == 0) return 0;
  int64_t bytes = 0;
  by_outputs(plan, [&](const ReducePlan& p) {
    const int64_t slices = slices_of(p);
    int64_t pieces = 0, unused;
    for (int64_t i = 0; i < slices; i++)
      pieces += slices == 1 ? shape_of(p).pieces : shape_of(slice_of(p, slices, i, &unused)).pieces;
    if (pieces > 1) bytes = max_of(bytes, pieces * p.outs * int64_t(sizeof(State)));
  });
  return bytes;
}

template <class R>
void run_reduce(const Args& a, const ReducePlan& plan, const ReduceParams& params) {
  if (plan.outs == 0) return;
  by_outputs(plan, [&](const ReducePlan& p) {
    Reduce r{};
    r.kept = make_walk(p.kept);
    r.out = p.kept.data[1];
    r.in_dtype = a.in[0].dtype, r.out_dtype = a.out[0].dtype;
    r.in_item = int32_t(p.kept.item[0]), r.out_item = int32_t(p.kept.item[1]);
    r.outs = uint32_t(p.outs);
    r.out_step = int32_t(p.kept.stride[0][1]);
    r.params = params;
    const int64_t slices = slices_of(p);
    int64_t pieces = 0;
    for (int64_t i = 0; i < slices; i++) {
      const ReducePlan part = slices == 1 ? p : slice_of(p, slices, i, &r.first_index);
      ReduceShape s = shape_of(part);
      r.in = part.kept.data[0];
      r.reduced = make_walk(part.reduced);
      r.n = uint32_t(part.n), r.piece = uint32_t(s.piece);
      r.partial = slices > 1 || s.pieces > 1 ? a.workspace : nullptr;
      r.first_piece = int32_t(pieces);
      r.packs = s.packs && (aligned(r.in, min_of(16, kPack * r.in_item)) || (s.rows && part.reduced.ndim == 1));
      r.log_lanes = s.log_lanes;
      const auto grid_y = unsigned(s.pieces);
      if (s.rows) {
        FD_LAUNCH(a, reduce_rows<R>, dim3(unsigned(s.blocks), grid_y), kReduceThreads, sizeof(RowStorage<R>), r);
      } else {
        if (!r.packs && s.packs) s.column_blocks *= kPack, s.blocks *= kPack;  // one column per thread after all
        r.columns = uint32_t(s.columns), r.column_blocks = uint32_t(s.column_blocks);
        FD_LAUNCH(a, reduce_columns<R>, dim3(unsigned(s.blocks), grid_y), kReduceThreads, sizeof(ColumnStorage<R>), r);
      }
      pieces += s.pieces;
    }
    if (!r.partial) return;
    r.log_lanes = int(min_of(log2_up(pieces), p.outs >= 8192 ? 0 : 8));
    FD_LAUNCH(a, merge_pieces<R>, dim3(unsigned(ceil_div(p.outs, kReduceThreads >> r.log_lanes))), kReduceThreads,
              sizeof(RowStorage<R>), r, int32_t(pieces));
  });
}

}  // namespace
}  // namespace fastdl
