// Products of strided matrices of 16-bit floats on tensor cores.
#include "cuda/device/gemm_mma.cuh"
#include "cuda/gemm_plan.h"

namespace fastdl {
namespace {

template <class S>
void run(const Args& a, const GemmProblem& p) {
  const GemmPlan plan = plan_matrix(p, *a.device);
  by_load(matrix_form<S>(p, plan, a.workspace), [&](auto of_a, auto of_b, const MatrixForm<S>& form) {
    if (plan.large)
      launch_gemm<MmaLarge<S, of_a.value, of_b.value>>(a, form);
    else
      launch_gemm<MmaSmall<S, of_a.value, of_b.value>>(a, form);
  });
}

}  // namespace

void run_gemm_mma(const Args& a, const GemmProblem& p) {
  if (p.a.dtype == DType::float16)
    run<f16>(a, p);
  else
    run<bf16>(a, p);
}

}  // namespace fastdl
