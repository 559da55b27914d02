// Indexing without arithmetic: take, take_along_axis, index_get, index_put, nonzero, one_hot; and the sums of index_sums.h for
// integers and complex numbers. Bound by memory, so compiled for the baseline only: wider vectors would not help.
//
// Moves are generic by item size. Offsets of 256 rows are computed first, then the rows are copied, so that the loads of one row do
// not wait for the next index.
#include "cpu/isa/index_sums.h"

namespace fastdl {
namespace {

// ---- take, index_get -------------------------------------------------------------------------------------------------
// out[outer, i, row] = x[outer, index i, row]; out is row-major.
template <class U>
void gather_rows(const View& x, int first, const Indexer& ix, View& out) {
  const Walk outer = walk_of(x, 0, first), row = walk_of(x, first + ix.k, x.ndim);
  const int64_t length = row.numel(), n = ix.count;
  if (length == 0) return;
  const bool dense = row.n == 0 || (row.n == 1 && row.a[0] == 1);
  parallel_for(outer.numel() * n, rows_per_chunk(length * int64_t(sizeof(U))), [&](int64_t begin, int64_t end) {
    int64_t off[kBlock];
    while (begin < end) {
      const int64_t o = begin / n, i = begin - o * n;
      const int m = int(min_of<int64_t>(min_of<int64_t>(kBlock, n - i), end - begin));
      ix.offsets(i, m, off);
      int64_t base, none;
      outer.offsets(o, base, none);
      const U* src = x.ptr<const U>() + base;
      U* dst = out.ptr<U>() + begin * length;
      if (length == 1) {
        for (int j = 0; j < m; j++) dst[j] = off[j] == kInvalid ? U{} : src[off[j]];
      } else {
        for (int j = 0; j < m; j++, dst += length) {
          if (off[j] == kInvalid) {
            memset(static_cast<void*>(dst), 0, size_t(length) * sizeof(U));
          } else if (dense) {
            memcpy(dst, src + off[j], size_t(length) * sizeof(U));
          } else {
            U* d = dst;
            for_lines(row, 0, length, [&](int64_t a, int64_t, int64_t len, int64_t s, int64_t) {
              const U* p = src + off[j] + a;
              for (int64_t c = 0; c < len; c++) *d++ = p[c * s];
            });
          }
        }
      }
      begin += m;
    }
  });
}

template <class U>
void take_kernel(const Args& args) {
  const View &x = args.in[0], &idx = args.in[1];
  const int axis = int(args.attrs->i[0]);
  Indexer ix;
  ix.add(idx, idx.shape, idx.ndim, x.shape[axis], x.strides[axis]);
  gather_rows<U>(x, axis, ix, args.out[0]);
}

template <class U>
void index_get_kernel(const Args& args) {
  const View &x = args.in[0], &out = args.out[0];
  const int k = args.nin - 1, index_dims = out.ndim - (x.ndim - k);
  Indexer ix;
  for (int t = 0; t < k; t++) ix.add(args.in[1 + t], out.shape, index_dims, x.shape[t], x.strides[t]);
  gather_rows<U>(x, 0, ix, args.out[0]);
}

// ---- take_along_axis ---------------------------------------------------------------------------------------------------
// out[p] = x[p with position idx[p] on the axis]; x and idx are broadcast to out on the other axes.
template <class U>
void take_along_axis_kernel(const Args& args) {
  const View &x = args.in[0], &idx = args.in[1], &out = args.out[0];
  const int axis = int(args.attrs->i[0]);
  const int64_t n = out.numel(), size = x.shape[axis], step = x.strides[axis];
  Walk w;  // a: x without the axis, b: idx
  for (int d = 0; d < out.ndim; d++)
    w.add(out.shape[d], d == axis || x.shape[d] == 1 ? 0 : x.strides[d], idx.shape[d] == 1 ? 0 : idx.strides[d]);
  parallel_for(n, rows_per_chunk(sizeof(U)), [&](int64_t begin, int64_t end) {
    U* dst = out.ptr<U>() + begin;
    for_lines(w, begin, end, [&](int64_t a, int64_t b, int64_t len, int64_t sa, int64_t sb) {
      const U* p = x.ptr<const U>() + a;
      const int64_t* q = idx.ptr<const int64_t>() + b;
      for (int64_t j = 0; j < len; j++) {
        const int64_t r = wrap(q[j * sb], size);
        *dst++ = r == kInvalid ? U{} : p[j * sa + r * step];
      }
    });
  });
}

// ---- index_put -------------------------------------------------------------------------------------------------------------
template <bool kAdd, class T>
FD_INLINE void put(T* d, const T* v) {
  if constexpr (!kAdd)
    *d = *v;
  else if constexpr (sizeof(WideOf<T>) != sizeof(T))
    store_narrow_one(d, load_wide_one(d) + load_wide_one(v));
  else
    *d = plus(*d, *v);
}

// x[idx0, idx1, ..., row] = or += values, in place; positions in ascending order, so the last of repeated writes stays.
template <class T, bool kAdd>
void index_put_rows(const Args& args) {
  const View &x = args.in[0], &values = args.in[1];
  const int k = args.nin - 2;
  int64_t shape[kMaxDims];
  int index_dims = 0;
  for (int t = 0; t < k; t++) index_dims = max_of(index_dims, int(args.in[2 + t].ndim));
  for (int d = 0; d < index_dims; d++) shape[d] = 1;
  for (int t = 0; t < k; t++)
    for (int d = 0; d < args.in[2 + t].ndim; d++) {
      int64_t& s = shape[index_dims - args.in[2 + t].ndim + d];
      if (s == 1) s = args.in[2 + t].shape[d];
    }
  Indexer ix;
  for (int t = 0; t < k; t++) ix.add(args.in[2 + t], shape, index_dims, x.shape[t], x.strides[t]);
  // values are broadcast to shape + x.shape[k:]
  const int rank = index_dims + x.ndim - k;
  const auto value_stride = [&](int d) {
    const int e = d - (rank - values.ndim);
    return e < 0 || values.shape[e] == 1 ? int64_t(0) : values.strides[e];
  };
  Walk outer, row;
  for (int d = 0; d < index_dims; d++) outer.add(shape[d], value_stride(d), 0);
  for (int d = k; d < x.ndim; d++) row.add(x.shape[d], x.strides[d], value_stride(index_dims + d - k));
  const int64_t length = row.numel(), n = ix.count, bytes = length * int64_t(sizeof(T));
  if (n == 0 || length == 0) return;

  // Each chunk walks all positions and writes those whose first index falls in its range: repeated positions meet in one chunk.
  const int64_t ranges = bytes >= 256 && n * bytes >= 4 * kChunkBytes ? min_of<int64_t>(8, x.shape[0]) : 1;
  const int64_t per_range = ceil_div(x.shape[0], ranges);
  parallel_chunks(ranges, [&](int64_t range) {
    piece_work(n * length / ranges, kChunkBytes / int64_t(sizeof(T)));
    int64_t off[kBlock], source[kBlock], lead[kBlock];
    Indexer first;
    if (ranges > 1) first.add(args.in[2], shape, index_dims, x.shape[0], 1);
    for (int64_t i = 0; i < n; i += kBlock) {
      const int m = int(min_of<int64_t>(kBlock, n - i));
      ix.offsets(i, m, off);
      if (ranges > 1) {
        first.offsets(i, m, lead);
        for (int j = 0; j < m; j++)
          if (lead[j] / per_range != range) off[j] = kInvalid;
      }
      int filled = 0;
      for_lines(outer, i, i + m, [&](int64_t a, int64_t, int64_t len, int64_t s, int64_t) {
        for (int64_t c = 0; c < len; c++) source[filled++] = a + c * s;
      });
      for (int j = 0; j < m; j++) {
        if (off[j] == kInvalid) continue;
        T* d = x.ptr<T>() + off[j];
        const T* v = values.ptr<const T>() + source[j];
        if (row.n == 0)
          put<kAdd>(d, v);
        else
          for_lines(row, 0, length, [&](int64_t a, int64_t b, int64_t len, int64_t sa, int64_t sb) {
            if (!kAdd && sa == 1 && sb == 1)
              memcpy(static_cast<void*>(d + a), v + b, size_t(len) * sizeof(T));
            else if (sa == 1 && sb == 1)
              for (int64_t c = 0; c < len; c++) put<kAdd>(d + a + c, v + b + c);
            else
              for (int64_t c = 0; c < len; c++) put<kAdd>(d + a + c * sa, v + b + c * sb);
          });
      }
    }
  });
}

// U: unsigned integer of the item size, to move; T: the type, to add.
template <class U, class T>
void index_put_kernel(const Args& args) {
  if (args.attrs->i[0])
    index_put_rows<T, true>(args);
  else
    index_put_rows<U, false>(args);
}
template <class U>
void index_set_kernel(const Args& args) {  // bool: nothing to add
  index_put_rows<U, false>(args);
}

// ---- nonzero, one_hot --------------------------------------------------------------------------------------------------------
// Rows of coordinates of the elements that are not zero, in row-major order; x is row-major. The row count was found by another op:
// never write more rows, and leave no row undefined.
template <class U, class F>
FD_INLINE void list_nonzero(const Args& args, F&& is_nonzero) {
  const View &x = args.in[0], &out = args.out[0];
  const int64_t rows = out.shape[0], n = x.numel();
  const U* p = x.ptr<const U>();
  int64_t* w = out.ptr<int64_t>();
  int64_t found = 0;
  for (int64_t i = 0; i < n && found < rows; i++) {
    if (!is_nonzero(p[i])) continue;
    int64_t rest = i;
    for (int d = x.ndim - 1; d > 0; d--) {
      const int64_t q = rest / x.shape[d];
      w[d] = rest - q * x.shape[d];
      rest = q;
    }
    if (x.ndim) w[0] = rest;
    w += x.ndim;
    found++;
  }
  if (const int64_t rest = (rows - found) * x.ndim; rest > 0) memset(w, 0, size_t(rest) * sizeof *w);
}

// mask clears the sign bits of floats: -0 is zero.
template <class U, uint64_t mask>
void nonzero_kernel(const Args& args) {
  list_nonzero<U>(args, [](U a) {
    if constexpr (sizeof(U) == 16)
      return ((a.lo | a.hi) & mask) != 0;
    else
      return (a & U(mask)) != 0;
  });
}

template <class U>
void one_hot_kernel(const Args& args) {
  const View &idx = args.in[0], &out = args.out[0];
  const int64_t classes = out.shape[out.ndim - 1];
  if (classes == 0) return;
  uint64_t bits = 1;  // of the number one in the output's dtype; a complex one is a float one and zeros
  switch (out.dtype) {
    case DType::float16:
      bits = 0x3c00;
      break;
    case DType::bfloat16:
      bits = 0x3f80;
      break;
    case DType::float32:
    case DType::complex64:
      bits = 0x3f800000;
      break;
    case DType::float64:
    case DType::complex128:
      bits = 0x3ff0000000000000;
      break;
    default:
      break;
  }
  U one{};
  memcpy(&one, &bits, min_of(sizeof one, sizeof bits));
  const Walk w = walk_of(idx, 0, idx.ndim);
  parallel_for(w.numel(), rows_per_chunk(classes * int64_t(sizeof(U))), [&](int64_t begin, int64_t end) {
    U* row = out.ptr<U>() + begin * classes;
    memset(static_cast<void*>(row), 0, size_t((end - begin) * classes) * sizeof(U));
    for_lines(w, begin, end, [&](int64_t a, int64_t, int64_t len, int64_t s, int64_t) {
      const int64_t* p = idx.ptr<const int64_t>() + a;
      for (int64_t i = 0; i < len; i++, row += classes)
        if (uint64_t(p[i * s]) < uint64_t(classes)) row[p[i * s]] = one;
    });
  });
}

constexpr uint64_t kNoSign32 = 0x7fffffff, kNoSign64 = 0x7fffffffffffffff;

}  // namespace
}  // namespace fastdl
using namespace fastdl;

#define FD_MOVES(name)                                                                                \
  {OpId::name, kItem1, name##_kernel<uint8_t>}, {OpId::name, kItem2, name##_kernel<uint16_t>},        \
      {OpId::name, kItem4, name##_kernel<uint32_t>}, {OpId::name, kItem8, name##_kernel<uint64_t>}, { \
    OpId::name, kC128, name##_kernel<Item16>                                                          \
  }
// integers wrap, so unsigned ones add for both kinds
#define FD_SUMS(name)                                                                                      \
  {OpId::name, kItem1 & ~kMaskBool, name##_kernel<uint8_t>}, {OpId::name, kInt2, name##_kernel<uint16_t>}, \
      {OpId::name, kInt4, name##_kernel<uint32_t>}, {OpId::name, kInt8, name##_kernel<uint64_t>},          \
      {OpId::name, kC64, name##_kernel<c64>}, {                                                            \
    OpId::name, kC128, name##_kernel<c128>                                                                 \
  }

FD_KERNEL_TABLE(index_baseline) = {FD_MOVES(take),
                                   FD_MOVES(index_get),
                                   FD_MOVES(take_along_axis),
                                   FD_MOVES(one_hot),
                                   FD_SUMS(take_backward),
                                   FD_SUMS(scatter_add),
                                   {OpId::index_put, kMaskBool, index_set_kernel<uint8_t>},
                                   {OpId::index_put, kItem1 & ~kMaskBool, index_put_kernel<uint8_t, uint8_t>},
                                   {OpId::index_put, kInt2, index_put_kernel<uint16_t, uint16_t>},
                                   {OpId::index_put, kInt4, index_put_kernel<uint32_t, uint32_t>},
                                   {OpId::index_put, kInt8, index_put_kernel<uint64_t, uint64_t>},
                                   {OpId::index_put, kF16, index_put_kernel<uint16_t, f16>},
                                   {OpId::index_put, kBF16, index_put_kernel<uint16_t, bf16>},
                                   {OpId::index_put, kF32, index_put_kernel<uint32_t, float>},
                                   {OpId::index_put, kF64, index_put_kernel<uint64_t, double>},
                                   {OpId::index_put, kC64, index_put_kernel<uint64_t, c64>},
                                   {OpId::index_put, kC128, index_put_kernel<Item16, c128>},
                                   {OpId::nonzero, kItem1, nonzero_kernel<uint8_t, ~uint64_t(0)>},
                                   {OpId::nonzero, kInt2, nonzero_kernel<uint16_t, ~uint64_t(0)>},
                                   {OpId::nonzero, kInt4, nonzero_kernel<uint32_t, ~uint64_t(0)>},
                                   {OpId::nonzero, kInt8, nonzero_kernel<uint64_t, ~uint64_t(0)>},
                                   {OpId::nonzero, kF16 | kBF16, nonzero_kernel<uint16_t, 0x7fff>},
                                   {OpId::nonzero, kF32, nonzero_kernel<uint32_t, kNoSign32>},
                                   {OpId::nonzero, kF64, nonzero_kernel<uint64_t, kNoSign64>},
                                   {OpId::nonzero, kC64, nonzero_kernel<uint64_t, kNoSign32 << 32 | kNoSign32>},
                                   {OpId::nonzero, kC128, nonzero_kernel<Item16, kNoSign64>},
                                   {}};
