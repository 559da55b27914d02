// Copies and fills that kernels of other families launch too. `out` and `in` have one shape; strides may be anything, those of `in`
// also 0. Nothing is launched for empty tensors.
#pragma once
#include "core/op.h"

namespace fastdl {

void copy_on_device(const Args& a, const View& out, const View& in);     // casts as NumPy's astype
void cast_on_device(const Args& a, const View& out, const View& in);     // the same for two different dtypes
void fill_on_device(const Args& a, const View& out, const void* value);  // value: one element of out's dtype, in host memory

// The number of dtype `from_dtype` at `from` as one of to_dtype; both in host memory.
void cast_number(void* to, DType to_dtype, const void* from, DType from_dtype);

}  // namespace fastdl
