// The compiled tiles of gemm_tile.h, for all families: included by matmul.cpp alone.
#pragma once
#include "cpu/isa/gemm_tile.h"
#include "cpu/vec/registers.h"

namespace fastdl {
namespace {

// Adds C and bias to the sums, applies relu, stores. partial: the last vector has t.tail lanes.
template <bool partial, class T, int MR, int NV>
FD_INLINE void finish_tile(const Tile<T>& t, Vec<T> (&acc)[MR][NV]) {
  constexpr int lanes = Vec<T>::size;
  const int64_t c_row = t.c_row;  // in registers: for all GCC knows, a store to C changes t
  const int tail = t.tail;
  const bool accumulate = t.accumulate, relu = t.relu;
  const T* const bias_row = t.bias;
  T* const c_tile = t.c;
#pragma GCC unroll 4
  for (int j = 0; j < NV; j++) {
    const bool cut = partial && j == NV - 1;
    T* c = c_tile + j * lanes;
    if (accumulate) {
#pragma GCC unroll 24
      for (int i = 0; i < MR; i++) acc[i][j] += cut ? load_partial(c + i * c_row, tail) : load(c + i * c_row);
    }
    if (bias_row) {
      const Vec<T> bias = cut ? load_partial(bias_row + j * lanes, tail) : load(bias_row + j * lanes);
#pragma GCC unroll 24
      for (int i = 0; i < MR; i++) acc[i][j] += bias;
    }
    if (relu) {
#pragma GCC unroll 24
      for (int i = 0; i < MR; i++) acc[i][j] = max(Vec<T>(T(0)), acc[i][j]);  // NaN, as second operand, stays NaN
    }
#pragma GCC unroll 24
    for (int i = 0; i < MR; i++) {
      if (cut)
        store_partial(c + i * t.c_row, acc[i][j], t.tail);
      else
        store(c + i * t.c_row, acc[i][j]);
    }
  }
}

template <class T, int MR, int NV>
__attribute__((noinline)) void tile_kernel(const Tile<T>& t) {
  constexpr int lanes = Vec<T>::size;
  // A step saves instructions (registers.h): beside multiply-adds and loads it has one addition for each base of A. Row i of seven
  // of A is at base + {0, 1, 2, 3, 4, 5, 6} rows, row k of four of B at b + {0, 1, 2, 3} rows, which are in registers.
  constexpr int base_rows = 7, bases = (MR + base_rows - 1) / base_rows;
  // Not lower tiles, which small products have, nor single vectors, which wait for loads: code that takes long to compile.
  constexpr bool by_fours = NV > 1 && 2 * MR >= kTileRows[NV];
  // Only high tiles of a large C meet memory, and narrow ones take so little time per step that leaving the loop costs more.
  constexpr bool fetches = FD_VEC_BYTES == 64 && NV == 2 && MR > 7;
  const int64_t row = t.a_row * int64_t(sizeof(T)), a_step = t.a_k * int64_t(sizeof(T)), b_step = t.b_k * int64_t(sizeof(T));
  int64_t rows[base_rows] = {0, row, 2 * row, 3 * row, 4 * row, 5 * row, 6 * row}, b_step3 = 3 * b_step;
  unroll<base_rows>([&](auto i) __attribute__((always_inline)) { FD_KEEP_POINTER(rows[i]); });
  FD_KEEP_POINTER(b_step3);

  Vec<T> acc[MR][NV];
#pragma GCC unroll 24
  for (int i = 0; i < MR; i++) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) acc[i][j] = Vec<T>(T(0));
  }
  if (FD_VEC_BYTES < 64 && t.fetch_c) {  // few rows: all at once
    const T* c = t.c;
#pragma GCC unroll 6
    for (int i = 0; i < MR; i++, c += t.c_row) __builtin_prefetch(c, 1);
  }
  const char* b = reinterpret_cast<const char*>(t.b);
  const char* a[bases];
  a[0] = reinterpret_cast<const char*>(t.a);
  for (int g = 1; g < bases; g++) a[g] = a[g - 1] + base_rows * row;
  const auto step = [&](const char* b_row) __attribute__((always_inline)) {
    add_outer(acc, b_row,
              [&](auto i) __attribute__((always_inline)) { return a[i / base_rows] + (i % base_rows ? rows[i % base_rows] : 0); });
    unroll<bases>([&](auto g) __attribute__((always_inline)) {
      a[g] += a_step;
      FD_KEEP_POINTER(a[g]);  // or GCC would step 14 pointers, most of them in memory
    });
  };
  if (t.prefetch) {  // the columns after these, of which the hardware's prefetch knows nothing
    for (int64_t k = t.k; k > 0; k--) {
#pragma GCC unroll 4
      for (int j = 0; j < NV; j++) __builtin_prefetch(reinterpret_cast<const T*>(b) + (NV + j) * lanes);
      step(b), b += b_step;
    }
  } else if (fetches && t.fetch_c) {
    const T* c = t.c;
    const int64_t c_row = t.c_row, every = ceil_div(t.k, int64_t(MR));
    for (int64_t k = t.k; k > 0; k -= every) {
#pragma GCC unroll 4
      for (int j = 0; j < NV; j++) __builtin_prefetch(c + j * lanes, 1);
      c += c_row;
      for (int64_t n = min_of(k, every); n > 0; n--) step(b), b += b_step;
    }
  } else {
    if constexpr (by_fours) {
      for (int64_t n = t.k / 4; n > 0; n--) {
        step(b), step(b + b_step), step(b + 2 * b_step), step(b + b_step3);
        b += 4 * b_step;
      }
    }
#pragma GCC unroll 1
    for (int64_t n = by_fours ? t.k % 4 : t.k; n > 0; n--) step(b), b += b_step;
  }
  if (t.tail == lanes)
    finish_tile<false>(t, acc);
  else
    finish_tile<true>(t, acc);
}

template <class T, int NV, int MR>
constexpr TileFn<T> tile_or_null() {
  if constexpr (MR > 0 && MR <= kTileRows[NV])
    return tile_kernel<T, MR, NV>;
  else
    return nullptr;
}
template <class T, int... MR>
constexpr TileTable<T> compiled_tiles(std::integer_sequence<int, MR...>) {
  return {{{},
           {tile_or_null<T, 1, MR>()...},
           {tile_or_null<T, 2, MR>()...},
           {tile_or_null<T, 3, MR>()...},
           {tile_or_null<T, 4, MR>()...}}};
}
template <class T>
constexpr TileTable<T> compiled_tiles() {
  return compiled_tiles<T>(std::make_integer_sequence<int, kTileMaxRows + 1>());
}

}  // namespace
}  // namespace fastdl
