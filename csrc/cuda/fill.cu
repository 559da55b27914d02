// fill, pad, tril and triu. A dense fill writes 16 bytes per access; another layout is walked unit by unit, a unit being as many
// elements as lie together everywhere. A pad is a fill and a copy.
#include "cuda/copy.h"
#include "cuda/device/walk.cuh"
#include "cuda/scalar.h"

namespace fastdl {
namespace {

constexpr int kThreads = 256;
constexpr int kUnits = 4;  // per thread

struct Pattern {
  Bytes16 bits;  // the value, repeated
};
template <class U>
FD_DEVICE U value_of(const Pattern& p) {
  U u;
  memcpy(&u, &p.bits, sizeof u);
  return u;
}

FD_KERNEL(kThreads, 8) fill_dense(char* out, int64_t bytes, const Pattern value) {
  const int64_t units = bytes / 16, first = int64_t(blockIdx.x) * (kThreads * kUnits) + threadIdx.x;
#pragma unroll
  for (int j = 0; j < kUnits; j++)
    if (first + j * kThreads < units) store_16(out + 16 * (first + j * kThreads), value.bits);
  const int64_t rest = units * 16 + threadIdx.x;
  if (blockIdx.x == 0 && rest < bytes) {
    const uint64_t word = threadIdx.x % 16 < 8 ? value.bits.low : value.bits.high;
    out[rest] = char(word >> (threadIdx.x % 8 * 8));
  }
}

template <class U>
FD_KERNEL(kThreads, 8)
fill_units(U* out, const Walk<1> walk, const Pattern value) {
  const uint32_t first = blockIdx.x * uint32_t(kThreads * kUnits) + threadIdx.x, n = walk.n;
#pragma unroll
  for (int j = 0; j < kUnits; j++) {
    const uint32_t i = first + j * kThreads;
    if (i < n) {
      int32_t offset[1];
      locate(walk, i, offset);
      store_unit(out + offset[0], value_of<U>(value));
    }
  }
}

template <class From>
Pattern pattern_of(DType d, From x) {
  Pattern p;
  char* const bytes = reinterpret_cast<char*>(&p.bits);
  put_number(bytes, d, x);
  for (int64_t i = itemsize(d); i < 16; i++) bytes[i] = bytes[i - itemsize(d)];
  return p;
}

void fill(const Args& a, const View& out, const Pattern& value) {
  const View* const views[1] = {&out};
  in_parts(make_plan(views), [&](Plan<1> p) {
    if (p.ndim == 1 && p.stride[0][0] == 1 && aligned(p.data[0], 16)) {
      const int64_t bytes = p.shape[0] * p.item[0];
      FD_LAUNCH(a, fill_dense, dim3(unsigned(ceil_div(bytes, 16 * kThreads * kUnits))), kThreads, 0, p.data[0], bytes, value);
      return;
    }
    widen_units(p);
    const Walk<1> walk = make_walk(p);
    by_bytes(p.item[0], [&](auto unit) {
      using U = decltype(unit);
      FD_LAUNCH(a, fill_units<U>, dim3(unsigned(ceil_div(walk.n, kThreads * kUnits))), kThreads, 0, reinterpret_cast<U*>(p.data[0]),
                walk, value);
    });
  });
}

void fill_row(const Args& a) {
  const View& out = a.out[0];
  if (a.attrs->i[0] == 1)
    fill(a, out, pattern_of(out.dtype, a.attrs->i[1]));
  else
    fill(a, out, pattern_of(out.dtype, c128{a.attrs->f[0], a.attrs->f[1]}));
}

void pad_row(const Args& a) {
  View inner = a.out[0];
  bool padded = false;
  for (int d = 0; d < inner.ndim; d++) {
    padded |= inner.shape[d] != a.in[0].shape[d];
    inner.data = inner.ptr<char>() + a.attrs->i[2 * d] * inner.strides[d] * itemsize(inner.dtype);
    inner.shape[d] = a.in[0].shape[d];
  }
  if (padded) fill(a, a.out[0], pattern_of(inner.dtype, c128{a.attrs->f[0], 0}));
  copy_on_device(a, inner, a.in[0]);
}

// ---- triangles -----------------------------------------------------------------------------------------------------------------
// Row i of a matrix keeps its columns j <= i + diagonal (lower) or j >= i + diagonal; the others become 0. The walk has the
// matrix's two dims first; `exchanged`: rows innermost, as in memory.
struct Triangle {
  Walk<2> walk;
  int32_t diagonal;
  bool lower, exchanged;
};
template <class U>
FD_KERNEL(kThreads, 6)
copy_triangle(U* out, const U* in, const Triangle t) {
  const uint32_t first = blockIdx.x * uint32_t(kThreads * kUnits) + threadIdx.x, n = t.walk.n;
  U u[kUnits];
  int32_t to[kUnits];
#pragma unroll
  for (int j = 0; j < kUnits; j++) {
    const uint32_t i = first + j * kThreads;
    if (i < n) {
      int32_t offset[2];
      locate(t.walk, i, offset);
      const uint32_t q = divide(i, t.walk.size[0]), x = i - q * t.walk.size[0].value;
      const uint32_t y = q - divide(q, t.walk.size[1]) * t.walk.size[1].value;
      const int32_t row = t.exchanged ? x : y, col = t.exchanged ? y : x;
      u[j] = U{};
      if (t.lower ? col <= row + t.diagonal : col >= row + t.diagonal) u[j] = load_unit(in + offset[0]);
      to[j] = offset[1];
    }
  }
#pragma unroll
  for (int j = 0; j < kUnits; j++)
    if (first + j * kThreads < n) store_unit(out + to[j], u[j]);
}

void triangle(const Args& a, const View& out, const View& in, int64_t diagonal, bool lower) {
  const int n = out.ndim;
  Triangle t;
  t.exchanged = out.strides[n - 2] == 1 && out.strides[n - 1] != 1;
  Plan<2> p{};  // not merged: the kernel needs the two coordinates
  p.ndim = n;
  for (int d = 0; d < n; d++) {
    const int from = d < 2 && t.exchanged ? n - 2 + d : n - 1 - d;
    p.shape[d] = out.shape[from];
    p.stride[d][0] = in.strides[from], p.stride[d][1] = out.strides[from];
  }
  if (!fits_32_bits(p)) {  // halves of the longest dim
    int d = 0;
    for (int i = 1; i < n; i++)
      if (out.shape[i] > out.shape[d]) d = i;
    const int64_t half = out.shape[d] / 2;
    triangle(a, narrow(out, d, 0, half), narrow(in, d, 0, half), diagonal, lower);
    const int64_t shifted = diagonal + (d == n - 2 ? half : d == n - 1 ? -half : 0);
    return triangle(a, narrow(out, d, half, out.shape[d] - half), narrow(in, d, half, out.shape[d] - half), shifted, lower);
  }
  t.walk = make_walk(p);
  t.lower = lower;
  t.diagonal = int32_t(max_of(-out.shape[n - 2], min_of(diagonal, out.shape[n - 1])));
  by_bytes(itemsize(out.dtype), [&](auto unit) {
    using U = decltype(unit);
    FD_LAUNCH(a, copy_triangle<U>, dim3(unsigned(ceil_div(t.walk.n, kThreads * kUnits))), kThreads, 0, out.ptr<U>(), in.ptr<U>(),
              t);
  });
}
template <bool lower>
void triangle_row(const Args& a) {
  if (a.out[0].numel()) triangle(a, a.out[0], a.in[0], a.attrs->i[0], lower);
}

constexpr DTypeMask kAll = (1u << kNumDTypes) - 1;
}  // namespace

void fill_on_device(const Args& a, const View& out, const void* value) {
  Pattern p;
  char* const bytes = reinterpret_cast<char*>(&p.bits);
  const int64_t item = itemsize(out.dtype);
  for (int64_t i = 0; i < 16; i += item) memcpy(bytes + i, value, item);
  fill(a, out, p);
}

void cast_number(void* to, DType to_dtype, const void* from, DType from_dtype) {
  switch (from_dtype) {
#define FD_DTYPE(name, type, size, kind, numpy)       \
  case DType::name: {                                 \
    type v;                                           \
    memcpy(&v, from, sizeof v);                       \
    return put_number(to, to_dtype, plain_number(v)); \
  }
#include "dtypes.def"
  }
}

FD_CUDA_TABLE(fill) = {{OpId::fill, kAll, fill_row, nullptr},
                       {OpId::pad, kAll, pad_row, nullptr},
                       {OpId::tril, kAll, triangle_row<true>, nullptr},
                       {OpId::triu, kAll, triangle_row<false>, nullptr},
                       {}};

}  // namespace fastdl
