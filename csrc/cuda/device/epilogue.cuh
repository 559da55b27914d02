// What becomes of sums before they are stored: bias, activation, the dtype of the result.
#pragma once
#include "cuda/device/pack.cuh"
#include "cuda/gemm.h"
#include "math/activation.h"

namespace fastdl {
namespace {

template <class T>
struct alignas(8) Pair {
  T a, b;
};
template <class T>
FD_DEVICE void store_8(void* p, Pair<T> x) {
  *static_cast<uint64_t*>(p) = bit_cast<uint64_t>(x);
}

// Element i of memory of any float dtype, as T.
template <class T>
FD_DEVICE T load_float(const void* p, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::float16:
      return T(widen(static_cast<const f16*>(p)[i]));
    case DType::bfloat16:
      return T(widen(static_cast<const bf16*>(p)[i]));
    case DType::float64:
      return T(static_cast<const double*>(p)[i]);
    default:
      return T(static_cast<const float*>(p)[i]);
  }
}
template <class T>
FD_DEVICE void store_float(void* p, DType dtype, int64_t i, T x) {
  switch (dtype) {
    case DType::float16:
      static_cast<f16*>(p)[i] = narrow_f16(x);
      return;
    case DType::bfloat16:
      static_cast<bf16*>(p)[i] = narrow_bf16(x);
      return;
    case DType::float64:
      static_cast<double*>(p)[i] = double(x);
      return;
    default:
      static_cast<float*>(p)[i] = float(x);
  }
}

// Four neighbours of memory, of which `count` exist. vector: the four may be written at once.
template <class T>
FD_DEVICE void store_4(void* p, DType dtype, int64_t i, const T (&v)[4], int count, bool vector) {
  if (vector && count >= 4) {
    if (dtype == DType::float32) {
      const Pack<float> x = {{float(v[0]), float(v[1]), float(v[2]), float(v[3])}};
      return store_16_global(static_cast<float*>(p) + i, x);
    }
    if (dtype == DType::float64) {
      const Pack<double> x = {{double(v[0]), double(v[1])}}, y = {{double(v[2]), double(v[3])}};
      store_16_global(static_cast<double*>(p) + i, x);
      return store_16_global(static_cast<double*>(p) + i + 2, y);
    }
    Pair<uint32_t> x = {};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const uint32_t bits = dtype == DType::bfloat16 ? narrow_bf16(v[j]).bits : narrow_f16(v[j]).bits;
      (j < 2 ? x.a : x.b) |= bits << (j % 2 * 16);
    }
    store_8(static_cast<uint16_t*>(p) + i, x);
    return;
  }
#pragma unroll
  for (int j = 0; j < 4; j++)
    if (j < count) store_float(p, dtype, i + j, v[j]);
}

template <class T>
FD_DEVICE T bias_of(const GemmEpilogue& out, int64_t z, int64_t n) {
  return out.bias ? load_float<T>(out.bias, out.bias_dtype, z * out.bias_z_stride + n) : T(0);
}

template <class T>
FD_DEVICE T activate(T x, int activation) {
  switch (activation) {
    case 1:
      return relu(x);
    case 2:
      return sigmoid(x);
    case 3:
      return tanh(x);
    case 4:
      return gelu(x);
    case 5:
      return silu(x);
    default:
      return x;
  }
}

}  // namespace
}  // namespace fastdl
