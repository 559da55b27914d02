// The C interface between the extension and the CUDA library (libfastdl_cuda.so), which is opened on demand and knows nothing of
// Python. One struct of functions; every function that can fail returns a Status and leaves a text in last_error(). The same
// interface is served by the emulated library.
#pragma once
#include <cstdint>

#include "core/op.h"
#include "core/view.h"

namespace fastdl {

// What kernels report from the device (report_index), in pinned host memory. code: 0 none, -1 being written, 1 index out of range.
struct DeviceError {
  int32_t code, op;
  int64_t index, size;
};

struct KernelGraph;

// What a launch needs to know of its device; Args::device points at one.
struct DeviceContext {
  void* stream;  // cudaStream_t
  DeviceError* error;
  int32_t index;  // of the device
  int32_t multiprocessors;
  int32_t compute_capability;  // 80, 90 ...
  int32_t shared_per_block;    // bytes that a block may opt in to
  KernelGraph* graph;          // not null: launches go into it (cuda/graph.h) instead of the stream
};

// One row of a kernel file's table, ended by fn == nullptr. workspace (or nullptr: none) gives the bytes of device memory that
// fn needs in Args::workspace for a call with these arguments; its pointers are not read. -1: there is no kernel for these sizes,
// and the call runs on the host.
struct CudaRow {
  OpId op;
  DTypeMask dtypes;
  KernelFn fn;
  int64_t (*workspace)(const Args&);
  void (*many)(const Args* calls, int n) = nullptr;  // optional: several calls in few launches, e.g. the parameters of an optimiser
};

enum class CudaStatus : int32_t { Ok, DeviceError, OutOfMemory, IndexError };

struct CudaProperties {
  char name[256];
  int32_t compute_capability, multiprocessors, shared_per_block, emulated;
  int64_t total_memory;
};

struct CudaMemoryStats {
  int64_t in_use, peak, cached, limit, allocations, hits;
};

enum class CudaCopy : int32_t { HostToDevice, DeviceToHost, DeviceToDevice };

struct CudaApi {
  uint64_t abi;                  // kCudaAbi; another value: a library of another build
  const CudaRow* const* tables;  // ended by nullptr

  const char* (*last_error)();                 // of the calling thread
  CudaStatus (*device_count)(int32_t* count);  // DeviceError, with the reason, where there is no driver or no GPU
  CudaStatus (*properties)(int32_t device, CudaProperties* out);
  CudaStatus (*context)(int32_t device, const DeviceContext** out);  // of the calling thread's current stream; makes device current
  CudaStatus (*memory_info)(int32_t device, int64_t* free_bytes, int64_t* total_bytes);

  // Stream-ordered caching allocator: memory freed on a stream is handed out again on that stream without waiting.
  CudaStatus (*allocate)(int32_t device, int64_t bytes, void** data, void** block);  // on the current stream; 512-byte aligned
  void (*free)(void* block);
  CudaStatus (*record_stream)(void* block, void* stream);  // used on another stream: free waits for it
  CudaStatus (*memory_stats)(int32_t device, CudaMemoryStats* out);
  CudaStatus (*reset_peak)(int32_t device);
  CudaStatus (*empty_cache)(int32_t device);
  CudaStatus (*set_limit)(int32_t device, int64_t bytes);

  // Copies on the current stream. Host memory is pageable: a copy from it may be used again on return, a copy to it is complete.
  CudaStatus (*copy)(int32_t device, void* to, const void* from, int64_t bytes, CudaCopy kind);
  CudaStatus (*copy_peer)(void* to, int32_t to_device, const void* from, int32_t from_device, int64_t bytes);

  CudaStatus (*check)(const char* op);                             // did the launch before fail? Does not wait.
  CudaStatus (*synchronize)(int32_t device);                       // the whole device, then errors reported by kernels
  CudaStatus (*synchronize_stream)(int32_t device, void* stream);  // nullptr: the current one; then the same
  // Streams are cudaStream_t, ours or another library's. The calling thread's current one, nullptr for set_stream: the default, the
  // device's own non-blocking stream (the legacy default stream is cudaStreamLegacy, 1).
  CudaStatus (*get_stream)(int32_t device, void** stream);
  CudaStatus (*set_stream)(int32_t device, void* stream);
  CudaStatus (*default_stream)(int32_t device, void** stream);
  CudaStatus (*create_stream)(int32_t device, int32_t priority, void** stream);  // priority as CUDA's: lower goes first
  CudaStatus (*destroy_stream)(int32_t device, void* stream);                    // its work goes on; the handle is used again
  CudaStatus (*query_stream)(int32_t device, void* stream, int32_t* idle);
  CudaStatus (*stream_wait)(int32_t device, void* waiting, void* awaited);  // `waiting` waits for what `awaited` has so far
  CudaStatus (*create_event)(int32_t device, int32_t timing, void** event);
  CudaStatus (*destroy_event)(int32_t device, void* event);
  CudaStatus (*record_event)(int32_t device, void* event, void* stream);
  CudaStatus (*wait_event)(int32_t device, void* event, void* stream);
  CudaStatus (*query_event)(int32_t device, void* event, int32_t* done);
  CudaStatus (*synchronize_event)(int32_t device, void* event);
  CudaStatus (*elapsed)(void* start, void* end, float* milliseconds);
  CudaStatus (*pinned)(int64_t bytes, void** data);  // page-locked host memory
  CudaStatus (*free_pinned)(void* data);

  // Graphs: launches in a row that the device takes as one. Between begin and end, launches of the calling thread on `device` are
  // written down instead of run: at the end of the graph, or, once it is finished, in place of the `count` from number `first` on.
  // end: how many launches that were; -1: they do not fit there, and the graph is to be made anew.
  CudaStatus (*create_graph)(int32_t device, void** graph);
  CudaStatus (*begin_graph)(void* graph, int32_t first, int32_t count);
  CudaStatus (*end_graph)(void* graph, int32_t* launches);
  CudaStatus (*finish_graph)(void* graph);  // no launches can be added from now on
  CudaStatus (*launch_graph)(void* graph);  // a finished one, on the current stream
  void (*destroy_graph)(void* graph);
};

// Changes with the op table and the structs that cross the interface.
constexpr uint64_t mixed(uint64_t h) { return h; }
template <class... Rest>
constexpr uint64_t mixed(uint64_t h, uint64_t first, Rest... rest) {
  return mixed((h ^ first) * 1099511628211ull, rest...);
}
constexpr uint64_t kCudaAbi = mixed(14695981039346656037ull, kNumOps, sizeof(View), sizeof(Args), sizeof(CudaApi), sizeof(CudaRow),
                                    sizeof(DeviceContext), sizeof(CudaProperties), sizeof(CudaMemoryStats));

}  // namespace fastdl

extern "C" const fastdl::CudaApi* fastdl_cuda_api();
