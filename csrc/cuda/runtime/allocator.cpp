// Stream-ordered caching allocator. cudaMalloc and cudaFree wait for the device and cost up to a millisecond; a training step asks
// for the same sizes again and again. So memory is taken from CUDA in segments, cut into blocks, and kept.
//
// Each stream has a pool of its own. Kernels of one stream run in order, so a freed block may be handed out on that stream at once,
// while a kernel that uses it still runs: whoever gets it launches later. A block that other streams use, too (record_stream),
// waits for an event on each of them. Sizes are multiples of 512 bytes. Up to 1 MB they are cut from segments of 2 MB, larger ones
// from segments of the size asked for in steps of 2 MB; the smallest block that is large enough is taken, its rest stays idle if
// worth keeping, and neighbours grow together again. When memory runs out, segments with no block in use go back to CUDA and the
// allocation is tried once more. (The method of PyTorch's CUDACachingAllocator and of CuPy's memory pool.)
#include <cinttypes>
#include <cstdio>
#include <set>
#include <unordered_map>

#include "cuda/runtime/runtime.h"

namespace fastdl::cuda {
namespace {

constexpr int64_t kRound = 512, kSmallMax = int64_t(1) << 20, kSegment = int64_t(2) << 20;
constexpr int64_t kMaxBytes = int64_t(1) << 46;        // beyond any device; keeps size arithmetic far from overflow
constexpr int64_t kWorthSplitting = int64_t(1) << 20;  // of large segments: a smaller rest stays with the block

#if defined(FASTDL_EMULATE)
using emu::block_allocated, emu::block_freed, emu::kBlockGap;  // it marks the bytes beside and after the life of a block
#else
constexpr int64_t kBlockGap = 0;
void block_allocated(void*, int64_t, int64_t) {}
void block_freed(void*, int64_t) {}
#endif

int64_t round_up(int64_t bytes, int64_t to) { return (bytes + to - 1) / to * to; }

struct Block;
struct BySize {
  using is_transparent = void;
  bool operator()(const Block* a, const Block* b) const;
  bool operator()(const Block* a, int64_t bytes) const;
};
struct Pool {
  cudaStream_t stream;
  std::set<Block*, BySize> idle[2];  // blocks of small and of large segments
};

struct Block {
  Allocator* owner;
  Pool* pool;
  char* data;
  int64_t bytes;
  Block *before, *after;  // neighbours in the segment
  bool large, idle;
  std::vector<cudaStream_t> users;  // other streams that use it
};

bool BySize::operator()(const Block* a, const Block* b) const {
  return a->bytes != b->bytes ? a->bytes < b->bytes : a->data < b->data;
}
bool BySize::operator()(const Block* a, int64_t bytes) const { return a->bytes < bytes; }

struct SizeText {
  explicit SizeText(int64_t bytes) {
    constexpr const char* kUnits[] = {"B", "KB", "MB", "GB", "TB"};
    double v = double(bytes);
    int u = 0;
    for (; v >= 1024 && u < 4; u++) v /= 1024;
    snprintf(text, sizeof text, u ? "%.2f %s" : "%.0f %s", v, kUnits[u]);
  }
  char text[32];
};

}  // namespace

class Allocator {
 public:
  explicit Allocator(int32_t device) : device_(device) {}

  CudaStatus allocate(int64_t bytes, cudaStream_t stream, void** data, void** block) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (bytes < 0 || bytes > kMaxBytes) return out_of_memory(bytes);
    reclaim();
    const int64_t size = (bytes ? round_up(bytes, kRound) : kRound) + kBlockGap;
    Pool& pool = pools_.try_emplace(stream, Pool{stream, {}}).first->second;
    const bool large = size > kSmallMax;
    auto& idle = pool.idle[large];
    Block* b;
    if (auto found = idle.lower_bound(size); found != idle.end()) {
      b = *found;
      idle.erase(found);
      stats_.cached -= b->bytes;
      stats_.hits++;
    } else {
      void* p = nullptr;
      const int64_t segment = large ? round_up(size, kSegment) : kSegment;
      FD_PASS(take_segment(segment, bytes, &p));
      block_freed(p, segment);
      b = new Block{this, &pool, static_cast<char*>(p), segment, nullptr, nullptr, large, true, {}};
    }
    b->idle = false;
    if (b->bytes - size >= (large ? kWorthSplitting : kRound)) split(b, size);
    stats_.allocations++;
    stats_.in_use += b->bytes;
    if (stats_.in_use > stats_.peak) stats_.peak = stats_.in_use;
    block_allocated(b->data, bytes, b->bytes);
    *data = b->data;
    *block = b;
    return CudaStatus::Ok;
  }

  void free(Block* b) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (b->users.empty()) return put_back(b);
    // Ready when every user has come to this point of its stream. If that cannot be told (at exit), the block is never reused.
    if (make_current(device_) != CudaStatus::Ok) return;
    Waiting w{b, {}};
    for (cudaStream_t user : b->users) {
      cudaEvent_t event = new_event();
      if (event && cudaEventRecord(event, user) == cudaSuccess) {
        w.events.push_back(event);
        continue;
      }
      // The user's stream is gone, say: then wait for all work there is, once.
      cudaGetLastError();
      if (event) spare_events_.push_back(event);
      if (cudaDeviceSynchronize() != cudaSuccess) return (void)cudaGetLastError();
    }
    if (w.events.empty()) {
      b->users.clear();
      return put_back(b);
    }
    b->users.clear();
    waiting_.push_back(std::move(w));
  }

  void record_stream(Block* b, cudaStream_t stream) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stream == b->pool->stream) return;
    for (cudaStream_t user : b->users)
      if (user == stream) return;
    b->users.push_back(stream);
  }

  void stats(CudaMemoryStats* out) {
    std::lock_guard<std::mutex> lock(mutex_);
    *out = stats_;
  }
  void reset_peak() {
    std::lock_guard<std::mutex> lock(mutex_);
    stats_.peak = stats_.in_use;
  }
  CudaStatus empty_cache() {
    std::lock_guard<std::mutex> lock(mutex_);
    return give_back();
  }
  CudaStatus set_limit(int64_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    stats_.limit = bytes > 0 ? bytes : 0;
    return CudaStatus::Ok;
  }

 private:
  struct Waiting {
    Block* block;
    std::vector<cudaEvent_t> events;
  };

  void split(Block* b, int64_t size) {
    Block* rest = new Block{this, b->pool, b->data + size, b->bytes - size, b, b->after, b->large, true, {}};
    if (b->after) b->after->before = rest;
    b->after = rest;
    b->bytes = size;
    insert(rest);
  }

  void insert(Block* b) {
    b->idle = true;
    b->pool->idle[b->large].insert(b);
    stats_.cached += b->bytes;
  }
  void remove(Block* b) {
    b->pool->idle[b->large].erase(b);
    stats_.cached -= b->bytes;
  }

  void put_back(Block* b) {
    stats_.in_use -= b->bytes;
    block_freed(b->data, b->bytes);
    if (Block* n = b->after; n && n->idle) {
      remove(n);
      absorb(b, n);
    }
    if (Block* n = b->before; n && n->idle) {
      remove(n);
      absorb(n, b);
      b = n;
    }
    insert(b);
  }
  static void absorb(Block* b, Block* next) {
    b->bytes += next->bytes;
    b->after = next->after;
    if (b->after) b->after->before = b;
    delete next;
  }

  cudaEvent_t new_event() {
    cudaEvent_t event = nullptr;
    if (!spare_events_.empty()) {
      event = spare_events_.back();
      spare_events_.pop_back();
    } else if (cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess) {
      return nullptr;
    }
    return event;
  }

  // Puts back what other streams have finished with.
  void reclaim() {
    for (size_t i = 0; i < waiting_.size();) {
      Waiting& w = waiting_[i];
      while (!w.events.empty() && cudaEventQuery(w.events.back()) == cudaSuccess) {
        spare_events_.push_back(w.events.back());
        w.events.pop_back();
      }
      if (!w.events.empty()) {
        i++;
        continue;
      }
      put_back(w.block);
      waiting_[i] = std::move(waiting_.back());
      waiting_.pop_back();
    }
    if (!waiting_.empty()) cudaGetLastError();  // "not ready" is no error of a launch
  }

  // All segments without a block in use, of every stream, back to CUDA. Their last kernels may still run.
  CudaStatus give_back() {
    FD_PASS(make_current(device_));
    FD_CHECK(cudaDeviceSynchronize(), "wait for the device before memory goes back to it");
    reclaim();
    for (auto& [stream, pool] : pools_)
      for (auto& idle : pool.idle)
        for (auto it = idle.begin(); it != idle.end();) {
          Block* b = *it;
          if (b->before || b->after) {
            ++it;
            continue;
          }
          it = idle.erase(it);
          stats_.cached -= b->bytes;
          void* data = b->data;
          delete b;
          FD_CHECK(cudaFree(data), "give memory back");
        }
    return CudaStatus::Ok;
  }

  CudaStatus take_segment(int64_t segment, int64_t asked, void** data) {
    for (int attempt = 0; attempt < 2; attempt++) {
      const bool allowed = !stats_.limit || held() + segment <= stats_.limit;
      if (allowed) {
        const cudaError_t e = cudaMalloc(data, size_t(segment));
        if (e == cudaSuccess) return CudaStatus::Ok;
        if (e != cudaErrorMemoryAllocation) return failed(e, "allocate device memory");
        cudaGetLastError();
      }
      if (attempt == 0) FD_PASS(give_back());
    }
    return out_of_memory(asked);
  }

  int64_t held() const { return stats_.in_use + stats_.cached; }

  CudaStatus out_of_memory(int64_t asked) {
    size_t free_bytes = 0, total = 0;
    cudaMemGetInfo(&free_bytes, &total);
    if (asked < 0) return fail(CudaStatus::OutOfMemory, "cuda:%d: cannot allocate %" PRId64 " bytes", device_, asked);
    char limit[64] = "";
    if (stats_.limit) snprintf(limit, sizeof limit, " (limit %s)", SizeText(stats_.limit).text);
    return fail(CudaStatus::OutOfMemory,
                "cuda:%d: cannot allocate %s: tensors hold %s%s, idle blocks %s, the device has %s free of %s", device_,
                SizeText(asked).text, SizeText(stats_.in_use).text, limit, SizeText(stats_.cached).text,
                SizeText(int64_t(free_bytes)).text, SizeText(int64_t(total)).text);
  }

  const int32_t device_;
  std::mutex mutex_;
  std::unordered_map<cudaStream_t, Pool> pools_;  // nodes stay where they are: blocks point at them
  std::vector<Waiting> waiting_;
  std::vector<cudaEvent_t> spare_events_;
  CudaMemoryStats stats_ = {};
};

Allocator* new_allocator(int32_t device) { return new Allocator(device); }

CudaStatus allocate(Allocator& a, int64_t bytes, cudaStream_t stream, void** data, void** block) {
  return a.allocate(bytes, stream, data, block);
}
void free_block(void* block) {
  Block* b = static_cast<Block*>(block);
  b->owner->free(b);
}
CudaStatus record_stream(void* block, cudaStream_t stream) {
  Block* b = static_cast<Block*>(block);
  b->owner->record_stream(b, stream);
  return CudaStatus::Ok;
}
void memory_stats(Allocator& a, CudaMemoryStats* out) { a.stats(out); }
void reset_peak(Allocator& a) { a.reset_peak(); }
CudaStatus empty_cache(Allocator& a) { return a.empty_cache(); }
CudaStatus set_limit(Allocator& a, int64_t bytes) { return a.set_limit(bytes); }

}  // namespace fastdl::cuda
