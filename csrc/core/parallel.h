// parallel_for: the only way kernels use threads. Plain function pointers, so that kernel objects need no library types.
#pragma once
#include <cstdint>

namespace fastdl {

// Runs body(ctx, chunk) for chunk = 0 .. chunks-1, on the pool and the calling thread. How sums are cut must follow from sizes
// only, never from the thread count, so that results are bitwise equal for every thread count; how outputs are shared out may
// follow it. Nested calls and chunks <= 1 run inline. Returns when all chunks are done.
void parallel_chunks(int64_t chunks, void (*body)(void* ctx, int64_t chunk), void* ctx);

int num_threads();

// Memory of the calling thread for what a chunk packs, 64-byte aligned: the same block each time, made when first asked for. Null
// where there is none left; then a kernel must have another way.
void* thread_scratch(int64_t bytes);

namespace {

// f(chunk) for each chunk. f is compiled once, as a function of its own, for the inline and the threaded way alike.
template <class F>
inline void parallel_chunks(int64_t chunks, const F& f) {
  constexpr auto body = [](void* c, int64_t i) __attribute__((noinline)) { (*static_cast<const F*>(c))(i); };
  void* ctx = const_cast<void*>(static_cast<const void*>(&f));
  if (chunks > 1)
    ::fastdl::parallel_chunks(chunks, body, ctx);
  else if (chunks == 1)
    body(ctx, 0);
}

// f(begin, end) over [0, n) in chunks of `grain` (the last may be shorter). grain must not depend on the thread count.
template <class F>
inline void parallel_for(int64_t n, int64_t grain, const F& f) {
  if (n <= 0) return;
  parallel_chunks(n <= grain ? 1 : (n - 1) / grain + 1, [&](int64_t c) {
    const int64_t begin = c * grain, left = n - begin;
    f(begin, begin + (left < grain ? left : grain));
  });
}

}  // namespace
}  // namespace fastdl
