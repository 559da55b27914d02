// adaptive_avg_pool2d, adaptive_max_pool2d and their backward passes, on channels-last memory.
//
// Output o of `out` covers inputs floor(o * in / out) .. ceil((o + 1) * in / out) - 1, as in PyTorch. The windows that hold input i
// are given by the same formula with the two sizes exchanged, so that gradients can gather: each input is written once.
#include "cpu/isa/pool.h"

namespace fastdl {
namespace {

struct AdaptivePool {
  int64_t n, c;
  AdaptiveAxis h, w;
  AdaptivePool(const View& x, const View& y) : n(x.shape[0]), c(x.shape[1]), h{x.shape[2], y.shape[2]}, w{x.shape[3], y.shape[3]} {}
};

template <class T>
void adaptive_avg_pool2d_kernel(const Args& a) {
  using W = WideOf<T>;
  const AdaptivePool p(a.in[0], a.out[0]);
  const T* x = a.in[0].ptr<T>();
  T* y = a.out[0].ptr<T>();
  const int64_t window = (p.h.in / max_of<int64_t>(1, p.h.out) + 1) * (p.w.in + p.w.out);
  parallel_for(p.n * p.h.out, row_grain(window * p.c), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t oh = r % p.h.out, h0 = p.h.first_input(oh), h1 = p.h.end_input(oh);
      const T* image = x + r / p.h.out * p.h.in * p.w.in * p.c;
      for (int64_t ow = 0; ow < p.w.out; ow++) {
        const int64_t w0 = p.w.first_input(ow), w1 = p.w.end_input(ow);
        mean_window(image, y + (r * p.w.out + ow) * p.c, p.c, p.w.in, h0, h1, w0, w1, Vec<W>(W(h1 - h0) * W(w1 - w0)));
      }
    }
  });
}

template <class T>
void adaptive_avg_pool2d_backward_kernel(const Args& a) {
  using W = WideOf<T>;
  const AdaptivePool p(a.out[0], a.in[0]);
  const T* g = a.in[0].ptr<T>();
  const Result<T> result(a.out[0].ptr<T>(), a.out[0].numel(), p.c);
  parallel_for(p.n * p.h.in, row_grain(p.w.in * p.c), [&](int64_t begin, int64_t end) {
    const Result<T> dx = result;
    for (int64_t r = begin; r < end; r++) {
      const int64_t h = r % p.h.in, oh0 = p.h.first_window(h), oh1 = p.h.end_window(h);
      const T* image = g + r / p.h.in * p.h.out * p.w.out * p.c;
      for (int64_t w = 0; w < p.w.in; w++)
        spread_windows(
            image, dx, (r * p.w.in + w) * p.c, p.c, p.w.out, oh0, oh1, p.w.first_window(w), p.w.end_window(w),
            [&](int64_t oh, int64_t ow) {
              return Vec<W>(W(1) / (W(p.h.end_input(oh) - p.h.first_input(oh)) * W(p.w.end_input(ow) - p.w.first_input(ow))));
            });
    }
    dx.finish();
  });
}

// Indices are int64 and values mostly float: lanes of Vec<int64> are too few, so the running index is kept per channel in an array
// over which the compiler vectorises.
template <class T>
void adaptive_max_pool2d_kernel(const Args& a) {
  using W = WideOf<T>;
  constexpr int block = 64;
  const AdaptivePool p(a.in[0], a.out[0]);
  const T* x = a.in[0].ptr<T>();
  T* y = a.out[0].ptr<T>();
  int64_t* indices = a.out[1].ptr<int64_t>();
  const int64_t window = (p.h.in / max_of<int64_t>(1, p.h.out) + 1) * (p.w.in + p.w.out);
  parallel_for(p.n * p.h.out, row_grain(window * p.c), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t oh = r % p.h.out, h0 = p.h.first_input(oh), h1 = p.h.end_input(oh);
      const T* image = x + r / p.h.out * p.h.in * p.w.in * p.c;
      for (int64_t ow = 0; ow < p.w.out; ow++) {
        const int64_t w0 = p.w.first_input(ow), w1 = p.w.end_input(ow), at = (r * p.w.out + ow) * p.c;
        for (int64_t c = 0; c < p.c; c += block) {
          const int n = int(min_of<int64_t>(block, p.c - c));
          W best[block];
          int64_t index[block];
          for (int k = 0; k < n; k++)
            best[k] = load_wide_one(image + (h0 * p.w.in + w0) * p.c + c + k), index[k] = h0 * p.w.in + w0;
          for (int64_t h = h0; h < h1; h++)
            for (int64_t w = w0; w < w1; w++) {
              const T* q = image + (h * p.w.in + w) * p.c + c;
              for (int k = 0; k < n; k++) {
                const W v = load_wide_one(q + k);
                const bool better = !(v <= best[k]) && best[k] == best[k];
                best[k] = better ? v : best[k];
                index[k] = better ? h * p.w.in + w : index[k];
              }
            }
          for (int k = 0; k < n; k++) store_narrow_one(y + at + c + k, best[k]), indices[at + c + k] = index[k];
        }
      }
    }
  });
}

template <class T>
void adaptive_max_pool2d_backward_kernel(const Args& a) {
  using W = WideOf<T>;
  constexpr int block = 64;
  const AdaptivePool p(a.out[0], a.in[0]);
  const T* g = a.in[0].ptr<T>();
  const int64_t* indices = a.in[1].ptr<int64_t>();
  T* dx = a.out[0].ptr<T>();
  parallel_for(p.n * p.h.in, row_grain(p.w.in * p.c), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t h = r % p.h.in, oh0 = p.h.first_window(h), oh1 = p.h.end_window(h), image = r / p.h.in * p.h.out;
      for (int64_t w = 0; w < p.w.in; w++) {
        const int64_t ow0 = p.w.first_window(w), ow1 = p.w.end_window(w), self = h * p.w.in + w;
        for (int64_t c = 0; c < p.c; c += block) {
          const int n = int(min_of<int64_t>(block, p.c - c));
          W sum[block] = {};
          for (int64_t oh = oh0; oh < oh1; oh++)
            for (int64_t ow = ow0; ow < ow1; ow++) {
              const int64_t at = ((image + oh) * p.w.out + ow) * p.c + c;
              for (int k = 0; k < n; k++) {
                const W v = load_wide_one(g + at + k);
                sum[k] += indices[at + k] == self ? v : W(0);
              }
            }
          for (int k = 0; k < n; k++) store_narrow_one(dx + (r * p.w.in + w) * p.c + c + k, sum[k]);
        }
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
FD_KERNEL_TABLE(adaptive_pool) = {FD_ROWS(adaptive_avg_pool2d, adaptive_avg_pool2d_kernel),
                                  FD_ROWS(adaptive_avg_pool2d_backward, adaptive_avg_pool2d_backward_kernel),
                                  FD_ROWS(adaptive_max_pool2d, adaptive_max_pool2d_kernel),
                                  FD_ROWS(adaptive_max_pool2d_backward, adaptive_max_pool2d_backward_kernel),
                                  {}};
