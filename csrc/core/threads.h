// Settings of the thread pool behind parallel.h.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace fastdl {

constexpr int kMaxThreads = 1024;

// How many threads work on one call, the caller included. Default: FASTDL_NUM_THREADS, else OMP_NUM_THREADS, else what the affinity
// mask and the cgroup quota leave to this process. Throws Value unless 1 <= n <= kMaxThreads.
void set_num_threads(int n);

// What parallel.h records: of every call that is not part of a chunk itself, the work of its chunks in the order in which they are
// claimed, and the least of them that it says it would cut.
struct ChunkRecord {
  int64_t least;
  std::vector<int64_t> work;
};
bool withhold_scratch(bool on);                   // for tests: thread_scratch() finds no memory; returns what was before
std::vector<ChunkRecord> record_chunks(bool on);  // of the calling thread's calls; returns what was recorded until now

// Empty, or what was wrong with the environment variables (they are then ignored).
const std::string& threads_warning();

}  // namespace fastdl
