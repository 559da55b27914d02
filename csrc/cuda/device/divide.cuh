// Division of element numbers by sizes that are known at launch: a multiplication where the numbers are below 2^31 (walk.cuh).
#pragma once
#include "cuda/device/walk.cuh"

namespace fastdl {
namespace {

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
