// take_backward, scatter_add and index_put: sums and writes at indices that may repeat. Destinations are sorted with their
// positions (device/sort.cuh), so that each destination has one run of positions, in ascending order. A thread takes a run and adds
// it up in that order, or writes its last position: results are those of a loop over the positions. No atomics.
#include "cuda/device/index.cuh"
#include "cuda/device/pack.cuh"
#include "cuda/device/sort.cuh"

namespace fastdl {
namespace {

constexpr int kThreads = 256;

// ---- arithmetic -------------------------------------------------------------------------------------------------------------
template <class W>
FD_DEVICE W plus(W a, W b) {
  return W(a + b);
}
FD_DEVICE c64 plus(c64 a, c64 b) { return {a.re + b.re, a.im + b.im}; }
FD_DEVICE c128 plus(c128 a, c128 b) { return {a.re + b.re, a.im + b.im}; }

// f(Convert<T>) for the type that values of a dtype are added in; integers wrap, so unsigned ones serve both kinds.
template <class F>
void by_real(DType d, const F& f) {
  switch (d) {
    case DType::uint8:
    case DType::int8:
      return f(Convert<uint8_t>{});
    case DType::uint16:
    case DType::int16:
      return f(Convert<uint16_t>{});
    case DType::uint32:
    case DType::int32:
      return f(Convert<uint32_t>{});
    case DType::uint64:
    case DType::int64:
      return f(Convert<uint64_t>{});
    default:
      return by_float(d, f);
  }
}
template <class F>
void by_number(DType d, const F& f) {
  if (d == DType::complex64)
    f(Convert<c64>{});
  else if (d == DType::complex128)
    f(Convert<c128>{});
  else
    by_real(d, f);
}

// keys[i] = destination of position i; `bound`, which sorts last, where an index is out of range
template <class K>
FD_KERNEL(kThreads, 4)
index_keys_kernel(Indexer indices, K* keys, int64_t n, int64_t bound) {
  const int64_t i = blockIdx.x * int64_t(kThreads) + threadIdx.x;
  if (i >= n) return;
  const int64_t at = indices.offset(i, true);
  keys[i] = K(at == kInvalid ? bound : at);
}

// ---- take_backward ----------------------------------------------------------------------------------------------------------
// starts[r] = the first place of a key >= r, for r = 0 .. bound
FD_KERNEL(kThreads, 4) run_starts_kernel(Sorted sorted, int64_t n, int64_t bound, int64_t* starts) {
  const int64_t r = blockIdx.x * int64_t(kThreads) + threadIdx.x;
  if (r > bound) return;
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (sorted.key(middle) < r)
      low = middle + 1;
    else
      high = middle;
  }
  starts[r] = low;
}

// out[outer, r, c] = sum of g[outer, i, c] over the positions i of destination r. V: elements of a row per thread.
template <class T, int V>
FD_KERNEL(kThreads, 4)
take_sums_kernel(const T* g, T* out, const int64_t* starts, Sorted sorted, int64_t cells, Division by_row, Division by_size,
                 int64_t n, Convert<T> as) {
  using W = WideOf<T>;
  constexpr int ahead = 4;
  const int64_t at = blockIdx.x * int64_t(kThreads) + threadIdx.x;
  if (at >= cells) return;
  int64_t o = at;
  const int64_t c = by_row.split(o), r = by_size.split(o), begin = starts[r], end = starts[r + 1];
  const T* from = g + (o * n * by_row.by + c) * V;
  W sum[V] = {};
  for (int64_t p = begin; p < end; p += ahead) {
    Cell<T, V> v[ahead];
#pragma unroll
    for (int j = 0; j < ahead; j++)
      if (p + j < end) v[j] = load_cell<V>(from + sorted.position(p + j) * by_row.by * V);
#pragma unroll
    for (int j = 0; j < ahead; j++)
      if (p + j < end) {
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] = plus(sum[k], as.wide(v[j].v[k]));
      }
  }
  Cell<T, V> y;
#pragma unroll
  for (int k = 0; k < V; k++) y.v[k] = as.narrow(sum[k]);
  store_cell(out + at * V, y);
}

// The workspace: starts, then what the sort needs.
int64_t take_backward_workspace(const Args& a) {
  const int64_t n = a.in[1].numel(), size = a.out[0].shape[a.attrs->i[0]];
  return (size + 1) * 8 + sort_bytes(n, size);
}

void take_backward_row(const Args& a) {
  const View &g = a.in[0], &idx = a.in[1], &out = a.out[0];
  const int axis = int(a.attrs->i[0]);
  const int64_t size = out.shape[axis], n = idx.numel();
  int64_t outer = 1, row = is_complex(out.dtype) ? 2 : 1;  // a complex number: two floats
  for (int d = 0; d < axis; d++) outer *= out.shape[d];
  for (int d = axis + 1; d < out.ndim; d++) row *= out.shape[d];
  if (outer * row * size == 0) return;
  Indexer indices(a, OpId::take_backward);
  indices.add(idx, idx.shape, idx.ndim, size, 1);
  int64_t* starts = static_cast<int64_t*>(a.workspace);
  const Sorted sorted = sort_keys(a, starts + size + 1, n, size, [&](auto* keys) {
    using K = std::remove_pointer_t<decltype(keys)>;
    FD_LAUNCH(a, index_keys_kernel<K>, uint32_t(ceil_div(n, kThreads)), kThreads, 0, indices, keys, n, size);
  });
  FD_LAUNCH(a, run_starts_kernel, uint32_t(ceil_div(size + 1, kThreads)), kThreads, 0, sorted, n, size, starts);
  const DType d = out.dtype == DType::complex64 ? DType::float32 : out.dtype == DType::complex128 ? DType::float64 : out.dtype;
  by_real(d, [&](auto as) {
    using T = typename decltype(as)::Type;
    const auto launch = [&](auto v) {
      constexpr int V = v.value;
      const int64_t cells = outer * size * (row / V);
      FD_LAUNCH(a, (take_sums_kernel<T, V>), uint32_t(ceil_div(cells, kThreads)), kThreads, 0, g.ptr<const T>(), out.ptr<T>(),
                starts, sorted, cells, division(row / V, cells), division(size, cells), n, as);
    };
    if (sizeof(T) > 1 && row % kPack<T> == 0 && is_aligned(g.data) && is_aligned(out.data))
      launch(std::integral_constant<int, sizeof(T) == 1 ? 1 : kPack<T>>());
    else
      launch(std::integral_constant<int, 1>());
  });
}

// ---- scatter_add ------------------------------------------------------------------------------------------------------------
// out = x; out[o, idx[o, i, s], s] += values[o, i, s], i ascending. All row-major.
template <class K>
FD_KERNEL(kThreads, 4)
scatter_keys_kernel(const int64_t* idx, K* keys, int64_t total, Division by_row, Division by_n, int64_t size, int64_t bound,
                    DeviceError* error) {
  const int64_t at = blockIdx.x * int64_t(kThreads) + threadIdx.x;
  if (at >= total) return;
  int64_t o = at;
  const int64_t s = by_row.split(o), index = idx[at], i = wrap_index(index, size);
  by_n.split(o);
  if (i == kInvalid) report_index(error, OpId::scatter_add, index, size);
  keys[at] = K(i == kInvalid ? bound : (o * size + i) * by_row.by + s);
}

FD_KERNEL(kThreads, 8) copy_bytes_kernel(const uint8_t* x, uint8_t* out, int64_t bytes, bool vectors) {
  const int64_t at = (blockIdx.x * int64_t(kThreads) + threadIdx.x) * 16;
  if (at < bytes) store_pack(out + at, load_pack(x + at, bytes - at, vectors), bytes - at, vectors);
}

// The thread of the first element of a run adds the run to its destination.
template <class T>
FD_KERNEL(kThreads, 4)
add_runs_kernel(Sorted sorted, const T* values, T* out, int64_t total, int64_t bound, Convert<T> as) {
  const int64_t at = blockIdx.x * int64_t(kThreads) + threadIdx.x;
  if (at >= total) return;
  const int64_t key = sorted.key(at);
  if (key == bound || (at > 0 && sorted.key(at - 1) == key)) return;
  auto sum = as.wide(out[key]);
  for (int64_t p = at; p < total && sorted.key(p) == key; p++) sum = plus(sum, as.wide(values[sorted.position(p)]));
  out[key] = as.narrow(sum);
}

int64_t scatter_add_workspace(const Args& a) { return sort_bytes(a.in[1].numel(), a.out[0].numel()); }

void scatter_add_row(const Args& a) {
  const View &x = a.in[0], &idx = a.in[1], &values = a.in[2], &out = a.out[0];
  const int axis = int(a.attrs->i[0]);
  const int64_t size = out.shape[axis], n = idx.shape[axis], bound = out.numel(), total = idx.numel();
  const int64_t bytes = bound * itemsize(out.dtype);
  int64_t row = 1;
  for (int d = axis + 1; d < out.ndim; d++) row *= out.shape[d];
  if (bytes > 0)
    FD_LAUNCH(a, copy_bytes_kernel, uint32_t(ceil_div(bytes, kThreads * 16)), kThreads, 0, x.ptr<const uint8_t>(),
              out.ptr<uint8_t>(), bytes, is_aligned(x.data) && is_aligned(out.data));
  if (total == 0) return;
  const uint32_t blocks = uint32_t(ceil_div(total, kThreads));
  const Sorted sorted = sort_keys(a, a.workspace, total, bound, [&](auto* keys) {
    using K = std::remove_pointer_t<decltype(keys)>;
    FD_LAUNCH(a, scatter_keys_kernel<K>, blocks, kThreads, 0, idx.ptr<const int64_t>(), keys, total, division(row, total),
              division(n, total), size, bound, a.device->error);
  });
  by_number(out.dtype, [&](auto as) {
    using T = typename decltype(as)::Type;
    FD_LAUNCH(a, add_runs_kernel<T>, blocks, kThreads, 0, sorted, values.ptr<const T>(), out.ptr<T>(), total, bound, as);
  });
}

// ---- index_put --------------------------------------------------------------------------------------------------------------
// x[destination of i, r] = or += values[i, r]. A destination is the row-major number of the leading indices.
struct Put {
  int64_t n, cells;  // positions; times elements per row
  int64_t bound;
  Division by_row;
  Dims leading, row;              // of x
  Dims value_leading, value_row;  // of values, broadcast
};

template <class T>
FD_KERNEL(kThreads, 4)
index_put_kernel(Sorted sorted, const T* values, T* x, Put put) {
  const int64_t at = blockIdx.x * int64_t(kThreads) + threadIdx.x;
  if (at >= put.cells) return;
  int64_t p = at;
  const int64_t r = put.by_row.split(p), key = sorted.key(p);
  if (key == put.bound || (p + 1 < put.n && sorted.key(p + 1) == key)) return;  // the last position of a destination stays
  const int64_t from = put.value_leading.offset(sorted.position(p)) + put.value_row.offset(r);
  store_unit(x + put.leading.offset(key) + put.row.offset(r), load_unit(values + from));
}
template <class T>
FD_KERNEL(kThreads, 4)
index_add_kernel(Sorted sorted, const T* values, T* x, Put put, Convert<T> as) {
  const int64_t at = blockIdx.x * int64_t(kThreads) + threadIdx.x;
  if (at >= put.cells) return;
  int64_t p = at;
  const int64_t r = put.by_row.split(p), key = sorted.key(p);
  if (key == put.bound || (p > 0 && sorted.key(p - 1) == key)) return;
  T& to = x[put.leading.offset(key) + put.row.offset(r)];
  const int64_t column = put.value_row.offset(r);
  auto sum = as.wide(to);
  for (; p < put.n && sorted.key(p) == key; p++)
    sum = plus(sum, as.wide(values[put.value_leading.offset(sorted.position(p)) + column]));
  to = as.narrow(sum);
}

int64_t leading_numel(const Args& a) {
  int64_t n = 1;
  for (int d = 0; d < a.nin - 2; d++) n *= a.in[0].shape[d];
  return n;
}
int64_t position_count(const Args& a) {
  int64_t shape[kMaxDims], n = 1;
  const int ndim = broadcast_index_shape(a, 2, shape);
  for (int d = 0; d < ndim; d++) n *= shape[d];
  return n;
}
int64_t index_put_workspace(const Args& a) { return sort_bytes(position_count(a), leading_numel(a)); }

void index_put_row(const Args& a) {
  const View &x = a.out[0], &values = a.in[1];
  const int k = a.nin - 2;
  int64_t shape[kMaxDims];
  const int index_dims = broadcast_index_shape(a, 2, shape), rank = index_dims + x.ndim - k;
  const auto value_stride = [&](int d) {
    const int e = d - (rank - values.ndim);
    return e < 0 || values.shape[e] == 1 ? int64_t(0) : values.strides[e];
  };
  DimList value_leading, value_row;
  for (int d = 0; d < index_dims; d++) value_leading.add(shape[d], value_stride(d));
  for (int d = k; d < x.ndim; d++) value_row.add(x.shape[d], value_stride(index_dims + d - k));
  const DimList row = dims_of(x, k, x.ndim), leading = dims_of(x, 0, k);
  const int64_t length = row.numel(), bound = leading_numel(a), n = position_count(a);
  if (n == 0 || length == 0) return;

  Indexer indices(a, OpId::index_put);
  int64_t step = bound;
  for (int t = 0; t < k; t++) {
    step = x.shape[t] > 0 ? step / x.shape[t] : 0;
    indices.add(a.in[2 + t], shape, index_dims, x.shape[t], step);
  }
  const Put put{n,          n * length,           bound,           division(length, n * length), leading.dims(),
                row.dims(), value_leading.dims(), value_row.dims()};
  const Sorted sorted = sort_keys(a, a.workspace, n, bound, [&](auto* keys) {
    using K = std::remove_pointer_t<decltype(keys)>;
    FD_LAUNCH(a, index_keys_kernel<K>, uint32_t(ceil_div(n, kThreads)), kThreads, 0, indices, keys, n, bound);
  });
  const uint32_t blocks = uint32_t(ceil_div(put.cells, kThreads));
  if (a.attrs->i[0])
    by_number(x.dtype, [&](auto as) {
      using T = typename decltype(as)::Type;
      FD_LAUNCH(a, index_add_kernel<T>, blocks, kThreads, 0, sorted, values.ptr<const T>(), x.ptr<T>(), put, as);
    });
  else
    by_bytes(itemsize(x.dtype), [&](auto u) {
      using U = decltype(u);
      FD_LAUNCH(a, index_put_kernel<U>, blocks, kThreads, 0, sorted, values.ptr<const U>(), x.ptr<U>(), put);
    });
}

constexpr DTypeMask kNumbers = kMaskInt | kMaskFloat | kMaskComplex;

}  // namespace

FD_CUDA_TABLE(index_sums) = {{OpId::take_backward, kNumbers, take_backward_row, take_backward_workspace},
                             {OpId::scatter_add, kNumbers, scatter_add_row, scatter_add_workspace},
                             {OpId::index_put, kNumbers | kMaskBool, index_put_row, index_put_workspace},
                             {}};

}  // namespace fastdl
