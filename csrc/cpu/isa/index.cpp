// Sums at indices for the floating dtypes: see index_sums.h. Other dtypes, and plain moves: index_baseline.cpp.
#include "cpu/isa/index_sums.h"

using namespace fastdl;

#define FD_ROWS(name)                                                                                                            \
  {OpId::name, kF32, name##_kernel<float>}, {OpId::name, kF64, name##_kernel<double>}, {OpId::name, kF16, name##_kernel<f16>}, { \
    OpId::name, kBF16, name##_kernel<bf16>                                                                                       \
  }

FD_KERNEL_TABLE(index) = {FD_ROWS(take_backward), FD_ROWS(scatter_add), {}};
