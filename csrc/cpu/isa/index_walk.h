// What the indexing kernels share: walking strided memory line by line, and turning index tensors into element offsets.
#pragma once
#include "cpu/isa/kernel.h"

namespace fastdl {
namespace {

struct alignas(8) Item16 {
  uint64_t lo, hi;
};

constexpr int kBlock = 256;                 // rows whose offsets are computed together
constexpr int64_t kInvalid = INT64_MIN;     // offset of an index out of bounds
constexpr int64_t kChunkBytes = 64 * 1024;  // moved per chunk

// A list of dims with one or two sets of strides, neighbours merged where both sets allow it.
struct Walk {
  int n = 0;
  int64_t size[kMaxDims], a[kMaxDims], b[kMaxDims];

  void add(int64_t s, int64_t sa, int64_t sb) {
    if (s == 1) return;
    if (n && a[n - 1] == sa * s && b[n - 1] == sb * s) {
      size[n - 1] *= s, a[n - 1] = sa, b[n - 1] = sb;
      return;
    }
    size[n] = s, a[n] = sa, b[n] = sb;
    n++;
  }
  int64_t numel() const {
    int64_t r = 1;
    for (int d = 0; d < n; d++) r *= size[d];
    return r;
  }
  // Offsets of the flat position p.
  void offsets(int64_t p, int64_t& oa, int64_t& ob) const {
    oa = ob = 0;
    for (int d = n - 1; d >= 0; d--) {
      const int64_t q = p / size[d], r = p - q * size[d];
      oa += r * a[d];
      ob += r * b[d];
      p = q;
    }
  }
};

// f(offset a, offset b, length, stride a, stride b) for each line of flat positions begin .. end-1.
template <class F>
FD_INLINE void for_lines(const Walk& w, int64_t begin, int64_t end, F&& f) {
  if (w.n == 0) {
    if (begin < end) f(int64_t(0), int64_t(0), int64_t(1), int64_t(0), int64_t(0));
    return;
  }
  const int last = w.n - 1;
  while (begin < end) {
    int64_t oa, ob;
    w.offsets(begin, oa, ob);
    const int64_t left = w.size[last] - begin % w.size[last], len = min_of(left, end - begin);
    f(oa, ob, len, w.a[last], w.b[last]);
    begin += len;
  }
}

inline Walk walk_of(const View& v, int from, int to) {
  Walk w;
  for (int d = from; d < to; d++) w.add(v.shape[d], v.strides[d], 0);
  return w;
}

// A chunk's worth of rows of `bytes` each.
inline int64_t rows_per_chunk(int64_t bytes) { return max_of<int64_t>(1, kChunkBytes / max_of<int64_t>(1, bytes)); }

FD_INLINE int64_t wrap(int64_t i, int64_t size) {  // -size .. size-1 -> 0 .. size-1, else kInvalid
  i += i < 0 ? size : 0;
  return uint64_t(i) < uint64_t(size) ? i : kInvalid;
}

// One or more index tensors over consecutive dims of x: position -> element offset.
struct Indexer {
  int k = 0;
  int64_t count = 0;
  const int64_t* data[kMaxDims];
  Walk walk[kMaxDims];
  int64_t size[kMaxDims], stride[kMaxDims];

  // idx is broadcast to `shape`
  void add(const View& idx, const int64_t* shape, int ndim, int64_t axis_size, int64_t axis_stride) {
    Walk& w = walk[k] = Walk();
    for (int d = 0; d < ndim; d++) {
      const int e = d - (ndim - idx.ndim);
      w.add(shape[d], e < 0 || idx.shape[e] == 1 ? 0 : idx.strides[e], 0);
    }
    count = w.numel();
    data[k] = idx.ptr<const int64_t>();
    size[k] = axis_size;
    stride[k] = axis_stride;
    k++;
  }

  // out[j] = element offset of position begin + j, or kInvalid
  void offsets(int64_t begin, int n, int64_t* out) const {
    for (int j = 0; j < n; j++) out[j] = 0;
    for (int t = 0; t < k; t++) {
      int j = 0;
      for_lines(walk[t], begin, begin + n, [&](int64_t o, int64_t, int64_t len, int64_t s, int64_t) {
        const int64_t* p = data[t] + o;
        for (int64_t i = 0; i < len; i++, j++) {
          const int64_t r = wrap(p[i * s], size[t]);
          out[j] = (out[j] == kInvalid) | (r == kInvalid) ? kInvalid : out[j] + r * stride[t];
        }
      });
    }
  }
};

constexpr DTypeMask kItem1 = kMaskBool | mask_of(DType::uint8) | mask_of(DType::int8);
constexpr DTypeMask kInt2 = mask_of(DType::uint16) | mask_of(DType::int16), kInt4 = mask_of(DType::uint32) | mask_of(DType::int32);
constexpr DTypeMask kInt8 = mask_of(DType::uint64) | mask_of(DType::int64);
constexpr DTypeMask kC64 = mask_of(DType::complex64), kC128 = mask_of(DType::complex128);
constexpr DTypeMask kItem2 = kInt2 | kF16 | kBF16, kItem4 = kInt4 | kF32, kItem8 = kInt8 | kF64 | kC64;

}  // namespace
}  // namespace fastdl
