// parallel_for: the only way kernels use threads. Plain function pointers, so that kernel objects need no library types.
#pragma once
#include <cstdint>

namespace fastdl {

// Runs body(ctx, chunk) for chunk = 0 .. chunks-1, on the pool and the calling thread. The caller chooses chunks from sizes only,
// never from the thread count: chunk -> output is fixed, so results are bitwise equal for every thread count. Nested calls and
// chunks <= 1 run inline. Returns when all chunks are done.
void parallel_chunks(int64_t chunks, void (*body)(void* ctx, int64_t chunk), void* ctx);

int num_threads();

namespace {

// f(chunk) for each chunk.
template <class F>
inline void parallel_chunks(int64_t chunks, F&& f) {
  if (chunks <= 1) {
    if (chunks == 1) f(int64_t(0));
    return;
  }
  ::fastdl::parallel_chunks(
      chunks, [](void* c, int64_t i) { (*static_cast<F*>(c))(i); }, const_cast<void*>(static_cast<const void*>(&f)));
}

// f(begin, end) over [0, n) in chunks of `grain` (the last may be shorter). grain must not depend on the thread count.
template <class F>
inline void parallel_for(int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
  if (n <= grain) return f(int64_t(0), n);
  parallel_chunks((n + grain - 1) / grain, [&](int64_t c) {
    const int64_t begin = c * grain, end = begin + grain < n ? begin + grain : n;
    f(begin, end);
  });
}

}  // namespace
}  // namespace fastdl
