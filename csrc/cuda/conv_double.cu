// conv2d and its gradients for double on plain multiply-adds.
#include "cuda/conv_run.h"
#include "cuda/device/gemm_ffma.cuh"

namespace fastdl {
namespace {

struct LaunchDouble {
  template <class Form>
  void operator()(const Args& a, const GemmPlan&, const Form& form) const {
    launch_gemm<FfmaSmall<double, 2>>(a, form);
  }
};

}  // namespace

FD_CUDA_TABLE(conv_double) = {FD_CONV_ROWS(double, kF64, LaunchDouble()){}};

}  // namespace fastdl
