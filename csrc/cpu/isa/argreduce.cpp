// argmax, argmin: the position of the first winner along an axis, or in row-major order of the whole tensor. NaN beats every
// number.
//
// Rows: each lane keeps its winner of groups of four vectors and which group that was, so that memory is read once, without pauses;
// only one group is searched for the position. Columns: vectors of winners and of their row numbers. Long axes are cut in pieces
// (core/infer/pieces.h), whose winners are compared in order, so ties go to the first for any number of threads.
#include "cpu/isa/reduce.h"
#include "core/infer/pieces.h"

namespace fastdl {
namespace {

constexpr int64_t kBlock = 1024;
template <class L>
constexpr int kColumns =
    4096 / int(sizeof(L));    // outputs of a block, at most: long stretches of each row for the hardware's prefetch
constexpr int kCopied = 256;  // the same where elements are copied to lanes
constexpr int kTogether = 8;  // rows per pass over the columns

template <class Op>
struct ArgWalk {
  using L = typename Op::L;
  using I = typename Lane<L>::Int;
  using V = Vec<L>;

  const ReducePlan& plan;
  Fill<L> fill;
  bool direct;

  static MaskOf<L> same(V x, V y) { return (x == y) | (is_nan(x) & is_nan(y)); }

  // Where value first is among n <= 4 vectors.
  static int64_t find(const L* p, int n, L value) {
    constexpr int S = V::size;
    Vec<I> at(highest<I>());
    for (int k = (n - 1) / S * S; k >= 0; k -= S) {
      const V x = k + S <= n ? load(p + k) : load_partial(p + k, n - k);
      const Vec<I> places = iota<I>() + Vec<I>(I(k));
      at = select(same(x, V(value)) & (places < Vec<I>(I(n))), places, at);
    }
    return first_of(at);
  }
  static int64_t first_of(Vec<I> at) {
    return join_lanes(at, [](Vec<I> x, Vec<I> y) { return min(x, y); });
  }

  // Winner among elements [a, b) of the output at base. Each lane notes the first group of vectors that holds its winner; of the
  // lanes that have the overall winner, the first group is searched.
  void row(const char* base, int64_t a, int64_t b, L& best, int64_t& at) const {
    constexpr int S = V::size;
    constexpr int64_t G = 4 * S;
    const int64_t ahead = direct ? fold_ahead<Op>(b - a) : 0;
    const V one(Op::identity);
    alignas(64) L buf[kBlock];
    V won = one;
    Vec<I> group = Vec<I>(I(0)), of = group;
    const auto note = [&](V x) {
      const Vec<I> wins = Op::beats(x, won);
      won = select(wins, x, won), of = select(wins, group, of), group += Vec<I>(I(1));
    };
    for (int64_t i = a; i < b; i += kBlock) {
      const int64_t n = min_of(kBlock, b - i);
      const L* p = plan.block(base, i, n, fill, direct, buf);
      int64_t j = 0;
      for (; j + G <= n; j += G) {
        for (int k = 0; ahead && k < 4 * S; k += kLine<L>) __builtin_prefetch(p + j + k + ahead);
        note(Op::f(Op::f(load(p + j), load(p + j + S)), Op::f(load(p + j + 2 * S), load(p + j + 3 * S))));
      }
      if (j == n) continue;
      V x = one;
      for (; j + S <= n; j += S) x = Op::f(x, load(p + j));
      if (j < n) x = Op::f(x, load_lanes_or(p + j, int(n - j), one));
      note(x);
    }
    best = join_lanes(won, [](V x, V y) { return Op::f(x, y); });
    const Vec<I> have = select(same(won, V(best)), of, Vec<I>(highest<I>()));
    const int64_t first = a + first_of(have) * G;
    const int n = int(min_of(G, b - first));
    at = first + find(plan.block(base, first, n, fill, direct, buf), n, best);
  }

  // Winners among elements [a, b) of w outputs, `step` apart.
  void columns(const char* base, int64_t step, int64_t a, int64_t b, int w, L* best, int64_t* at) const {
    const bool in_place = direct && step == 1;
    alignas(64) L buf[kTogether][kCopied];
    alignas(64) I row_of[kColumns<L>];
    for (int64_t start = a; start < b; start += int64_t(1) << 30) {  // row numbers within a stretch fit an int32
      const int64_t end = min_of(b, start + (int64_t(1) << 30));
      alignas(64) L here[kColumns<L>];
      L* win = start == a ? best : here;
      for (int64_t i = start; i < end; i += kTogether) {
        const int m = int(min_of<int64_t>(kTogether, end - i));
        const L* r[kTogether];
        for (int k = 0; k < m; k++) {
          const char* p = base + plan.reduced_offset(i + k) * plan.item;
          r[k] = in_place ? reinterpret_cast<const L*>(p) : buf[k];
          if (!in_place) fill(p, step, w, buf[k]);
        }
        const bool first = i == start;
        const auto vectors = [&](auto&& get, int j, auto&& set) {
          V v = first ? get(r[0]) : load(win + j);
          Vec<I> rows = first ? Vec<I>(I(0)) : load(row_of + j);
          for (int k = first; k < m; k++) {
            const V x = get(r[k]);
            const Vec<I> wins = Op::beats(x, v);
            v = select(wins, x, v), rows = select(wins, Vec<I>(I(i - start + k)), rows);
          }
          store(row_of + j, rows);
          set(v);
        };
        int j = 0;
        for (; j + V::size <= w; j += V::size) vectors([&](const L* p) { return load(p + j); }, j, [&](V v) { store(win + j, v); });
        if (j < w) vectors([&](const L* p) { return load_partial(p + j, w - j); }, j, [&](V v) { store(win + j, v); });
      }
      for (int j = 0; j < w; j++)
        if (start == a || Op::beats(here[j], best[j])) best[j] = win[j], at[j] = start + row_of[j];
    }
  }

  void emit(int64_t o, int64_t at) const { reinterpret_cast<int64_t*>(plan.out)[plan.out_offset(o)] = at; }

  void run(bool rows, void* workspace) const {
    const int64_t outs = plan.outs, n = plan.n, inner = plan.inner_kept();
    int64_t pieces = rows && outs >= 64 ? 1 : reduce_pieces(outs, n);
    const int64_t len = piece_length(n, pieces, !rows);
    pieces = ceil_div(n, len);
    int64_t* at = static_cast<int64_t*>(workspace);  // [piece][output], used when there are several pieces
    L* best = reinterpret_cast<L*>(at + pieces * outs);
    const int64_t tall = min_of(len, n), least = ceil_div(kReduceLeast, tall), lines = outs / inner * pieces;
    const int threads = lines * inner * tall <= kReduceGrain ? 1 : num_threads();
    const int64_t most = direct && plan.inner_in() == 1 ? kColumns<L> : kCopied;
    const ColumnBlocks blocks = rows ? ColumnBlocks(1, inner, 1, 1, 1, 1) : ColumnBlocks(lines, inner, most, least, threads);
    const int64_t work = max_of<int64_t>(1, ceil_div(inner, blocks.count) * tall), tasks = lines * blocks.count;
    parallel_for(tasks, max_of<int64_t>(1, kReduceGrain / work), [&](int64_t begin, int64_t end) {
      alignas(64) L win[kColumns<L>];
      int64_t where[kColumns<L>], done = 0;
      if (rows && pieces == 1) {  // short rows would wait for the divisions below
        for (int64_t o = begin; o < end; o++) {
          row(plan.in + plan.kept_offset(o) * plan.item, 0, n, win[0], where[0]);
          emit(o, where[0]);
        }
        return piece_work((end - begin) * n, kReduceLeast);
      }
      for (int64_t t = begin; t < end; t++) {
        const int64_t piece = t % pieces, block = t / pieces % blocks.count, j = blocks.begin(block);
        const int64_t o = t / pieces / blocks.count * inner + j;
        const int w = int(blocks.begin(block + 1) - j);
        const char* base = plan.in + plan.kept_offset(o) * plan.item;
        const int64_t a = piece * len, b = min_of(n, a + len);
        if (rows)
          row(base, a, b, win[0], where[0]);
        else
          columns(base, plan.inner_in(), a, b, w, win, where);
        for (int i = 0; i < w; i++) {
          if (pieces == 1)
            emit(o + i, where[i]);
          else
            at[piece * outs + o + i] = where[i], best[piece * outs + o + i] = win[i];
        }
        done += (b - a) * w;
      }
      piece_work(done, kReduceLeast);
    });
    if (pieces > 1)
      for (int64_t o = 0; o < outs; o++) {
        int64_t k = o;
        for (int64_t p = 1; p < pieces; p++)
          if (Op::beats(best[p * outs + o], best[k])) k = p * outs + o;
        emit(o, at[k]);
      }
  }
};

template <class Op>
void run(const Args& a) {
  using L = typename Op::L;
  const View& x = a.in[0];
  const int64_t axis = a.attrs->i[0];
  const ReducePlan plan(x, a.out[0], axis < 0 ? (int64_t(1) << x.ndim) - 1 : int64_t(1) << axis, true);
  if (plan.outs == 0) return;
  const ArgWalk<Op> walk{plan, fill_for<L, As::Ordered>(x.dtype), x.dtype == dtype_of<L>()};
  const int64_t stride = plan.nr ? plan.r[plan.nr - 1].stride : 0, run_length = plan.nr ? plan.r[plan.nr - 1].size : 1;
  const int64_t distance = stride < 0 ? -stride : stride;
  const bool short_runs = run_length < 16 && plan.inner_kept() >= 16;
  walk.run(plan.nk == 0 || (plan.nr > 0 && !short_runs && stride != 0 && distance <= plan.inner_in()), a.workspace);
}

template <template <class> class Op>
void argreduce_kernel(const Args& a) {
  switch (a.in[0].dtype) {
    case DType::float16:
    case DType::bfloat16:
    case DType::float32:
      return run<Op<float>>(a);
    case DType::float64:
      return run<Op<double>>(a);
    case DType::uint32:
    case DType::uint64:
    case DType::int64:
      return run<Op<int64_t>>(a);
    default:
      return run<Op<int32_t>>(a);
  }
}

constexpr DTypeMask kReal = kMaskBool | kMaskInt | kMaskFloat;
}  // namespace

FD_KERNEL_TABLE(argreduce) = {{OpId::argmax, kReal, argreduce_kernel<Max>}, {OpId::argmin, kReal, argreduce_kernel<Min>}, {}};

}  // namespace fastdl
