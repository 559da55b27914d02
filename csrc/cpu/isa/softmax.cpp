// softmax, log_softmax and their gradients along any axis of dense memory, which is (outer, n, inner) to the axis: rows when inner
// is 1 (the last axis; channels of NHWC memory), else strips of up to 256 columns. Three passes over cached data: maximum, sum of
// exp(x - maximum), result. The maximum is subtracted, so nothing overflows; a row of -inf, or one with NaN, gives NaN as in
// PyTorch.
//   softmax      y = exp(x - m) / s        dx = y (g - sum(g y))
//   log_softmax  y = x - m - log(s)        dx = g - exp(y) sum(g)
#include "cpu/isa/softmax.h"

namespace fastdl {
namespace {

constexpr int kStrip = 256;  // columns

template <bool is_log, class T>
void softmax_row(const T* x, T* y, int64_t n) {
  using W = WideOf<T>;
  using V = Vec<W>;
  const W m = row_max(x, n);
  const T* const next = row_to_fetch(x, n);  // while exponentials keep the processor busy
  if constexpr (is_log) {
    const W s = log_of(row_sum_exp(x, n, m, next));
    for_vectors<W>(n, [&](int64_t i, auto k) { set(y + i, get(x + i, k) - V(m) - V(s), k); });
  } else if constexpr (sizeof(T) == 2) {  // the exponentials do not survive rounding to 16 bits: compute them twice
    const W scale = W(1) / row_sum_exp(x, n, m, next);
    for_vectors<W>(n, [&](int64_t i, auto k) { set(y + i, exp_negative(get(x + i, k) - V(m)) * V(scale), k); });
  } else {
    const auto keep = [&](int64_t i, auto k) {
      __builtin_prefetch(next + i);
      const V e = exp_negative(get(x + i, k) - V(m));
      set(y + i, e, k);
      return e;
    };
    const W scale = W(1) / reduce_add(join_vectors<W>(n, W(0), keep, kAdd));
    for_vectors<W>(n, [&](int64_t i, auto k) { set(y + i, get(y + i, k) * V(scale), k); });
  }
}

// w <= kStrip columns, `inner` apart per row. Rows go by in blocks that stay in the L1 cache: the block's maximum joins the running
// one, the running sum is rescaled to it, the block's exponentials are added (M. Milakov, N. Gimelshein, "Online normalizer
// calculation for softmax", 2018). The running maximum starts at the lowest finite number, as -inf - -inf would be NaN too early.
template <bool is_log, class T>
void softmax_columns(const T* x, T* y, int64_t n, int64_t inner, int w) {
  using W = WideOf<T>;
  using V = Vec<W>;
  const int64_t block =
      sizeof(T) == 8 ? n
                     : min_of<int64_t>(
                           128, max_of<int64_t>(
                                    8, 8192 / min_of<int64_t>(inner, kStrip)));  // exp of a double is too slow to be computed twice
  const bool keep = !is_log && sizeof(T) != 2 && n <= block;
  alignas(64) W m[kStrip], s[kStrip], before[kStrip], part[kStrip];
  for (int j = 0; j < w; j++) m[j] = sizeof(W) == 4 ? W(-3.40282347e+38) : W(-1.7976931348623157e+308), s[j] = 0;
  for (int64_t begin = 0; begin < n; begin += block) {
    const int64_t end = min_of(n, begin + block);
    __builtin_memcpy(before, m, sizeof m);
    __builtin_memset(part, 0, sizeof part);
    for (int64_t r = begin; r < end; r++)
      for_vectors<W>(w, [&](int64_t j, auto k) { set(m + j, max(get(m + j, k), get(x + r * inner + j, k)), k); });
    for (int64_t r = begin; r < end; r++)
      for_vectors<W>(w, [&](int64_t j, auto k) {
        const V e = exp_negative(get(x + r * inner + j, k) - get(m + j, k));
        if (keep) set(y + r * inner + j, e, k);
        set(part + j, get(part + j, k) + e, k);
      });
    for_vectors<W>(w, [&](int64_t j, auto k) {
      const V scale = exp(get(before + j, k) - get(m + j, k));
      set(s + j, fma(get(s + j, k), scale, get(part + j, k)), k);
    });
  }
  for_vectors<W>(w, [&](int64_t j, auto k) { set(s + j, is_log ? log(get(s + j, k)) : V(W(1)) / get(s + j, k), k); });
  for (int64_t r = 0; r < n; r++)
    for_vectors<W>(w, [&](int64_t j, auto k) {
      const T *px = x + r * inner + j, *py = y + r * inner + j;
      const V t = get(s + j, k);
      if constexpr (is_log)
        set(y + r * inner + j, get(px, k) - get(m + j, k) - t, k);
      else
        set(y + r * inner + j, (keep ? get(py, k) : exp_negative(get(px, k) - get(m + j, k))) * t, k);
    });
}

template <bool is_log, class T>
void backward_row(const T* g, const T* y, T* dx, int64_t n) {
  using W = WideOf<T>;
  using V = Vec<W>;
  const auto term = [&](int64_t i, auto k) { return is_log ? get(g + i, k) : get(g + i, k) * get(y + i, k); };
  const V s = reduce_add(join_vectors<W>(n, W(0), term, kAdd));
  for_vectors<W>(n, [&](int64_t i, auto k) {
    const V a = get(g + i, k), b = get(y + i, k);
    set(dx + i, is_log ? a - exp(b) * s : b * (a - s), k);
  });
}

template <bool is_log, class T>
void backward_columns(const T* g, const T* y, T* dx, int64_t n, int64_t inner, int w) {
  using W = WideOf<T>;
  using V = Vec<W>;
  alignas(64) W s[kStrip];
  for (int j = 0; j < w; j++) s[j] = 0;
  for (int64_t r = 0; r < n; r++)
    for_vectors<W>(w, [&](int64_t j, auto k) {
      const V a = get(g + r * inner + j, k);
      set(s + j, get(s + j, k) + (is_log ? a : a * get(y + r * inner + j, k)), k);
    });
  for (int64_t r = 0; r < n; r++)
    for_vectors<W>(w, [&](int64_t j, auto k) {
      const V a = get(g + r * inner + j, k), b = get(y + r * inner + j, k), t = get(s + j, k);
      set(dx + r * inner + j, is_log ? a - exp(b) * t : b * (a - t), k);
    });
}

// Cuts dense memory into rows or strips: row(offset), columns(offset, columns).
template <class Row, class Columns>
void for_lines(const View& v, int64_t axis, Row&& row, Columns&& columns) {
  const int64_t total = v.numel();
  if (total == 0) return;
  const int64_t n = v.ndim ? v.shape[axis] : 1, inner = n > 1 ? v.strides[axis] : 1, outer = total / n / inner;
  if (inner == 1)
    return parallel_for(outer, max_of<int64_t>(1, kSoftmaxGrain / n), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; o++) row(o * n, n);
    });
  const ColumnBlocks strips(outer, inner, kStrip, ceil_div(kSoftmaxLeast, n), total <= kSoftmaxGrain ? 1 : num_threads());
  const int64_t work = ceil_div(inner, strips.count) * n;
  parallel_for(outer * strips.count, max_of<int64_t>(1, kSoftmaxGrain / work), [&](int64_t begin, int64_t end) {
    int64_t done = 0;
    for (int64_t t = begin; t < end; t++) {
      const int64_t i = t % strips.count, j = strips.begin(i), width = strips.begin(i + 1) - j;
      columns(t / strips.count * n * inner + j, n, inner, int(width));
      done += n * width;
    }
    piece_work(done, kSoftmaxLeast);
  });
}

template <bool is_log, class T>
void softmax_kernel(const Args& a) {
  const T* x = a.in[0].ptr<T>();
  T* y = a.out[0].ptr<T>();
  for_lines(
      a.in[0], a.attrs->i[0], [=](int64_t at, int64_t n) { softmax_row<is_log>(x + at, y + at, n); },
      [=](int64_t at, int64_t n, int64_t inner, int w) { softmax_columns<is_log>(x + at, y + at, n, inner, w); });
}

template <bool is_log, class T>
void softmax_backward_kernel(const Args& a) {
  const T *g = a.in[0].ptr<T>(), *y = a.in[1].ptr<T>();
  T* dx = a.out[0].ptr<T>();
  for_lines(
      a.in[1], a.attrs->i[0], [=](int64_t at, int64_t n) { backward_row<is_log>(g + at, y + at, dx + at, n); },
      [=](int64_t at, int64_t n, int64_t inner, int w) { backward_columns<is_log>(g + at, y + at, dx + at, n, inner, w); });
}

}  // namespace

#define FD_SOFTMAX_ROWS(mask, T)                                                                       \
  {OpId::softmax, mask, softmax_kernel<false, T>}, {OpId::log_softmax, mask, softmax_kernel<true, T>}, \
      {OpId::softmax_backward, mask, softmax_backward_kernel<false, T>}, {                             \
    OpId::log_softmax_backward, mask, softmax_backward_kernel<true, T>                                 \
  }
FD_KERNEL_TABLE(softmax) = {
    FD_SOFTMAX_ROWS(kF32, float), FD_SOFTMAX_ROWS(kF64, double), FD_SOFTMAX_ROWS(kF16, f16), FD_SOFTMAX_ROWS(kBF16, bf16), {}};

}  // namespace fastdl
