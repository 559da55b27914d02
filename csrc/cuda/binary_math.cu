// arctan2, hypot, logaddexp and power on floats: formulas of math/ through the elementwise kernel.
#include "cuda/device/elementwise.cuh"
#include "math/ops.h"
#include "math/power.h"
#include "math/trig.h"

namespace fastdl {
namespace {
FD_COSTLY_BINARY(FD_FORMULA)
FD_FORMULA(power, 2, 0)

#define POWER(Name, expression) \
  struct Name : Formula {       \
    template <class V>          \
    static FD_MATH V of(V x) {  \
      return expression;        \
    }                           \
  };
POWER(Square, x* x)
POWER(Cube, x * x * x)
POWER(Root, sqrt(x))
POWER(Inverse, V(1) / x)

// An exponent that the host knows, and a simple one, needs no logarithm. (x ** 0.5 is then the square root, NaN for -inf, as in
// NumPy.)
template <class T>
void power_row(const Args& a) {
  if (a.host_inputs == 2) {
    double y;
    cast_number(&y, DType::float64, a.in[1].data, a.in[1].dtype);
    if (y == 2) return map_row<Square, T, T, 1>(a);
    if (y == 0.5) return map_row<Root, T, T, 1>(a);
    if (y == 3) return map_row<Cube, T, T, 1>(a);
    if (y == -1) return map_row<Inverse, T, T, 1>(a);
    if (y == 1) return copy_on_device(a, a.out[0], a.in[0]);
  }
  map_row<power_formula, T, T, 2, 1>(a);
}
}  // namespace

// clang-format off
#define ROWS(name, nin, params) FD_FLOAT_ROWS(name, name##_formula, nin, 1)
FD_CUDA_TABLE(binary_math) = {FD_COSTLY_BINARY(ROWS)
    {OpId::power, kF32ish, power_row<float>, elementwise_workspace<float, float, 2>},
    {OpId::power, kF64, power_row<double>, elementwise_workspace<double, double, 2>},
    {}};
// clang-format on
}  // namespace fastdl
