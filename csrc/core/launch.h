// launch: the one place where kernels are started. What a recorder of the calling thread, or a profile, wants to know of it, it
// learns here.
#pragma once
#include <vector>

#include "op.h"

namespace fastdl {

// Runs fn(args). args.workspace holds workspace_bytes (0: none).
void launch(const OpInfo& op, KernelFn fn, DType compute, const Args& args, int64_t workspace_bytes = 0);

void run_kernel(const OpInfo& op, KernelFn fn, DType compute, const Args& args);  // launch, unrecorded

// While on, every launch is timed and remembered, up to a million.
struct Timing {
  const OpInfo* op;
  DType compute;
  double start, seconds;  // since the profile began
  int64_t bytes, flops;
  int64_t shape[4];  // of the first output, -1 beyond its rank
  uint64_t thread;
  bool on_device;  // the time is that of the launch only
};
void start_profile();
const std::vector<Timing>& stop_profile();
extern bool profiling;
double now_seconds();
void note_time(const OpInfo& op, DType compute, const Args& args, double start, double end);

// Bytes that a call must move at least, and multiply-adds times two that it does (0: not counted).
int64_t bytes_of(const Args& args);
int64_t flops_of(const OpInfo& op, const Args& args);

}  // namespace fastdl
