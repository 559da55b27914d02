// sum, prod, mean, max, min, any, all, var over any set of axes of any strided view.
//
// The plan (reduce.h) turns a call into kept and reduced dims in memory order. Then one of two walks:
//   rows     the reduced dim lies innermost: per output, leaves of 512 neighbouring elements go through four vector accumulators
//   columns  a kept dim lies innermost: vectors of up to 2048 outputs, eight input rows at a time, leaves of 128 rows
// Leaves are merged pairwise (N. Higham, "The accuracy of floating point summation", 1993), so the error of a sum grows with log n.
// Variance: per leaf the corrected two-pass formula, leaves merged as in T. Chan, G. Golub, R. LeVeque, "Updating formulae and a
// pairwise algorithm for computing sample variances" (1979). Strided and 8/16-bit elements are first copied to lanes, block-wise.
// Threads get groups of outputs, or pieces of the elements of few outputs (core/infer/pieces.h): never by thread count.
#include "cpu/isa/reduce.h"
#include "core/infer/pieces.h"

namespace fastdl {
namespace {

// ---- reducers: what is kept per output (kParts numbers of type Acc), how a leaf is reduced, how two are merged
// ------------------- acc arrays hold part p of output j at acc[p * pitch + j].
constexpr int kLeafRows = 128;  // rows of a leaf of columns
constexpr int kGroup = 8;       // of which so many are read at once
constexpr int kNarrow = 512;    // width of a leaf of columns, at least, where there are threads to share; at most R::kWidth
constexpr int kCopied = 256;    // most outputs of a leaf of columns, where elements are copied to lanes; else R::kWidth

// acc[0..w) = op over m <= 8 rows, and over acc unless `first`.
template <class Op, class L>
void fold_rows(const L* const* rows, int m, int w, L* acc, bool first) {
  using V = Vec<L>;
  const auto vectors = [&](auto&& get, auto&& set) {
    V a = get(rows[0]);
    if (m == kGroup) {
      const V b = Op::f(Op::f(a, get(rows[1])), Op::f(get(rows[2]), get(rows[3])));
      a = Op::f(b, Op::f(Op::f(get(rows[4]), get(rows[5])), Op::f(get(rows[6]), get(rows[7]))));
    } else {
      for (int i = 1; i < m; i++) a = Op::f(a, get(rows[i]));
    }
    set(first ? a : Op::f(get(acc), a));
  };
  int j = 0;
  for (; j + V::size <= w; j += V::size) vectors([&](const L* p) { return load(p + j); }, [&](V a) { store(acc + j, a); });
  if (j < w) vectors([&](const L* p) { return load_partial(p + j, w - j); }, [&](V a) { store_partial(acc + j, a, w - j); });
}

template <class Op>
struct Fold {
  using L = typename Op::L;
  using Acc = L;
  static constexpr int kParts = 1;
  static constexpr int64_t kLeaf = Op::kLeaf;
  static constexpr int kWidth = 8192 / int(sizeof(L));  // long stretches of each row for the sake of the hardware's prefetch
  double divisor = 0;                                   // mean: the number of elements
  bool is_mean = false;

  static void leaf(const L* p, int64_t n, Acc* acc) { acc[0] = fold_run<Op>(p, n); }
  // rows(i, m, r): fills r[0..m) with pointers to the w lanes of rows i .. i + m - 1
  template <class Rows>
  static void leaf_columns(Rows&& rows, int count, int w, Acc* acc, int64_t) {
    const L* r[kGroup];
    for (int i = 0; i < count; i += kGroup) {
      const int m = min_of(kGroup, count - i);
      rows(i, m, r);
      fold_rows<Op>(r, m, w, acc, i == 0);
    }
  }
  static void merge(Acc* a, int64_t, const Acc* b, int64_t, int64_t w, int64_t, int64_t) {
    for (int64_t j = 0; j < w; j++) a[j] = Op::f(a[j], b[j]);
  }
  static void empty(Acc* acc, int64_t, int64_t w) {
    for (int64_t j = 0; j < w; j++) acc[j] = Op::identity;
  }
  void finish(const Acc* acc, int64_t, int64_t w, L* y) const {
    for (int64_t j = 0; j < w; j++) y[j] = is_mean ? L(acc[j] / L(divisor)) : acc[j];
  }
};

// Part 0: mean, part 1: sum of squared distances from it; in double for float too, so that merges lose nothing.
template <class T>
struct Var {
  using L = T;
  using Acc = double;
  static constexpr int kParts = 2;
  static constexpr int64_t kLeaf = 2048;
  static constexpr int kWidth = 512;  // a leaf is read twice
  double divisor = 0;
  bool is_mean = false;

  static void leaf(const L* p, int64_t n, Acc* acc) {
    using V = Vec<L>;
    constexpr int S = V::size;
    L sum = 0;
    if (n <= 512)
      sum = fold_run<Sum<L>>(p, n);
    else
      for (int64_t i = 0; i < n; i += 512) sum += fold_run<Sum<L>>(p + i, min_of<int64_t>(512, n - i));
    const L mean = sum / L(n);
    double ds = 0, dq = 0;
    for (int64_t begin = 0; begin < n; begin += 512) {
      const int64_t end = min_of(n, begin + 512);
      V s = V(L(0)), q = s, s2 = s, q2 = s;
      int64_t i = begin;
      for (; i + 2 * S <= end; i += 2 * S) {
        const V d = load(p + i) - V(mean), e = load(p + i + S) - V(mean);
        s += d, s2 += e, q = fma(d, d, q), q2 = fma(e, e, q2);
      }
      ds += double(reduce_add(s + s2)), dq += double(reduce_add(q + q2));
      for (; i < end; i++) ds += double(p[i] - mean), dq += double(p[i] - mean) * double(p[i] - mean);
    }
    acc[0] = double(mean) + ds / double(n);
    acc[1] = dq - ds * ds / double(n);
  }
  template <class Rows>
  static void leaf_columns(Rows&& rows, int count, int w, Acc* acc, int64_t pitch) {
    using V = Vec<L>;
    alignas(64) L mean[kWidth], s[kWidth], q[kWidth];
    Fold<Sum<L>>::leaf_columns(rows, count, w, mean, 0);
    for (int j = 0; j < w; j++) mean[j] /= L(count), s[j] = 0, q[j] = 0;
    const L* r[kGroup];
    for (int i = 0; i < count; i += kGroup) {
      const int m = min_of(kGroup, count - i);
      rows(i, m, r);
      int j = 0;
      for (; j + V::size <= w; j += V::size) {
        V vs = load(s + j), vq = load(q + j);
        const V c = load(mean + j);
        for (int k = 0; k < m; k++) {
          const V d = load(r[k] + j) - c;
          vs += d, vq = fma(d, d, vq);
        }
        store(s + j, vs), store(q + j, vq);
      }
      for (; j < w; j++)
        for (int k = 0; k < m; k++) {
          const L d = r[k][j] - mean[j];
          s[j] += d, q[j] += d * d;
        }
    }
    for (int j = 0; j < w; j++) {
      acc[j] = double(mean[j]) + double(s[j]) / count;
      acc[pitch + j] = double(q[j]) - double(s[j]) * double(s[j]) / count;
    }
  }
  static void merge(Acc* a, int64_t pa, const Acc* b, int64_t pb, int64_t w, int64_t na, int64_t nb) {
    const double share = double(nb) / double(na + nb), scale = share * double(na);
    for (int64_t j = 0; j < w; j++) {
      const double d = b[j] - a[j];
      a[j] += d * share;
      a[pa + j] += b[pb + j] + d * d * scale;
    }
  }
  static void empty(Acc* acc, int64_t pitch, int64_t w) {
    for (int64_t j = 0; j < w; j++) acc[j] = acc[pitch + j] = 0;
  }
  void finish(const Acc* acc, int64_t pitch, int64_t w, L* y) const {
    for (int64_t j = 0; j < w; j++)
      y[j] = L((acc[pitch + j] > 0 || acc[pitch + j] != acc[pitch + j] ? acc[pitch + j] : 0) / divisor);
  }
};

// ---- the walks -----------------------------------------------------------------------------------------------------------------
template <class R>
struct Walk {
  using L = typename R::L;
  using Acc = typename R::Acc;
  static constexpr int P = R::kParts;

  const ReducePlan& plan;
  const R& reducer;
  Fill<L> fill;
  Put<L> put;
  bool direct;  // elements are lanes

  // The middle of [a, b), at a whole number of leaves from a.
  static int64_t middle(int64_t a, int64_t b, int64_t leaf) { return a + ceil_div((b - a) / 2, leaf) * leaf; }

  FD_NOINLINE void row_leaf(const char* base, int64_t a, int64_t b, Acc* acc) const {
    alignas(64) L buf[R::kLeaf];
    R::leaf(plan.block(base, a, b - a, fill, direct, buf), b - a, acc);
  }
  // n neighbouring lanes.
  FD_NOINLINE static void run(const L* p, int64_t n, Acc* acc) {
    if (n <= R::kLeaf) return R::leaf(p, n, acc);
    const int64_t mid = middle(0, n, R::kLeaf);
    Acc other[P];
    run(p, mid, acc);
    run(p + mid, n - mid, other);
    R::merge(acc, 1, other, 1, 1, mid, n - mid);
  }
  // Reduced elements [a, b) of the output at base.
  FD_NOINLINE void row(const char* base, int64_t a, int64_t b, Acc* acc) const {
    if (direct && plan.nr == 1 && plan.r[0].stride == 1) return run(reinterpret_cast<const L*>(base) + a, b - a, acc);
    if (b - a <= R::kLeaf) return row_leaf(base, a, b, acc);
    const int64_t mid = middle(a, b, R::kLeaf);
    Acc other[P];
    row(base, a, mid, acc);
    row(base, mid, b, other);
    R::merge(acc, 1, other, 1, 1, mid - a, b - mid);
  }

  FD_NOINLINE void column_leaf(const char* base, int64_t step, int64_t a, int64_t b, int w, Acc* acc, int64_t pitch) const {
    const bool in_place = direct && step == 1;
    alignas(64) L buf[kGroup * kCopied];
    const auto rows = [&](int i, int m, const L** r) {
      for (int k = 0; k < m; k++) {
        const char* p = base + plan.reduced_offset(a + i + k) * plan.item;
        if (in_place) {
          r[k] = reinterpret_cast<const L*>(p);
        } else {
          fill(p, step, w, buf + k * kCopied);
          r[k] = buf + k * kCopied;
        }
      }
    };
    R::leaf_columns(rows, int(b - a), w, acc, pitch);
  }
  // Reduced elements [a, b) of w outputs, whose elements are `step` apart.
  FD_NOINLINE void columns(const char* base, int64_t step, int64_t a, int64_t b, int w, Acc* acc, int64_t pitch) const {
    if (b - a <= kLeafRows) return column_leaf(base, step, a, b, w, acc, pitch);
    const int64_t mid = middle(a, b, kLeafRows);
    columns(base, step, a, mid, w, acc, pitch);
    alignas(64) Acc other[P * R::kWidth];
    columns(base, step, mid, b, w, other, w);
    R::merge(acc, pitch, other, w, w, mid - a, b - mid);
  }

  // Writes outputs [o, o + count) from their accumulators.
  FD_NOINLINE void emit(int64_t o, int64_t count, const Acc* acc, int64_t pitch) const {
    L y[64];
    const int64_t inner = plan.inner_kept(), stride = plan.nk ? plan.k[plan.nk - 1].out : 1;
    while (count > 0) {
      const int64_t m = min_of(min_of<int64_t>(count, 64), inner - o % inner);
      reducer.finish(acc, pitch, m, y);
      put(y, m, plan.out + plan.out_offset(o) * plan.out_item, stride);
      o += m, acc += m, count -= m;
    }
  }

  FD_NOINLINE void run_rows(int64_t pieces, Acc* partial) const {
    const int64_t outs = plan.outs, n = plan.n, len = piece_length(n, pieces);
    pieces = ceil_div(n, len);
    if (pieces > 1) {  // partial: [piece][part][output]
      parallel_for(pieces * outs, max_of<int64_t>(1, kReduceGrain / len), [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; c++) {
          const int64_t o = c / pieces, piece = c % pieces;
          Acc acc[P];
          row(plan.in + plan.kept_offset(o) * plan.item, piece * len, min_of(n, (piece + 1) * len), acc);
          for (int p = 0; p < P; p++) partial[(piece * P + p) * outs + o] = acc[p];
        }
      });
      return merge_pieces(pieces, len, partial);
    }
    parallel_for(outs, max_of<int64_t>(1, kReduceGrain / n), [&](int64_t begin, int64_t end) {
      Acc acc[P * 64];
      for (int64_t o = begin; o < end; o += 64) {
        const int64_t m = min_of<int64_t>(64, end - o);
        for (int64_t j = 0; j < m; j++) {
          Acc one[P];
          row(plan.in + plan.kept_offset(o + j) * plan.item, 0, n, one);
          for (int p = 0; p < P; p++) acc[p * 64 + j] = one[p];
        }
        emit(o, m, acc, 64);
      }
    });
  }

  FD_NOINLINE void run_columns(int64_t pieces, Acc* partial) const {
    const int64_t outs = plan.outs, n = plan.n, len = piece_length(n, pieces, true);
    const int64_t inner = plan.inner_kept(), step = plan.inner_in();
    pieces = ceil_div(n, len);
    const int64_t tall = min_of(len, n);
    const int64_t least = inner <= 64 ? inner : ceil_div(kReduceLeast, tall);
    const int64_t lines = outs / inner * pieces,
                  share = ceil_div(lines * inner, int64_t(2) * num_threads());  // two blocks a thread
    const int64_t width = direct && step == 1 ? max_of<int64_t>(kNarrow, min_of<int64_t>(R::kWidth, share)) : kCopied;
    const ColumnBlocks blocks(lines, inner, width, least, lines * inner * tall <= kReduceGrain ? 1 : num_threads());
    const int64_t tasks = lines * blocks.count;
    // Narrow dense rows, (n, 3) say: `fold` rows are read as one, and the fold groups of outputs merged at the end.
    const bool dense = direct && step == 1 && plan.nk == 1 && plan.nr == 1 && plan.r[0].stride == inner;
    const int fold = dense && inner <= 64 ? int(256 / inner) : 1;
    const int64_t work = max_of<int64_t>(1, ceil_div(inner, blocks.count) * tall);
    parallel_for(tasks, max_of<int64_t>(1, kReduceGrain / work), [&](int64_t begin, int64_t end) {
      alignas(64) Acc acc[P * R::kWidth];
      int64_t done = 0;
      for (int64_t t = begin; t < end; t++) {
        const int64_t piece = t % pieces, block = t / pieces % blocks.count, j = blocks.begin(block);
        const int64_t o = t / pieces / blocks.count * inner + j;
        const int w = int(blocks.begin(block + 1) - j);
        const int64_t a = piece * len, b = min_of(n, a + len), groups = (b - a) / fold;
        const char* base = plan.in + plan.kept_offset(o) * plan.item;
        int64_t pitch = w;
        if (fold > 1 && groups > 1) {
          pitch = w * fold;
          ReducePlan wide = plan;
          wide.r[0].stride = w * fold;
          const Walk<R> walk{wide, reducer, fill, put, direct};
          walk.columns(base + a * w * plan.item, 1, 0, groups, w * fold, acc, pitch);
          for (int f = 1; f < fold; f++) R::merge(acc, pitch, acc + f * w, pitch, w, f * groups, groups);
          if (a + groups * fold < b) {
            Acc rest[P * 64];
            columns(base, 1, a + groups * fold, b, w, rest, w);
            R::merge(acc, pitch, rest, w, w, groups * fold, b - a - groups * fold);
          }
        } else {
          columns(base, step, a, b, w, acc, pitch);
        }
        if (pieces == 1)
          emit(o, w, acc, pitch);
        else
          for (int p = 0; p < P; p++) __builtin_memcpy(partial + (piece * P + p) * outs + o, acc + p * pitch, w * sizeof(Acc));
        done += (b - a) * w;
      }
      piece_work(done, kReduceLeast);
    });
    if (pieces > 1) merge_pieces(pieces, len, partial);
  }

  FD_NOINLINE void merge_pieces(int64_t pieces, int64_t len, Acc* partial) const {
    const int64_t outs = plan.outs;
    for (int64_t step = 1; step < pieces; step *= 2)
      for (int64_t i = 0; i + step < pieces; i += 2 * step) {
        const int64_t na = step * len, nb = min_of(plan.n - (i + step) * len, step * len);
        R::merge(partial + i * P * outs, outs, partial + (i + step) * P * outs, outs, outs, na, nb);
      }
    emit(0, outs, partial, outs);
  }
};

template <class R>
void run(const Args& a, const R& reducer, Fill<typename R::L> fill, Put<typename R::L> put, bool direct,
         bool split_complex = false) {
  const View &x = a.in[0], &y = a.out[0];
  if (direct && !split_complex && x.contiguous() && y.numel() == 1) {  // a small whole tensor needs no plan
    const int64_t n = x.numel();
    if (n > 0 && n <= kReduceGrain) {
      typename R::Acc acc[R::kParts];
      typename R::L result;
      Walk<R>::run(x.ptr<typename R::L>(), n, acc);
      reducer.finish(acc, 1, 1, &result);
      return put(&result, 1, y.data, 1);
    }
  }
  ReducePlan plan(x, y, a.attrs->i[0]);
  if (plan.outs == 0) return;
  if (split_complex) plan.split_complex();
  const Walk<R> walk{plan, reducer, fill, put, direct};
  if (plan.n == 0) {
    typename R::Acc acc[R::kParts * 64];
    R::empty(acc, 64, 64);
    for (int64_t o = 0; o < plan.outs; o += 64) walk.emit(o, min_of<int64_t>(64, plan.outs - o), acc, 64);
    return;
  }
  const int64_t pieces = reduce_pieces(plan.outs, plan.n);
  auto* partial = static_cast<typename R::Acc*>(a.workspace);
  const int64_t inner_r = plan.nr ? plan.r[plan.nr - 1].size : 1, stride_r = plan.nr ? plan.r[plan.nr - 1].stride : 0;
  const bool short_runs = inner_r < 16 && plan.inner_kept() >= 16;
  if (plan.nk == 0 || (plan.nr > 0 && !short_runs && stride_r != 0 && stride_r <= plan.inner_in()))
    walk.run_rows(plan.outs < 64 ? pieces : 1, partial);
  else
    walk.run_columns(pieces, partial);
}

// Complex product: real arithmetic does not help; plain loops, any layout.
template <class C>
void complex_prod(const Args& a) {
  const ReducePlan plan(a.in[0], a.out[0], a.attrs->i[0]);
  parallel_for(plan.outs, max_of<int64_t>(1, 4096 / max_of<int64_t>(1, plan.n)), [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; o++) {
      const C* p = reinterpret_cast<const C*>(plan.in) + plan.kept_offset(o);
      C acc = {1, 0};
      for (int64_t e = 0; e < plan.n; e++) {
        const C v = p[plan.reduced_offset(e)];
        acc = {acc.re * v.re - acc.im * v.im, acc.re * v.im + acc.im * v.re};
      }
      reinterpret_cast<C*>(plan.out)[plan.out_offset(o)] = acc;
    }
  });
}

// ---- rows of the table ---------------------------------------------------------------------------------------------------------
template <template <class> class Op, class L, As how>
void run_fold(const Args& a, bool mean = false) {
  Fold<Op<L>> reducer;
  const View &x = a.in[0], &y = a.out[0];
  reducer.is_mean = mean;
  if (mean) {
    int64_t n = 1;
    for (int d = 0; d < x.ndim; d++)
      if (a.attrs->i[0] >> d & 1) n *= x.shape[d];
    reducer.divisor = double(n);
  }
  if (how != As::Truth && is_complex(x.dtype)) {
    const DType real = x.dtype == DType::complex64 ? DType::float32 : DType::float64;
    run(a, reducer, fill_for<L, how>(real), put_for<L, how>(real), true, true);
  } else {
    run(a, reducer, fill_for<L, how>(x.dtype), put_for<L, how>(y.dtype), how != As::Truth && x.dtype == dtype_of<L>());
  }
}

template <template <class> class Op>
void add_or_multiply(const Args& a) {
  switch (a.in[0].dtype) {
    case DType::float16:
    case DType::bfloat16:
    case DType::float32:
    case DType::complex64:
      return run_fold<Op, float, As::Value>(a);
    case DType::float64:
    case DType::complex128:
      return run_fold<Op, double, As::Value>(a);
    default:
      return run_fold<Op, int64_t, As::Value>(a);
  }
}
void sum_kernel(const Args& a) { add_or_multiply<Sum>(a); }
void prod_kernel(const Args& a) {
  if (a.in[0].dtype == DType::complex64) return complex_prod<c64>(a);
  if (a.in[0].dtype == DType::complex128) return complex_prod<c128>(a);
  add_or_multiply<Prod>(a);
}
void mean_kernel(const Args& a) {
  if (a.in[0].dtype == DType::float64 || a.in[0].dtype == DType::complex128)
    run_fold<Sum, double, As::Value>(a, true);
  else
    run_fold<Sum, float, As::Value>(a, true);
}
template <template <class> class Op>
void extremum_kernel(const Args& a) {
  switch (a.in[0].dtype) {
    case DType::float16:
    case DType::bfloat16:
    case DType::float32:
      return run_fold<Op, float, As::Ordered>(a);
    case DType::float64:
      return run_fold<Op, double, As::Ordered>(a);
    case DType::uint32:
    case DType::uint64:
    case DType::int64:
      return run_fold<Op, int64_t, As::Ordered>(a);
    default:
      return run_fold<Op, int32_t, As::Ordered>(a);
  }
}
// Whether a run of bools holds one that decides: a true one for any, a false one for all. Eight at a time per lane; a word w
// without a zero byte gives 0 in (w - 0x01..01) & ~w & 0x80..80.
template <bool all>
bool decided(const uint8_t* p, int64_t n) {
  constexpr int64_t S = VecL::size * 8;
  const auto test = [&](int64_t i) {
    VecL w;
    __builtin_memcpy(&w.v, p + i, sizeof w.v);
    return all ? (w - VecL(0x0101010101010101)) & ~w & VecL(int64_t(0x8080808080808080)) : w;
  };
  int64_t i = 0;
  for (; i + 4 * S <= n; i += 4 * S)
    if (any((test(i) | test(i + S)) | (test(i + 2 * S) | test(i + 3 * S)))) return true;
  for (; i < n; i++)
    if ((p[i] == 0) == all) return true;
  return false;
}

// any, all: max, min of truth values; the identity of an empty reduction is 0, 1. A whole tensor of bools stops where it is
// decided.
template <bool all>
void truth_kernel(const Args& a) {
  const View &x = a.in[0], &y = a.out[0];
  bool empty = false;
  for (int d = 0; d < x.ndim; d++) empty |= x.shape[d] == 0;
  if (empty) {
    for (int64_t i = 0, n = y.numel(); i < n; i++) y.ptr<bool>()[i] = all;
    return;
  }
  if (x.dtype == DType::bool_ && x.contiguous() && y.numel() == 1) {
    bool found = false;
    parallel_for(x.numel(), 8 * kReduceGrain, [&](int64_t begin, int64_t end) {
      if (__atomic_load_n(&found, __ATOMIC_RELAXED)) return;
      if (decided<all>(x.ptr<uint8_t>() + begin, end - begin)) __atomic_store_n(&found, true, __ATOMIC_RELAXED);
    });
    *y.ptr<bool>() = found != all;
    return;
  }
  if constexpr (all)
    run_fold<Min, int32_t, As::Truth>(a);
  else
    run_fold<Max, int32_t, As::Truth>(a);
}
template <class T>
void var_kernel(const Args& a) {
  Var<T> reducer;
  double n = 1;
  for (int d = 0; d < a.in[0].ndim; d++)
    if (a.attrs->i[0] >> d & 1) n *= double(a.in[0].shape[d]);
  const double divisor = n - a.attrs->f[0];
  reducer.divisor = divisor > 0 || divisor != divisor ? divisor : 0;
  run(a, reducer, fill_for<T, As::Value>(a.in[0].dtype), put_for<T, As::Value>(a.out[0].dtype), a.in[0].dtype == dtype_of<T>());
}

constexpr DTypeMask kReal = kMaskBool | kMaskInt | kMaskFloat;
}  // namespace

FD_KERNEL_TABLE(reduce) = {{OpId::sum, kReal | kMaskComplex, sum_kernel},
                           {OpId::prod, kReal | kMaskComplex, prod_kernel},
                           {OpId::mean, kMaskFloat | kMaskComplex, mean_kernel},
                           {OpId::max, kReal, extremum_kernel<Max>},
                           {OpId::min, kReal, extremum_kernel<Min>},
                           {OpId::any, kReal | kMaskComplex, truth_kernel<false>},
                           {OpId::all, kReal | kMaskComplex, truth_kernel<true>},
                           {OpId::var, kF32ish, var_kernel<float>},
                           {OpId::var, kF64, var_kernel<double>},
                           {}};

}  // namespace fastdl
