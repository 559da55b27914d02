// Asynchronous copies: not waited for, waited for too little, a buffer filled again too early.
#include "mutant.h"

namespace fastdl {
namespace {

struct Row {
  alignas(16) float x[128];
};
struct Stages {
  alignas(16) float x[2][128];
};

template <bool kFault>
FD_KERNEL(1024, 1)
missing_wait_kernel(const float* in, float* out, int) {
  Row& s = shared_memory<Row>();
  const int t = int(threadIdx.x);
  copy_async_16(s.x + 4 * t, in + 4 * t);
  copy_async_commit();
  if (!kFault) copy_async_wait<0>();
  sync_block();
  for (int k = 0; k < 4; k++) out[k * 32 + t] = s.x[127 - (k * 32 + t)];
}

template <bool kFault>
FD_KERNEL(1024, 1)
missing_commit_kernel(const float* in, float* out, int) {
  Row& s = shared_memory<Row>();
  const int t = int(threadIdx.x);
  copy_async_16(s.x + 4 * t, in + 4 * t);
  if (!kFault) copy_async_commit();
  copy_async_wait<0>();
  sync_block();
  for (int k = 0; k < 4; k++) out[k * 32 + t] = s.x[127 - (k * 32 + t)];
}

template <bool kFault>
FD_KERNEL(1024, 1)
missing_barrier_after_wait_kernel(const float* in, float* out, int) {
  Row& s = shared_memory<Row>();
  const int t = int(threadIdx.x);
  copy_async_16(s.x + 4 * t, in + 4 * t);
  copy_async_commit();
  copy_async_wait<0>();
  if (!kFault) sync_block();
  for (int k = 0; k < 4; k++) out[k * 32 + t] = s.x[127 - (k * 32 + t)];
}

FD_DEVICE void fetch(float (&to)[128], const float* from) {
  copy_async_16(to + 4 * threadIdx.x, from + 4 * threadIdx.x);
  copy_async_commit();
}
FD_DEVICE void add(float (&sum)[4], const float (&x)[128]) {
  for (int k = 0; k < 4; k++) sum[k] += x[127 - (k * 32 + int(threadIdx.x))];
}

// Two stages; always one group more in flight than waited for, except for the last tile.
template <bool kFault>
FD_KERNEL(1024, 1)
wrong_wait_count_kernel(const float* in, float* out, int n) {
  Stages& s = shared_memory<Stages>();
  const int tiles = n / 128;
  float sum[4] = {};
  fetch(s.x[0], in);
  for (int tile = 0; tile < tiles; tile++) {
    if (tile + 1 < tiles) {
      fetch(s.x[(tile + 1) % 2], in + (tile + 1) * 128);
      copy_async_wait<1>();
    } else {
      copy_async_wait<kFault ? 1 : 0>();
    }
    sync_block();
    add(sum, s.x[tile % 2]);
    sync_block();
  }
  for (int k = 0; k < 4; k++) out[k * 32 + threadIdx.x] = sum[k];
}

template <bool kFault>
FD_KERNEL(1024, 1)
early_refill_kernel(const float* in, float* out, int n) {
  Stages& s = shared_memory<Stages>();
  const int tiles = n / 128;
  float sum[4] = {};
  fetch(s.x[0], in);
  for (int tile = 0; tile < tiles; tile++) {
    copy_async_wait<0>();
    sync_block();
    if (tile + 1 < tiles) fetch(s.x[kFault ? 0 : (tile + 1) % 2], in + (tile + 1) * 128);
    add(sum, s.x[kFault ? 0 : tile % 2]);
  }
  for (int k = 0; k < 4; k++) out[k * 32 + threadIdx.x] = sum[k];
}

template <bool kFault>
FD_KERNEL(1024, 1)
misaligned_copy_kernel(const float* in, float* out, int) {
  Row& s = shared_memory<Row>();
  const int t = int(threadIdx.x);
  copy_async_16(s.x + 4 * t, in + (kFault && t == 7 ? 30 : 4 * t));
  copy_async_commit();
  copy_async_wait<0>();
  sync_block();
  for (int k = 0; k < 4; k++) out[k * 32 + t] = s.x[127 - (k * 32 + t)];
}

}  // namespace

FD_MUTANT(missing_wait, 1, 32, sizeof(Row))
FD_MUTANT(missing_commit, 1, 32, sizeof(Row))
FD_MUTANT(missing_barrier_after_wait, 1, 32, sizeof(Row))
FD_MUTANT(wrong_wait_count, 1, 32, sizeof(Stages))
FD_MUTANT(early_refill, 1, 32, sizeof(Stages))
FD_MUTANT(misaligned_copy, 1, 32, sizeof(Row))

}  // namespace fastdl
