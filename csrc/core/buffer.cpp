// Caching allocator. Freed blocks wait in one list per size class; a training step asks for the same sizes again and again, so
// almost every allocation is a pop. This also avoids page faults: fresh pages cost 0.1-0.25 us each, more than the kernel that
// fills them.
//
// Classes: four per power of two (waste <= 25 %) in units of 64 bytes up to 1 MB, sixteen (6 %) of 256 KB above. Large blocks are
// mapped on 2 MB boundaries and ask for huge pages, as far as they fill them; their data starts at a varying offset, so that arrays
// of equal power-of-two sizes do not meet in the same cache sets and 4K-aliasing slots; a tail of one small page makes room for the
// offset.
#include "buffer.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include <pthread.h>
#include <sched.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "error.h"
#include "record.h"

namespace fastdl {
namespace {

constexpr int64_t kAlign = 64, kSmallMax = int64_t(1) << 20, kLargeUnit = int64_t(1) << 18, kHuge = int64_t(2) << 20, kTail = 4096,
                  kPage = 4096;
constexpr int64_t kMaxBytes = int64_t(1) << 46;  // beyond any address space; keeps size arithmetic far from overflow
constexpr int kSmallBits = 2, kLargeBits = 4;    // 2^bits classes per power of two
constexpr int kLargeClass = 52;                  // first class of large blocks
constexpr int kClasses = kLargeClass + 16 * 25;  // up to 2^28 units
static_assert(sizeof(Buffer) <= kAlign, "header fits before the data");

// Units -> class, for two bits: 1 2 3 4 | 5 6 7 8 | 10 12 14 16 | 20 24 ...
int class_of_units(int64_t units, int bits) {
  const int64_t per = int64_t(1) << bits;
  if (units <= per) return units <= 1 ? 0 : int(units - 1);
  const int e = 63 - __builtin_clzll(uint64_t(units - 1));
  return int(per * (e - bits) + ((units - 1) >> (e - bits)));
}
int64_t units_of_class(int c, int bits) {
  const int per = 1 << bits;
  return c < per ? c + 1 : int64_t(c % per + per + 1) << (c / per - 1);
}
int class_of(int64_t bytes) {
  return bytes <= kSmallMax ? class_of_units((bytes + kAlign - 1) / kAlign, kSmallBits)
                            : kLargeClass + class_of_units((bytes + kLargeUnit - 1) / kLargeUnit, kLargeBits);
}
int64_t bytes_of_class(int c) {
  return c < kLargeClass ? units_of_class(c, kSmallBits) * kAlign : units_of_class(c - kLargeClass, kLargeBits) * kLargeUnit;
}

// A count that one thread writes (or all under the lock) and any may read: plain moves, but no data race.
class Count {
 public:
  operator int64_t() const { return v_.load(std::memory_order_relaxed); }
  void operator=(int64_t v) { v_.store(v, std::memory_order_relaxed); }
  void operator+=(int64_t d) { *this = *this + d; }
  void operator-=(int64_t d) { *this = *this - d; }

 private:
  std::atomic<int64_t> v_{0};
};

// Shared lists, behind a spin lock.
struct Cache {
  std::atomic_flag lock = ATOMIC_FLAG_INIT;
  Buffer* idle[kClasses] = {};
  Count out, peak, cached;  // bytes outside the shared lists, most bytes ever in use, bytes in the shared lists
  Count fail_countdown;
  int64_t limit = 0, allocations = 0, hits = 0;
  int64_t idle_max = 0;  // bytes kept idle at most, see ask_system
  uint32_t colour = 0;
};

// A few small blocks in front of them for one thread, the first to allocate: in Python programs that is the one that makes nearly
// all small tensors, and without the two locked instructions a block costs it a third. Other threads never touch these lists.
constexpr int kFrontClasses = 36, kFrontBlocks = 8;  // up to 64 KB; at most 3 MB in all
struct Front {
  std::atomic<uintptr_t> owner{0};
  Buffer* idle[kFrontClasses] = {};
  uint8_t count[kFrontClasses] = {};
  Count bytes, hits;
};

// Constant-initialised and without destructors: usable before and after every other global.
Cache cache;
Front front;

inline uintptr_t this_thread() {
#if defined(__x86_64__) && defined(__linux__)
  uintptr_t id;  // the thread pointer, without a call
  __asm__("movq %%fs:0, %0" : "=r"(id));
  return id;
#else
  return uintptr_t(pthread_self());
#endif
}
inline bool owns_front() { return front.owner.load(std::memory_order_relaxed) == this_thread(); }

int64_t bytes_in_use() { return cache.out - front.bytes; }
void note_peak() {
  if (const int64_t used = bytes_in_use(); used > cache.peak) cache.peak = used;
}

int64_t machine_memory() {
  int64_t bytes = int64_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"})
    if (FILE* f = fopen(path, "r")) {
      long long limit = 0;
      if (fscanf(f, "%lld", &limit) == 1 && limit > 0 && limit < bytes) bytes = limit;
      fclose(f);
    }
  return bytes;
}

void lock() {
  for (int i = 0; cache.lock.test_and_set(std::memory_order_acquire); i++)
    if (i > 100) sched_yield();
}
void unlock() { cache.lock.clear(std::memory_order_release); }

struct Guard {
  Guard() { lock(); }
  ~Guard() { unlock(); }
};

// A fork while another thread holds the lock would leave it held for ever in the child.
[[maybe_unused]] const int kForkHandlers = pthread_atfork(lock, unlock, unlock);

// ---- blocks from and to the system ---------------------------------------------------------------------------------

Buffer* system_alloc_small(int64_t bytes) {
  void* p = nullptr;
  if (posix_memalign(&p, kAlign, size_t(kAlign + bytes))) return nullptr;
  auto* b = new (p) Buffer;
  b->data = static_cast<char*>(p) + kAlign;
  return b;
}

#if defined(__linux__)
Buffer* system_alloc_large(int64_t bytes, uint32_t colour) {
  auto* b = new (std::nothrow) Buffer;
  if (!b) return nullptr;
  const size_t want = size_t(bytes + kTail);
  char* p = static_cast<char*>(mmap(nullptr, want + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (p == MAP_FAILED) {
    delete b;
    return nullptr;
  }
  char* start = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(p) + kHuge - 1) & ~uintptr_t(kHuge - 1));
  if (start > p) munmap(p, size_t(start - p));
  munmap(start + want, size_t(p + kHuge - start));
  if (bytes >= kHuge) madvise(start, size_t(bytes), MADV_HUGEPAGE);
  // The mapping starts on a 2 MB boundary, so its start can be found again from data.
  b->data = start + colour % 16 * (kTail / 16);
  return b;
}
void system_free_large(Buffer* b, int64_t bytes) {
  munmap(reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(b->data) & ~uintptr_t(kHuge - 1)), size_t(bytes + kTail));
  delete b;
}
#else
Buffer* system_alloc_large(int64_t bytes, uint32_t) { return system_alloc_small(bytes); }
void system_free_large(Buffer* b, int64_t) { free(b); }
#endif

Buffer* system_alloc(int size_class, uint32_t colour) {
  const int64_t bytes = bytes_of_class(size_class);
  Buffer* b = size_class < kLargeClass ? system_alloc_small(bytes) : system_alloc_large(bytes, colour);
  if (b) b->size_class = int16_t(size_class), b->device = Device{}, b->release_fn = nullptr;
  return b;
}
void system_free(Buffer* b) {
  if (b->size_class < kLargeClass)
    free(b);
  else
    system_free_large(b, bytes_of_class(b->size_class));
}

// Moves a list's blocks to the head of a chain; the caller frees the chain outside the lock.
void take_list(Buffer*& list, Buffer*& chain) {
  while (list) {
    Buffer* b = list;
    list = b->next;
    b->next = chain;
    chain = b;
  }
}
void free_chain(Buffer* chain) {
  while (chain) {
    Buffer* b = chain;
    chain = b->next;
    system_free(b);
  }
}

[[noreturn]] void out_of_memory(int64_t bytes) {
  const MemoryStats s = memory_stats();
  const long long asked = bytes, in_use = s.in_use, limit = s.limit;
  if (limit)
    fail(ErrorCode::OutOfMemory, "out of memory: asked for %lld bytes; %lld are in use, the limit is %lld", asked, in_use, limit);
  fail(ErrorCode::OutOfMemory, "out of memory: asked for %lld bytes; %lld are in use, no limit is set", asked, in_use);
}

// Memory of `block` bytes for `bytes` from the system; if that refuses or the limit is hit, the idle blocks are given back first.
// allocate(colour) returns null on failure.
template <class Allocate>
Buffer* ask_system(int64_t block, int64_t bytes, Allocate allocate) {
  Cache& c = cache;
  for (int attempt = 0; attempt < 2; attempt++) {
    uint32_t colour;
    bool fits;
    {
      Guard guard;
      if (!c.idle_max) {  // the first block of all
        c.idle_max = machine_memory() / 4;
        front.owner.store(this_thread(), std::memory_order_relaxed);
      }
      colour = c.colour;
      fits = !c.limit || c.out + c.cached + block <= c.limit;
      if (fits) {  // booked before the system is asked, so that two threads cannot pass the limit together
        c.out += block;
        if (block > kSmallMax) c.colour++;
      }
    }
    if (fits) {
      Buffer* b = allocate(colour);
      Guard guard;
      if (b) {
        c.allocations++;
        note_peak();
        return b;
      }
      c.out -= block;
    }
    empty_cache();
  }
  out_of_memory(bytes);
}

// Tests, under the lock: whether this is the allocation that shall fail.
bool fails_now() {
  if (cache.fail_countdown == 0) return false;
  cache.fail_countdown -= 1;
  return cache.fail_countdown == 0;
}

void free_arena(void* block) {
  auto* b = static_cast<Buffer*>(block);
  const int64_t bytes = b->bytes;
  {
    Guard guard;
    cache.out -= bytes;
  }
  system_free_large(b, bytes);
}

}  // namespace

Buffer* alloc_buffer(int64_t bytes) {
  if (bytes < 0 || bytes > kMaxBytes) out_of_memory(bytes);
  if (__builtin_expect(guard_zones, 0)) return alloc_guarded(bytes);
  const int size_class = class_of(bytes);
  Cache& c = cache;
  Buffer* b = nullptr;
  const bool testing = c.fail_countdown > 0;
  if (size_class < kFrontClasses && !testing && owns_front() && (b = front.idle[size_class])) {
    front.idle[size_class] = b->next;
    front.count[size_class]--;
    front.bytes -= bytes_of_class(size_class);
    front.hits += 1;
    note_peak();
  } else {
    bool injected = false;
    {
      Guard guard;
      if (__builtin_expect(testing, 0)) injected = fails_now();
      b = injected ? nullptr : c.idle[size_class];
      if (b) {
        const int64_t block = bytes_of_class(size_class);
        c.idle[size_class] = b->next;
        c.cached -= block;
        c.out += block;
        note_peak();
        c.allocations++;
        c.hits++;
      }
    }
    if (__builtin_expect(injected, 0)) out_of_memory(bytes);
    if (!b) b = ask_system(bytes_of_class(size_class), bytes, [=](uint32_t colour) { return system_alloc(size_class, colour); });
  }
  b->bytes = bytes;
  b->references.store(1, std::memory_order_relaxed);
  b->version = b->graph_version = 0;
  if (__builtin_expect(recorders != 0, 0)) note_allocated(b);
  return b;
}

Buffer* alloc_arena(int64_t bytes) {
  if (bytes <= kSmallMax || bytes > kMaxBytes || guard_zones) return alloc_buffer(bytes);
  bool injected;
  {
    Guard guard;
    injected = fails_now();
  }
  if (injected) out_of_memory(bytes);
  const int64_t block = (bytes + kPage - 1) / kPage * kPage;
  Buffer* own = ask_system(block, bytes, [=](uint32_t colour) { return system_alloc_large(block, colour); });
  own->bytes = block;
  try {
    return wrap_buffer(own->data, bytes, Device{}, free_arena, own);
  } catch (...) {
    free_arena(own);
    throw;
  }
}

// ---- guard zones: tests see writes outside a tensor ----------------------------------------------------------------
bool guard_zones = false;
int64_t guard_violations = 0;

namespace {
constexpr int64_t kZone = 256;
constexpr unsigned char kPattern = 0xA5;

struct Guarded {
  Buffer* block;  // zone, data, zone
  int64_t bytes;
};

void check_guarded(void* context) {
  auto* g = static_cast<Guarded*>(context);
  const auto* p = static_cast<const unsigned char*>(g->block->data);
  bool broken = false;
  for (int64_t k = 0; k < kZone; k++) broken = broken || p[k] != kPattern || p[kZone + g->bytes + k] != kPattern;
  guard_violations += broken;
  release(g->block);
  delete g;
}
}  // namespace

Buffer* alloc_guarded(int64_t bytes) {
  guard_zones = false;
  auto* g = new Guarded{alloc_buffer(bytes + 2 * kZone), bytes};
  guard_zones = true;
  auto* p = static_cast<unsigned char*>(g->block->data);
  std::memset(p, kPattern, size_t(bytes + 2 * kZone));
  return wrap_buffer(p + kZone, bytes, Device{}, check_guarded, g);
}

Buffer* wrap_buffer(void* data, int64_t bytes, Device device, void (*release_fn)(void*), void* context) {
  auto* b = new Buffer;
  b->data = data;
  b->bytes = bytes;
  b->references.store(1, std::memory_order_relaxed);
  b->version = b->graph_version = 0;
  b->device = device;
  b->size_class = -1;
  b->release_fn = release_fn;
  b->context = context;
  return b;
}

void destroy_buffer(Buffer* b) {
  if (__builtin_expect(recorders != 0, 0)) note_freed(b);
  if (b->size_class < 0) {
    if (b->release_fn) b->release_fn(b->context);
    delete b;
    return;
  }
  const int k = b->size_class;
  const int64_t block = bytes_of_class(k);
  if (k < kFrontClasses && owns_front() && front.count[k] < kFrontBlocks) {
    b->next = front.idle[k];
    front.idle[k] = b;
    front.count[k]++;
    front.bytes += block;
    return;
  }
  Cache& c = cache;
  {
    Guard guard;
    c.out -= block;
    if (c.cached + block <= c.idle_max) {
      c.cached += block;
      b->next = c.idle[k];
      c.idle[k] = b;
      return;
    }
  }
  system_free(b);
}

MemoryStats memory_stats() {
  Guard guard;
  const Cache& c = cache;
  return {bytes_in_use(), c.peak, c.cached + front.bytes, c.limit, c.allocations + front.hits, c.hits + front.hits};
}

void reset_peak_memory() {
  Guard guard;
  cache.peak = bytes_in_use();
}

// Blocks in front of the shared lists stay, unless their own thread asks.
void empty_cache() {
  Buffer* chain = nullptr;
  {
    Guard guard;
    for (Buffer*& list : cache.idle) take_list(list, chain);
    cache.cached = 0;
    if (owns_front()) {
      for (int k = 0; k < kFrontClasses; k++) {
        take_list(front.idle[k], chain);
        front.count[k] = 0;
      }
      cache.out -= front.bytes;
      front.bytes = 0;
    }
  }
  free_chain(chain);
}

void set_memory_limit(int64_t bytes) {
  if (bytes < 0)
    fail(ErrorCode::Value, "memory.set_limit: got %lld; need a number of bytes, or 0 for no limit", static_cast<long long>(bytes));
  Guard guard;
  cache.limit = bytes;
}

void fail_after(int64_t n) {
  Guard guard;
  cache.fail_countdown = n > 0 ? n : 0;
}

}  // namespace fastdl
