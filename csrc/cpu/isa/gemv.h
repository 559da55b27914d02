// Products with one row or one column: y (n) = x (k) B (k, n) (+ bias, relu), at the speed of reading B once.
//
// Rows of B contiguous: y += x[k] * B[k], eight rows at a time, over a stretch of y that stays in L1.
// Columns contiguous (B = W^T): dot products, four columns at a time. Nothing is packed.
#pragma once
#include "core/gemm_workspace.h"
#include "core/partition.h"
#include "cpu/isa/gemm_pack.h"
#include "cpu/isa/gemm_product.h"
#include "cpu/vec/convert.h"

namespace fastdl {
namespace {

template <class T>
inline void finish_row(T* c, int64_t count, const T* bias, bool relu, ActivateFn<T> finish) {
  if (bias) {
    for (int64_t i = 0; i < count; i++) c[i] += bias[i];
  }
  if (relu) {
    for (int64_t i = 0; i < count; i++) c[i] = c[i] < T(0) ? T(0) : c[i];  // NaN stays
  }
  if (finish) finish(c, count);
}

// y[j] (+)= sum over i < K of x[i] * b[i * b_k + j], j < n.
template <class T, int K>
FD_INLINE void axpy_rows(const T* x, int64_t x_step, const T* b, int64_t b_k, T* y, int64_t n, bool accumulate) {
  constexpr int lanes = Vec<T>::size;
  Vec<T> xv[K];
#pragma GCC unroll 8
  for (int i = 0; i < K; i++) xv[i] = Vec<T>(x[i * x_step]);
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) {
    Vec<T> sum = accumulate ? load(y + j) : Vec<T>(T(0));
#pragma GCC unroll 8
    for (int i = 0; i < K; i++) sum = fma(xv[i], load(b + i * b_k + j), sum);
    store(y + j, sum);
  }
  if (j < n) {
    const int rest = int(n - j);
    Vec<T> sum = accumulate ? load_partial(y + j, rest) : Vec<T>(T(0));
#pragma GCC unroll 8
    for (int i = 0; i < K; i++) sum = fma(xv[i], load_partial(b + i * b_k + j, rest), sum);
    store_partial(y + j, sum, rest);
  }
}

template <class T>
inline void gemv_axpy(const T* x, int64_t x_step, const T* b, int64_t b_k, T* y, int64_t n, int64_t k) {
  int64_t i = 0;
  for (; i + 8 <= k; i += 8) axpy_rows<T, 8>(x + i * x_step, x_step, b + i * b_k, b_k, y, n, i > 0);
  for (; i < k; i++) axpy_rows<T, 1>(x + i * x_step, x_step, b + i * b_k, b_k, y, n, i > 0);
  if (k == 0) {
    for (int64_t j = 0; j < n; j++) y[j] = T(0);
  }
}

// Dot products of M rows of A with N columns of B, both contiguous along k. At least 8 sums run side by side.
template <class T, int M, int N>
FD_INLINE void dot_block(const T* a, int64_t a_row, const T* b, int64_t b_col, int64_t k, T* c, int64_t c_row, bool accumulate) {
  constexpr int lanes = Vec<T>::size, steps = M * N >= 8 ? 1 : 2;
  Vec<T> sum[M][N][steps];
#pragma GCC unroll 16
  for (int s = 0; s < M * N * steps; s++) sum[s / (N * steps)][s / steps % N][s % steps] = Vec<T>(T(0));
  int64_t i = 0;
  const auto add = [&](int step, int count) __attribute__((always_inline)) {
    const int64_t at = i + step * lanes;
    Vec<T> bv[N];
#pragma GCC unroll 4
    for (int col = 0; col < N; col++)
      bv[col] = count == lanes ? load(b + col * b_col + at) : load_partial(b + col * b_col + at, count);
#pragma GCC unroll 4
    for (int row = 0; row < M; row++) {
      const Vec<T> av = count == lanes ? load(a + row * a_row + at) : load_partial(a + row * a_row + at, count);
#pragma GCC unroll 4
      for (int col = 0; col < N; col++) sum[row][col][step] = fma(av, bv[col], sum[row][col][step]);
    }
  };
  for (; i + steps * lanes <= k; i += steps * lanes) {
#pragma GCC unroll 2
    for (int step = 0; step < steps; step++) add(step, lanes);
  }
  for (; i < k; i += lanes) add(0, int(min_of(k - i, int64_t(lanes))));
#pragma GCC unroll 4
  for (int row = 0; row < M; row++) {
#pragma GCC unroll 4
    for (int col = 0; col < N; col++) {
      const T total = reduce_add(steps == 1 ? sum[row][col][0] : sum[row][col][0] + sum[row][col][steps - 1]);
      T& to = c[row * c_row + col];
      to = accumulate ? to + total : total;
    }
  }
}

template <class T, int M>
FD_INLINE void dot_row_block(const T* a, int64_t a_row, const T* b, int64_t b_col, int64_t n, int64_t k, T* c, int64_t c_row,
                             bool accumulate) {
  int64_t j = 0;
  for (; j + 4 <= n; j += 4) dot_block<T, M, 4>(a, a_row, b + j * b_col, b_col, k, c + j, c_row, accumulate);
  for (; j < n; j++) dot_block<T, M, 1>(a, a_row, b + j * b_col, b_col, k, c + j, c_row, accumulate);
}

// Few rows of A, many columns of B: four columns are read once for all rows, from memory and then from L1.
template <class T>
inline void dot_rows(const Gemm<T>& g) {
  constexpr int64_t depth = 2048;
  constexpr int most = FD_VEC_BYTES == 64 ? 4 : 2;  // rows in registers
  for (int64_t k0 = 0; k0 < g.k; k0 += depth) {
    const int64_t k = min_of(depth, g.k - k0);
    for (int64_t j = 0; j < g.n; j += 4) {
      const T *a = g.a + k0, *b = g.b + k0 + j * g.b_col;
      T* c = g.c + j;
      const int64_t n = min_of(int64_t(4), g.n - j);
      int64_t i = 0;
      const auto rows = [&](auto block, int64_t count) __attribute__((always_inline)) {
        for (; i + count <= g.m; i += count) block(a + i * g.a_row, g.a_row, b, g.b_col, n, k, c + i * g.c_row, g.c_row, k0 > 0);
      };
      rows(dot_row_block<T, most>, most);
      if (most > 2) rows(dot_row_block<T, 2>, 2);
      rows(dot_row_block<T, 1>, 1);
    }
  }
}

template <class T>
inline void gemv_dot(const T* x, int64_t x_step, const T* b, int64_t b_col, T* y, int64_t n, int64_t k) {
  constexpr int64_t block = 2048;
  alignas(64) T buf[block];
  if (k == 0) {
    for (int64_t j = 0; j < n; j++) y[j] = T(0);
  }
  const int64_t step = x_step == 1 ? k : block;
  for (int64_t i = 0; i < k; i += step) {
    const int64_t len = min_of(step, k - i);
    const T* xi = x + i * x_step;
    if (x_step != 1) {
      for (int64_t q = 0; q < len; q++) buf[q] = xi[q * x_step];
      xi = buf;
    }
    dot_row_block<T, 1>(xi, 0, b + i, b_col, n, len, y, n, i > 0);
  }
}

template <class T>
inline void gemv_any(const T* x, int64_t x_step, const T* b, int64_t b_k, int64_t b_col, T* y, int64_t n, int64_t k) {
  if (b_col == 1 && (n > 1 || b_k != 1)) return gemv_axpy(x, x_step, b, b_k, y, n, k);
  if (b_k == 1 || k <= 1) return gemv_dot(x, x_step, b, b_col, y, n, k);
  for (int64_t j = 0; j < n; j++) {
    T sum = T(0);
    for (int64_t i = 0; i < k; i++) sum += x[i * x_step] * b[i * b_k + j * b_col];
    y[j] = sum;
  }
}

// Few rows on a B that is contiguous along k: cheaper than turning B round.
template <class T>
FD_INLINE bool wants_dots(const Gemm<T>& g) {
  return g.m <= kDotRows && g.a_k == 1 && g.b_k == 1 && g.b_col != 1 && g.k >= 4 * Vec<T>::size;
}
template <class T>
inline void dot_batch(const Gemm<T>& g, const ProductBatch& batch) {
  const int64_t macs = g.m * g.k;
  const int64_t stretch = ceil_div(max_of(int64_t(1), kGemvChunkMacs / macs), int64_t(4)) * 4, stretches = ceil_div(g.n, stretch);
  parallel_chunks(batch.count * stretches, [&](int64_t i) {
    Gemm<T> one = batch_item(g, batch, i / stretches);
    const int64_t j = i % stretches * stretch;
    one.n = min_of(stretch, g.n - j);
    piece_work(macs * one.n, kGemvChunkMacs);
    one.b += j * g.b_col;
    one.c += j;
    dot_rows(one);
    for (int64_t r = 0; r < g.m; r++) finish_row(one.c + r * g.c_row, one.n, g.bias ? g.bias + j : nullptr, g.relu, g.finish);
  });
}

// Products with m == 1 or n == 1. workspace: gemv_splits(...) * length elements, for a single product.
template <class T>
inline void gemv_batch(Gemm<T> g, ProductBatch batch, T* workspace) {
  if (g.m != 1) {  // one column: the transposed product has one row
    const Gemm<T> t = g;
    g.m = 1, g.n = t.m;
    g.a = t.b, g.a_k = t.b_k;
    g.b = t.a, g.b_k = t.a_k, g.b_col = t.a_row;
    for (int d = 0; d < batch.ndim; d++) {
      const int64_t a = batch.a[d];
      batch.a[d] = batch.b[d], batch.b[d] = a;
    }
    if (t.bias) {  // one value for every row: rare, added here
      g.bias = nullptr, g.relu = false, g.finish = nullptr;
      gemv_batch(g, batch, workspace);
      for (int64_t i = 0; i < batch.count * g.n; i++) finish_row(g.c + i, 1, t.bias, t.relu, t.finish);
      return;
    }
  }
  constexpr int64_t part_macs = kGemvChunkMacs;
  const int64_t splits = batch.count == 1 ? gemv_splits(g.n, g.k) : 1;
  if (splits > 1) {
    const int64_t part = ceil_div(g.k, splits);
    parallel_chunks(splits, [&](int64_t s) {
      const int64_t k0 = min_of(s * part, g.k);
      piece_work(g.n * min_of(part, g.k - k0), kGemvChunkMacs);
      gemv_any(g.a + k0 * g.a_k, g.a_k, g.b + k0 * g.b_k, g.b_k, g.b_col, workspace + s * g.n, g.n, min_of(part, g.k - k0));
    });
    for (int64_t j = 0; j < g.n; j++) {
      T sum = workspace[j];
      for (int64_t s = 1; s < splits; s++) sum += workspace[s * g.n + j];
      g.c[j] = sum;
    }
    return finish_row(g.c, g.n, g.bias, g.relu, g.finish);
  }
  // stretches of y that stay in L1; where rows of B are read, as long as that, as each row begins on a page of its own
  const int64_t rows = ceil_div(part_macs, max_of(g.k, int64_t(1))), whole = kGemvBytes / int64_t(sizeof(T));
  const int64_t stretch = g.b_col == 1 ? whole : min_of(int64_t(2048), ceil_div(rows, int64_t(4)) * 4);
  const int64_t least = max_of(ceil_div(part_macs, max_of(g.k, int64_t(1))), g.b_col == 1 ? kGemvLeast : 4);
  const ColumnBlocks stretches(batch.count, g.n, stretch, least, num_threads(), g.b_col == 1 ? ColumnBlocks::kUnit : 4);
  const int64_t group = stretches.count > 1 ? 1 : max_of(int64_t(1), part_macs / max_of(g.n * g.k, int64_t(1)));
  parallel_for(batch.count * stretches.count, group, [&](int64_t begin, int64_t end) {
    int64_t macs = 0;
    for (int64_t i = begin; i < end; i++) {
      const Gemm<T> one = batch_item(g, batch, i / stretches.count);
      const int64_t j = stretches.begin(i % stretches.count), len = stretches.begin(i % stretches.count + 1) - j;
      macs += len * g.k;
      gemv_any(one.a, one.a_k, one.b + j * one.b_col, one.b_k, one.b_col, one.c + j, len, one.k);
      finish_row(one.c + j, len, g.bias ? g.bias + j : nullptr, g.relu, g.finish);
    }
    piece_work(macs, part_macs);
  });
}

}  // namespace
}  // namespace fastdl
