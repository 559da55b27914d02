// Numbers in host memory, of any dtype: what a kernel is to be given by value.
#pragma once
#include <algorithm>
#include <cmath>

#include "core/view.h"
#include "math/cast.h"

namespace fastdl {
namespace {

// x, nearest to even, as a float of `digits` mantissa bits whose smallest normal number is 2^lowest, in its sign-exponent-mantissa
// pattern of 16 bits.
inline uint16_t round_to_16_bits(double x, int digits, int lowest) {
  const int bias = 1 - lowest, infinity = (2 * bias + 1) << digits;
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  if (x != x) return uint16_t(sign | infinity | 1 << (digits - 1));
  x = std::fabs(x);
  if (x == 0) return sign;
  const int exponent = x > std::ldexp(1.0, lowest) ? std::min(std::ilogb(x), bias + 1) : lowest;
  const double quanta = std::nearbyint(std::ldexp(x, digits - exponent));  // a carry moves into the exponent as it should
  const double bits = quanta + std::ldexp(double(exponent - lowest), digits);
  return uint16_t(sign | (bits < infinity ? int(bits) : infinity));
}
// and back
inline double from_16_bits(uint16_t bits, int digits, int lowest) {
  const int field = (bits & 0x7fff) >> digits, mantissa = bits & ((1 << digits) - 1), top = 0x7fff >> digits;
  double x = field == 0 ? std::ldexp(mantissa, lowest - digits) : std::ldexp(mantissa + (1 << digits), lowest - digits + field - 1);
  if (field == top) x = mantissa ? double(NAN) : double(INFINITY);
  return bits & 0x8000 ? -x : x;
}

// One element of dtype d at `to` from a number of any type but the 16-bit floats.
template <class From>
void put_number(void* to, DType d, From x) {
  switch (d) {
#define FD_DTYPE(name, type, size, kind, numpy)                            \
  case DType::name:                                                        \
    if constexpr (same_type<type, f16>) {                                  \
      const uint16_t bits = round_to_16_bits(convert<double>(x), 10, -14); \
      memcpy(to, &bits, 2);                                                \
    } else if constexpr (same_type<type, bf16>) {                          \
      const uint16_t bits = round_to_16_bits(convert<double>(x), 7, -126); \
      memcpy(to, &bits, 2);                                                \
    } else {                                                               \
      const type v = convert<type>(x);                                     \
      memcpy(to, &v, sizeof v);                                            \
    }                                                                      \
    break;
#include "dtypes.def"
  }
}

inline double plain_number(f16 x) { return from_16_bits(x.bits, 10, -14); }
inline double plain_number(bf16 x) { return from_16_bits(x.bits, 7, -126); }
template <class T>
T plain_number(T x) {
  return x;
}

}  // namespace
}  // namespace fastdl
