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
#include "cpu/vec/registers.h"

namespace fastdl {
namespace {

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
    Vec<T> bv[NV];
    unroll<NV>([&](auto j) __attribute__((always_inline)) {
      bv[j] = load(reinterpret_cast<const T*>(b_row) + j * lanes);
      FD_IN_ORDER(bv[j].v);
    });
    unroll<MR>([&](auto i) __attribute__((always_inline)) {
      Vec<T> av(*reinterpret_cast<const T*>(a[i / base_rows] + (i % base_rows ? rows[i % base_rows] : 0)));
      if (NV > 1) FD_IN_ORDER(av.v);
      unroll<NV>([&](auto j) __attribute__((always_inline)) {
        if (NV > 1)
          add_product(acc[i][j], av, bv[j]);
        else
          acc[i][j] = fma(av, bv[j], acc[i][j]);  // the broadcast may be its operand
      });
    });
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
    for (int64_t n = t.k / 4; n > 0; n--) {
      step(b), step(b + b_step), step(b + 2 * b_step), step(b + b_step3);
      b += 4 * b_step;
    }
#pragma GCC unroll 1
    for (int64_t n = t.k % 4; n > 0; n--) step(b), b += b_step;
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

// A tile of `rows` rows and nv vectors of columns: rows <= kTileRows[nv], but where nv is 3 rows <= kTileRows[2], done in halves
// with between() between them.
template <class T, class F>
FD_INLINE void run_tile(int nv, int rows, const Tile<T>& t, F&& between) {
  static_assert(kTileRows[3] == 0 || kTileRows[2] <= 2 * kTileRows[3], "a half would have no tile");
  if (kTileRows[3] && nv == 3) {
    const int half = (rows + 1) / 2;
    kTiles<T, 3>[half](t);
    if (rows == half) return;
    between();
    Tile<T> rest = t;
    rest.a += half * t.a_row;
    rest.c += half * t.c_row;
    return kTiles<T, 3>[rows - half](rest);
  }
  return (nv == 1 ? kTiles<T, 1> : nv == 2 ? kTiles<T, 2> : kTiles<T, 4>)[rows](t);
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
