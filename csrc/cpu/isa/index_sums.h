// Sums at indices: take_backward, scatter_add. Repeated indices are added in ascending position,
// whatever the thread count: take_backward sorts positions by destination row (counting sort) and gives each chunk a range of rows;
// scatter_add gives each chunk a range of columns. No atomics, no private copies.
#pragma once
#include "cpu/isa/index_walk.h"
#include "cpu/vec/convert.h"

namespace fastdl {
namespace {

constexpr int64_t kSumsGrain = 32768;  // elements that a piece writes and adds up

template <class W>
FD_INLINE W plus(W a, W b) {
  return W(a + b);
}
FD_INLINE c64 plus(c64 a, c64 b) { return {a.re + b.re, a.im + b.im}; }
FD_INLINE c128 plus(c128 a, c128 b) { return {a.re + b.re, a.im + b.im}; }

// acc[0 .. n) (+)= p[0 .. n), widened
template <bool first, class T>
FD_INLINE void accumulate(WideOf<T>* acc, const T* p, int64_t n) {
  if constexpr (sizeof(WideOf<T>) != sizeof(T)) {
    constexpr int size = Vec<WideOf<T>>::size;
    for (int64_t i = 0; i < n; i += size) {
      const int m = int(min_of<int64_t>(size, n - i));
      const auto v = load_wide_partial(p + i, m);
      store_partial(acc + i, first ? v : load_partial(acc + i, m) + v, m);
    }
  } else {
    for (int64_t i = 0; i < n; i++) acc[i] = first ? p[i] : plus(acc[i], p[i]);
  }
}
template <class T>
FD_INLINE void put_narrow(T* p, const WideOf<T>* acc, int64_t n) {
  if constexpr (sizeof(WideOf<T>) != sizeof(T)) {
    constexpr int size = Vec<WideOf<T>>::size;
    for (int64_t i = 0; i < n; i += size) {
      const int m = int(min_of<int64_t>(size, n - i));
      store_narrow_partial(p + i, load_partial(acc + i, m), m);
    }
  } else {
    memcpy(p, acc, size_t(n) * sizeof(T));
  }
}

// out[outer, r, row] = sum of g[outer, i, row] over the positions i with index i == r, i ascending; zero where there are none.
// workspace: end[size], order[count].
template <class T>
void take_backward_kernel(const Args& args) {
  const View &g = args.in[0], &idx = args.in[1], &out = args.out[0];
  const int axis = int(args.attrs->i[0]);
  const int64_t size = out.shape[axis];
  Indexer ix;
  ix.add(idx, idx.shape, idx.ndim, size, 1);
  const int64_t n = ix.count;
  int64_t outer = 1, row = 1;
  for (int d = 0; d < axis; d++) outer *= out.shape[d];
  for (int d = axis + 1; d < out.ndim; d++) row *= out.shape[d];
  if (outer * row * size == 0) return;

  int64_t *end = static_cast<int64_t*>(args.workspace), *order = end + size;
  memset(end, 0, size_t(size) * sizeof *end);
  const auto for_indices = [&](auto&& f) {
    int64_t off[kBlock];
    for (int64_t i = 0; i < n; i += kBlock) {
      const int m = int(min_of<int64_t>(kBlock, n - i));
      ix.offsets(i, m, off);
      for (int j = 0; j < m; j++)
        if (off[j] != kInvalid) f(i + j, off[j]);
    }
  };
  for_indices([&](int64_t, int64_t r) { end[r]++; });
  for (int64_t r = 0, start = 0; r < size; r++) {
    const int64_t c = end[r];
    end[r] = start;
    start += c;
  }
  for_indices(
      [&](int64_t i, int64_t r) { order[end[r]++] = i; });  // now row r's positions end at end[r], where those of r + 1 start

  constexpr int64_t kColumns = 512;
  const int64_t columns = min_of(row, kColumns), column_blocks = ceil_div(row, columns);
  // Blocks of rows that write and add up, together, about as many rows as others, as far as whole rows allow: one that takes most
  // of the gradient is one thread's.
  const auto lines_before = [&](int64_t r) { return r == 0 ? 0 : r + end[r - 1]; };
  const int64_t lines = lines_before(size), most = max_of<int64_t>(1, kSumsGrain / columns);
  const int64_t row_blocks = lines <= most ? 1 : ceil_div(lines, fair_length(lines, most, num_threads()));
  const auto first_row = [&](int64_t block) {
    const int64_t before = block * lines / row_blocks;
    int64_t low = 0, high = size;
    while (low < high) {
      const int64_t mid = (low + high) / 2;
      lines_before(mid) < before ? low = mid + 1 : high = mid;
    }
    return low;
  };
  parallel_chunks(outer * row_blocks * column_blocks, [&](int64_t chunk) {
    const int64_t cb = chunk % column_blocks, rb = chunk / column_blocks % row_blocks, o = chunk / column_blocks / row_blocks;
    const int64_t c0 = cb * columns, width = min_of(columns, row - c0), r0 = first_row(rb), r_end = first_row(rb + 1);
    piece_work((lines_before(r_end) - lines_before(r0)) * width, kSumsGrain / 8);
    const T* src = g.ptr<const T>() + o * n * row + c0;
    T* dst = out.ptr<T>() + (o * size + r0) * row + c0;
    alignas(64) WideOf<T> acc[kColumns];
    for (int64_t r = r0; r < r_end; r++, dst += row) {
      int64_t p = r ? end[r - 1] : 0;
      if (p == end[r]) {
        memset(static_cast<void*>(dst), 0, size_t(width) * sizeof(T));
        continue;
      }
      accumulate<true>(acc, src + order[p] * row, width);
      while (++p < end[r]) accumulate<false>(acc, src + order[p] * row, width);
      put_narrow(dst, acc, width);
    }
  });
}

// out = x; out[o, idx[o, i, s], s] += values[o, i, s], i ascending. All row-major. 16-bit floats add up in a float copy
// (workspace).
template <class T>
void scatter_add_kernel(const Args& args) {
  using W = WideOf<T>;
  const View &x = args.in[0], &idx = args.in[1], &values = args.in[2], &out = args.out[0];
  const int axis = int(args.attrs->i[0]);
  const int64_t size = x.shape[axis], n = idx.shape[axis], total = x.numel();
  int64_t outer = 1, row = 1;
  for (int d = 0; d < axis; d++) outer *= x.shape[d];
  for (int d = axis + 1; d < x.ndim; d++) row *= x.shape[d];

  constexpr bool wide = sizeof(W) != sizeof(T);
  W* sums = wide ? static_cast<W*>(args.workspace) : out.ptr<W>();
  parallel_for(total, 32768, [&](int64_t b, int64_t e) { accumulate<true>(sums + b, x.ptr<const T>() + b, e - b); });
  if (total == 0 || n == 0) {
    if (wide) put_narrow(out.ptr<T>(), sums, total);
    return;
  }
  const int64_t columns = min_of<int64_t>(row, 512), column_blocks = ceil_div(row, columns);
  parallel_for(outer * column_blocks, max_of<int64_t>(1, 16384 / (n * columns)), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) {
      const int64_t o = t / column_blocks, c0 = t % column_blocks * columns, width = min_of(columns, row - c0);
      const int64_t* q = idx.ptr<const int64_t>() + o * n * row + c0;
      const T* v = values.ptr<const T>() + o * n * row + c0;
      W* d = sums + o * size * row + c0;
      for (int64_t i = 0; i < n; i++, q += row, v += row)
        for (int64_t s = 0; s < width; s++) {
          const int64_t r = wrap(q[s], size);
          if (r == kInvalid) continue;
          W& place = d[r * row + s];
          if constexpr (wide)
            place += load_wide_one(v + s);
          else
            place = plus(place, v[s]);
        }
    }
  });
  if (wide) parallel_for(total, 32768, [&](int64_t b, int64_t e) { put_narrow(out.ptr<T>() + b, sums + b, e - b); });
}

}  // namespace
}  // namespace fastdl
