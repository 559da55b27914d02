// The thread pool. One job at a time: a second caller (another Python thread, or a call nested in a chunk) finds the pool taken and
// runs its chunks itself, so nothing can wait in a circle.
//
// A job is `body(ctx, chunk)` for `total` chunks; body and ctx live on the caller's stack or are reached through it. The caller
// must therefore not return while anybody may still touch them, yet it must not wait for workers that have not begun: a worker may
// be asleep, or without a core for milliseconds. Both hold by this order of steps:
//   - `unclaimed` counts the chunks nobody has taken. Who wants one decrements it, by compare-and-swap, never below zero.
//   - Only after a successful claim does a worker read body, ctx and total, which lie in the pool, not on the stack.
//   - The caller returns when `done` == total, that is, when every claimed chunk has been finished.
// So a late worker of an old job either finds zero and touches nothing, or claims a chunk of the present job, which cannot end, nor
// its description change, before that worker has counted the chunk as done. It makes no difference when the worker woke, or for
// which job.
//
// A worker that loses its core to another program in the middle of a chunk keeps the caller waiting for a time slice, some
// milliseconds, which may be ten whole steps of a small network. When that has happened the caller works alone for a while (Rest).
#include "threads.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "error.h"
#include "parallel.h"

namespace fastdl {
namespace {

using Clock = std::chrono::steady_clock;

inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Waits for ready() without giving up the core, for some 30 us: longer than the gap between two kernels of a step, shorter than
// anybody minds. Returns whether ready() came true.
template <class F>
bool spin_until(F&& ready) {
  const auto end = Clock::now() + std::chrono::microseconds(30);
  do {
    for (int i = 0; i < 32; i++) {
      if (ready()) return true;
      pause_cpu();
    }
  } while (Clock::now() < end);
  return false;
}

// For how long to work alone. A wait much longer than a chunk takes is a stall; each stall doubles the rest, and a time without
// stalls as long as the last rest begins anew. Beside one busy program this costs some per cent; on a quiet machine, two clock
// readings per job.
class Rest {
 public:
  bool now() {
    if (!resting_) return false;
    resting_ = Clock::now() < until_;
    return resting_;
  }
  // A job began, this thread ran `chunks` of it until `mine`, and all others were done at `end`.
  void note(Clock::time_point begin, int64_t chunks, Clock::time_point mine, Clock::time_point end) {
    const auto longest = std::chrono::microseconds(500) + 4 * (mine - begin) / (chunks ? chunks : 1);
    if (!chunks || end - mine < longest) return;
    length_ = mine - until_ > length_ ? kFirst : length_ < kLongest ? 2 * length_ : kLongest;
    until_ = end + length_;
    resting_ = true;
  }

 private:
  static constexpr Clock::duration kFirst = std::chrono::milliseconds(4), kLongest = std::chrono::milliseconds(64);
  bool resting_ = false;
  Clock::duration length_ = kFirst;
  Clock::time_point until_{};
};

class Pool {
 public:
  explicit Pool(int threads, bool spin) : spin_(spin) {
    sigset_t all, before;  // signals are for the threads of the user
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      for (int i = 1; i < threads; i++) workers_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {  // the system gives no more threads: go on with those we have
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_.store(true);
    }
    wake_workers_.notify_all();
    for (std::thread& t : workers_) t.join();
  }

  // Whether the caller had better run all chunks itself.
  bool resting() { return rest_.now(); }

  void run(int64_t total, void (*body)(void*, int64_t), void* ctx) {
    const Clock::time_point begin = Clock::now();
    body_ = body;
    ctx_ = ctx;
    total_ = total;
    done_.store(0, std::memory_order_relaxed);
    unclaimed_.store(total);  // publishes the job; seq_cst, see sleep()
    if (const int sleeping = sleeping_.load(); sleeping > 0) {
      { std::lock_guard<std::mutex> lock(mutex_); }  // a worker between its last look and its wait holds the mutex
      if (total - 1 >= sleeping)
        wake_workers_.notify_all();
      else
        for (int64_t i = 1; i < total; i++) wake_workers_.notify_one();
    }
    int64_t mine = 0;
    while (run_one()) mine++;
    const auto finished = [&] { return done_.load(std::memory_order_acquire) == total; };
    if (finished()) return;
    const Clock::time_point waiting = Clock::now();
    if (spin_ && spin_until(finished)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    caller_waits_.store(true);
    wake_caller_.wait(lock, [&] { return done_.load() == total; });
    caller_waits_.store(false);
    rest_.note(begin, mine, waiting, Clock::now());
  }

 private:
  // Claims and runs one chunk; false if there is none left.
  bool run_one() {
    int64_t left = unclaimed_.load(std::memory_order_relaxed);
    do {
      if (left <= 0) return false;
    } while (!unclaimed_.compare_exchange_weak(left, left - 1, std::memory_order_acquire, std::memory_order_relaxed));
    const int64_t total = total_;
    body_(ctx_, total - left);
    // From here on the caller may return and the next job be written, unless this was not the last chunk.
    if (done_.fetch_add(1) + 1 == total && caller_waits_.load()) {
      { std::lock_guard<std::mutex> lock(mutex_); }
      wake_caller_.notify_one();
    }
    return true;
  }

  void work() {
    const auto ready = [&] { return unclaimed_.load(std::memory_order_relaxed) > 0 || stop_.load(std::memory_order_relaxed); };
    while (!stop_.load(std::memory_order_relaxed)) {
      while (run_one()) {}
      if (!spin_ || !spin_until(ready)) sleep();
    }
  }

  void sleep() {
    std::unique_lock<std::mutex> lock(mutex_);
    // Either we see the new job here, or its caller sees us counted: both sides write first and then read, in one total order.
    sleeping_.fetch_add(1);
    wake_workers_.wait(lock, [&] { return unclaimed_.load() > 0 || stop_.load(); });
    sleeping_.fetch_sub(1);
  }

  const bool spin_;
  Rest rest_;  // the caller's
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_workers_, wake_caller_;
  std::atomic<bool> stop_{false}, caller_waits_{false};
  std::atomic<int> sleeping_{0};

  void (*body_)(void*, int64_t) = nullptr;
  void* ctx_ = nullptr;
  int64_t total_ = 0;
  alignas(64) std::atomic<int64_t> unclaimed_{0};
  alignas(64) std::atomic<int64_t> done_{0};
};

// ---- default thread count --------------------------------------------------------------------------------------------

int affinity_count() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n ? int(n) : 1;
}

// Cores that a cgroup directory allows: quota / period, rounded up; 0: no limit. v2 has one file, v1 two.
int quota_in(const std::string& dir) {
  double quota = -1, period = 0;
  if (FILE* f = fopen((dir + "/cpu.max").c_str(), "r")) {
    if (fscanf(f, "%lf %lf", &quota, &period) != 2) quota = -1;  // "max 100000"
    fclose(f);
  } else {
    const auto number = [&](const char* name) {
      double v = -1;
      if (FILE* file = fopen((dir + name).c_str(), "r")) {
        if (fscanf(file, "%lf", &v) != 1) v = -1;
        fclose(file);
      }
      return v;
    };
    quota = number("/cpu.cfs_quota_us");
    period = number("/cpu.cfs_period_us");
  }
  if (!(quota > 0 && period > 0)) return 0;
  const double cores = quota / period;
  return cores >= kMaxThreads ? 0 : int(cores) + (cores > int(cores) ? 1 : 0);
}

// The tightest quota from this process's cgroup up to the root.
int cgroup_count() {
  int best = 0;
#if defined(__linux__)
  const auto climb = [&](const std::string& root, std::string path) {
    for (;;) {
      if (const int n = quota_in(root + path); n > 0 && (best == 0 || n < best)) best = n;
      const size_t slash = path.rfind('/');
      if (path.empty() || slash == std::string::npos) break;
      path.resize(slash);
    }
  };
  FILE* f = fopen("/proc/self/cgroup", "r");
  char line[4096];
  while (f && fgets(line, sizeof line, f)) {  // "0::/path" (v2), "4:cpu,cpuacct:/path" (v1)
    char* controllers = strchr(line, ':');
    char* path = controllers ? strchr(controllers + 1, ':') : nullptr;
    if (!path) continue;
    *controllers++ = *path++ = '\0';
    path[strcspn(path, "\n")] = '\0';
    if (!*controllers)
      climb("/sys/fs/cgroup", path);
    else if (strstr(controllers, "cpu") && !strstr(controllers, "cpuset"))
      climb("/sys/fs/cgroup/cpu", path);
  }
  if (f) fclose(f);
#endif
  return best;
}

struct Settings {
  std::atomic<int> threads;
  int cores;  // that this process may use at a time
  std::string warning;

  Settings() {
    cores = affinity_count();
    if (const int quota = cgroup_count(); quota > 0 && quota < cores) cores = quota;
    if (cores > kMaxThreads) cores = kMaxThreads;
    int n = from_environment("FASTDL_NUM_THREADS");
    if (n == 0) n = from_environment("OMP_NUM_THREADS");
    threads = n ? n : cores;
  }

  int from_environment(const char* name) {  // 0: not set, or not usable
    const char* text = getenv(name);
    if (!text || !*text) return 0;
    char* end;
    const long n = strtol(text, &end, 10);
    if (end != text && (*end == '\0' || *end == ',') && n >= 1 && n <= kMaxThreads) return int(n);  // OpenMP allows a list "4,2"
    warning += (warning.empty() ? "" : "; ") + std::string(name) + "='" + text + "' ignored: need a whole number from 1 to " +
               std::to_string(kMaxThreads);
    return 0;
  }
};

Settings& settings() {
  static Settings* s = new Settings;
  return *s;
}

// ---- the one pool ----------------------------------------------------------------------------------------------------
// Never destroyed at exit: its threads end with the process, and must find their pool until then.
Pool* pool = nullptr;  // guarded by taken
std::atomic<bool> taken{false};

// The child of a fork has no workers, and perhaps the lock of a caller that is not there: it starts anew and leaks the copy.
void after_fork_in_child() {
  pool = nullptr;
  taken.store(false);
}
[[maybe_unused]] const int kForkHandler = pthread_atfork(nullptr, nullptr, after_fork_in_child);

// ---- records of chunks -------------------------------------------------------------------------------------------------
constexpr size_t kMostRecords = 1 << 16;  // calls; later ones are not kept
std::mutex records_lock;
std::vector<ChunkRecord> records;
thread_local bool recording = false;  // whether this thread asked for records; other threads go on as ever
thread_local int depth = 0;           // of chunks within chunks
thread_local int64_t chunk_work, chunk_least;

void run_recorded(int64_t chunks, void (*body)(void*, int64_t), void* ctx) {
  ChunkRecord record = {0, {}};
  bool whole = true;  // kernels cannot unwind: without memory a record is left out
  depth++;
  for (int64_t i = 0; i < chunks; i++) {
    if (depth == 1) chunk_work = 1, chunk_least = 0;
    body(ctx, i);
    if (depth > 1) continue;
    record.least = chunk_least;
    try {
      record.work.push_back(chunk_work);
    } catch (const std::bad_alloc&) { whole = false; }
  }
  if (--depth > 0 || !whole) return;
  const std::lock_guard<std::mutex> guard(records_lock);
  try {
    if (records.size() < kMostRecords) records.push_back(std::move(record));
  } catch (const std::bad_alloc&) {}
}

}  // namespace

bool chunks_recorded = false;

void note_piece(int64_t work, int64_t least) {
  if (depth == 1) chunk_work = work, chunk_least = least;
}

std::vector<ChunkRecord> record_chunks(bool on) {
  const std::lock_guard<std::mutex> guard(records_lock);
  recording = on;
  __atomic_store_n(&chunks_recorded, on, __ATOMIC_RELAXED);
  return std::exchange(records, {});
}

int num_threads() { return settings().threads.load(std::memory_order_relaxed); }

const std::string& threads_warning() { return settings().warning; }

void set_num_threads(int n) {
  if (n < 1 || n > kMaxThreads) fail(ErrorCode::Value, "set_num_threads: got %d; need 1 to %d", n, kMaxThreads);
  if (n == num_threads()) return;
  while (taken.exchange(true, std::memory_order_acquire)) sched_yield();
  delete pool;  // idle, as we hold it; the next job makes the new one
  pool = nullptr;
  settings().threads.store(n);
  taken.store(false, std::memory_order_release);
}

void parallel_chunks(int64_t chunks, void (*body)(void*, int64_t), void* ctx) {
  if (recording && __atomic_load_n(&chunks_recorded, __ATOMIC_RELAXED)) return run_recorded(chunks, body, ctx);
  const int threads = num_threads();
  if (chunks <= 1 || threads <= 1 || taken.load(std::memory_order_relaxed) || taken.exchange(true, std::memory_order_acquire)) {
    for (int64_t i = 0; i < chunks; i++) body(ctx, i);
    return;
  }
  if (!pool) pool = new Pool(threads, threads <= settings().cores);
  if (pool->resting())
    for (int64_t i = 0; i < chunks; i++) body(ctx, i);
  else
    pool->run(chunks, body, ctx);
  taken.store(false, std::memory_order_release);
}

static std::atomic<bool> scratch_withheld{false};

bool withhold_scratch(bool on) { return scratch_withheld.exchange(on); }

void* thread_scratch(int64_t bytes) {
  if (scratch_withheld.load(std::memory_order_relaxed)) return nullptr;
  struct Block {
    void* data = nullptr;
    int64_t bytes = 0;
    ~Block() { std::free(data); }
  };
  static thread_local Block block;
  if (bytes > block.bytes) {
    std::free(block.data);
    block.data = std::aligned_alloc(64, size_t(bytes + 63) / 64 * 64);
    block.bytes = block.data ? bytes : 0;
  }
  return block.data;
}

}  // namespace fastdl
