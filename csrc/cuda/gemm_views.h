// From the views of matmul and linear to a GemmProblem.
#pragma once
#include "cuda/gemm.h"

namespace fastdl {
namespace {

// Appends a dim to the batch, or merges it with the last one where both operands' strides allow.
inline void add_dim(GemmBatch& batch, int64_t size, int64_t stride_a, int64_t stride_b) {
  if (size == 1) return;
  if (batch.ndim) {
    const int d = batch.ndim - 1;
    if (batch.a[d] == size * stride_a && batch.b[d] == size * stride_b) {
      batch.shape[d] *= size;
      batch.a[d] = stride_a;
      batch.b[d] = stride_b;
      return;
    }
  }
  batch.shape[batch.ndim] = size;
  batch.a[batch.ndim] = stride_a;
  batch.b[batch.ndim++] = stride_b;
}

// c (..., m, n) = a (..., m, k) b (..., k, n), leading dims broadcast; c row-major. On a shared b, leading dims become rows of a
// where its strides permit.
inline GemmProblem product_of(const View& c, const View& a, const View& b) {
  GemmProblem p = {};
  const auto size = [](const View& v, int at) { return v.ndim < at ? int64_t(1) : v.shape[v.ndim - at]; };
  const auto stride = [](const View& v, int at) { return v.ndim < at ? int64_t(0) : v.strides[v.ndim - at]; };
  p.z = 1;
  p.m = size(c, 2);
  p.n = size(c, 1);
  p.k = size(a, 1);
  p.a = {a.data, a.dtype, stride(a, 2), stride(a, 1)};
  p.b = {b.data, b.dtype, stride(b, 1), stride(b, 2)};
  for (int d = 0; d < c.ndim - 2; d++) {
    const int da = d - (c.ndim - a.ndim), db = d - (c.ndim - b.ndim);
    add_dim(p.batch, c.shape[d], da < 0 || a.shape[da] == 1 ? 0 : a.strides[da], db < 0 || b.shape[db] == 1 ? 0 : b.strides[db]);
    p.z *= c.shape[d];
  }
  // The last dim of the batch becomes rows, if all products share b and the rows of a lie evenly.
  const int last = p.batch.ndim - 1;
  if (last >= 0 && p.batch.b[last] == 0 && (p.m == 1 || p.batch.a[last] == p.m * p.a.line_stride)) {
    if (p.m == 1) p.a.line_stride = p.batch.a[last];
    p.z /= max_of(p.batch.shape[last], 1);
    p.m *= p.batch.shape[last];
    p.batch.ndim--;
  }
  p.out.out = c.data;
  p.out.dtype = c.dtype;
  p.out.row_stride = p.n;
  p.out.z_stride = p.m * p.n;
  return p;
}

inline View transposed(View v) {
  const int i = v.ndim - 2, j = v.ndim - 1;
  const int64_t n = v.shape[i], s = v.strides[i];
  v.shape[i] = v.shape[j], v.strides[i] = v.strides[j];
  v.shape[j] = n, v.strides[j] = s;
  return v;
}

// (rows, last dim); the leading dims lie like one, which inference has seen to.
inline View as_matrix(const View& v) {
  View m = v;
  m.ndim = 2;
  m.shape[0] = 1;
  for (int d = 0; d < v.ndim - 1; d++) m.shape[0] *= v.shape[d];
  m.shape[1] = v.shape[v.ndim - 1];
  m.strides[1] = v.strides[v.ndim - 1];
  m.strides[0] = v.ndim == 2 ? v.strides[0] : m.shape[1];
  return m;
}

}  // namespace
}  // namespace fastdl
