// Device memory of the emulated devices: one reserved range of addresses per device, so that a device pointer can be told from a
// host pointer, with red zones around every allocation and NaN bytes in fresh memory; and pinned host memory.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "cuda/emu/cuda_runtime_shim.h"

namespace fastdl {
namespace emu {

constexpr int kDevices = 2;

void set_error(cudaError_t error, const std::string& text);  // what the calling thread's next cudaGetLastError returns
void* aligned_pool(size_t bytes);                            // page-aligned host memory for good

// For AddressSanitizer, if there is one: these bytes belong to nobody, or to somebody again.
void poison(const void* p, size_t bytes);
void unpoison(const void* p, size_t bytes);

struct Allocation {
  char* data;
  size_t bytes;
  int device;  // -1: pinned host memory
};
bool find_allocation(const void* p, Allocation* out);  // of the bytes at p; red zones belong to none
int device_of(const void* p);                          // whose arena p lies in, or -1

// What the runtime API is made of.
int& device_of_thread();
size_t device_capacity();
size_t device_used(int device);
cudaError_t allocate_device(int device, void** data, size_t bytes);
cudaError_t free_device(void* data);
cudaError_t allocate_pinned(void** data, size_t bytes);
cudaError_t free_pinned(void* data);
cudaError_t peek_error();
cudaError_t take_error();
cudaError_t record_error(cudaError_t error);  // returns it
const char* error_text(cudaError_t error);    // the report that came with the last such error, or null

}  // namespace emu
}  // namespace fastdl
