// Walking strided operands in step: what elementwise kernels, copies and fills share.
//
// On the host a Plan turns views of one shape into loops: dims ordered by the output's memory and merged where all operands allow
// it, so that most calls end with one dim. Calls that 32-bit indices cannot serve are cut into parts that they can. On the device a
// Walk finds the operands' offsets for a linear index.
#pragma once
#include <type_traits>

#include "cuda/device/divisor.cuh"
#include "cuda/kernel.h"

namespace fastdl {
namespace {

// ---- device ------------------------------------------------------------------------------------------------------------------
template <int operands>
struct Walk {
  int32_t ndim;
  int32_t n;                           // elements
  Divisor size[kMaxDims];              // innermost dim first
  int32_t stride[kMaxDims][operands];  // in elements
};

// Offsets of element i, in elements.
template <int operands>
FD_DEVICE void locate(const Walk<operands>& w, uint32_t i, int32_t (&offset)[operands]) {
#pragma unroll
  for (int k = 0; k < operands; k++) offset[k] = 0;
  const int last = w.ndim - 1;
#pragma unroll 1
  for (int d = 0; d < last; d++) {
    const uint32_t q = divide(i, w.size[d]), r = i - q * w.size[d].value;
#pragma unroll
    for (int k = 0; k < operands; k++) offset[k] += int32_t(r) * w.stride[d][k];
    i = q;
  }
#pragma unroll
  for (int k = 0; k < operands; k++) offset[k] += int32_t(i) * w.stride[last][k];
}

// A run of N elements at once, of 1 to 64 bytes; p is a multiple of 16, or of the size of the run if that is smaller.
struct alignas(16) Bytes16 {
  uint64_t low, high;
};
template <class T, int N>
FD_DEVICE void load_run(const void* p, T (&v)[N]) {
  constexpr int kBytes = N * int(sizeof(T));
  if constexpr (kBytes % 16 == 0) {
#pragma unroll
    for (int i = 0; i < kBytes / 16; i++) {
      const Bytes16 b = load_16<Bytes16>(static_cast<const char*>(p) + 16 * i);
      memcpy(reinterpret_cast<char*>(v) + 16 * i, &b, 16);
    }
  } else {
    static_assert(kBytes <= 8, "a power of two");
    const auto b =
        *static_cast<const std::conditional_t<kBytes == 8, uint64_t, std::conditional_t<kBytes == 4, uint32_t, uint16_t>>*>(p);
    static_assert(sizeof b == kBytes, "2, 4 or 8 bytes");
    memcpy(v, &b, sizeof b);
  }
}
template <class T, int N>
FD_DEVICE void store_run(void* p, const T (&v)[N]) {
  constexpr int kBytes = N * int(sizeof(T));
  if constexpr (kBytes % 16 == 0) {
#pragma unroll
    for (int i = 0; i < kBytes / 16; i++) {
      Bytes16 b;
      memcpy(&b, reinterpret_cast<const char*>(v) + 16 * i, 16);
      store_16(static_cast<char*>(p) + 16 * i, b);
    }
  } else {
    using B = std::conditional_t<kBytes == 8, uint64_t, std::conditional_t<kBytes == 4, uint32_t, uint16_t>>;
    static_assert(sizeof(B) == kBytes, "2, 4 or 8 bytes");
    memcpy(static_cast<B*>(p), v, sizeof(B));
  }
}

// A unit: an unsigned integer of 1, 2, 4 or 8 bytes, or Bytes16.
template <class U>
FD_DEVICE U load_unit(const U* p) {
  if constexpr (sizeof(U) == 16)
    return load_16<U>(p);
  else
    return *p;
}
template <class U>
FD_DEVICE void store_unit(U* p, const U& u) {
  if constexpr (sizeof(U) == 16)
    store_16(p, u);
  else
    *p = u;
}
// ---- host --------------------------------------------------------------------------------------------------------------------
constexpr int64_t kIndexLimit = (int64_t(1) << 31) - (int64_t(1) << 20);  // room for the last block to overrun

// `count` indices from `start` of one dim
inline View narrow(View v, int dim, int64_t start, int64_t count) {
  v.data = v.ptr<char>() + start * v.strides[dim] * itemsize(v.dtype);
  v.shape[dim] = count;
  return v;
}

// Operands of one shape, the output last. Innermost dim first.
template <int operands>
struct Plan {
  int ndim;  // at least 1
  int64_t shape[kMaxDims];
  int64_t stride[kMaxDims][operands];
  int64_t item[operands];
  char* data[operands];

  int64_t numel() const {
    int64_t n = 1;
    for (int d = 0; d < ndim; d++) n *= shape[d];
    return n;
  }
  bool dense(int k) const {  // operand k lies in the order of the walk, without gaps
    int64_t want = 1;
    for (int d = 0; d < ndim; want *= shape[d++])
      if (stride[d][k] != want && shape[d] != 1) return false;
    return true;
  }
  bool constant(int k) const {
    for (int d = 0; d < ndim; d++)
      if (stride[d][k] != 0) return false;
    return true;
  }
};

// Neighbouring dims that all operands walk as one become one. At least one dim remains.
template <int operands>
void merge_dims(Plan<operands>& p) {
  int m = 0;
  for (int d = 1; d < p.ndim; d++) {
    bool joins = true;
    for (int k = 0; k < operands; k++) joins &= p.stride[d][k] == p.stride[m][k] * p.shape[m];
    if (joins) {
      p.shape[m] *= p.shape[d];
    } else {
      p.shape[++m] = p.shape[d];
      for (int k = 0; k < operands; k++) p.stride[m][k] = p.stride[d][k];
    }
  }
  if (p.ndim == 0) {
    p.shape[0] = 1;
    for (int k = 0; k < operands; k++) p.stride[0][k] = 1;
  }
  p.ndim = p.ndim ? m + 1 : 1;
}

template <int operands>
Plan<operands> make_plan(const View* const (&views)[operands]) {
  Plan<operands> p{};
  const View& out = *views[operands - 1];
  for (int k = 0; k < operands; k++) {
    p.item[k] = itemsize(views[k]->dtype);
    p.data[k] = static_cast<char*>(views[k]->data);
  }
  for (int d = out.ndim - 1; d >= 0; d--) {
    if (out.shape[d] == 1) continue;
    int64_t stride[operands];
    for (int k = 0; k < operands; k++) stride[k] = views[k]->strides[d];
    if (stride[operands - 1] < 0 && out.shape[d] > 0)  // walk forwards in the output
      for (int k = 0; k < operands; k++) {
        p.data[k] += (out.shape[d] - 1) * stride[k] * p.item[k];
        stride[k] = -stride[k];
      }
    int at = p.ndim++;
    for (; at > 0 && p.stride[at - 1][operands - 1] > stride[operands - 1]; at--) {
      p.shape[at] = p.shape[at - 1];
      for (int k = 0; k < operands; k++) p.stride[at][k] = p.stride[at - 1][k];
    }
    p.shape[at] = out.shape[d];
    for (int k = 0; k < operands; k++) p.stride[at][k] = stride[k];
  }
  merge_dims(p);
  return p;
}

template <int operands>
bool fits_32_bits(const Plan<operands>& p) {
  int64_t n = 1, extent[operands] = {};
  for (int d = 0; d < p.ndim; d++) {
    n *= p.shape[d];
    for (int k = 0; k < operands; k++) extent[k] += (p.shape[d] - 1) * (p.stride[d][k] < 0 ? -p.stride[d][k] : p.stride[d][k]);
  }
  bool fits = n < kIndexLimit;
  for (int k = 0; k < operands; k++) fits &= extent[k] < kIndexLimit;
  return fits;
}

// run(part) for parts of the plan whose indices and offsets fit 32 bits: the plan itself in almost all cases.
template <int operands, class F>
void in_parts(const Plan<operands>& p, const F& run) {
  if (p.numel() == 0) return;
  if (fits_32_bits(p)) return run(p);
  int d = p.ndim - 1;
  while (p.shape[d] == 1) d--;
  const int64_t whole = p.shape[d], first = whole >= 128 ? whole / 128 * 64 : whole / 2;  // parts stay aligned
  Plan<operands> part = p;
  part.shape[d] = first;
  in_parts(part, run);
  part.shape[d] = whole - first;
  for (int k = 0; k < operands; k++) part.data[k] += first * p.stride[d][k] * p.item[k];
  in_parts(part, run);
}

template <int operands>
Walk<operands> make_walk(const Plan<operands>& p) {
  Walk<operands> w{};
  w.ndim = p.ndim;
  w.n = int32_t(p.numel());
  for (int d = 0; d < p.ndim; d++) {
    w.size[d] = make_divisor(p.shape[d]);
    for (int k = 0; k < operands; k++) w.stride[d][k] = int32_t(p.stride[d][k]);
  }
  return w;
}

inline bool aligned(const void* p, int64_t bytes) { return reinterpret_cast<uintptr_t>(p) % uintptr_t(bytes) == 0; }

// Elements, of one size in all operands, become larger units where runs, strides and addresses allow it.
template <int operands>
void widen_units(Plan<operands>& p) {
  while (p.item[0] < 16 && p.shape[0] % 2 == 0) {
    const int64_t bytes = 2 * p.item[0];
    bool fits = true;
    for (int k = 0; k < operands; k++) {
      fits &= p.stride[0][k] == 1 && aligned(p.data[k], bytes);
      for (int d = 1; d < p.ndim; d++) fits &= p.stride[d][k] % 2 == 0;
    }
    if (!fits) return;
    p.shape[0] /= 2;
    for (int k = 0; k < operands; k++) {
      p.item[k] = bytes;
      for (int d = 1; d < p.ndim; d++) p.stride[d][k] /= 2;
    }
  }
}

// run(U()) for the unsigned type of 1, 2, 4, 8 or 16 bytes
template <class F>
void by_bytes(int64_t bytes, const F& run) {
  switch (bytes) {
    case 1:
      return run(uint8_t());
    case 2:
      return run(uint16_t());
    case 4:
      return run(uint32_t());
    case 8:
      return run(uint64_t());
    default:
      return run(Bytes16());
  }
}

}  // namespace
}  // namespace fastdl
