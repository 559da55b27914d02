// Settings of the thread pool behind parallel.h.
#pragma once
#include <string>

namespace fastdl {

constexpr int kMaxThreads = 1024;

// How many threads work on one call, the caller included. Default: FASTDL_NUM_THREADS, else OMP_NUM_THREADS, else what the affinity
// mask and the cgroup quota leave to this process. Throws Value unless 1 <= n <= kMaxThreads.
void set_num_threads(int n);

// Empty, or what was wrong with the environment variables (they are then ignored).
const std::string& threads_warning();

}  // namespace fastdl
