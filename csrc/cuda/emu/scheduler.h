// One block at a time: its threads as fibers, who may run, who waits for what.
//
// A fiber runs threads one after another as long as they finish without waiting, so that a kernel without barriers costs no switch;
// a thread that must wait keeps its fiber, and the next one goes on on another. There is no scheduler in between: the waiting
// thread picks its successor itself. A thread waits at a barrier (0: of the block, 1 to 15: named), in a warp operation (until all
// lanes of its mask are there; the last one computes for all), or for a predicate (asynchronous units). Nothing left to pick while
// threads wait: a deadlock, reported with all places.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "cuda/emu/emulator.h"
#include "cuda/emu/fiber.h"

namespace fastdl {
namespace emu {

constexpr int kMaxThreads = 1024, kMaxWarps = 32, kMaxBarriers = 16;
constexpr size_t kSharedOptIn = 232448;

enum class Wait : uint8_t { None, Barrier, WarpOperation, Predicate };

// A copy to shared memory under way (cp.async).
struct Copy {
  void* to;
  const void* from;
  int32_t bytes, width, group;
  Site site;
};

struct Thread {
  Fiber* fiber;
  Wait wait;
  int barrier;            // Wait::Barrier
  uint32_t mask;          // Wait::WarpOperation
  const char* operation;  // name for reports; equal pointers: the same operation
  void* data;             // what the lane gives and gets
  bool (*predicate)(void*);
  Site site;
  bool fenced;     // has called fence_device()
  int32_t groups;  // committed groups of asynchronous copies
  std::vector<Copy> copies;
};

struct Warp {
  uint32_t ready;    // may run, or not yet started
  uint32_t live;     // have not returned
  uint32_t waiting;  // in a warp operation
};

struct Barrier {
  int arrived, expected;
  Site site;
  uint32_t lanes[kMaxWarps];
};

struct Block {
  const Launch* launch;
  int threads, warps, live;
  int current;  // thread
  uint32_t ready_warps;
  uint64_t index;  // of the block in the grid
  Barrier barriers[kMaxBarriers];
  Warp warp[kMaxWarps];
  Thread thread[kMaxThreads];
  bool running = false;  // a fiber is: code of the kernel may be executing
  bool failed;
  std::string kernel, error;

  Thread& self() { return thread[current]; }
  int lane() const { return current % kWarp; }
};
extern Block block;

// The current thread waits: set its wait first. Returns when somebody has made it ready.
void wait();
void make_ready(int warp, uint32_t lanes);
// Called by each lane of mask; the last one runs complete(data of the lanes, which of them take part).
void warp_operation(const char* operation, uint32_t mask, void* data, void (*complete)(void* const*, uint32_t), Site site);

// Ends the launch: from a thread of a kernel this does not return.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string where();  // "thread (1, 0, 0) of block (0, 0, 0)"
std::string place(Site site);

// How threads are ordered and asynchronous copies done, from FASTDL_EMU_SCHEDULE and FASTDL_EMU_ASYNC, read at every launch.
struct Options {
  enum Schedule { Index, Reverse, Random } schedule = Index;
  bool deferred = false;
  uint64_t seed = 0;
};
extern Options options;

}  // namespace emu
}  // namespace fastdl
