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
// pointers, the position on B, the counter and two steps the 15 general ones. And of three, where columns of an odd number of
// vectors end in those: one alone has too few sums to hide the latency of multiply-adds.
#if FD_VEC_BYTES == 64
constexpr int kConvRows = 11, kConvTripleRows = 0;
#elif FD_VEC_BYTES == 32
constexpr int kConvRows = 6, kConvTripleRows = 3;
#else
constexpr int kConvRows = 4, kConvTripleRows = 0;
#endif
constexpr int kConvMaxRows = 11;  // of any instruction set
static_assert(kConvRows <= kConvMaxRows && kConvTripleRows <= kConvRows, "no room in the table of tiles");

}  // namespace

template <class T>
struct ConvTile {
  const T* const* rows;  // rows of A per segment
  int64_t row_step;      // pointers per segment; 0: the same rows for every segment, moved by a_segment
  int64_t a_segment, a_k;
  int64_t segments, k;
  const T* b;
  int64_t b_segment, b_k;
  int64_t groups, a_group, b_group;  // all of it `groups` times, A and B moved each time
  T* const* c;                       // rows of C
  int64_t c_column;                  // and where in them the tile begins
  int tail;                          // lanes of the last vector that belong to C: 1 .. lanes
  bool accumulate, relu;
  const T* bias;  // null or one value per column
};

template <class T>
using ConvTileFn = void (*)(const ConvTile<T>&);
template <class T>
struct ConvTileTable {
  ConvTileFn<T> of[4][kConvMaxRows + 1];  // [vectors][rows]; null where the registers do not suffice
};
FD_SHARED(const ConvTileTable<float>, conv_tiles_f32);  // in conv.cpp, from conv_tile_kernel.h
FD_SHARED(const ConvTileTable<double>, conv_tiles_f64);

namespace {

template <class T>
FD_INLINE ConvTileFn<T> conv_tile_of(int vectors, int64_t rows) {
  if constexpr (sizeof(T) == 4)
    return FD_SHARED_NAME(conv_tiles_f32).of[vectors][rows];
  else
    return FD_SHARED_NAME(conv_tiles_f64).of[vectors][rows];
}

// A tile of up to kConvRows rows; of three vectors, in halves.
template <class T>
FD_INLINE void run_tile(int vectors, int64_t rows, const ConvTile<T>& t) {
  static_assert(kConvTripleRows == 0 || kConvRows <= 2 * kConvTripleRows, "a half would have no tile");
  if (kConvTripleRows == 0 || vectors < 3) return conv_tile_of<T>(vectors, rows)(t);
  const int64_t half = (rows + 1) / 2;
  conv_tile_of<T>(3, half)(t);
  if (rows == half) return;
  ConvTile<T> rest = t;
  rest.rows += half, rest.c += half;
  conv_tile_of<T>(3, rows - half)(rest);
}

}  // namespace
}  // namespace fastdl
