// Loops over n contiguous elements of any float type: one body serves whole vectors and the rest at the end.
#pragma once
#include "cpu/isa/kernel.h"
#include "cpu/vec/convert.h"

namespace fastdl {
namespace {

struct Whole {};  // a whole vector
struct Part {
  int count;
};  // only so many lanes of it

template <class T>
FD_INLINE Vec<WideOf<T>> get(const T* p, Whole) {
  return load_wide(p);
}
template <class T>
FD_INLINE Vec<WideOf<T>> get(const T* p, Part k) {
  return load_wide_partial(p, k.count);
}
template <class T>
FD_INLINE void set(T* p, Vec<WideOf<T>> a, Whole) {
  store_narrow(p, a);
}
template <class T>
FD_INLINE void set(T* p, Vec<WideOf<T>> a, Part k) {
  store_narrow_partial(p, a, k.count);
}

// body(i, Whole or Part) for the vectors of a row.
template <class W, class F>
FD_INLINE void for_vectors(int64_t n, F&& body) {
  constexpr int S = Vec<W>::size;
  int64_t i = 0;
  for (; i + S <= n; i += S) body(i, Whole{});
  if (i < n) body(i, Part{int(n - i)});
}

}  // namespace
}  // namespace fastdl
