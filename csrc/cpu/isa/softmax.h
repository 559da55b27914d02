// Sums and maxima of a row of n contiguous elements, for softmax and cross-entropy.
#pragma once
#include "core/partition.h"
#include "cpu/isa/lines.h"
#include "cpu/tune.h"
#include "math/exp.h"
#include "math/log.h"

namespace fastdl {
namespace {

// Joins term(i, Whole or Part) over the vectors of a row, four at a time; `none` stands in for lanes past the end.
template <class W, class Term, class Join>
FD_INLINE Vec<W> join_vectors(int64_t n, W none, Term&& term, Join&& join) {
  using V = Vec<W>;
  using I = typename Lane<W>::Int;
  constexpr int S = V::size;
  V a(none);
  int64_t i = 0;
  if (n >= 4 * S) {
    V b = a, c = a, d = a;
    for (; i + 4 * S <= n; i += 4 * S) {
      a = join(a, term(i, Whole{})), b = join(b, term(i + S, Whole{}));
      c = join(c, term(i + 2 * S, Whole{})), d = join(d, term(i + 3 * S, Whole{}));
    }
    a = join(join(a, b), join(c, d));
  }
  for (; i + S <= n; i += S) a = join(a, term(i, Whole{}));
  if (i < n) a = join(a, select(iota<I>() < Vec<I>(I(n - i)), term(i, Part{int(n - i)}), V(none)));
  return a;
}

constexpr auto kAdd = [](auto a, auto b) { return a + b; };

// The maximum; a row with NaN may give any number, the sum of exponentials is NaN then anyway.
template <class T>
FD_INLINE WideOf<T> row_max(const T* x, int64_t n) {
  using W = WideOf<T>;
  return reduce_max(
      join_vectors<W>(n, -kInf<W>, [&](int64_t i, auto k) { return get(x + i, k); }, [](Vec<W> a, Vec<W> b) { return max(a, b); }));
}
// What to fetch while a row of n elements is worked on: the row `rows` further on, unless rows are so long that it would push out
// the one that is read again.
template <class T>
FD_INLINE const T* row_to_fetch(const T* x, int64_t n, int64_t rows = 1) {
  return n * int64_t(sizeof(T)) <= kSoftmaxFetchBytes ? x + rows * n : x;
}
// Sum of exp(x - m). Meanwhile the row at `next` is fetched.
template <class T>
FD_INLINE WideOf<T> row_sum_exp(const T* x, int64_t n, WideOf<T> m, const T* next) {
  using W = WideOf<T>;
  const auto term = [&](int64_t i, auto k) {
    __builtin_prefetch(next + i);
    return exp_negative(get(x + i, k) - Vec<W>(m));
  };
  return reduce_add(join_vectors<W>(n, W(0), term, kAdd));
}
template <class W>
FD_INLINE W log_of(W x) {
  return log(Vec<W>(x))[0];
}

constexpr int64_t kSoftmaxGrain = 16384;  // elements per chunk, ...
constexpr int64_t kSoftmaxLeast = 2048;   // ... and for many threads

}  // namespace
}  // namespace fastdl
