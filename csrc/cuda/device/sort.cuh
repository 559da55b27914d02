// Stable sort of keys with the positions they came from: what lets sums at repeated indices run in a fixed order, in parallel.
//
// Up to kSmallSort keys: one block, each thread counts the keys that precede its own. More: radix sort from the lowest digit of 8
// bits, three kernels per digit: every tile counts its digits; one block per digit adds up the tiles' counts; every tile moves its
// elements. Within a warp, equal digits find each other by ballots (D. Merrill, A. Grimshaw, "High performance and scalable radix
// sorting", 2011, for the scheme). K is uint32_t or uint64_t and holds keys as well as positions.
#pragma once
#include <utility>

#include "cuda/kernel.h"

namespace fastdl {
namespace {

constexpr int kSmallSort = 1024;
constexpr int kSortThreads = 256, kSortRounds = 8, kSortWarps = kSortThreads / kWarp;
constexpr int kSortTile = kSortThreads * kSortRounds;
constexpr int kDigits = 256;

// Sorted keys and their positions, as kernels read them; wide: 64-bit words.
struct Sorted {
  const void *keys, *positions;
  bool wide;

  FD_DEVICE int64_t key(int64_t i) const { return word(keys, i); }
  FD_DEVICE int64_t position(int64_t i) const { return word(positions, i); }

 private:
  FD_DEVICE int64_t word(const void* p, int64_t i) const {
    return wide ? static_cast<const int64_t*>(p)[i] : static_cast<const uint32_t*>(p)[i];
  }
};

template <class K>
struct SmallSortStorage {
  K keys[kSmallSort];
};
template <class K>
FD_KERNEL(kSmallSort, 1)
small_sort_kernel(const K* keys, int n, K* sorted_keys, K* positions) {
  auto& s = shared_memory<SmallSortStorage<K>>();
  const int i = int(threadIdx.x);
  const K key = i < n ? keys[i] : K(0);
  s.keys[i] = key;
  sync_block();
  if (i >= n) return;
  int place = 0;
  for (int j = 0; j < n; j++) place += s.keys[j] < key || (s.keys[j] == key && j < i);
  sorted_keys[place] = key;
  positions[place] = K(i);
}

struct CountStorage {
  uint32_t count[kDigits];
};
// counts[digit][tile]
template <class K>
FD_KERNEL(kSortThreads, 4)
radix_count_kernel(const K* keys, int64_t n, int shift, K* counts) {
  auto& s = shared_memory<CountStorage>();
  s.count[threadIdx.x] = 0;
  sync_block();
  const int64_t first = blockIdx.x * int64_t(kSortTile);
#pragma unroll
  for (int r = 0; r < kSortRounds; r++) {
    const int64_t i = first + r * kSortThreads + threadIdx.x;
    if (i < n) atomic_add(&s.count[(keys[i] >> shift) & (kDigits - 1)], 1u);
  }
  sync_block();
  counts[threadIdx.x * int64_t(gridDim.x) + blockIdx.x] = s.count[threadIdx.x];
}

// The sum of v over the threads before this one; total: over all of the block (kSortThreads). Free to be called again at once.
template <class K>
struct PrefixStorage {
  K warps[kSortWarps];
};
template <class K>
FD_DEVICE K sum_before(K v, PrefixStorage<K>& s, K& total) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  K sum = v;
#pragma unroll
  for (int d = 1; d < kWarp; d *= 2) {
    const K other = shuffle_up(sum, d);
    if (lane >= d) sum += other;
  }
  if (lane == kWarp - 1) s.warps[warp] = sum;
  sync_block();
  K before = 0;
  total = 0;
#pragma unroll
  for (int w = 0; w < kSortWarps; w++) {
    if (w < warp) before += s.warps[w];
    total += s.warps[w];
  }
  sync_block();
  return before + sum - v;
}

// One block per digit: counts become sums over the tiles before; totals[digit]: over all tiles.
template <class K>
FD_KERNEL(kSortThreads, 4)
radix_prefix_kernel(K* counts, int64_t tiles, K* totals) {
  auto& s = shared_memory<PrefixStorage<K>>();
  K* own = counts + blockIdx.x * tiles;
  K before = 0;
  for (int64_t t = 0; t < tiles; t += kSortThreads) {
    const int64_t i = t + threadIdx.x;
    K total;
    const K sum = sum_before(i < tiles ? own[i] : K(0), s, total);
    if (i < tiles) own[i] = before + sum;
    before += total;
  }
  if (threadIdx.x == 0) totals[blockIdx.x] = before;
}

template <class K>
struct MoveStorage {
  PrefixStorage<K> prefix;
  K next[kSortWarps][kDigits];  // first counts, then where the warp's next element of a digit goes
};
// first_pass: positions are the elements' own numbers.
template <class K>
FD_KERNEL(kSortThreads, 3)
radix_move_kernel(const K* keys, const K* positions, int64_t n, int shift, const K* counts, const K* totals, K* to_keys,
                  K* to_positions, bool first_pass) {
  auto& s = shared_memory<MoveStorage<K>>();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, digit_of_thread = int(threadIdx.x);
  for (int w = 0; w < kSortWarps; w++) s.next[w][digit_of_thread] = 0;
  K total;
  const K digit_start = sum_before(totals[digit_of_thread], s.prefix, total);  // waits for the zeros, too

  // a warp's elements are neighbours; `rank` counts equal digits before the element in its warp
  const int64_t first = blockIdx.x * int64_t(kSortTile) + warp * (kSortRounds * kWarp);
  K key[kSortRounds];
  uint32_t rank[kSortRounds];
#pragma unroll
  for (int r = 0; r < kSortRounds; r++) {
    const int64_t i = first + r * kWarp + lane;
    key[r] = i < n ? keys[i] : K(0);
    const uint32_t digit = uint32_t(key[r] >> shift) & (kDigits - 1);
    uint32_t equal = ballot(i < n);
#pragma unroll
    for (int b = 0; b < 8; b++) {
      const uint32_t set = ballot(digit >> b & 1);
      equal &= digit >> b & 1 ? set : ~set;
    }
    const uint32_t before = equal & ((1u << lane) - 1);
    rank[r] = i < n ? uint32_t(s.next[warp][digit]) + popcount(before) : 0;
    sync_warp();
    if (i < n && before == 0) s.next[warp][digit] += K(popcount(equal));
    sync_warp();
  }
  sync_block();
  K at = digit_start + counts[digit_of_thread * int64_t(gridDim.x) + blockIdx.x];
  for (int w = 0; w < kSortWarps; w++) {
    const K count = s.next[w][digit_of_thread];
    s.next[w][digit_of_thread] = at;
    at += count;
  }
  sync_block();
#pragma unroll
  for (int r = 0; r < kSortRounds; r++) {
    const int64_t i = first + r * kWarp + lane;
    if (i >= n) break;
    const K to = s.next[warp][uint32_t(key[r] >> shift) & (kDigits - 1)] + K(rank[r]);
    to_keys[to] = key[r];
    to_positions[to] = first_pass ? K(i) : positions[i];
  }
}

// Words of type K in the workspace of a sort of n keys: twice keys and positions, counts, totals.
inline int64_t sort_words(int64_t n) { return 4 * n + (n <= kSmallSort ? 0 : kDigits * (ceil_div(n, kSortTile) + 1)); }

// Narrow words serve all but enormous arrays. Keys are up to `bound`.
inline bool wide_words(int64_t n, int64_t bound) { return n >= int64_t(UINT32_MAX) || bound >= int64_t(UINT32_MAX); }
inline int64_t sort_bytes(int64_t n, int64_t bound) { return sort_words(n) * (wide_words(n, bound) ? 8 : 4); }

// Sorts n keys of 0 .. bound. write_keys(pointer to K) launches the kernel that writes them. workspace: sort_bytes().
template <class K, class F>
Sorted sort_words_of(const Args& a, K* words, int64_t n, int64_t bound, const F& write_keys) {
  K *keys = words, *positions = words + n, *to_keys = words + 2 * n, *to_positions = words + 3 * n;
  if (n > 0) write_keys(keys);
  if (n <= kSmallSort) {
    if (n > 0) FD_LAUNCH(a, small_sort_kernel<K>, 1, kSmallSort, sizeof(SmallSortStorage<K>), keys, int(n), to_keys, to_positions);
    return {to_keys, to_positions, sizeof(K) == 8};
  }
  const int64_t tiles = ceil_div(n, kSortTile);
  K *counts = words + 4 * n, *totals = counts + kDigits * tiles;
  for (int shift = 0; shift == 0 || (shift < 64 && bound >> shift != 0); shift += 8) {
    FD_LAUNCH(a, radix_count_kernel<K>, uint32_t(tiles), kSortThreads, sizeof(CountStorage), keys, n, shift, counts);
    FD_LAUNCH(a, radix_prefix_kernel<K>, kDigits, kSortThreads, sizeof(PrefixStorage<K>), counts, tiles, totals);
    FD_LAUNCH(a, radix_move_kernel<K>, uint32_t(tiles), kSortThreads, sizeof(MoveStorage<K>), keys, positions, n, shift, counts,
              totals, to_keys, to_positions, shift == 0);
    std::swap(keys, to_keys);
    std::swap(positions, to_positions);
  }
  return {keys, positions, sizeof(K) == 8};
}
template <class F>
Sorted sort_keys(const Args& a, void* workspace, int64_t n, int64_t bound, const F& write_keys) {
  if (wide_words(n, bound)) return sort_words_of(a, static_cast<uint64_t*>(workspace), n, bound, write_keys);
  return sort_words_of(a, static_cast<uint32_t*>(workspace), n, bound, write_keys);
}

}  // namespace
}  // namespace fastdl
