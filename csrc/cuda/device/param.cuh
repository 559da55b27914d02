// Parameters of normalisation (weight, running mean ...): they keep their own float dtype, which may differ from that of the
// activations, and may be absent.
#pragma once
#include "cuda/device/pack.cuh"

namespace fastdl {
namespace {

struct Param {
  void* data;  // or null
  DType dtype;
  int64_t stride;

  FD_DEVICE bool given() const { return data != nullptr; }

  template <class W>
  FD_DEVICE W read(int64_t i, W fallback) const {
    if (!data) return fallback;
    i *= stride;
    switch (dtype) {
      case DType::float16:
        return W(widen(static_cast<const f16*>(data)[i]));
      case DType::bfloat16:
        return W(widen(static_cast<const bf16*>(data)[i]));
      case DType::float32:
        return W(static_cast<const float*>(data)[i]);
      default:
        return W(static_cast<const double*>(data)[i]);
    }
  }
  template <class W>
  FD_DEVICE void write(int64_t i, W value) const {
    i *= stride;
    switch (dtype) {
      case DType::float16:
        static_cast<f16*>(data)[i] = narrow_f16(value);
        return;
      case DType::bfloat16:
        static_cast<bf16*>(data)[i] = narrow_bf16(value);
        return;
      case DType::float32:
        static_cast<float*>(data)[i] = float(value);
        return;
      default:
        static_cast<double*>(data)[i] = double(value);
    }
  }
};

inline Param param_of(const View& v) { return {v.given() ? v.data : nullptr, v.dtype, v.ndim > 0 ? v.strides[v.ndim - 1] : 1}; }

}  // namespace
}  // namespace fastdl
