// Products of strided matrices on plain multiply-adds; the engine is device/gemm_ffma.cuh.
#include "cuda/device/gemm_ffma.cuh"
#include "cuda/gemm_plan.h"

namespace fastdl {
namespace {

GemmPlan plan_of(const GemmProblem& p, const DeviceContext& device) {
  const bool is_double = p.a.dtype == DType::float64;
  return plan_gemm(p.z, p.m, p.n, p.k, is_double ? 8 : 4, p.a.dtype == DType::float32, kFfmaDepth, device.multiprocessors);
}

template <class T, class Tile, class S>
void launch(const Args& a, const MatrixForm<S>& form) {
  FD_LAUNCH(a, (gemm_ffma<T, Tile, MatrixForm<S>>), tile_grid(form.tiling.tiles()), Tile::kThreads, sizeof(FfmaStorage<T, Tile>),
            form);
}

template <class T, class S>
void run(const Args& a, const GemmProblem& p) {
  const GemmPlan plan = plan_of(p, *a.device);
  MatrixForm<S> form = {plan.tiling,
                        side_of(p.a, p.m, p.k, &p.batch, p.batch.a),
                        side_of(p.b, p.n, p.k, &p.batch, p.batch.b),
                        p.batch,
                        p.out,
                        plan.partial_bytes ? a.workspace : nullptr,
                        vector_out(p.out)};
  if constexpr (sizeof(S) == 4) {
    if (plan.large)
      launch<T, FfmaLarge<2>>(a, form);
    else
      launch<T, FfmaSmall<4>>(a, form);
  } else {
    launch<T, FfmaSmall<3>>(a, form);
  }
  if (form.partial) {
    const int64_t blocks = ceil_div(p.z * p.m * (p.n + 1), 256);
    FD_LAUNCH(a, (gemm_add_parts<T, MatrixForm<S>>), uint32_t(min_of(blocks, 16 * a.device->multiprocessors)), 256, 0, form);
  }
}

bool nothing_to_do(const GemmProblem& p) { return p.z * p.m == 0 || (p.n == 0 && !p.out.line_sums); }

}  // namespace

int64_t gemm_workspace(const GemmProblem& p, const DeviceContext& device, Precision) {
  return nothing_to_do(p) ? 0 : plan_of(p, device).partial_bytes;
}

void run_gemm(const Args& a, const GemmProblem& p, Precision) {
  if (nothing_to_do(p)) return;
  switch (p.a.dtype) {
    case DType::float64:
      return run<double, double>(a, p);
    case DType::float16:
      return run<float, f16>(a, p);
    case DType::bfloat16:
      return run<float, bf16>(a, p);
    default:
      return run<float, float>(a, p);
  }
}

FD_CUDA_TABLE(gemm_ffma) = {{}};  // kernels without rows of their own

}  // namespace fastdl
