// attention and its gradient, per head: y = softmax(q k^T scale + mask) v, without the matrix of all scores.
//
// Method: blocks of keys go past a block of queries. The running maximum and sum of exponentials of each query are kept and what
// was summed before is rescaled when the maximum grows (M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax",
// 2018; T. Dao et al., "FlashAttention", 2022). Blocks of keys that come after all the block's queries are left out. The gradient
// computes the scores again; with p = exp(score - peak) factor and delta = sum(g y) per query:
//   dv = p^T g     ds = p (g v^T - delta) scale     dq = ds k     dk = ds^T q
// A query that sees no key (all its scores are -inf) gives 0, and no gradient, as in PyTorch.
#include "cpu/isa/attention.h"
#if defined(__AMX_BF16__)
#include "cpu/isa/attention_amx.h"
#endif

namespace fastdl {
namespace {

template <class T, int NV>
void forward_block(const Forward<T>& f, const BlockAt& at, T* scratch, Ahead& ahead) {
  using V = Vec<T>;
  constexpr int lanes = V::size, pitch = NV * lanes;
  const AttentionShape& s = f.s;
  const int64_t width = attention_padded(s.value_width);
  T* const queries = scratch;
  T* const scores = queries + kAttentionQueries * attention_padded(s.width);
  T* const values = scores + kAttentionKeys * kAttentionQueries;
  T* const sums = values + kAttentionKeys * width;
  T* const mask_block = sums + kAttentionQueries * width;
  const T *k = f.k[at.head], *v = f.v[at.head], *mask = f.mask[at.head];

  turn_rows(f.q[at.head] + at.i0 * f.q.row, f.q.row, f.q.col, at.rows, s.width, pitch, queries);
  for (int64_t x = 0; x < s.width * pitch; x += lanes) store(queries + x, load(queries + x) * V(f.scale));
  Running<T, NV> running;
  for (int n = 0; n < NV; n++) running.peak[n] = V(-kInf<T>), running.total[n] = V(T(0));
  const int64_t end = keys_in_sight(s, at, f.causal);
  for (int64_t j0 = 0; j0 < end; j0 += kAttentionKeys) {
    const int64_t keys = min_of(kAttentionKeys, end - j0);
    multiply(keys, int64_t(pitch), s.width, k + j0 * f.k.row, f.k.row, f.k.col, queries, int64_t(pitch), scores, int64_t(pitch),
             false);
    if (j0 == 0) ahead();
    mask_scores<T, NV>(scores, mask, f.mask.row, f.mask.col, at, j0, keys, f.causal, mask_block);
    V before[NV];
    soften<T, NV>(scores, keys, running, before);
    if (j0 == 0) ahead();
    for (int64_t i = 0; j0 > 0 && i < at.rows; i++) {
      const V rescale(before[i / lanes][int(i) % lanes]);
      for (int64_t x = i * width; x < (i + 1) * width; x += lanes) store(sums + x, load(sums + x) * rescale);
    }
    const Rows<T> b = readable_rows(v + j0 * f.v.row, f.v.row, f.v.col, keys, s.value_width, values);
    multiply(at.rows, s.value_width, keys, static_cast<const T*>(scores), int64_t(1), int64_t(pitch), b.data, b.pitch, sums, width,
             j0 > 0);
    if (j0 == 0) ahead();
  }
  T *y = f.y[at.head], *peak_out = f.peak[at.head] + at.i0, *factor_out = f.factor[at.head] + at.i0;
  for (int64_t i = 0; i < at.rows; i++) {
    const T m = running.peak[i / lanes][int(i) % lanes], sum = running.total[i / lanes][int(i) % lanes];
    const T factor = sum == T(0) ? T(0) : T(1) / sum;
    peak_out[i] = m == -kInf<T> ? T(0) : m;
    factor_out[i] = factor;
    T* const to = y + (at.i0 + i) * f.y.row;
    for (int64_t x = 0; x < s.value_width; x += lanes) {
      const int part = int(min_of(int64_t(lanes), s.value_width - x));
      store_partial(to + x, end > 0 ? load(sums + i * width + x) * V(factor) : V(T(0)), part);
    }
  }
}

template <class T>
void forward(const Args& a) {
  const View &q = a.in[0], &y = a.out[0];
  const Forward<T> f{attention_shape(q, a.in[1], a.in[2]),
                     {q, q},
                     {a.in[1], q},
                     {a.in[2], q},
                     {a.in[3], q},
                     {y, q},
                     {a.out[1], q, 1},
                     {a.out[2], q, 1},
                     a.attrs->i[0] != 0,
                     T(a.attrs->f[0])};
  constexpr int64_t block = 2 * Vec<T>::size, group = block * kAttentionGroup;
  const int64_t groups = ceil_div(f.s.queries, group), pieces = f.s.heads * groups, threads = num_threads();
  const auto group_at = [&](int64_t piece) {
    const int64_t begin = piece % groups * group;
    return BlockAt{piece / groups, begin, min_of(group, f.s.queries - begin)};
  };
  pieces_with_scratch(pieces, attention_scratch(f.s, false), static_cast<T*>(a.workspace), [&](int64_t piece, T* scratch) {
    const BlockAt here = group_at(piece);
    const int64_t head = here.head, begin = here.i0, end = begin + here.rows;
    Ahead ahead;
    if (piece + threads < pieces) {
      const BlockAt next = group_at(piece + threads);
      const int64_t have = next.head == head ? keys_in_sight(f.s, here, f.causal) : 0, want = keys_in_sight(f.s, next, f.causal);
      ahead.add(f.q, next.head, next.i0, next.i0 + next.rows, f.s.width);
      ahead.add(f.k, next.head, have, want, f.s.width);
      ahead.add(f.v, next.head, have, want, f.s.value_width);
      ahead.add(f.y, next.head, next.i0, next.i0 + next.rows, f.s.value_width);
      ahead.spread(kAheadForward * ceil_div(here.rows, block));
    }
    if (attention_tiles(f, ahead, head, begin, end, scratch)) return;
    for (int64_t i0 = begin; i0 < end; i0 += block) {
      const BlockAt at{head, i0, min_of(block, end - i0)};
      at.rows > Vec<T>::size ? forward_block<T, 2>(f, at, scratch, ahead) : forward_block<T, 1>(f, at, scratch, ahead);
    }
  });
}

// Adds the gradients of queries at.i0 .. and of keys [begin, end) to dq, whose rows are dq_row apart, dk and dv.
template <class T, int NV>
void backward_block(const Backward<T>& b, const BlockAt& at, int64_t begin, int64_t end, T* dq, int64_t dq_row, T* scratch,
                    Ahead& ahead) {
  using V = Vec<T>;
  constexpr int lanes = V::size, pitch = NV * lanes;
  const AttentionShape& s = b.s;
  const int64_t e = attention_padded(s.width), w = attention_padded(s.value_width);
  T* const queries = scratch;
  T* const gradients = queries + kAttentionQueries * e;
  T* const results = gradients + kAttentionQueries * w;
  T* const scores = results + kAttentionQueries * w;
  T* const slopes = scores + kAttentionKeys * kAttentionQueries;
  T* const mask_block = slopes + kAttentionKeys * kAttentionQueries;
  T* const key_rows = mask_block + kAttentionKeys * kAttentionQueries;
  T* const query_rows = key_rows + kAttentionKeys * e;
  T* const gradient_rows = query_rows + kAttentionQueries * e;
  const T *q = b.q[at.head] + at.i0 * b.q.row, *g = b.g[at.head] + at.i0 * b.g.row, *y = b.y[at.head] + at.i0 * b.y.row;
  const T *k = b.k[at.head], *v = b.v[at.head], *mask = b.mask[at.head];
  T *dk = b.dk[at.head], *dv = b.dv[at.head];

  turn_rows(q, b.q.row, b.q.col, at.rows, s.width, pitch, queries);
  for (int64_t x = 0; x < s.width * pitch; x += lanes) store(queries + x, load(queries + x) * V(b.scale));
  turn_rows(g, b.g.row, b.g.col, at.rows, s.value_width, pitch, gradients);
  turn_rows(y, b.y.row, b.y.col, at.rows, s.value_width, pitch, results);
  const Rows<T> q_rows = readable_rows(q, b.q.row, b.q.col, at.rows, s.width, query_rows);
  const Rows<T> g_rows = readable_rows(g, b.g.row, b.g.col, at.rows, s.value_width, gradient_rows);
  const Saved<T, NV> saved(b.peak[at.head] + at.i0, b.factor[at.head] + at.i0, at.rows, gradients, results, s.value_width);
  end = min_of(end, keys_in_sight(s, at, b.causal));
  for (int64_t j0 = begin; j0 < end; j0 += kAttentionKeys) {
    const int64_t keys = min_of(kAttentionKeys, end - j0);
    const auto fetch = [&] {
      if (j0 == begin) ahead();
    };
    multiply(keys, int64_t(pitch), s.width, k + j0 * b.k.row, b.k.row, b.k.col, queries, int64_t(pitch), scores, int64_t(pitch),
             false);
    fetch();
    multiply(keys, int64_t(pitch), s.value_width, v + j0 * b.v.row, b.v.row, b.v.col, gradients, int64_t(pitch), slopes,
             int64_t(pitch), false);
    fetch();
    mask_scores<T, NV>(scores, mask, b.mask.row, b.mask.col, at, j0, keys, b.causal, mask_block);
    differentiate<T, NV>(scores, slopes, keys, saved, b.scale);
    fetch();
    const T *p = scores, *ds = slopes;
    multiply(keys, s.value_width, at.rows, p, int64_t(pitch), int64_t(1), g_rows.data, g_rows.pitch, dv + j0 * b.dv.row, b.dv.row,
             true);
    fetch();
    multiply(keys, s.width, at.rows, ds, int64_t(pitch), int64_t(1), q_rows.data, q_rows.pitch, dk + j0 * b.dk.row, b.dk.row, true);
    fetch();
    const Rows<T> k_rows = readable_rows(k + j0 * b.k.row, b.k.row, b.k.col, keys, s.width, key_rows);
    multiply(at.rows, s.width, keys, ds, int64_t(1), int64_t(pitch), k_rows.data, k_rows.pitch, dq, dq_row, true);
  }
}

template <class T>
void backward(const Args& a) {
  const View& q = a.in[1];
  const Backward<T> b{attention_shape(q, a.in[2], a.in[3]),
                      {a.in[0], q},
                      {q, q},
                      {a.in[2], q},
                      {a.in[3], q},
                      {a.in[4], q},
                      {a.in[5], q},
                      {a.in[6], q, 1},
                      {a.in[7], q, 1},
                      {a.out[0], q},
                      {a.out[1], q},
                      {a.out[2], q},
                      a.attrs->i[0] != 0,
                      T(a.attrs->f[0])};
  constexpr int64_t block = 2 * Vec<T>::size;
  const AttentionShape& s = b.s;
  const int64_t splits = attention_splits(s), scratch_size = attention_scratch(s, true), head_size = s.queries * s.width;
  const int64_t key_blocks = ceil_div(s.keys, kAttentionKeys);
  T* const parts = static_cast<T*>(a.workspace) + scratch_size;  // [split][head][query]
  const auto keys_before = [&](int64_t split) { return min_of(split * key_blocks / splits * kAttentionKeys, s.keys); };
  const int64_t pieces = s.heads * splits, threads = num_threads();
  pieces_with_scratch(pieces, scratch_size, static_cast<T*>(a.workspace), [&](int64_t piece, T* scratch) {
    const int64_t head = piece / splits, split = piece % splits;
    const int64_t begin = keys_before(split), end = keys_before(split + 1);
    Ahead ahead;
    if (piece + threads < pieces) {
      const int64_t other = (piece + threads) / splits, first = keys_before((piece + threads) % splits),
                    last = keys_before((piece + threads) % splits + 1);
      ahead.add(b.k, other, first, last, s.width);
      ahead.add(b.v, other, first, last, s.value_width);
      if (other != head) {
        const int64_t from = b.causal ? min_of(first, s.queries) : 0;
        ahead.add(b.q, other, from, s.queries, s.width);
        ahead.add(b.g, other, from, s.queries, s.value_width);
        ahead.add(b.y, other, from, s.queries, s.value_width);
        ahead.add_numbers(b.peak, other, from, s.queries);
        ahead.add_numbers(b.factor, other, from, s.queries);
        if (splits == 1) ahead.add(b.dq, other, 0, s.queries, s.width);
      }
      ahead.add(b.dk, other, first, last, s.width);
      ahead.add(b.dv, other, first, last, s.value_width);
      ahead.spread(kAheadBackward * max_of(int64_t(1), ceil_div(s.queries - (b.causal ? min_of(begin, s.queries) : 0), block)));
    }
    T* const dq = splits > 1 ? parts + (split * s.heads + head) * head_size : b.dq[head];
    const int64_t dq_row = splits > 1 ? s.width : b.dq.row;
    if (attention_tiles(b, ahead, head, begin, end, dq, dq_row, scratch)) return;
    clear_rows(b.dk[head], b.dk.row, begin, end, s.width);
    clear_rows(b.dv[head], b.dv.row, begin, end, s.value_width);
    clear_rows(dq, dq_row, 0, s.queries, s.width);
    for (int64_t i0 = 0; i0 < s.queries; i0 += block) {
      const BlockAt at{head, i0, min_of(block, s.queries - i0)};
      T* const to = dq + i0 * dq_row;
      at.rows > Vec<T>::size ? backward_block<T, 2>(b, at, begin, end, to, dq_row, scratch, ahead)
                             : backward_block<T, 1>(b, at, begin, end, to, dq_row, scratch, ahead);
    }
  });
  if (splits == 1) return;
  parallel_for(s.heads * s.queries, max_of(int64_t(1), int64_t(8192) / max_of(s.width, int64_t(1))),
               [&](int64_t first, int64_t last) {
                 for (int64_t r = first; r < last; r++) {
                   T* const to = b.dq[r / s.queries] + r % s.queries * b.dq.row;
                   for (int64_t x = 0; x < s.width; x++) {
                     T sum = parts[r * s.width + x];
                     for (int64_t split = 1; split < splits; split++) sum += parts[(split * s.heads * s.queries + r) * s.width + x];
                     to[x] = sum;
                   }
                 }
               });
}

}  // namespace

FD_KERNEL_TABLE(attention) = {
    {OpId::attention, kF32, forward<float>},
    {OpId::attention_backward, kF32, backward<float>},
    FD_ROWS_WITHOUT_TILES({OpId::attention, kF64, forward<double>}, {OpId::attention_backward, kF64, backward<double>}){},
};

}  // namespace fastdl
