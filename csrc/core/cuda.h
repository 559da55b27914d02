// The CUDA side of the core: the library behind cuda/api.h (opened on first use), device buffers, copies, and launches on a device.
// An op without a CUDA row for a dtype runs its CPU kernel on a copy in host memory: slow, but right.
#pragma once
#include <string>

#include "buffer.h"
#include "cuda/api.h"
#include "op.h"

namespace fastdl {

// Opens libfastdl_cuda.so (FASTDL_CUDA_LIBRARY, or lib/ beside the extension). nullptr: there is none that works; why:
// cuda_missing().
const CudaApi* cuda_api();
const std::string& cuda_missing();
const CudaApi& need_cuda();          // throws Device, with the reason
void cuda_check(CudaStatus status);  // throws what the library reports
int cuda_device_count();             // 0 where there is none; never throws

Buffer* alloc_cuda_buffer(int64_t bytes, int device);  // stream-ordered, contents undefined
bool own_memory(const Buffer* b);                      // of one of our allocators, not another library's

// A buffer on `device`.
Buffer* alloc_device_buffer(int64_t bytes, Device device);

// Bytes from one place of a device's memory to another.
void copy_on(Device device, void* to, const void* from, int64_t bytes);

// First and one-past-last byte that a view can touch.
void extent(const View& v, const char** lo, const char** hi);

const CudaRow* cuda_row(OpId op, DType compute);                                     // nullptr: none
inline bool takes_many(const CudaRow* row) { return row->many && !row->workspace; }  // several calls in few launches

// One call on `device`: its row, or the CPU kernel on host copies. call has been through inference, without the data of its inputs.
void launch_cuda(const Call& call, const Args& args, Device device);

// The same op for several calls, in few launches where its row can (CudaRow::many).
void launch_cuda_many(const Call* calls, const Args* args, int n, Device device);

int64_t cuda_fallbacks(OpId op);  // calls that ran on the host so far

}  // namespace fastdl
