// softmax, log_softmax and their gradients along any axis of dense memory, which is (outer, n, inner) to the axis. The maximum is
// subtracted, so nothing overflows; a row of -inf, or one with NaN, gives NaN.
//   softmax      y = exp(x - m) / s        dx = y (g - sum(g y))
//   log_softmax  y = x - m - log(s)        dx = g - exp(y) sum(g)
//
// inner = 1: a row stays in the registers of 8 lanes, a warp or a block and is read once. Longer rows are read twice: a running
// maximum and a sum that is rescaled when it grows (M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", 2018),
// then the results. inner > 1: neighbouring threads take neighbouring columns, 8 threads share a column.
#include "cuda/device/normalizer.cuh"
#include "math/log.h"

namespace fastdl {
namespace {

// The result for x of a row with maximum m and sum s: `factor` is 1 / s or log(s).
template <class W>
FD_DEVICE W result(W x, W m, W factor, bool is_log) {
  return is_log ? x - m - factor : exp_negative(x - m) * factor;
}
template <class W>
FD_DEVICE W gradient(W g, W y, W sum, bool is_log) {
  return is_log ? g - exp(y) * sum : y * (g - sum);
}
template <class W>
FD_DEVICE W gradient_term(W g, W y, bool is_log) {
  return is_log ? g : g * y;
}

// ---- rows in registers ------------------------------------------------------------------------------------------------------
template <class T, int width, int packs>
FD_DEVICE void softmax_row(const T* x, T* y, int64_t rows, int64_t n, bool vectors, bool is_log, Convert<T> as) {
  using W = WideOf<T>;
  W* storage = width ? nullptr : shared_memory<RowStorage<W>>().values;
  const int64_t row = row_of_group<width>(), at = (row < rows ? row : 0) * n;
  const auto layout = layout_of_group<T, width, int>(row < rows ? n : 0, vectors);
  const T none = as.narrow(W(-__builtin_huge_val()));
  Pack<T> loaded[packs];
  W v[packs][kPack<T>], m = W(-__builtin_huge_val()), s = 0;
#pragma unroll
  for (int p = 0; p < packs; p++) {  // all loads before the first use
    if (!layout.has_pack(p)) break;
    loaded[p] = layout.load(x + at, p, none);
  }
#pragma unroll
  for (int p = 0; p < packs; p++) {
    if (!layout.has_pack(p)) break;
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) v[p][k] = as.wide(loaded[p].v[k]), m = max(m, v[p][k]);
  }
  m = group_reduce<MaxOp, width>(m, storage);
#pragma unroll
  for (int p = 0; p < packs; p++) {
    if (!layout.has_pack(p)) break;
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) {
      const W d = v[p][k] - m, e = layout.holds(p, k) ? exp_negative(d) : W(0);
      s += e;
      v[p][k] = is_log ? d : e;
    }
  }
  s = group_reduce<SumOp, width>(s, storage);
  const W factor = is_log ? log(s) : W(1) / s;
#pragma unroll
  for (int p = 0; p < packs; p++) {
    if (!layout.has_pack(p)) break;
    Pack<T> pack;
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) pack.v[k] = as.narrow(is_log ? v[p][k] - factor : v[p][k] * factor);
    layout.store(y + at, p, pack);
  }
}

template <class T, int width, int packs>
FD_DEVICE void gradient_row(const T* g, const T* y, T* dx, int64_t rows, int64_t n, bool vectors, bool is_log, Convert<T> as) {
  using W = WideOf<T>;
  W* storage = width ? nullptr : shared_memory<RowStorage<W>>().values;
  const int64_t row = row_of_group<width>(), at = (row < rows ? row : 0) * n;
  const auto layout = layout_of_group<T, width, int>(row < rows ? n : 0, vectors);
  Pack<T> a[packs], b[packs];
  W s = 0;
#pragma unroll
  for (int p = 0; p < packs; p++) {
    if (!layout.has_pack(p)) break;
    a[p] = layout.load(g + at, p, T{}), b[p] = layout.load(y + at, p, T{});
  }
#pragma unroll
  for (int p = 0; p < packs; p++) {
    if (!layout.has_pack(p)) break;
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) s += gradient_term(as.wide(a[p].v[k]), as.wide(b[p].v[k]), is_log);
  }
  s = group_reduce<SumOp, width>(s, storage);
#pragma unroll
  for (int p = 0; p < packs; p++) {
    if (!layout.has_pack(p)) break;
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) a[p].v[k] = as.narrow(gradient(as.wide(a[p].v[k]), as.wide(b[p].v[k]), s, is_log));
    layout.store(dx + at, p, a[p]);
  }
}

template <class T, int width, int packs>
FD_KERNEL(kRowThreads, 4)
softmax_warp_kernel(const T* x, T* y, int64_t rows, int64_t n, bool vectors, bool is_log, Convert<T> as) {
  softmax_row<T, width, packs>(x, y, rows, n, vectors, is_log, as);
}
template <class T, int packs>
FD_KERNEL(kBlockThreads, 1)
softmax_block_kernel(const T* x, T* y, int64_t rows, int64_t n, bool vectors, bool is_log, Convert<T> as) {
  softmax_row<T, 0, packs>(x, y, rows, n, vectors, is_log, as);
}
template <class T, int width, int packs>
FD_KERNEL(kRowThreads, 4)
softmax_gradient_warp_kernel(const T* g, const T* y, T* dx, int64_t rows, int64_t n, bool vectors, bool is_log, Convert<T> as) {
  gradient_row<T, width, packs>(g, y, dx, rows, n, vectors, is_log, as);
}
template <class T, int packs>
FD_KERNEL(kBlockThreads, 1)
softmax_gradient_block_kernel(const T* g, const T* y, T* dx, int64_t rows, int64_t n, bool vectors, bool is_log, Convert<T> as) {
  gradient_row<T, 0, packs>(g, y, dx, rows, n, vectors, is_log, as);
}

// ---- long rows: read twice --------------------------------------------------------------------------------------------------
template <class T>
FD_KERNEL(1024, 1)
softmax_long_kernel(const T* x, T* y, int64_t n, bool vectors, bool is_log, Convert<T> as) {
  using W = WideOf<T>;
  x += blockIdx.x * n, y += blockIdx.x * n;
  const auto layout = layout_of_group<T, 0>(n, vectors);
  const T none = as.narrow(W(-__builtin_huge_val()));
  const Normalizer<W> all = row_normalizer<T, 0>(layout, x, as, shared_memory<RowStorage<Normalizer<W>>>().values);
  const W factor = is_log ? log(all.sum) : W(1) / all.sum;
  for (int64_t p = 0; layout.has_pack(p); p++) {
    Pack<T> pack = layout.load(x, p, none);
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) pack.v[k] = as.narrow(result(as.wide(pack.v[k]), all.maximum, factor, is_log));
    layout.store(y, p, pack);
  }
}

template <class T>
FD_KERNEL(1024, 1)
softmax_gradient_long_kernel(const T* g, const T* y, T* dx, int64_t n, bool vectors, bool is_log, Convert<T> as) {
  using W = WideOf<T>;
  g += blockIdx.x * n, y += blockIdx.x * n, dx += blockIdx.x * n;
  const auto layout = layout_of_group<T, 0>(n, vectors);
  W s = 0;
  for (int64_t p = 0; layout.has_pack(p); p++) {
    const Pack<T> a = layout.load(g, p, T{}), b = layout.load(y, p, T{});
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) s += gradient_term(as.wide(a.v[k]), as.wide(b.v[k]), is_log);
  }
  s = block_reduce<SumOp>(s, shared_memory<RowStorage<W>>().values);
  for (int64_t p = 0; layout.has_pack(p); p++) {
    Pack<T> a = layout.load(g, p, T{});
    const Pack<T> b = layout.load(y, p, T{});
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) a.v[k] = as.narrow(gradient(as.wide(a.v[k]), as.wide(b.v[k]), s, is_log));
    layout.store(dx, p, a);
  }
}

// ---- columns ----------------------------------------------------------------------------------------------------------------
// A block has 32 columns and 8 threads per column, each with every eighth group of 4 rows.
constexpr int kColumns = 32, kShare = 8, kGroup = 4;

struct Column {
  int64_t base;  // of its first element
  int64_t count, stride;
  bool exists;
};
FD_DEVICE Column column_of_thread(int64_t columns, int64_t n, int64_t inner) {
  const int64_t c = blockIdx.x * int64_t(kColumns) + threadIdx.x % kColumns;
  const bool exists = c < columns;
  const int64_t outer = exists ? c / inner : 0;
  return {exists ? outer * n * inner + (c - outer * inner) : 0, exists ? n : 0, inner, exists};
}

template <class W>
struct ColumnStorage {
  Normalizer<W> values[kShare][kColumns];
};

template <class T>
FD_KERNEL(kColumns* kShare, 3)
softmax_column_kernel(const T* x, T* y, int64_t columns, int64_t n, int64_t inner, bool is_log, Convert<T> as) {
  using W = WideOf<T>;
  auto& values = shared_memory<ColumnStorage<W>>().values;
  const Column c = column_of_thread(columns, n, inner);
  const int share = threadIdx.x / kColumns;
  Normalizer<W> all = no_elements<W>();
  for (int64_t r = share * kGroup; r < c.count; r += kShare * kGroup) {
    W v[kGroup];
#pragma unroll
    for (int k = 0; k < kGroup; k++) v[k] = r + k < n ? as.wide(x[c.base + (r + k) * inner]) : W(-__builtin_huge_val());
    add_elements(all, v);
  }
  values[share][threadIdx.x % kColumns] = all;
  sync_block();
  all = values[0][threadIdx.x % kColumns];
#pragma unroll 1
  for (int k = 1; k < kShare; k++) all = JoinOp::of(all, values[k][threadIdx.x % kColumns]);
  const W factor = is_log ? log(all.sum) : W(1) / all.sum;
  for (int64_t r = share * kGroup; r < c.count; r += kShare * kGroup)
#pragma unroll
    for (int k = 0; k < kGroup; k++)
      if (r + k < n) {
        const int64_t at = c.base + (r + k) * inner;
        y[at] = as.narrow(result(as.wide(x[at]), all.maximum, factor, is_log));
      }
}

template <class T>
FD_KERNEL(kColumns* kShare, 3)
softmax_gradient_column_kernel(const T* g, const T* y, T* dx, int64_t columns, int64_t n, int64_t inner, bool is_log,
                               Convert<T> as) {
  using W = WideOf<T>;
  auto& values = shared_memory<ColumnStorage<W>>().values;
  const Column c = column_of_thread(columns, n, inner);
  const int share = threadIdx.x / kColumns;
  W s = 0;
  for (int64_t r = share * kGroup; r < c.count; r += kShare * kGroup)
#pragma unroll
    for (int k = 0; k < kGroup; k++) {
      const int64_t at = c.base + (r + k) * inner;
      if (r + k < n) s += gradient_term(as.wide(g[at]), is_log ? W(0) : as.wide(y[at]), is_log);
    }
  values[share][threadIdx.x % kColumns].sum = s;
  sync_block();
  s = 0;
#pragma unroll
  for (int k = 0; k < kShare; k++) s += values[k][threadIdx.x % kColumns].sum;
  for (int64_t r = share * kGroup; r < c.count; r += kShare * kGroup)
#pragma unroll
    for (int k = 0; k < kGroup; k++)
      if (r + k < n) {
        const int64_t at = c.base + (r + k) * inner;
        dx[at] = as.narrow(gradient(as.wide(g[at]), as.wide(y[at]), s, is_log));
      }
}

// ---- rows of the table ------------------------------------------------------------------------------------------------------
struct Lines {
  int64_t outer, n, inner;
};
Lines lines_of(const View& v, int64_t axis) {
  const int64_t n = v.ndim ? v.shape[axis] : 1, inner = n > 1 ? v.strides[axis] : 1;
  return {v.numel() / n / inner, n, inner};
}

// launch_warp(width, packs), launch_block(threads, packs), launch_long() by the length of the row; packs: as integral constants.
template <class T, int most, class Warp, class Block, class Long>
void by_length(int64_t n, const Warp& warp, const Block& block, const Long& long_rows) {
  if (n <= 8 * kPack<T>)
    warp(Constant<8>(), Constant<1>());
  else if (n <= kWarp * kPack<T>)
    warp(Constant<kWarp>(), Constant<1>());
  else if (n <= kWarp * kPack<T> * most)
    warp(Constant<kWarp>(), Constant<most>());
  else if (n <= kBlockThreads * kPack<T> * most)
    block(row_threads<T>(n, most), Constant<most>());
  else
    long_rows();
}

template <bool is_log>
void softmax_forward(const Args& a) {
  const View &in = a.in[0], &out = a.out[0];
  if (in.numel() == 0) return;
  const Lines l = lines_of(in, a.attrs->i[0]);
  by_float(out.dtype, [&](auto as) {
    using T = typename decltype(as)::Type;
    using W = WideOf<T>;
    constexpr int most = sizeof(T) == 2 ? 4 : 8;
    const T* x = in.ptr<const T>();
    T* y = out.ptr<T>();
    if (l.inner > 1) {
      const int64_t columns = l.outer * l.inner;
      return FD_LAUNCH(a, softmax_column_kernel<T>, uint32_t(ceil_div(columns, kColumns)), kColumns * kShare,
                       sizeof(ColumnStorage<W>), x, y, columns, l.n, l.inner, is_log, as);
    }
    const bool vectors = row_vectors<T>(x, l.n) && row_vectors<T>(y, l.n);
    by_length<T, most>(
        l.n,
        [&](auto width, auto packs) {
          FD_LAUNCH(a, (softmax_warp_kernel<T, width.value, packs.value>), uint32_t(ceil_div(l.outer, kRowThreads / width.value)),
                    kRowThreads, 0, x, y, l.outer, l.n, vectors, is_log, as);
        },
        [&](int threads, auto packs) {
          FD_LAUNCH(a, (softmax_block_kernel<T, packs.value>), uint32_t(l.outer), threads, sizeof(RowStorage<W>), x, y, l.outer,
                    l.n, vectors, is_log, as);
        },
        [&] {
          FD_LAUNCH(a, softmax_long_kernel<T>, uint32_t(l.outer), 1024, sizeof(RowStorage<Normalizer<W>>), x, y, l.n, vectors,
                    is_log, as);
        });
  });
}

template <bool is_log>
void softmax_backward(const Args& a) {
  const View &gradient = a.in[0], &result = a.in[1], &out = a.out[0];
  if (result.numel() == 0) return;
  const Lines l = lines_of(result, a.attrs->i[0]);
  by_float(out.dtype, [&](auto as) {
    using T = typename decltype(as)::Type;
    using W = WideOf<T>;
    constexpr int most = sizeof(T) == 2 ? 2 : 4;
    const T *g = gradient.ptr<const T>(), *y = result.ptr<const T>();
    T* dx = out.ptr<T>();
    if (l.inner > 1) {
      const int64_t columns = l.outer * l.inner;
      return FD_LAUNCH(a, softmax_gradient_column_kernel<T>, uint32_t(ceil_div(columns, kColumns)), kColumns * kShare,
                       sizeof(ColumnStorage<W>), g, y, dx, columns, l.n, l.inner, is_log, as);
    }
    const bool vectors = row_vectors<T>(g, l.n) && row_vectors<T>(y, l.n) && row_vectors<T>(dx, l.n);
    by_length<T, most>(
        l.n,
        [&](auto width, auto packs) {
          FD_LAUNCH(a, (softmax_gradient_warp_kernel<T, width.value, packs.value>),
                    uint32_t(ceil_div(l.outer, kRowThreads / width.value)), kRowThreads, 0, g, y, dx, l.outer, l.n, vectors, is_log,
                    as);
        },
        [&](int threads, auto packs) {
          FD_LAUNCH(a, (softmax_gradient_block_kernel<T, packs.value>), uint32_t(l.outer), threads, sizeof(RowStorage<W>), g, y, dx,
                    l.outer, l.n, vectors, is_log, as);
        },
        [&] {
          FD_LAUNCH(a, softmax_gradient_long_kernel<T>, uint32_t(l.outer), 1024, sizeof(RowStorage<W>), g, y, dx, l.n, vectors,
                    is_log, as);
        });
  });
}

}  // namespace

FD_CUDA_TABLE(softmax) = {{OpId::softmax, kMaskFloat, softmax_forward<false>, nullptr},
                          {OpId::log_softmax, kMaskFloat, softmax_forward<true>, nullptr},
                          {OpId::softmax_backward, kMaskFloat, softmax_backward<false>, nullptr},
                          {OpId::log_softmax_backward, kMaskFloat, softmax_backward<true>, nullptr},
                          {}};

}  // namespace fastdl
