// sum, prod, mean, max, min, any, all and var of real numbers over any axes; the walks are in device/reduce_axes.cuh.
//
// One maximum serves max, min, any and all: of numbers in reversed order for a minimum, of truth values for any and all, of uint64
// with the top bit flipped. Sums of f32 and the 16-bit floats are trees of float additions; variances are kept as moments in double
// (Chan et al.), each of 32 elements around one of them.
#include "cuda/device/reduce_axes.cuh"

namespace fastdl {
namespace {

template <class Op, class T>
struct Fold {
  using Number = T;
  using State = T;
  using Result = T;
  static constexpr int kBlocksPerSm = 4;
  static constexpr bool kExtremum = same_type<Op, MaxOp>;

  static FD_DEVICE T identity() { return Op::template identity<T>(); }
  static FD_DEVICE T merge(T a, T b) { return Op::of(a, b); }
  static FD_DEVICE void shift(T&, int64_t) {}

  struct Lane {
    T total = identity(), term = identity();
    FD_DEVICE void add(T x, uint32_t) { term = Op::of(term, x); }
    FD_DEVICE void flush() {
      total = Op::of(total, term);
      term = identity();
    }
    FD_DEVICE T result() const { return Op::of(total, term); }
  };

  static FD_DEVICE T reverse(T x) {
    if constexpr (kIsWhole<T>)
      return ~x;
    else
      return -x;
  }
  static FD_DEVICE T flip(T x) {
    if constexpr (kIsWhole<T>)
      return x ^ lowest_of<T>();
    else
      return x;
  }
  static FD_DEVICE T prepare(T x, const ReduceParams& p) {
    if constexpr (kExtremum) {
      if (p.view & kTruth) x = T(x != T(0));
      if (p.view & kUnsigned) x = flip(x);
      if (p.view & kReversed) x = reverse(x);
    }
    return x;
  }
  static FD_DEVICE T finish(T x, const ReduceParams& p) {
    if constexpr (kExtremum) {
      if (p.view & kReversed) x = reverse(x);
      if (p.view & kUnsigned) x = flip(x);
      if (p.view & kTruth) x = T(x > T(0));  // also of the identities, where nothing is reduced
    } else if constexpr (same_type<Op, SumOp> && !kIsWhole<T>) {
      if (p.view & kMean) x /= T(p.divisor);
    }
    return x;
  }
};

template <class T>
struct Variance {
  using Number = T;
  using State = Moments<double>;
  using Result = T;
  static constexpr int kBlocksPerSm = 2;

  static FD_DEVICE State identity() { return MomentsOp::identity<State>(); }
  static FD_DEVICE State merge(const State& a, const State& b) { return MomentsOp::of(a, b); }
  static FD_DEVICE void shift(State&, int64_t) {}
  static FD_DEVICE T prepare(T x, const ReduceParams&) { return x; }

  struct Lane {
    State total = identity();
    T pivot = 0, sum = 0, squares = 0;  // of distances from pivot, the first of n elements
    int n = 0;
    FD_DEVICE void add(T x, uint32_t) {
      pivot = n == 0 ? x : pivot;
      const T d = x - pivot;
      sum += d;
      squares += d * d;
      n++;
    }
    FD_DEVICE void flush() {
      total = result();
      sum = squares = 0, n = 0;
    }
    FD_DEVICE State result() const {
      if (n == 0) return total;
      const double count = n, mean = double(sum) / count;
      return merge(total, State{double(pivot) + mean, double(squares) - double(sum) * mean, count});
    }
  };
  static FD_DEVICE T finish(const State& s, const ReduceParams& p) {
    return T((s.m2 > 0 || s.m2 != s.m2 ? s.m2 : 0.0) / p.divisor);
  }
};

// ---- rows of the table
// -----------------------------------------------------------------------------------------------------------
template <class R>
void row(const Args& a, ReduceParams params = {}) {
  run_reduce<R>(a, make_reduce_plan(a.in[0], a.out[0], a.attrs->i[0], false), params);
}
template <class R>
int64_t workspace(const Args& a) {
  return reduce_workspace_of<typename R::State>(make_reduce_plan(a.in[0], a.out[0], a.attrs->i[0], false));
}
double reduced_count(const Args& a) {
  double n = 1;
  for (int d = 0; d < a.in[0].ndim; d++)
    if (a.attrs->i[0] >> d & 1) n *= double(a.in[0].shape[d]);
  return n;
}

template <class R>
void mean_row(const Args& a) {
  row<R>(a, {kMean, reduced_count(a)});
}
template <class R>
void variance_row(const Args& a) {
  const double divisor = reduced_count(a) - a.attrs->f[0];
  row<R>(a, {0, divisor > 0 || divisor != divisor ? divisor : 0});
}
template <class R>
void fold_row(const Args& a) {
  row<R>(a);
}
template <class R, int view>
void extremum_row(const Args& a) {
  row<R>(a, {view | (a.in[0].dtype == DType::uint64 ? kUnsigned : 0), 0});
}
template <class R, int view>
void truth_row(const Args& a) {
  row<R>(a, {view | kTruth, 0});
}

constexpr DTypeMask kWhole = kMaskInt | kMaskBool;
}  // namespace

// clang-format off
#define ROWS(op, fn, Op, ...) \
  {OpId::op, kF32ish, fn<Fold<Op, float>, ##__VA_ARGS__>, workspace<Fold<Op, float>>}, \
  {OpId::op, kF64, fn<Fold<Op, double>, ##__VA_ARGS__>, workspace<Fold<Op, double>>},
#define ALL_ROWS(op, fn, Op, ...) ROWS(op, fn, Op, ##__VA_ARGS__) \
  {OpId::op, kWhole, fn<Fold<Op, int64_t>, ##__VA_ARGS__>, workspace<Fold<Op, int64_t>>},
FD_CUDA_TABLE(reduce) = {
    ALL_ROWS(sum, fold_row, SumOp)
    ALL_ROWS(prod, fold_row, ProductOp)
    ROWS(mean, mean_row, SumOp)
    ALL_ROWS(max, extremum_row, MaxOp, 0)
    ALL_ROWS(min, extremum_row, MaxOp, kReversed)
    ALL_ROWS(any, truth_row, MaxOp, 0)
    ALL_ROWS(all, truth_row, MaxOp, kReversed)
    {OpId::var, kF32ish, variance_row<Variance<float>>, workspace<Variance<float>>},
    {OpId::var, kF64, variance_row<Variance<double>>, workspace<Variance<double>>},
    {}};
// clang-format on
}  // namespace fastdl
