// Division of element numbers by sizes that are known at launch: a multiplication where the numbers are below 2^31 (walk.cuh).
#pragma once
#include "cuda/device/walk.cuh"

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

struct Division {
  int64_t by;
  Divisor fast;
  bool small;

  FD_DEVICE int64_t quotient(int64_t n) const { return small ? int64_t(divide(uint32_t(n), fast)) : n / by; }
  FD_DEVICE int64_t operator()(int64_t n) const { return quotient(n); }
  // n becomes the quotient; returns the remainder
  FD_DEVICE int64_t split(int64_t& n) const {
    const int64_t q = quotient(n), r = n - q * by;
    n = q;
    return r;
  }
};
// For 0 <= n <= greatest; by >= 1.
inline Division division(int64_t by, int64_t greatest) {
  const bool small = greatest < kIndexLimit && by < kIndexLimit;
  return {by, make_divisor(small ? by : 1), small};
}

}  // namespace
}  // namespace fastdl
