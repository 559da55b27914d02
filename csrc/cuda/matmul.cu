// matmul: views to a GemmProblem.
#include "cuda/gemm_views.h"

namespace fastdl {
namespace {

GemmProblem problem_of(const Args& args) {
  const View &a = args.in[0], &b = args.in[1], &c = args.out[0];
  return product_of(c, a, b);
}

void matmul(const Args& a) { run_gemm(a, problem_of(a)); }
int64_t workspace(const Args& a) { return gemm_workspace(problem_of(a), *a.device); }

}  // namespace

FD_CUDA_TABLE(matmul) = {{OpId::matmul, kF32ish | kF64, matmul, workspace}, {}};

}  // namespace fastdl
