// Inference of optimiser steps: parameter and state are updated in place, hyper-parameters are read when the kernel runs.
#include "core/infer/infer.h"

namespace fastdl {
namespace {

struct Names {
  const char* array[5];  // inputs before hyper
  int arrays, optional_from, hyper;
};

Names names_of(OpId op) {
  switch (op) {
    case OpId::sgd_step:
      return {{"param", "grad", "momentum_buffer"}, 3, 2, 7};
    case OpId::adam_step:
      return {{"param", "grad", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}, 5, 4, 8};
    default:
      return {{"param", "grad", "square_avg", "momentum_buffer", "grad_avg"}, 5, 3, 7};
  }
}

}  // namespace

void infer_optim(Call& c) {
  const Names names = names_of(c.op);
  const View& param = c.in[0];
  if (!is_float(param.dtype) || itemsize(param.dtype) < 4)
    fail(ErrorCode::DType, "%s: param is %s; need float32 or float64", op_name(c), dtype_name(param.dtype));
  for (int k = 0; k < names.arrays; k++) {
    const View& v = c.in[k];
    if (!v.given()) {
      if (k < names.optional_from) fail(ErrorCode::Value, "%s: %s is missing", op_name(c), names.array[k]);
      continue;
    }
    if (v.dtype != param.dtype)
      fail(ErrorCode::DType, "%s: %s is %s, param is %s; need the same dtype", op_name(c), names.array[k], dtype_name(v.dtype),
           dtype_name(param.dtype));
    if (!same_shape(v, param))
      fail(ErrorCode::Shape, "%s: %s is %s, param is %s; need the same shape", op_name(c), names.array[k], shape_text(v).c_str(),
           shape_text(param).c_str());
    for (int d = 0; d < v.ndim && k != 1; d++)
      if (v.strides[d] == 0 && v.shape[d] > 1)
        fail(ErrorCode::Value, "%s: %s is a broadcast view; it cannot be updated in place", op_name(c), names.array[k]);
  }
  const View& hyper = c.in[names.arrays];
  if (!hyper.given() || hyper.dtype != DType::float64 || hyper.ndim != 1 || hyper.shape[0] < names.hyper)
    fail(ErrorCode::Value, "%s: hyper must be a float64 vector of %d values", op_name(c), names.hyper);
  c.compute = param.dtype;
  c.own_dtype_inputs = ~0u;
  c.contiguous_inputs |= 1u << names.arrays;
  for (int k = 0, out = 0; k < names.arrays; k++) {
    if (k == 1) continue;
    const View& v = c.in[k];
    set_out(c, out, param.dtype, v.shape, v.given() ? v.ndim : 0);
    c.out[out++].alias = int8_t(k);
  }
}

}  // namespace fastdl
