#include "cuda/emu/cuda_runtime_shim.h"

#include <chrono>
#include <cstdio>
#include <cstring>

#include "cuda/emu/memory.h"
#include "cuda/emu/report.h"
#include "cuda/emu/scheduler.h"

using namespace fastdl::emu;

struct CUstream_st {
  int device, priority;
};
struct CUevent_st {
  bool recorded = false;
  std::chrono::steady_clock::time_point time;
};

namespace {
constexpr int kMultiprocessors = 132, kMajor = 9, kMinor = 0;  // as an H100
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define FD_EMU_ERROR(name, value, text) \
  case name:                            \
    return #name;
    FD_EMU_ERRORS(FD_EMU_ERROR)
#undef FD_EMU_ERROR
  }
  return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) {
  if (const char* report = error_text(error)) return report;
  switch (error) {
#define FD_EMU_ERROR(name, value, text) \
  case name:                            \
    return text;
    FD_EMU_ERRORS(FD_EMU_ERROR)
#undef FD_EMU_ERROR
  }
  return "unrecognized error code";
}
cudaError_t cudaGetLastError() { return take_error(); }
cudaError_t cudaPeekAtLastError() { return peek_error(); }

// ---- devices ---------------------------------------------------------------------------------------------------------------
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) { return *count = kDevices, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= kDevices) return record_error(cudaErrorInvalidDevice);
  device_of_thread() = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) { return *device = device_of_thread(), cudaSuccess; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device < 0 || device >= kDevices) return record_error(cudaErrorInvalidDevice);
  *p = cudaDeviceProp();
  std::snprintf(p->name, sizeof p->name, "Emulated CUDA device %d", device);
  p->totalGlobalMem = device_capacity();
  p->sharedMemPerBlock = 48 * 1024;
  p->sharedMemPerBlockOptin = kSharedOptIn;
  p->sharedMemPerMultiprocessor = 233472;
  p->major = kMajor;
  p->minor = kMinor;
  p->multiProcessorCount = kMultiprocessors;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->l2CacheSize = 50 << 20;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  if (cudaError_t e = cudaGetDeviceProperties(&p, device)) return e;
  switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = int(p.sharedMemPerBlock);
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = p.multiProcessorCount;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = p.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = p.minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = int(p.sharedMemPerMultiprocessor);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = int(p.sharedMemPerBlockOptin);
      break;
    default:
      return record_error(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
// Everything has run when the call that started it returns; a failed launch that nobody has asked for is reported once.
cudaError_t cudaDeviceSynchronize() { return take_error(); }
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) { return *least = 0, *greatest = -5, cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) { return *can = device != peer, cudaSuccess; }
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  *total_bytes = device_capacity();
  *free_bytes = *total_bytes - device_used(device_of_thread());
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute attribute, int value) {
  const bool too_much = attribute == cudaFuncAttributeMaxDynamicSharedMemorySize && value > int(kSharedOptIn);
  return record_error(too_much ? cudaErrorInvalidValue : cudaSuccess);
}

// ---- memory ----------------------------------------------------------------------------------------------------------------
cudaError_t cudaMalloc(void** data, size_t bytes) { return record_error(allocate_device(device_of_thread(), data, bytes)); }
cudaError_t cudaFree(void* data) {
  if (!data) return cudaSuccess;
  const cudaError_t e = free_device(data);
  return e == cudaErrorIllegalAddress ? e : record_error(e);  // that one comes with a text
}
cudaError_t cudaMallocHost(void** data, size_t bytes) { return record_error(allocate_pinned(data, bytes)); }
cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) { return cudaMallocHost(data, bytes); }
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) { return *device = host, cudaSuccess; }
cudaError_t cudaFreeHost(void* data) { return data ? record_error(free_pinned(data)) : cudaSuccess; }

namespace {
// The bytes of a device pointer must lie in one allocation, those of a host pointer in none of a device.
bool valid_range(const void* p, size_t bytes, bool device) {
  if (!device) return device_of(p) < 0;
  Allocation a;
  return find_allocation(p, &a) && static_cast<const char*>(p) + bytes <= a.data + a.bytes;
}
}  // namespace

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (!bytes) return cudaSuccess;
  bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind == cudaMemcpyDefault) to_device = device_of(to) >= 0, from_device = device_of(from) >= 0;
  if (!valid_range(to, bytes, to_device) || !valid_range(from, bytes, from_device)) {
    char text[160];
    std::snprintf(text, sizeof text, "cudaMemcpy of %zu bytes from %p to %p: not the memory that its kind %d says", bytes, from, to,
                  int(kind));
    set_error(cudaErrorInvalidValue, text);
    return cudaErrorInvalidValue;
  }
  std::memmove(to, from, bytes);
  if (to_device) checker_copied(to, from, bytes, from_device);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  return cudaMemcpy(to, from, bytes, kind);
}
cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes, cudaStream_t) {
  return cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToDevice);
}
cudaError_t cudaMemset(void* data, int value, size_t bytes) {
  if (!bytes) return cudaSuccess;
  if (!valid_range(data, bytes, true)) return record_error(cudaErrorInvalidValue);
  std::memset(data, value, bytes);
  checker_copied(data, nullptr, bytes, false);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t) { return cudaMemset(data, value, bytes); }

// ---- streams and events ----------------------------------------------------------------------------------------------------
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int priority) {
  *stream = new CUstream_st{device_of_thread(), priority};
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return delete stream, cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return take_error(); }
cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t event, unsigned) {
  return record_error(event ? cudaSuccess : cudaErrorInvalidResourceHandle);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return *event = new CUevent_st, cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  if (!event) return record_error(cudaErrorInvalidResourceHandle);
  event->recorded = true;
  event->time = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) { return record_error(event ? cudaSuccess : cudaErrorInvalidResourceHandle); }
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return cudaEventQuery(event); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  if (!start || !end || !start->recorded || !end->recorded) return record_error(cudaErrorInvalidResourceHandle);
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return cudaSuccess;
}
