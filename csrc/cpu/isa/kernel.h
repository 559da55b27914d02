// What every kernel file includes first: Args, Vec, parallel_for, and the macro that exports its rows.
//
// Rules for files in this folder (tools/check_objects.py checks the objects with nm): everything in an anonymous namespace except
// the one table, what is FD_SHARED with other files, and structs without functions that these pass; no library containers, no
// exceptions, no global with a constructor; <cmath> functions only through math/.
#pragma once
#include "core/op.h"
#include "core/parallel.h"
#include "core/view.h"
#include "cpu/vec/vec.h"

#define FD_CONCAT_(a, b, c) a##b##_##c
#define FD_CONCAT(a, b, c) FD_CONCAT_(a, b, c)

// FD_KERNEL_TABLE(softmax) = {{OpId::softmax, kF32, softmax_kernel<float>}, ..., {}};
#define FD_KERNEL_TABLE(family) extern "C" const ::fastdl::KernelRow FD_CONCAT(fastdl_rows_, family, FD_ISA)[]

// FD_SHARED(const TileTable<float>, tiles_f32); declares what one kernel file defines, and others of its instruction set use: what
// takes long to compile is compiled once.
#define FD_SHARED_NAME(name) FD_CONCAT(fastdl_, name, FD_ISA)
#define FD_SHARED(type, name) extern "C" __attribute__((visibility("hidden"))) type FD_SHARED_NAME(name)

// Rows of dtypes that tiles do not serve: the instruction set with tiles leaves them to the one below it.
#if defined(__AMX_BF16__)
#define FD_ROWS_WITHOUT_TILES(...)
#else
#define FD_ROWS_WITHOUT_TILES(...) __VA_ARGS__,
#endif

namespace fastdl {
namespace {
// compute-dtype masks for rows; the 16-bit floats share the float kernel, which converts on load and store
constexpr DTypeMask kF32 = mask_of(DType::float32), kF64 = mask_of(DType::float64);
constexpr DTypeMask kF16 = mask_of(DType::float16), kBF16 = mask_of(DType::bfloat16);
constexpr DTypeMask kF32ish = kF32 | kF16 | kBF16;

template <class T>
FD_INLINE constexpr T min_of(T a, T b) {
  return b < a ? b : a;
}
template <class T>
FD_INLINE constexpr T max_of(T a, T b) {
  return a < b ? b : a;
}
template <class T>
FD_INLINE constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}
}  // namespace
}  // namespace fastdl
