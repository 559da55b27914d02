// Stores past the caches, for results that would leave them before anyone reads them: an ordinary store first reads the line that
// it writes to, which is a third of the traffic of a unary op, a quarter of a binary one's.
//
// Such stores are not ordered with others: a thread calls stream_fence() before it says that it has finished.
#pragma once
#include "cpu/isa/kernel.h"
#include "cpu/vec/convert.h"

namespace fastdl {
namespace {

constexpr int64_t kStreamBytes = 24 << 20;

// memcpy by such stores where `to` is aligned to cache lines. Call stream_fence() once afterwards.
inline void stream_copy(char* to, const char* from, int64_t bytes) {
  int64_t i = 0;
#if defined(__x86_64__)
  if (reinterpret_cast<uintptr_t>(to) % 64 == 0)
    for (; i + 64 <= bytes; i += 64) {
#if defined(__AVX512F__)
      _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_loadu_si512(from + i));
#else
      for (int k = 0; k < 64; k += 16)
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + i + k), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i + k)));
#endif
    }
#endif
  __builtin_memcpy(to + i, from + i, bytes - i);
}
// The same from a register, to aligned memory.
template <class T>
FD_INLINE void stream_store(T* to, Vec<T> v) {
#if defined(__AVX512F__)
  __m512i whole;
  __builtin_memcpy(&whole, &v, sizeof v);
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), whole);
#elif defined(__x86_64__)
  __m128i part[sizeof v / 16];
  __builtin_memcpy(part, &v, sizeof v);
#pragma GCC unroll 4
  for (int i = 0; i < int(sizeof v / 16); i++) _mm_stream_si128(reinterpret_cast<__m128i*>(to) + i, part[i]);
#else
  store(to, v);
#endif
}
inline void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Full vectors take the plain instruction; `n` is a constant there after inlining.
template <class T>
FD_INLINE void store_n(T* p, Vec<WideOf<T>> a, int n) {
  if (n == Vec<WideOf<T>>::size)
    store_narrow(p, a);
  else
    store_narrow_partial(p, a, n);
}

// The result of a kernel that stores it in vectors, row by row of `row` elements. It goes past the caches if it is too large for
// them and every whole vector is, or is a part of, a line of its own.
template <class T>
struct Result {
  T* to;
  bool past;
  Result(T* to, int64_t total, int64_t row)
      : to(to),
        past(sizeof(T) > 2 && total >= kStreamBytes / int64_t(sizeof(T)) && row * int64_t(sizeof(T)) % 64 == 0 &&
             reinterpret_cast<uintptr_t>(to) % 64 == 0) {}
  FD_INLINE Result from(int64_t row_start) const {
    Result r = *this;
    r.to += row_start;
    return r;
  }
  FD_INLINE void store(int64_t at, Vec<WideOf<T>> v, int lanes) const {
    if constexpr (sizeof(T) > 2)
      if (past) return stream_store(to + at, v);  // lanes: all of them, as rows are whole lines
    store_n(to + at, v, lanes);
  }
  FD_INLINE void finish() const {
    if (past) stream_fence();
  }
};

}  // namespace
}  // namespace fastdl
