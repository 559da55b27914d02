// Casts between any two dtypes and layouts, by the rules of math/cast.h.
//
// Four kernels, by the type that carries a value from load to store: float (also for the 16-bit floats), double, int64 (integers
// and bool) and uint64. Source and target dtype are uniform branches in them. Threads take four neighbouring elements: whole
// runs where both sides are dense, one by one otherwise. Complex numbers pass as their parts.
#include "cuda/copy.h"
#include "cuda/device/element.cuh"
#include "cuda/device/walk.cuh"

namespace fastdl {
namespace {

constexpr int kThreads = 256;
constexpr int kRun = 4;

struct Cast {
  Walk<2> walk;
  DType from, to;
  bool dense;
};

template <class To, class C>
FD_DEVICE To cast_one(C x) {
  if constexpr (same_type<To, f16>) {
    if constexpr (same_type<C, double>)
      return narrow_f16(x);
    else
      return narrow_f16(float(x));
  } else if constexpr (same_type<To, bf16>) {
    if constexpr (same_type<C, double>)
      return narrow_bf16(x);
    else
      return narrow_bf16(float(x));
  } else {
    return convert<To>(x);
  }
}
template <class To, class C, int n>
FD_DEVICE void store_cast_as(char* p, const C (&v)[n]) {
  To t[n];
#pragma unroll
  for (int i = 0; i < n; i++) t[i] = cast_one<To>(v[i]);
  if constexpr (n == 1)
    *reinterpret_cast<To*>(p) = t[0];
  else
    store_run(p, t);
}
template <class C, int n>
FD_DEVICE void store_cast(char* p, DType d, const C (&v)[n]) {
  switch (d) {
#define FD_DTYPE(name, type, bytes, kind, numpy)          \
  case DType::name:                                       \
    if constexpr (kind != 'c') store_cast_as<type>(p, v); \
    return;
#include "dtypes.def"
  }
}

template <class C>
FD_KERNEL(kThreads, 6)
cast_kernel(char* out, const char* in, int32_t out_item, int32_t in_item, const Cast c) {
  const uint32_t first = (blockIdx.x * uint32_t(kThreads) + threadIdx.x) * kRun, n = c.walk.n;
  if (c.dense && first + kRun <= n) {
    C v[kRun];
    load_elements(in + int64_t(first) * in_item, c.from, v);
    return store_cast(out + int64_t(first) * out_item, c.to, v);
  }
#pragma unroll 1
  for (uint32_t i = first; i < first + kRun && i < n; i++) {
    int32_t offset[2];
    locate(c.walk, i, offset);
    C v[1];
    load_elements(in + int64_t(offset[0]) * in_item, c.from, v);
    store_cast(out + int64_t(offset[1]) * out_item, c.to, v);
  }
}

template <class T>  // T: of the parts
FD_KERNEL(kThreads, 6) complex_truth(uint8_t* out, const T* in, const Walk<2> walk) {
  const uint32_t i = blockIdx.x * uint32_t(kThreads) + threadIdx.x;
  if (i >= uint32_t(walk.n)) return;
  int32_t offset[2];
  locate(walk, i, offset);
  const T* const z = in + 2 * int64_t(offset[0]);
  out[offset[1]] = (z[0] != T(0)) | (z[1] != T(0));
}

// A view of the real (part 0) or imaginary (1) parts.
View part_of(View v, int part) {
  const DType d = v.dtype == DType::complex64 ? DType::float32 : DType::float64;
  v.data = v.ptr<char>() + part * itemsize(d);
  v.dtype = d;
  for (int i = 0; i < v.ndim; i++) v.strides[i] *= 2;
  return v;
}

}  // namespace

void cast_on_device(const Args& a, const View& out, const View& in) {
  const View* const views[2] = {&in, &out};
  if (is_complex(in.dtype) && out.dtype == DType::bool_) {
    in_parts(make_plan(views), [&](const Plan<2>& p) {
      const Walk<2> walk = make_walk(p);
      const dim3 grid(unsigned(ceil_div(walk.n, kThreads)));
      uint8_t* const to = reinterpret_cast<uint8_t*>(p.data[1]);
      if (in.dtype == DType::complex64)
        FD_LAUNCH(a, complex_truth<float>, grid, kThreads, 0, to, reinterpret_cast<const float*>(p.data[0]), walk);
      else
        FD_LAUNCH(a, complex_truth<double>, grid, kThreads, 0, to, reinterpret_cast<const double*>(p.data[0]), walk);
    });
    return;
  }
  if (is_complex(in.dtype)) {
    copy_on_device(a, is_complex(out.dtype) ? part_of(out, 0) : out, part_of(in, 0));
    if (is_complex(out.dtype)) copy_on_device(a, part_of(out, 1), part_of(in, 1));
    return;
  }
  if (is_complex(out.dtype)) {
    const c128 zero{0, 0};
    fill_on_device(a, part_of(out, 1), &zero);
    copy_on_device(a, part_of(out, 0), in);
    return;
  }
  in_parts(make_plan(views), [&](const Plan<2>& p) {
    Cast c;
    c.walk = make_walk(p);
    c.from = in.dtype, c.to = out.dtype;
    c.dense = p.dense(0) && p.dense(1) && aligned(p.data[0], min_of(kRun * p.item[0], 16)) &&
              aligned(p.data[1], min_of(kRun * p.item[1], 16));
    const dim3 grid(unsigned(ceil_div(c.walk.n, kThreads * kRun)));
    const auto launch = [&](auto kernel) {
      FD_LAUNCH(a, kernel, grid, kThreads, 0, p.data[1], p.data[0], int32_t(p.item[1]), int32_t(p.item[0]), c);
    };
    if (in.dtype == DType::float64)
      launch(cast_kernel<double>);
    else if (is_float(in.dtype))
      launch(cast_kernel<float>);
    else if (in.dtype == DType::uint64)
      launch(cast_kernel<uint64_t>);
    else
      launch(cast_kernel<int64_t>);
  });
}

FD_CUDA_TABLE(cast) = {{}};  // no op of its own: copies come here

}  // namespace fastdl
