// clip, addcmul and lerp on floats: formulas of math/arithmetic.h through the elementwise driver. (where: copy.cpp.)
#include "cpu/isa/elementwise.h"
#include "math/arithmetic.h"

namespace fastdl {
namespace {

struct Identity : Formula {
  template <class V>
  static FD_MATH V of(V x) {
    return x;
  }
};
template <class T>
constexpr KernelFn clip =
    clip_kernel<map_kernel<Clip, T, 3>, map_kernel<Maximum, T, 2>, map_kernel<Minimum, T, 2>, map_kernel<Identity, T, 1>>;

}  // namespace

FD_KERNEL_TABLE(ternary) = {{OpId::clip, kF32ish, clip<float>},
                            {OpId::clip, kF64, clip<double>},
                            {OpId::addcmul, kF32ish, map_kernel<AddMultiple, float, 3>},
                            {OpId::addcmul, kF64, map_kernel<AddMultiple, double, 3>},
                            {OpId::lerp, kF32ish, map_kernel<Lerp, float, 3>},
                            {OpId::lerp, kF64, map_kernel<Lerp, double, 3>},
                            {}};
}  // namespace fastdl
