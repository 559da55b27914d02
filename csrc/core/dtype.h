// DType: the element types of tensors, their sizes, kinds and promotion.
#pragma once
#include <cstdint>

namespace fastdl {

// Storage-only 16-bit floats; kernels widen them to float (cpu/vec/convert.h).
struct f16 { uint16_t bits; };
struct bf16 { uint16_t bits; };
struct c64 { float re, im; };
struct c128 { double re, im; };

enum class DType : uint8_t {
#define FD_DTYPE(name, ...) name,
#include "../dtypes.def"
};
constexpr int kNumDTypes = 0
#define FD_DTYPE(...) +1
#include "../dtypes.def"
    ;

struct DTypeInfo {
  const char* name;
  uint8_t bytes;
  char kind;
};
constexpr DTypeInfo kDTypeInfo[] = {
#define FD_DTYPE(name, type, bytes, kind, numpy) {numpy, bytes, kind},
#include "../dtypes.def"
};

constexpr int64_t itemsize(DType d) { return kDTypeInfo[int(d)].bytes; }
constexpr char kind(DType d) { return kDTypeInfo[int(d)].kind; }
constexpr const char* dtype_name(DType d) { return kDTypeInfo[int(d)].name; }
constexpr bool is_float(DType d) { return kind(d) == 'f'; }
constexpr bool is_complex(DType d) { return kind(d) == 'c'; }
constexpr bool is_integer(DType d) { return kind(d) == 'i' || kind(d) == 'u'; }
constexpr bool is_differentiable(DType d) { return is_float(d) || is_complex(d); }

template <class T>
constexpr DType dtype_of();
#define FD_DTYPE(name, type, ...) \
  template <>                     \
  constexpr DType dtype_of<type>() { return DType::name; }
#include "../dtypes.def"

using DTypeMask = uint32_t;
constexpr DTypeMask mask_of(DType d) { return DTypeMask(1) << int(d); }

// Smallest dtype that holds both, as numpy.result_type of NumPy 2; bfloat16 ranks beside float16.
DType promote(DType a, DType b);
// float dtype that an integer or bool becomes in exp, sqrt, divide, mean ... (NumPy's choice by size).
DType float_of(DType d);

}  // namespace fastdl
