// parallel_for: the only way kernels use threads. Plain function pointers, so that kernel objects need no library types.
#pragma once
#include <cstdint>

namespace fastdl {

// Runs body(ctx, chunk) for chunk = 0 .. chunks-1, on the pool and the calling thread. How sums are cut must follow from sizes
// only, never from the thread count, so that results are bitwise equal for every thread count; how outputs are shared out may
// follow it. Nested calls and chunks <= 1 run inline. Returns when all chunks are done.
void parallel_chunks(int64_t chunks, void (*body)(void* ctx, int64_t chunk), void* ctx);

int num_threads();

// For the test of the partition (tests/test_partition.py): while it records, calls run their chunks on the caller and keep how much
// work each has. piece_work: the running chunk's, and that of a piece which nobody would cut; chunks that do not say have 1 and 0.
extern bool chunks_recorded;
void note_piece(int64_t work, int64_t least);

// Memory of the calling thread, 64-byte aligned, for what a chunk packs, or for what the caller shares with all chunks, behind what
// it needs as one of the workers: the same block each time, made when first asked for. Null where there is none left; then a kernel
// must have another way.
void* thread_scratch(int64_t bytes);

namespace {

inline void piece_work(int64_t work, int64_t least) {
  if (__builtin_expect(chunks_recorded, 0)) note_piece(work, least);
}

// f(chunk) for each chunk. f is compiled once, as a function of its own, for the inline and the threaded way alike.
template <class F>
inline void parallel_chunks(int64_t chunks, const F& f) {
  constexpr auto body = [](void* c, int64_t i) __attribute__((noinline)) { (*static_cast<const F*>(c))(i); };
  void* ctx = const_cast<void*>(static_cast<const void*>(&f));
  if (chunks > 1 || __builtin_expect(chunks_recorded, 0))
    ::fastdl::parallel_chunks(chunks, body, ctx);
  else if (chunks == 1)
    body(ctx, 0);
}

// The length of pieces of [0, n): `most`, or down to an eighth of it, so that `threads` threads finish together (within a tenth).
// A multiple of a power of two, 64 where `most` is long and is one itself.
inline int64_t fair_length(int64_t n, int64_t most, int threads) {
  int64_t least = most < 8 ? 1 : most / 8, multiple = 64;
  while (multiple > least || most % multiple) multiple /= 2;
  least -= least % multiple;
  const auto busiest = [&](int64_t length) {
    const int64_t pieces = (n - 1) / length + 1;
    return ((pieces - 1) / threads + 1) * length;
  };
  int64_t best = most;
  for (int64_t rounds = 1; threads > 1 && best > least && double(busiest(best)) * threads > 1.1 * double(n); rounds++) {
    const int64_t length = ((n - 1) / (threads * rounds) / multiple + 1) * multiple;
    if (length < best && (busiest(length) < busiest(best) || length <= least)) best = length < least ? least : length;
    if (length <= least) break;
  }
  return best;
}

// f(begin, end) over [0, n) in pieces of at most `most` items. What f makes of an item must not depend on where pieces begin: that
// follows the thread count.
template <class F>
inline void parallel_for(int64_t n, int64_t most, const F& f) {
  if (n <= 0) return;
  const int64_t length = n <= most ? most : fair_length(n, most, num_threads());
  parallel_chunks((n - 1) / length + 1, [&](int64_t c) {
    const int64_t begin = c * length, left = n - begin, count = left < length ? left : length;
    piece_work(count, n <= most ? most : most / 8);
    f(begin, begin + count);
  });
}

}  // namespace
}  // namespace fastdl
