// Loops over the channels of channels-last memory, in vectors; shared by pooling and normalisation.
#pragma once
#include "cpu/isa/past_caches.h"

namespace fastdl {
namespace {

// Calls f(first channel, lanes, vectors) over c channels: 4 full vectors at a time, then 2, then 1, then a partial one. `vectors`
// is an integral constant; lanes == size except for the last call.
template <int n>
struct Count {
  static constexpr int value = n;
};
template <int size, class F>
FD_INLINE void for_channels(int64_t c, F&& f) {
  int64_t i = 0;
  for (; i + 4 * size <= c; i += 4 * size) f(i, size, Count<4>());
  if (i + 2 * size <= c) f(i, size, Count<2>()), i += 2 * size;
  if (i + size <= c) f(i, size, Count<1>()), i += size;
  if (i < c) f(i, int(c - i), Count<1>());
}

// Likewise for loads, see store_n.
template <class T>
FD_INLINE Vec<WideOf<T>> load_n(const T* p, int n) {
  return n == Vec<WideOf<T>>::size ? load_wide(p) : load_wide_partial(p, n);
}

template <class I>
FD_INLINE Vec<I> load_bytes_n(const uint8_t* p, int n) {
  return n == Vec<I>::size ? load_bytes<I>(p) : load_bytes_partial<I>(p, n);
}
template <class I>
FD_INLINE void store_bytes_n(uint8_t* p, Vec<I> a, int n) {
  if (n == Vec<I>::size)
    store_bytes(p, a);
  else
    store_bytes_partial(p, a, n);
}

// Rows per task, so that a task touches some 32 K elements.
constexpr int64_t kRowPiece = 32768;
inline int64_t row_grain(int64_t work_per_row) { return max_of<int64_t>(1, kRowPiece / max_of<int64_t>(1, work_per_row)); }

}  // namespace
}  // namespace fastdl
