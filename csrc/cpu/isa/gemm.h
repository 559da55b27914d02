// Matrix product C (m, n) = A (m, k) B (k, n) (+ bias, relu) for float and double and any strides of A and B.
//
// Method: the loops of BLIS (Van Zee and van de Geijn, 2015) with the roles of the caches swapped for row-major C. A strip of A
// (6 or 14 rows, 64, 192 or 384 of k) stays in L1 while a block of B (as much of k, up to 512 columns), packed in panels as wide as
// the tile, streams past it from L2. Rows of A that share sets of L1 are copied; what is read next is fetched ahead. Three savings
// for the sizes of neural nets:
//   - few rows, or a small B: B is read where it lies (row-major B only, with rows less than pages apart), nothing is packed;
//   - B transposed in memory (x W^T) and few rows: C^T = B^T A^T is computed instead, which packs the smaller operand, and
//     each finished block of C^T is transposed into C;
//   - small C, long k (weight gradients): partial sums over parts of k, added in order.
// C is cut in blocks, and threads claim them. Sums do not cross blocks, so results do not depend on how many there are.
#pragma once
#include "core/gemm_workspace.h"
#include "core/partition.h"
#include "cpu/isa/gemv.h"
#if defined(__AMX_BF16__)
#include "cpu/isa/gemm_bf16.h"
#endif

namespace fastdl {
namespace {

constexpr int64_t kGemmAlone = int64_t(1) << 40;  // as the size of a batch: one thread computes the product

// How one product is cut and where its B comes from.
struct GemmPlan {
  int max_rows, nv;                // register tile: rows at most, vectors
  int64_t tiles, vectors;          // C in tiles of rows and vectors of columns
  int64_t row_blocks, col_blocks;  // pieces of work
  int64_t kc, k_blocks;
  bool packed;  // B is packed to workspace, else read directly
  bool triple;  // the last panel has three vectors, the others two
};

FD_INLINE int64_t panels_of(const GemmPlan& plan) { return ceil_div(plan.vectors - plan.triple, int64_t(plan.nv)); }
// The first vector of a panel; behind the last one, the number of vectors.
FD_INLINE int64_t panel_begin(const GemmPlan& plan, int64_t panel) {
  return panel == panels_of(plan) ? plan.vectors : panel * plan.nv;
}

// Vectors in the panel at vector v of [v, end): as many as the tile takes, or the last `edge` of a direct B.
FD_INLINE int panel_vectors(const GemmPlan& plan, int64_t v, int64_t end, int edge) {
  if (plan.triple && v + 3 == plan.vectors) return 3;
  int64_t left = end - v;
  if (end == plan.vectors && left > edge) left -= edge;
  return left >= 4 && plan.nv == 4 ? 4 : left >= 2 ? 2 : 1;
}

// Is each step of k on another page of A, or nearly so, or are lines of transposed rows mostly of other tiles, and few rows there
// to find the rest in L1? Then copying a strip pays, where several panels pass over it.
template <class T>
FD_INLINE bool steps_far(const Gemm<T>& g) {
  if (g.a_k == 1 || g.k < Vec<T>::size) return false;
  static_assert(kGemmCopyFew == 0 || kGemmKc == kGemmWideKc, "sums must not be cut by the number of rows");
  return g.a_k * int64_t(sizeof(T)) >= kGemmCopyBytes || (g.a_row == 1 && g.m <= kGemmCopyFew);
}

// Do rows of A lie a multiple of 4 KB apart, or nearly so? Then those of a strip share sets of L1, and panels of B push them out.
template <class T>
FD_INLINE bool rows_meet(const Gemm<T>& g) {
  constexpr int64_t way = 4096;
  const int64_t apart = (g.a_row < 0 ? -g.a_row : g.a_row) * int64_t(sizeof(T));
  return g.a_k == 1 && apart > way / 2 && min_of(apart % way, way - apart % way) < kGemmCopyNear;
}

template <class T>
inline GemmPlan plan_gemm(const Gemm<T>& g, int64_t batch) {
  constexpr int lanes = Vec<T>::size;
  GemmPlan p;
  p.nv = g.m <= kTileRows[4] && g.n > 2 * lanes ? 4 : 2;
  p.max_rows = kTileRows[p.nv];
  p.tiles = ceil_div(g.m, int64_t(p.max_rows));
  p.vectors = ceil_div(g.n, int64_t(lanes));
  // Transposed rows of A: blocks of B less high and wider save copies of A, and leave it more of L2, of which
  // rows that lie pages apart share few sets. From sizes alone, however many share the work, as sums are cut at kc.
  const bool wide = g.a_row == 1 && steps_far(g) && g.n > kGemmBlockCols<T>;
  // Rows of B that lie pages apart: a panel read in place is one line of each, and where few rows of A leave B to be read from
  // memory once, low and wide blocks read much of a page at a time. Not for transposed A: weight gradients are also computed some
  // rows at a time (core/plan_updates.cpp), with the same sums. Nor for swapped operands, whose rows threads may share
  // (gemm_split).
  const bool far = g.b_col == 1 && g.b_k * int64_t(sizeof(T)) >= kGemmFarBytes;
  const bool low = far && g.a_k == 1 && !g.mirror && p.tiles <= kGemmLowTiles;
  const int64_t most = low ? kGemmLowKc : wide ? kGemmWideKc : kGemmKc;
  const int64_t most_cols = low ? kGemmLowCols<T> : wide ? kGemmWideCols<T> : kGemmBlockCols<T>;
  p.k_blocks = max_of(ceil_div(g.k, most), int64_t(1));
  p.kc = g.k <= most ? g.k : ceil_div(ceil_div(g.k, p.k_blocks), int64_t(8)) * 8;
  p.k_blocks = max_of(ceil_div(g.k, max_of(p.kc, int64_t(1))), int64_t(1));
  p.packed =
      g.k > 0 && (g.b_col != 1 || ((far || p.tiles > kGemmDirectTiles) && g.n * g.k * int64_t(sizeof(T)) > kGemmDirectBytes));
  p.triple = kTileRows[3] > 0 && p.nv == 2 && p.vectors % 2 == 1 && p.vectors > 1;
  const int64_t panels = panels_of(p);
  p.row_blocks = 1;
  p.col_blocks = ceil_div(p.vectors * lanes, most_cols);
  if (num_threads() == 1) return p;             // a block of B is packed once and stays in L2 for all rows
  const int64_t row_units = low ? 1 : p.tiles;  // low blocks stay as wide as they may be, and are read once
  const int64_t wanted = low ? min_of<int64_t>(kGemmChunks, 2 * num_threads()) : kGemmChunks;
  p.row_blocks = ceil_div(row_units, kGemmBlockTiles);
  for (;;) {  // finer until there is enough to share
    const int64_t pieces = p.row_blocks * p.col_blocks;
    if (batch * pieces >= wanted || g.m * g.n / pieces * max_of(g.k, int64_t(1)) < 2 * kGemmChunkMacs) break;
    const int64_t rows = g.m / p.row_blocks, cols = g.n / p.col_blocks;
    const bool can_rows = p.row_blocks * 2 <= row_units, can_cols = p.col_blocks * 2 <= panels;
    if (can_rows && (rows * 4 >= cols || !can_cols))
      p.row_blocks *= 2;
    else if (can_cols)
      p.col_blocks *= 2;
    else
      break;
  }
  const int64_t tile_macs = max_of<int64_t>(ceil_div(g.m, p.tiles) * p.nv * lanes * g.k, 1);
  const Cut cut =
      fair_cut(batch, row_units, panels, {p.row_blocks, p.col_blocks}, ceil_div(kGemmChunkMacs, tile_macs), num_threads());
  p.row_blocks = cut.rows, p.col_blocks = cut.cols;
  return p;
}

// Packs vectors [v0, v1) of B, rows k0 .. k0 + kc: the panel of nv vectors at vector v starts at packed + v * kc * lanes. Eight
// rows of a row-major B are read from end to end before the next eight, for the sake of the hardware's prefetch.
template <class T>
inline void pack_vectors(const Gemm<T>& g, const GemmPlan& plan, int64_t k0, int64_t kc, int64_t v0, int64_t v1, T* packed) {
  constexpr int lanes = Vec<T>::size;
  const int64_t step = g.b_col == 1 ? 8 : kc;
  for (int64_t k = 0; k < kc; k += step) {
    const int64_t rows = min_of(step, kc - k);
    for (int64_t v = v0; v < v1;) {
      const int nv = panel_vectors(plan, v, v1, 0), width = nv * lanes;
      const int cols = int(min_of(g.n - v * lanes, int64_t(width)));
      pack_panel(g.b + (k0 + k) * g.b_k + v * lanes * g.b_col, g.b_k, g.b_col, rows, cols, width,
                 packed + (v * kc + k * nv) * lanes);
      v += nv;
    }
  }
}

// Fetches a rectangle of A or B evenly during the tiles before those that need it, `tiles` of them: `rows` lines of memory, `step`
// elements apart, of `length` elements each.
template <class T>
struct Ahead {
  static constexpr int64_t line = 64 / int64_t(sizeof(T));
  const T* row = nullptr;
  int64_t step = 0, rows = 0, lines = 0, at = 0, share = 0;
  Ahead() = default;
  FD_INLINE Ahead(const T* first, int64_t step, int64_t rows, int64_t length, int64_t tiles)
      : row(first), step(step), rows(rows), lines(ceil_div(length, line)), share(ceil_div(rows * lines, tiles)) {}
  FD_INLINE void fetch() {
    for (int64_t n = share; n > 0 && rows > 0; n--) {
      __builtin_prefetch(row + at * line);
      if (++at == lines) at = 0, row += step, rows--;
    }
  }
};

// The block of B at k0 and vectors [v0, v1), in the order of its memory.
template <class T>
FD_INLINE Ahead<T> fetch_block(const Gemm<T>& g, int64_t k0, int64_t kc, int64_t v0, int64_t v1, int64_t tiles) {
  constexpr int lanes = Vec<T>::size;
  const int64_t depth = min_of(kc, g.k - k0), cols = min_of(v1 * lanes, g.n) - v0 * lanes;
  const T* const first = g.b + k0 * g.b_k + v0 * lanes * g.b_col;
  if (g.b_col == 1) return {first, g.b_k, depth, cols, tiles};
  if (g.b_k == 1) return {first, g.b_col, cols, depth, tiles};
  return {};
}

// One piece: row block rb, column block cb of C. pack_here: nobody else needs these panels, so they are packed just before use.
template <class T>
inline void gemm_piece(const Gemm<T>& g, const GemmPlan& plan, int64_t rb, int64_t cb, T* packed, bool pack_here) {
  constexpr int lanes = Vec<T>::size;
  alignas(64) T strip_buf[kStripElements<T>];
  alignas(64) T edge_buf[kGemmKc * kGemmEdge * lanes];
  const int64_t panels = panels_of(plan);
  const int64_t v0 = panel_begin(plan, cb * panels / plan.col_blocks), v1 = panel_begin(plan, (cb + 1) * panels / plan.col_blocks);
  const int64_t tile0 = rb * plan.tiles / plan.row_blocks, tile1 = (rb + 1) * plan.tiles / plan.row_blocks;
  const bool cut = g.n % lanes != 0 && v1 == plan.vectors;
  // The last vectors of a direct B, if the last is partial, are a panel that is copied: nothing is read past the end of a row.
  const int edge_vectors = plan.packed || !cut              ? 0
                           : kGemmEdge == 1 || plan.nv == 4 ? 1
                           : plan.triple                    ? 3
                           : plan.vectors == 1              ? 1
                                                            : 2;
  const int64_t panels_here = ceil_div(v1 - v0, int64_t(plan.nv));
  const bool copy_strip = (v1 - v0 > plan.nv + plan.triple && steps_far(g)) || (panels_here >= kGemmCopyPanels && rows_meet(g));
  const bool turned = copy_strip && g.a_row == 1;
  T* strips = strip_buf;
  int64_t at_once = 1;
  int strip_width = 0;
  if (turned) {
    strip_width = int(ceil_div(ceil_div(g.m, plan.tiles), int64_t(lanes))) * lanes;
    at_once = min_of(int64_t(kStripsAtOnce), tile1 - tile0);
    strips = static_cast<T*>(thread_scratch(at_once * strip_pitch<T>(plan.kc, strip_width) * int64_t(sizeof(T))));
    if (!strips) strips = strip_buf, at_once = 1;
  }
  const bool large_b = g.k * g.n * int64_t(sizeof(T)) > kGemmPrefetchBytes, prefetch = !plan.packed && large_b;
  // The next block that is packed here is fetched in the second half of the tiles: if earlier, it would leave the caches again.
  const int64_t half = kFetchesStrips && pack_here && large_b ? (tile0 + tile1) / 2 : tile1;

  for (int64_t kb = 0; kb < plan.k_blocks; kb++) {
    const int64_t k0 = kb * plan.kc, kc = min_of(plan.kc, g.k - k0);
    const bool last = kb == plan.k_blocks - 1;
    // A private block is packed to the same place for every k0, so that it stays in L2; where the last kc is shorter, too, its
    // vectors lie within those of v0 and after, as the blocks beside it may be at another k0.
    T* const block = pack_here ? packed + v0 * (plan.kc - kc) * lanes : packed + k0 * plan.vectors * lanes;
    if (pack_here) pack_vectors(g, plan, k0, kc, v0, v1, block);
    if (edge_vectors) {
      const int64_t j = (plan.vectors - edge_vectors) * lanes;
      pack_panel(g.b + k0 * g.b_k + j, g.b_k, int64_t(1), kc, int(g.n - j), edge_vectors * lanes, edge_buf);
    }
    Tile<T> t;
    t.k = kc;
    t.c_row = g.c_row;
    t.accumulate = g.accumulate || kb > 0;
    t.relu = last && g.relu;
    t.fetch_c = g.m * g.n * int64_t(sizeof(T)) > kGemmPrefetchBytes && kc >= kGemmPrefetchK;
    Ahead<T> next, next_block;
    for (int64_t tile = tile0; tile < tile1; tile++) {
      if (tile == half && !last) next_block = fetch_block(g, k0 + kc, plan.kc, v0, v1, panels_here * (tile1 - tile));
      const int64_t i0 = tile * g.m / plan.tiles;
      const int rows = int((tile + 1) * g.m / plan.tiles - i0);
      Strip<T> strip = {g.a + i0 * g.a_row + k0 * g.a_k, g.a_row, g.a_k};
      if (turned) {
        const int64_t at = (tile - tile0) % at_once;
        if (at == 0) {
          const int64_t end = min_of(tile + at_once, tile1);
          pack_strips(g.a + k0 * g.a_k, g.a_k, g.m, plan.tiles, tile, end, kc, strip_width, strips);
          next = {};
          const bool more = end < tile1;
          if (kFetchesStrips && (more || !last)) {
            const int64_t tile_next = more ? end : tile0, end_next = min_of(tile_next + at_once, tile1);
            const int64_t first = tile_next * g.m / plan.tiles, k_next = more ? k0 : k0 + kc;
            next = Ahead<T>(g.a + first + k_next * g.a_k, g.a_k, min_of(kc, g.k - k_next), end_next * g.m / plan.tiles - first,
                            panels_here * (end - tile));
          }
        }
        strip = {strips + at * strip_pitch<T>(kc, strip_width), 1, strip_width};
      } else if (copy_strip) {
        strip = pack_strip(strip.a, g.a_row, g.a_k, rows, kc, strip_buf);
      }
      t.a = strip.a;
      t.a_row = strip.a_row;
      t.a_k = strip.a_k;
      t.prefetch = prefetch && tile == tile0;
      if (kFetchesStrips && g.a_k == 1) {
        next = {};
        if (tile + 1 < tile1)
          next = Ahead<T>(g.a + (i0 + rows) * g.a_row + k0, g.a_row, (tile + 2) * g.m / plan.tiles - i0 - rows, kc, panels_here);
      }
      for (int64_t v = v0; v < v1;) {
        next.fetch();
        next_block.fetch();
        const int nv = panel_vectors(plan, v, v1, edge_vectors);
        const bool edge = cut && v + nv == v1;
        const int64_t j = v * lanes;
        if (plan.packed) {
          t.b = block + v * kc * lanes;
          t.b_k = nv * lanes;
        } else if (edge) {
          t.b = edge_buf;
          t.b_k = nv * lanes;
        } else {
          t.b = g.b + k0 * g.b_k + j;
          t.b_k = g.b_k;
        }
        t.c = g.c + i0 * g.c_row + j;
        t.tail = edge ? int(g.n - (v + nv - 1) * lanes) : lanes;
        t.bias = last && g.bias ? g.bias + j : nullptr;
        run_tile(nv, rows, t, [&]() { next.fetch(), next_block.fetch(); });
        v += nv;
      }
    }
  }
  const int64_t i0 = tile0 * g.m / plan.tiles, i1 = tile1 * g.m / plan.tiles, j0 = v0 * lanes, j1 = min_of(v1 * lanes, g.n);
  if (g.mirror) {
    transpose(g.c + i0 * g.c_row + j0, g.c_row, g.mirror + j0 * g.mirror_row + i0, g.mirror_row, i1 - i0, j1 - j0);
    for (int64_t j = j0; j < j1; j++)
      finish_row(g.mirror + j * g.mirror_row + i0, i1 - i0, g.mirror_bias ? g.mirror_bias + i0 : nullptr, g.mirror_relu, g.finish);
  } else if (g.finish) {
    for (int64_t i = i0; i < i1; i++) g.finish(g.c + i * g.c_row + j0, j1 - j0);
  }
}

// Multiply-adds of a piece, padding of its tiles included.
template <class T>
FD_INLINE int64_t piece_macs(const Gemm<T>& g, const GemmPlan& plan, int64_t piece) {
  const int64_t rb = piece % plan.row_blocks, cb = piece / plan.row_blocks, panels = panels_of(plan);
  const int64_t tiles = (rb + 1) * plan.tiles / plan.row_blocks - rb * plan.tiles / plan.row_blocks;
  const int64_t v0 = panel_begin(plan, cb * panels / plan.col_blocks), v1 = panel_begin(plan, (cb + 1) * panels / plan.col_blocks);
  return tiles * (v1 - v0) * g.k * ceil_div(g.m, plan.tiles) * Vec<T>::size;
}

// Products [first, first + count) of the batch. Each has `slot` elements of workspace: for C if that is scratch, and packed B.
template <class T>
inline void gemm_batch(const Gemm<T>& g, const GemmPlan& plan, const ProductBatch& batch, int64_t first, int64_t count,
                       T* workspace, int64_t slot) {
  constexpr int lanes = Vec<T>::size;
  const int64_t pieces = plan.row_blocks * plan.col_blocks;
  const bool pack_here = plan.packed && plan.row_blocks == 1;
  const auto item = [&](int64_t i) {
    Gemm<T> one = batch_item(g, batch, first + i);
    if (g.mirror) one.c = workspace + i * slot;
    return one;
  };
  const auto packed_b = [&](int64_t i) { return workspace + i * slot + (g.mirror ? g.m * g.n : 0); };
  if (plan.packed && !pack_here) {
    const int64_t panels = panels_of(plan);
    const int64_t share = max_of(int64_t(1), kGemmPackPiece / (plan.kc * plan.nv * lanes));  // panels in one task
    const int64_t tasks = ceil_div(panels, share), all = plan.k_blocks * tasks;
    parallel_chunks(count * all, [&](int64_t task) {
      const int64_t i = task / all, k0 = task / tasks % plan.k_blocks * plan.kc, p0 = task % tasks * share;
      piece_work(min_of(share, panels - p0) * plan.nv * lanes * plan.kc, 2 * kGemmPackPiece);
      pack_vectors(item(i), plan, k0, min_of(plan.kc, g.k - k0), panel_begin(plan, p0),
                   panel_begin(plan, min_of(p0 + share, panels)), packed_b(i) + k0 * plan.vectors * lanes);
    });
  }
  const int64_t macs = max_of(g.m * g.n / pieces * g.k, int64_t(1));
  const int64_t group = pieces > 1 ? 1 : max_of(int64_t(1), kGemmChunkMacs / macs);  // small products share a chunk
  parallel_for(count * pieces, group, [&](int64_t begin, int64_t end) {
    piece_work(pieces > 1 ? piece_macs(g, plan, begin % pieces) : (end - begin) * macs, 2 * kGemmChunkMacs);
    for (int64_t i = begin; i < end; i++) {
      const int64_t which = i / pieces, piece = i % pieces;
      gemm_piece(item(which), plan, piece % plan.row_blocks, piece / plan.row_blocks, packed_b(which), pack_here);
    }
  });
}

// Is C^T = B^T A^T cheaper, for a B that would have to be transposed? In cycles per lane: a transposing pack handles about 5
// elements, a tile 2 * lanes multiply-adds per cycle, padding included.
template <class T>
inline bool prefers_swap(const Gemm<T>& g, int64_t slot) {
  constexpr int64_t lanes = Vec<T>::size;
  if (g.b_col == 1 || g.b_k != 1 || g.accumulate) return false;
  const int64_t m_pad = ceil_div(g.m, lanes) * lanes, n_pad = ceil_div(g.n, lanes) * lanes;
  const bool pack_a = g.a_row != 1;
  if (g.k * m_pad + g.m * g.n > slot) return false;
  const double macs = 2.0 * lanes, moves = 5.0;
  const double plain = double(g.k) * double(g.n) / moves + double(g.m) * double(n_pad) * double(g.k) / macs;
  const double swap = (pack_a ? double(g.k) * double(g.m) / moves : 0) + 2 * double(g.m) * double(g.n) / moves +
                      double(m_pad) * double(g.n) * double(g.k) / macs;
  return swap < plain;
}

template <class T>
inline Gemm<T> swap_operands(const Gemm<T>& g) {
  Gemm<T> s = {g.n, g.m,     g.k,   g.b,   g.b_col,  g.b_k, g.a,     g.a_k,  g.a_row, nullptr,
               g.m, nullptr, false, false, g.finish, g.c,   g.c_row, g.bias, g.relu,  nullptr};
  return s;
}

// All products of a batch (or one with batch.count 1) with at least two rows and columns.
template <class T>
inline void gemm_products(const Gemm<T>& g, const ProductBatch& batch, T* workspace, int64_t plan_pieces) {
  const int64_t slot = gemm_packed_size(g.k, g.n);
  if (slot <= kGemmPackLimit && prefers_swap(g, slot)) {
    Gemm<T> s = swap_operands(g);
    ProductBatch b = batch;
    for (int d = 0; d < b.ndim; d++) b.a[d] = batch.b[d], b.b[d] = batch.a[d];
    const GemmPlan plan = plan_gemm(s, plan_pieces);
    const int64_t at_once = max_of(int64_t(1), kGemmPackLimit / max_of(slot, int64_t(1)));
    for (int64_t i = 0; i < batch.count; i += at_once) gemm_batch(s, plan, b, i, min_of(at_once, batch.count - i), workspace, slot);
    return;
  }
  const GemmPlan plan = plan_gemm(g, plan_pieces);
  if (!plan.packed || slot <= kGemmPackLimit) {
    const int64_t at_once = plan.packed ? max_of(int64_t(1), kGemmPackLimit / max_of(slot, int64_t(1))) : batch.count;
    for (int64_t i = 0; i < batch.count; i += at_once)
      gemm_batch(g, plan, batch, i, min_of(at_once, batch.count - i), workspace, slot);
    return;
  }
  // B is larger than the workspace: slab by slab, each product on its own
  const int64_t k_slab = min_of(g.k, kGemmSlabK), n_slab = min_of(g.n, kGemmPackLimit / k_slab / 64 * 64);
  ProductBatch none = {};
  none.count = 1;
  for (int64_t i = 0; i < batch.count; i++) {
    const Gemm<T> one = batch_item(g, batch, i);
    for (int64_t j = 0; j < g.n; j += n_slab) {
      for (int64_t k = 0; k < g.k; k += k_slab) {
        Gemm<T> part = one;
        part.n = min_of(n_slab, g.n - j);
        part.k = min_of(k_slab, g.k - k);
        part.a += k * g.a_k;
        part.b += k * g.b_k + j * g.b_col;
        part.c += j;
        part.accumulate = g.accumulate || k > 0;
        const bool last = k + k_slab >= g.k;
        part.bias = last && g.bias ? g.bias + j : nullptr;
        part.relu = last && g.relu;
        if (!last) part.finish = nullptr;
        gemm_batch(part, plan_gemm(part, int64_t(1)), none, 0, 1, workspace, kGemmPackLimit);
      }
    }
  }
}

// Small C, long k: partial products over `splits` parts of k, then their sum.
template <class T>
inline void gemm_split(const Gemm<T>& g, T* workspace, int64_t splits) {
  T* const sums = workspace;
  T* const scratch = workspace + splits * g.m * g.n;
  const int64_t part = ceil_div(ceil_div(g.k, splits), int64_t(8)) * 8;
  // many threads share the columns of a part, in blocks that begin where vectors of any width do
  constexpr int64_t unit = 16;
  const int64_t units = ceil_div(g.n, unit), least = ceil_div(kGemmChunkMacs, max_of(g.m * unit * part, int64_t(1)));
  const int64_t blocks = fair_cut(splits, 1, units, {1, 1}, least, num_threads()).cols;
  parallel_chunks(splits * blocks, [&](int64_t chunk) {
    const int64_t s = chunk / blocks, block = chunk % blocks, k0 = min_of(s * part, g.k);
    const int64_t j0 = block * units / blocks * unit, j1 = min_of((block + 1) * units / blocks * unit, g.n);
    Gemm<T> one = g;
    one.n = j1 - j0;
    one.k = min_of(part, g.k - k0);
    piece_work(one.m * one.n * one.k, 2 * kGemmChunkMacs);
    one.a += k0 * g.a_k;
    one.b += k0 * g.b_k + j0 * g.b_col;
    one.c = sums + s * g.m * g.n + j0;
    one.c_row = g.n;
    one.bias = nullptr;
    one.relu = false;
    one.finish = nullptr;
    ProductBatch none = {};
    none.count = 1;
    gemm_products(one, none, scratch + gemm_packed_size(k0, g.n) + gemm_packed_size(one.k, j0), kGemmAlone);
  });
  parallel_for(g.m, max_of(int64_t(1), int64_t(8192) / g.n), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      T* c = g.c + i * g.c_row;
      for (int64_t j = 0; j < g.n; j++) {
        T sum = sums[i * g.n + j];
        for (int64_t s = 1; s < splits; s++) sum += sums[(s * g.m + i) * g.n + j];
        c[j] = sum;
      }
      finish_row(c, g.n, g.bias, g.relu, g.finish);
    }
  });
}

// Whether gemm() gives the sums of A's rows, too, of a single product: summed while tiles multiply.
template <class T>
inline bool sums_rows(const Gemm<T>&) {
  return false;
}
#if defined(__AMX_BF16__)
template <>
inline bool sums_rows(const Gemm<float>& g) {
  return wants_tiles(g) && g.a_row == 1 && g.m > 1 && g.n > 1 && !wants_dots(g);
}
#endif

// The entry: C = A B for every matrix of the batch. workspace: gemm_workspace_elements(batch.count, m, n, k).
template <class T>
inline void gemm(Gemm<T> g, ProductBatch batch, T* workspace) {
  if (batch.count == 0 || g.m == 0 || g.n == 0) return;
  merge_rows(g, batch);
  if (g.m == 1 || g.n == 1) return gemv_batch(g, batch, workspace);
  if (wants_dots(g)) return dot_batch(g, batch);
#if defined(__AMX_BF16__)
  if (wants_tiles(g)) {
    ProductBatch one = {};
    one.count = 1;
    for (int64_t first = 0; first < batch.count; first += kTileBatch) {
      uint64_t left = gemm_tiles(g, batch, first, min_of(kTileBatch, batch.count - first));
      for (; left; left &= left - 1) gemm_products(batch_item(g, batch, first + __builtin_ctzll(left)), one, workspace, int64_t(1));
    }
    return;
  }
#endif
  const int64_t splits = gemm_splits(batch.count, g.m, g.n, g.k);
  if (splits > 1 && g.c_row == g.n) return gemm_split(g, workspace, splits);
  gemm_products(g, batch, workspace, batch.count);
}

}  // namespace
}  // namespace fastdl
