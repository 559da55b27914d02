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
  for (int i = 0; i < rows; i++) {
    const T* from = a + i * a_row;
    T* to = buf + i * kStripRow;
    int64_t k = 0;
    if (a_k == 1) {
      for (; k + Vec<T>::size <= kc; k += Vec<T>::size) store(to + k, load(from + k));
    }
    for (; k < kc; k++) to[k] = from[k * a_k];
  }
  return {buf, kStripRow, 1};
}

// Tiles [tile0, tile1) of an A of m rows that is transposed in memory, kept so: whole vectors per k, `width` elements, and strip
// after strip. What lies side by side is read from end to end for each k: the rows of one tile alone would be a cache line or two
// of every page, at half the speed.
constexpr int kStripsAtOnce = int(kGemmCopyRows) / kTileRows[2];
// From one strip to the next: an odd number of cache lines, so that the lines that are written by turns do not share L1 sets.
template <class T>
constexpr int64_t strip_pitch(int64_t kc, int width) {
  constexpr int64_t line = 64 / int64_t(sizeof(T));
  return (ceil_div(kc * width, line) | 1) * line;
}
template <class T>
inline void pack_strips(const T* a, int64_t a_k, int64_t m, int64_t tiles, int64_t tile0, int64_t tile1, int64_t kc, int width,
                        T* out) {
  constexpr int lanes = Vec<T>::size;
  const int count = int(tile1 - tile0);
  const int64_t pitch = strip_pitch<T>(kc, width);
  int64_t first[kStripsAtOnce];
  int whole = 0;  // strips whose last vector ends within A: it may hold rows of the next tile
  for (int s = 0; s < count; s++) {
    first[s] = (tile0 + s) * m / tiles;
    if (first[s] + width <= m) whole = s + 1;
  }
  for (int64_t k = 0; k < kc; k++) {
    const T* from = a + k * a_k;
    T* to = out + k * width;
    int s = 0;
    if (width == lanes) {
#pragma GCC unroll 4
      for (; s < whole; s++, to += pitch) store(to, load(from + first[s]));
    }
    for (; s < whole; s++, to += pitch) {
      for (int v = 0; v < width; v += lanes) store(to + v, load(from + first[s] + v));
    }
    for (; s < count; s++, to += pitch) {
      const int64_t end = min_of(m - first[s], int64_t(width));
      int64_t v = 0;
      for (; v + lanes <= end; v += lanes) store(to + v, load(from + first[s] + v));
      if (v < end) store(to + v, load_partial(from + first[s] + v, int(end - v)));
    }
  }
}

// A panel of B: `width` columns (whole vectors), of which `cols` exist; the others repeat or are zero and are never stored.
//   out[k * width + j] = b[k * b_k + j * b_col]
template <class T>
inline void pack_panel(const T* b, int64_t b_k, int64_t b_col, int64_t kc, int cols, int width, T* out) {
  constexpr int lanes = Vec<T>::size;
  const int whole = cols / lanes, rest = cols % lanes;
  if (b_col == 1) {
    for (int64_t k = 0; k < kc; k++) {
      if (kGemmPackAhead) __builtin_prefetch(b + (k + kGemmPackAhead) * b_k);
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
