// Division of numbers below 2^31 by a divisor that the host knows, as a multiplication and a shift (T. Granlund, P. Montgomery,
// "Division by invariant integers using multiplication", 1994).
#pragma once
#include "cuda/device/device.h"

namespace fastdl {

struct Divisor {
  uint32_t value, multiplier, shift;
};

namespace {

inline Divisor make_divisor(int64_t d) {  // d < 2^31; 0 counts as 1
  if (d < 1) d = 1;
  uint32_t shift = 0;
  while ((int64_t(1) << shift) < d) shift++;
  return {uint32_t(d), uint32_t((uint64_t(1) << 32) * ((uint64_t(1) << shift) - uint64_t(d)) / uint64_t(d) + 1), shift};
}
FD_HOST_DEVICE uint32_t divide(uint32_t n, const Divisor& d) { return (uint32_t(uint64_t(n) * d.multiplier >> 32) + n) >> d.shift; }
FD_HOST_DEVICE int32_t divide(int32_t n, const Divisor& d, int32_t& remainder) {
  const int32_t q = int32_t(divide(uint32_t(n), d));
  remainder = n - q * int32_t(d.value);
  return q;
}

}  // namespace
}  // namespace fastdl
