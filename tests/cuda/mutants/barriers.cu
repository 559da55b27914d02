// Barriers and lanes: left out, reached by some threads only, waited for in vain.
#include "mutant.h"

namespace fastdl {
namespace {

struct Row {
  float x[64];
};

template <bool kFault>
FD_KERNEL(1024, 1)
missing_barrier_kernel(const float* in, float* out, int n) {  // out = in reversed
  Row& s = shared_memory<Row>();
  const int t = int(threadIdx.x);
  s.x[t] = in[t];
  if (!kFault) sync_block();
  out[t] = s.x[n - 1 - t];
}

// Tiles through one buffer: without the second barrier the next tile overwrites what others still read.
template <bool kFault>
FD_KERNEL(1024, 1)
missing_second_barrier_kernel(const float* in, float* out, int n) {
  Row& s = shared_memory<Row>();
  const int t = int(threadIdx.x);
  float sum = 0;
  for (int tile = 0; tile < n / 64; tile++) {
    s.x[t] = in[tile * 64 + t];
    sync_block();
    sum += s.x[63 - t];
    if (!kFault) sync_block();
  }
  out[t] = sum;
}

template <bool kFault>
FD_KERNEL(1024, 1)
divergent_barrier_kernel(const float* in, float* out, int) {
  if (kFault && threadIdx.x < 32)
    sync_block();
  else
    sync_block();
  out[threadIdx.x] = in[threadIdx.x];
}

template <bool kFault>
FD_KERNEL(1024, 1)
barrier_in_branch_kernel(const float* in, float* out, int) {
  if (!kFault || threadIdx.x < 32) sync_block();
  sync_warp();
  if (kFault) sync_named(3, 64);
  out[threadIdx.x] = in[threadIdx.x];
}

template <bool kFault>
FD_KERNEL(1024, 1)
named_barrier_kernel(const float* in, float* out, int n) {  // two of three warps exchange rows
  Row& s = shared_memory<Row>();
  const int t = int(threadIdx.x);
  if (t >= 64) return;
  s.x[t] = in[t];
  sync_named(1, kFault ? 96 : 64);
  out[t] = s.x[n - 1 - t];
}

// Two pairs of warps, each with a barrier of its own; the fault waits at the barrier of the other pair's data.
template <bool kFault>
FD_KERNEL(1024, 1)
wrong_named_barrier_kernel(const float* in, float* out, int) {
  struct Rows {
    float x[128];
  };
  Rows& s = shared_memory<Rows>();
  const int t = int(threadIdx.x), pair = t / 64;
  s.x[t] = in[t];
  sync_named(1 + pair, 64);
  out[t] = s.x[kFault ? 127 - t : 64 * pair + 63 - t % 64];
}

template <bool kFault>
FD_KERNEL(1024, 1)
missing_warp_barrier_kernel(const float* in, float* out, int) {
  Row& s = shared_memory<Row>();
  const int t = int(threadIdx.x);
  s.x[t] = in[t];
  if (!kFault) sync_warp();
  out[t] = s.x[t ^ 1];
}

template <bool kFault>
FD_KERNEL(1024, 1)
shuffle_is_no_barrier_kernel(const float* in, float* out, int) {
  Row& s = shared_memory<Row>();
  const int t = int(threadIdx.x);
  s.x[t] = in[t];
  const float v = shuffle_xor(in[t], 1);
  if (!kFault) sync_warp();
  out[t] = s.x[t ^ 1] + 0 * v;
}

template <bool kFault>
FD_KERNEL(1024, 1)
missing_lane_kernel(const float* in, float* out, int) {  // the last lane is somewhere else
  const int t = int(threadIdx.x);
  float v = in[t];
  if (!kFault || t % 32 != 31) v += shuffle_down(v, 1);
  sync_block();
  out[t] = v;
}

template <bool kFault>
FD_KERNEL(1024, 1)
mask_without_caller_kernel(const float* in, float* out, int) {
  const int t = int(threadIdx.x);
  out[t] = in[t] + shuffle(in[t], 0, kFault ? 0x0000ffffu : kFullMask);
}

template <bool kFault>
FD_KERNEL(1024, 1)
returned_lane_kernel(const float* in, float* out, int) {  // its value is undefined, so the sum is NaN
  const int t = int(threadIdx.x);
  if (kFault && t % 32 == 31) return;
  out[t] = in[t] + shuffle(in[t], 31);
}

// Half of the threads return; the last of them to do so completes the barrier that the others wait at.
template <bool kFault>
FD_KERNEL(1024, 1)
returned_threads_kernel(const float* in, float* out, int) {
  Row& s = shared_memory<Row>();
  const int t = int(threadIdx.x);
  s.x[t] = in[t];
  if (t >= 32) return;
  if (!kFault) sync_block();
  out[t] = s.x[31 - t];
}

}  // namespace

FD_MUTANT(returned_threads, 1, 64, sizeof(Row))
FD_MUTANT(missing_barrier, 1, 64, sizeof(Row))
FD_MUTANT(missing_second_barrier, 1, 64, sizeof(Row))
FD_MUTANT(divergent_barrier, 1, 64, 0)
FD_MUTANT(barrier_in_branch, 1, 64, 0)
FD_MUTANT(named_barrier, 1, 96, sizeof(Row))
FD_MUTANT(wrong_named_barrier, 1, 128, 2 * sizeof(Row))
FD_MUTANT(missing_warp_barrier, 1, 64, sizeof(Row))
FD_MUTANT(shuffle_is_no_barrier, 1, 64, sizeof(Row))
FD_MUTANT(missing_lane, 1, 64, 0)
FD_MUTANT(mask_without_caller, 1, 64, 0)
FD_MUTANT(returned_lane, 1, 64, 0)

}  // namespace fastdl
