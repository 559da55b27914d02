// Packing for gemm.h: copies of pieces of A and B in the order in which the register tile reads them.
#pragma once
#include "cpu/isa/gemm_tile.h"
#include "cpu/vec/transpose.h"

namespace fastdl {
namespace {

// A strip of A (rows <= MR, kc <= kGemmKc) in L1, with the strides that the tile has to use.
template <class T>
struct Strip {
  const T* a;
  int64_t a_row, a_k;
};
constexpr int kStripRow = int(kGemmKc) + 16;  // row pitch of a copied strip: not a multiple of 4 KB, so rows do not share L1 sets
template <class T>
constexpr int kStripElements = max_of(kTileRows[1] * kStripRow, ceil_div(kTileRows[1], Vec<T>::size) * Vec<T>::size * int(kGemmKc));

template <class T>
inline Strip<T> pack_strip(const T* a, int64_t a_row, int64_t a_k, int rows, int64_t kc, T* buf) {
  constexpr int lanes = Vec<T>::size;
  if (a_row == 1) {  // A is transposed in memory: keep it so, whole vectors per k
    if (rows <= lanes) {
#pragma GCC unroll 4
      for (int64_t k = 0; k < kc; k++) store(buf + k * lanes, load_partial(a + k * a_k, rows));
      return {buf, 1, lanes};
    }
    const int width = ceil_div(rows, lanes) * lanes;
    for (int64_t k = 0; k < kc; k++) {
      int v = 0;
      for (; v + lanes <= rows; v += lanes) store(buf + k * width + v, load(a + k * a_k + v));
      if (v < rows) store(buf + k * width + v, load_partial(a + k * a_k + v, rows - v));
    }
    return {buf, 1, width};
  }
  for (int i = 0; i < rows; i++) {
    const T* from = a + i * a_row;
    T* to = buf + i * kStripRow;
    for (int64_t k = 0; k < kc; k++) to[k] = from[k * a_k];
  }
  return {buf, kStripRow, 1};
}

// A panel of B: `width` columns (whole vectors), of which `cols` exist; the others repeat or are zero and are never stored.
//   out[k * width + j] = b[k * b_k + j * b_col]
template <class T>
inline void pack_panel(const T* b, int64_t b_k, int64_t b_col, int64_t kc, int cols, int width, T* out) {
  constexpr int lanes = Vec<T>::size;
  const int whole = cols / lanes, rest = cols % lanes;
  if (b_col == 1) {
    for (int64_t k = 0; k < kc; k++) {
      for (int v = 0; v < whole; v++) store(out + k * width + v * lanes, load(b + k * b_k + v * lanes));
      if (rest) store(out + k * width + whole * lanes, load_partial(b + k * b_k + whole * lanes, rest));
    }
    return;
  }
  int j = 0;
  if (b_k == 1) {
    for (; j + lanes <= cols; j += lanes) transpose(b + j * b_col, b_col, out + j, width, lanes, kc);
    if (j < cols && kc >= lanes) {  // fewer columns than lanes: a square of them and of zeros is turned
      alignas(64) T square[lanes * lanes] = {};
      int64_t k = 0;
      for (; k + lanes <= kc; k += lanes) {
        for (int i = 0; i < cols - j; i++) store(square + i * lanes, load(b + (j + i) * b_col + k));
        transpose_square(square, lanes, out + k * width + j, width);
      }
      for (; k < kc; k++) {
        for (int i = 0; i < lanes; i++) out[k * width + j + i] = j + i < cols ? b[k + (j + i) * b_col] : T(0);
      }
      j += lanes;
    }
  }
  for (; j < cols; j++) {
    for (int64_t k = 0; k < kc; k++) out[k * width + j] = b[k * b_k + j * b_col];
  }
  for (; j < width; j++) {
    for (int64_t k = 0; k < kc; k++) out[k * width + j] = T(0);
  }
}

}  // namespace
}  // namespace fastdl
