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

template <class T>
void cross_entropy_kernel(const Args& a) {
  using W = WideOf<T>;
  const View &logits = a.in[0], &target = a.in[1];
  const int64_t rows = logits.shape[0], classes = logits.shape[1], ignored = a.attrs->i[0];
  const W smoothing = W(a.attrs->f[0]);
  T* loss = a.out[0].ptr<T>();
  W* lse = a.out[1].ptr<W>();
  parallel_for(rows, max_of<int64_t>(1, kSoftmaxGrain / max_of<int64_t>(1, classes)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const T* x = logits.ptr<T>() + r * classes;
      const int64_t t = target_at(target, r);
      lse[r] = 0;
      if (t == ignored || t < 0 || t >= classes) {
        store_narrow_one(loss + r, t == ignored ? W(0) : kNaN<W>);
        continue;
      }
      const W m = row_max(x, classes), log_sum = log_of(row_sum_exp(x, classes, m));
      W y = (m - load_wide_one(x + t)) + log_sum;  // m - x_t first: exact where lse would be rounded
      if (smoothing != 0) {
        const auto term = [&](int64_t i, auto k) { return Vec<W>(m) - get(x + i, k); };
        y = (1 - smoothing) * y + smoothing * (reduce_add(join_vectors<W>(classes, W(0), term, kAdd)) / W(classes) + log_sum);
      }
      lse[r] = m + log_sum;
      store_narrow_one(loss + r, y);
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
  T* out = a.out[0].ptr<T>();
  parallel_for(rows, max_of<int64_t>(1, kSoftmaxGrain / max_of<int64_t>(1, classes)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const T* x = logits.ptr<T>() + r * classes;
      T* dx = out + r * classes;
      const int64_t t = target_at(target, r);
      if (t == ignored || t < 0 || t >= classes) {
        const V fill(t == ignored ? W(0) : kNaN<W>);
        for_vectors<W>(classes, [&](int64_t i, auto k) { set(dx + i, fill, k); });
        continue;
      }
      const W gr = load_wide_one(g.ptr<T>() + r * g.strides[0]), l = lse.ptr<W>()[r * lse.strides[0]];
      for_vectors<W>(classes, [&](int64_t i, auto k) { set(dx + i, V(gr) * (exp(get(x + i, k) - V(l)) - V(floor)), k); });
      const W p = exp(V(load_wide_one(x + t) - l))[0];
      store_narrow_one(dx + t, gr * (p - floor - (1 - smoothing)));
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
