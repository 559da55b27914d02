// Moves: relayout, cast, fill, concat, pad, flip, tril / triu, where. All but the last two are copy_view: any strides to any
// strides, any dtype to any dtype (NumPy's astype, cpu/vec/cast.h). Method: the dims are merged and cut into L1-sized tiles
// (tiles.h); a tile moves directly where one side is dense, through a stack buffer otherwise; a transposition moves as blocks in
// vector registers.
#include "cpu/isa/elementwise.h"

namespace fastdl {
namespace {

constexpr int64_t kTask = 256 * 1024;  // bytes of output per task

CastFn cast_any(DType to, DType from) {
  switch (from) {
#define FD_DTYPE(name, type, ...) \
  case DType::name:               \
    return cast_from<type, true>(to);
#include "dtypes.def"
  }
  return nullptr;
}

// out <- in, which has out's shape, possibly with strides 0
void copy_view(const View& out, const View& in) {
  View o = out;
  const Args args{&o, &in, nullptr, nullptr, 1, 1};
  const int64_t to_item = itemsize(out.dtype), from_item = itemsize(in.dtype);
  const CastFn cast = out.dtype == in.dtype ? nullptr : cast_any(out.dtype, in.dtype);
  char* const to = out.ptr<char>();
  char* const from = in.ptr<char>();
  Walk w;
  make_walk(w, args);
  int64_t total = 1;
  for (int d = 0; d < w.ndim; d++) total *= w.shape[d];
  if (total == 0) return;
  if (w.ndim == 0 || (w.ndim == 1 && w.stride[0][0] == 1 && w.stride[1][0] == 1)) {
    const bool stream = !cast && total * to_item >= kStreamBytes;
    parallel_for(total, kTask / to_item, [&](int64_t begin, int64_t end) {
      char* const target = to + begin * to_item;
      const char* const source = from + begin * from_item;
      if (cast)
        cast(target, source, end - begin);
      else if (stream)
        stream_copy(target, source, (end - begin) * to_item), stream_fence();
      else
        __builtin_memcpy(target, source, (end - begin) * to_item);
    });
    return;
  }
  Tiling t;
  const int64_t inner = w.stride[1][w.ndim - 1];
  make_tiling(t, w, 4 * kTileBytes / max_of(to_item, from_item));
  const bool straight =
      !cast && t.across >= 0 && inner == 1;  // 2-d tiles without a buffer; longer rows make better use of the caches
  if (!straight) make_tiling(t, w, kTileBytes / max_of(to_item, from_item));
  const bool in_dense = t.across < 0 && dense_in_tile(t, w, 0), out_dense = t.across < 0 && dense_in_tile(t, w, 1);
  const int64_t per_tile = max_of<int64_t>(total / t.tiles * to_item, 1);
  parallel_for(t.tiles, max_of<int64_t>(kTask / per_tile, 1), [&](int64_t begin, int64_t end) {
    alignas(64) char raw[kTileBytes], ready[kTileBytes];
    for (int64_t tile = begin; tile < end; tile++) {
      int64_t size[kMaxDims], offset[kMaxOperands];
      const int64_t n = place_tile(t, w, tile, size, offset);
      char* source = from + offset[0] * from_item;
      char* const target = to + offset[1] * to_item;
      const TileView iv = tile_view(t, w, size, 0), ov = tile_view(t, w, size, 1);
      if (straight) {
        by_item(to_item, [&](auto zero) {
          using T = decltype(zero);
          gather_2d(reinterpret_cast<T*>(target), reinterpret_cast<const T*>(source), size[t.across], size[w.ndim - 1],
                    w.stride[1][t.across], w.stride[0][t.across], w.stride[0][w.ndim - 1]);
        });
        continue;
      }
      if (!in_dense) {
        char* const dense = !cast && out_dense ? target : raw;
        move_tile(dense, source, iv, true, from_item);
        source = dense;
      }
      if (cast) {
        char* const dense = out_dense ? target : ready;
        cast(dense, source, n);
        source = dense;
      }
      if (!out_dense)
        move_tile(source, target, ov, false, to_item);
      else if (in_dense && !cast)
        __builtin_memcpy(target, source, n * to_item);
    }
  });
}

// `count` elements from `start` along one dim
View narrow(const View& v, int dim, int64_t start, int64_t count) {
  View r = v;
  r.shape[dim] = count;
  r.data = v.ptr<char>() + start * v.strides[dim] * itemsize(v.dtype);
  return r;
}

// A view of one value, repeated in the shape of `like`.
View repeated(void* value, DType dtype, const View& like) {
  View v = like;
  v.data = value;
  v.dtype = dtype;
  for (int d = 0; d < v.ndim; d++) v.strides[d] = 0;
  return v;
}
void fill_view(const View& out, void* value) { copy_view(out, repeated(value, out.dtype, out)); }

void copy_kernel(const Args& a) { copy_view(a.out[0], a.in[0]); }

void fill_kernel(const Args& a) {
  int64_t whole = a.attrs->i[1];
  c128 z{a.attrs->f[0], a.attrs->f[1]};
  alignas(16) char value[16];
  const DType d = a.out[0].dtype;
  if (a.attrs->i[0] == 1)
    cast_any(d, DType::int64)(value, &whole, 1);
  else
    cast_any(d, DType::complex128)(value, &z, 1);
  fill_view(a.out[0], value);
}

void concat_kernel(const Args& a) {
  const int axis = int(a.attrs->i[0]);
  int64_t at = 0;
  for (int k = 0; k < a.nin; k++) {
    copy_view(narrow(a.out[0], axis, at, a.in[k].shape[axis]), a.in[k]);
    at += a.in[k].shape[axis];
  }
}

void pad_kernel(const Args& a) {
  c128 z{a.attrs->f[0], 0};
  alignas(16) char value[16];
  const View& in = a.in[0];
  cast_any(in.dtype, DType::complex128)(value, &z, 1);
  View inner = a.out[0];  // the border goes dim by dim, so that no corner is written twice
  for (int d = 0; d < in.ndim; d++) {
    const int64_t before = a.attrs->i[2 * d], after = a.attrs->i[2 * d + 1];
    if (before) fill_view(narrow(inner, d, 0, before), value);
    if (after) fill_view(narrow(inner, d, before + in.shape[d], after), value);
    inner = narrow(inner, d, before, in.shape[d]);
  }
  copy_view(inner, in);
}

void flip_kernel(const Args& a) {
  View v = a.in[0];
  for (int d = 0; d < v.ndim; d++) {
    if (!(a.attrs->i[0] >> d & 1) || v.shape[d] == 0) continue;
    v.data = v.ptr<char>() + (v.shape[d] - 1) * v.strides[d] * itemsize(v.dtype);
    v.strides[d] = -v.strides[d];
  }
  copy_view(a.out[0], v);
}

// Row i of a matrix keeps its columns [begin, end): tril j <= i + k, triu j >= i + k. The rest of a copy is then set to 0.
template <bool lower>
void tri_kernel(const Args& a) {
  const View &in = a.in[0], &out = a.out[0];
  copy_view(out, in);
  const int n = out.ndim;
  const int64_t rows = out.shape[n - 2], cols = out.shape[n - 1], k = a.attrs->i[0], item = itemsize(out.dtype);
  if (out.numel() == 0) return;
  const int64_t matrices = out.numel() / rows / cols;
  // rows of memory, not of the matrix: with the dims exchanged, j <= i + k reads i >= j - k
  const bool flipped = out.strides[n - 2] == 1 && out.strides[n - 1] != 1;
  const int64_t lines = flipped ? cols : rows, length = flipped ? rows : cols, diagonal = flipped ? -k : k;
  const int64_t line_stride = out.strides[flipped ? n - 1 : n - 2], step = out.strides[flipped ? n - 2 : n - 1];
  const bool keep_low = lower != flipped;
  parallel_for(matrices * lines, max_of<int64_t>(kTask / (length * item), 1), [&](int64_t begin, int64_t end) {
    for (int64_t l = begin; l < end; l++) {
      int64_t rest = l / lines, offset = l % lines * line_stride;
      for (int d = n - 3; d >= 0; d--) offset += rest % out.shape[d] * out.strides[d], rest /= out.shape[d];
      const int64_t edge = l % lines + diagonal + (keep_low ? 1 : 0);  // the first column beyond (low) or kept (high)
      const int64_t cut = max_of<int64_t>(min_of(edge, length), 0);
      const int64_t from = keep_low ? cut : 0, count = keep_low ? length - cut : cut;
      char* p = out.ptr<char>() + (offset + from * step) * item;
      if (step == 1) {
        __builtin_memset(p, 0, count * item);
      } else {
        for (int64_t c = 0; c < count; c++, p += step * item) __builtin_memset(p, 0, item);
      }
    }
  });
}

// where(condition, x, y): by item size; the driver casts x and y to the output's dtype.
template <class T>
void where_block(void* out_, const void* const* in, int64_t n, const Attrs&) {
  T* const out = static_cast<T*>(out_);
  const uint8_t* const condition = static_cast<const uint8_t*>(in[0]);
  const T *const x = static_cast<const T*>(in[1]), *const y = static_cast<const T*>(in[2]);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) out[i] = condition[i] ? x[i] : y[i];
}
template <DType to>
CastFn cast_any_to(DType from) {
  return cast_any(to, from);
}
template <DType from>
CastFn cast_any_from(DType to) {
  return cast_any(to, from);
}

template <DType d, class T>
void where_kernel(const Args& a) {
  static constexpr ElementwiseOp kOp = {
      where_block<T>,  nullptr, {DType::bool_, d, d}, d, kCheapGrain, {cast_any_to<DType::bool_>, cast_any_to<d>, cast_any_to<d>},
      cast_any_from<d>};
  elementwise<3>(a, kOp);
}
#define WHERE_ROW(d, T) {OpId::where, mask_of(DType::d), where_kernel<DType::d, T>},

constexpr DTypeMask kAll = (1u << kNumDTypes) - 1;
}  // namespace

// clang-format off
FD_KERNEL_TABLE(copy) = {
    {OpId::copy, kAll, copy_kernel},
    {OpId::fill, kAll, fill_kernel},
    {OpId::concat, kAll, concat_kernel},
    {OpId::pad, kAll, pad_kernel},
    {OpId::flip, kAll, flip_kernel},
    {OpId::tril, kAll, tri_kernel<true>},
    {OpId::triu, kAll, tri_kernel<false>},
    WHERE_ROW(bool_, uint8_t) WHERE_ROW(uint8, uint8_t) WHERE_ROW(int8, uint8_t) WHERE_ROW(uint16, uint16_t) WHERE_ROW(int16, uint16_t)
    WHERE_ROW(uint32, uint32_t) WHERE_ROW(int32, uint32_t) WHERE_ROW(uint64, uint64_t) WHERE_ROW(int64, uint64_t)
    WHERE_ROW(float16, uint16_t) WHERE_ROW(bfloat16, uint16_t) WHERE_ROW(float32, uint32_t) WHERE_ROW(float64, uint64_t)
    WHERE_ROW(complex64, uint64_t) WHERE_ROW(complex128, Item16)
    {}};
// clang-format on
}  // namespace fastdl
