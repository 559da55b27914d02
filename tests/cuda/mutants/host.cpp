// The runtime API for the tests, by names that they can call.
#include "cuda/emu/cuda_runtime_shim.h"

#define FD_EXPORT extern "C" __attribute__((visibility("default")))

FD_EXPORT void* device_malloc(size_t bytes) {
  void* p = nullptr;
  return cudaMalloc(&p, bytes) ? nullptr : p;
}
FD_EXPORT int device_free(void* p) { return cudaFree(p); }
FD_EXPORT int copy(void* to, const void* from, size_t bytes, int kind) { return cudaMemcpy(to, from, bytes, cudaMemcpyKind(kind)); }
// The error of the last launch, forgotten with this call: its text, or null.
FD_EXPORT const char* take_error() {
  const cudaError_t e = cudaGetLastError();
  return e ? cudaGetErrorString(e) : nullptr;
}
FD_EXPORT const char* error_name() { return cudaGetErrorName(cudaPeekAtLastError()); }
