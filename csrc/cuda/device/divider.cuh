// Division of 31-bit numbers by a divisor that the host knows.
#pragma once
#include "cuda/device/device.h"

namespace fastdl {

// A divisor that the host knows, as one multiplication and a shift: n / d = floor(n m / 2^p) with p = 31 + ceil(log2 d) and
// m = ceil(2^p / d) (Granlund & Montgomery, Division by Invariant Integers using Multiplication, 1994).
struct Divider {
  uint32_t divisor, multiplier, shift;
};

namespace {

// 1 <= d < 2^31
inline Divider make_divider(int64_t d) {
  uint32_t log = 0;
  while ((int64_t(1) << log) < d) log++;
  const uint64_t power = uint64_t(1) << (31 + log);
  return {uint32_t(d), d == 1 ? 0u : uint32_t((power + uint64_t(d) - 1) / uint64_t(d)), d == 1 ? 0u : log - 1};
}

// 0 <= n < 2^31
FD_DEVICE int32_t divide(int32_t n, Divider d) {
  const uint32_t high = uint32_t((uint64_t(uint32_t(n)) * d.multiplier) >> 32);
  return d.divisor == 1 ? n : int32_t(high >> d.shift);
}
FD_DEVICE int32_t divide(int32_t n, Divider d, int32_t& remainder) {
  const int32_t q = divide(n, d);
  remainder = n - q * int32_t(d.divisor);
  return q;
}

}  // namespace
}  // namespace fastdl
