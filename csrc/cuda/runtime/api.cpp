// The C interface (cuda/api.h) on the files of this folder: streams, events and copies as thin layers over CUDA's, and the table
// of functions that the extension gets. Nothing is thrown across it.
#include <new>

#include "cuda/runtime/runtime.h"

// The rows of every kernel file, one line FD_CUDA_FAMILY(family) per csrc/cuda/<family>.cu.
#define FD_CUDA_FAMILY(family) extern "C" const ::fastdl::CudaRow fastdl_cuda_rows_##family[];
#include "generated/cuda_tables.inc"
#undef FD_CUDA_FAMILY

namespace fastdl::cuda {
namespace {

cudaStream_t stream_of(void* s) { return static_cast<cudaStream_t>(s); }
cudaEvent_t event_of(void* e) { return static_cast<cudaEvent_t>(e); }

constexpr int kNotReady = 600;

CudaStatus properties(int32_t device, CudaProperties* out) {
  Device* d;
  FD_PASS(use_device(device, &d));
  *out = d->properties;
  return CudaStatus::Ok;
}

CudaStatus context(int32_t device, const DeviceContext** out) {
  Device* d;
  FD_PASS(use_device(device, &d));
  *out = &current_context(*d);
  return CudaStatus::Ok;
}

CudaStatus memory_info(int32_t device, int64_t* free_bytes, int64_t* total_bytes) {
  Device* d;
  FD_PASS(use_device(device, &d));
  size_t free_now = 0, total = 0;
  FD_CHECK(cudaMemGetInfo(&free_now, &total), "ask for the free memory");
  *free_bytes = int64_t(free_now);
  *total_bytes = int64_t(total);
  return CudaStatus::Ok;
}

// ---- memory ----------------------------------------------------------------------------------------------------------------
CudaStatus allocate_entry(int32_t device, int64_t bytes, void** data, void** block) {
  Device* d;
  FD_PASS(use_device(device, &d));
  return allocate(*d->allocator, bytes, current_stream(*d), data, block);
}

CudaStatus record_stream_entry(void* block, void* stream) {
  FD_PASS(enter());
  return record_stream(block, stream_of(stream));
}

CudaStatus memory_stats_entry(int32_t device, CudaMemoryStats* out) {
  *out = {};
  Device* d;
  FD_PASS(use_device(device, &d));
  memory_stats(*d->allocator, out);
  return CudaStatus::Ok;
}

CudaStatus reset_peak_entry(int32_t device) {
  Device* d;
  FD_PASS(use_device(device, &d));
  reset_peak(*d->allocator);
  return CudaStatus::Ok;
}

CudaStatus empty_cache_entry(int32_t device) {
  Device* d;
  FD_PASS(use_device(device, &d));
  return empty_cache(*d->allocator);
}

CudaStatus set_limit_entry(int32_t device, int64_t bytes) {
  Device* d;
  FD_PASS(use_device(device, &d));
  return set_limit(*d->allocator, bytes);
}

CudaStatus pinned(int64_t bytes, void** data) {
  Device* d;
  FD_PASS(use_device(0, &d));
  if (bytes < 0) return fail(CudaStatus::OutOfMemory, "cannot allocate %lld bytes of pinned memory", static_cast<long long>(bytes));
  FD_CHECK(cudaHostAlloc(data, size_t(bytes ? bytes : 1), cudaHostAllocPortable), "allocate pinned memory");
  return CudaStatus::Ok;
}

CudaStatus free_pinned(void* data) {
  FD_PASS(enter());
  FD_CHECK(cudaFreeHost(data), "free pinned memory");
  return CudaStatus::Ok;
}

// ---- copies ----------------------------------------------------------------------------------------------------------------
CudaStatus copy(int32_t device, void* to, const void* from, int64_t bytes, CudaCopy kind) {
  Device* d;
  FD_PASS(use_device(device, &d));
  if (bytes == 0) return CudaStatus::Ok;
  const cudaStream_t stream = current_stream(*d);
  if (kind == CudaCopy::HostToDevice) return d->staging.copy(to, from, bytes, stream);
  if (kind == CudaCopy::DeviceToDevice) {
    FD_CHECK(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyDeviceToDevice, stream), "copy on the device");
    return CudaStatus::Ok;
  }
  FD_CHECK(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyDeviceToHost, stream), "copy from the device");
  FD_CHECK(cudaStreamSynchronize(stream), "copy from the device");
  return reported(*d, "a copy to the host");
}

// `waiting` (on the current device or another) waits for all that `awaited`, of the current device, has so far.
CudaStatus order(cudaStream_t waiting, cudaStream_t awaited) {
  cudaEvent_t event = nullptr;
  FD_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "create an event");
  cudaError_t e = cudaEventRecord(event, awaited);
  if (e == cudaSuccess) e = cudaStreamWaitEvent(waiting, event, 0);
  cudaEventDestroy(event);  // CUDA keeps it until the streams are done with it
  FD_CHECK(e, "order two streams");
  return CudaStatus::Ok;
}

// On the current streams of both devices: the copy runs after what both have so far and before what they get next.
CudaStatus copy_peer(void* to, int32_t to_device, const void* from, int32_t from_device, int64_t bytes) {
  Device *source, *target;
  FD_PASS(use_device(to_device, &target));
  const cudaStream_t to_stream = current_stream(*target);
  FD_PASS(use_device(from_device, &source));
  const cudaStream_t from_stream = current_stream(*source);
  if (bytes == 0) return CudaStatus::Ok;
  if (to_device == from_device) return copy(to_device, to, from, bytes, CudaCopy::DeviceToDevice);
  FD_PASS(make_current(to_device));
  FD_PASS(order(from_stream, to_stream));
  FD_PASS(make_current(from_device));
  FD_CHECK(cudaMemcpyPeerAsync(to, to_device, from, from_device, size_t(bytes), from_stream), "copy between devices");
  return order(to_stream, from_stream);
}

// ---- errors and waiting ------------------------------------------------------------------------------------------------------
CudaStatus check(const char* op) {
  if (const cudaError_t e = cudaGetLastError(); e != cudaSuccess) return failed(e, op);
  return CudaStatus::Ok;
}

CudaStatus synchronize(int32_t device) {
  Device* d;
  FD_PASS(use_device(device, &d));
  FD_CHECK(cudaDeviceSynchronize(), "wait for the device");
  return reported(*d, "synchronize");
}

CudaStatus synchronize_stream(int32_t device, void* stream) {
  Device* d;
  FD_PASS(use_device(device, &d));
  FD_CHECK(cudaStreamSynchronize(stream ? stream_of(stream) : current_stream(*d)), "wait for the stream");
  return reported(*d, "synchronize");
}

// ---- streams -----------------------------------------------------------------------------------------------------------------
CudaStatus get_stream(int32_t device, void** stream) {
  Device* d;
  FD_PASS(use_device(device, &d));
  *stream = current_context(*d).stream;
  return CudaStatus::Ok;
}

CudaStatus set_stream(int32_t device, void* stream) {
  Device* d;
  FD_PASS(use_device(device, &d));
  current_context(*d).stream = stream ? stream : d->stream;
  return CudaStatus::Ok;
}

CudaStatus default_stream(int32_t device, void** stream) {
  Device* d;
  FD_PASS(use_device(device, &d));
  *stream = d->stream;
  return CudaStatus::Ok;
}

CudaStatus create_stream(int32_t device, int32_t priority, void** stream) {
  Device* d;
  FD_PASS(use_device(device, &d));
  int least = 0, greatest = 0;
  FD_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest), "ask for the priorities of streams");
  if (priority > least) priority = least;
  if (priority < greatest) priority = greatest;
  std::lock_guard<std::mutex> lock(d->mutex);
  for (OwnStream& s : d->streams)
    if (s.spare && s.priority == priority) {
      s.spare = false;
      *stream = s.handle;
      return CudaStatus::Ok;
    }
  cudaStream_t made = nullptr;
  FD_CHECK(cudaStreamCreateWithPriority(&made, cudaStreamNonBlocking, priority), "create a stream");
  d->streams.push_back({made, priority, false});
  *stream = made;
  return CudaStatus::Ok;
}

// Kept for the next create_stream: blocks may still be recorded on it, and the memory of its pool is used again.
CudaStatus destroy_stream(int32_t device, void* stream) {
  Device* d;
  FD_PASS(use_device(device, &d));
  std::lock_guard<std::mutex> lock(d->mutex);
  for (OwnStream& s : d->streams)
    if (s.handle == stream_of(stream)) s.spare = true;
  return CudaStatus::Ok;
}

// Turns the answer of a query into a flag.
CudaStatus answer(cudaError_t e, const char* doing, int32_t* done) {
  *done = e == cudaSuccess;
  if (e == cudaSuccess) return CudaStatus::Ok;
  if (int(e) != kNotReady) return failed(e, doing);
  cudaGetLastError();
  return CudaStatus::Ok;
}

CudaStatus query_stream(int32_t device, void* stream, int32_t* idle) {
  Device* d;
  FD_PASS(use_device(device, &d));
  return answer(cudaStreamQuery(stream_of(stream)), "query a stream", idle);
}

CudaStatus stream_wait(int32_t device, void* waiting, void* awaited) {
  Device* d;
  FD_PASS(use_device(device, &d));
  return order(stream_of(waiting), stream_of(awaited));
}

// ---- events --------------------------------------------------------------------------------------------------------------------
CudaStatus create_event(int32_t device, int32_t timing, void** event) {
  Device* d;
  FD_PASS(use_device(device, &d));
  cudaEvent_t made = nullptr;
  FD_CHECK(cudaEventCreateWithFlags(&made, timing ? cudaEventDefault : cudaEventDisableTiming), "create an event");
  *event = made;
  return CudaStatus::Ok;
}

CudaStatus destroy_event(int32_t device, void* event) {
  Device* d;
  FD_PASS(use_device(device, &d));
  FD_CHECK(cudaEventDestroy(event_of(event)), "destroy an event");
  return CudaStatus::Ok;
}

CudaStatus record_event(int32_t device, void* event, void* stream) {
  Device* d;
  FD_PASS(use_device(device, &d));
  FD_CHECK(cudaEventRecord(event_of(event), stream_of(stream)), "record an event");
  return CudaStatus::Ok;
}

CudaStatus wait_event(int32_t device, void* event, void* stream) {
  Device* d;
  FD_PASS(use_device(device, &d));
  FD_CHECK(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0), "wait for an event");
  return CudaStatus::Ok;
}

CudaStatus query_event(int32_t device, void* event, int32_t* done) {
  Device* d;
  FD_PASS(use_device(device, &d));
  return answer(cudaEventQuery(event_of(event)), "query an event", done);
}

CudaStatus synchronize_event(int32_t device, void* event) {
  Device* d;
  FD_PASS(use_device(device, &d));
  FD_CHECK(cudaEventSynchronize(event_of(event)), "wait for an event");
  return reported(*d, "the wait for an event");
}

CudaStatus elapsed(void* start, void* end, float* milliseconds) {
  FD_PASS(enter());
  const cudaError_t e = cudaEventElapsedTime(milliseconds, event_of(start), event_of(end));
  if (int(e) == kNotReady) {
    cudaGetLastError();
    return fail(CudaStatus::DeviceError,
                "time between events: they are recorded but not reached yet; synchronise the later one first");
  }
  FD_CHECK(e, "time between events (both recorded, made with timing)");
  return CudaStatus::Ok;
}

// ---- the table
// ------------------------------------------------------------------------------------------------------------------- Host memory
// may run out in any of them.
template <auto fn>
struct Entry;
template <class... A, CudaStatus (*fn)(A...)>
struct Entry<fn> {
  static CudaStatus call(A... a) noexcept {
    try {
      return fn(a...);
    } catch (const std::bad_alloc&) {
      return fail(CudaStatus::OutOfMemory, "cuda: no host memory is left");
    } catch (const std::exception& e) { return fail(CudaStatus::DeviceError, "cuda: %s", e.what()); }
  }
};

// Called wherever the last reference to a tensor goes, also at the end of the process: has nobody to report to.
void free_entry(void* block) noexcept {
  if (!block || forked()) return;
  try {
    free_block(block);
  } catch (const std::exception&) {  // the block stays out of use
  }
}

void destroy_graph_entry(void* graph) noexcept {
  try {
    destroy_graph(graph);
  } catch (const std::exception&) {}
}

constexpr const CudaRow* kTables[] = {
#define FD_CUDA_FAMILY(family) fastdl_cuda_rows_##family,
#include "generated/cuda_tables.inc"
#undef FD_CUDA_FAMILY
    nullptr};

constexpr CudaApi kApi = {
    kCudaAbi,
    kTables,
    last_error,
    Entry<device_count>::call,
    Entry<properties>::call,
    Entry<context>::call,
    Entry<memory_info>::call,
    Entry<allocate_entry>::call,
    free_entry,
    Entry<record_stream_entry>::call,
    Entry<memory_stats_entry>::call,
    Entry<reset_peak_entry>::call,
    Entry<empty_cache_entry>::call,
    Entry<set_limit_entry>::call,
    Entry<copy>::call,
    Entry<copy_peer>::call,
    Entry<check>::call,
    Entry<synchronize>::call,
    Entry<synchronize_stream>::call,
    Entry<get_stream>::call,
    Entry<set_stream>::call,
    Entry<default_stream>::call,
    Entry<create_stream>::call,
    Entry<destroy_stream>::call,
    Entry<query_stream>::call,
    Entry<stream_wait>::call,
    Entry<create_event>::call,
    Entry<destroy_event>::call,
    Entry<record_event>::call,
    Entry<wait_event>::call,
    Entry<query_event>::call,
    Entry<synchronize_event>::call,
    Entry<elapsed>::call,
    Entry<pinned>::call,
    Entry<free_pinned>::call,
    Entry<create_graph>::call,
    Entry<begin_graph>::call,
    Entry<end_graph>::call,
    Entry<finish_graph>::call,
    Entry<launch_graph>::call,
    destroy_graph_entry,
};

}  // namespace
}  // namespace fastdl::cuda

extern "C" __attribute__((visibility("default"))) const fastdl::CudaApi* fastdl_cuda_api() { return &fastdl::cuda::kApi; }
