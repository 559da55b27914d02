// Devices: found, opened at first use, and each thread's current stream on each.
#include <atomic>
#include <cstdio>

#include "cuda/runtime/runtime.h"

namespace fastdl::cuda {
namespace {

std::atomic<Device*> devices[kMaxDevices];
std::atomic<int32_t> known_count{0};  // 0: not known yet
std::mutex& opening = *new std::mutex;

thread_local DeviceContext contexts[kMaxDevices];  // error == nullptr: not made yet

constexpr const char* kOpNames[] = {
#define FD_OP(name, ...) #name,
#include "ops.def"
};

// Why cudaGetDeviceCount failed, in words that say what to do.
CudaStatus no_device(cudaError_t error) {
  constexpr int kInsufficientDriver = 35, kNoDevice = 100;
  cudaGetLastError();
  if (int(error) == kNoDevice)
    return fail(CudaStatus::DeviceError, "no CUDA device: the driver found no GPU (CUDA_VISIBLE_DEVICES may hide it)");
  if (int(error) != kInsufficientDriver) return failed(error, "look for CUDA devices");
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) return fail(CudaStatus::DeviceError, "no CUDA device: no NVIDIA driver is installed (no libcuda.so.1)");
  return fail(CudaStatus::DeviceError,
              "no CUDA device: the NVIDIA driver is too old: it supports CUDA %d.%d, this build of fastdl needs %d.%d",
              driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
}

CudaStatus read_properties(int32_t index, CudaProperties* out) {
  cudaDeviceProp p;
  FD_CHECK(cudaGetDeviceProperties(&p, index), "read the properties of the device");
  *out = {};
  snprintf(out->name, sizeof out->name, "%.255s", p.name);
  out->compute_capability = p.major * 10 + p.minor;
  out->multiprocessors = p.multiProcessorCount;
  out->shared_per_block = int32_t(p.sharedMemPerBlockOptin);
  out->total_memory = int64_t(p.totalGlobalMem);
#if defined(FASTDL_EMULATE)
  out->emulated = 1;
#endif
  return CudaStatus::Ok;
}

// cudaSetDevice makes the primary context, which takes some 100 ms and 300 MB of device memory per process.
CudaStatus open_device(int32_t index, Device** out) {
  int32_t count = 0;
  FD_PASS(device_count(&count));
  if (index < 0 || index >= count)
    return fail(CudaStatus::DeviceError, "cuda:%d does not exist; this machine has %d CUDA device%s", index, count,
                count == 1 ? ", cuda:0" : "s");
  std::lock_guard<std::mutex> lock(opening);
  if (Device* d = devices[index].load(std::memory_order_acquire)) {
    *out = d;
    return make_current(index);
  }
  FD_CHECK(cudaSetDevice(index), "open the CUDA device");
  Device* d = new Device;  // a failed attempt leaks it: rare, and its parts may already be in use by the driver
  d->index = index;
  FD_PASS(read_properties(index, &d->properties));
  FD_CHECK(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "create the default stream");
  void* error = nullptr;  // under unified addressing the pointer is valid on host and device
  FD_CHECK(cudaHostAlloc(&error, sizeof(ReportedError), cudaHostAllocMapped | cudaHostAllocPortable), "allocate pinned memory");
  d->error = static_cast<ReportedError*>(error);
  *d->error = {};
  d->allocator = new_allocator(index);
  devices[index].store(d, std::memory_order_release);
  *out = d;
  return CudaStatus::Ok;
}

}  // namespace

CudaStatus device_count(int32_t* count) {
  *count = 0;
  FD_PASS(enter());
  if (const int32_t known = known_count.load(std::memory_order_relaxed)) {
    *count = known;
    return CudaStatus::Ok;
  }
  int found = 0;
  if (const cudaError_t e = cudaGetDeviceCount(&found); e != cudaSuccess) return no_device(e);
  if (found == 0) return no_device(cudaError_t(100));
  *count = found < kMaxDevices ? found : kMaxDevices;
  known_count = *count;
  return CudaStatus::Ok;
}

// Asks the runtime each time: other libraries of the process change the thread's device, too.
CudaStatus make_current(int32_t index) {
  int now = -1;
  FD_CHECK(cudaGetDevice(&now), "read the current CUDA device");
  if (now != index) FD_CHECK(cudaSetDevice(index), "change the current CUDA device");
  return CudaStatus::Ok;
}

CudaStatus use_device(int32_t index, Device** out) {
  FD_PASS(enter());
  if (index >= 0 && index < kMaxDevices)
    if (Device* d = devices[index].load(std::memory_order_acquire)) {
      *out = d;
      return make_current(index);
    }
  return open_device(index, out);
}

DeviceContext& current_context(Device& d) {
  DeviceContext& c = contexts[d.index];
  if (!c.error) {
    const CudaProperties& p = d.properties;
    c = {d.stream, d.error, d.index, p.multiprocessors, p.compute_capability, p.shared_per_block, nullptr};
  }
  return c;
}

CudaStatus reported(Device& d, const char* when) {
  ReportedError* e = d.error;
  int32_t complete = 1;  // -1: a kernel is writing it, or another thread is reading it
  if (!__atomic_compare_exchange_n(&e->code, &complete, -1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) return CudaStatus::Ok;
  const ReportedError found = *e;
  __atomic_store_n(&e->code, 0, __ATOMIC_RELEASE);
  const char* op = found.op >= 0 && found.op < kNumOps ? kOpNames[found.op] : "an op";
  return fail(CudaStatus::IndexError, "%s: index %lld is out of range for size %lld (on cuda:%d, noticed at %s)", op,
              static_cast<long long>(found.index), static_cast<long long>(found.size), d.index, when);
}

}  // namespace fastdl::cuda
