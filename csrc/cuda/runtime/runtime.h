// The host side of the CUDA library: what the files of this folder share. One source for two builds: with the CUDA runtime, and
// with the emulator, which offers the same functions by the same names. api.cpp makes the C interface of it.
#pragma once
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "cuda/api.h"
#if defined(FASTDL_EMULATE)
#include "cuda/device/device.h"
#else
#include <cuda_runtime_api.h>
#endif

namespace fastdl::cuda {

using ReportedError = ::fastdl::DeviceError;  // beside CudaStatus::DeviceError

constexpr int kMaxDevices = 32;

// ---- error.cpp: every failure leaves a text in this thread's last_error() --------------------------------------------------
const char* last_error();
CudaStatus fail(CudaStatus status, const char* format, ...) __attribute__((format(printf, 2, 3)));
// A CUDA call that failed, with what it was to do, e.g. "record an event".
CudaStatus failed(cudaError_t error, const char* doing);
CudaStatus enter();  // first in every entry: refuses in a child made by fork() after CUDA was used
bool forked();

#define FD_CHECK(call, doing) \
  if (const cudaError_t fd_error = (call); fd_error != cudaSuccess) return ::fastdl::cuda::failed(fd_error, doing)
#define FD_PASS(call) \
  if (const CudaStatus fd_status = (call); fd_status != CudaStatus::Ok) return fd_status

// ---- allocator.cpp ---------------------------------------------------------------------------------------------------------
class Allocator;
Allocator* new_allocator(int32_t device);
CudaStatus allocate(Allocator&, int64_t bytes, cudaStream_t stream, void** data, void** block);
void free_block(void* block);
CudaStatus record_stream(void* block, cudaStream_t stream);
void memory_stats(Allocator&, CudaMemoryStats* out);
void reset_peak(Allocator&);
CudaStatus empty_cache(Allocator&);
CudaStatus set_limit(Allocator&, int64_t bytes);

// ---- copy.cpp: a ring of pinned memory through which host memory goes to the device --------------------------------------------
class Staging {
 public:
  // On return `from` has been read.
  CudaStatus copy(void* to, const void* from, int64_t bytes, cudaStream_t stream);

 private:
  struct Piece {
    int64_t begin;
    cudaEvent_t done;
  };
  CudaStatus reserve(int64_t bytes, Piece* piece);

  std::mutex mutex_;
  char* ring_ = nullptr;
  int64_t head_ = 0;
  std::deque<Piece> in_flight_;  // oldest first
  std::vector<cudaEvent_t> spare_events_;
};

// ---- device.cpp --------------------------------------------------------------------------------------------------------------
struct OwnStream {
  cudaStream_t handle;
  int32_t priority;
  bool spare;
};

// Made at first use and never destroyed: objects may be released after everything else at the end of the process.
struct Device {
  int32_t index;
  CudaProperties properties;
  cudaStream_t stream;   // the default one
  ReportedError* error;  // in pinned memory, written by kernels
  Allocator* allocator;
  Staging staging;
  std::mutex mutex;
  std::vector<OwnStream> streams;  // made by create_stream
};
CudaStatus device_count(int32_t* count);
CudaStatus use_device(int32_t index, Device** out);  // makes it this thread's current device
CudaStatus make_current(int32_t index);
DeviceContext& current_context(Device& d);  // of this thread; its stream is the current one
inline cudaStream_t current_stream(Device& d) { return static_cast<cudaStream_t>(current_context(d).stream); }
CudaStatus reported(Device& d, const char* when);  // an error that a kernel has reported since the last look

// ---- graph.cpp -----------------------------------------------------------------------------------------------------------------
CudaStatus create_graph(int32_t device, void** graph);
CudaStatus begin_graph(void* graph, int32_t first, int32_t count);
CudaStatus end_graph(void* graph, int32_t* launches);
CudaStatus finish_graph(void* graph);
CudaStatus launch_graph(void* graph);
void destroy_graph(void* graph);

}  // namespace fastdl::cuda
