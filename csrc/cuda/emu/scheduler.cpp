#include "cuda/emu/scheduler.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "cuda/emu/memory.h"
#include "cuda/emu/report.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace fastdl {
namespace emu {

Block block;
Options options;
unsigned char* shared_pool;
size_t shared_bytes;

namespace {

std::mutex launch_mutex;  // one launch at a time: the block and the built-in variables are global
Fiber main_fiber;
std::vector<Fiber*> all_fibers, free_fibers;
uint3 thread_index[kMaxThreads];  // of the current launch

uint64_t random_state;
uint32_t random_below(uint32_t n) {  // splitmix64 (Steele et al. 2014)
  uint64_t z = random_state += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return uint32_t(((z ^ (z >> 31)) >> 32) * n >> 32);
}

void read_options() {
  options = Options();
  if (const char* s = std::getenv("FASTDL_EMU_SCHEDULE")) {
    const std::string name = s;
    if (name == "reverse") options.schedule = Options::Reverse;
    if (name.compare(0, 6, "random") == 0) {
      options.schedule = Options::Random;
      if (name.size() > 7) options.seed = std::strtoull(s + 7, nullptr, 10);
    }
  }
  if (const char* s = std::getenv("FASTDL_EMU_ASYNC")) options.deferred = std::string(s) == "deferred";
}

// ---- who runs --------------------------------------------------------------------------------------------------------------
// Random: a random warp runs each of its ready lanes once, from a random first lane on; then another warp.
uint32_t pass;  // lanes of the current warp still to run in this pass
int first_lane;

int lowest(uint32_t bits) { return __builtin_ctz(bits); }
int highest(uint32_t bits) { return 31 - __builtin_clz(bits); }
int nth_bit(uint32_t bits, int n) {
  while (n--) bits &= bits - 1;
  return lowest(bits);
}

// The next thread that may run, taken from the ready ones, or -1. The order is index or reverse within a warp, and a warp runs as
// far as it can.
int pick() {
  if (!block.ready_warps) return -1;
  int w = block.current / kWarp, lane;
  uint32_t ready = block.warp[w].ready;
  if (options.schedule == Options::Random) {
    ready &= pass;
    if (!ready) {
      w = nth_bit(block.ready_warps, int(random_below(uint32_t(__builtin_popcount(block.ready_warps)))));
      pass = ready = block.warp[w].ready;
      first_lane = int(random_below(kWarp));
    }
    const uint32_t rest = ready >> first_lane << first_lane;
    lane = lowest(rest ? rest : ready);
    pass &= ~(1u << lane);
  } else if (options.schedule == Options::Index) {
    if (!ready) {
      const uint32_t rest = w == kMaxWarps - 1 ? 0 : block.ready_warps >> (w + 1) << (w + 1);
      w = lowest(rest ? rest : block.ready_warps);
      ready = block.warp[w].ready;
    }
    lane = lowest(ready);
  } else {
    if (!ready) {
      const uint32_t rest = block.ready_warps & ((1u << w) - 1);
      w = highest(rest ? rest : block.ready_warps);
      ready = block.warp[w].ready;
    }
    lane = highest(ready);
  }
  Warp& warp = block.warp[w];
  warp.ready &= ~(1u << lane);
  if (!warp.ready) block.ready_warps &= ~(1u << w);
  return w * kWarp + lane;
}

bool start_predicates() {  // makes ready who waits for a predicate that holds
  bool any = false;
  for (int t = 0; t < block.threads; t++) {
    Thread& thread = block.thread[t];
    if (thread.wait != Wait::Predicate || !thread.predicate(thread.data)) continue;
    thread.wait = Wait::None;
    make_ready(t / kWarp, 1u << (t % kWarp));
    any = true;
  }
  return any;
}

int next_thread() {
  int t = pick();
  while (t < 0 && start_predicates()) t = pick();
  return t;
}

void set_current(int t) {
  block.current = t;
  threadIdx = thread_index[t];
}

// ---- what every fiber does ---------------------------------------------------------------------------------------------------
void release_barrier(Barrier& barrier) {
  if (&barrier == block.barriers)
    checker_block_barrier();
  else
    checker_named_barrier(barrier.lanes);
  for (int w = 0; w < block.warps; w++) {
    if (!barrier.lanes[w]) continue;
    for (uint32_t lanes = barrier.lanes[w]; lanes; lanes &= lanes - 1) block.thread[w * kWarp + lowest(lanes)].wait = Wait::None;
    make_ready(w, barrier.lanes[w]);
    barrier.lanes[w] = 0;
  }
  barrier.arrived = 0;
}

struct Completion {
  void (*complete)(void* const*, uint32_t);
  void* data;
};

// If all lanes of this lane's mask (those that have not returned) wait in its operation: does it and frees them.
bool try_warp_operation(int w, int lane) {
  Warp& warp = block.warp[w];
  const Thread& first = block.thread[w * kWarp + lane];
  const uint32_t part = first.mask & warp.live;
  if (part & ~warp.waiting) return false;
  void* data[kWarp] = {};
  void (*complete)(void* const*, uint32_t) = nullptr;
  for (uint32_t lanes = part; lanes; lanes &= lanes - 1) {
    const int l = lowest(lanes);
    const Thread& t = block.thread[w * kWarp + l];
    if (t.mask != first.mask || t.operation != first.operation) return false;
    if (t.site.line != first.site.line)
      fail("lanes %d and %d are in %s of the same mask at different places: %s and %s", lane, l, t.operation,
           place(first.site).c_str(), place(t.site).c_str());
    const auto* c = static_cast<const Completion*>(t.data);
    data[l] = c->data;
    complete = c->complete;
  }
  complete(data, part);
  warp.waiting &= ~part;
  for (uint32_t lanes = part; lanes; lanes &= lanes - 1) block.thread[w * kWarp + lowest(lanes)].wait = Wait::None;
  make_ready(w, part);
  return true;
}

// The current thread has returned: who waits for all live threads may go on.
void finish_thread() {
  const int w = block.current / kWarp;
  Warp& warp = block.warp[w];
  warp.live &= ~(1u << block.lane());
  block.live--;
  if (block.barriers[0].arrived && block.barriers[0].arrived == block.live) release_barrier(block.barriers[0]);
  for (uint32_t lanes = warp.waiting; lanes; lanes &= lanes - 1)
    if (block.warp[w].waiting >> lowest(lanes) & 1) try_warp_operation(w, lowest(lanes));
}

void run_thread() {
  Thread& t = block.self();
  t.wait = Wait::None;
  t.fenced = false;
  t.groups = 0;
  t.copies.clear();
  block.launch->call(*block.launch);
}

void fiber_main() {
  enter_fiber(&main_fiber);
  for (;;) {
    run_thread();
    Fiber* self = block.self().fiber;
    finish_thread();
    block.self().fiber = nullptr;
    const int next = next_thread();
    if (next >= 0 && !block.thread[next].fiber) {
      block.thread[next].fiber = self;
      set_current(next);
      continue;
    }
    free_fibers.push_back(self);
    if (next >= 0) set_current(next);
    switch_fiber(self, next >= 0 ? block.thread[next].fiber : &main_fiber);
  }
}

Fiber* take_fiber() {
  if (free_fibers.empty()) {
    all_fibers.push_back(create_fiber());
    reset_fiber(all_fibers.back(), int(all_fibers.size()), fiber_main);
    return all_fibers.back();
  }
  Fiber* fiber = free_fibers.back();
  free_fibers.pop_back();
  return fiber;
}

// After a failed launch: every fiber back to its start, whatever it was in.
void discard_fibers() {
  free_fibers = all_fibers;
  for (size_t i = 0; i < all_fibers.size(); i++) reset_fiber(all_fibers[i], int(i), fiber_main);
  for (Thread& t : block.thread) t.fiber = nullptr;
}

void start_from_main() {
  const int first = next_thread();
  Thread& t = block.thread[first];
  if (!t.fiber) t.fiber = take_fiber();
  set_current(first);
  block.running = true;
  switch_fiber(&main_fiber, t.fiber);
  block.running = false;
}

// ---- reports -----------------------------------------------------------------------------------------------------------------
std::string thread_ranges(const std::vector<int>& threads) {
  std::string s;
  for (size_t i = 0, ranges = 0; i < threads.size(); ranges++) {
    if (ranges == 10) return s + " ... " + std::to_string(threads.back()) + " (" + std::to_string(threads.size()) + ")";
    size_t j = i;
    while (j + 1 < threads.size() && threads[j + 1] == threads[j] + 1) j++;
    s += (s.empty() ? "" : ", ") + std::to_string(threads[i]) + (j > i ? "-" + std::to_string(threads[j]) : "");
    i = j + 1;
  }
  return s;
}

std::string wait_text(const Thread& t) {
  char text[160];
  if (t.wait == Wait::Barrier && t.barrier == 0)
    std::snprintf(text, sizeof text, "sync_block, %d of %d threads there", block.barriers[0].arrived, block.live);
  else if (t.wait == Wait::Barrier)
    std::snprintf(text, sizeof text, "sync_named(%d), %d of %d threads there", t.barrier, block.barriers[t.barrier].arrived,
                  block.barriers[t.barrier].expected);
  else if (t.wait == Wait::WarpOperation)
    std::snprintf(text, sizeof text, "%s of lanes %#x", t.operation, t.mask);
  else
    std::snprintf(text, sizeof text, "%s", t.operation);
  return text;
}

std::string deadlock_text() {
  struct Group {
    std::string text;
    std::vector<int> threads;
  };
  std::vector<Group> groups;
  for (int t = 0; t < block.threads; t++) {
    if (block.thread[t].wait == Wait::None) continue;
    const std::string text = wait_text(block.thread[t]) + ", at " + place(block.thread[t].site);
    size_t g = 0;
    while (g < groups.size() && groups[g].text != text) g++;
    if (g == groups.size()) groups.push_back({text, {}});
    groups[g].threads.push_back(t);
  }
  char head[96];
  std::snprintf(head, sizeof head, "deadlock in block (%u, %u, %u):", blockIdx.x, blockIdx.y, blockIdx.z);
  std::string s = head;
  for (const Group& g : groups) s += "\n  threads " + thread_ranges(g.threads) + " wait in " + g.text;
  if (block.live < block.threads) s += "\n  " + std::to_string(block.threads - block.live) + " threads have returned";
  return s;
}

// ---- a launch ------------------------------------------------------------------------------------------------------------------
// Dynamic shared memory: one mapping; bytes behind the declared size hold a pattern that must survive.
constexpr unsigned char kNaNByte = 0xff, kGuardByte = 0xa5;
constexpr size_t kGuardBytes = 256;

void prepare_block(const Launch& launch) {
  const int full = block.threads / kWarp, rest = block.threads % kWarp;
  for (int w = 0; w < block.warps; w++) {
    const uint32_t lanes = w < full ? kFullMask : (1u << rest) - 1;
    block.warp[w] = {lanes, lanes, 0};
  }
  block.ready_warps = block.warps == kMaxWarps ? kFullMask : (1u << block.warps) - 1;
  block.live = block.threads;
  block.current = options.schedule == Options::Reverse ? block.threads - 1 : 0;
  pass = 0;
  if (launch.shared) std::memset(shared_pool, kNaNByte, launch.shared);
  checker_begin_block();
}

void run_block(const Launch& launch) {
  prepare_block(launch);
  start_from_main();
  checker_end_block();
  if (!block.failed && block.live) {
    block.failed = true;
    block.error = deadlock_text();
  }
#if !defined(FD_EMU_ASAN)
  for (size_t i = 0; i < kGuardBytes && !block.failed; i++) {
    if (shared_pool[launch.shared + i] == kGuardByte) continue;
    block.failed = true;
    block.error = "block " + std::to_string(block.index) + " wrote " + std::to_string(i) + " bytes behind its " +
                  std::to_string(launch.shared) + " bytes of shared memory";
  }
#endif
}

uint64_t greatest_common_divisor(uint64_t a, uint64_t b) { return b ? greatest_common_divisor(b, a % b) : a; }

const char* configuration_error(const Launch& l) {
  if (!l.grid.x || !l.grid.y || !l.grid.z) return "the grid is empty";
  if (!l.block.x || !l.block.y || !l.block.z) return "the block is empty";
  if (l.grid.x > 0x7fffffffu || l.grid.y > 65535 || l.grid.z > 65535) return "the grid exceeds (2^31 - 1, 65535, 65535)";
  if (l.block.x > 1024 || l.block.y > 1024 || l.block.z > 64) return "the block exceeds (1024, 1024, 64)";
  if (uint64_t(l.block.x) * l.block.y * l.block.z > kMaxThreads) return "the block exceeds 1024 threads";
  if (l.shared > kSharedOptIn) return "shared memory exceeds 232448 bytes";
  return nullptr;
}

std::string kernel_name(const Launch& l) {  // as written in FD_LAUNCH, where a template stands in parentheses
  const std::string s = l.name;
  return s.size() > 1 && s.front() == '(' && s.back() == ')' ? s.substr(1, s.size() - 2) : s;
}

void allocate_shared_pool() {
  if (shared_pool) return;
  shared_pool = static_cast<unsigned char*>(aligned_pool(kSharedOptIn + 4096));
}

}  // namespace

void make_ready(int w, uint32_t lanes) {
  block.warp[w].ready |= lanes;
  block.ready_warps |= 1u << w;
}

void wait() {
  const int me = block.current;
  const int next = next_thread();
  if (next == me) return;
  Fiber* self = block.thread[me].fiber;
  Fiber* to = &main_fiber;
  if (next >= 0) {
    Thread& t = block.thread[next];
    if (!t.fiber) t.fiber = take_fiber();
    to = t.fiber;
    set_current(next);
  }
  switch_fiber(self, to);
}

void sync_block(Site site) {
  Barrier& barrier = block.barriers[0];
  if (barrier.arrived && barrier.site.line != site.line)
    fail("%s reaches sync_block at %s while %d threads of the block wait in another one, at %s", where().c_str(),
         place(site).c_str(), barrier.arrived, place(barrier.site).c_str());
  Thread& t = block.self();
  t.wait = Wait::Barrier;
  t.barrier = 0;
  t.site = barrier.site = site;
  barrier.lanes[block.current / kWarp] |= 1u << block.lane();
  if (++barrier.arrived == block.live) release_barrier(barrier);
  wait();
}

void fence() { block.self().fenced = true; }

void sync_named(int id, int threads, Site site) {
  if (id < 1 || id >= kMaxBarriers || threads % kWarp || threads <= 0 || threads > block.warps * kWarp)
    fail("sync_named(%d, %d) at %s: the barrier is 1 to 15, the number of threads a multiple of 32 up to those of the block", id,
         threads, place(site).c_str());
  Barrier& barrier = block.barriers[id];
  if (barrier.arrived && barrier.expected != threads)
    fail("%s reaches sync_named(%d, %d) at %s, where others wait for %d threads, at %s", where().c_str(), id, threads,
         place(site).c_str(), barrier.expected, place(barrier.site).c_str());
  Thread& t = block.self();
  t.wait = Wait::Barrier;
  t.barrier = id;
  t.site = barrier.site = site;
  barrier.expected = threads;
  barrier.lanes[block.current / kWarp] |= 1u << block.lane();
  if (++barrier.arrived == threads) release_barrier(barrier);
  wait();
}

void warp_operation(const char* operation, uint32_t mask, void* data, void (*complete)(void* const*, uint32_t), Site site) {
  const int w = block.current / kWarp, lane = block.lane();
  if (!(mask >> lane & 1))
    fail("%s is lane %d, which the mask %#x of its %s at %s does not have", where().c_str(), lane, mask, operation,
         place(site).c_str());
  Completion completion = {complete, data};
  Thread& t = block.self();
  t.wait = Wait::WarpOperation;
  t.mask = mask;
  t.operation = operation;
  t.data = &completion;
  t.site = site;
  block.warp[w].waiting |= 1u << lane;
  if (try_warp_operation(w, lane) && options.schedule != Options::Random) {
    Warp& warp = block.warp[w];  // the last lane goes on at once
    warp.ready &= ~(1u << lane);
    if (!warp.ready) block.ready_warps &= ~(1u << w);
    return;
  }
  wait();
}

std::string place(Site site) {
  const char* file = site.file;
  if (const char* tail = std::strstr(file, "csrc/")) file = tail;
  return std::string(file) + ":" + std::to_string(site.line);
}

std::string where() {
  char text[128];
  std::snprintf(text, sizeof text, "thread (%u, %u, %u) of block (%u, %u, %u)", threadIdx.x, threadIdx.y, threadIdx.z, blockIdx.x,
                blockIdx.y, blockIdx.z);
  return text;
}

void fail(const char* format, ...) {
  char text[1024];
  va_list list;
  va_start(list, format);
  std::vsnprintf(text, sizeof text, format, list);
  va_end(list);
  block.failed = true;
  block.error = text;
  switch_fiber(block.self().fiber, &main_fiber);
  std::abort();  // not resumed
}

void fail_storage(size_t wanted) {
  fail("the kernel's Storage has %zu bytes, the launch declares %zu of shared memory", wanted, shared_bytes);
}

void run(const Launch& launch) {
  std::lock_guard<std::mutex> lock(launch_mutex);
  block.kernel = kernel_name(launch);
  if (const char* reason = configuration_error(launch)) {
    set_error(cudaErrorInvalidConfiguration, "kernel " + block.kernel + ": invalid launch configuration: " + reason);
    return;
  }
  read_options();
  allocate_shared_pool();
  block.launch = &launch;
  block.threads = int(launch.block.x * launch.block.y * launch.block.z);
  block.warps = (block.threads + kWarp - 1) / kWarp;
  block.failed = false;
  block.error.clear();
  std::memset(block.barriers, 0, sizeof block.barriers);
  int t = 0;
  for (unsigned z = 0; z < launch.block.z; z++)
    for (unsigned y = 0; y < launch.block.y; y++)
      for (unsigned x = 0; x < launch.block.x; x++) thread_index[t++] = {x, y, z};
  gridDim = launch.grid;
  blockDim = launch.block;
  shared_bytes = launch.shared;
  unpoison(shared_pool, kSharedOptIn + kGuardBytes);
  std::memset(shared_pool + launch.shared, kGuardByte, kGuardBytes);
  poison(shared_pool + launch.shared, kSharedOptIn + kGuardBytes - launch.shared);
  main_fiber = Fiber();
  checker_begin_launch();

  // Blocks in index order, reversed, or in a random arithmetic progression.
  const uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  uint64_t at = 0, step = 1;
  if (options.schedule == Options::Reverse) at = blocks - 1, step = blocks - 1;
  if (options.schedule == Options::Random) {
    random_state = options.seed;
    at = random_below(uint32_t(blocks));
    do step = blocks < 3 ? 1 : 1 + random_below(uint32_t(blocks - 1));
    while (greatest_common_divisor(step, blocks) != 1);
  }
  for (uint64_t k = 0; k < blocks && !block.failed; k++, at = (at + step) % blocks) {
    blockIdx = {unsigned(at % launch.grid.x), unsigned(at / launch.grid.x % launch.grid.y),
                unsigned(at / launch.grid.x / launch.grid.y)};
    block.index = at;
    run_block(launch);
  }
  if (block.failed) discard_fibers();
  const std::string faults = checker_end_launch();
  if (block.failed || !faults.empty()) set_error(cudaErrorLaunchFailure, "kernel " + block.kernel + ": " + block.error + faults);
}

}  // namespace emu
}  // namespace fastdl
