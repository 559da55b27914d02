// The driver of all elementwise kernels. An op brings one loop over contiguous blocks of its compute type (map_block makes it from
// a formula of math/); the driver brings everything else: strides, broadcasting, other dtypes, threads.
//
// Method: dims are ordered by the output's memory and merged where all operands allow it. What remains is cut into tiles of about
// 8 KB that stay in L1. Operands that lie dense in a tile, in the compute dtype, are used where they are; the others are gathered
// and converted into a buffer on the stack, once for as long as the source does not move (scalars, rows, channel vectors).
// Results are written in place or, if the output is strided or of a 16-bit type, through such a buffer.
// A transposed operand turns tiles into 2-d ones, wide along the unit strides of both sides.
#pragma once
#include "cpu/isa/tiles.h"
#include "cpu/vec/cast.h"

namespace fastdl {
namespace {

using BlockFn = void (*)(void* out, const void* const* in, int64_t n, const Attrs& attrs);

constexpr int64_t kCheapGrain = 32 * 1024;  // elements per task: add, compare, relu
constexpr int64_t kCostlyGrain = 8 * 1024;  // exp, tanh, power

// What the driver needs to know of an op. Constant per kernel.
struct ElementwiseOp {
  BlockFn block;
  BlockFn stream;              // the same past the caches, to memory aligned to 64 bytes; null if there is no such loop
  DType in[kMaxOperands - 1];  // compute dtype of each input
  DType out;                   // dtype that block writes
  int64_t grain;
  CastFn (*load[kMaxOperands - 1])(DType from);  // cast to in[k]
  CastFn (*save)(DType to);                      // cast from out
};

// ---- one task: a range of tiles ----------------------------------------------------------------------------------------
struct ElementwiseJob {
  const Args& a;
  const ElementwiseOp& op;
  const Walk& w;
  const Tiling& t;
};

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
    int64_t offset[kMaxOperands], size[kMaxDims];
    const int64_t total = place_tile(t, w, tile, size, offset);
    const int64_t rows = across < 0 ? 1 : size[across], cols = total / rows;

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
        move_tile(cast[k] ? static_cast<void*>(raw) : at[k], source, tile_view(t, w, size, k), true, item[k]);
        if (cast[k]) cast[k](at[k], raw, total);
      }
    }
    if (across >= 0)  // as many streams as rows are more than the hardware prefetches (see transpose_2d)
      for (int k = nin; k >= 0; k--)
        for (int64_t r = 0; direct[k] && r < rows; r++)
          for (int64_t b = 0; b < cols * item[k]; b += 64) __builtin_prefetch(at[k] + r * step[k] + b);
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
        if (cast[nin]) cast[nin](raw, at[nin], total);
        move_tile(cast[nin] ? static_cast<void*>(raw) : at[nin], target, tile_view(t, w, size, nin), false, item[nin]);
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

// Is v, in out's shape, a dense run of `period` elements that repeats: a scalar, a row, or all of it?
inline bool periodic(const View& v, int64_t* period) {
  int64_t n = 1;
  int d = v.ndim - 1;
  for (; d >= 0; d--) {
    if (v.shape[d] == 1) continue;
    if (v.strides[d] != n) break;
    n *= v.shape[d];
  }
  for (; d >= 0; d--)
    if (v.shape[d] != 1 && v.strides[d] != 0) return false;
  *period = n;
  return true;
}
inline void repeat(char* to, const char* from, int64_t period, int64_t n, int64_t item) {
  if (period == 1 && item == 4) {
    int32_t x;
    __builtin_memcpy(&x, from, sizeof x);
    for (int64_t i = 0; i < n; i++) __builtin_memcpy(to + 4 * i, &x, sizeof x);
    return;
  }
  const int64_t bytes = n * item;
  int64_t done = min_of(period, n) * item;
  __builtin_memcpy(to, from, done);
  for (int64_t m; done < bytes; done += m) {  // doubling
    m = min_of(done, bytes - done);
    __builtin_memcpy(to + done, to, m);
  }
}
// x + scalar or x + row of at most a tile, such as a bias on a small batch: no plan, one call of the block.
template <int nin>
bool elementwise_small(const Args& a, const ElementwiseOp& op, int64_t n) {
  const View& o = a.out[0];
  if (o.dtype != op.out || !o.contiguous()) return false;
  int64_t period[nin];
  for (int k = 0; k < nin; k++) {
    const View& v = a.in[k];
    if (v.dtype != op.in[k] || v.ndim != o.ndim || n * itemsize(v.dtype) > kTileBytes || !periodic(v, &period[k])) return false;
  }
  alignas(64) char buffer[nin][kTileBytes];
  const void* in[nin];
  for (int k = 0; k < nin; k++) {
    in[k] = a.in[k].data;
    if (period[k] == n) continue;
    repeat(buffer[k], a.in[k].ptr<char>(), period[k], n, itemsize(op.in[k]));
    in[k] = buffer[k];
  }
  op.block(o.data, in, n, *a.attrs);
  return true;
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
  if (!plain) {
    if constexpr (nin > 1)
      if (elementwise_small<nin>(a, op, n)) return;
    return elementwise_strided(a, op);
  }
  if (n <= op.grain) return op.block(o.data, in, n, *a.attrs);
  const int64_t item = itemsize(op.out);
  bool stream = n * item >= kStreamBytes;
  for (int k = 0; k < nin; k++) stream &= in[k] != o.data;
  const BlockFn block = stream && op.stream && reinterpret_cast<uintptr_t>(o.data) % 64 == 0 ? op.stream : op.block;
  const bool buffered = stream && block == op.block;
  parallel_for(n, op.grain, [&](int64_t begin, int64_t end) {
    const int64_t step = buffered ? kTileBytes / item : end - begin;
    for (int64_t i = begin; i < end; i += step) {
      const int64_t m = min_of(step, end - i);
      const void* part[nin];
      for (int k = 0; k < nin; k++) part[k] = static_cast<const char*>(in[k]) + i * itemsize(op.in[k]);
      char* const target = o.ptr<char>() + i * item;
      if (buffered) {
        alignas(64) char buffer[kTileBytes];
        block(buffer, part, m, *a.attrs);
        stream_copy(target, buffer, m * item);
      } else {
        block(target, part, m, *a.attrs);
      }
    }
    if (stream) stream_fence();
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

constexpr int kAheadBytes = 1024;  // inputs are asked for so far ahead, while formulas keep the processor busy

// One vector at a time. For long formulas, where interleaving two vectors would only spill registers and triple the code; and, past
// the caches, for results that would not stay there: nothing waits in a buffer.
template <class F, class T, int nin, bool past>
void map_vectors(void* out_, const void* const* in_, int64_t n, const Attrs& attrs) {
  using V = Vec<T>;
  T* const out = static_cast<T*>(out_);
  const T* in[nin];
  for (int k = 0; k < nin; k++) in[k] = static_cast<const T*>(in_[k]);
  V p[F::kParams + 1];
  for (int k = 0; k < F::kParams; k++) p[k] = V(T(attrs.f[k]));
  for (int64_t i = 0; i < n; i += V::size) {
    const int64_t left = n - i;
    const bool full = left >= V::size;
    V x[nin];
    for (int k = 0; k < nin; k++) {
      __builtin_prefetch(reinterpret_cast<const char*>(in[k] + i) + kAheadBytes);
      x[k] = full ? load(in[k] + i) : load_partial(in[k] + i, int(left));
    }
    const V y = apply<F, nin, V>(x, p);
    if (!full)
      store_partial(out + i, y, int(left));
    else if constexpr (past)
      stream_store(out + i, y);
    else
      store(out + i, y);
  }
}

// Any type, a result of any type: one value at a time, vectorised by the compiler. ivdep: out may be an input, exactly.
template <class F, class T, class R, int nin>
void map_scalars(void* out_, const void* const* in_, int64_t n, const Attrs&) {
  R* const out = static_cast<R*>(out_);
  const T* const x = static_cast<const T*>(in_[0]);
  const T* const y = static_cast<const T*>(in_[nin > 1 ? 1 : 0]);
  const T* const z = static_cast<const T*>(in_[nin > 2 ? 2 : 0]);
  (void)y, (void)z;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    if constexpr (nin == 1)
      out[i] = F::of(x[i]);
    else if constexpr (nin == 2)
      out[i] = F::of(x[i], y[i]);
    else
      out[i] = F::of(x[i], y[i], z[i]);
  }
}

template <BlockFn block, class T, class R, int nin, int64_t grain, BlockFn stream = nullptr>
void elementwise_kernel(const Args& a) {
  static constexpr DType kIn = dtype_of<T>();
  static constexpr ElementwiseOp kOp = {
      block, stream, {kIn, kIn, kIn}, dtype_of<R>(), grain, {cast_up_to<T>, cast_up_to<T>, cast_up_to<T>}, cast_from<R>};
  elementwise<nin>(a, kOp);
}

// The kernel of formula F for float (and the 16-bit floats) or double:
//   FD_KERNEL_TABLE(unary) = {{OpId::exp, kF32ish, map_kernel<Exp, float, 1, kCostlyGrain>}, {OpId::exp, kF64, map_kernel<Exp,
//   double, 1, ...
template <class F, class T, int nin>
constexpr BlockFn stream_of = sizeof(T) == 4 ? map_vectors<F, T, nin, sizeof(T) == 4> : nullptr;
template <class F, class T, int nin, int64_t grain = kCheapGrain>
constexpr KernelFn map_kernel = elementwise_kernel<map_block<F, T, nin>, T, T, nin, grain, stream_of<F, T, nin>>;
template <class F, class T, int nin>
constexpr KernelFn map_kernel_long =
    elementwise_kernel<map_vectors<F, T, nin, false>, T, T, nin, kCostlyGrain, stream_of<F, T, nin>>;
template <class F, class T, class R, int nin, int64_t grain = kCheapGrain>
constexpr KernelFn map_scalars_kernel = elementwise_kernel<map_scalars<F, T, R, nin>, T, R, nin, grain>;

// clip(x, low, high) with bounds that may not be given: then it is maximum, minimum or the identity.
template <KernelFn both, KernelFn low_only, KernelFn high_only, KernelFn neither>
void clip_kernel(const Args& a) {
  const bool low = a.in[1].given(), high = a.in[2].given();
  if (low && high) return both(a);
  const View in[2] = {a.in[0], a.in[low ? 1 : 2]};
  const Args rest{a.out, in, a.attrs, a.workspace, a.nout, low || high ? 2 : 1};
  return low ? low_only(rest) : high ? high_only(rest) : neither(rest);
}

}  // namespace
}  // namespace fastdl
