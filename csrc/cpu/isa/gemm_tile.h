// The register tile under matmul and linear: a small block of C is kept in registers while k runs.
//
//   C[i][j] (+)= sum over k < K of  A[i * a_row + k * a_k] * B[k * b_k + j]      i < MR, j < NR
//
// Rows of C are vectors along j. Each step of k loads NR / lanes vectors of B and, for every row, one element of A that is
// broadcast to all lanes: MR * NR multiply-adds for MR + NR / lanes loads. As A is read element by element, any strides do:
// A may be row-major, transposed or packed. B is either packed in panels of NR columns (b_k = NR) or a row-major matrix itself
// (b_k = its row length).
// The method is that of BLIS (Van Zee and van de Geijn, 2015).
#pragma once
#include "cpu/isa/kernel.h"
#include "cpu/tune.h"

namespace fastdl {

// One tile's work. Rows and vectors are those of run_tile(); columns past the tail of the last vector are never stored.
template <class T>
struct Tile {
  const T* a;
  int64_t a_row, a_k;  // element strides of A
  int64_t k;
  const T* b;
  int64_t b_k;  // elements from one row of B to the next; nv whole vectors of each row are read
  T* c;
  int64_t c_row;
  int tail;         // lanes of the last vector that belong to C: 1 .. lanes
  bool prefetch;    // B is a matrix that is not in L2 yet
  bool fetch_c;     // C is not in the caches: its rows are fetched, during the sums, evenly, or the few of a small tile before
  bool accumulate;  // C += instead of C =
  bool relu;        // applied last: leave off until the last block of k
  const T* bias;    // null or one value per column, added to the sum: as relu
};

template <class T>
using TileFn = void (*)(const Tile<T>&);
template <class T>
struct TileTable {
  TileFn<T> of[kTileMaxVectors + 1][kTileMaxRows + 1];  // [vectors][rows]; null where the registers do not suffice
};
static_assert(kTileRows[1] <= kTileMaxRows && kTileRows[2] <= kTileMaxRows && kTileRows[4] <= kTileMaxRows, "no room in the table");
FD_SHARED(const TileTable<float>, tiles_f32);  // in matmul.cpp, from gemm_tile_kernel.h
FD_SHARED(const TileTable<double>, tiles_f64);

namespace {

template <class T>
FD_INLINE TileFn<T> tile_of(int nv, int rows) {
  if constexpr (sizeof(T) == 4)
    return FD_SHARED_NAME(tiles_f32).of[nv][rows];
  else
    return FD_SHARED_NAME(tiles_f64).of[nv][rows];
}

// A tile of `rows` rows and nv vectors of columns: rows <= kTileRows[nv], but where nv is 3 rows <= kTileRows[2], done in halves
// with between() between them.
template <class T, class F>
FD_INLINE void run_tile(int nv, int rows, const Tile<T>& t, F&& between) {
  static_assert(kTileRows[3] == 0 || kTileRows[2] <= 2 * kTileRows[3], "a half would have no tile");
  if (kTileRows[3] && nv == 3) {
    const int half = (rows + 1) / 2;
    tile_of<T>(3, half)(t);
    if (rows == half) return;
    between();
    Tile<T> rest = t;
    rest.a += half * t.a_row;
    rest.c += half * t.c_row;
    return tile_of<T>(3, rows - half)(rest);
  }
  tile_of<T>(nv, rows)(t);
}
template <class T>
FD_INLINE void run_tile(int nv, int rows, const Tile<T>& t) {
  run_tile(nv, rows, t, []() {});
}

// [0, n) cut into the fewest blocks of at most `most`, near-equal in size: block i is [i * n / blocks, (i + 1) * n / blocks).
// Near-equal tiles beat full tiles and a thin rest, as a thin tile cannot hide the latency of multiply-adds.
struct Blocks {
  int64_t n, count;
  FD_INLINE Blocks(int64_t n, int64_t most) : n(n), count(ceil_div(n, most)) {}
  FD_INLINE int64_t begin(int64_t i) const { return i * n / count; }
};

}  // namespace
}  // namespace fastdl
