// Cross-entropy of logits (N, C) with class targets (N), its log-sum-exp kept for the gradient: what PyTorch computes as
// log_softmax + nll_loss in six passes is one here, and one for the gradient. With smoothing e and target t, per row
//   loss = (1 - e) (lse - x_t) + e (lse - mean(x))
//   dx_c = g (exp(x_c - lse) - (1 - e) [c == t] - e / C)
// Rows whose target is ignore_index give 0. Inference checks targets; as a recorded launch may be replayed with others, a target
// out of range here makes its row NaN instead of reading foreign memory.
#include "cpu/isa/softmax.h"

namespace fastdl {
namespace {

int64_t target_at(const View& t, int64_t row) {
  const int64_t k = row * t.strides[0];
  switch (t.dtype) {
    case DType::int64:
      return t.ptr<int64_t>()[k];
    case DType::int32:
      return t.ptr<int32_t>()[k];
    case DType::int16:
      return t.ptr<int16_t>()[k];
    case DType::int8:
      return t.ptr<int8_t>()[k];
    case DType::uint32:
      return t.ptr<uint32_t>()[k];
    case DType::uint16:
      return t.ptr<uint16_t>()[k];
    default:
      return t.ptr<uint8_t>()[k];
  }
}

// Rows in groups of one vector: what there is one of in each row (logarithm, exponential of the target's logit) is done for all of
// them at once, which also lets the processor work on many rows at a time.
template <class T, class F>
void for_row_groups(int64_t rows, int64_t classes, F&& f) {
  constexpr int64_t most = Vec<WideOf<T>>::size;
  const int64_t grain = ceil_div<int64_t>(kSoftmaxGrain / max_of<int64_t>(1, classes), most) * most;
  parallel_for(rows, max_of(most, grain), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r += most) f(r, int(min_of(most, end - r)));
  });
}

// Targets of `count` rows; -1 for those that have none, because they are ignored or out of range.
FD_INLINE void read_targets(const View& target, int64_t row, int count, int64_t classes, int64_t ignored, int64_t* t) {
  for (int k = 0; k < count; k++) {
    const int64_t at = target_at(target, row + k);
    t[k] = at == ignored || at < 0 || at >= classes ? -1 : at;
  }
}

template <class T>
void cross_entropy_kernel(const Args& a) {
  using W = WideOf<T>;
  using V = Vec<W>;
  const View &logits = a.in[0], &target = a.in[1];
  const int64_t rows = logits.shape[0], classes = logits.shape[1], ignored = a.attrs->i[0];
  const W smoothing = W(a.attrs->f[0]);
  T* loss = a.out[0].ptr<T>();
  W* lse = a.out[1].ptr<W>();
  for_row_groups<T>(rows, classes, [&](int64_t r, int count) {
    int64_t t[V::size];
    W m[V::size], sum[V::size], at[V::size], y[V::size], log_sum[V::size];
    read_targets(target, r, count, classes, ignored, t);
    const T* x = logits.ptr<T>() + r * classes;
    for (int k = 0; k < count; k++) m[k] = t[k] < 0 ? W(0) : row_max(x + k * classes, classes);
    for (int k = 0; k < count; k++) {
      sum[k] = t[k] < 0 ? W(1) : row_sum_exp(x + k * classes, classes, m[k], row_to_fetch(x + k * classes, classes, count));
      at[k] = t[k] < 0 ? W(0) : load_wide_one(x + k * classes + t[k]);
    }
    const V logs = log(load_partial(sum, count)), top = load_partial(m, count);
    store(log_sum, logs);
    store(y, (top - load_partial(at, count)) + logs);  // max - x_t first: exact where lse would be rounded
    store_partial(lse + r, top + logs, count);
    for (int k = 0; k < count; k++) {
      if (t[k] < 0) {
        lse[r + k] = 0;
        y[k] = target_at(target, r + k) == ignored ? W(0) : kNaN<W>;
      } else if (smoothing != 0) {
        const auto term = [&](int64_t i, auto part) { return V(m[k]) - get(x + k * classes + i, part); };
        const W mean = reduce_add(join_vectors<W>(classes, W(0), term, kAdd)) / W(classes);
        y[k] = (1 - smoothing) * y[k] + smoothing * (mean + log_sum[k]);
      }
      store_narrow_one(loss + r + k, y[k]);
    }
  });
}

template <class T>
void cross_entropy_backward_kernel(const Args& a) {
  using W = WideOf<T>;
  using V = Vec<W>;
  const View &g = a.in[0], &logits = a.in[1], &target = a.in[2], &lse = a.in[3];
  const int64_t rows = logits.shape[0], classes = logits.shape[1], ignored = a.attrs->i[0];
  const W smoothing = W(a.attrs->f[0]), floor = classes ? smoothing / W(classes) : 0;
  for_row_groups<T>(rows, classes, [&](int64_t r, int count) {
    int64_t t[V::size];
    W l[V::size], of_target[V::size];
    read_targets(target, r, count, classes, ignored, t);
    const T* x = logits.ptr<T>() + r * classes;
    T* dx = a.out[0].ptr<T>() + r * classes;
    for (int k = 0; k < count; k++) {
      l[k] = lse.ptr<W>()[(r + k) * lse.strides[0]];
      of_target[k] = t[k] < 0 ? W(0) : load_wide_one(x + k * classes + t[k]) - l[k];
    }
    store(of_target, exp(load_partial(of_target, count)));
    for (int k = 0; k < count; k++, x += classes, dx += classes) {
      if (t[k] < 0) {
        const V fill(target_at(target, r + k) == ignored ? W(0) : kNaN<W>);
        for_vectors<W>(classes, [&](int64_t i, auto part) { set(dx + i, fill, part); });
        continue;
      }
      const W gr = load_wide_one(g.ptr<T>() + (r + k) * g.strides[0]);
      const V scale(gr), shift(l[k]);
      for_vectors<W>(classes, [&](int64_t i, auto part) { set(dx + i, scale * (exp(get(x + i, part) - shift) - V(floor)), part); });
      store_narrow_one(dx + t[k], gr * (of_target[k] - floor - (1 - smoothing)));
    }
  });
}

}  // namespace

#define FD_CROSS_ENTROPY_ROWS(mask, T) \
  {OpId::cross_entropy, mask, cross_entropy_kernel<T>}, { OpId::cross_entropy_backward, mask, cross_entropy_backward_kernel<T> }
FD_KERNEL_TABLE(cross_entropy) = {FD_CROSS_ENTROPY_ROWS(kF32, float),
                                  FD_CROSS_ENTROPY_ROWS(kF64, double),
                                  FD_CROSS_ENTROPY_ROWS(kF16, f16),
                                  FD_CROSS_ENTROPY_ROWS(kBF16, bf16),
                                  {}};

}  // namespace fastdl
