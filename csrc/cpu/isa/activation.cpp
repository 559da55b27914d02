// Activations, forward and backward, on floats: formulas of math/activation.h through the elementwise driver.
#include "cpu/isa/elementwise.h"
#include "math/activation.h"
#include "math/formula.h"

namespace fastdl {
namespace {
// clang-format off
#define FORMULA_1_0(name) template <class V> static FD_MATH V of(V x) { return name(x); }
#define FORMULA_1_1(name) template <class V> static FD_MATH V of(V x, const V* p) { return name(x, p[0]); }
#define FORMULA_1_2(name) template <class V> static FD_MATH V of(V x, const V* p) { return name(x, p[0], p[1]); }
#define FORMULA_2_0(name) template <class V> static FD_MATH V of(V g, V x) { return name(g, x); }
#define FORMULA_2_1(name) template <class V> static FD_MATH V of(V g, V x, const V* p) { return name(g, x, p[0]); }
#define FORMULA_2_2(name) template <class V> static FD_MATH V of(V g, V x, const V* p) { return name(g, x, p[0], p[1]); }
#define FORMULA(name, inputs, params)      \
  struct name##_formula : Formula {        \
    static constexpr int kParams = params; \
    FORMULA_##inputs##_##params(name)      \
  };
FD_CHEAP_ACTIVATIONS(FORMULA)
FD_COSTLY_ACTIVATIONS(FORMULA)
}  // namespace

#define CHEAP(name, inputs, params) \
  {OpId::name, kF32ish, map_kernel<name##_formula, float, inputs>}, {OpId::name, kF64, map_kernel<name##_formula, double, inputs>},
#define COSTLY(name, inputs, params) \
  {OpId::name, kF32ish, map_kernel_long<name##_formula, float, inputs>}, {OpId::name, kF64, map_kernel_long<name##_formula, double, inputs>},
FD_KERNEL_TABLE(activation) = {FD_CHEAP_ACTIVATIONS(CHEAP) FD_COSTLY_ACTIVATIONS(COSTLY) {}};
// clang-format on
}  // namespace fastdl
