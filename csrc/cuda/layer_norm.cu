// layer_norm and its gradient: y = (x - mean) * rstd * weight + bias over the last dims, seen as rows of n elements.
//
// A row stays in the registers of a warp or a block and is read once. Mean first, then squared distances from it; what the mean
// lost by rounding is the mean of those distances and is put right. Rows too long for registers are read again, from cache.
//
// Gradient: one pass over g and x. A group of threads takes every so-maniest row, writes dx and keeps its share of dweight and
// dbias in registers; shares go to the workspace and are summed by a second kernel, all in an order that depends on the shape
// alone.
#include "cuda/device/param.cuh"
#include "cuda/device/row.cuh"
#include "cuda/device/walk.cuh"
#include "math/base.h"

namespace fastdl {
namespace {

// weight or bias as the kernels read it: absent, or contiguous of type T (narrow) or W. Another dtype is converted first.
template <class T>
struct RowParam {
  const void* data;
  bool narrow;

  // The elements of pack p, `rest` where there is none.
  template <class Index>
  FD_DEVICE void read(const RowLayout<T, Index>& layout, Index p, WideOf<T> (&v)[kPack<T>], WideOf<T> rest, Convert<T> as) const {
    using W = WideOf<T>;
    const T* t = static_cast<const T*>(data);
    const W* w = static_cast<const W*>(data);
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) v[k] = rest;
    if (!data) return;
    if (!layout.vectors) {
#pragma unroll
      for (int k = 0; k < kPack<T>; k++)
        if (layout.holds(p, k)) v[k] = narrow ? as.wide(t[layout.at(p, k)]) : w[layout.at(p, k)];
    } else if (layout.holds(p, 0)) {
      if (sizeof(T) == sizeof(W) || !narrow) {
        load_run(w + layout.at(p, 0), v);
      } else {
        const Pack<T> pack = load_16<Pack<T>>(t + layout.at(p, 0));
#pragma unroll
        for (int k = 0; k < kPack<T>; k++) v[k] = as.wide(pack.v[k]);
      }
    }
  }
};

template <class W>
FD_KERNEL(256, 4)
convert_param_kernel(Param from, W* to, int64_t n) {
  const int64_t i = blockIdx.x * int64_t(256) + threadIdx.x;
  if (i < n) to[i] = from.read(i, W(0));
}
// Whether a parameter must be converted: it is neither of the compute dtype nor of that of the statistics.
bool converted(const View& v, DType compute) {
  return v.given() && v.dtype != compute && !(v.dtype == DType::float32 && itemsize(compute) == 2);
}
template <class T>
RowParam<T> row_param(const Args& a, const View& v, void* space, int64_t n) {
  using W = WideOf<T>;
  if (!v.given()) return {nullptr, false};
  if (!converted(v, a.out[0].dtype)) return {v.data, itemsize(v.dtype) == 2};
  if (n > 0) FD_LAUNCH(a, convert_param_kernel<W>, uint32_t(ceil_div(n, 256)), 256, 0, param_of(v), static_cast<W*>(space), n);
  return {space, false};
}

// Mean and 1 / sqrt(variance + eps) of a row whose mean, rounded, is `center` and whose distances from it sum to `sum`, their
// squares to `squares`: mean = center + shift.
template <class W>
struct RowStats {
  W center, shift, rstd;
};
template <class W>
FD_DEVICE RowStats<W> row_stats(W center, W sum, W squares, W n, W eps) {
  const W shift = sum / n, variance = squares / n - shift * shift;
  return {center, shift, W(1) / sqrt((variance < W(0) ? W(0) : variance) + eps)};
}

// y for pack p of a row
template <class T, class Index>
FD_DEVICE void normalise(const RowLayout<T, Index>& layout, Index p, const Pack<T>& x, T* y, const RowStats<WideOf<T>>& stats,
                         const RowParam<T>& weight, const RowParam<T>& bias, Convert<T> as) {
  using W = WideOf<T>;
  W w[kPack<T>], b[kPack<T>];
  weight.read(layout, p, w, W(1), as);
  bias.read(layout, p, b, W(0), as);
  Pack<T> r;
#pragma unroll
  for (int k = 0; k < kPack<T>; k++)
    r.v[k] = as.narrow(fma((as.wide(x.v[k]) - stats.center - stats.shift) * stats.rstd, w[k], b[k]));
  layout.store(y, p, r);
}

template <class T, int width, int packs>
FD_KERNEL(width ? kRowThreads : kBlockThreads, 1)
layer_norm_kernel(const T* x, T* y, WideOf<T>* mean, WideOf<T>* rstd, int64_t rows, int64_t n, bool vectors, RowParam<T> weight,
                  RowParam<T> bias, WideOf<T> eps, Convert<T> as) {
  using W = WideOf<T>;
  W* storage = width ? nullptr : shared_memory<RowStorage<W>>().values;
  const int64_t row = row_of_group<width>(), at = (row < rows ? row : 0) * n;
  const auto layout = layout_of_group<T, width, int>(row < rows ? n : 0, vectors);
  Pack<T> loaded[packs];
  W sum = 0, squares = 0;
#pragma unroll
  for (int p = 0; p < packs; p++) {
    if (!layout.has_pack(p)) break;
    loaded[p] = layout.load(x + at, p, T{});
  }
#pragma unroll
  for (int p = 0; p < packs; p++) {
    if (!layout.has_pack(p)) break;
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) sum += as.wide(loaded[p].v[k]);
  }
  const W center = group_reduce<SumOp, width>(sum, storage) / W(n);
  sum = 0;
#pragma unroll
  for (int p = 0; p < packs; p++) {
    if (!layout.has_pack(p)) break;
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) {
      const W d = layout.holds(p, k) ? as.wide(loaded[p].v[k]) - center : W(0);
      sum += d, squares = fma(d, d, squares);
    }
  }
  sum = group_reduce<SumOp, width>(sum, storage);
  squares = group_reduce<SumOp, width>(squares, storage);
  const RowStats<W> stats = row_stats(center, sum, squares, W(n), eps);
#pragma unroll
  for (int p = 0; p < packs; p++) {
    if (!layout.has_pack(p)) break;
    normalise(layout, p, loaded[p], y + at, stats, weight, bias, as);
  }
  if (row < rows && layout.thread == 0) mean[row] = stats.center + stats.shift, rstd[row] = stats.rstd;
}

template <class T>
FD_KERNEL(1024, 1)
layer_norm_long_kernel(const T* x, T* y, WideOf<T>* mean, WideOf<T>* rstd, int64_t n, bool vectors, RowParam<T> weight,
                       RowParam<T> bias, WideOf<T> eps, Convert<T> as) {
  using W = WideOf<T>;
  W* storage = shared_memory<RowStorage<W>>().values;
  x += blockIdx.x * n, y += blockIdx.x * n;
  const auto layout = layout_of_group<T, 0>(n, vectors);
  W sum = 0, squares = 0;
#pragma unroll 4
  for (int64_t p = 0; layout.has_pack(p); p++) {
    const Pack<T> pack = layout.load(x, p, T{});
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) sum += as.wide(pack.v[k]);
  }
  const W center = block_reduce<SumOp>(sum, storage) / W(n);
  sum = 0;
#pragma unroll 4
  for (int64_t p = 0; layout.has_pack(p); p++) {
    const Pack<T> pack = layout.load(x, p, T{});
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) {
      const W d = layout.holds(p, k) ? as.wide(pack.v[k]) - center : W(0);
      sum += d, squares = fma(d, d, squares);
    }
  }
  sum = block_reduce<SumOp>(sum, storage);
  squares = block_reduce<SumOp>(squares, storage);
  const RowStats<W> stats = row_stats(center, sum, squares, W(n), eps);
  for (int64_t p = 0; layout.has_pack(p); p++) normalise(layout, p, layout.load(x, p, T{}), y, stats, weight, bias, as);
  if (threadIdx.x == 0) mean[blockIdx.x] = stats.center + stats.shift, rstd[blockIdx.x] = stats.rstd;
}

int64_t aligned_length(int64_t n) { return ceil_div(n, 4) * 4; }  // of an array in front of another one in the workspace
int64_t layer_norm_workspace(const Args& a) {
  const DType compute = a.out[0].dtype;
  return converted(a.in[1], compute) || converted(a.in[2], compute) ? 2 * aligned_length(a.attrs->i[1]) * itemsize(a.out[1].dtype)
                                                                    : 0;
}

void layer_norm_row(const Args& a) {
  const View &in = a.in[0], &out = a.out[0];
  const int64_t rows = a.out[1].numel(), n = a.attrs->i[1];
  if (rows == 0) return;
  by_float(out.dtype, [&](auto as) {
    using T = typename decltype(as)::Type;
    using W = WideOf<T>;
    constexpr int most = sizeof(T) == 2 ? 4 : 8;
    const T* x = in.ptr<const T>();
    T* y = out.ptr<T>();
    W *mean = a.out[1].ptr<W>(), *rstd = a.out[2].ptr<W>();
    const W eps = W(a.attrs->f[0]);
    W* space = static_cast<W*>(a.workspace);
    const RowParam<T> weight = row_param<T>(a, a.in[1], space, n);
    const RowParam<T> bias = row_param<T>(a, a.in[2], space + aligned_length(n), n);
    const bool vectors = row_vectors<T>(x, n) && row_vectors<T>(y, n) && is_aligned(weight.data) && is_aligned(bias.data);
    if (n <= kWarp * most * kPack<T>)
      FD_LAUNCH(a, (layer_norm_kernel<T, kWarp, most>), uint32_t(ceil_div(rows, kRowThreads / kWarp)), kRowThreads, 0, x, y, mean,
                rstd, rows, n, vectors, weight, bias, eps, as);
    else if (n <= kBlockThreads * most * kPack<T>)
      FD_LAUNCH(a, (layer_norm_kernel<T, 0, most>), uint32_t(rows), row_threads<T>(n, most), sizeof(RowStorage<W>), x, y, mean,
                rstd, rows, n, vectors, weight, bias, eps, as);
    else
      FD_LAUNCH(a, layer_norm_long_kernel<T>, uint32_t(rows), 1024, sizeof(RowStorage<W>), x, y, mean, rstd, n, vectors, weight,
                bias, eps, as);
  });
}

// ---- gradient ---------------------------------------------------------------------------------------------------------------
// What dx of one row needs besides g, x and weight: with h = g * weight and c = x - mean,
//   dx = h * rstd + c * slope + offset,   slope = -rstd^3 mean(h c),   offset = -rstd mean(h)
template <class W>
struct RowGradient {
  W mean, rstd, slope, offset;

  FD_DEVICE void set(W sum, W product, W n) {
    slope = -rstd * rstd * rstd * product / n;
    offset = -rstd * sum / n;
  }
  FD_DEVICE W dx(W h, W x) const { return fma(h, rstd, fma(x - mean, slope, offset)); }
};

// Packs per thread and threads per block of rows in registers: beside a row, a thread keeps two sums per column.
template <class T>
constexpr int kGradientPacks = sizeof(T) == 2 ? 2 : 4;
template <class T>
constexpr int kGradientBlockPacks = sizeof(T) == 2 ? 1 : 4;
template <class T>
constexpr int kGradientThreads = sizeof(T) == 2 ? 1024 : 512;

// Group `i` of `groups` takes rows i, i + groups ...; partial: per group dweight (n), dbias (n).
template <class T, int width, int packs>
FD_KERNEL(width ? kRowThreads : kGradientThreads<T>, 1)
layer_norm_gradient_kernel(const T* g, const T* x, const WideOf<T>* mean, const WideOf<T>* rstd, T* dx, WideOf<T>* partial,
                           int64_t rows, int64_t n, int64_t groups, bool vectors, RowParam<T> weight, Convert<T> as) {
  using W = WideOf<T>;
  W* storage = width ? nullptr : shared_memory<RowStorage<W>>().values;
  const int64_t group = row_of_group<width>();
  if (group >= groups) return;
  const auto layout = layout_of_group<T, width, int>(n, vectors);
  W dw[packs][kPack<T>] = {}, db[packs][kPack<T>] = {};
  for (int64_t row = group; row < rows; row += groups) {
    RowGradient<W> r{mean[row], rstd[row], W(0), W(0)};
    Pack<T> gv[packs], xv[packs];
    W sum = 0, product = 0;
#pragma unroll
    for (int p = 0; p < packs; p++) {
      if (!layout.has_pack(p)) break;
      gv[p] = layout.load(g + row * n, p, T{}), xv[p] = layout.load(x + row * n, p, T{});
    }
#pragma unroll
    for (int p = 0; p < packs; p++) {
      if (!layout.has_pack(p)) break;
      W w[kPack<T>];
      weight.read(layout, p, w, W(1), as);
#pragma unroll
      for (int k = 0; k < kPack<T>; k++) {
        const W d = as.wide(gv[p].v[k]), c = as.wide(xv[p].v[k]) - r.mean, h = layout.holds(p, k) ? d * w[k] : W(0);
        sum += h;
        product = fma(h, c, product);
        dw[p][k] = fma(d * r.rstd, c, dw[p][k]);
        db[p][k] += d;
      }
    }
    sum = group_reduce<SumOp, width>(sum, storage);
    product = group_reduce<SumOp, width>(product, storage);
    r.set(sum, product, W(n));
#pragma unroll
    for (int p = 0; p < packs; p++) {
      if (!layout.has_pack(p)) break;
      W w[kPack<T>];
      weight.read(layout, p, w, W(1), as);
#pragma unroll
      for (int k = 0; k < kPack<T>; k++) gv[p].v[k] = as.narrow(r.dx(as.wide(gv[p].v[k]) * w[k], as.wide(xv[p].v[k])));
      layout.store(dx + row * n, p, gv[p]);
    }
  }
  partial += group * 2 * n;
#pragma unroll
  for (int p = 0; p < packs; p++) {
    if (layout.vectors && layout.holds(p, 0)) {
      Cell<W, kPack<T>> w, b;
#pragma unroll
      for (int k = 0; k < kPack<T>; k++) w.v[k] = dw[p][k], b.v[k] = db[p][k];
      store_cell(partial + layout.at(p, 0), w), store_cell(partial + n + layout.at(p, 0), b);
    } else if (!layout.vectors) {
#pragma unroll
      for (int k = 0; k < kPack<T>; k++)
        if (layout.holds(p, k)) partial[layout.at(p, k)] = dw[p][k], partial[n + layout.at(p, k)] = db[p][k];
    }
  }
}

// Long rows: dx by a block per row, the shares of dweight and dbias by a thread per column and group of rows.
template <class T>
FD_KERNEL(1024, 1)
layer_norm_gradient_long_kernel(const T* g, const T* x, const WideOf<T>* mean, const WideOf<T>* rstd, T* dx, int64_t n,
                                bool vectors, RowParam<T> weight, Convert<T> as) {
  using W = WideOf<T>;
  W* storage = shared_memory<RowStorage<W>>().values;
  g += blockIdx.x * n, x += blockIdx.x * n, dx += blockIdx.x * n;
  const auto layout = layout_of_group<T, 0>(n, vectors);
  RowGradient<W> r{mean[blockIdx.x], rstd[blockIdx.x], W(0), W(0)};
  W sum = 0, product = 0;
#pragma unroll 2
  for (int64_t p = 0; layout.has_pack(p); p++) {
    const Pack<T> gv = layout.load(g, p, T{}), xv = layout.load(x, p, T{});
    W w[kPack<T>];
    weight.read(layout, p, w, W(1), as);
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) {
      const W h = layout.holds(p, k) ? as.wide(gv.v[k]) * w[k] : W(0);
      sum += h;
      product = fma(h, as.wide(xv.v[k]) - r.mean, product);
    }
  }
  sum = block_reduce<SumOp>(sum, storage);
  product = block_reduce<SumOp>(product, storage);
  r.set(sum, product, W(n));
  for (int64_t p = 0; layout.has_pack(p); p++) {
    Pack<T> gv = layout.load(g, p, T{});
    const Pack<T> xv = layout.load(x, p, T{});
    W w[kPack<T>];
    weight.read(layout, p, w, W(1), as);
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) gv.v[k] = as.narrow(r.dx(as.wide(gv.v[k]) * w[k], as.wide(xv.v[k])));
    layout.store(dx, p, gv);
  }
}
template <class T>
FD_KERNEL(256, 4)
layer_norm_partial_kernel(const T* g, const T* x, const WideOf<T>* mean, const WideOf<T>* rstd, WideOf<T>* partial, int64_t rows,
                          int64_t n, int64_t groups, Convert<T> as) {
  using W = WideOf<T>;
  const int64_t c = blockIdx.x * int64_t(256) + threadIdx.x;
  if (c >= n) return;
  for (int64_t group = blockIdx.y; group < groups; group += gridDim.y) {
    W dw = 0, db = 0;
#pragma unroll 4
    for (int64_t row = group; row < rows; row += groups) {
      const W d = as.wide(g[row * n + c]);
      dw = fma(d * rstd[row], as.wide(x[row * n + c]) - mean[row], dw);
      db += d;
    }
    partial[group * 2 * n + c] = dw, partial[group * 2 * n + n + c] = db;
  }
}

// Sums the groups' shares: 32 columns of the 2 n per block, 8 threads per column.
constexpr int kSumColumns = 32, kSumShare = 8;
template <class W>
struct SumStorage {
  W values[kSumShare][kSumColumns];
};
template <class W>
FD_KERNEL(kSumColumns* kSumShare, 4)
layer_norm_sum_kernel(const W* partial, int64_t groups, int64_t n, Param dweight, Param dbias) {
  auto& values = shared_memory<SumStorage<W>>().values;
  const int column = threadIdx.x % kSumColumns, share = threadIdx.x / kSumColumns;
  const int64_t c = blockIdx.x * int64_t(kSumColumns) + column;
  W sum = 0;
  if (c < 2 * n)
#pragma unroll 4
    for (int64_t group = share; group < groups; group += kSumShare) sum += partial[group * 2 * n + c];
  values[share][column] = sum;
  sync_block();
  if (share > 0 || c >= 2 * n) return;
#pragma unroll
  for (int k = 1; k < kSumShare; k++) sum += values[k][column];
  if (c < n)
    dweight.write(c, sum);
  else
    dbias.write(c - n, sum);
}

int64_t group_count(int64_t rows) { return min_of(ceil_div(rows, 8), 1024); }
int64_t layer_norm_backward_workspace(const Args& a) {
  const int64_t n = a.attrs->i[1], weight = converted(a.in[4], a.out[0].dtype) ? n : 0;
  return (aligned_length(group_count(a.in[2].numel()) * 2 * n) + weight) * itemsize(a.in[2].dtype);
}

void layer_norm_backward_row(const Args& a) {
  const View &gradient = a.in[0], &in = a.in[1], &out = a.out[0];
  const int64_t rows = a.in[2].numel(), n = a.attrs->i[1], groups = group_count(rows);
  if (n == 0) return;
  by_float(out.dtype, [&](auto as) {
    using T = typename decltype(as)::Type;
    using W = WideOf<T>;
    constexpr int most = kGradientPacks<T>, block_most = kGradientBlockPacks<T>;
    const T *g = gradient.ptr<const T>(), *x = in.ptr<const T>();
    T* dx = out.ptr<T>();
    const W *mean = a.in[2].ptr<const W>(), *rstd = a.in[3].ptr<const W>();
    W* partial = static_cast<W*>(a.workspace);
    const RowParam<T> weight = row_param<T>(a, a.in[4], partial + aligned_length(groups * 2 * n), n);
    const bool vectors = row_vectors<T>(g, n) && row_vectors<T>(x, n) && row_vectors<T>(dx, n) && is_aligned(weight.data);
    if (rows == 0) {
    } else if (n <= kWarp * most * kPack<T>) {
      FD_LAUNCH(a, (layer_norm_gradient_kernel<T, kWarp, most>), uint32_t(ceil_div(groups, kRowThreads / kWarp)), kRowThreads, 0, g,
                x, mean, rstd, dx, partial, rows, n, groups, vectors, weight, as);
    } else if (n <= kGradientThreads<T> * block_most * kPack<T>) {
      FD_LAUNCH(a, (layer_norm_gradient_kernel<T, 0, block_most>), uint32_t(groups), row_threads<T>(n, block_most),
                sizeof(RowStorage<W>), g, x, mean, rstd, dx, partial, rows, n, groups, vectors, weight, as);
    } else {
      FD_LAUNCH(a, layer_norm_gradient_long_kernel<T>, uint32_t(rows), 1024, sizeof(RowStorage<W>), g, x, mean, rstd, dx, n,
                vectors, weight, as);
      FD_LAUNCH(a, layer_norm_partial_kernel<T>, dim3(uint32_t(ceil_div(n, 256)), uint32_t(groups)), 256, 0, g, x, mean, rstd,
                partial, rows, n, groups, as);
    }
    FD_LAUNCH(a, layer_norm_sum_kernel<W>, uint32_t(ceil_div(2 * n, kSumColumns)), kSumColumns * kSumShare, sizeof(SumStorage<W>),
              partial, groups, n, param_of(a.out[1]), param_of(a.out[2]));
  });
}

}  // namespace

FD_CUDA_TABLE(layer_norm) = {{OpId::layer_norm, kMaskFloat, layer_norm_row, layer_norm_workspace},
                             {OpId::layer_norm_backward, kMaskFloat, layer_norm_backward_row, layer_norm_backward_workspace},
                             {}};

}  // namespace fastdl
