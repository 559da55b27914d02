// Matrix products of integers (exact, wrapping as NumPy) and complex numbers: cache blocks and a loop the compiler vectorises.
#pragma once
#include "cpu/isa/gemv.h"

namespace fastdl {
namespace {

// c += a * b. Integers come as the unsigned type of their size; 32 bits and fewer multiply as uint32_t, as uint16_t would promote
// to int and overflow.
template <class T>
FD_INLINE T multiply_add(T c, T a, T b) {
  if constexpr (sizeof(T) == 8)
    return c + a * b;
  else
    return T(uint32_t(c) + uint32_t(a) * uint32_t(b));
}
FD_INLINE c64 multiply_add(c64 c, c64 a, c64 b) { return {c.re + (a.re * b.re - a.im * b.im), c.im + (a.re * b.im + a.im * b.re)}; }
FD_INLINE c128 multiply_add(c128 c, c128 a, c128 b) {
  return {c.re + (a.re * b.re - a.im * b.im), c.im + (a.re * b.im + a.im * b.re)};
}

// Rows [begin, end) of one product.
template <class T>
inline void multiply_rows(const Gemm<T>& g, int64_t begin, int64_t end) {
  constexpr int64_t cols = 4096 / sizeof(T), depth = 32;  // of B at a time: 128 KB
  for (int64_t j0 = 0; j0 < g.n; j0 += cols) {
    const int64_t n = min_of(cols, g.n - j0);
    for (int64_t i = begin; i < end; i++) {
      for (int64_t j = 0; j < n; j++) g.c[i * g.c_row + j0 + j] = T{};
    }
    for (int64_t k0 = 0; k0 < g.k; k0 += depth) {
      const int64_t k1 = min_of(k0 + depth, g.k);
      for (int64_t i = begin; i < end; i++) {
        T* __restrict c = g.c + i * g.c_row + j0;
        for (int64_t k = k0; k < k1; k++) {
          const T a = g.a[i * g.a_row + k * g.a_k];
          const T* b = g.b + k * g.b_k + j0 * g.b_col;
          if (g.b_col == 1) {
            for (int64_t j = 0; j < n; j++) c[j] = multiply_add(c[j], a, b[j]);
          } else {
            for (int64_t j = 0; j < n; j++) c[j] = multiply_add(c[j], a, b[j * g.b_col]);
          }
        }
      }
    }
  }
}

template <class T>
inline void multiply_any(const Gemm<T>& g, const ProductBatch& batch) {
  const int64_t row_macs = max_of(g.n, int64_t(1)) * max_of(g.k, int64_t(1));
  parallel_for(batch.count * g.m, max_of(int64_t(1), (int64_t(1) << 16) / row_macs), [&](int64_t begin, int64_t end) {
    while (begin < end) {  // row numbers run through the whole batch
      const int64_t which = begin / g.m, row = begin % g.m, rows = min_of(end - begin, g.m - row);
      multiply_rows(batch_item(g, batch, which), row, row + rows);
      begin += rows;
    }
  });
}

}  // namespace
}  // namespace fastdl
