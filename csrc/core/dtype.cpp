// Promotion by rule instead of a 15 x 15 table: kind decides first (bool < integers < floats < complex), then size.
#include "dtype.h"

namespace fastdl {
namespace {

// The smallest float that holds both; float16 and bfloat16 hold different numbers, so together they need float32.
DType promote_floats(DType a, DType b) {
  if (a == b) return a;
  return a == DType::float64 || b == DType::float64 ? DType::float64 : DType::float32;
}

DType component(DType d) {  // the float that a value of dtype d has as its real part
  if (d == DType::complex64) return DType::float32;
  if (d == DType::complex128) return DType::float64;
  return float_of(d);
}

DType promote_integers(DType a, DType b) {
  const bool same_kind = kind(a) == kind(b);
  if (same_kind) return itemsize(a) >= itemsize(b) ? a : b;
  const DType s = kind(a) == 'i' ? a : b, u = kind(a) == 'i' ? b : a;
  if (itemsize(s) > itemsize(u)) return s;
  switch (itemsize(u)) {  // a signed integer twice as wide holds both
    case 1:
      return DType::int16;
    case 2:
      return DType::int32;
    case 4:
      return DType::int64;
    default:
      return DType::float64;
  }
}

}  // namespace

DType float_of(DType d) {
  if (is_differentiable(d)) return d;
  switch (itemsize(d)) {
    case 1:
      return DType::float16;
    case 2:
      return DType::float32;
    default:
      return DType::float64;
  }
}

DType promote(DType a, DType b) {
  if (a == b || b == DType::bool_) return a;
  if (a == DType::bool_) return b;
  if (is_complex(a) || is_complex(b))
    return promote_floats(component(a), component(b)) == DType::float64 ? DType::complex128 : DType::complex64;
  if (is_integer(a) && is_integer(b)) return promote_integers(a, b);
  // bfloat16 beside 8-bit integers stays bfloat16, as float16 does; float_of would say float16 there
  if (a == DType::bfloat16 && itemsize(b) == 1) return a;
  if (b == DType::bfloat16 && itemsize(a) == 1) return b;
  return promote_floats(float_of(a), float_of(b));
}

}  // namespace fastdl
