// Rows of contiguous elements in the registers of a group of threads (a warp, part of one, or a block): softmax, cross-entropy and
// layer_norm read a row once.
#pragma once
#include "cuda/device/pack.cuh"
#include "cuda/device/reduce.cuh"

namespace fastdl {
namespace {

// How `threads` threads share a row of n elements, in packs. vectors: pack p of thread t is 16 bytes of memory, number
// p * threads + t (all rows start at a multiple of 16 bytes and n is a multiple of kPack). Else neighbouring threads read
// neighbouring elements one by one, and element k of a pack lies `threads` behind element k - 1.
// Index: int for rows in registers, int64_t for rows of any length.
template <class T, class Index = int64_t>
struct RowLayout {
  Index n;
  int threads, thread;
  bool vectors;

  FD_DEVICE Index at(Index p, int k) const {
    return vectors ? (p * threads + thread) * kPack<T> + k : (p * kPack<T> + k) * threads + thread;
  }
  FD_DEVICE bool holds(Index p, int k) const { return at(p, k) < n; }
  FD_DEVICE bool has_pack(Index p) const { return p * threads * kPack<T> < n; }  // the group, not just this thread

  // Elements past the end of the row are `rest`.
  FD_DEVICE Pack<T> load(const T* row, Index p, T rest) const {
    Pack<T> r;
    if (vectors) {
      const Index first = at(p, 0);
      if (first < n) return load_16<Pack<T>>(row + first);
#pragma unroll
      for (int k = 0; k < kPack<T>; k++) r.v[k] = rest;
    } else {
#pragma unroll
      for (int k = 0; k < kPack<T>; k++) r.v[k] = holds(p, k) ? row[at(p, k)] : rest;
    }
    return r;
  }
  FD_DEVICE void store(T* row, Index p, const Pack<T>& x) const {
    if (vectors) {
      const Index first = at(p, 0);
      if (first < n) store_16_global(row + first, x);
    } else {
#pragma unroll
      for (int k = 0; k < kPack<T>; k++)
        if (holds(p, k)) row[at(p, k)] = x.v[k];
    }
  }
};

// Whether rows of n elements at p can be moved 16 bytes at a time.
template <class T>
bool row_vectors(const void* p, int64_t n) {
  return is_aligned(p) && n % kPack<T> == 0;
}

// The group of a row: `width` lanes of a block of kRowThreads threads, or where width is 0 the whole block.
constexpr int kRowThreads = 128;
constexpr int kBlockThreads = 512;  // at most, where the block keeps a row in registers

// The row of this thread's group.
template <int width>
FD_DEVICE int64_t row_of_group() {
  if constexpr (width == 0)
    return blockIdx.x;
  else
    return blockIdx.x * int64_t(kRowThreads / width) + threadIdx.x / width;
}
template <class T, int width, class Index = int64_t>
FD_DEVICE RowLayout<T, Index> layout_of_group(int64_t n, bool vectors) {
  if constexpr (width == 0)
    return {Index(n), int(blockDim.x), int(threadIdx.x), vectors};
  else
    return {Index(n), width, int(threadIdx.x % width), vectors};
}

template <class V>
struct RowStorage {
  V values[kWarp];
};

// Reduces over the group of a row; storage: 32 values of shared memory, or null where width is not 0.
template <class Op, int width, class V>
FD_DEVICE V group_reduce(V v, V* storage) {
  if constexpr (width == 0)
    return block_reduce<Op>(v, storage);
  else
    return warp_reduce<Op, width>(v);
}

// A number as a type, for launches of a kernel among several: launch(Constant<8>()) and in it (kernel<T, width.value>).
template <int n>
struct Constant {
  static constexpr int value = n;
};

// A block of how many threads holds a row of n elements at `packs` packs each: 64 to 1024.
template <class T>
int row_threads(int64_t n, int packs) {
  int threads = 64;
  while (threads < 1024 && int64_t(threads) * packs * kPack<T> < n) threads *= 2;
  return threads;
}

}  // namespace
}  // namespace fastdl
