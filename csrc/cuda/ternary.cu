// clip, addcmul and lerp on floats: formulas of math/arithmetic.h through the elementwise kernel; where on the bits of any type of
// up to 8 bytes.
#include "cuda/device/clip.cuh"
#include "math/arithmetic.h"

namespace fastdl {
namespace {

template <class T>
constexpr KernelFn clip = clip_row<map_row<Clip, T, T, 3>, map_row<Maximum, T, T, 2>, map_row<Minimum, T, T, 2>>;

struct Where {
  template <class T>
  static FD_MATH T of(T condition, T x, T y) {
    return condition != T(0) ? x : y;
  }
};
using Bits = uint64_t;

constexpr DType unsigned_of(int64_t item) {
  return item == 1 ? DType::uint8 : item == 2 ? DType::uint16 : item == 4 ? DType::uint32 : DType::uint64;
}
// The dtype in which input k is read; d: of the result.
constexpr DType where_dtype(int k, DType d) { return k == 0 ? DType::bool_ : d; }

template <DType d>
int64_t where_workspace(const Args& a) {
  int64_t bytes = 0;
  for (int k = 0; k < 3; k++)
    if (!(a.host_inputs >> k & 1) && a.in[k].dtype != where_dtype(k, d))
      bytes += padded(distinct(a.in[k]).numel() * itemsize(where_dtype(k, d)));
  return bytes + (a.out[0].dtype != d ? padded(a.out[0].numel() * itemsize(d)) : 0);
}
template <DType d>
void where_row(const Args& a) {
  View in[3], out = a.out[0];
  Bits number[3] = {};
  char* at = static_cast<char*>(a.workspace);
  if (out.numel() == 0) return;
  for (int k = 0; k < 3; k++) {
    const DType want = where_dtype(k, d);
    in[k] = a.in[k];
    if (a.host_inputs >> k & 1) {
      cast_number(&number[k], want, in[k].data, in[k].dtype);
      in[k].data = &number[k], in[k].dtype = DType::uint64;
      continue;
    }
    if (in[k].dtype != want) stage_input(a, k, want, in[k], at);
    in[k].dtype = unsigned_of(itemsize(want));
  }
  if (out.dtype != d) {
    out.data = at, out.dtype = d;
    set_contiguous_strides(out);
  }
  View result = out;
  result.dtype = unsigned_of(itemsize(d));
  launch_elementwise<Bits, 3>(a, result, in, 2, elementwise_kernel<Where, Bits, Bits, 3, 2>);
  if (out.data != a.out[0].data) copy_on_device(a, a.out[0], out);
}

}  // namespace

// clang-format off
#define WHERE_ROW(d) {OpId::where, mask_of(DType::d), where_row<DType::d>, where_workspace<DType::d>},
FD_CUDA_TABLE(ternary) = {
    {OpId::clip, kF32ish, clip<float>, clip_workspace<float>},
    {OpId::clip, kF64, clip<double>, clip_workspace<double>},
    FD_FLOAT_ROWS(addcmul, AddMultiple, 3, 2)
    FD_FLOAT_ROWS(lerp, Lerp, 3, 2)
    WHERE_ROW(bool_) WHERE_ROW(uint8) WHERE_ROW(int8) WHERE_ROW(uint16) WHERE_ROW(int16) WHERE_ROW(uint32) WHERE_ROW(int32)
    WHERE_ROW(uint64) WHERE_ROW(int64) WHERE_ROW(float16) WHERE_ROW(bfloat16) WHERE_ROW(float32) WHERE_ROW(float64)
    WHERE_ROW(complex64)
    {}};
// clang-format on
}  // namespace fastdl
