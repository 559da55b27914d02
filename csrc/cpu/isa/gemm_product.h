// A matrix product as data, and the way for other families to gemm.h, which only matmul.cpp compiles.
#pragma once
#include "cpu/isa/activate.h"
#include "cpu/vec/convert.h"

namespace fastdl {

// C (m, n) = A (m, k) B (k, n) (+ bias, relu); element strides, any for A and B.
template <class T>
struct Gemm {
  int64_t m, n, k;
  const T* a;
  int64_t a_row, a_k;
  const T* b;
  int64_t b_k, b_col;
  T* c;
  int64_t c_row;  // columns of C are adjacent
  const T* bias;  // per column, or null
  bool relu;
  bool accumulate;               // C +=
  ActivateFn<WideOf<T>> finish;  // other activations, or null
  // C^T products: where the transpose of C, which itself is scratch, goes, and its bias and relu
  T* mirror;
  int64_t mirror_row;
  const T* mirror_bias;
  bool mirror_relu;
  T* row_sums;  // if given, and sums_rows(): the sums of A's rows, not of a batch
};

// A batch of products: matrix i of an operand lies at the sum of index[d] * stride[d]. C is dense.
struct ProductBatch {
  int ndim;
  int64_t count;
  int64_t shape[kMaxDims], a[kMaxDims], b[kMaxDims];
};

// C = A B for every matrix of the batch, as gemm() of gemm.h. workspace: gemm_workspace_elements(batch.count, m, n, k).
FD_SHARED(void, gemm_f32)(const Gemm<float>& g, const ProductBatch& batch, float* workspace);
FD_SHARED(void, gemm_f64)(const Gemm<double>& g, const ProductBatch& batch, double* workspace);

namespace {

template <class T>
FD_INLINE void shared_gemm(const Gemm<T>& g, const ProductBatch& batch, T* workspace) {
  if constexpr (sizeof(T) == 4)
    FD_SHARED_NAME(gemm_f32)(g, batch, workspace);
  else
    FD_SHARED_NAME(gemm_f64)(g, batch, workspace);
}

// Matrix i of the batch.
template <class T>
FD_INLINE Gemm<T> batch_item(const Gemm<T>& g, const ProductBatch& batch, int64_t i) {
  Gemm<T> r = g;
  if (g.mirror)
    r.mirror += i * g.m * g.n;
  else
    r.c += i * g.m * g.n;
  for (int d = batch.ndim - 1; d >= 0; d--) {
    const int64_t at = i % batch.shape[d];
    i /= batch.shape[d];
    r.a += at * batch.a[d];
    r.b += at * batch.b[d];
  }
  return r;
}

// Matrices of A that lie like further rows of the one before, on one B, are one taller product.
template <class T>
inline void merge_rows(Gemm<T>& g, ProductBatch& batch) {
  while (batch.ndim > 0) {
    const int d = batch.ndim - 1;
    if (g.m == 1 && batch.shape[d] != 1) g.a_row = batch.a[d];
    if (batch.shape[d] != 1 && (batch.b[d] != 0 || batch.a[d] != g.m * g.a_row)) break;
    if (batch.shape[d] != 1) {
      batch.count /= batch.shape[d];
      g.m *= batch.shape[d];
    }
    batch.ndim--;
  }
}

}  // namespace
}  // namespace fastdl
