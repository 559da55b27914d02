// cumsum, cumprod along an axis. Each result depends on the one before, so the work is vectorised and shared across lines: blocks
// of neighbouring lines advance together where a kept dim lies innermost, else line by line. Floats accumulate in double (as
// PyTorch on the CPU), integers in 64 bits; a block passes through lanes of one of three types (reduce.h), so that dtypes cost no
// code.
#include "cpu/isa/reduce.h"
#include "core/infer/pieces.h"

namespace fastdl {
namespace {

constexpr int64_t kBlock = 512;  // elements of a line, or lines, at a time

// All results of a vector at once: in log2(size) steps every lane takes in the lane 1, 2, 4 ... before it (W. Hillis, G. Steele,
// "Data parallel algorithms", 1986), then what came before the vector. That leaves one operation per vector in the chain.
template <class Op, int distance, class A>
FD_INLINE Vec<A> take_before(Vec<A> v) {
  if constexpr (distance < Vec<A>::size)
    return Op::f(v, permute2(Vec<A>(Op::identity), v, [](int i) { return i < distance ? i : Vec<A>::size + i - distance; }));
  else
    return v;
}
template <class Op, class A>
FD_INLINE Vec<A> scan_vector(Vec<A> v, Vec<A>& carry) {
  constexpr int last = Vec<A>::size - 1;
  v = Op::f(carry, take_before<Op, 4>(take_before<Op, 2>(take_before<Op, 1>(v))));
  carry = permute2(v, v, [](int) { return last; });
  return v;
}

// out[i] = in[0] op .. op in[i] and what came before; out may be in.
template <class Op, class A, class L>
void scan_run(const L* in, L* out, int64_t n, A& before) {
  constexpr int S = Vec<L>::size;
  Vec<A> carry(before);
  int64_t i = 0;
  for (; i + S <= n; i += S) {
    const Vec<L> x = load(in + i);
    if constexpr (sizeof(L) == sizeof(A)) {
      store(out + i, scan_vector<Op>(x, carry));
    } else {
      const Vec<A> low = scan_vector<Op>(widen_low(x), carry);
      store(out + i, narrow(low, scan_vector<Op>(widen_high(x), carry)));
    }
  }
  A acc = carry[0];
  for (; i < n; i++) acc = Op::f(acc, A(in[i])), out[i] = L(acc);
  before = acc;
}

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
  const bool direct_in = x.dtype == dtype_of<L>(), direct_out = y.dtype == dtype_of<L>();
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
          const char* src = p + i * lines.in_step * item;
          char* dst = q + i * lines.out_step * out_item;
          const bool in_place = direct_in && lines.in_step == 1, out_place = direct_out && lines.out_step == 1;
          if (!in_place) fill(src, lines.in_step, m, buf);
          L* to = out_place ? reinterpret_cast<L*>(dst) : buf;
          scan_run<Op<A>>(in_place ? reinterpret_cast<const L*>(src) : buf, to, m, acc);
          if (!out_place) put(buf, m, dst, lines.out_step);
        }
      }
    });
    return;
  }
  const int64_t blocks = ceil_div(inner, kBlock), width = min_of(inner, kBlock);
  const int64_t in_width = plan.inner_in(), out_width = plan.k[plan.nk - 1].out;
  const bool in_place = direct_in && in_width == 1, out_place = direct_out && out_width == 1;
  parallel_for(plan.outs / inner * blocks, max_of<int64_t>(1, kReduceGrain / (n * width)), [&](int64_t begin, int64_t end) {
    alignas(64) L buf[kBlock];
    alignas(64) A acc[kBlock];
    for (int64_t t = begin; t < end; t++) {
      const int64_t j = t % blocks * kBlock, o = t / blocks * inner + j, w = min_of(kBlock, inner - j);
      const char* p = plan.in + plan.kept_offset(o) * item;
      char* q = plan.out + plan.out_offset(o) * out_item;
      for (int64_t k = 0; k < w; k++) acc[k] = Op<A>::identity;
      for (int64_t i = 0; i < n; i++) {
        const char* src = p + i * lines.in_step * item;
        char* dst = q + i * lines.out_step * out_item;
        if (!in_place) fill(src, in_width, w, buf);
        const L* from = in_place ? reinterpret_cast<const L*>(src) : buf;
        L* to = out_place ? reinterpret_cast<L*>(dst) : buf;
#pragma GCC ivdep
        for (int64_t k = 0; k < w; k++) acc[k] = Op<A>::f(acc[k], A(from[k])), to[k] = L(acc[k]);
        if (!out_place) put(buf, w, dst, out_width);
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

FD_KERNEL_TABLE(scan) = {{OpId::cumsum, kAll, scan_kernel<Sum, false>}, {OpId::cumprod, kAll, scan_kernel<Prod, true>}, {}};

}  // namespace fastdl
