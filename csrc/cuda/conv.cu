// conv2d and its gradients for float: on tensor cores where that is asked for and channels fill chunks, else on plain
// multiply-adds.
#include "cuda/conv_run.h"
#include "cuda/device/gemm_ffma.cuh"
#include "cuda/device/gemm_split.cuh"

namespace fastdl {
namespace {

struct LaunchFloat {
  template <Precision precision, class Form>
  static void launch(const Args& a, const GemmPlan& plan, const Form& form) {
    if (plan.large)
      launch_gemm<FloatLarge<precision, Form::kWhole, Form::kWhole>>(a, form);
    else
      launch_gemm<FloatSmall<precision, Form::kWhole, Form::kWhole>>(a, form);
  }
  template <class Form>
  void operator()(const Args& a, const GemmPlan& plan, const Form& form) const {
    Precision unit;
    if (form.whole && float_on_tensor_cores(Precision::Highest, &unit)) {
      if (unit == Precision::Highest)
        launch<Precision::Highest>(a, plan, form);
      else
        launch<Precision::High>(a, plan, form);
    } else if (plan.large) {
      launch_gemm<FfmaLarge<float, Load::Any, Load::Any, 1>>(a, form);
    } else {
      launch_gemm<FfmaSmall<float, 3>>(a, form);
    }
  }
};

}  // namespace

FD_CUDA_TABLE(conv) = {FD_CONV_ROWS(float, kF32, LaunchFloat()){}};

}  // namespace fastdl
