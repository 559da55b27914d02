// argmax, argmin: the position of the first winner along an axis, or in row-major order of the whole tensor; NaN beats every
// number. The walks are in device/reduce_axes.cuh. Positions travel with the values, and of equal values the first wins wherever
// two are compared, so the order of combination does not matter. argmin: argmax of numbers in reversed order.
#include "cuda/device/reduce_axes.cuh"

namespace fastdl {
namespace {

template <class T>
struct Winner {
  T value;
  int64_t index;
};

template <class T>
struct ArgMax {
  using Number = T;
  using State = Winner<T>;
  using Result = int64_t;
  static constexpr int kBlocksPerSm = 4;
  static constexpr int64_t kNone = INT64_MAX;

  static FD_DEVICE State identity() { return {lowest_of<T>(), kNone}; }
  static FD_DEVICE bool beats(T a, T b) { return a > b || (a != a && b == b); }
  static FD_DEVICE State merge(const State& a, const State& b) {
    if (beats(a.value, b.value)) return a;
    if (beats(b.value, a.value)) return b;
    return a.index < b.index ? a : b;
  }
  static FD_DEVICE void shift(State& s, int64_t first) { s.index = s.index == kNone ? kNone : s.index + first; }

  struct Lane {
    T value = lowest_of<T>();
    uint32_t index = ~0u;
    FD_DEVICE void add(T x, uint32_t i) {
      if (index == ~0u || beats(x, value)) value = x, index = i;
    }
    FD_DEVICE void flush() {}
    FD_DEVICE State result() const { return {value, index == ~0u ? kNone : int64_t(index)}; }
  };

  static FD_DEVICE T prepare(T x, const ReduceParams& p) {
    if constexpr (kIsWhole<T>) {
      if (p.view & kUnsigned) x ^= lowest_of<T>();
      return p.view & kReversed ? ~x : x;
    } else {
      return p.view & kReversed ? -x : x;
    }
  }
  static FD_DEVICE int64_t finish(const State& s, const ReduceParams&) { return s.index; }
};

ReducePlan plan_of(const Args& a) {
  const View& x = a.in[0];
  const int64_t axis = a.attrs->i[0];
  return make_reduce_plan(x, a.out[0], axis < 0 ? (int64_t(1) << x.ndim) - 1 : int64_t(1) << axis, true);
}
template <class T, int view>
void row(const Args& a) {
  run_reduce<ArgMax<T>>(a, plan_of(a), {view | (a.in[0].dtype == DType::uint64 ? kUnsigned : 0), 0});
}
template <class T>
int64_t workspace(const Args& a) {
  return reduce_workspace_of<Winner<T>>(plan_of(a));
}

}  // namespace

// clang-format off
#define ROWS(op, view) \
  {OpId::op, kF32ish, row<float, view>, workspace<float>}, \
  {OpId::op, kF64, row<double, view>, workspace<double>}, \
  {OpId::op, kMaskInt | kMaskBool, row<int64_t, view>, workspace<int64_t>},
FD_CUDA_TABLE(argreduce) = {ROWS(argmax, 0) ROWS(argmin, kReversed) {}};
// clang-format on
}  // namespace fastdl
