// Reductions over the lanes of a warp and the threads of a block, shared by all kernels that sum, compare or merge.
//
// An operation is a struct with `of(a, b)` and `identity<T>()`. Values may be numbers of 4 or 8 bytes or structs of 4-byte words.
// The order of combination is fixed and every thread gets the same bits: lanes are combined in a butterfly (lane l with l ^ 16,
// l ^ 8 ... l ^ 1), the lower one on the left, then warps the same way by every warp for itself.
#pragma once
#include <type_traits>

#include "cuda/device/device.h"

namespace fastdl {
namespace {

template <class T>
constexpr bool kIsWhole = T(0.5) == T(0);
template <class T>
FD_HOST_DEVICE constexpr T lowest_of() {
  if constexpr (kIsWhole<T>)
    return T(-1) < T(0) ? T(uint64_t(1) << (8 * sizeof(T) - 1)) : T(0);
  else
    return T(-__builtin_huge_val());
}
template <class T>
FD_HOST_DEVICE constexpr T highest_of() {
  if constexpr (kIsWhole<T>)
    return T(~lowest_of<T>());
  else
    return T(__builtin_huge_val());
}

// ---- operations ------------------------------------------------------------------------------------------------------------
struct SumOp {
  template <class T>
  static FD_DEVICE T of(T a, T b) {
    if constexpr (kIsWhole<T>)
      return T(uint64_t(a) + uint64_t(b));  // wraps
    else
      return a + b;
  }
  template <class T>
  static FD_DEVICE T identity() {
    return T(0);
  }
};
struct ProductOp {
  template <class T>
  static FD_DEVICE T of(T a, T b) {
    if constexpr (kIsWhole<T>)
      return T(uint64_t(a) * uint64_t(b));
    else
      return a * b;
  }
  template <class T>
  static FD_DEVICE T identity() {
    return T(1);
  }
};
struct MaxOp {  // NaN on either side wins
  template <class T>
  static FD_DEVICE T of(T a, T b) {
    return a > b || a != a ? a : b;
  }
  template <class T>
  static FD_DEVICE T identity() {
    return lowest_of<T>();
  }
};
struct MinOp {
  template <class T>
  static FD_DEVICE T of(T a, T b) {
    return a < b || a != a ? a : b;
  }
  template <class T>
  static FD_DEVICE T identity() {
    return highest_of<T>();
  }
};

// Mean and sum of squared distances from it, of `count` numbers. T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise
// algorithm for computing sample variances" (1979); add() is Welford's update.
template <class T>
struct Moments {
  T mean, m2, count;

  FD_DEVICE void add(T x) {
    count += T(1);
    const T d = x - mean;
    mean += d / count;
    m2 += d * (x - mean);
  }
};
struct MomentsOp {
  template <class M>
  static FD_DEVICE M of(M a, M b) {
    using T = decltype(M::count);
    const T n = a.count + b.count, share = n > T(0) ? b.count / n : T(0), d = b.mean - a.mean;
    if (b.count == T(0)) return a;  // its mean may be anything
    if (a.count == T(0)) return b;
    return M{a.mean + d * share, a.m2 + b.m2 + d * d * (share * a.count), n};
  }
  template <class M>
  static FD_DEVICE M identity() {
    return M{0, 0, 0};
  }
};

// ---- warps and blocks ---------------------------------------------------------------------------------------------------------
// shuffle_xor for values of any number of words.
template <class T>
FD_DEVICE T exchange(T v, int lane_mask) {
  if constexpr (std::is_arithmetic_v<T>) {
    return shuffle_xor(v, lane_mask);
  } else {
    static_assert(sizeof(T) % 4 == 0, "whole words");
    uint32_t words[sizeof(T) / 4];
    memcpy(words, &v, sizeof v);
#pragma unroll
    for (int i = 0; i < int(sizeof(T) / 4); i++) words[i] = shuffle_xor(words[i], lane_mask);
    memcpy(&v, words, sizeof v);
    return v;
  }
}

// Over groups of `width` neighbouring lanes (a power of two). All lanes of the warp take part.
template <class Op, int width = kWarp, class T>
FD_DEVICE T warp_reduce(T v) {
#pragma unroll
  for (int m = width / 2; m > 0; m /= 2) {
    const T other = exchange(v, m);
    const bool upper = threadIdx.x & m;
    v = upper ? Op::of(other, v) : Op::of(v, other);
  }
  return v;
}

// Over the block: blockDim.x threads, a multiple of 32, in one dimension. `storage`: 32 values in shared memory, free to be used
// again as soon as the call returns.
template <class Op, class T>
FD_DEVICE T block_reduce(T v, T* storage) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  v = warp_reduce<Op>(v);
  if (warps == 1) return v;
  if (lane == 0) storage[warp] = v;
  sync_block();
  v = lane < warps ? storage[lane] : Op::template identity<T>();
  sync_block();
  return warp_reduce<Op>(v);
}

}  // namespace
}  // namespace fastdl
