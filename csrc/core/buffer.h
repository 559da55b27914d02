// Buffer: reference-counted memory behind tensors, and the caching CPU allocator that makes it cheap.
#pragma once
#include <atomic>
#include <cstdint>

namespace fastdl {

struct Device {
  enum Kind : uint8_t { CPU, CUDA };
  Kind kind = CPU;
  uint8_t index = 0;
  bool operator==(Device o) const { return kind == o.kind && index == o.index; }
  bool operator!=(Device o) const { return !(*this == o); }
};

// The header lies in front of the data for small blocks, so that taking one from the cache touches one cache line.
struct Buffer {
  void* data;
  int64_t bytes;  // as asked for; the block may be larger
  std::atomic<uint32_t> references;
  uint32_t version;  // raised by every in-place write, so that autograd notices stale saved tensors
  uint32_t graph_version;  // version after the last recorded in-place write: views without a node that are older miss its gradient
  Device device;
  int16_t size_class;                 // of the CPU allocator; -1: foreign memory
  void (*release_fn)(void* context);  // foreign memory: called once, when the last reference goes
  union {
    void* context;  // of release_fn
    Buffer* next;   // while the block waits in the cache
  };
};

// A buffer of `bytes` >= 0 of CPU memory, 64-byte aligned, contents undefined, one reference. Throws OutOfMemory.
Buffer* alloc_buffer(int64_t bytes);

// The same for a large block that stays, such as the arena of a program: of just these bytes, in whole pages, and no part of the
// cache.
Buffer* alloc_arena(int64_t bytes);

// Memory that somebody else owns (NumPy, DLPack, a device allocator). release_fn may be null.
Buffer* wrap_buffer(void* data, int64_t bytes, Device device, void (*release_fn)(void*), void* context);

void destroy_buffer(Buffer* b);  // for release() only

inline Buffer* retain(Buffer* b) {
  b->references.fetch_add(1, std::memory_order_relaxed);
  return b;
}
inline void release(Buffer* b) {
  if (!b) return;
  // A sole owner needs no read-modify-write: nobody else can reach the count.
  if (b->references.load(std::memory_order_acquire) == 1 || b->references.fetch_sub(1, std::memory_order_acq_rel) == 1)
    destroy_buffer(b);
}

struct MemoryStats {
  int64_t in_use, peak, cached, limit;  // bytes of blocks; limit 0: none
  int64_t allocations, hits;            // since start; hits came from the cache
};
MemoryStats memory_stats();
void reset_peak_memory();
void empty_cache();                    // gives idle blocks back to the system
void set_memory_limit(int64_t bytes);  // on blocks in use plus cached; 0: none

// Tests: while guard_zones is on, every new buffer lies between two zones of a known pattern, checked when it is freed.
extern bool guard_zones;
extern int64_t guard_violations;
Buffer* alloc_guarded(int64_t bytes);
void fail_after(int64_t n);            // tests: the n-th allocation from now on throws OutOfMemory; 0: off

}  // namespace fastdl
