// copy, concat, flip: moves of memory between any two layouts. Casts are in cast.cu, fills in fill.cu.
//
// Three kernels. Dense to dense: 16 bytes per access, four independent ones per thread. Transpositions (the innermost dim of the
// output is not that of the input): square tiles through shared memory, padded against bank conflicts, so that both sides are read
// and written in runs. All else: one unit per access, its place found by index arithmetic; a unit is as many elements, up to 16
// bytes, as lie together on both sides everywhere.
#include "cuda/copy.h"

#include "cuda/device/walk.cuh"

namespace fastdl {
namespace {

constexpr int kThreads = 256;
constexpr int kUnits = 4;  // per thread

// ---- dense ---------------------------------------------------------------------------------------------------------------------
FD_KERNEL(kThreads, 8) copy_dense(char* out, const char* in, int64_t bytes) {
  const int64_t units = bytes / 16, first = int64_t(blockIdx.x) * (kThreads * kUnits) + threadIdx.x;
  Bytes16 u[kUnits];
#pragma unroll
  for (int j = 0; j < kUnits; j++)
    if (first + j * kThreads < units) u[j] = load_16<Bytes16>(in + 16 * (first + j * kThreads));
#pragma unroll
  for (int j = 0; j < kUnits; j++)
    if (first + j * kThreads < units) store_16(out + 16 * (first + j * kThreads), u[j]);
  const int64_t rest = units * 16 + threadIdx.x;
  if (blockIdx.x == 0 && rest < bytes) out[rest] = in[rest];
}

// ---- any strides ---------------------------------------------------------------------------------------------------------------
template <class U>
FD_KERNEL(kThreads, 6)
copy_units(U* out, const U* in, const Walk<2> walk) {
  const uint32_t first = blockIdx.x * uint32_t(kThreads * kUnits) + threadIdx.x, n = walk.n;
  U u[kUnits];
  int32_t to[kUnits];
#pragma unroll
  for (int j = 0; j < kUnits; j++) {
    const uint32_t i = first + j * kThreads;
    if (i < n) {
      int32_t offset[2];
      locate(walk, i, offset);
      u[j] = load_unit(in + offset[0]);
      to[j] = offset[1];
    }
  }
#pragma unroll
  for (int j = 0; j < kUnits; j++)
    if (first + j * kThreads < n) store_unit(out + to[j], u[j]);
}

// ---- transposition -------------------------------------------------------------------------------------------------------------
// Rows: the dim in which the input is dense, of `rows` indices; columns: the innermost dim of the output.
struct Transpose {
  int32_t rows, cols;
  int32_t in_row, in_col, out_row, out_col;  // strides, in elements
  Divisor row_tiles, col_tiles;
  Walk<2> batch;
};
template <class U>
constexpr int kTile = sizeof(U) >= 4 ? 32 : 64;
template <class U>
struct TransposeStorage {  // rows of an odd number of words
  U tile[kTile<U>][kTile<U> + (sizeof(U) >= 4 ? 1 : 4 / sizeof(U))];
};

template <class U>
FD_KERNEL(kThreads, 4)
copy_transposed(U* out, const U* in, const Transpose t) {
  constexpr int T = kTile<U>, kWarps = kThreads / kWarp, kPerThread = T / kWarps * (T / kWarp);
  auto& s = shared_memory<TransposeStorage<U>>();
  const uint32_t block = blockIdx.x, rest = divide(block, t.row_tiles), batch = divide(rest, t.col_tiles);
  const int row = int(block - rest * t.row_tiles.value) * T, col = int(rest - batch * t.col_tiles.value) * T;
  int32_t base[2];
  locate(t.batch, batch, base);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  U u[kPerThread];
#pragma unroll
  for (int j = 0; j < kPerThread; j++) {  // lanes along the rows
    const int c = warp + j / (T / kWarp) * kWarps, r = lane + j % (T / kWarp) * kWarp;
    if (row + r < t.rows && col + c < t.cols) u[j] = load_unit(in + (base[0] + (row + r) * t.in_row + (col + c) * t.in_col));
  }
#pragma unroll
  for (int j = 0; j < kPerThread; j++) {
    const int c = warp + j / (T / kWarp) * kWarps, r = lane + j % (T / kWarp) * kWarp;
    if (row + r < t.rows && col + c < t.cols) s.tile[c][r] = u[j];
  }
  sync_block();
#pragma unroll
  for (int j = 0; j < kPerThread; j++) {  // lanes along the columns
    const int r = warp + j / (T / kWarp) * kWarps, c = lane + j % (T / kWarp) * kWarp;
    if (row + r < t.rows && col + c < t.cols)
      store_unit(out + (base[1] + (row + r) * t.out_row + (col + c) * t.out_col), s.tile[c][r]);
  }
}

int64_t magnitude(int64_t x) { return x < 0 ? -x : x; }

// The dim along which the input is read in runs, if it pays to go through tiles; else 0.
int transposed_dim(const Plan<2>& p) {
  constexpr int64_t kShortest = 8;  // shorter sides waste lanes; the caches serve those better
  const int64_t step = magnitude(p.stride[0][0]);
  int best = 0;
  for (int d = 1; d < p.ndim; d++) {
    const int64_t s = magnitude(p.stride[d][0]);
    if (p.shape[d] >= kShortest && s > 0 && 4 * s <= step && (best == 0 || s < magnitude(p.stride[best][0]))) best = d;
  }
  return p.shape[0] >= kShortest ? best : 0;
}

template <class U>
void launch_transposed(const Args& a, const Plan<2>& p, int d) {
  Transpose t;
  t.rows = int32_t(p.shape[d]), t.cols = int32_t(p.shape[0]);
  t.in_row = int32_t(p.stride[d][0]), t.in_col = int32_t(p.stride[0][0]);
  t.out_row = int32_t(p.stride[d][1]), t.out_col = int32_t(p.stride[0][1]);
  Plan<2> batch = p;
  batch.ndim = 0;
  for (int k = 1; k < p.ndim; k++)
    if (k != d) {
      batch.shape[batch.ndim] = p.shape[k];
      batch.stride[batch.ndim][0] = p.stride[k][0];
      batch.stride[batch.ndim++][1] = p.stride[k][1];
    }
  if (batch.ndim == 0) batch.ndim = 1, batch.shape[0] = 1;
  t.batch = make_walk(batch);
  const int64_t row_tiles = ceil_div(t.rows, kTile<U>), col_tiles = ceil_div(t.cols, kTile<U>);
  t.row_tiles = make_divisor(row_tiles), t.col_tiles = make_divisor(col_tiles);
  FD_LAUNCH(a, copy_transposed<U>, dim3(unsigned(row_tiles * col_tiles * t.batch.n)), kThreads, sizeof(TransposeStorage<U>),
            reinterpret_cast<U*>(p.data[1]), reinterpret_cast<const U*>(p.data[0]), t);
}

void move(const Args& a, const View& out, const View& in) {
  const View* const views[2] = {&in, &out};
  in_parts(make_plan(views), [&](Plan<2> p) {
    if (p.ndim == 1 && p.stride[0][0] == 1 && p.stride[0][1] == 1 && aligned(p.data[0], 16) && aligned(p.data[1], 16)) {
      const int64_t bytes = p.shape[0] * p.item[0];
      FD_LAUNCH(a, copy_dense, dim3(unsigned(ceil_div(bytes, 16 * kThreads * kUnits))), kThreads, 0, p.data[1], p.data[0], bytes);
      return;
    }
    if (const int d = transposed_dim(p)) {
      by_bytes(p.item[0], [&](auto unit) { launch_transposed<decltype(unit)>(a, p, d); });
      return;
    }
    widen_units(p);
    const Walk<2> walk = make_walk(p);
    by_bytes(p.item[0], [&](auto unit) {
      using U = decltype(unit);
      FD_LAUNCH(a, copy_units<U>, dim3(unsigned(ceil_div(walk.n, kThreads * kUnits))), kThreads, 0, reinterpret_cast<U*>(p.data[1]),
                reinterpret_cast<const U*>(p.data[0]), walk);
    });
  });
}

// ---- rows ----------------------------------------------------------------------------------------------------------------------
void copy_row(const Args& a) { copy_on_device(a, a.out[0], a.in[0]); }

void concat_row(const Args& a) {
  const int axis = int(a.attrs->i[0]);
  int64_t at = 0;
  for (int k = 0; k < a.nin; k++) {
    const int64_t count = a.in[k].shape[axis];
    copy_on_device(a, narrow(a.out[0], axis, at, count), a.in[k]);
    at += count;
  }
}

void flip_row(const Args& a) {
  View v = a.in[0];
  for (int d = 0; d < v.ndim; d++) {
    if (!(a.attrs->i[0] >> d & 1) || v.shape[d] == 0) continue;
    v.data = v.ptr<char>() + (v.shape[d] - 1) * v.strides[d] * itemsize(v.dtype);
    v.strides[d] = -v.strides[d];
  }
  copy_on_device(a, a.out[0], v);
}

constexpr DTypeMask kAll = (1u << kNumDTypes) - 1;
}  // namespace

void copy_on_device(const Args& a, const View& out, const View& in) {
  if (out.dtype == in.dtype)
    move(a, out, in);
  else
    cast_on_device(a, out, in);
}

FD_CUDA_TABLE(copy) = {
    {OpId::copy, kAll, copy_row, nullptr}, {OpId::concat, kAll, concat_row, nullptr}, {OpId::flip, kAll, flip_row, nullptr}, {}};

}  // namespace fastdl
