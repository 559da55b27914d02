// Interleaving lanes of two vectors, and with it the transpose of a square of vectors held in registers (transpose.h goes from
// memory to memory, and is faster where the rows of the result lie at equal distances).
#pragma once
#include <utility>

#include "cpu/vec/vec.h"

namespace fastdl {
namespace {

// a0 b0 a1 b1 ... from the low halves, or from the high halves.
template <bool high, class T, int... I>
FD_INLINE Vec<T> interleave_lanes(Vec<T> a, Vec<T> b, std::integer_sequence<int, I...>) {
  constexpr int n = Vec<T>::size;
  return Vec<T>(typename Vec<T>::Native(__builtin_shufflevector(a.v, b.v, (I / 2 + (high ? n / 2 : 0) + (I % 2 ? n : 0))...)));
}
template <bool high, class T>
FD_INLINE Vec<T> interleave(Vec<T> a, Vec<T> b) {
  return interleave_lanes<high>(a, b, std::make_integer_sequence<int, Vec<T>::size>());
}

// log2(n) rounds of perfect shuffles: each round interleaves row i with row i + n/2.
template <class T>
FD_INLINE void transpose_rows(Vec<T> (&rows)[Vec<T>::size]) {
  constexpr int n = Vec<T>::size;
#pragma GCC unroll 4
  for (int round = 1; round < n; round *= 2) {
    Vec<T> next[n];
#pragma GCC unroll 8
    for (int i = 0; i < n / 2; i++) {
      next[2 * i] = interleave<false>(rows[i], rows[i + n / 2]);
      next[2 * i + 1] = interleave<true>(rows[i], rows[i + n / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; i++) rows[i] = next[i];
  }
}

}  // namespace
}  // namespace fastdl
