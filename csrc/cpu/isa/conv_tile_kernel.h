// The compiled tiles of conv_tile.h, for all families: included by conv.cpp alone.
#pragma once
#include "cpu/isa/conv_tile.h"
#include "cpu/vec/registers.h"

namespace fastdl {
namespace {

// Adds C and bias to the sums, applies relu, stores. partial: the last vector has t.tail lanes.
template <bool partial, class T, int MR, int NV>
FD_INLINE void finish_conv_tile(const ConvTile<T>& t, Vec<T> (&acc)[MR][NV]) {
  constexpr int lanes = Vec<T>::size;
#pragma GCC unroll 3
  for (int j = 0; j < NV; j++) {
    const bool cut = partial && j == NV - 1;
    const int64_t col = j * lanes, c_col = t.c_column + col;
    Vec<T> bias(T(0));
    if (t.bias) bias = cut ? load_partial(t.bias + col, t.tail) : load(t.bias + col);
    if (t.accumulate) {
#pragma GCC unroll 12
      for (int i = 0; i < MR; i++) acc[i][j] += cut ? load_partial(t.c[i] + c_col, t.tail) : load(t.c[i] + c_col);
    }
    if (t.bias) {
#pragma GCC unroll 12
      for (int i = 0; i < MR; i++) acc[i][j] += bias;
    }
    if (t.relu) {
#pragma GCC unroll 12
      for (int i = 0; i < MR; i++) acc[i][j] = max(Vec<T>(T(0)), acc[i][j]);  // NaN, as second operand, stays NaN
    }
#pragma GCC unroll 12
    for (int i = 0; i < MR; i++) {
      if (cut)
        store_partial(t.c[i] + c_col, acc[i][j], t.tail);
      else
        store(t.c[i] + c_col, acc[i][j]);
    }
  }
}

template <class T, int MR, int NV>
__attribute__((noinline)) void conv_tile_kernel(const ConvTile<T>& t) {
  // More row pointers than seven leave no register to reach four rows of B; low tiles as in gemm_tile_kernel.h.
  constexpr bool by_fours = MR <= 7 && NV > 1 && 2 * MR >= kConvRows;
  const int64_t a_step = t.a_k * int64_t(sizeof(T)), b_step = t.b_k * int64_t(sizeof(T)), a_end = t.k * a_step;
  int64_t b_step3 = 3 * b_step;
  FD_KEEP_POINTER(b_step3);
  Vec<T> acc[MR][NV];
#pragma GCC unroll 12
  for (int i = 0; i < MR; i++) {
#pragma GCC unroll 3
    for (int j = 0; j < NV; j++) acc[i][j] = Vec<T>(T(0));
  }
  for (int64_t g = 0; g < t.groups; g++) {
    for (int64_t s = 0; s < t.segments; s++) {
      const T* const* rows = t.rows + s * t.row_step;
      const int64_t move = g * t.a_group + s * t.a_segment;
      const char* a[MR];
#pragma GCC unroll 12
      for (int i = 0; i < MR; i++) {
        a[i] = reinterpret_cast<const char*>(rows[i] + move) + a_end;
        FD_KEEP_POINTER(a[i]);
      }
      const char* b = reinterpret_cast<const char*>(t.b + g * t.b_group + s * t.b_segment);
      int64_t k = -a_end;
      const auto step = [&](const char* b_row) __attribute__((always_inline)) {
        add_outer(acc, b_row, [&](auto i) __attribute__((always_inline)) { return a[i] + k; });  // so that only the counter moves
        k += a_step;
        FD_KEEP_POINTER(k);  // or GCC would step four of them
      };
      if constexpr (by_fours) {
        for (int64_t n = t.k / 4; n > 0; n--) {
          step(b), step(b + b_step), step(b + 2 * b_step), step(b + b_step3);
          b += 4 * b_step;
        }
      }
#pragma GCC unroll 1
      for (; k != 0; b += b_step) step(b);
    }
  }
  if (t.tail == Vec<T>::size)
    finish_conv_tile<false>(t, acc);
  else
    finish_conv_tile<true>(t, acc);
}

template <class T, int NV, int MR>
constexpr ConvTileFn<T> conv_tile_or_null() {
  if constexpr (MR > 0 && MR <= (NV == 3 ? kConvTripleRows : kConvRows))
    return conv_tile_kernel<T, MR, NV>;
  else
    return nullptr;
}
template <class T, int... MR>
constexpr ConvTileTable<T> compiled_conv_tiles(std::integer_sequence<int, MR...>) {
  return {{{}, {conv_tile_or_null<T, 1, MR>()...}, {conv_tile_or_null<T, 2, MR>()...}, {conv_tile_or_null<T, 3, MR>()...}}};
}
template <class T>
constexpr ConvTileTable<T> compiled_conv_tiles() {
  return compiled_conv_tiles<T>(std::make_integer_sequence<int, kConvMaxRows + 1>());
}

}  // namespace
}  // namespace fastdl
