// Which kernel multiplies: the front door of gemm.h.
#include "cuda/gemm_plan.h"

namespace fastdl {
namespace {

bool nothing_to_do(const GemmProblem& p) { return p.z * p.m == 0 || (p.n == 0 && !p.out.line_sums); }
bool on_tensor_cores(const GemmProblem& p) { return itemsize(p.a.dtype) == 2; }

}  // namespace

int64_t gemm_workspace(const GemmProblem& p, const DeviceContext& device, Precision) {
  if (nothing_to_do(p)) return 0;
  if (is_skinny(p)) return gemm_skinny_workspace(p, device);
  return plan_matrix(p, device).partial_bytes;
}

void run_gemm(const Args& a, const GemmProblem& p, Precision) {
  if (nothing_to_do(p)) return;
  if (is_skinny(p))
    run_gemm_skinny(a, p);
  else if (on_tensor_cores(p))
    run_gemm_mma(a, p);
  else
    run_gemm_ffma(a, p);
}

}  // namespace fastdl
