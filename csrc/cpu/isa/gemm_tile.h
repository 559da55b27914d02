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
namespace {

// One tile's work. Rows and vectors are chosen with tile_fn(); columns past the tail of the last vector are never stored.
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
  // Row i is read at base[i / 5] + {0, 1, 2, 3, 4} rows: forms of address that x86 has, so few registers hold 14 row pointers.
  constexpr int bases = (MR + 4) / 5;
  // Only high tiles of a large C meet memory, and narrow ones take so little time per step that leaving the loop costs more.
  constexpr bool fetches = FD_VEC_BYTES == 64 && NV == 2 && MR > 7;
  const int64_t row = t.a_row * int64_t(sizeof(T)), row3 = 3 * row;
  const int64_t a_step = t.a_k * int64_t(sizeof(T)), b_step = t.b_k * int64_t(sizeof(T));

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
  for (int g = 1; g < bases; g++) a[g] = a[g - 1] + 5 * row;
  const auto step = [&]() __attribute__((always_inline)) {
    Vec<T> bv[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) bv[j] = load(reinterpret_cast<const T*>(b) + j * lanes);
#pragma GCC unroll 24
    for (int i = 0; i < MR; i++) {
      const char* p = a[i / 5];
      const char* q = i % 5 == 0 ? p : i % 5 == 1 ? p + row : i % 5 == 2 ? p + 2 * row : i % 5 == 3 ? p + row3 : p + 4 * row;
      Vec<T> av(*reinterpret_cast<const T*>(q));
      if (NV > 1) FD_KEEP_VECTOR(av.v);
#pragma GCC unroll 4
      for (int j = 0; j < NV; j++) acc[i][j] = fma(av, bv[j], acc[i][j]);
    }
#pragma GCC unroll 5
    for (int g = 0; g < bases; g++) {
      a[g] += a_step;
      FD_KEEP_POINTER(a[g]);  // or GCC would step 14 pointers, most of them in memory
    }
    b += b_step;
  };
  if (t.prefetch) {  // the columns after these, of which the hardware's prefetch knows nothing
    for (int64_t k = t.k; k > 0; k--) {
#pragma GCC unroll 4
      for (int j = 0; j < NV; j++) __builtin_prefetch(reinterpret_cast<const T*>(b) + (NV + j) * lanes);
      step();
    }
  } else if (fetches && t.fetch_c) {
    const T* c = t.c;
    const int64_t c_row = t.c_row, every = ceil_div(t.k, int64_t(MR));
    for (int64_t k = t.k; k > 0; k -= every) {
#pragma GCC unroll 4
      for (int j = 0; j < NV; j++) __builtin_prefetch(c + j * lanes, 1);
      c += c_row;
      for (int64_t n = min_of(k, every); n > 0; n--) step();
    }
  } else {
    for (int64_t k = t.k; k > 0; k--) step();
  }
  if (t.tail == lanes)
    finish_tile<false>(t, acc);
  else
    finish_tile<true>(t, acc);
}

template <class T>
using TileFn = void (*)(const Tile<T>&);

// The compiled tiles: kTiles<T, nv>[mr], null where the registers do not suffice.
template <class T, int NV, int MR>
constexpr TileFn<T> tile_or_null() {
  if constexpr (MR <= kTileRows[NV])
    return tile_kernel<T, MR, NV>;
  else
    return nullptr;
}
#define FD_TILE(mr) tile_or_null<T, NV, mr>()
template <class T, int NV>
constexpr TileFn<T> kTiles[15] = {nullptr,     FD_TILE(1),  FD_TILE(2),  FD_TILE(3),  FD_TILE(4),
                                  FD_TILE(5),  FD_TILE(6),  FD_TILE(7),  FD_TILE(8),  FD_TILE(9),
                                  FD_TILE(10), FD_TILE(11), FD_TILE(12), FD_TILE(13), FD_TILE(14)};
#undef FD_TILE

// The kernel for a tile of mr rows and nv vectors of columns: nv 1, 2 or 4, mr <= kTileRows[nv].
template <class T>
FD_INLINE TileFn<T> tile_fn(int nv, int mr) {
  return nv == 1 ? kTiles<T, 1>[mr] : nv == 2 ? kTiles<T, 2>[mr] : kTiles<T, 4>[mr];
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
