// The register tile of convolution: a block of C in registers, rows of A anywhere in memory.
//
//   C[i][j] (+)= sum over segments s and k < K of  rows[s * row_step + i][s * a_segment + k * a_k] * B[s * b_segment + k * b_k + j]
//
// It differs from the tile of gemm_tile.h in one thing: every row of A, in every segment, has a pointer of its own. So a tile is
// always full height: its rows are any output pixels, across image rows and images, and a tap that falls on the border points to a
// row of zeros. Neither im2col nor a padded copy of the image is made. This is the indirect convolution of M. Dukhan (2019).
#pragma once
#include "cpu/isa/gemm_tile.h"

namespace fastdl {
namespace {

// Rows per tile of two vectors: accumulators, two vectors of B and a broadcast fit the vector registers (32, 16, 16), and row
// pointers, the position on B, the counter and two steps the 15 general ones.
#if FD_VEC_BYTES == 64
constexpr int kConvRows = 11;
#elif FD_VEC_BYTES == 32
constexpr int kConvRows = 6;
#else
constexpr int kConvRows = 4;
#endif

template <class T>
struct ConvTile {
  const T* const* rows;  // rows of A per segment
  int64_t row_step;      // pointers per segment; 0: the same rows for every segment, moved by a_segment
  int64_t a_segment, a_k;
  int64_t segments, k;
  const T* b;
  int64_t b_segment, b_k;
  int64_t groups = 1, a_group = 0, b_group = 0;  // all of it `groups` times, A and B moved each time
  T* const* c;                                   // rows of C
  int64_t c_column = 0;                          // and where in them the tile begins
  int tail;                                      // lanes of the last vector that belong to C: 1 .. lanes
  bool accumulate, relu;
  const T* bias;  // null or one value per column
};

// Adds C and bias to the sums, applies relu, stores. partial: the last vector has t.tail lanes.
template <bool partial, class T, int MR, int NV>
FD_INLINE void finish_conv_tile(const ConvTile<T>& t, Vec<T> (&acc)[MR][NV]) {
  constexpr int lanes = Vec<T>::size;
#pragma GCC unroll 2
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
  constexpr int lanes = Vec<T>::size;
  constexpr bool by_fours = MR <= 7;  // more row pointers leave no register to reach four rows of B
  const int64_t a_step = t.a_k * int64_t(sizeof(T)), b_step = t.b_k * int64_t(sizeof(T)), a_end = t.k * a_step;
  int64_t b_step3 = 3 * b_step;
  FD_KEEP_POINTER(b_step3);
  Vec<T> acc[MR][NV];
#pragma GCC unroll 12
  for (int i = 0; i < MR; i++) {
#pragma GCC unroll 2
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
        Vec<T> bv[NV];
        unroll<NV>([&](auto j) __attribute__((always_inline)) {
          bv[j] = load(reinterpret_cast<const T*>(b_row) + j * lanes);
          FD_IN_ORDER(bv[j].v);
        });
        unroll<MR>([&](auto i) __attribute__((always_inline)) {
          Vec<T> av(*reinterpret_cast<const T*>(a[i] + k));  // base + counter, so that only the counter moves
          if (NV > 1) FD_IN_ORDER(av.v);
          unroll<NV>([&](auto j) __attribute__((always_inline)) {
            if (NV > 1)
              add_product(acc[i][j], av, bv[j]);
            else
              acc[i][j] = fma(av, bv[j], acc[i][j]);
          });
        });
        k += a_step;
        FD_KEEP_POINTER(k);  // or GCC would step four of them
      };
      if (by_fours) {
        for (int64_t n = t.k / 4; n > 0; n--) {
          step(b), step(b + b_step), step(b + 2 * b_step), step(b + b_step3);
          b += 4 * b_step;
        }
      }
#pragma GCC unroll 1
      for (; k != 0; b += b_step) step(b);
    }
  }
  if (t.tail == lanes)
    finish_conv_tile<false>(t, acc);
  else
    finish_conv_tile<true>(t, acc);
}

template <class T>
using ConvTileFn = void (*)(const ConvTile<T>&);
template <class T, int NV, int MR>
constexpr ConvTileFn<T> conv_tile_or_null() {
  if constexpr (MR <= kConvRows)
    return conv_tile_kernel<T, MR, NV>;
  else
    return nullptr;
}
#define FD_TILE(mr) conv_tile_or_null<T, NV, mr>()
template <class T, int NV>
constexpr ConvTileFn<T> kConvTiles[12] = {nullptr,    FD_TILE(1), FD_TILE(2), FD_TILE(3), FD_TILE(4),  FD_TILE(5),
                                          FD_TILE(6), FD_TILE(7), FD_TILE(8), FD_TILE(9), FD_TILE(10), FD_TILE(11)};
#undef FD_TILE

template <class T>
FD_INLINE void run_tile(int vectors, int64_t rows, const ConvTile<T>& t) {
  (vectors == 1 ? kConvTiles<T, 1>[rows] : kConvTiles<T, 2>[rows])(t);
}

}  // namespace
}  // namespace fastdl
