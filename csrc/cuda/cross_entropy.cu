// Cross-entropy of logits (N, C) with class targets (N), its log-sum-exp kept for the gradient: one pass over the logits, and one
// for the gradient (two with smoothing). With smoothing e and target t, per row
//   loss = (1 - e) (lse - x_t) + e (lse - mean(x))
//   dx_c = g (exp(x_c - lse) - (1 - e) [c == t] - e / C)
// Rows whose target is ignore_index give 0; those with a target out of range are reported and give NaN. A row belongs to 8 lanes, a
// warp or a block.
#include "cuda/device/normalizer.cuh"
#include "math/log.h"

namespace fastdl {
namespace {

struct Targets {
  const void* data;
  DType dtype;
  int64_t stride, ignored, classes;
  DeviceError* error;

  FD_DEVICE int64_t at(int64_t row) const {
    const int64_t k = row * stride;
    switch (dtype) {
      case DType::int64:
        return static_cast<const int64_t*>(data)[k];
      case DType::int32:
        return static_cast<const int32_t*>(data)[k];
      case DType::int16:
        return static_cast<const int16_t*>(data)[k];
      case DType::int8:
        return static_cast<const int8_t*>(data)[k];
      case DType::uint32:
        return static_cast<const uint32_t*>(data)[k];
      case DType::uint16:
        return static_cast<const uint16_t*>(data)[k];
      default:
        return static_cast<const uint8_t*>(data)[k];
    }
  }
  // Whether a row with this target has a loss of its own; reports bad targets, once per row.
  FD_DEVICE bool valid(int64_t target, OpId op, bool report) const {
    const bool inside = uint64_t(target) < uint64_t(classes);
    if (!inside && target != ignored && report) report_index(error, op, target, classes);
    return inside && target != ignored;
  }
};
Targets targets_of(const Args& a, const View& v, int64_t classes) {
  return {v.data, v.dtype, v.strides[0], a.attrs->i[0], classes, a.device->error};
}

template <class T, int width>
FD_KERNEL(width ? kRowThreads : 1024, 1)
cross_entropy_kernel(const T* x, T* loss, WideOf<T>* lse, int64_t rows, bool vectors, Targets targets, WideOf<T> smoothing,
                     Convert<T> as) {
  using W = WideOf<T>;
  RowStorage<Normalizer<W>>* s = width ? nullptr : &shared_memory<RowStorage<Normalizer<W>>>();
  const int64_t row = row_of_group<width>(), n = targets.classes, t = targets.at(row < rows ? row : 0);
  using Index = std::conditional_t<width == 0, int64_t, int>;
  const auto whole = layout_of_group<T, width, Index>(n, vectors);
  const bool first = row < rows && whole.thread == 0, valid = row < rows && targets.valid(t, OpId::cross_entropy, first);
  auto layout = whole;
  if (!valid) layout.n = 0;  // rows without a loss take part in the reductions, with no elements
  x += (row < rows ? row : 0) * n;
  const Normalizer<W> all = row_normalizer<T, width>(layout, x, as, width ? nullptr : s->values);
  const W m = all.maximum, log_sum = log(all.sum);
  W below = 0;  // sum of m - x
  if (smoothing != W(0)) {
    for (Index p = 0; layout.has_pack(p); p++) {
      const Pack<T> pack = layout.load(x, p, T{});
#pragma unroll
      for (int k = 0; k < kPack<T>; k++) below += layout.holds(p, k) ? m - as.wide(pack.v[k]) : W(0);
    }
    below = group_reduce<SumOp, width>(below, width ? nullptr : reinterpret_cast<W*>(s->values));
  }
  if (!first) return;
  W y = t == targets.ignored ? W(0) : kNaN<W>, l = 0;
  if (valid) {
    y = (m - as.wide(x[t])) + log_sum;  // m - x_t first: exact where lse would be rounded
    if (smoothing != W(0)) y = (W(1) - smoothing) * y + smoothing * (below / W(n) + log_sum);
    l = m + log_sum;
  }
  loss[row] = as.narrow(y);
  lse[row] = l;
}

template <class T, int width>
FD_KERNEL(width ? kRowThreads : 1024, 1)
cross_entropy_gradient_kernel(const T* x, const T* g, int64_t g_stride, const WideOf<T>* lse, int64_t lse_stride, T* dx,
                              int64_t rows, bool vectors, Targets targets, WideOf<T> smoothing, Convert<T> as) {
  using W = WideOf<T>;
  const int64_t row = row_of_group<width>(), n = targets.classes;
  if (row >= rows) return;
  const int64_t t = targets.at(row);
  using Index = std::conditional_t<width == 0, int64_t, int>;
  const auto layout = layout_of_group<T, width, Index>(n, vectors);
  const bool valid = targets.valid(t, OpId::cross_entropy_backward, layout.thread == 0);
  const W floor = smoothing / W(n), scale = as.wide(g[row * g_stride]), l = lse[row * lse_stride];
  const W fill = t == targets.ignored ? W(0) : kNaN<W>;
  x += row * n, dx += row * n;
  for (Index p = 0; layout.has_pack(p); p++) {
    Pack<T> pack = layout.load(x, p, T{});
#pragma unroll
    for (int k = 0; k < kPack<T>; k++) {
      const W e = exp(as.wide(pack.v[k]) - l) - floor;
      const W d = scale * (layout.at(p, k) == t ? e - (W(1) - smoothing) : e);
      pack.v[k] = as.narrow(valid ? d : fill);
    }
    layout.store(dx, p, pack);
  }
}

// launch(width, blocks, threads) for rows of n elements
template <class T, class F>
void by_length(int64_t rows, int64_t n, const F& launch) {
  if (n <= 8 * kPack<T>)
    launch(Constant<8>(), uint32_t(ceil_div(rows, kRowThreads / 8)), kRowThreads);
  else if (n <= kWarp * 8 * kPack<T>)
    launch(Constant<kWarp>(), uint32_t(ceil_div(rows, kRowThreads / kWarp)), kRowThreads);
  else
    launch(Constant<0>(), uint32_t(rows), row_threads<T>(n, 8));
}

void cross_entropy_row(const Args& a) {
  const View &logits = a.in[0], &target = a.in[1];
  const int64_t rows = logits.shape[0], n = logits.shape[1];
  if (rows == 0) return;
  by_float(a.out[0].dtype, [&](auto as) {
    using T = typename decltype(as)::Type;
    using W = WideOf<T>;
    by_length<T>(rows, n, [&](auto width, uint32_t blocks, int threads) {
      FD_LAUNCH(a, (cross_entropy_kernel<T, width.value>), blocks, threads, width.value ? 0 : sizeof(RowStorage<Normalizer<W>>),
                logits.ptr<const T>(), a.out[0].ptr<T>(), a.out[1].ptr<W>(), rows, row_vectors<T>(logits.data, n),
                targets_of(a, target, n), W(a.attrs->f[0]), as);
    });
  });
}

void cross_entropy_backward_row(const Args& a) {
  const View &g = a.in[0], &logits = a.in[1], &target = a.in[2], &lse = a.in[3], &out = a.out[0];
  const int64_t rows = logits.shape[0], n = logits.shape[1];
  if (rows == 0 || n == 0) return;
  by_float(out.dtype, [&](auto as) {
    using T = typename decltype(as)::Type;
    using W = WideOf<T>;
    by_length<T>(rows, n, [&](auto width, uint32_t blocks, int threads) {
      FD_LAUNCH(a, (cross_entropy_gradient_kernel<T, width.value>), blocks, threads, 0, logits.ptr<const T>(), g.ptr<const T>(),
                g.strides[0], lse.ptr<const W>(), lse.strides[0], out.ptr<T>(), rows,
                row_vectors<T>(logits.data, n) && row_vectors<T>(out.data, n), targets_of(a, target, n), W(a.attrs->f[0]), as);
    });
  });
}

}  // namespace

FD_CUDA_TABLE(cross_entropy) = {{OpId::cross_entropy, kMaskFloat, cross_entropy_row, nullptr},
                                {OpId::cross_entropy_backward, kMaskFloat, cross_entropy_backward_row, nullptr},
                                {}};

}  // namespace fastdl
