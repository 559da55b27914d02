// View, Attrs and Args: all that a kernel sees. Plain data, no ownership.
#pragma once
#include <cstdint>

#include "dtype.h"

namespace fastdl {

constexpr int kMaxDims = 8;

// A strided window on memory. Strides count elements, may be 0 (broadcast) or negative.
struct View {
  void* data;
  int32_t ndim;  // -1: an optional input that was not given
  DType dtype;
  int64_t shape[kMaxDims];
  int64_t strides[kMaxDims];

  bool given() const { return ndim >= 0; }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < ndim; i++) n *= shape[i];
    return n;
  }
  bool contiguous() const {  // row-major, any strides where shape is 1
    int64_t want = 1;
    for (int i = ndim - 1; i >= 0; i--) {
      if (shape[i] == 1) continue;
      if (shape[i] == 0) return true;
      if (strides[i] != want) return false;
      want *= shape[i];
    }
    return true;
  }
  template <class T>
  T* ptr() const { return static_cast<T*>(data); }
};

inline void set_contiguous_strides(View& v) {
  int64_t s = 1;
  for (int i = v.ndim - 1; i >= 0; i--) v.strides[i] = s, s *= v.shape[i] > 1 ? v.shape[i] : 1;
}

// The non-tensor arguments of an op, in the order of the op's signature: integers (also bool, axes as a bit mask,
// dtype codes, pairs) in i, floats in f. See fastdl/op.py for the order rules.
struct Attrs {
  int64_t i[24];
  double f[8];
};

// What a kernel is called with. Outputs and workspace are allocated and checked by the caller. A kernel allocates nothing,
// synchronises nothing, touches no Python and throws nothing. `workspace` is 64-byte aligned, of Call::workspace bytes (on a device:
// of what its row asks for). On a device all views are in its memory, except those in host_inputs.
struct DeviceContext;  // cuda/api.h
struct Args {
  View* out;
  const View* in;
  const Attrs* attrs;
  void* workspace;
  int nout, nin;
  const DeviceContext* device = nullptr;  // null on the CPU
  uint32_t host_inputs = 0;               // bit k, on a device: input k is a number of one element in host memory, read at launch
};

using KernelFn = void (*)(const Args&);

// Same dtype, shape and strides; strides of axes of length 0 or 1 do not matter.
inline bool same_layout(const View& a, const View& b) {
  if (a.ndim != b.ndim || a.dtype != b.dtype) return false;
  for (int d = 0; d < a.ndim; d++)
    if (a.shape[d] != b.shape[d] || (a.shape[d] > 1 && a.strides[d] != b.strides[d])) return false;
  return true;
}

// Whether the elements fill one run of memory, in any order of the axes.
inline bool dense(const View& v) {
  int64_t order[kMaxDims];
  int n = 0;
  for (int d = 0; d < v.ndim; d++) {
    if (v.shape[d] == 0) return true;
    if (v.shape[d] == 1) continue;
    int at = n++;
    for (; at > 0 && v.strides[order[at - 1]] < v.strides[d]; at--) order[at] = order[at - 1];
    order[at] = d;
  }
  int64_t want = 1;
  for (; n > 0; n--) {
    if (v.strides[order[n - 1]] != want) return false;
    want *= v.shape[order[n - 1]];
  }
  return true;
}

}  // namespace fastdl
