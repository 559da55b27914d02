// KernelGraph: launches in a row, kept as a CUDA graph whose nodes are a chain, so that the driver takes a whole training step in
// one call. Made node by node instead of by stream capture: every launch passes one function (kernel.h), and a node whose arguments
// change between runs is replaced by launching its op once more (CUDA C++ Programming Guide, "CUDA Graphs").
#pragma once
#include <cstdint>
#include <vector>

#if defined(FASTDL_EMULATE)
#include "cuda/emu/cuda_runtime_shim.h"
#else
#include <cuda_runtime_api.h>
#endif

namespace fastdl {

struct KernelGraph {
  int32_t device = 0;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;  // once it is finished
  std::vector<cudaGraphNode_t> nodes;
  size_t first = 0, at = 0, end = 0;  // since begin: nodes [first, at) are written, up to end may be
  cudaError_t error = cudaSuccess;    // the first one since begin
};

// The next launch of a graph between begin and end: a new node, or new arguments (and, where the alignment of memory has changed,
// another kernel) of a node.
inline void add_launch(KernelGraph* graph, const cudaKernelNodeParams& launch) {
  KernelGraph& g = *graph;
  if (g.error != cudaSuccess) return;
  if (g.ready) {
    g.error = g.at < g.end ? cudaGraphExecKernelNodeSetParams(g.ready, g.nodes[g.at], &launch) : cudaErrorInvalidValue;
    g.at++;
    return;
  }
  cudaGraphNode_t node = nullptr;
  g.error = cudaGraphAddKernelNode(&node, g.graph, g.nodes.empty() ? nullptr : &g.nodes.back(), g.nodes.empty() ? 0 : 1, &launch);
  if (g.error == cudaSuccess) g.nodes.push_back(node), g.at++;
}

}  // namespace fastdl
