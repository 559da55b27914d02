// Products of strided matrices of float and double on plain multiply-adds.
#include "cuda/device/gemm_ffma.cuh"
#include "cuda/gemm_plan.h"

namespace fastdl {

void run_gemm_ffma(const Args& a, const GemmProblem& p) {
  const GemmPlan plan = plan_matrix(p, *a.device);
  if (p.a.dtype == DType::float64)
    launch_gemm<FfmaSmall<double, 2>>(a, matrix_form<double>(p, plan, a.workspace));
  else if (plan.large)
    by_load(matrix_form<float>(p, plan, a.workspace), [&](auto of_a, auto of_b, const MatrixForm<float>& form) {
      constexpr int blocks = of_a.value == Load::Gathered ? 1 : 2;
      launch_gemm<FfmaLarge<float, of_a.value, of_b.value, blocks>>(a, form);
    });
  else
    launch_gemm<FfmaSmall<float, 4>>(a, matrix_form<float>(p, plan, a.workspace));
}

}  // namespace fastdl
