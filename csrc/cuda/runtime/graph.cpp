#include "cuda/graph.h"

#include <memory>

#include "runtime.h"

namespace fastdl::cuda {

CudaStatus create_graph(int32_t device, void** graph) {
  Device* d;
  FD_PASS(use_device(device, &d));
  auto g = std::make_unique<KernelGraph>();
  g->device = device;
  FD_CHECK(cudaGraphCreate(&g->graph, 0), "create a graph");
  *graph = g.release();
  return CudaStatus::Ok;
}

CudaStatus begin_graph(void* graph, int32_t first, int32_t count) {
  auto& g = *static_cast<KernelGraph*>(graph);
  Device* d;
  FD_PASS(use_device(g.device, &d));
  g.first = g.at = size_t(first);
  g.end = size_t(first + count);
  g.error = cudaSuccess;
  current_context(*d).graph = &g;
  return CudaStatus::Ok;
}

CudaStatus end_graph(void* graph, int32_t* launches) {
  auto& g = *static_cast<KernelGraph*>(graph);
  Device* d;
  FD_PASS(use_device(g.device, &d));
  current_context(*d).graph = nullptr;
  if (g.ready && (g.error != cudaSuccess || g.at != g.end)) {
    cudaGetLastError();
    *launches = -1;
    return CudaStatus::Ok;
  }
  *launches = int32_t(g.at - g.first);
  FD_CHECK(g.error, "write down a launch for a graph");
  return CudaStatus::Ok;
}

CudaStatus finish_graph(void* graph) {
  auto& g = *static_cast<KernelGraph*>(graph);
  Device* d;
  FD_PASS(use_device(g.device, &d));
  FD_CHECK(cudaGraphInstantiate(&g.ready, g.graph, 0), "make a graph ready");
  return CudaStatus::Ok;
}

CudaStatus launch_graph(void* graph) {
  auto& g = *static_cast<KernelGraph*>(graph);
  Device* d;
  FD_PASS(use_device(g.device, &d));
  FD_CHECK(cudaGraphLaunch(g.ready, current_stream(*d)), "launch a graph");
  return CudaStatus::Ok;
}

// A run in flight ends in peace, and CUDA frees its graph afterwards (CUDA Driver API, cuGraphExecDestroy).
void destroy_graph(void* graph) {
  auto* g = static_cast<KernelGraph*>(graph);
  if (!g || forked()) return;
  Device* d;
  if (use_device(g->device, &d) == CudaStatus::Ok) {
    if (g->ready) cudaGraphExecDestroy(g->ready);
    if (g->graph) cudaGraphDestroy(g->graph);
  }
  delete g;
}

}  // namespace fastdl::cuda
