// What layer_norm and batch_norm share: exact moments of a run of elements, and vectors of parameters of any float dtype.
#pragma once
#include "cpu/isa/channels.h"

namespace fastdl {
namespace {

// Parameters (weight, running mean ...) keep their own float dtype, which may differ from that of the activations. `at` counts
// elements from the first.
__attribute__((noinline)) double read_param(const View& v, int64_t at) {
  switch (v.dtype) {
    case DType::float16:
      return double(load_wide_one(v.ptr<f16>() + at));
    case DType::bfloat16:
      return double(load_wide_one(v.ptr<bf16>() + at));
    case DType::float32:
      return double(v.ptr<float>()[at]);
    default:
      return v.ptr<double>()[at];
  }
}
__attribute__((noinline)) void write_param(const View& v, int64_t at, double value) {
  switch (v.dtype) {
    case DType::float16:
      return store_narrow_one(v.ptr<f16>() + at, float(value));
    case DType::bfloat16:
      return store_narrow_one(v.ptr<bf16>() + at, float(value));
    case DType::float32:
      v.ptr<float>()[at] = float(value);
      return;
    default:
      v.ptr<double>()[at] = value;
  }
}

constexpr int64_t kSumBlock = 4096;  // elements summed in the compute type before the sum goes on in double

// Lanes from n on become 0.
template <class V>
FD_INLINE V first_lanes(V v, int n) {
  using I = typename V::Int;
  return select(iota<I>() < Vec<I>(I(n)), v, V(0));
}

// Sum over i < n of f(i, lanes), a vector whose lanes from `lanes` on are 0. Four running vectors inside blocks, double across.
template <class V, class F>
FD_INLINE double blocked_sum(int64_t n, F&& f) {
  double total = 0;
  for (int64_t block = 0; block < n; block += kSumBlock) {
    const int64_t end = min_of(n, block + kSumBlock);
    V s0(0), s1(0), s2(0), s3(0);
    int64_t i = block;
    for (; i + 4 * V::size <= end; i += 4 * V::size) {
      s0 += f(i, V::size);
      s1 += f(i + V::size, V::size);
      s2 += f(i + 2 * V::size, V::size);
      s3 += f(i + 3 * V::size, V::size);
    }
    for (; i + V::size <= end; i += V::size) s0 += f(i, V::size);
    if (i < end) s1 += f(i, int(end - i));
    total += double(reduce_add((s0 + s1) + (s2 + s3)));
  }
  return total;
}

// Mean and sum of squared deviations of x[0..n), n > 0: two passes, and the second corrects what the first lost by rounding. The
// exact mean is center + shift; center is representable, so that x - center has no error for x near it.
template <class W>
struct Moments {
  W center;
  double shift, squares;
};
template <class T>
FD_INLINE Moments<WideOf<T>> moments(const T* x, int64_t n) {
  using W = WideOf<T>;
  using V = Vec<W>;
  const W center = W(blocked_sum<V>(n, [&](int64_t i, int lanes) { return load_n(x + i, lanes); }) / double(n));
  double shift = 0, squares = 0;
  for (int64_t block = 0; block < n; block += kSumBlock) {
    const int64_t end = min_of(n, block + kSumBlock);
    V s0(0), s1(0), q0(0), q1(0), c(center);
    int64_t i = block;
    for (; i + 2 * V::size <= end; i += 2 * V::size) {
      const V a = load_wide(x + i) - c, b = load_wide(x + i + V::size) - c;
      s0 += a, s1 += b;
      q0 = fma(a, a, q0), q1 = fma(b, b, q1);
    }
    for (; i < end; i += V::size) {
      const int lanes = int(min_of<int64_t>(V::size, end - i));
      const V a = first_lanes(load_wide_partial(x + i, lanes) - c, lanes);
      s0 += a, q0 = fma(a, a, q0);
    }
    shift += double(reduce_add(s0 + s1)), squares += double(reduce_add(q0 + q1));
  }
  shift /= double(n);
  squares -= shift * shift * double(n);
  return {center, shift, squares < 0 ? 0 : squares};  // NaN stays NaN
}

FD_INLINE double inverse_std(double variance, double eps) { return 1 / __builtin_sqrt(variance + eps); }

}  // namespace
}  // namespace fastdl
