// Addresses: beyond the end, misaligned, never written, of the host, of another thread, of another block.
#include "mutant.h"

namespace fastdl {
namespace {

struct Row {
  float x[64];
};

template <bool kFault>
FD_KERNEL(1024, 1)
beyond_global_kernel(const float* in, float* out, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (kFault ? i <= n : i < n) out[i] = 2 * in[i < n ? i : 0];
}

template <bool kFault>
FD_KERNEL(1024, 1)
before_global_kernel(const float* in, float* out, int n) {
  const int i = int(threadIdx.x);
  out[i] = i || kFault ? in[i - 1] : in[n - 1];
}

template <bool kFault>
FD_KERNEL(1024, 1)
beyond_shared_kernel(const float* in, float* out, int) {
  Row& s = shared_memory<Row>();
  const int t = int(threadIdx.x);
  s.x[t + kFault] = in[t];
  if (kFault && t == 0) s.x[0] = 0;
  sync_block();
  out[t] = s.x[t];
}

template <bool kFault>
FD_KERNEL(1024, 1)
misaligned_load_kernel(const float* in, float* out, int) {
  const int t = int(threadIdx.x);
  const float4 v = load_16<float4>(in + 4 * t + (kFault && t == 5));
  store_16(out + 4 * t, v);
}

template <bool kFault>
FD_KERNEL(1024, 1)
misaligned_store_kernel(const float* in, float* out, int n) {
  const int t = int(threadIdx.x);
  store_16(out + 4 * t, load_16<float4>(in + 4 * t));
  if (t == 0 && kFault) store_16(out + 2, load_16<float4>(in));
  (void)n;
}

template <bool kFault>
FD_KERNEL(1024, 1)
uninitialised_shared_kernel(const float* in, float* out, int n) {
  Row& s = shared_memory<Row>();
  const int t = int(threadIdx.x);
  if (!kFault || t < n - 1) s.x[t] = in[t];
  sync_block();
  out[t] = s.x[n - 1 - t];
}

template <bool kFault>
FD_KERNEL(1024, 1)
uninitialised_global_kernel(const float* in, float* out, int) {  // adds to memory that nobody has written
  const int t = int(threadIdx.x);
  if (kFault)
    out[t] += in[t];
  else
    out[t] = in[t];
}

template <bool kFault>
FD_KERNEL(1024, 1)
host_pointer_kernel(const float* in, float* out, int) {
  out[threadIdx.x] = in[threadIdx.x];
}

template <bool kFault>
FD_KERNEL(1024, 1)
other_stack_kernel(const float* in, float* out, int) {
  struct Pointers {
    const float* p[64];
  };
  Pointers& s = shared_memory<Pointers>();
  const int t = int(threadIdx.x);
  float mine = in[t];
  s.p[t] = kFault ? &mine : in + t;
  sync_block();
  out[t] = *s.p[t ^ 1];
  sync_block();
}

volatile float global_variable;  // nvcc refuses this one itself
template <bool kFault>
FD_KERNEL(1024, 1)
global_variable_kernel(const float* in, float* out, int) {
  if (kFault && threadIdx.x == 3) global_variable = in[0];
  out[threadIdx.x] = in[threadIdx.x];
}

template <bool kFault>
FD_KERNEL(1024, 1)
block_writes_kernel(const float* in, float* out, int n) {  // neighbouring blocks both write the element between them
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = in[i];
  if (kFault && threadIdx.x == 0 && i > 0) out[i - 1] = in[i - 1];
}

template <bool kFault>
FD_KERNEL(1024, 1)
block_reads_kernel(const float* in, float* out, int n) {  // from a block that may not have run
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  out[i] = in[i];
  if (kFault && threadIdx.x == 0) out[i] = 0 * out[(i + 64) % n] + in[i];
}

// The last block to arrive adds what all have written (CUDA C++ Programming Guide, "Memory Fence Functions"); out[n] is the
// counter, zero before. The fault has no fence.
template <bool kFault>
FD_KERNEL(1024, 1)
last_block_kernel(const float* in, float* out, int n) {
  struct Storage {
    int32_t last;
  };
  Storage& s = shared_memory<Storage>();
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  out[i] = in[i];
  if (!kFault) fence_device();
  sync_block();
  if (threadIdx.x == 0) {
    if (!kFault) fence_device();
    s.last = atomic_add(reinterpret_cast<int32_t*>(out + n), 1) == int(gridDim.x) - 1;
  }
  sync_block();
  if (!s.last || threadIdx.x) return;
  float sum = 0;
  for (int k = 1; k < n; k++) sum += out[k];
  out[0] = sum;
}

template <bool kFault>
FD_KERNEL(1024, 1)
atomic_sum_kernel(const float* in, float* out, int) {
  if (kFault)
    *out += in[threadIdx.x];
  else
    atomic_add(out, in[threadIdx.x]);
}

}  // namespace

FD_MUTANT(beyond_global, ceil_div(n + 1, 64), 64, 0)
FD_MUTANT(before_global, 1, 64, 0)
FD_MUTANT(beyond_shared, 1, 64, sizeof(Row))
FD_MUTANT(misaligned_load, 1, 15, 0)
FD_MUTANT(misaligned_store, 1, 16, 0)
FD_MUTANT(uninitialised_shared, 1, 64, sizeof(Row))
FD_MUTANT(uninitialised_global, 1, 64, 0)
FD_MUTANT(host_pointer, 1, 64, 0)
FD_MUTANT(other_stack, 1, 64, 64 * sizeof(float*))
FD_MUTANT(global_variable, 1, 64, 0)
FD_MUTANT(block_writes, ceil_div(n, 64), 64, 0)
FD_MUTANT(block_reads, ceil_div(n, 64), 64, 0)
FD_MUTANT(last_block, ceil_div(n, 64), 64, 4)
FD_MUTANT(atomic_sum, 1, 64, 0)

}  // namespace fastdl
