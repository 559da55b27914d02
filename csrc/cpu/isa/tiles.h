// Strided memory in tiles: how elementwise kernels and copies order, merge and cut the dims of their operands, and how a tile moves
// between strided and dense memory, by item size.
#pragma once
#include "cpu/isa/past_caches.h"

namespace fastdl {
namespace {

constexpr int kMaxOperands = 4;       // inputs, then the output
constexpr int64_t kTileBytes = 8192;  // per operand; 4 operands + staging stay within a 48 KB L1
constexpr int64_t kAcross = 16;       // rows of a 2-d tile: a cache line of the transposed operand

struct Item16 {
  uint64_t a, b;
};

// ---- moving 2-d pieces ---------------------------------------------------------------------------------------------------
// kW x kW items in registers, by log2(kW) rounds: each exchanges blocks of s lanes between rows s apart.
template <int s, class T>
FD_INLINE void transpose_registers(Vec<T>* rows) {
  constexpr int kW = Vec<T>::size;
  typename Vec<T>::Native low = {}, high = {};  // the lanes to pick from a, b
  for (int l = 0; l < kW; l++) {
    low[l] = l & s ? kW + l - s : l;
    high[l] = l & s ? kW + l : l + s;
  }
  for (int i = 0; i < kW; i++) {
    if (i & s) continue;
    const Vec<T> a = rows[i], b = rows[i + s];
    rows[i] = __builtin_shuffle(a.v, b.v, low);
    rows[i + s] = __builtin_shuffle(a.v, b.v, high);
  }
  if constexpr (s > 1) transpose_registers<s / 2>(rows);
}

// dst[r, c] <- src[c, r]: rows of dst are drs apart, its columns 1; those of src 1 and scs.
template <class T>
void transpose_2d(T* dst, const T* src, int64_t rows, int64_t cols, int64_t drs, int64_t scs) {
  int64_t r = 0;
  if constexpr (sizeof(T) == 4 || sizeof(T) == 8) {
    constexpr int kW = Vec<T>::size;
    for (; r + kW <= rows; r += kW) {
      // kW streams of stores are more than the hardware prefetches: without help every line waits for memory alone (8x)
      for (int64_t i = 0; i < kW && cols >= kW; i++)
        for (int64_t c = 0; c < cols; c += 64 / int(sizeof(T))) __builtin_prefetch(dst + (r + i) * drs + c, 1);
      int64_t c = 0;
      for (; c + kW <= cols; c += kW) {
        Vec<T> v[kW];
#pragma GCC unroll 16
        for (int i = 0; i < kW; i++) v[i] = load(src + r + (c + i) * scs);
        transpose_registers<kW / 2>(v);
#pragma GCC unroll 16
        for (int i = 0; i < kW; i++) store(dst + (r + i) * drs + c, v[i]);
      }
      for (; c < cols; c++)
        for (int i = 0; i < kW; i++) dst[(r + i) * drs + c] = src[r + i + c * scs];
    }
  }
  for (; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) dst[r * drs + c] = src[r + c * scs];
}

// dst[i] <- src[2 i]: a real part, or every second element. Reads nothing beyond src[2 n - 2].
template <class T>
void copy_every_second(T* dst, const T* src, int64_t n) {
  int64_t i = 0;
  if constexpr (sizeof(T) == 4 || sizeof(T) == 8) {
    constexpr int kW = Vec<T>::size;
    for (; i + kW < n; i += kW) store(dst + i, even_lanes(load(src + 2 * i), load(src + 2 * i + kW)));
  }
  for (; i < n; i++) dst[i] = src[2 * i];
}

// dst[r, c] <- src[r, c]; strides in elements, dst columns 1 apart
template <class T>
void gather_2d(T* dst, const T* src, int64_t rows, int64_t cols, int64_t drs, int64_t srs, int64_t scs) {
  if (srs == 0 && rows > 1) {  // the same row again and again
    gather_2d(dst, src, 1, cols, 0, 0, scs);
    for (int64_t r = 1; r < rows; r++) __builtin_memcpy(dst + r * drs, dst, cols * sizeof(T));
  } else if (scs == 1) {
    for (int64_t r = 0; r < rows; r++) __builtin_memcpy(dst + r * drs, src + r * srs, cols * sizeof(T));
  } else if (srs == 1 && rows > 1 && scs != 0) {
    transpose_2d(dst, src, rows, cols, drs, scs);
  } else {
    for (int64_t r = 0; r < rows; r++) {
      T* const to = dst + r * drs;
      const T* const from = src + r * srs;
      if (scs == 0) {
        const T x = *from;
        for (int64_t c = 0; c < cols; c++) to[c] = x;
      } else if (scs == 2) {
        copy_every_second(to, from, cols);
      } else if (scs == -1) {
        for (int64_t c = 0; c < cols; c++) to[c] = from[-c];
      } else {
        for (int64_t c = 0; c < cols; c++) to[c] = from[c * scs];
      }
    }
  }
}

// dst[r, c] <- src[r, c], src dense
template <class T>
void scatter_2d(T* dst, const T* src, int64_t rows, int64_t cols, int64_t drs, int64_t dcs) {
  if (dcs == 1) {
    for (int64_t r = 0; r < rows; r++) __builtin_memcpy(dst + r * drs, src + r * cols, cols * sizeof(T));
  } else {
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < cols; c++) dst[r * drs + c * dcs] = src[r * cols + c];
  }
}

// A tile seen by one operand: n dims, innermost last, with extents and strides in elements.
struct TileView {
  int n;
  int64_t extent[kMaxDims], stride[kMaxDims];
};

// dense <- strided (gather) or strided <- dense, as 2-d pieces
template <class T>
void move_tile(void* dense_, void* strided_, const TileView& t, bool gather) {
  T* dense = static_cast<T*>(dense_);
  T* strided = static_cast<T*>(strided_);
  const int n = t.n;
  const int64_t cols = n > 0 ? t.extent[n - 1] : 1, cs = n > 0 ? t.stride[n - 1] : 1;
  const int64_t rows = n > 1 ? t.extent[n - 2] : 1, rs = n > 1 ? t.stride[n - 2] : 0;
  int64_t index[kMaxDims] = {};
  for (;;) {
    if (gather)
      gather_2d<T>(dense, strided, rows, cols, cols, rs, cs);
    else
      scatter_2d<T>(strided, dense, rows, cols, rs, cs);
    dense += rows * cols;
    int d = n - 3;
    for (; d >= 0; d--) {
      strided += t.stride[d];
      if (++index[d] < t.extent[d]) break;
      strided -= t.stride[d] * t.extent[d];
      index[d] = 0;
    }
    if (d < 0) return;
  }
}
// f with a value of the integer type that has the size of an item
template <class F>
FD_INLINE void by_item(int64_t item, F&& f) {
  if (item == 4)
    f(int32_t());
  else if (item == 8)
    f(int64_t());
  else if (item == 2)
    f(int16_t());
  else if (item == 1)
    f(int8_t());
  else
    f(Item16());
}
inline void move_tile(void* dense, void* strided, const TileView& t, bool gather, int64_t item) {
  by_item(item, [&](auto zero) { move_tile<decltype(zero)>(dense, strided, t, gather); });
}

// ---- the iteration space ----------------------------------------------------------------------------------------------
// Dims common to all operands, outermost first, ordered by the output's strides and merged. Operand nin is the output.
struct Walk {
  int ndim, nin;
  int64_t shape[kMaxDims];
  int64_t stride[kMaxOperands][kMaxDims];
};

inline int64_t magnitude(int64_t a) { return a < 0 ? -a : a; }

inline void make_walk(Walk& w, const Args& a) {
  const View& o = a.out[0];
  const int nin = w.nin = a.nin, ops = nin + 1;
  int n = 0;
  for (int d = 0; d < o.ndim; d++) {
    if (o.shape[d] == 1) continue;
    int at = n++;  // insertion by falling output stride; equal strides keep their order
    const int64_t key = magnitude(o.strides[d]);
    for (; at > 0 && magnitude(w.stride[nin][at - 1]) < key; at--) {
      w.shape[at] = w.shape[at - 1];
      for (int k = 0; k < ops; k++) w.stride[k][at] = w.stride[k][at - 1];
    }
    w.shape[at] = o.shape[d];
    for (int k = 0; k < nin; k++) w.stride[k][at] = a.in[k].ndim == o.ndim ? a.in[k].strides[d] : 0;
    w.stride[nin][at] = o.strides[d];
  }
  int m = 0;  // merged dims are 0 .. m
  for (int d = 1; d < n; d++) {
    bool joins = true;
    for (int k = 0; k < ops; k++) joins &= w.stride[k][m] == w.stride[k][d] * w.shape[d];
    if (joins)
      w.shape[m] *= w.shape[d];
    else
      w.shape[++m] = w.shape[d];
    for (int k = 0; k < ops; k++) w.stride[k][m] = w.stride[k][d];
  }
  w.ndim = n > 0 ? m + 1 : 0;
}

// How the walk is cut: extent[d] elements of each dim per tile.
struct Tiling {
  int64_t extent[kMaxDims], count[kMaxDims], tiles;
  int across;  // >= 0: 2-d tiles, rows from this dim, the block runs once per row; -1: the tile is one dense run of the output
};

inline void make_tiling(Tiling& t, const Walk& w, int64_t tile_elements) {
  const int n = w.ndim;
  for (int d = 0; d < n; d++) t.extent[d] = 1;
  t.across = -1;
  if (n > 1) {  // an operand whose smallest stride is not on the last dim?
    for (int k = 0; k <= w.nin; k++) {
      const int64_t last = magnitude(w.stride[k][n - 1]);
      for (int d = 0; d < n - 1; d++)
        if (last > 1 && w.stride[k][d] != 0 && magnitude(w.stride[k][d]) < last && w.shape[d] >= 4 && w.shape[n - 1] >= 16 &&
            (t.across < 0 || magnitude(w.stride[k][d]) < magnitude(w.stride[k][t.across])))
          t.across = d;
      if (t.across >= 0) break;
    }
  }
  if (t.across >= 0) {
    t.extent[t.across] = min_of<int64_t>(w.shape[t.across], kAcross);
    t.extent[n - 1] = min_of<int64_t>(w.shape[n - 1], max_of<int64_t>(tile_elements / kAcross, 16));
  } else {
    int64_t left = tile_elements;
    for (int d = n - 1; d >= 0; d--) {
      if (w.shape[d] <= left) {
        t.extent[d] = w.shape[d];
        left /= w.shape[d];
        continue;
      }
      const int64_t pieces = ceil_div(w.shape[d], max_of<int64_t>(left, 1));
      t.extent[d] = ceil_div(w.shape[d], pieces);  // even pieces
      break;
    }
  }
  t.tiles = 1;
  for (int d = 0; d < n; d++) t.tiles *= t.count[d] = ceil_div(w.shape[d], t.extent[d]);
}

// Is operand k one dense run in every tile?
inline bool dense_in_tile(const Tiling& t, const Walk& w, int k) {
  int64_t want = 1;
  for (int d = w.ndim - 1; d >= 0 && t.extent[d] > 1; d--) {
    if (w.stride[k][d] != want) return false;
    want *= w.shape[d];
  }
  return true;
}

// Where tile number `tile` lies: its size per dim and its offset in each operand; returns the element count.
inline int64_t place_tile(const Tiling& t, const Walk& w, int64_t tile, int64_t* size, int64_t* offset) {
  int64_t total = 1;
  for (int k = 0; k <= w.nin; k++) offset[k] = 0;
  for (int d = w.ndim - 1; d >= 0; d--) {
    const int64_t at = tile % t.count[d] * t.extent[d];
    tile /= t.count[d];
    total *= size[d] = min_of(t.extent[d], w.shape[d] - at);
    for (int k = 0; k <= w.nin; k++) offset[k] += at * w.stride[k][d];
  }
  return total;
}

// The tile's dims as operand k sees them.
inline TileView tile_view(const Tiling& t, const Walk& w, const int64_t* size, int k) {
  TileView v;
  v.n = 0;
  for (int d = 0; d < w.ndim; d++) {
    if (t.extent[d] == 1) continue;
    v.extent[v.n] = size[d];
    v.stride[v.n++] = w.stride[k][d];
  }
  return v;
}

}  // namespace
}  // namespace fastdl
