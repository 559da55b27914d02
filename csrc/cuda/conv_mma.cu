// conv2d and its gradients for 16-bit floats on tensor cores.
#include "cuda/conv_run.h"
#include "cuda/device/gemm_mma.cuh"

namespace fastdl {
namespace {

struct LaunchMma {
  template <Load kLoad, class Form>
  static void launch(const Args& a, const GemmPlan& plan, const Form& form) {
    using S = typename Form::Element;
    if (plan.large)
      launch_gemm<MmaLarge<S, kLoad, kLoad>>(a, form);
    else
      launch_gemm<MmaSmall<S, kLoad, kLoad>>(a, form);
  }
  template <class Form>
  void operator()(const Args& a, const GemmPlan& plan, const Form& form) const {
    if (form.whole)
      launch<Form::kWhole>(a, plan, form);
    else
      launch<Load::Gathered>(a, plan, form);
  }
};

}  // namespace

FD_CUDA_TABLE(conv_mma) = {FD_CONV_ROWS(f16, kF16, LaunchMma()) FD_CONV_ROWS(bf16, kBF16, LaunchMma()){}};

}  // namespace fastdl
