#include "cuda/emu/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>

#include "cuda/emu/fiber.h"
#include "cuda/emu/report.h"

#if defined(FD_EMU_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace fastdl {
namespace emu {
namespace {

constexpr size_t kAlign = 512, kRedZone = 512;
constexpr unsigned char kRedByte = 0xfb, kNaNByte = 0xff;

struct Arena {
  char* base = nullptr;
  size_t reserved = 0, committed = 0;   // committed: bytes from base that are readable and writable
  size_t used = 0;                      // by live allocations
  std::map<size_t, size_t> free_spans;  // offset, bytes
  std::map<size_t, size_t> live;        // offset of the data, bytes asked for
};

std::mutex mutex;
Arena arenas[kDevices];
std::map<char*, size_t> pinned;
thread_local int current_device = 0;

size_t capacity() {
  static const size_t bytes = [] {
    const char* s = std::getenv("FASTDL_EMU_MEMORY");  // MiB
    return (s ? std::strtoull(s, nullptr, 10) : 4096) << 20;
  }();
  return bytes;
}

bool reserve(Arena& a) {
  if (a.base) return true;
  const size_t bytes = 2 * capacity();  // as much again for gaps
  void* p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return false;
  a.base = static_cast<char*>(p);
  a.reserved = bytes;
  a.free_spans[0] = bytes;
  return true;
}

// Bytes that an allocation occupies: red zones before and behind.
size_t occupied(size_t bytes) { return kRedZone + (bytes + kAlign - 1) / kAlign * kAlign + kRedZone; }

bool red_zones_intact(const Arena& a, size_t data, size_t bytes) {
  for (size_t i = data - kRedZone; i < data; i++)
    if (static_cast<unsigned char>(a.base[i]) != kRedByte) return false;
  for (size_t i = data + bytes; i < data - kRedZone + occupied(bytes); i++)
    if (static_cast<unsigned char>(a.base[i]) != kRedByte) return false;
  return true;
}

cudaError_t arena_allocate(Arena& a, void** out, size_t bytes) {
  const size_t want = occupied(bytes);
  if (!reserve(a) || a.used + want > capacity()) return cudaErrorMemoryAllocation;
  for (auto span = a.free_spans.begin(); span != a.free_spans.end(); ++span) {
    if (span->second < want) continue;
    const size_t at = span->first, rest = span->second - want;
    if (at + want > a.committed) {
      const size_t up_to = std::min(a.reserved, (at + want + (size_t(1) << 21)) >> 21 << 21);
      if (mprotect(a.base + a.committed, up_to - a.committed, PROT_READ | PROT_WRITE)) return cudaErrorMemoryAllocation;
      a.committed = up_to;
    }
    a.free_spans.erase(span);
    if (rest) a.free_spans[at + want] = rest;
    const size_t data = at + kRedZone;
    unpoison(a.base + at, want);
    std::memset(a.base + at, kRedByte, kRedZone);
    std::memset(a.base + data, kNaNByte, bytes);
    std::memset(a.base + data + bytes, kRedByte, want - kRedZone - bytes);
    a.live[data] = bytes;
    a.used += want;
    checker_allocated(a.base, a.reserved, a.base + data, bytes);
    poison(a.base + at, kRedZone);
    poison(a.base + data + bytes, want - kRedZone - bytes);
    *out = a.base + data;
    return cudaSuccess;
  }
  return cudaErrorMemoryAllocation;
}

void arena_free(Arena& a, std::map<size_t, size_t>::iterator allocation) {
  size_t at = allocation->first - kRedZone, bytes = occupied(allocation->second);
  a.used -= bytes;
  a.live.erase(allocation);
  if (bytes >= size_t(1) << 20) madvise(a.base + (at + 4095) / 4096 * 4096, (bytes - 4096) / 4096 * 4096, MADV_DONTNEED);
  auto next = a.free_spans.lower_bound(at);
  if (next != a.free_spans.end() && at + bytes == next->first) {
    bytes += next->second;
    next = a.free_spans.erase(next);
  }
  if (next != a.free_spans.begin()) {
    auto before = std::prev(next);
    if (before->first + before->second == at) {
      before->second += bytes;
      return;
    }
  }
  a.free_spans[at] = bytes;
}

// The runtime's per-thread error state.
thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string last_text;
thread_local cudaError_t last_text_of = cudaSuccess;

}  // namespace

void set_error(cudaError_t error, const std::string& text) {
  last_error = error;
  last_text_of = error;
  last_text = text;
}

cudaError_t peek_error() { return last_error; }
cudaError_t take_error() {
  const cudaError_t e = last_error;
  last_error = cudaSuccess;
  return e;
}
cudaError_t record_error(cudaError_t e) {
  if (e != cudaSuccess && e != cudaErrorNotReady) last_error = e, last_text_of = cudaSuccess;
  return e;
}
const char* error_text(cudaError_t e) { return e == last_text_of && e != cudaSuccess ? last_text.c_str() : nullptr; }

#if defined(FD_EMU_ASAN)
void poison(const void* p, size_t bytes) { __asan_poison_memory_region(p, bytes); }
void unpoison(const void* p, size_t bytes) { __asan_unpoison_memory_region(p, bytes); }
#else
void poison(const void*, size_t) {}
void unpoison(const void*, size_t) {}
#endif

void* aligned_pool(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}

int device_of(const void* p) {
  const auto* c = static_cast<const char*>(p);
  for (int d = 0; d < kDevices; d++)
    if (arenas[d].base && c >= arenas[d].base && c < arenas[d].base + arenas[d].reserved) return d;
  return -1;
}

bool find_allocation(const void* p, Allocation* out) {
  std::lock_guard<std::mutex> lock(mutex);
  auto* c = static_cast<char*>(const_cast<void*>(p));
  const int device = device_of(p);
  if (device >= 0) {
    const Arena& a = arenas[device];
    auto it = a.live.upper_bound(size_t(c - a.base));
    if (it == a.live.begin()) return false;
    --it;
    if (size_t(c - a.base) >= it->first + it->second) return false;
    *out = {a.base + it->first, it->second, device};
    return true;
  }
  auto it = pinned.upper_bound(c);
  if (it == pinned.begin()) return false;
  --it;
  if (c >= it->first + it->second) return false;
  *out = {it->first, it->second, -1};
  return true;
}

int& device_of_thread() { return current_device; }
size_t device_capacity() { return capacity(); }
size_t device_used(int device) {
  std::lock_guard<std::mutex> lock(mutex);
  return arenas[device].used;
}

cudaError_t allocate_device(int device, void** data, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  *data = nullptr;
  return bytes ? arena_allocate(arenas[device], data, bytes) : cudaSuccess;
}

cudaError_t free_device(void* data) {
  std::lock_guard<std::mutex> lock(mutex);
  const int device = device_of(data);
  if (device < 0) return cudaErrorInvalidValue;
  Arena& a = arenas[device];
  const auto it = a.live.find(size_t(static_cast<char*>(data) - a.base));
  if (it == a.live.end()) return cudaErrorInvalidValue;
  const size_t bytes = it->second;
  unpoison(a.base + it->first - kRedZone, occupied(bytes));
  const bool intact = red_zones_intact(a, it->first, bytes);
  checker_freed(data, bytes);
  arena_free(a, it);
  if (intact) return cudaSuccess;
  set_error(cudaErrorIllegalAddress, "memory beside an allocation of " + std::to_string(bytes) + " bytes was overwritten");
  return cudaErrorIllegalAddress;
}

void block_allocated(void* data, int64_t bytes, int64_t whole) {
  auto* p = static_cast<char*>(data);
  unpoison(p, size_t(bytes));
  std::memset(p, kNaNByte, size_t(bytes));
  poison(p + bytes, size_t(whole - bytes));
  checker_freed(p, size_t(whole));
  const Arena& a = arenas[device_of(p)];
  checker_allocated(a.base, a.reserved, p, size_t(bytes));
}
void block_freed(void* data, int64_t whole) {
  poison(data, size_t(whole));
  checker_freed(data, size_t(whole));
}

cudaError_t allocate_pinned(void** data, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  *data = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!*data) return cudaErrorMemoryAllocation;
  pinned[static_cast<char*>(*data)] = bytes;
  return cudaSuccess;
}

cudaError_t free_pinned(void* data) {
  std::lock_guard<std::mutex> lock(mutex);
  if (!pinned.erase(static_cast<char*>(data))) return cudaErrorInvalidValue;
  std::free(data);
  return cudaSuccess;
}

}  // namespace emu
}  // namespace fastdl
