// Index tensors on the device: where the element of a position lies in a strided view, and which element of x one or more index
// tensors name. Offsets are 64-bit; negative indices count from the end; one out of range is reported and names no element.
#pragma once
#include "cuda/device/divide.cuh"

namespace fastdl {
namespace {

constexpr int64_t kInvalid = INT64_MIN;  // offset of an index out of range

// Dims of a view, innermost first, merged where one continues the other.
struct Dims {
  int n = 0;
  Division size[kMaxDims];
  int64_t stride[kMaxDims];

  // outermost first
  FD_DEVICE int64_t offset(int64_t position) const {
    int64_t r = 0;
#pragma unroll
    for (int d = 0; d < kMaxDims; d++) {
      if (d >= n) break;
      if (d == n - 1) return r + position * stride[d];
      r += size[d].split(position) * stride[d];
    }
    return r;
  }
};

// Collects dims from the outermost to the innermost.
struct DimList {
  int n = 0;
  int64_t size[2 * kMaxDims], stride[2 * kMaxDims];

  void add(int64_t s, int64_t by) {
    if (s == 1) return;
    if (n && stride[n - 1] == by * s) {
      size[n - 1] *= s, stride[n - 1] = by;
      return;
    }
    size[n] = s, stride[n++] = by;
  }
  int64_t numel() const {
    int64_t r = 1;
    for (int d = 0; d < n; d++) r *= size[d];
    return r;
  }
  bool dense() const { return n == 0 || (n == 1 && stride[0] == 1); }
  Dims dims() const {
    Dims r;
    r.n = n;
    for (int d = 0; d < n; d++) r.size[d] = division(max_of(1, size[n - 1 - d]), numel()), r.stride[d] = stride[n - 1 - d];
    return r;
  }
};
inline DimList dims_of(const View& v, int from, int to) {
  DimList l;
  for (int d = from; d < to; d++) l.add(v.shape[d], v.strides[d]);
  return l;
}

FD_DEVICE int64_t wrap_index(int64_t i, int64_t size) {
  i += i < 0 ? size : 0;
  return uint64_t(i) < uint64_t(size) ? i : kInvalid;
}

// k index tensors, broadcast to one shape, over dims of x. Strides count whatever the kernel's offsets count.
struct Indexer {
  int k = 0;
  OpId op;
  DeviceError* error;
  const int64_t* data[kMaxDims];
  Dims dims[kMaxDims];
  int64_t size[kMaxDims], stride[kMaxDims];

  Indexer(const Args& a, OpId op) : op(op), error(a.device->error) {}

  // idx is broadcast to `shape`
  void add(const View& idx, const int64_t* shape, int ndim, int64_t axis_size, int64_t axis_stride) {
    DimList l;
    for (int d = 0; d < ndim; d++) {
      const int e = d - (ndim - idx.ndim);
      l.add(shape[d], e < 0 || idx.shape[e] == 1 ? 0 : idx.strides[e]);
    }
    data[k] = idx.ptr<const int64_t>();
    dims[k] = l.dims();
    size[k] = axis_size;
    stride[k] = axis_stride;
    k++;
  }

  // Offset of position i in x, or kInvalid; reports it if asked to.
  FD_DEVICE int64_t offset(int64_t i, bool report) const {
    int64_t r = 0;
#pragma unroll 1
    for (int t = 0; t < k; t++) {
      const int64_t index = data[t][dims[t].offset(i)], at = wrap_index(index, size[t]);
      if (at == kInvalid) {
        if (report) report_index(error, op, index, size[t]);
        return kInvalid;
      }
      r += at * stride[t];
    }
    return r;
  }
};

// The shape to which the index tensors in[first] .. in[nin - 1] broadcast; returns its rank.
inline int broadcast_index_shape(const Args& a, int first, int64_t* shape) {
  int ndim = 0;
  for (int t = first; t < a.nin; t++) ndim = a.in[t].ndim > ndim ? a.in[t].ndim : ndim;
  for (int d = 0; d < ndim; d++) shape[d] = 1;
  for (int t = first; t < a.nin; t++)
    for (int d = 0; d < a.in[t].ndim; d++) {
      int64_t& s = shape[ndim - a.in[t].ndim + d];
      if (s == 1) s = a.in[t].shape[d];
    }
  return ndim;
}

}  // namespace
}  // namespace fastdl
