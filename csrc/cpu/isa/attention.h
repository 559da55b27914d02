// The blocks of attention: what its kernels, on multiply-adds and on tiles, share.
//
// A block has up to two vectors of queries, and up to kAttentionKeys keys. Its scores are kept transposed, a row per key: so the
// maximum and the sum over keys need no exchange between lanes, keys and values are read where they lie, and the transposed product
// has the scores' columns adjacent.
#pragma once
#include "core/attention_plan.h"
#include "cpu/isa/gemm_pack.h"
#include "math/exp.h"

namespace fastdl {
namespace {

// The matrices, one per head, that a tensor holds in its last two axes; those before are broadcast to the shape of the query's.
template <class T>
struct Matrices {
  T* data;
  int64_t row, col;
  int lead;
  int64_t shape[kMaxDims], stride[kMaxDims];

  // of: whose leading sizes count; inner: axes of a matrix here, 1 for one number per query
  Matrices(const View& v, const View& of, int inner = 2) : data(v.ptr<T>()), row(0), col(0), lead(of.ndim - 2) {
    const auto stride_at = [&](int from_end) {
      const int d = v.ndim - from_end;
      return d < 0 || v.shape[d] == 1 ? int64_t(0) : v.strides[d];
    };
    if (!v.given()) data = nullptr;
    if (!data) return;
    row = stride_at(inner), col = inner == 2 ? stride_at(1) : 0;
    for (int d = 0; d < lead; d++) shape[d] = of.shape[d], stride[d] = stride_at(inner + lead - d);
  }
  T* operator[](int64_t head) const {
    T* p = data;
    for (int d = lead - 1; data && d >= 0; d--) p += head % shape[d] * stride[d], head /= shape[d];
    return p;
  }
};

inline AttentionShape attention_shape(const View& q, const View& k, const View& v) {
  AttentionShape s{1, q.shape[q.ndim - 2], k.shape[q.ndim - 2], q.shape[q.ndim - 1], v.shape[q.ndim - 1]};
  for (int d = 0; d < q.ndim - 2; d++) s.heads *= q.shape[d];
  return s;
}

// Pieces of work, each with scratch of its thread; where a thread has none, all run one after the other in `spare`.
template <class T, class F>
inline void pieces_with_scratch(int64_t pieces, int64_t elements, T* spare, const F& f) {
  bool failed = false;
  parallel_chunks(pieces, [&](int64_t piece) {
    T* const scratch = static_cast<T*>(thread_scratch(elements * int64_t(sizeof(T))));
    if (scratch)
      f(piece, scratch);
    else
      __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
  });
  for (int64_t piece = 0; failed && piece < pieces; piece++) f(piece, spare);
}

// C (m, n) = or += A (m, k) B (k, n). B's rows are whole vectors, C's are not. Not inline, as all that is done for a block: forty
// copies would be most of the code.
template <class T>
__attribute__((noinline)) void multiply(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row, int64_t a_k, const T* b,
                                        int64_t b_k, T* c, int64_t c_row, bool accumulate) {
  constexpr int lanes = Vec<T>::size;
  const Blocks rows(m, kTileRows[2]);
  Tile<T> t = {};
  t.a_row = a_row, t.a_k = a_k, t.k = k, t.b_k = b_k, t.c_row = c_row, t.accumulate = accumulate;
  for (int64_t j = 0; j < n; j += 2 * lanes) {
    const int nv = n - j > lanes ? 2 : 1;
    t.b = b + j, t.tail = int(min_of(n - j - (nv - 1) * lanes, int64_t(lanes)));
    for (int64_t i = 0; i < rows.count; i++) {
      t.a = a + rows.begin(i) * a_row, t.c = c + rows.begin(i) * c_row + j;
      run_tile(nv, int(rows.begin(i + 1) - rows.begin(i)), t);
    }
  }
}

// Rows of a matrix that a register tile can read as B.
template <class T>
struct Rows {
  const T* data;
  int64_t pitch;
};
template <class T>
__attribute__((noinline)) Rows<T> readable_rows(const T* from, int64_t row, int64_t col, int64_t rows, int64_t width, T* scratch) {
  constexpr int lanes = Vec<T>::size;
  if ((col == 1 || width == 1) && width % lanes == 0) return {from, row};
  const int64_t pitch = attention_padded(width);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t j = 0; j < pitch; j++) scratch[r * pitch + j] = j < width ? from[r * row + j * col] : T(0);
  return {scratch, pitch};
}

// out[e * pitch + i] = in[i][e] for i < rows; the rest of `pitch`, one or two vectors, is zero.
template <class T>
__attribute__((noinline)) void turn_rows(const T* in, int64_t row, int64_t col, int64_t rows, int64_t width, int64_t pitch,
                                         T* out) {
  if (row == 1 && rows > 1) {
    for (int64_t e = 0; e < width; e++)
      for (int64_t i = 0; i < pitch; i++) out[e * pitch + i] = i < rows ? in[i + e * col] : T(0);
    return;
  }
  pack_panel(in, width == 1 ? int64_t(1) : col, row == 1 ? int64_t(0) : row, width, int(rows), int(pitch), out);
}

// What a later piece of work reads and writes, fetched to the second level evenly over `calls` calls: heads that are views of one
// projection have short rows, each in another page or line, which no machine fetches ahead. Long rows are left to it.
class Ahead {
 public:
  // Rows [begin, end) of the matrix of a head, or of its numbers, one for each.
  template <class T>
  void add(const Matrices<T>& m, int64_t head, int64_t begin, int64_t end, int64_t width) {
    if (m.col == 1 && end > begin && width * int64_t(sizeof(T)) <= kAttentionAheadRow)
      add(m[head] + begin * m.row, m.row, width, end - begin);
  }
  template <class T>
  void add_numbers(const Matrices<T>& m, int64_t head, int64_t begin, int64_t end) {
    if (m.row == 1 && end > begin) add(m[head] + begin, 0, end - begin, 1);
  }
  void spread(int64_t calls) { calls_ = calls, left_ = bytes_ <= kAttentionAhead ? rows_ : 0; }
  void operator()() {
    for (int64_t now = calls_ > 1 ? ceil_div(left_, calls_--) : left_; now > 0; now--, left_--) {
      if (row_ == lists_[list_].rows) list_++, row_ = 0;
      const List& l = lists_[list_];
      const char* const from = l.from + row_++ * l.pitch;
      for (int64_t x = 0; x < l.bytes; x += kLine) __builtin_prefetch(from + x, 0, 2);
      if (reinterpret_cast<uintptr_t>(from) % kLine) __builtin_prefetch(from + l.bytes - 1, 0, 2);
    }
  }

 private:
  static constexpr int kMost = 10;
  static constexpr int64_t kLine = 64;
  struct List {
    const char* from;
    int64_t pitch, bytes, rows;
  };
  List lists_[kMost];
  int count_ = 0, list_ = 0;
  int64_t rows_ = 0, bytes_ = 0, left_ = 0, row_ = 0, calls_ = 1;

  template <class T>
  void add(T* from, int64_t pitch, int64_t width, int64_t rows) {
    constexpr int64_t bytes = sizeof(T);
    lists_[count_++] = {reinterpret_cast<const char*>(from), pitch * bytes, width * bytes, rows};
    rows_ += rows, bytes_ += rows * width * bytes;
  }
};
constexpr int kAheadForward = 3, kAheadBackward = 5;  // calls for a block of queries

template <class T>
struct Forward {
  AttentionShape s;
  Matrices<const T> q, k, v, mask;
  Matrices<T> y, peak, factor;
  bool causal;
  T scale;
};

template <class T>
struct Backward {
  AttentionShape s;
  Matrices<const T> g, q, k, v, mask, y, peak, factor;
  Matrices<T> dq, dk, dv;
  bool causal;
  T scale;
};

template <class T>
inline void clear_rows(T* data, int64_t row, int64_t begin, int64_t end, int64_t width) {
  for (int64_t i = begin; i < end; i++) __builtin_memset(data + i * row, 0, size_t(width) * sizeof(T));
}

// One block: queries [i0, i0 + rows), whose scores take NV vectors per key.
struct BlockAt {
  int64_t head, i0, rows;
};

// Adds the mask, and -inf to keys after the query's place, for keys [j0, j0 + keys).
template <class T, int NV>
inline void mask_scores(T* scores, const T* mask, int64_t mask_row, int64_t mask_col, const BlockAt& at, int64_t j0, int64_t keys,
                        bool causal, T* scratch) {
  using V = Vec<T>;
  using I = typename V::Int;
  constexpr int lanes = V::size, pitch = NV * lanes;
  if (mask) {
    mask += at.i0 * mask_row + j0 * mask_col;
    if (mask_row == 0) {
      for (int64_t j = 0; j < keys; j++)
        for (int v = 0; v < NV; v++)
          store(scores + j * pitch + v * lanes, load(scores + j * pitch + v * lanes) + V(mask[j * mask_col]));
    } else {
      turn_rows(mask, mask_row, mask_col, at.rows, keys, pitch, scratch);
      for (int64_t x = 0; x < keys * pitch; x += lanes) store(scores + x, load(scores + x) + load(scratch + x));
    }
  }
  for (int64_t j = causal ? max_of(int64_t(0), at.i0 + 1 - j0) : keys; j < keys; j++)
    for (int v = 0; v < NV; v++) {
      const auto earlier = iota<I>() < Vec<I>(I(j0 + j - at.i0 - v * lanes));
      store(scores + j * pitch + v * lanes, select(earlier, V(-kInf<T>), load(scores + j * pitch + v * lanes)));
    }
}

// Of the queries of a block: the largest score so far and the sum of exp(score - peak).
template <class T, int NV>
struct Running {
  Vec<T> peak[NV], total[NV];
};

// Scores of further keys become exp(score - peak); what was summed before is to be multiplied by `before`.
template <class T, int NV>
inline void soften(T* scores, int64_t keys, Running<T, NV>& r, Vec<T> (&before)[NV]) {
  using V = Vec<T>;
  constexpr int lanes = V::size, pitch = NV * lanes;
  for (int n = 0; n < NV; n++) {
    T* const column = scores + n * lanes;
    V most = r.peak[n], sum(T(0));
    for (int64_t j = 0; j < keys; j++) most = max(most, load(column + j * pitch));
    const V from = select(most == V(-kInf<T>), V(T(0)), most);  // -inf - -inf would be NaN
    for (int64_t j = 0; j < keys; j++) {
      const V p = exp_negative(load(column + j * pitch) - from);
      store(column + j * pitch, p);
      sum += p;
    }
    before[n] = exp_negative(r.peak[n] - from);
    r.total[n] = fma(r.total[n], before[n], sum);
    r.peak[n] = most;
  }
}

// What the gradient wants to know of a block's queries: peak and factor as saved, and delta = sum(g y) from these transposed.
template <class T, int NV>
struct Saved {
  Vec<T> peak[NV], factor[NV], delta[NV];

  Saved(const T* peaks, const T* factors, int64_t rows, const T* gradients, const T* results, int64_t width) {
    constexpr int lanes = Vec<T>::size, pitch = NV * lanes;
    for (int n = 0; n < NV; n++) {
      const int part = int(max_of(int64_t(0), min_of(int64_t(lanes), rows - n * lanes)));
      peak[n] = load_partial(peaks + n * lanes, part);
      factor[n] = load_partial(factors + n * lanes, part);
      delta[n] = Vec<T>(T(0));
      for (int64_t d = 0; d < width; d++)
        delta[n] = fma(load(gradients + d * pitch + n * lanes), load(results + d * pitch + n * lanes), delta[n]);
    }
  }
};

// Scores become p = exp(score - peak) factor, slopes, which are g v^T, become p (slope - delta) scale.
template <class T, int NV>
inline void differentiate(T* scores, T* slopes, int64_t keys, const Saved<T, NV>& saved, T scale) {
  using V = Vec<T>;
  constexpr int lanes = V::size, pitch = NV * lanes;
  for (int n = 0; n < NV; n++)
    for (int64_t x = n * lanes; x < keys * pitch; x += pitch) {
      const V p = exp_negative(load(scores + x) - saved.peak[n]) * saved.factor[n];
      store(scores + x, p);
      store(slopes + x, p * (load(slopes + x) - saved.delta[n]) * V(scale));
    }
}

// On tiles, if there are any and the operands suit them; false: nothing of use was done.
template <class F, class... A>
inline bool attention_tiles(const F&, Ahead&, A...) {
  return false;
}

// Keys that some query of the block sees.
inline int64_t keys_in_sight(const AttentionShape& s, const BlockAt& at, bool causal) {
  return causal ? min_of(s.keys, at.i0 + at.rows) : s.keys;
}

}  // namespace
}  // namespace fastdl
