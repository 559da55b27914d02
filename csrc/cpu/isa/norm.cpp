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

// Rows go in small groups that stay in the first cache level between the passes over them.
constexpr int64_t kGroup = 16;
constexpr int64_t group_rows(int64_t d) { return max_of<int64_t>(4, min_of<int64_t>(kGroup, 4096 / d)); }

// Rows of length d > 0; mean and rstd are outputs. (Plain arguments: what a lambda captures is read again after every store.)
template <class T, class W = WideOf<T>>
void normalise_rows(const T* x, Result<T> y, W* mean, W* rstd, const W* weight, const W* bias, int64_t rows, int64_t d,
                    double eps) {
  using V = Vec<W>;
  const int64_t group = group_rows(d);
  W center[kGroup], scale[kGroup], offset[kGroup];  // y = ((x - center) * scale + offset) * weight + bias
  for (int64_t r = 0; r < rows; r += group, x += group * d, y.to += group * d) {
    const int n = int(min_of(group, rows - r));
    for (int k = 0; k < n; k++) {
      const auto m = moments(x + k * d, d);
      const double inverse = inverse_std(m.squares / double(d), eps);
      mean[r + k] = W(double(m.center) + m.shift), rstd[r + k] = W(inverse);
      center[k] = m.center, scale[k] = W(inverse), offset[k] = W(-m.shift * inverse);
    }
    for_channels<V::size>(d, [&](int64_t c, int lanes, auto count) {
      constexpr int m = decltype(count)::value;
      V w[m], b[m];
      for (int j = 0; j < m; j++) w[j] = load_n(weight + c + j * V::size, lanes), b[j] = load_n(bias + c + j * V::size, lanes);
      for (int k = 0; k < n; k++) {
        const V from(center[k]), s(scale[k]), o(offset[k]);
        for (int j = 0; j < m; j++) {
          const int64_t i = k * d + c + j * V::size;
          y.store(i, fma(fma(load_n(x + i, lanes) - from, s, o), w[j], b[j]), lanes);
        }
      }
    });
  }
  y.finish();
}

template <class T>
void layer_norm_kernel(const Args& a) {
  using W = WideOf<T>;
  const int64_t rows = a.out[1].numel(), d = a.attrs->i[1];
  const double eps = a.attrs->f[0];
  const T* x = a.in[0].ptr<T>();
  const Result<T> y(a.out[0].ptr<T>(), rows * d, d);
  W *mean = a.out[1].ptr<W>(), *rstd = a.out[2].ptr<W>(), *space = static_cast<W*>(a.workspace);
  const W *weight = param_array(a.in[1], space, d, W(1)), *bias = param_array(a.in[2], space + d, d, W(0));
  parallel_for(rows, row_grain(d), [&](int64_t begin, int64_t end) {
    if (d) return normalise_rows(x + begin * d, y.from(begin * d), mean + begin, rstd + begin, weight, bias, end - begin, d, eps);
    for (int64_t r = begin; r < end; r++) mean[r] = rstd[r] = W(__builtin_nanf(""));
  });
}

// What dx of one row needs besides g, x and weight: dx = g * weight * scale + (x - center) * slope + offset.
template <class W>
struct RowGradient {
  W center, scale, slope, offset;
};
template <class T, class W = WideOf<T>>
FD_INLINE RowGradient<W> row_gradient(const T* g, const T* x, const W* weight, W mean, W rstd, int64_t d) {
  using V = Vec<W>;
  const V center(mean);
  double sum = 0, product = 0;  // of the gradient of the normalised row; of that times the centered row
  for (int64_t block = 0; block < d; block += kSumBlock) {
    V s[4], t[4];
    for (int k = 0; k < 4; k++) s[k] = t[k] = V(0);
    for_channels<V::size>(min_of(kSumBlock, d - block), [&](int64_t i, int lanes, auto count) {
      for (int k = 0; k < decltype(count)::value; k++) {
        const int64_t at = block + i + k * V::size;
        const V h = load_n(g + at, lanes) * load_n(weight + at, lanes);
        s[k] += h;
        t[k] = fma(h, first_lanes(load_n(x + at, lanes) - center, lanes), t[k]);
      }
    });
    sum += double(reduce_add((s[0] + s[1]) + (s[2] + s[3])));
    product += double(reduce_add((t[0] + t[1]) + (t[2] + t[3])));
  }
  const double n = double(d), r = double(rstd);
  return {mean, rstd, W(-r * r * r * product / n), W(-r * sum / n)};
}

// dx of `rows` rows; adds their share to dw and db. A few rows at a time go over the columns together, so that dw and db are read
// and written once per group.
template <class T, class W = WideOf<T>>
void backward_rows(const T* g, const T* x, const W* mean, const W* rstd, const W* weight, Result<T> dx, W* dw, W* db, int64_t rows,
                   int64_t d) {
  using V = Vec<W>;
  const int64_t group = group_rows(d);
  RowGradient<W> row[kGroup];
  for (int64_t r = 0; r < rows; r += group) {
    const int n = int(min_of(group, rows - r));
    const T *gr = g + r * d, *xr = x + r * d;
    const Result<T> to = dx.from(r * d);
    for (int k = 0; k < n; k++) row[k] = row_gradient(gr + k * d, xr + k * d, weight, mean[r + k], rstd[r + k], d);
    for_channels<V::size>(d, [&](int64_t c, int lanes, auto count) {
      constexpr int m = decltype(count)::value;
      V w[m], sum_w[m], sum_b[m];
      for (int j = 0; j < m; j++) {
        const int64_t i = c + j * V::size;
        w[j] = load_n(weight + i, lanes), sum_w[j] = load_n(dw + i, lanes), sum_b[j] = load_n(db + i, lanes);
      }
      for (int k = 0; k < n; k++) {
        const V center(row[k].center), scale(row[k].scale), slope(row[k].slope), offset(row[k].offset);
        for (int j = 0; j < m; j++) {
          const int64_t i = k * d + c + j * V::size;
          const V gv = load_n(gr + i, lanes), centered = load_n(xr + i, lanes) - center, scaled = gv * scale;
          to.store(i, fma(scaled, w[j], fma(centered, slope, offset)), lanes);
          sum_w[j] = fma(scaled, centered, sum_w[j]), sum_b[j] += gv;
        }
      }
      for (int j = 0; j < m; j++) store_n(dw + c + j * V::size, sum_w[j], lanes), store_n(db + c + j * V::size, sum_b[j], lanes);
    });
  }
  dx.finish();
}

template <class T>
void layer_norm_backward_kernel(const Args& a) {
  using W = WideOf<T>;
  const int64_t rows = a.in[2].numel(), d = a.attrs->i[1], block_rows = a.attrs->i[2];
  const int64_t blocks = ceil_div(rows, block_rows);
  const T *g = a.in[0].ptr<T>(), *x = a.in[1].ptr<T>();
  const W *mean = a.in[2].ptr<W>(), *rstd = a.in[3].ptr<W>();
  const Result<T> dx(a.out[0].ptr<T>(), rows * d, d);
  W* partial = static_cast<W*>(a.workspace);  // per block: dweight (D), dbias (D)
  const W* weight = param_array(a.in[4], partial + blocks * 2 * d, d, W(1));
  parallel_chunks(blocks, [&](int64_t b) {
    W* dw = partial + b * 2 * d;
    piece_work(min_of(block_rows, rows - b * block_rows) * d, 0);
    for (int64_t i = 0; i < 2 * d; i++) dw[i] = 0;
    const int64_t r = b * block_rows, at = r * d;
    if (d) backward_rows(g + at, x + at, mean + r, rstd + r, weight, dx.from(at), dw, dw + d, min_of(block_rows, rows - r), d);
  });
  const bool direct = a.out[1].dtype == dtype_of<W>();
  parallel_for(2 * d, row_grain(blocks), [&](int64_t begin, int64_t end) {
    constexpr int width = 64;
    for (int64_t i = begin; i < end; i += width) {
      const int n = int(min_of<int64_t>(width, end - i));
      double sum[width] = {};
      for (int64_t b = 0; b < blocks; b++) {
        const W* p = partial + b * 2 * d + i;
        for (int k = 0; k < n; k++) sum[k] += double(p[k]);
      }
      for (int k = 0; k < n; k++) {
        const View& out = a.out[i + k < d ? 1 : 2];
        const int64_t at = i + k < d ? i + k : i + k - d;
        if (direct)
          out.ptr<W>()[at] = W(sum[k]);
        else
          write_param(out, at, sum[k]);
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
