// Philox4x32-10, a counter-based random generator (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011). block(counter, key) gives four 32-bit words; no state, so any element of a stream is computed alone, by any thread, on any
// device. This is the reference for one counter; kernels hold a vector of counters and follow the same ten rounds.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#define FD_PHILOX_FN __host__ __device__ inline
#else
#define FD_PHILOX_FN inline
#endif

namespace fastdl {
namespace {

constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;  // round multipliers
constexpr uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;  // key increments: golden ratio, sqrt(3) - 1

struct PhiloxBlock {
  uint32_t w[4];
};

// counter words 0, 1 = counter_lo, words 2, 3 = counter_hi (low half first); key words likewise.
FD_PHILOX_FN PhiloxBlock philox4x32(uint64_t counter_hi, uint64_t counter_lo, uint64_t key) {
  uint32_t c0 = uint32_t(counter_lo), c1 = uint32_t(counter_lo >> 32), c2 = uint32_t(counter_hi), c3 = uint32_t(counter_hi >> 32);
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = uint64_t(kPhiloxM0) * c0, p1 = uint64_t(kPhiloxM1) * c2;
    c0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
    c1 = uint32_t(p1);
    c2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c3 = uint32_t(p0);
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace
}  // namespace fastdl
