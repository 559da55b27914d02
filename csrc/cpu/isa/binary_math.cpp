// arctan2, hypot, logaddexp and power on floats: formulas of math/ through the elementwise driver.
#include "cpu/isa/elementwise.h"
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
POWER(Itself, x)
POWER(Square, x* x)
POWER(Cube, x * x * x)
POWER(Root, sqrt(x))
POWER(Inverse, V(1) / x)

// One exponent for all elements, and a simple one, needs no logarithm. (x ** 0.5 is then the square root, NaN for -inf, as in
// NumPy.)
template <class T>
void power_kernel(const Args& a) {
  const View& e = a.in[1];
  bool same = a.out[0].numel() > 0;
  for (int d = 0; d < e.ndim; d++) same &= e.shape[d] == 1 || e.strides[d] == 0;
  if (same) {
    T y;
    cast_up_to<T>(e.dtype)(&y, e.data, 1);
    const Args x{a.out, a.in, a.attrs, a.workspace, a.nout, 1};
    if (y == T(2)) return map_kernel<Square, T, 1>(x);
    if (y == T(0.5)) return map_kernel<Root, T, 1>(x);
    if (y == T(3)) return map_kernel<Cube, T, 1>(x);
    if (y == T(-1)) return map_kernel<Inverse, T, 1>(x);
    if (y == T(1)) return map_kernel<Itself, T, 1>(x);
  }
  map_kernel_long<power_formula, T, 2>(a);
}
}  // namespace

// clang-format off
#define ROWS(name, inputs, params) {OpId::name, kF32ish, map_kernel_long<name##_formula, float, 2>}, {OpId::name, kF64, map_kernel_long<name##_formula, double, 2>},
FD_KERNEL_TABLE(binary_math) = {FD_COSTLY_BINARY(ROWS) {OpId::power, kF32ish, power_kernel<float>}, {OpId::power, kF64, power_kernel<double>}, {}};
// clang-format on
}  // namespace fastdl
