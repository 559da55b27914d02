// The driver of all elementwise kernels. An op brings one loop over contiguous blocks of its compute type (map_block makes it from
// a formula of math/); the driver brings everything else: strides, broadcasting, other dtypes, threads.
//
// Method: dims are ordered by the output's memory and merged where all operands allow it. What remains is cut into tiles of about
// 8 KB that stay in L1. Operands that lie dense in a tile, in the compute dtype, are used where they are; the others are gathered
// and converted into a buffer on the stack, once for as long as the source does not move (scalars, rows, channel vectors).
// Results are written in place or, if the output is strided or of a 16-bit type, through such a buffer.
// A transposed operand turns tiles into 2-d ones, wide along the unit strides of both sides.
#pragma once
#include "cpu/isa/kernel.h"
#include "cpu/vec/cast.h"

namespace fastdl {
namespace {

using BlockFn = void (*)(void* out, const void* const* in, int64_t n, const Attrs& attrs);

constexpr int kMaxOperands = 4;             // inputs, then the output
constexpr int64_t kTileBytes = 8192;        // per operand; 4 operands + staging stay within a 48 KB L1
constexpr int64_t kCheapGrain = 32 * 1024;  // elements per task: add, compare, relu
constexpr int64_t kCostlyGrain = 8 * 1024;  // exp, tanh, power

// What the driver needs to know of an op. Constant per kernel.
struct ElementwiseOp {
  BlockFn block;
  DType in[kMaxOperands - 1];  // compute dtype of each input
  DType out;                   // dtype that block writes
  int64_t grain;
  CastFn (*load[kMaxOperands - 1])(DType from);  // cast to in[k]
  CastFn (*save)(DType to);                      // cast from out
};

// ---- moving strided tiles ---------------------------------------------------------------------------------------------
struct Item16 {
  uint64_t a, b;
};

// dst (rows, cols) dense <- src with strides; all lengths in elements.
template <class T>
inline void gather_2d(T* dst, const T* src, int64_t rows, int64_t cols, int64_t rs, int64_t cs) {
  if (rs == 0 && rows > 1) {  // the same row again and again
    gather_2d(dst, src, 1, cols, 0, cs);
    for (int64_t r = 1; r < rows; r++) __builtin_memcpy(dst + r * cols, dst, cols * sizeof(T));
  } else if (cs == 1) {
    for (int64_t r = 0; r < rows; r++) __builtin_memcpy(dst + r * cols, src + r * rs, cols * sizeof(T));
  } else if (cs == 0) {
    for (int64_t r = 0; r < rows; r++) {
      const T x = src[r * rs];
      for (int64_t c = 0; c < cols; c++) dst[r * cols + c] = x;
    }
  } else if (rows > 1 && (rs == 1 || rs == -1)) {  // transposed: read along the source's unit stride
    for (int64_t c = 0; c < cols; c++)
      for (int64_t r = 0; r < rows; r++) dst[r * cols + c] = src[r * rs + c * cs];
  } else {
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < cols; c++) dst[r * cols + c] = src[r * rs + c * cs];
  }
}
template <class T>
inline void scatter_2d(T* dst, const T* src, int64_t rows, int64_t cols, int64_t rs, int64_t cs) {
  if (cs == 1) {
    for (int64_t r = 0; r < rows; r++) __builtin_memcpy(dst + r * rs, src + r * cols, cols * sizeof(T));
  } else {
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < cols; c++) dst[r * rs + c * cs] = src[r * cols + c];
  }
}

// A tile seen by one operand: n dims (innermost last) with extents and strides in elements.
struct TileView {
  int n;
  int64_t extent[kMaxDims], stride[kMaxDims];
};

// Walks the tile as 2-d pieces. gather: dense <- strided, else strided <- dense.
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
      gather_2d<T>(dense, strided, rows, cols, rs, cs);
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
inline void move_tile(void* dense, void* strided, const TileView& t, bool gather, int64_t item) {
  if (item == 4)
    move_tile<uint32_t>(dense, strided, t, gather);
  else if (item == 8)
    move_tile<uint64_t>(dense, strided, t, gather);
  else if (item == 2)
    move_tile<uint16_t>(dense, strided, t, gather);
  else if (item == 1)
    move_tile<uint8_t>(dense, strided, t, gather);
  else
    move_tile<Item16>(dense, strided, t, gather);
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

// How the walk is cut: extent[d] elements of each dim per tile. Dims >= first may have an extent above 1.
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
    t.extent[t.across] = min_of<int64_t>(w.shape[t.across], 16);
    t.extent[n - 1] = min_of<int64_t>(w.shape[n - 1], max_of<int64_t>(tile_elements / 16, 16));
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

// ---- one task: a range of tiles ----------------------------------------------------------------------------------------
struct ElementwiseJob {
  const Args& a;
  const ElementwiseOp& op;
  const Walk& w;
  const Tiling& t;
};

inline bool dense_in_tile(const Tiling& t, const Walk& w, int k) {
  int64_t want = 1;
  for (int d = w.ndim - 1; d >= 0 && t.extent[d] > 1; d--) {
    if (w.stride[k][d] != want) return false;
    want *= w.shape[d];
  }
  return true;
}

void run_tiles(const ElementwiseJob& job, int64_t begin, int64_t end) {
  const Walk& w = job.w;
  const Tiling& t = job.t;
  const int n = w.ndim, nin = w.nin, across = t.across;
  alignas(64) unsigned char buffer[kMaxOperands][kTileBytes], raw[kTileBytes];
  CastFn cast[kMaxOperands];
  int64_t item[kMaxOperands], compute_item[kMaxOperands];
  char* base[kMaxOperands];
  bool direct[kMaxOperands], dense[kMaxOperands];
  const void* held[kMaxOperands] = {};  // the source whose tile sits in buffer[k], and its size
  int64_t held_rows[kMaxOperands] = {}, held_cols[kMaxOperands] = {};
  for (int k = 0; k <= nin; k++) {
    const View& v = k < nin ? job.a.in[k] : job.a.out[0];
    const DType compute = k < nin ? job.op.in[k] : job.op.out;
    base[k] = static_cast<char*>(v.data);
    item[k] = itemsize(v.dtype), compute_item[k] = itemsize(compute);
    cast[k] = v.dtype == compute ? nullptr : k < nin ? job.op.load[k](v.dtype) : job.op.save(v.dtype);
    dense[k] = across < 0 && dense_in_tile(t, w, k);
    direct[k] = !cast[k] && (across < 0 ? dense[k] : w.stride[k][n - 1] == 1);
  }

  for (int64_t tile = begin; tile < end; tile++) {
    int64_t offset[kMaxOperands] = {}, size[kMaxDims], total = 1;
    int64_t rest = tile;
    for (int d = n - 1; d >= 0; d--) {
      const int64_t at = rest % t.count[d] * t.extent[d];
      rest /= t.count[d];
      size[d] = min_of(t.extent[d], w.shape[d] - at);
      total *= size[d];
      for (int k = 0; k <= nin; k++) offset[k] += at * w.stride[k][d];
    }
    const int64_t rows = across < 0 ? 1 : size[across], cols = total / rows;
    TileView v;
    v.n = 0;
    int64_t* const extent = v.extent;
    for (int d = 0; d < n; d++)
      if (t.extent[d] > 1) extent[v.n++] = size[d];
    const auto seen_by = [&](int k) {
      int m = 0;
      for (int d = 0; d < n; d++)
        if (t.extent[d] > 1) v.stride[m++] = w.stride[k][d];
    };

    char* at[kMaxOperands];  // where the block reads and writes, and the step between its rows
    int64_t step[kMaxOperands];
    for (int k = 0; k <= nin; k++) {
      char* const source = base[k] + offset[k] * item[k];
      if (direct[k]) {
        at[k] = source;
        step[k] = across < 0 ? 0 : w.stride[k][across] * item[k];
        continue;
      }
      at[k] = reinterpret_cast<char*>(buffer[k]);
      step[k] = cols * compute_item[k];
      if (k == nin || (held[k] == source && held_rows[k] == rows && held_cols[k] == cols)) continue;
      held[k] = source, held_rows[k] = rows, held_cols[k] = cols;
      if (dense[k]) {
        cast[k](at[k], source, total);
      } else {
        seen_by(k);
        move_tile(cast[k] ? static_cast<void*>(raw) : at[k], source, v, true, item[k]);
        if (cast[k]) cast[k](at[k], raw, total);
      }
    }
    for (int64_t r = 0; r < rows; r++) {
      const void* in[kMaxOperands - 1] = {};
      for (int k = 0; k < nin; k++) in[k] = at[k] + r * step[k];
      job.op.block(at[nin] + r * step[nin], in, cols, *job.a.attrs);
    }
    if (!direct[nin]) {
      char* const target = base[nin] + offset[nin] * item[nin];
      if (dense[nin]) {
        cast[nin](target, at[nin], total);
      } else {
        seen_by(nin);
        if (cast[nin]) cast[nin](raw, at[nin], total);
        move_tile(cast[nin] ? static_cast<void*>(raw) : at[nin], target, v, false, item[nin]);
      }
    }
  }
}

__attribute__((noinline)) void elementwise_strided(const Args& a, const ElementwiseOp& op) {
  Walk w;
  make_walk(w, a);
  int64_t total = 1, widest = 1;
  for (int d = 0; d < w.ndim; d++) total *= w.shape[d];
  for (int k = 0; k <= w.nin; k++) {
    const View& v = k < w.nin ? a.in[k] : a.out[0];
    widest = max_of(widest, max_of(itemsize(v.dtype), itemsize(k < w.nin ? op.in[k] : op.out)));
  }
  bool same = w.ndim <= 1;  // one run of memory in the right dtypes, as channels-last operands are: no tiles needed
  for (int k = 0; k <= w.nin && same; k++) {
    const View& v = k < w.nin ? a.in[k] : a.out[0];
    same = v.dtype == (k < w.nin ? op.in[k] : op.out) && (w.ndim == 0 || w.stride[k][0] == 1);
  }
  if (same) {
    parallel_for(total, op.grain, [&](int64_t begin, int64_t end) {
      const void* in[kMaxOperands - 1] = {};
      for (int k = 0; k < w.nin; k++) in[k] = a.in[k].ptr<char>() + begin * itemsize(op.in[k]);
      op.block(a.out[0].ptr<char>() + begin * itemsize(op.out), in, end - begin, *a.attrs);
    });
    return;
  }
  Tiling t;
  make_tiling(t, w, kTileBytes / widest);
  const ElementwiseJob job{a, op, w, t};
  const int64_t per_tile = max_of<int64_t>(total / max_of<int64_t>(t.tiles, 1), 1);
  parallel_for(t.tiles, max_of<int64_t>(op.grain / per_tile, 1), [&](int64_t begin, int64_t end) { run_tiles(job, begin, end); });
}

template <int nin>
__attribute__((noinline)) void elementwise(const Args& a, const ElementwiseOp& op) {
  const View& o = a.out[0];
  const int64_t n = o.numel();
  if (n == 0) return;
  bool plain = o.dtype == op.out && o.contiguous();
  const void* in[nin];
  for (int k = 0; k < nin && plain; k++) {
    const View& v = a.in[k];
    in[k] = v.data;
    plain = v.dtype == op.in[k] && v.contiguous() && v.numel() == n;
  }
  if (!plain) return elementwise_strided(a, op);
  if (n <= op.grain) return op.block(o.data, in, n, *a.attrs);
  parallel_for(n, op.grain, [&](int64_t begin, int64_t end) {
    const void* part[nin];
    for (int k = 0; k < nin; k++) part[k] = static_cast<const char*>(in[k]) + begin * itemsize(op.in[k]);
    op.block(o.ptr<char>() + begin * itemsize(op.out), part, end - begin, *a.attrs);
  });
}

// ---- block loops from formulas ------------------------------------------------------------------------------------------
// F is a formula of math/ (see math/formula.h). Its parameters are the first F::kParams float attributes.
template <class F, int nin, class V>
FD_INLINE V apply(const V* x, const V* p) {
  static_assert(nin >= 1 && nin <= 3, "arity");
  if constexpr (F::kParams > 0) {
    if constexpr (nin == 1)
      return F::of(x[0], p);
    else if constexpr (nin == 2)
      return F::of(x[0], x[1], p);
    else
      return F::of(x[0], x[1], x[2], p);
  } else {
    (void)p;
    if constexpr (nin == 1)
      return F::of(x[0]);
    else if constexpr (nin == 2)
      return F::of(x[0], x[1]);
    else
      return F::of(x[0], x[1], x[2]);
  }
}

// float and double: two vectors at a time, then masked ones
template <class F, class T, int nin>
void map_block(void* out_, const void* const* in_, int64_t n, const Attrs& attrs) {
  using V = Vec<T>;
  constexpr int kW = V::size;
  T* const out = static_cast<T*>(out_);
  const T* in[nin];
  for (int k = 0; k < nin; k++) in[k] = static_cast<const T*>(in_[k]);
  V p[F::kParams + 1];
  for (int k = 0; k < F::kParams; k++) p[k] = V(T(attrs.f[k]));
  int64_t i = 0;
  for (; i + 2 * kW <= n; i += 2 * kW) {
    V x[nin], y[nin];
    for (int k = 0; k < nin; k++) x[k] = load(in[k] + i), y[k] = load(in[k] + i + kW);
    const V a = apply<F, nin, V>(x, p), b = apply<F, nin, V>(y, p);
    store(out + i, a);
    store(out + i + kW, b);
  }
  for (; i < n; i += kW) {
    const int left = n - i < kW ? int(n - i) : kW;
    V x[nin];
    for (int k = 0; k < nin; k++) x[k] = load_partial(in[k] + i, left);
    store_partial(out + i, apply<F, nin, V>(x, p), left);
  }
}

// Any type and a result of another type: one value at a time, vectorised by the compiler. ivdep: out may be an input, exactly.
template <class F, class T, class R, int nin>
void map_scalars(void* out_, const void* const* in_, int64_t n, const Attrs& attrs) {
  R* const out = static_cast<R*>(out_);
  const T* const x = static_cast<const T*>(in_[0]);
  const T* const y = static_cast<const T*>(in_[nin > 1 ? 1 : 0]);
  (void)attrs;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    if constexpr (nin == 1)
      out[i] = F::of(x[i]);
    else
      out[i] = F::of(x[i], y[i]);
  }
}

template <BlockFn block, class T, class R, int nin, int64_t grain>
void elementwise_kernel(const Args& a) {
  static constexpr DType kIn = dtype_of<T>();
  static constexpr ElementwiseOp kOp = {
      block, {kIn, kIn, kIn}, dtype_of<R>(), grain, {cast_up_to<T>, cast_up_to<T>, cast_up_to<T>}, cast_down_from<R>};
  elementwise<nin>(a, kOp);
}

// The kernel of formula F for float (and the 16-bit floats) or double:
//   FD_KERNEL_TABLE(unary) = {{OpId::exp, kF32ish, map_kernel<Exp, float, 1, kCostlyGrain>}, {OpId::exp, kF64, map_kernel<Exp,
//   double, 1, ...
template <class F, class T, int nin, int64_t grain = kCheapGrain>
constexpr KernelFn map_kernel = elementwise_kernel<map_block<F, T, nin>, T, T, nin, grain>;

}  // namespace
}  // namespace fastdl
