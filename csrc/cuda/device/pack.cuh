// Packs: the 16 bytes that a thread moves at a time, as 2 to 16 elements, and the element's compute type. Kernels that stream
// through arrays load a pack, widen, compute, narrow, store; where memory is not aligned to 16 bytes, or a row ends, elements go
// one by one.
#pragma once
#include <type_traits>

#include "cuda/kernel.h"

namespace fastdl {
namespace {

// The type to compute in: float for the 16-bit floats, else the type itself.
template <class T>
struct WideType {
  using Type = T;
};
template <>
struct WideType<f16> {
  using Type = float;
};
template <>
struct WideType<bf16> {
  using Type = float;
};
template <class T>
using WideOf = typename WideType<T>::Type;

template <class T>
constexpr DType kDType = dtype_of<T>();

template <class T>
FD_DEVICE WideOf<T> wide(T x) {
  if constexpr (sizeof(T) == 2)
    return widen(x);
  else
    return x;
}
template <class T>
FD_DEVICE T narrow(WideOf<T> x) {
  if constexpr (kDType<T> == DType::float16)
    return narrow_f16(x);
  else if constexpr (kDType<T> == DType::bfloat16)
    return narrow_bf16(x);
  else
    return x;
}

// Storage of float16 or bfloat16, told apart at run time, so that a memory-bound kernel is compiled once for both. Convert<T> knows
// how to read and write one element of T: float, double, Half, or any type that is its own.
struct Half {
  uint16_t bits;
};
template <>
struct WideType<Half> {
  using Type = float;
};
template <class T>
struct Convert {
  using Type = T;
  bool bfloat;

  FD_DEVICE WideOf<T> wide(T x) const {
    if constexpr (std::is_same_v<T, Half>)
      return bfloat ? widen(bf16{x.bits}) : widen(f16{x.bits});
    else
      return x;
  }
  FD_DEVICE T narrow(WideOf<T> x) const {
    if constexpr (std::is_same_v<T, Half>)
      return bfloat ? T{narrow_bf16(x).bits} : T{narrow_f16(x).bits};
    else
      return x;
  }
};
// f(Convert<T>) for a float dtype.
template <class F>
void by_float(DType d, const F& f) {
  if (d == DType::float32)
    f(Convert<float>{false});
  else if (d == DType::float64)
    f(Convert<double>{false});
  else
    f(Convert<Half>{d == DType::bfloat16});
}

template <class T>
constexpr int kPack = 16 / int(sizeof(T));

template <class T>
struct alignas(16) Pack {
  T v[kPack<T>];
};

// V elements that lie one behind the other, at a multiple of their size (of 16 bytes, if that is less).
template <class T, int V>
struct alignas(V * sizeof(T) < 16 ? V * sizeof(T) : 16) Cell {
  T v[V];
};
template <int V, class T>
FD_DEVICE Cell<T, V> load_cell(const T* p) {
  constexpr int bytes = V * int(sizeof(T));
  Cell<T, V> r;
  if constexpr (bytes == 16) {
    r = load_16<Cell<T, V>>(p);
  } else if constexpr (bytes > 16) {
    static_assert(bytes % 16 == 0, "whole packs");
#pragma unroll
    for (int i = 0; i < V; i += kPack<T>) {
      const Pack<T> pack = load_16<Pack<T>>(p + i);
#pragma unroll
      for (int k = 0; k < kPack<T>; k++) r.v[i + k] = pack.v[k];
    }
  } else if constexpr (V == 1) {
    r.v[0] = *p;
  } else {
    using Word = std::conditional_t<bytes == 8, uint64_t, std::conditional_t<bytes == 4, uint32_t, uint16_t>>;
    static_assert(sizeof(Word) == bytes, "2, 4 or 8 bytes");
    const Word word = *reinterpret_cast<const Word*>(p);
    memcpy(&r, &word, bytes);
  }
  return r;
}
template <int V, class T>
FD_DEVICE void store_cell(T* p, const Cell<T, V>& x) {
  constexpr int bytes = V * int(sizeof(T));
  if constexpr (bytes == 16) {
    store_16_global(p, x);
  } else if constexpr (bytes > 16) {
#pragma unroll
    for (int i = 0; i < V; i += kPack<T>) {
      Pack<T> pack;
#pragma unroll
      for (int k = 0; k < kPack<T>; k++) pack.v[k] = x.v[i + k];
      store_16_global(p + i, pack);
    }
  } else if constexpr (V == 1) {
    *p = x.v[0];
  } else {
    using Word = std::conditional_t<bytes == 8, uint64_t, std::conditional_t<bytes == 4, uint32_t, uint16_t>>;
    Word word;
    memcpy(&word, &x, bytes);
    *reinterpret_cast<Word*>(p) = word;
  }
}

inline bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// run(V as an integral constant): a pack if `packs`, else 1.
template <class T, class F>
void by_packs(bool packs, const F& run) {
  if (packs)
    run(std::integral_constant<int, kPack<T>>());
  else
    run(std::integral_constant<int, 1>());
}

// The pack at p, of which `count` elements exist (more than kPack: all); the others are `rest`. Whole packs: p is aligned.
template <class T>
FD_DEVICE Pack<T> load_pack(const T* p, int64_t count, bool aligned, T rest = T{}) {
  if (aligned && count >= kPack<T>) return load_16<Pack<T>>(p);
  Pack<T> r;
#pragma unroll
  for (int k = 0; k < kPack<T>; k++) r.v[k] = k < count ? p[k] : rest;
  return r;
}
template <class T>
FD_DEVICE void store_pack(T* p, const Pack<T>& x, int64_t count, bool aligned) {
  if (aligned && count >= kPack<T>) return store_16_global(p, x);
#pragma unroll
  for (int k = 0; k < kPack<T>; k++)
    if (k < count) p[k] = x.v[k];
}

// The grid of a grid-stride loop over `items` threads' worth of work: enough blocks of `threads` to fill the device.
inline uint32_t stride_grid(const DeviceContext* device, int64_t items, int threads) {
  const int64_t blocks = (items + threads - 1) / threads, resident = int64_t(device->multiprocessors) * (2048 / threads);
  return uint32_t(blocks < resident ? blocks : resident);
}

}  // namespace
}  // namespace fastdl
