// Error texts, and the guard against use after fork().
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <iterator>

#include <pthread.h>

#include "cuda/runtime/runtime.h"

namespace fastdl::cuda {
namespace {

thread_local char text[4096];  // no destructor: readable as long as the thread lives

// Errors after which the context is lost (CUDA Runtime API, "Data types used by CUDA Runtime": "the process must be terminated
// and relaunched"). By number, because not every version of the headers names them all.
constexpr int kSticky[] = {214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 910, 911};
constexpr int kOutOfMemory = 2, kUnloading = 4, kNoKernelImage = 209;

bool is_sticky(int code) {
  for (int c : kSticky)
    if (c == code) return true;
  return false;
}

enum State { kUnused, kUsed, kForked };
std::atomic<int> state{kUnused};

}  // namespace

const char* last_error() { return text; }

CudaStatus fail(CudaStatus status, const char* format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return status;
}

CudaStatus failed(cudaError_t error, const char* doing) {
  const int code = int(error);
  cudaGetLastError();  // clears the error of this thread, so that check() does not find it a second time
  const char* why = cudaGetErrorString(error);
#if defined(FASTDL_EMULATE)
  if (is_sticky(code)) return fail(CudaStatus::DeviceError, "%s: %s", doing, why);  // a report of the emulator, which goes on
#endif
  if (is_sticky(code))
    return fail(CudaStatus::DeviceError,
                "%s: %s (CUDA error %d). A kernel before this call failed; this process has lost its CUDA context with all data on "
                "the device, and every further CUDA call fails: start it again. CUDA_LAUNCH_BLOCKING=1 shows the call to blame, "
                "compute-sanitizer the access",
                doing, why, code);
  if (code == kUnloading) return fail(CudaStatus::DeviceError, "%s: the process is exiting", doing);
  if (code == kNoKernelImage)
    return fail(CudaStatus::DeviceError,
                "%s: this build of fastdl has no code for this GPU (CUDA error %d); build it with its compute capability in "
                "FASTDL_CUDA_ARCHS",
                doing, code);
  return fail(code == kOutOfMemory ? CudaStatus::OutOfMemory : CudaStatus::DeviceError, "%s: %s (CUDA error %d)", doing, why, code);
}

// A child of fork() inherits a CUDA context that it cannot use (CUDA C++ Programming Guide, "Initialization"), and locks that
// threads of the parent may have held.
CudaStatus enter() {
  const int now = state.load(std::memory_order_relaxed);
  if (now == kUsed) return CudaStatus::Ok;
  if (now == kForked)
    return fail(CudaStatus::DeviceError,
                "CUDA does not work in a process that fork() made after its parent had used CUDA; start workers with "
                "multiprocessing's \"spawn\" or \"forkserver\", or fork before the first use");
  int unused = kUnused;
  if (state.compare_exchange_strong(unused, kUsed)) pthread_atfork(nullptr, nullptr, [] { state = kForked; });
  return CudaStatus::Ok;
}

bool forked() { return state.load(std::memory_order_relaxed) == kForked; }

}  // namespace fastdl::cuda
