// cumsum, cumprod along an axis. Each result depends on the one before, so the work is vectorised and shared across lines: blocks
// of neighbouring lines advance together where a kept dim lies innermost, else line by line. Floats accumulate in double (as
// PyTorch on the CPU), integers in 64 bits; a block passes through lanes of one of three types (reduce.h), so that dtypes cost no
// code.
#include "cpu/isa/reduce.h"
#include "core/infer/pieces.h"

namespace fastdl {
namespace {

constexpr int64_t kBlock = 512;  // elements of a line, or lines, at a time

template <class A>
struct Add {
  static constexpr A identity = 0;
  static FD_INLINE A f(A a, A b) {
    if constexpr (kIsInt<A>)
      return A(uint64_t(a) + uint64_t(b));
    else
      return a + b;
  }
};
template <class A>
struct Multiply {
  static constexpr A identity = 1;
  static FD_INLINE A f(A a, A b) {
    if constexpr (kIsInt<A>)
      return A(uint64_t(a) * uint64_t(b));
    else
      return a * b;
  }
};

// The lines of a scan: plan.k holds the other dims, the axis is apart.
struct Lines {
  ReducePlan plan;
  int64_t n, in_step, out_step;
  Lines(const View& x, const View& y, int64_t axis)
      : plan(x, y, int64_t(1) << axis, true), n(x.shape[axis]), in_step(x.strides[axis]), out_step(y.strides[axis]) {}
};

// L: lane type of loads and stores, A: of the accumulator.
template <template <class> class Op, class L, class A>
void scan(const Args& a) {
  const View &x = a.in[0], &y = a.out[0];
  const Lines lines(x, y, a.attrs->i[0]);
  const ReducePlan& plan = lines.plan;
  const int64_t n = lines.n, item = plan.item, out_item = plan.out_item;
  if (plan.outs == 0 || n == 0) return;
  const Fill<L> fill = fill_for<L, As::Value>(x.dtype);
  const Put<L> put = put_for<L, As::Value>(y.dtype);
  const int64_t inner = plan.inner_kept(), distance = lines.in_step < 0 ? -lines.in_step : lines.in_step;
  if (inner < 4 || (n > 1 && distance <= plan.inner_in())) {  // line by line
    parallel_for(plan.outs, max_of<int64_t>(1, kReduceGrain / n), [&](int64_t begin, int64_t end) {
      alignas(64) L buf[kBlock];
      for (int64_t o = begin; o < end; o++) {
        const char* p = plan.in + plan.kept_offset(o) * item;
        char* q = plan.out + plan.out_offset(o) * out_item;
        A acc = Op<A>::identity;
        for (int64_t i = 0; i < n; i += kBlock) {
          const int64_t m = min_of(kBlock, n - i);
          fill(p + i * lines.in_step * item, lines.in_step, m, buf);
          for (int64_t k = 0; k < m; k++) acc = Op<A>::f(acc, A(buf[k])), buf[k] = L(acc);
          put(buf, m, q + i * lines.out_step * out_item, lines.out_step);
        }
      }
    });
    return;
  }
  const int64_t blocks = ceil_div(inner, kBlock), width = min_of(inner, kBlock);
  const int64_t in_width = plan.inner_in(), out_width = plan.k[plan.nk - 1].out;
  parallel_for(plan.outs / inner * blocks, max_of<int64_t>(1, kReduceGrain / (n * width)), [&](int64_t begin, int64_t end) {
    alignas(64) L buf[kBlock];
    alignas(64) A acc[kBlock];
    for (int64_t t = begin; t < end; t++) {
      const int64_t j = t % blocks * kBlock, o = t / blocks * inner + j, w = min_of(kBlock, inner - j);
      const char* p = plan.in + plan.kept_offset(o) * item;
      char* q = plan.out + plan.out_offset(o) * out_item;
      for (int64_t k = 0; k < w; k++) acc[k] = Op<A>::identity;
      for (int64_t i = 0; i < n; i++) {
        fill(p + i * lines.in_step * item, in_width, w, buf);
        for (int64_t k = 0; k < w; k++) acc[k] = Op<A>::f(acc[k], A(buf[k])), buf[k] = L(acc[k]);
        put(buf, w, q + i * lines.out_step * out_item, out_width);
      }
    }
  });
}

// Complex lines, one by one.
template <class C, bool product>
void complex_scan(const Args& a) {
  const Lines lines(a.in[0], a.out[0], a.attrs->i[0]);
  const ReducePlan& plan = lines.plan;
  if (lines.n == 0) return;
  parallel_for(plan.outs, max_of<int64_t>(1, kReduceGrain / lines.n), [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; o++) {
      const C* p = reinterpret_cast<const C*>(plan.in) + plan.kept_offset(o);
      C* q = reinterpret_cast<C*>(plan.out) + plan.out_offset(o);
      double re = product, im = 0;
      for (int64_t i = 0; i < lines.n; i++) {
        const double r = p[i * lines.in_step].re, s = p[i * lines.in_step].im, re_before = re;
        re = product ? re_before * r - im * s : re + r;
        im = product ? re_before * s + im * r : im + s;
        q[i * lines.out_step] = {decltype(C::re)(re), decltype(C::re)(im)};
      }
    }
  });
}

template <template <class> class Op, bool product>
void scan_kernel(const Args& a) {
  switch (a.in[0].dtype) {
    case DType::float16:
    case DType::bfloat16:
    case DType::float32:
      return scan<Op, float, double>(a);
    case DType::float64:
      return scan<Op, double, double>(a);
    case DType::complex64:
      return complex_scan<c64, product>(a);
    case DType::complex128:
      return complex_scan<c128, product>(a);
    default:
      return scan<Op, int64_t, int64_t>(a);
  }
}

constexpr DTypeMask kAll = kMaskBool | kMaskInt | kMaskFloat | kMaskComplex;
}  // namespace

FD_KERNEL_TABLE(scan) = {{OpId::cumsum, kAll, scan_kernel<Add, false>}, {OpId::cumprod, kAll, scan_kernel<Multiply, true>}, {}};

}  // namespace fastdl
