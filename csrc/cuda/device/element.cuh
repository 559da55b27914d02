// Elements of any real dtype as numbers that kernels compute with: float (for the 16-bit floats too), double, int64 or uint64. The
// dtype is an argument, the same for all threads: one kernel serves many.
#pragma once
#include "cuda/device/walk.cuh"
#include "math/cast.h"

namespace fastdl {
namespace {

template <class S, class C, int n>
FD_DEVICE void load_as(const char* p, C (&v)[n]) {
  S s[n];
  if constexpr (n == 1)
    s[0] = *reinterpret_cast<const S*>(p);
  else
    load_run(p, s);
#pragma unroll
  for (int i = 0; i < n; i++) {
    if constexpr (is_16bit_float<S>)
      v[i] = widen(s[i]);
    else
      v[i] = C(s[i]);
  }
}
template <class C, int n>
FD_DEVICE void load_bools(const char* p, C (&v)[n]) {
  load_as<uint8_t>(p, v);
#pragma unroll
  for (int i = 0; i < n; i++) v[i] = C(v[i] != C(0));
}
// The dtypes that load_elements<C> knows.
template <class C>
constexpr DTypeMask kLoadable = same_type<C, float>    ? kF32ish | kMaskBool
                                : same_type<C, double> ? kF64
                                                       : kMaskInt | kMaskBool;
// n elements that lie together at p, aligned as load_run says.
template <class C, int n>
FD_DEVICE void load_elements(const char* p, DType d, C (&v)[n]) {
  if constexpr (same_type<C, double>) {
    load_as<double>(p, v);
  } else if constexpr (same_type<C, float>) {
    if (d == DType::float32)
      load_as<float>(p, v);
    else if (d == DType::float16)
      load_as<f16>(p, v);
    else if (d == DType::bfloat16)
      load_as<bf16>(p, v);
    else
      load_bools(p, v);
  } else {
    switch (d) {
      case DType::bool_:
        return load_bools(p, v);
      case DType::uint8:
        return load_as<uint8_t>(p, v);
      case DType::int8:
        return load_as<int8_t>(p, v);
      case DType::uint16:
        return load_as<uint16_t>(p, v);
      case DType::int16:
        return load_as<int16_t>(p, v);
      case DType::uint32:
        return load_as<uint32_t>(p, v);
      case DType::int32:
        return load_as<int32_t>(p, v);
      default:
        return load_as<int64_t>(p, v);
    }
  }
}

// The dtypes of results: floats as they are loaded; integers by size, whatever their sign; bool for results of type bool.
template <class R>
constexpr DTypeMask kStorable = same_type<R, float>    ? kF32ish
                                : same_type<R, double> ? kF64
                                : same_type<R, bool>   ? kMaskBool
                                                       : kMaskInt | kMaskBool;
template <class To, class R, int n>
FD_DEVICE void store_as(char* p, const R (&v)[n]) {
  To t[n];
#pragma unroll
  for (int i = 0; i < n; i++) {
    if constexpr (same_type<To, f16>)
      t[i] = narrow_f16(v[i]);
    else if constexpr (same_type<To, bf16>)
      t[i] = narrow_bf16(v[i]);
    else
      t[i] = To(v[i]);
  }
  if constexpr (n == 1)
    *reinterpret_cast<To*>(p) = t[0];
  else
    store_run(p, t);
}
template <class R, int n>
FD_DEVICE void store_elements(char* p, DType d, const R (&v)[n]) {
  if constexpr (same_type<R, bool>) {
    store_as<uint8_t>(p, v);
  } else if constexpr (same_type<R, double>) {
    store_as<double>(p, v);
  } else if constexpr (same_type<R, float>) {
    if (d == DType::float32)
      store_as<float>(p, v);
    else if (d == DType::float16)
      store_as<f16>(p, v);
    else
      store_as<bf16>(p, v);
  } else {
    switch (d) {
      case DType::bool_:
      case DType::uint8:
      case DType::int8:
        return store_as<uint8_t>(p, v);
      case DType::uint16:
      case DType::int16:
        return store_as<uint16_t>(p, v);
      case DType::uint32:
      case DType::int32:
        return store_as<uint32_t>(p, v);
      default:
        return store_as<uint64_t>(p, v);
    }
  }
}

}  // namespace
}  // namespace fastdl
