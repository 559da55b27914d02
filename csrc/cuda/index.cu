// Indexing without arithmetic: take, index_get, take_along_axis, one_hot; generic by item size. A thread moves one unit of the
// output: an element, or up to 16 bytes of a row where rows are contiguous and aligned. Positions with an index out of range become
// 0.
#include "cuda/device/index.cuh"

namespace fastdl {
namespace {

constexpr int kThreads = 256, kUnits = 4;  // units per thread, one behind the other in time

struct Gather {
  Division by_row, by_count;  // units per row; positions
  Dims outer, row;
  int64_t units;
  Indexer indices;

  Gather(const Args& a, OpId op) : indices(a, op) {}
};

// out[outer, i, row] = x[outer, index i, row]; out is row-major
template <class U>
FD_KERNEL(kThreads, 4)
gather_kernel(const U* x, U* out, Gather g) {
  const int64_t first = blockIdx.x * int64_t(kThreads * kUnits) + threadIdx.x;
  int64_t from[kUnits];
#pragma unroll
  for (int j = 0; j < kUnits; j++) {
    const int64_t at = first + j * kThreads;
    from[j] = kInvalid;
    if (at >= g.units) continue;
    int64_t p = at;
    const int64_t r = g.by_row.split(p), i = g.by_count.split(p), offset = g.indices.offset(i, r == 0 && p == 0);
    if (offset != kInvalid) from[j] = g.outer.offset(p) + offset + g.row.offset(r);
  }
  U unit[kUnits];
#pragma unroll
  for (int j = 0; j < kUnits; j++) unit[j] = from[j] == kInvalid ? U{} : load_unit(x + from[j]);
#pragma unroll
  for (int j = 0; j < kUnits; j++)
    if (first + j * kThreads < g.units) store_unit(out + first + j * kThreads, unit[j]);
}

// Dims [first, first + number of index tensors) of x are looked up.
void gather(const Args& a, OpId op, int first, const int64_t* shape, int ndim) {
  const View &x = a.in[0], &out = a.out[0];
  const int k = a.nin - 1;
  if (out.numel() == 0) return;
  DimList outer = dims_of(x, 0, first), row = dims_of(x, first + k, x.ndim);
  int64_t count = 1;
  for (int d = 0; d < ndim; d++) count *= shape[d];

  // The largest unit in which rows, strides and addresses are whole
  const int64_t item = itemsize(x.dtype);
  int64_t length = row.numel(), scale = 1;
  if (row.dense())
    for (bool fits = true; fits && item * scale < 16;) {
      const int64_t next = scale * 2;
      fits = length % next == 0 && aligned(x.data, item * next) && aligned(out.data, item * next);
      for (int d = 0; d < outer.n; d++) fits &= outer.stride[d] % next == 0;
      for (int t = 0; t < k; t++) fits &= x.strides[first + t] % next == 0;
      if (fits) scale = next;
    }
  if (scale > 1) {
    row.size[0] /= scale;
    for (int d = 0; d < outer.n; d++) outer.stride[d] /= scale;
    length /= scale;
  }
  Gather g(a, op);
  g.units = outer.numel() * count * length;
  g.by_row = division(length, g.units);
  g.by_count = division(count, g.units);
  g.outer = outer.dims(), g.row = row.dims();
  for (int t = 0; t < k; t++) g.indices.add(a.in[1 + t], shape, ndim, x.shape[first + t], x.strides[first + t] / scale);
  by_bytes(item * scale, [&](auto u) {
    using U = decltype(u);
    FD_LAUNCH(a, gather_kernel<U>, uint32_t(ceil_div(g.units, kThreads * kUnits)), kThreads, 0, x.ptr<const U>(), out.ptr<U>(), g);
  });
}

void take_row(const Args& a) { gather(a, OpId::take, int(a.attrs->i[0]), a.in[1].shape, a.in[1].ndim); }

void index_get_row(const Args& a) {
  int64_t shape[kMaxDims];
  const int ndim = broadcast_index_shape(a, 1, shape);
  gather(a, OpId::index_get, 0, shape, ndim);
}

// ---- take_along_axis --------------------------------------------------------------------------------------------------------
// out[p] = x[p with position idx[p] on the axis]; x and idx are broadcast to out on the other axes
struct Along {
  Dims x, idx;  // x: without the axis
  int64_t n, size, step;
  DeviceError* error;
};
template <class U>
FD_KERNEL(kThreads, 4)
take_along_kernel(const U* x, const int64_t* idx, U* out, Along a) {
  const int64_t at = blockIdx.x * int64_t(kThreads) + threadIdx.x;
  if (at >= a.n) return;
  const int64_t index = idx[a.idx.offset(at)], i = wrap_index(index, a.size);
  if (i == kInvalid) report_index(a.error, OpId::take_along_axis, index, a.size);
  store_unit(out + at, i == kInvalid ? U{} : load_unit(x + a.x.offset(at) + i * a.step));
}

void take_along_axis_row(const Args& args) {
  const View &x = args.in[0], &idx = args.in[1], &out = args.out[0];
  const int axis = int(args.attrs->i[0]);
  if (out.numel() == 0) return;
  DimList along, indices;
  for (int d = 0; d < out.ndim; d++) {
    along.add(out.shape[d], d == axis || x.shape[d] == 1 ? 0 : x.strides[d]);
    indices.add(out.shape[d], idx.shape[d] == 1 ? 0 : idx.strides[d]);
  }
  const Along a{along.dims(), indices.dims(), out.numel(), x.shape[axis], x.strides[axis], args.device->error};
  by_bytes(itemsize(x.dtype), [&](auto u) {
    using U = decltype(u);
    FD_LAUNCH(args, take_along_kernel<U>, uint32_t(ceil_div(a.n, kThreads)), kThreads, 0, x.ptr<const U>(),
              idx.ptr<const int64_t>(), out.ptr<U>(), a);
  });
}

// ---- one_hot ----------------------------------------------------------------------------------------------------------------
struct OneHot {
  Dims idx;
  Division by_classes;
  int64_t n;
  uint64_t one;  // the bits of 1 in the output's dtype; a complex one is a float one and zeros
  DeviceError* error;
};
template <class U>
FD_KERNEL(kThreads, 8)
one_hot_kernel(const int64_t* idx, U* out, OneHot h) {
  const int64_t at = blockIdx.x * int64_t(kThreads) + threadIdx.x;
  if (at >= h.n) return;
  int64_t i = at;
  const int64_t column = h.by_classes.split(i), c = idx[h.idx.offset(i)];
  if (column == 0 && uint64_t(c) >= uint64_t(h.by_classes.by)) report_index(h.error, OpId::one_hot, c, h.by_classes.by);
  if constexpr (sizeof(U) == 16)
    store_unit(out + at, U{c == column ? h.one : 0, 0});
  else
    out[at] = c == column ? U(h.one) : U(0);
}

uint64_t bits_of_one(DType d) {
  switch (d) {
    case DType::float16:
      return 0x3c00;
    case DType::bfloat16:
      return 0x3f80;
    case DType::float32:
    case DType::complex64:
      return 0x3f800000;
    case DType::float64:
    case DType::complex128:
      return 0x3ff0000000000000;
    default:
      return 1;
  }
}

void one_hot_row(const Args& a) {
  const View &idx = a.in[0], &out = a.out[0];
  if (out.numel() == 0) return;
  const OneHot h{dims_of(idx, 0, idx.ndim).dims(), division(out.shape[out.ndim - 1], out.numel()), out.numel(),
                 bits_of_one(out.dtype), a.device->error};
  by_bytes(itemsize(out.dtype), [&](auto u) {
    using U = decltype(u);
    FD_LAUNCH(a, one_hot_kernel<U>, uint32_t(ceil_div(h.n, kThreads)), kThreads, 0, idx.ptr<const int64_t>(), out.ptr<U>(), h);
  });
}

constexpr DTypeMask kAll = kMaskBool | kMaskInt | kMaskFloat | kMaskComplex;

}  // namespace

FD_CUDA_TABLE(index) = {{OpId::take, kAll, take_row, nullptr},
                        {OpId::index_get, kAll, index_get_row, nullptr},
                        {OpId::take_along_axis, kAll, take_along_axis_row, nullptr},
                        {OpId::one_hot, kAll, one_hot_row, nullptr},
                        {}};

}  // namespace fastdl
