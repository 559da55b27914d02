// CUDA graphs of the emulated runtime: kernel nodes in a chain. Arguments are copied when a node is made or changed, as CUDA does
// it, and the kernels run when the graph is launched. FASTDL_EMU_GRAPHS, for tests of what is done about failures: "fail:N", the
// N-th of these calls from here on is out of memory; "strict", a node keeps its kernel, though CUDA lets it change.
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/emu/emulator.h"
#include "cuda/emu/memory.h"

using namespace fastdl::emu;

struct CUgraphNode_st {
  size_t index;
};

namespace {

struct Node {
  Launch launch;
  std::vector<max_align_t> arguments;
  void set(const Launch& from) {
    arguments.resize((from.argument_bytes + sizeof(max_align_t) - 1) / sizeof(max_align_t));
    std::memcpy(arguments.data(), from.arguments, from.argument_bytes);
    launch = from;
  }
};

bool option(const char* name) {
  const char* s = std::getenv("FASTDL_EMU_GRAPHS");
  return s && std::strcmp(s, name) == 0;
}

// Whether this call fails.
bool fails() {
  static std::mutex mutex;
  static std::string now;
  static long calls = 0;
  const std::lock_guard<std::mutex> guard(mutex);
  const char* s = std::getenv("FASTDL_EMU_GRAPHS");
  if (!s || std::strncmp(s, "fail:", 5)) return now.clear(), false;
  if (now != s) now = s, calls = 0;
  return ++calls == std::strtol(s + 5, nullptr, 10);
}

const Launch& launch_of(const cudaKernelNodeParams* p) { return *static_cast<const Launch*>(p->func); }

}  // namespace

struct CUgraph_st {
  std::vector<Node> nodes;
  std::vector<cudaGraphNode_t> handles;
};
struct CUgraphExec_st {
  std::vector<Node> nodes;
};

cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned flags) {
  if (fails()) return record_error(cudaErrorMemoryAllocation);
  if (flags) return record_error(cudaErrorInvalidValue);
  return *graph = new CUgraph_st, cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  for (cudaGraphNode_t n : graph->handles) delete n;
  return delete graph, cudaSuccess;
}
cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies, size_t count,
                                   const cudaKernelNodeParams* launch) {
  if (fails()) return record_error(cudaErrorMemoryAllocation);
  const bool chain = graph->handles.empty() ? count == 0 : count == 1 && dependencies[0] == graph->handles.back();
  if (!chain) return record_error(cudaErrorNotSupported);
  graph->nodes.emplace_back();
  graph->nodes.back().set(launch_of(launch));
  graph->handles.push_back(new CUgraphNode_st{graph->handles.size()});
  return *node = graph->handles.back(), cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* ready, cudaGraph_t graph, unsigned long long) {
  if (fails()) return record_error(cudaErrorMemoryAllocation);
  return *ready = new CUgraphExec_st{graph->nodes}, cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t ready) { return delete ready, cudaSuccess; }

cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t ready, cudaGraphNode_t node, const cudaKernelNodeParams* launch) {
  if (fails()) return record_error(cudaErrorMemoryAllocation);
  if (node->index >= ready->nodes.size()) return record_error(cudaErrorInvalidValue);
  const bool other = ready->nodes[node->index].launch.kernel != launch_of(launch).kernel;
  if (other && option("strict")) return record_error(cudaErrorInvalidValue);
  ready->nodes[node->index].set(launch_of(launch));
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t ready, cudaStream_t) {
  for (Node& n : ready->nodes) {
    n.launch.arguments = n.arguments.data();
    run(n.launch);
    if (peek_error() != cudaSuccess) break;  // it is found where a failed launch is
  }
  return cudaSuccess;
}
