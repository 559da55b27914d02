// conv2d and its gradients for float and double on plain multiply-adds.
#include "cuda/conv_run.h"
#include "cuda/device/gemm_ffma.cuh"

namespace fastdl {
namespace {

struct LaunchFfma {
  template <class Form>
  void operator()(const Args& a, const GemmPlan& plan, const Form& form) const {
    using S = typename Form::Element;
    if constexpr (sizeof(S) == 8)
      launch_gemm<FfmaSmall<S, 2>>(a, form);
    else if (plan.large)
      launch_gemm<FfmaLarge<S, Load::Any, Load::Any, 1>>(a, form);
    else
      launch_gemm<FfmaSmall<S, 3>>(a, form);
  }
};

}  // namespace

FD_CUDA_TABLE(conv) = {FD_CONV_ROWS(float, kF32, LaunchFfma()) FD_CONV_ROWS(double, kF64, LaunchFfma()){}};

}  // namespace fastdl
