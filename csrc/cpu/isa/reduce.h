// What the reduction kernels (reduce, argreduce, scan) share: the plan of a reduction over any axes of any strided view, and the
// loading of elements of any dtype as one of four lane types, so that loops are written once per lane type and not once per dtype.
#pragma once
#include "core/partition.h"
#include "cpu/isa/kernel.h"
#include "cpu/vec/convert.h"

#define FD_NOINLINE __attribute__((noinline))  // keeps the many instances of templates small

namespace fastdl {
namespace {

// ---- elements of any dtype as lanes ------------------------------------------------------------------------------------
// Value: converts (bool -> 0/1). Ordered: the same for max/min, but uint64 becomes int64 with the top bit flipped, which keeps the
// order. Truth: 1 where the element is not zero (NaN is true), 0 elsewhere.
enum class As { Value, Ordered, Truth };

template <class L>
using Fill = void (*)(const void* p, int64_t stride, int64_t n, L* lanes);
template <class L>
using Put = void (*)(const L* lanes, int64_t n, void* p, int64_t stride);

constexpr uint64_t kTopBit = uint64_t(1) << 63;

// How elements are read: bools as bytes, of which any but 0 is true (and loops over C++ bools do not vectorise).
template <class S>
struct Raw {
  using type = S;
};
template <>
struct Raw<bool> {
  using type = uint8_t;
};
template <class S>
using RawOf = typename Raw<S>::type;

template <class L, As how, class S>
FD_INLINE L to_lane(RawOf<S> s) {
  if constexpr (dtype_of<S>() == DType::bool_) {
    return s != 0;
  } else if constexpr (how == As::Truth) {
    if constexpr (dtype_of<S>() == DType::float16 || dtype_of<S>() == DType::bfloat16)
      return (s.bits & 0x7fff) != 0;
    else if constexpr (is_complex(dtype_of<S>()))
      return s.re != 0 || s.im != 0;
    else
      return s != 0;
  } else if constexpr (dtype_of<S>() == DType::float16 || dtype_of<S>() == DType::bfloat16) {
    return load_wide_one(&s);
  } else if constexpr (how == As::Ordered && dtype_of<S>() == DType::uint64) {
    return L(s ^ kTopBit);
  } else {
    return L(s);
  }
}

template <class S, class L, As how>
void fill(const void* p, int64_t stride, int64_t n, L* lanes) {
  const RawOf<S>* s = static_cast<const RawOf<S>*>(p);
  if (stride == 1) {
    int64_t i = 0;
    if constexpr (how != As::Truth && dtype_of<L>() == DType::float32 && sizeof(S) == 2)
      for (; i + VecF::size <= n; i += VecF::size) store(lanes + i, load_wide(s + i));
    for (; i < n; i++) lanes[i] = to_lane<L, how, S>(s[i]);
  } else {
    for (int64_t i = 0; i < n; i++) lanes[i] = to_lane<L, how, S>(s[i * stride]);
  }
}

template <class S, As how, class L>
FD_INLINE void put_one(S* s, L lane) {
  if constexpr (dtype_of<S>() == DType::float16 || dtype_of<S>() == DType::bfloat16)
    store_narrow_one(s, lane);
  else if constexpr (dtype_of<S>() == DType::bool_)
    *s = lane != 0;
  else if constexpr (how == As::Ordered && dtype_of<S>() == DType::uint64)
    *s = S(lane) ^ kTopBit;
  else
    *s = S(lane);
}
template <class S, class L, As how>
void put(const L* lanes, int64_t n, void* p, int64_t stride) {
  S* s = static_cast<S*>(p);
  int64_t i = 0;
  if (stride == 1) {
    if constexpr (dtype_of<L>() == DType::float32)
      for (; i + VecF::size <= n; i += VecF::size) store_narrow(s + i, load(lanes + i));
    for (; i < n; i++) put_one<S, how>(s + i, lanes[i]);
  }
  for (; i < n; i++) put_one<S, how>(s + i * stride, lanes[i]);
}

// The functions for a dtype; null for pairs that no kernel uses.
template <class L, As how>
Fill<L> fill_for(DType d) {
  constexpr bool ints = dtype_of<L>() == DType::int32 || dtype_of<L>() == DType::int64;
  switch (d) {
#define FD_DTYPE(name, S, size, letter, numpy)                                                                    \
  case DType::name:                                                                                               \
    if constexpr (how == As::Truth)                                                                               \
      return fill<S, L, how>;                                                                                     \
    else if constexpr (letter == 'c')                                                                             \
      return nullptr;                                                                                             \
    else if constexpr (letter == 'f' ? !ints && (size == 8) == (sizeof(L) == 8) : ints && size <= int(sizeof(L))) \
      return fill<S, L, how>;                                                                                     \
    else                                                                                                          \
      return nullptr;
#include "dtypes.def"
  }
  return nullptr;
}
template <class L, As how>
Put<L> put_for(DType d) {
  constexpr bool ints = dtype_of<L>() == DType::int32 || dtype_of<L>() == DType::int64;
  switch (d) {
#define FD_DTYPE(name, S, size, letter, numpy)                                                                    \
  case DType::name:                                                                                               \
    if constexpr (letter == 'c')                                                                                  \
      return nullptr;                                                                                             \
    else if constexpr (letter == 'f' ? !ints && (size == 8) == (sizeof(L) == 8) : ints && size <= int(sizeof(L))) \
      return put<S, L, how>;                                                                                      \
    else                                                                                                          \
      return nullptr;
#include "dtypes.def"
  }
  return nullptr;
}

// ---- operations on lanes: an identity and an associative function, for vectors and scalars ----------------------------------
template <class T>
constexpr bool kIsInt = T(0.5) == T(0);

template <class T>
constexpr T lowest() {
  if constexpr (kIsInt<T>)
    return T(uint64_t(1) << (8 * sizeof(T) - 1));
  else
    return T(-__builtin_inf());
}
template <class T>
constexpr T highest() {
  if constexpr (kIsInt<T>)
    return T(~lowest<T>());
  else
    return T(__builtin_inf());
}
template <class T>
struct Sum {
  using L = T;
  static constexpr int64_t kLeaf = 512;  // elements in a row, whose partial sums are then added pairwise
  static constexpr int64_t kAhead = 0;   // bytes: the processor's own prefetching does
  static constexpr T identity = 0;
  static FD_INLINE Vec<T> f(Vec<T> a, Vec<T> b) { return a + b; }
  static FD_INLINE T f(T a, T b) {
    if constexpr (kIsInt<T>)
      return T(uint64_t(a) + uint64_t(b));  // integers wrap
    else
      return a + b;
  }
};
template <class T>
struct Prod {
  using L = T;
  static constexpr int64_t kLeaf = 512;
  static constexpr int64_t kAhead = 0;
  static constexpr T identity = 1;
  static FD_INLINE Vec<T> f(Vec<T> a, Vec<T> b) { return a * b; }
  static FD_INLINE T f(T a, T b) {
    if constexpr (kIsInt<T>)
      return T(uint64_t(a) * uint64_t(b));
    else
      return a * b;
  }
};
template <class T>
struct Max {  // NaN on either side wins; beats(a, b): a replaces b as the winner, NaN replaces any number
  using L = T;
  static constexpr int64_t kLeaf = 2048;
  static constexpr int64_t kAhead = 8192;  // more instructions for each element than a sum has: fewer loads wait at a time
  static constexpr T identity = lowest<T>();
  static FD_INLINE Vec<T> f(Vec<T> a, Vec<T> b) {  // a, what is found so far, waits for one instruction only
    if constexpr (kIsInt<T>)
      return select(a > b, a, b);
    else
      return select(is_nan(b), b, max(b, a));
  }
  static FD_INLINE T f(T a, T b) { return b > a || b != b ? b : a; }
  static FD_INLINE MaskOf<T> beats(Vec<T> a, Vec<T> b) {
    if constexpr (kIsInt<T>)
      return a > b;
    else
      return (a > b) | (is_nan(a) & ~is_nan(b));
  }
  static FD_INLINE bool beats(T a, T b) { return a > b || (a != a && b == b); }
};
template <class T>
struct Min {
  using L = T;
  static constexpr int64_t kLeaf = 2048;
  static constexpr int64_t kAhead = 8192;
  static constexpr T identity = highest<T>();
  static FD_INLINE Vec<T> f(Vec<T> a, Vec<T> b) {
    if constexpr (kIsInt<T>)
      return select(a < b, a, b);
    else
      return select(is_nan(b), b, min(b, a));
  }
  static FD_INLINE T f(T a, T b) { return b < a || b != b ? b : a; }
  static FD_INLINE MaskOf<T> beats(Vec<T> a, Vec<T> b) {
    if constexpr (kIsInt<T>)
      return a < b;
    else
      return (a < b) | (is_nan(a) & ~is_nan(b));
  }
  static FD_INLINE bool beats(T a, T b) { return a < b || (a != a && b == b); }
};

// n < Vec<L>::size elements, then lanes of `rest`.
template <class L>
FD_INLINE Vec<L> load_lanes_or(const L* p, int n, Vec<L> rest) {
  using I = typename Lane<L>::Int;
  return select(iota<I>() < Vec<I>(I(n)), load_partial(p, n), rest);
}

template <class L>
constexpr int kLine = 64 / int(sizeof(L));  // elements of a cache line

// How far ahead of elements that are read memory is asked for, in runs of n: none where that may be all there is.
template <class Op>
FD_INLINE int64_t fold_ahead(int64_t n) {
  return n >= Op::kLeaf ? Op::kAhead / int64_t(sizeof(typename Op::L)) : 0;
}

// op over n contiguous elements.
template <class Op, class L>
L fold_run(const L* p, int64_t n) {
  using V = Vec<L>;
  constexpr int S = V::size;
  const V one(Op::identity);
  const int64_t ahead = fold_ahead<Op>(n);
  V a = one;
  int64_t i = 0;
  if (n >= 4 * S) {
    V b = one, c = one, d = one;
    for (; i + 4 * S <= n; i += 4 * S) {
      if constexpr (Op::kAhead > 0)
        for (int k = 0; k < 4 * S; k += kLine<L>) __builtin_prefetch(p + i + k + ahead);
      a = Op::f(a, load(p + i)), b = Op::f(b, load(p + i + S));
      c = Op::f(c, load(p + i + 2 * S)), d = Op::f(d, load(p + i + 3 * S));
    }
    a = Op::f(Op::f(a, b), Op::f(c, d));
  }
  for (; i + S <= n; i += S) a = Op::f(a, load(p + i));
  if (i < n) a = Op::f(a, load_lanes_or(p + i, int(n - i), one));
  return join_lanes(a, [](V x, V y) { return Op::f(x, y); });
}

// ---- the plan ------------------------------------------------------------------------------------------------------------
// A reduction as loops over kept and reduced dims, outermost first. Dims of size 1 are gone and neighbours are merged, so that
// e.g. the sum over N, H, W of NHWC memory is one kept dim (C, stride 1) and one reduced dim (N*H*W, stride C).
struct ReducePlan {
  struct Kept {
    int64_t size, in, out;
  };
  struct Reduced {
    int64_t size, stride;
  };
  int nk = 0, nr = 0;
  int64_t outs = 1, n = 1;  // number of outputs, elements per output
  int64_t item = 0, out_item = 0;
  const char* in = nullptr;
  char* out = nullptr;
  Kept k[kMaxDims + 1];
  Reduced r[kMaxDims + 1];

  // ordered: the reduced dims stay in row-major order (argmax needs positions); else they are sorted for memory order.
  FD_NOINLINE ReducePlan(const View& x, const View& y, int64_t mask, bool ordered = false)
      : item(itemsize(x.dtype)), out_item(itemsize(y.dtype)) {
    in = x.ptr<char>(), out = y.ptr<char>();
    for (int d = 0; d < x.ndim; d++) {
      const int64_t size = x.shape[d];
      int64_t s = x.strides[d], t = y.strides[d];
      if (mask >> d & 1) {
        n *= size;
        if (size == 1) continue;
        if (s < 0 && !ordered && size > 0) in += (size - 1) * s * item, s = -s;
        int at = nr++;
        for (; !ordered && at > 0 && key(r[at - 1].stride) < key(s); at--) r[at] = r[at - 1];
        r[at] = {size, s};
      } else {
        outs *= size;
        if (size == 1) continue;
        if (s < 0 && size > 0) in += (size - 1) * s * item, out += (size - 1) * t * out_item, s = -s, t = -t;
        int at = nk++;
        for (; at > 0 && key(k[at - 1].in) < key(s); at--) k[at] = k[at - 1];
        k[at] = {size, s, t};
      }
    }
    int m = 0;
    for (int i = 1; i < nr; i++) {
      if (r[m].stride == r[i].size * r[i].stride)
        r[m] = {r[m].size * r[i].size, r[i].stride};
      else
        r[++m] = r[i];
    }
    nr = nr ? m + 1 : 0, m = 0;
    for (int i = 1; i < nk; i++) {
      if (k[m].in == k[i].size * k[i].in && k[m].out == k[i].size * k[i].out)
        k[m] = {k[m].size * k[i].size, k[i].in, k[i].out};
      else
        k[++m] = k[i];
    }
    nk = nk ? m + 1 : 0;
  }

  // Complex numbers as pairs of reals: one more kept dim of size 2.
  FD_NOINLINE void split_complex() {
    item /= 2, out_item /= 2, outs *= 2;
    for (int i = 0; i < nk; i++) k[i].in *= 2, k[i].out *= 2;
    for (int i = 0; i < nr; i++) r[i].stride *= 2;
    if (nk && k[nk - 1].in == 2 && k[nk - 1].out == 2)
      k[nk - 1] = {k[nk - 1].size * 2, 1, 1};
    else
      k[nk++] = {2, 1, 1};
  }

  int64_t inner_kept() const { return nk ? k[nk - 1].size : 1; }
  int64_t inner_in() const { return nk ? k[nk - 1].in : 0; }

  // Where the input elements (elements, not bytes) of output o start, and of reduced element e relative to that.
  FD_NOINLINE int64_t kept_offset(int64_t o) const {
    int64_t off = 0;
    for (int i = nk - 1; i > 0; i--) off += o % k[i].size * k[i].in, o /= k[i].size;
    return nk ? off + o * k[0].in : 0;
  }
  FD_NOINLINE int64_t out_offset(int64_t o) const {
    int64_t off = 0;
    for (int i = nk - 1; i > 0; i--) off += o % k[i].size * k[i].out, o /= k[i].size;
    return nk ? off + o * k[0].out : 0;
  }
  FD_NOINLINE int64_t reduced_offset(int64_t e) const {
    int64_t off = 0;
    for (int i = nr - 1; i > 0; i--) off += e % r[i].size * r[i].stride, e /= r[i].size;
    return nr ? off + e * r[0].stride : 0;
  }

  // Reduced elements [begin, begin + count) of the output whose elements start at base, as lanes: in place if they lie together
  // and are lanes already (fill_fn null means that dtype and lane type agree), else copied to buf.
  template <class L>
  FD_NOINLINE const L* block(const char* base, int64_t begin, int64_t count, Fill<L> fill_fn, bool direct, L* buf) const {
    if (nr <= 1) {
      const int64_t stride = nr ? r[0].stride : 1;
      const char* p = base + begin * stride * item;
      if (direct && stride == 1) return reinterpret_cast<const L*>(p);
      fill_fn(p, stride, count, buf);
      return buf;
    }
    const Reduced last = r[nr - 1];
    int64_t outer = begin / last.size, col = begin - outer * last.size;
    for (int64_t done = 0; done < count; col = 0, outer++) {
      const int64_t len = min_of(count - done, last.size - col);
      const char* p = base + reduced_offset(outer * last.size + col) * item;
      if (direct && last.stride == 1 && len == count) return reinterpret_cast<const L*>(p);
      fill_fn(p, last.stride, len, buf + done);
      done += len;
    }
    return buf;
  }

 private:
  // Broadcast dims (stride 0) count as outermost: their repeats then hit the cache.
  static int64_t key(int64_t stride) { return stride == 0 ? INT64_MAX : stride < 0 ? -stride : stride; }
};

}  // namespace
}  // namespace fastdl
