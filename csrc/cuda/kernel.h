// What every kernel file csrc/cuda/<family>.cu includes first: Args, the device vocabulary, FD_LAUNCH and the macro that exports
// rows.
//
// A row's function runs on the host. It gets device pointers in its views, computes grid and block and launches on
// a.device->stream; it never waits, allocates or throws. Failed launches are noticed by the caller (CudaApi::check). Workspace in
// device memory: the row names a function that gives the bytes for a call.
//
//   FD_CUDA_TABLE(softmax) = {{OpId::softmax, kF32ish, softmax_rows<float>, nullptr}, ..., {}};
#pragma once
#include "core/op.h"
#include "cuda/api.h"
#include "cuda/device/device.h"
#include "cuda/graph.h"

#define FD_CUDA_TABLE(family) extern "C" const ::fastdl::CudaRow fastdl_cuda_rows_##family[]

// FD_LAUNCH(a, kernel, grid, block, shared_bytes, arguments ...); a template's commas: FD_LAUNCH(a, (kernel<F, float>), ...)
#if defined(FASTDL_EMULATE)
#define FD_LAUNCH(a, kernel, grid, block, shared_bytes, ...) \
  ::fastdl::emu::launch(#kernel, kernel, grid, block, shared_bytes, (a).device->graph, __VA_ARGS__)
#else
#define FD_LAUNCH(a, kernel, grid, block, shared_bytes, ...) \
  ::fastdl::launch_kernel(kernel, grid, block, shared_bytes, *(a).device, __VA_ARGS__)
#endif

namespace fastdl {
namespace {

constexpr DTypeMask kF32 = mask_of(DType::float32), kF64 = mask_of(DType::float64);
constexpr DTypeMask kF16 = mask_of(DType::float16), kBF16 = mask_of(DType::bfloat16);
constexpr DTypeMask kF32ish = kF32 | kF16 | kBF16;  // one kernel, computing in float, converts on load and store

constexpr int64_t kMaxGrid = 0x7fffffff;  // blocks along x; along y and z: 65535
constexpr int64_t kMaxGridYZ = 65535;

FD_HOST_DEVICE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
FD_HOST_DEVICE int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
FD_HOST_DEVICE int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

// A kernel found an index outside [-size, size): the first such report waits in pinned memory for the next synchronisation, which
// raises it as IndexError. The kernel goes on without touching memory for that index.
FD_DEVICE void report_index(DeviceError* e, OpId op, int64_t index, int64_t size) {
  if (atomic_cas(&e->code, 0, -1) == 0) {
    e->op = int32_t(op);
    e->index = index;
    e->size = size;
    fence_system();
    e->code = 1;
  }
}

#if !defined(FASTDL_EMULATE)
template <class... P>
void add_typed(KernelGraph* graph, void* kernel, dim3 grid, dim3 block, size_t shared_bytes, P... arguments) {
  void* pointers[] = {&arguments..., nullptr};
  add_launch(graph, {kernel, grid, block, unsigned(shared_bytes), pointers, nullptr});
}
template <class... P, class... A>
void launch_kernel(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, const DeviceContext& device, A... arguments) {
  if (shared_bytes > 48 * 1024)  // a failure shows at the launch, or when the graph is finished
    cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
  if (device.graph) return add_typed<P...>(device.graph, reinterpret_cast<void*>(kernel), grid, block, shared_bytes, arguments...);
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(device.stream)>>>(static_cast<P>(arguments)...);
}
#endif

}  // namespace
}  // namespace fastdl
