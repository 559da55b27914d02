// linear and the gradients of its weight and bias: views to a GemmProblem.
#include "cuda/gemm_views.h"

namespace fastdl {
namespace {

// y (..., N) = activation(x (..., K) w^T + bias)
GemmProblem forward(const Args& args) {
  const View &x = args.in[0], &w = args.in[1], &bias = args.in[2];
  GemmProblem p = product_of(args.out[0], x, transposed(w));
  p.out.bias = bias.given() ? bias.data : nullptr;
  p.out.bias_dtype = bias.dtype;
  p.out.activation = int8_t(args.attrs->i[0]);
  return p;
}

// dw (N, K) = g^T x; db (N): the sums of g^T's lines, taken while its tiles are at hand
GemmProblem backward_weight(const Args& args) {
  GemmProblem p = product_of(args.out[0], transposed(as_matrix(args.in[0])), as_matrix(args.in[1]));
  p.out.line_sums = args.out[1].data;
  return p;
}
template <GemmProblem (*problem)(const Args&)>
void run(const Args& a) {
  run_gemm(a, problem(a));
}
template <GemmProblem (*problem)(const Args&)>
int64_t workspace(const Args& a) {
  return gemm_workspace(problem(a), *a.device);
}

}  // namespace

FD_CUDA_TABLE(linear) = {
    {OpId::linear, kF32ish | kF64, run<forward>, workspace<forward>},
    {OpId::linear_backward_weight, kF32ish | kF64, run<backward_weight>, workspace<backward_weight>},
    {},
};

}  // namespace fastdl
