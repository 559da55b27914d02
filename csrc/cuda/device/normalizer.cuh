// The maximum of some numbers and the sum of their exponentials, found together: softmax and cross-entropy. M. Milakov, N.
// Gimelshein, "Online normalizer calculation for softmax" (2018): when the maximum grows, the sum so far is rescaled.
#pragma once
#include "cuda/device/row.cuh"
#include "math/exp.h"

namespace fastdl {
namespace {

// The maximum and the sum of exp(x - maximum) of some elements. Starts at the lowest finite number, as -inf - -inf would be NaN.
template <class W>
struct Normalizer {
  W maximum, sum;
};
template <class W>
FD_DEVICE Normalizer<W> no_elements() {
  return {sizeof(W) == 4 ? W(-3.40282347e+38) : W(-1.7976931348623157e+308), W(0)};
}
template <class W, int count>
FD_DEVICE void add_elements(Normalizer<W>& to, const W (&x)[count]) {
  W m = to.maximum;
#pragma unroll
  for (int k = 0; k < count; k++) m = max(m, x[k]);
  W s = to.sum * exp_negative(to.maximum - m);
#pragma unroll
  for (int k = 0; k < count; k++) s += exp_negative(x[k] - m);
  to = {m, s};
}
struct JoinOp {
  template <class N>
  static FD_DEVICE N of(N a, N b) {
    const auto m = max(a.maximum, b.maximum);
    return {m, a.sum * exp_negative(a.maximum - m) + b.sum * exp_negative(b.maximum - m)};
  }
  template <class N>
  static FD_DEVICE N identity() {
    return no_elements<decltype(N::sum)>();
  }
};

// Of a row, by its group; storage as for group_reduce. Loads run ahead of their use by a few packs.
template <class T, int width, class Index>
FD_DEVICE Normalizer<WideOf<T>> row_normalizer(const RowLayout<T, Index>& layout, const T* x, Convert<T> as,
                                               Normalizer<WideOf<T>>* storage) {
  using W = WideOf<T>;
  constexpr int ahead = 4;
  const T none = as.narrow(W(-__builtin_huge_val()));
  Normalizer<W> all = no_elements<W>();
  for (Index p = 0; layout.has_pack(p); p += ahead) {
    Pack<T> pack[ahead];
#pragma unroll
    for (int j = 0; j < ahead; j++) pack[j] = layout.load(x, p + j, none);
#pragma unroll
    for (int j = 0; j < ahead; j++) {
      if (!layout.has_pack(p + j)) break;
      W v[kPack<T>];
#pragma unroll
      for (int k = 0; k < kPack<T>; k++) v[k] = as.wide(pack[j].v[k]);
      add_elements(all, v);
    }
  }
  return group_reduce<JoinOp, width>(all, storage);
}

}  // namespace
}  // namespace fastdl
