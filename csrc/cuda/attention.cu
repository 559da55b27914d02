// attention and its gradient, per head: y = softmax(q k^T scale + mask) v, without the matrix of all scores (see
// cpu/isa/attention.cpp; T. Dao et al., "FlashAttention", 2022).
//
// A block of threads has 32 queries (for dk and dv: 32 keys) and 64 columns of the result; tiles of 32 keys (queries) go past. Four
// neighbouring threads share a row: each has 8 scores of it and 16 columns of the result, in registers. Products run on
// multiply-adds over chunks of 32 of the width in shared memory. Sums are in an order that depends on the shape alone.
#include "cuda/device/reduce.cuh"
#include "cuda/kernel.h"
#include "math/exp.h"

namespace fastdl {
namespace {

constexpr int kSide = 32, kThreads = 128, kShare = 4, kScores = kSide / kShare, kColumns = 64, kSums = kColumns / kShare;

// The matrices, one per head, in the last two axes of a tensor (or numbers per query in the last one); those before are broadcast.
struct Matrices {
  char* data;
  int64_t row, col;
  int32_t lead;
  int64_t stride[kMaxDims];
};
Matrices matrices_of(const View& v, const View& query, int inner = 2) {
  Matrices m{static_cast<char*>(v.data), 0, 0, query.ndim - 2, {}};
  const auto stride_at = [&](int from_end) {
    const int d = v.ndim - from_end;
    return d < 0 || v.shape[d] == 1 ? int64_t(0) : v.strides[d];
  };
  if (!v.given()) {
    m.data = nullptr;
    return m;
  }
  m.row = stride_at(inner), m.col = inner == 2 ? stride_at(1) : 0;
  for (int d = 0; d < m.lead; d++) m.stride[d] = stride_at(inner + m.lead - d);
  return m;
}

template <class T>
struct Matrix {
  T* data;
  int64_t row, col;
  FD_DEVICE T& at(int64_t i, int64_t j) const { return data[i * row + j * col]; }
};

template <class T>
struct Heads {
  int64_t heads, queries, keys, width, value_width;
  int64_t shape[kMaxDims];  // of the axes before the last two
  Matrices q, k, v, mask, peak, factor, y, g, dq, dk, dv;
  T* delta;  // sum(g y) per query
  T scale;
  bool causal;

  FD_DEVICE Matrix<T> of(const Matrices& m, int64_t head) const {
    T* p = reinterpret_cast<T*>(m.data);
    if (p) {
#pragma unroll 1
      for (int d = m.lead - 1; d >= 0; d--) p += head % shape[d] * m.stride[d], head /= shape[d];
    }
    return {p, m.row, m.col};
  }
};

template <class T>
struct Storage {
  T a[kSide][kSide + 1], b[kSide][kSide + 1], p[kSide][kSide + 1], c[kSide][kColumns + 1];
};

// s[n] = sum over the width of a[i0 + row] b[j0 + share + 4 n]; rows beyond the matrices count as zero.
template <class T>
FD_DEVICE void multiply_rows(T (&s)[kScores], Storage<T>& m, const Matrix<T>& a, int64_t i0, int64_t a_rows, const Matrix<T>& b,
                             int64_t j0, int64_t b_rows, int64_t width) {
  const int row = threadIdx.x / kShare, share = threadIdx.x % kShare;
#pragma unroll
  for (int n = 0; n < kScores; n++) s[n] = T(0);
#pragma unroll 1
  for (int64_t e0 = 0; e0 < width; e0 += kSide) {
    sync_block();
#pragma unroll 2
    for (int x = threadIdx.x; x < kSide * kSide; x += kThreads) {
      const int i = x / kSide, e = x % kSide;
      const bool inside = e0 + e < width;
      m.a[i][e] = inside && i0 + i < a_rows ? a.at(i0 + i, e0 + e) : T(0);
      m.b[i][e] = inside && j0 + i < b_rows ? b.at(j0 + i, e0 + e) : T(0);
    }
    sync_block();
#pragma unroll 4
    for (int e = 0; e < kSide; e++) {
      const T left = m.a[row][e];
#pragma unroll
      for (int n = 0; n < kScores; n++) s[n] += left * m.b[share + kShare * n][e];
    }
  }
}

// sums[n] += sum over the 32 rows of c at c0 of p[row][.] c[.][column + share + 4 n]
template <class T>
FD_DEVICE void add_rows(T (&sums)[kSums], Storage<T>& m, const T (&p)[kScores], const Matrix<T>& c, int64_t c0, int64_t c_rows,
                        int64_t column, int64_t width) {
  const int row = threadIdx.x / kShare, share = threadIdx.x % kShare;
  sync_block();
#pragma unroll
  for (int n = 0; n < kScores; n++) m.p[row][share + kShare * n] = p[n];
#pragma unroll 2
  for (int x = threadIdx.x; x < kSide * kColumns; x += kThreads) {
    const int i = x / kColumns, j = x % kColumns;
    m.c[i][j] = c0 + i < c_rows && column + j < width ? c.at(c0 + i, column + j) : T(0);
  }
  sync_block();
#pragma unroll 2
  for (int k = 0; k < kSide; k++) {
    const T left = m.p[row][k];
#pragma unroll
    for (int n = 0; n < kSums; n++) sums[n] += left * m.c[k][share + kShare * n];
  }
}

template <class Op, class T>
FD_DEVICE T join_share(T v) {
  v = Op::of(v, shuffle_xor(v, 1));
  return Op::of(v, shuffle_xor(v, 2));
}

// The score of query i for key j: -inf where it does not see the key.
template <class T>
FD_DEVICE T score_of(const Heads<T>& h, const Matrix<T>& mask, T product, int64_t i, int64_t j) {
  if (i >= h.queries || j >= h.keys || (h.causal && j > i)) return T(-__builtin_huge_val());
  const T s = product * h.scale;
  return mask.data ? s + mask.at(i, j) : s;
}

template <class T>
FD_KERNEL(kThreads, 2)
attention_kernel(const Heads<T> h) {
  auto& m = shared_memory<Storage<T>>();
  const int64_t blocks = ceil_div(h.queries, kSide), head = blockIdx.x / blocks, i0 = blockIdx.x % blocks * kSide;
  const int64_t column = blockIdx.y * int64_t(kColumns);
  const int row = threadIdx.x / kShare, share = threadIdx.x % kShare;
  const int64_t i = i0 + row;
  const Matrix<T> q = h.of(h.q, head), k = h.of(h.k, head), v = h.of(h.v, head), mask = h.of(h.mask, head);
  const T lowest = T(-__builtin_huge_val());
  T peak = lowest, total = 0, sums[kSums] = {};
  const int64_t end = h.causal ? min_of(h.keys, i0 + kSide) : h.keys;
#pragma unroll 1
  for (int64_t j0 = 0; j0 < end; j0 += kSide) {
    T s[kScores];
    multiply_rows(s, m, q, i0, h.queries, k, j0, h.keys, h.width);
    T most = peak;
#pragma unroll
    for (int n = 0; n < kScores; n++) {
      s[n] = score_of(h, mask, s[n], i, j0 + share + kShare * n);
      most = MaxOp::of(most, s[n]);
    }
    most = join_share<MaxOp>(most);
    const T from = most == lowest ? T(0) : most;  // -inf - -inf would be NaN
    const T before = exp_negative(peak - from);
    T sum = 0;
#pragma unroll
    for (int n = 0; n < kScores; n++) s[n] = exp_negative(s[n] - from), sum += s[n];
    total = total * before + join_share<SumOp>(sum);
    peak = most;
#pragma unroll
    for (int n = 0; n < kSums; n++) sums[n] *= before;
    add_rows(sums, m, s, v, j0, h.keys, column, h.value_width);
  }
  if (i >= h.queries) return;
  const T factor = total == T(0) ? T(0) : T(1) / total;
  const Matrix<T> y = h.of(h.y, head);
#pragma unroll
  for (int n = 0; n < kSums; n++)
    if (column + share + kShare * n < h.value_width) y.at(i, column + share + kShare * n) = sums[n] * factor;
  if (blockIdx.y == 0 && share == 0) {
    h.of(h.peak, head).at(i, 0) = peak == lowest ? T(0) : peak;
    h.of(h.factor, head).at(i, 0) = factor;
  }
}

// delta = sum(g y), four threads per query.
template <class T>
FD_KERNEL(kThreads, 8)
attention_delta_kernel(const Heads<T> h) {
  const int64_t r = blockIdx.x * int64_t(kThreads / kShare) + threadIdx.x / kShare, all = h.heads * h.queries;
  const int64_t head = min_of(r, all - 1) / h.queries, i = min_of(r, all - 1) % h.queries;
  const Matrix<T> g = h.of(h.g, head), y = h.of(h.y, head);
  T sum = 0;
#pragma unroll 1
  for (int64_t d = threadIdx.x % kShare; d < h.value_width; d += kShare) sum += g.at(i, d) * y.at(i, d);
  sum = join_share<SumOp>(sum);
  if (r < all && threadIdx.x % kShare == 0) h.delta[r] = sum;
}

template <class T>
FD_KERNEL(kThreads, 2)
attention_query_gradient_kernel(const Heads<T> h) {
  auto& m = shared_memory<Storage<T>>();
  const int64_t blocks = ceil_div(h.queries, kSide), head = blockIdx.x / blocks, i0 = blockIdx.x % blocks * kSide;
  const int64_t column = blockIdx.y * int64_t(kColumns);
  const int row = threadIdx.x / kShare, share = threadIdx.x % kShare;
  const int64_t i = i0 + row, known = min_of(i, h.queries - 1);
  const Matrix<T> q = h.of(h.q, head), k = h.of(h.k, head), v = h.of(h.v, head), g = h.of(h.g, head), mask = h.of(h.mask, head);
  const T peak = h.of(h.peak, head).at(known, 0), factor = h.of(h.factor, head).at(known, 0);
  const T delta = h.delta[head * h.queries + known];
  T sums[kSums] = {};
  const int64_t end = h.causal ? min_of(h.keys, i0 + kSide) : h.keys;
#pragma unroll 1
  for (int64_t j0 = 0; j0 < end; j0 += kSide) {
    T s[kScores], slope[kScores];
    multiply_rows(s, m, q, i0, h.queries, k, j0, h.keys, h.width);
    multiply_rows(slope, m, g, i0, h.queries, v, j0, h.keys, h.value_width);
#pragma unroll
    for (int n = 0; n < kScores; n++) {
      const T p = exp_negative(score_of(h, mask, s[n], i, j0 + share + kShare * n) - peak) * factor;
      slope[n] = p * (slope[n] - delta) * h.scale;
    }
    add_rows(sums, m, slope, k, j0, h.keys, column, h.width);
  }
  if (i >= h.queries) return;
  const Matrix<T> dq = h.of(h.dq, head);
#pragma unroll
  for (int n = 0; n < kSums; n++)
    if (column + share + kShare * n < h.width) dq.at(i, column + share + kShare * n) = sums[n];
}

// Blocks [0, width / 64) along y make dk, those after them dv.
template <class T>
FD_KERNEL(kThreads, 2)
attention_key_gradient_kernel(const Heads<T> h) {
  auto& m = shared_memory<Storage<T>>();
  const int64_t blocks = ceil_div(h.keys, kSide), head = blockIdx.x / blocks, j0 = blockIdx.x % blocks * kSide;
  const int64_t key_chunks = ceil_div(h.width, kColumns);
  const bool of_key = blockIdx.y < key_chunks;
  const int64_t column = (of_key ? blockIdx.y : blockIdx.y - key_chunks) * int64_t(kColumns);
  const int row = threadIdx.x / kShare, share = threadIdx.x % kShare;
  const int64_t j = j0 + row;
  const Matrix<T> q = h.of(h.q, head), k = h.of(h.k, head), v = h.of(h.v, head), g = h.of(h.g, head), mask = h.of(h.mask, head);
  const Matrix<T> peaks = h.of(h.peak, head), factors = h.of(h.factor, head);
  // Member by member: chosen whole, both would lie in local memory.
  const Matrix<T> added{of_key ? q.data : g.data, of_key ? q.row : g.row, of_key ? q.col : g.col};
  T sums[kSums] = {};
#pragma unroll 1
  for (int64_t i0 = h.causal ? j0 : 0; i0 < h.queries; i0 += kSide) {
    T s[kScores], slope[kScores];
    multiply_rows(s, m, k, j0, h.keys, q, i0, h.queries, h.width);
    if (of_key) multiply_rows(slope, m, v, j0, h.keys, g, i0, h.queries, h.value_width);
#pragma unroll
    for (int n = 0; n < kScores; n++) {
      const int64_t i = i0 + share + kShare * n, known = min_of(i, h.queries - 1);
      s[n] = exp_negative(score_of(h, mask, s[n], i, j) - peaks.at(known, 0)) * factors.at(known, 0);
      if (of_key) s[n] *= (slope[n] - h.delta[head * h.queries + known]) * h.scale;
    }
    add_rows(sums, m, s, added, i0, h.queries, column, of_key ? h.width : h.value_width);
  }
  if (j >= h.keys) return;
  const Matrix<T> out = of_key ? h.of(h.dk, head) : h.of(h.dv, head);
  const int64_t width = of_key ? h.width : h.value_width;
#pragma unroll
  for (int n = 0; n < kSums; n++)
    if (column + share + kShare * n < width) out.at(j, column + share + kShare * n) = sums[n];
}

// ---- rows of the table ------------------------------------------------------------------------------------------------------
template <class T>
Heads<T> heads_of(const Args& a, int first) {
  const View &q = a.in[first], &k = a.in[first + 1], &v = a.in[first + 2];
  Heads<T> h{};
  h.heads = 1;
  for (int d = 0; d < q.ndim - 2; d++) h.heads *= h.shape[d] = q.shape[d];
  h.queries = q.shape[q.ndim - 2], h.keys = k.shape[q.ndim - 2], h.width = q.shape[q.ndim - 1], h.value_width = v.shape[q.ndim - 1];
  h.q = matrices_of(q, q), h.k = matrices_of(k, q), h.v = matrices_of(v, q), h.mask = matrices_of(a.in[first + 3], q);
  h.causal = a.attrs->i[0] != 0, h.scale = T(a.attrs->f[0]);
  return h;
}

dim3 grid_of(int64_t heads, int64_t rows, int64_t chunks) {
  return dim3(uint32_t(heads * ceil_div(rows, kSide)), uint32_t(max_of(chunks, 1)));
}

template <class T>
void attention_forward(const Args& a) {
  Heads<T> h = heads_of<T>(a, 0);
  const View& q = a.in[0];
  if (h.heads * h.queries == 0) return;
  h.y = matrices_of(a.out[0], q), h.peak = matrices_of(a.out[1], q, 1), h.factor = matrices_of(a.out[2], q, 1);
  FD_LAUNCH(a, attention_kernel<T>, grid_of(h.heads, h.queries, ceil_div(h.value_width, kColumns)), kThreads, sizeof(Storage<T>),
            h);
}

template <class T>
void attention_gradient(const Args& a) {
  Heads<T> h = heads_of<T>(a, 1);
  const View& q = a.in[1];
  h.g = matrices_of(a.in[0], q), h.y = matrices_of(a.in[5], q);
  h.peak = matrices_of(a.in[6], q, 1), h.factor = matrices_of(a.in[7], q, 1);
  h.dq = matrices_of(a.out[0], q), h.dk = matrices_of(a.out[1], q), h.dv = matrices_of(a.out[2], q);
  h.delta = static_cast<T*>(a.workspace);
  const int64_t key_chunks = ceil_div(h.width, kColumns), value_chunks = ceil_div(h.value_width, kColumns);
  if (h.heads * h.queries > 0) {
    FD_LAUNCH(a, attention_delta_kernel<T>, uint32_t(ceil_div(h.heads * h.queries, kThreads / kShare)), kThreads, 0, h);
    if (h.width > 0)
      FD_LAUNCH(a, attention_query_gradient_kernel<T>, grid_of(h.heads, h.queries, key_chunks), kThreads, sizeof(Storage<T>), h);
  }
  if (h.heads * h.keys > 0 && key_chunks + value_chunks > 0)
    FD_LAUNCH(a, attention_key_gradient_kernel<T>, grid_of(h.heads, h.keys, key_chunks + value_chunks), kThreads,
              sizeof(Storage<T>), h);
}

int64_t delta_bytes(const Args& a) { return a.in[7].numel() * itemsize(a.in[7].dtype); }

}  // namespace

FD_CUDA_TABLE(attention) = {{OpId::attention, kF32, attention_forward<float>, nullptr},
                            {OpId::attention, kF64, attention_forward<double>, nullptr},
                            {OpId::attention_backward, kF32, attention_gradient<float>, delta_bytes},
                            {OpId::attention_backward, kF64, attention_gradient<double>, delta_bytes},
                            {}};

}  // namespace fastdl
