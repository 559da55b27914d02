// A matrix product as the host describes it: C (m, n) = A (m, k) B (k, n), for z of them, with any strides, and what happens to
// its elements before they are stored. matmul.cu, linear.cu and conv.cu fill in a GemmProblem; run_gemm chooses the kernel and
// the tile (tune.h) and launches it; gemm_workspace is the scratch that it will use.
//
// Words: a `line` is a row of A or a column of B, so that both operands are (lines, k). A `part` is a range of k that a block sums
// on its own; where there are several, their sums wait in the workspace and a second kernel adds them in order.
#pragma once
#include "cuda/kernel.h"

namespace fastdl {

struct GemmOperand {
  const void* data;
  DType dtype;
  int64_t line_stride, k_stride;  // elements
};

// Dims that number the products, with the strides of both operands (0: broadcast). The last one counts fastest.
struct GemmBatch {
  int32_t ndim;
  int64_t shape[kMaxDims], a[kMaxDims], b[kMaxDims];
};

// out[z, row, column] = activation(sum + bias[column]); rows and products of C lie any distance apart, columns are neighbours.
struct GemmEpilogue {
  void* out;
  int64_t row_stride, z_stride;
  const void* bias;  // or null
  int64_t bias_z_stride;
  void* line_sums;  // or null: gets sum over k of A's lines, (z, m), for gradients of biases
  DType dtype, bias_dtype;
  int8_t activation;  // codes of ops.def (linear)
};

struct GemmProblem {
  int64_t z, m, n, k;
  GemmOperand a, b;
  GemmBatch batch;
  GemmEpilogue out;
};

// How precise products of float32 are: Highest is float32's own accuracy, High lets tensor cores round the factors to tf32.
enum class Precision : int8_t { Highest, High };

int64_t gemm_workspace(const GemmProblem& p, const DeviceContext& device, Precision precision = Precision::Highest);
void run_gemm(const Args& a, const GemmProblem& p, Precision precision = Precision::Highest);

// Whether float goes to tensor cores for this precision, and with what arithmetic.
bool float_on_tensor_cores(Precision precision, Precision* unit);

// The kernels: each takes every shape and stride of its dtypes.
void run_gemm_ffma(const Args& a, const GemmProblem& p);  // float, double
void run_gemm_mma(const Args& a, const GemmProblem& p);   // float16, bfloat16
// float on tensor cores; false, and nothing done, where memory is not aligned to 16 bytes.
bool run_gemm_float(const Args& a, const GemmProblem& p, Precision precision);
bool is_skinny(const GemmProblem& p);
int64_t gemm_skinny_workspace(const GemmProblem& p, const DeviceContext& device);
void run_gemm_skinny(const Args& a, const GemmProblem& p);  // all four, where is_skinny

}  // namespace fastdl
