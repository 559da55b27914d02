// Which kernel multiplies: the front door of gemm.h.
#include <cstdlib>
#include <cstring>

#include "cuda/gemm_plan.h"

namespace fastdl {
namespace {

bool nothing_to_do(const GemmProblem& p) { return p.z * p.m == 0 || (p.n == 0 && !p.out.line_sums); }

enum class FloatUnit { Plain, Split, Rounded };

// FASTDL_CUDA_FLOAT=plain|split|rounded says how float is multiplied, whatever the precision asked for: to compare the ways.
FloatUnit float_unit(Precision precision) {
  static const char* const forced = getenv("FASTDL_CUDA_FLOAT");
  if (forced)
    return !strcmp(forced, "split") ? FloatUnit::Split : !strcmp(forced, "rounded") ? FloatUnit::Rounded : FloatUnit::Plain;
  return precision == Precision::High ? FloatUnit::Rounded : kSplitFloat ? FloatUnit::Split : FloatUnit::Plain;
}

}  // namespace

bool float_on_tensor_cores(Precision precision, Precision* unit) {
  const FloatUnit u = float_unit(precision);
  *unit = u == FloatUnit::Rounded ? Precision::High : Precision::Highest;
  return u != FloatUnit::Plain;
}

int64_t gemm_workspace(const GemmProblem& p, const DeviceContext& device, Precision) {
  if (nothing_to_do(p)) return 0;
  if (is_skinny(p)) return gemm_skinny_workspace(p, device);
  return plan_matrix(p, device).partial_bytes;
}

void run_gemm(const Args& a, const GemmProblem& p, Precision precision) {
  if (nothing_to_do(p)) return;
  if (is_skinny(p)) return run_gemm_skinny(a, p);
  if (itemsize(p.a.dtype) == 2) return run_gemm_mma(a, p);
  Precision unit;
  if (p.a.dtype == DType::float32 && float_on_tensor_cores(precision, &unit) && run_gemm_float(a, p, unit)) return;
  run_gemm_ffma(a, p);
}

}  // namespace fastdl
