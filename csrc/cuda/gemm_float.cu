// Products of strided matrices of float on tensor cores, at float's accuracy or with rounded factors.
#include "cuda/device/gemm_split.cuh"
#include "cuda/gemm_plan.h"

namespace fastdl {
namespace {

template <Precision precision>
void run(const Args& a, const GemmPlan& plan, const MatrixForm<float>& whole) {
  by_load(whole, [&](auto of_a, auto of_b, const MatrixForm<float>& form) {
    if constexpr (of_a.value != Load::Gathered) {
      if (plan.large)
        launch_gemm<FloatLarge<precision, of_a.value, of_b.value>>(a, form);
      else
        launch_gemm<FloatSmall<precision, of_a.value, of_b.value>>(a, form);
    }
  });
}

}  // namespace

bool run_gemm_float(const Args& a, const GemmProblem& p, Precision precision) {
  const GemmPlan plan = plan_matrix(p, *a.device);
  const MatrixForm<float> form = matrix_form<float>(p, plan, a.workspace);
  if (!form.a.whole || !form.b.whole) return false;
  if (precision == Precision::Highest)
    run<Precision::Highest>(a, plan, form);
  else
    run<Precision::High>(a, plan, form);
  return true;
}

}  // namespace fastdl
