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
void add_launch(void* graph, const cudaKernelNodeParams& launch);

}  // namespace fastdl
