// layer_norm and its backward pass: y = (x - mean) * rstd * weight + bias over the last dimensions, seen as rows of D elements.
//
// A row stays in the first cache level, so the mean and the variance are taken in two exact passes at the price of one read from
// memory. Backward needs one pass over rows for dx; dweight and dbias are gathered per fixed block of rows into the workspace, and
// the blocks are summed in order, so that results do not depend on the number of threads.
#include "cpu/isa/norm.h"

namespace fastdl {
namespace {

// A (row-major) parameter as an array of W: the tensor itself where it is one, else a copy in `space`; `fallback` if it was not
// given.
template <class W>
const W* param_array(const View& v, W* space, int64_t d, W fallback) {
  if (v.given() && v.dtype == dtype_of<W>()) return v.ptr<W>();
  for (int64_t i = 0; i < d; i++) space[i] = v.given() ? W(read_param(v, i)) : fallback;
  return space;
}

template <class T>
void layer_norm_kernel(const Args& a) {
  using W = WideOf<T>;
  using V = Vec<W>;
  const int64_t rows = a.out[1].numel(), d = a.attrs->i[1];
  const double eps = a.attrs->f[0];
  const T* x = a.in[0].ptr<T>();
  T* y = a.out[0].ptr<T>();
  W *mean = a.out[1].ptr<W>(), *rstd = a.out[2].ptr<W>(), *space = static_cast<W*>(a.workspace);
  const W *weight = param_array(a.in[1], space, d, W(1)), *bias = param_array(a.in[2], space + d, d, W(0));
  parallel_for(rows, row_grain(d), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const T* p = x + r * d;
      T* q = y + r * d;
      const auto m = moments(p, d);
      const double scale = inverse_std(m.squares / double(d), eps);
      mean[r] = W(double(m.center) + m.shift), rstd[r] = W(scale);
      const V center(m.center), s{W(scale)}, offset{W(-m.shift * scale)};
      for_channels<V::size>(d, [&](int64_t i, int lanes, auto count) {
        for (int k = 0; k < decltype(count)::value; k++, i += V::size) {
          const V normal = fma(load_n(p + i, lanes) - center, s, offset);
          store_n(q + i, fma(normal, load_n(weight + i, lanes), load_n(bias + i, lanes)), lanes);
        }
      });
    }
  });
}

template <class T>
void layer_norm_backward_kernel(const Args& a) {
  using W = WideOf<T>;
  using V = Vec<W>;
  const int64_t rows = a.in[2].numel(), d = a.attrs->i[1], block_rows = a.attrs->i[2];
  const int64_t blocks = ceil_div(rows, block_rows);
  const T *g = a.in[0].ptr<T>(), *x = a.in[1].ptr<T>();
  const W *mean = a.in[2].ptr<W>(), *rstd = a.in[3].ptr<W>();
  T* dx = a.out[0].ptr<T>();
  W* partial = static_cast<W*>(a.workspace);  // per block: dweight (D), dbias (D)
  const W* weight = param_array(a.in[4], partial + blocks * 2 * d, d, W(1));
  parallel_chunks(blocks, [&](int64_t b) {
    W *dw = partial + b * 2 * d, *db = dw + d;
    for (int64_t i = 0; i < 2 * d; i++) dw[i] = 0;
    for (int64_t r = b * block_rows, end = min_of(rows, r + block_rows); r < end; r++) {
      const T *gr = g + r * d, *xr = x + r * d;
      T* to = dx + r * d;
      const V center(mean[r]), scale(rstd[r]);
      // Sums of the gradient of the normalised row, and of its product with that row.
      double sum = 0, product = 0;
      for (int64_t block = 0; block < d; block += kSumBlock) {
        V s[4], t[4];
        for (int k = 0; k < 4; k++) s[k] = t[k] = V(0);
        for_channels<V::size>(min_of(kSumBlock, d - block), [&](int64_t i, int lanes, auto count) {
          for (int k = 0; k < decltype(count)::value; k++) {
            const int64_t at = block + i + k * V::size;
            const V h = load_n(gr + at, lanes) * load_n(weight + at, lanes);
            s[k] += h;
            t[k] = fma(h, first_lanes(load_n(xr + at, lanes) - center, lanes), t[k]);
          }
        });
        sum += double(reduce_add((s[0] + s[1]) + (s[2] + s[3])));
        product += double(reduce_add((t[0] + t[1]) + (t[2] + t[3])));
      }
      const double norm = double(rstd[r]);
      const V offset{W(-norm * sum / double(d))}, slope{W(-norm * norm * norm * product / double(d))};
      for_channels<V::size>(d, [&](int64_t i, int lanes, auto count) {
        for (int k = 0; k < decltype(count)::value; k++, i += V::size) {
          const V gv = load_n(gr + i, lanes), centered = load_n(xr + i, lanes) - center;
          store_n(to + i, fma(gv * load_n(weight + i, lanes), scale, fma(centered, slope, offset)), lanes);
          store_n(dw + i, fma(gv, centered * scale, load_n(dw + i, lanes)), lanes);
          store_n(db + i, load_n(db + i, lanes) + gv, lanes);
        }
      });
    }
  });
  parallel_for(2 * d, row_grain(blocks), [&](int64_t begin, int64_t end) {
    constexpr int width = 64;
    for (int64_t i = begin; i < end; i += width) {
      const int n = int(min_of<int64_t>(width, end - i));
      double sum[width] = {};
      for (int64_t b = 0; b < blocks; b++)
        for (int k = 0; k < n; k++) sum[k] += double(partial[b * 2 * d + i + k]);
      for (int k = 0; k < n; k++) {
        const bool is_bias = i + k >= d;
        write_param(a.out[1 + is_bias], i + k - (is_bias ? d : 0), sum[k]);
      }
    }
  });
}

}  // namespace
}  // namespace fastdl

#define FD_ROWS(op, kernel)                                                                                     \
  {OpId::op, kF32, kernel<float>}, {OpId::op, kF64, kernel<double>}, {OpId::op, kF16, kernel<::fastdl::f16>}, { \
    OpId::op, kBF16, kernel<::fastdl::bf16>                                                                     \
  }
using namespace fastdl;
FD_KERNEL_TABLE(norm) = {FD_ROWS(layer_norm, layer_norm_kernel), FD_ROWS(layer_norm_backward, layer_norm_backward_kernel), {}};
