// Activations, forward and backward, on floats: formulas of math/activation.h through the elementwise driver.
#include "cpu/isa/elementwise.h"
#include "math/activation.h"
#include "math/formula.h"

namespace fastdl {
namespace {
// clang-format off
// name, inputs, parameters (float attributes). CHEAP: a few instructions; COSTLY: with an exponential.
#define CHEAP_OPS(_) \
  _(relu, 1, 0) _(relu6, 1, 0) _(softsign, 1, 0) _(leaky_relu, 1, 1) _(hardtanh, 1, 2) _(hardsigmoid, 1, 0) _(hardswish, 1, 0) \
  _(relu_backward, 2, 0) _(relu6_backward, 2, 0) _(sigmoid_backward, 2, 0) _(tanh_backward, 2, 0) _(softsign_backward, 2, 0) \
  _(leaky_relu_backward, 2, 1) _(hardtanh_backward, 2, 2) _(hardsigmoid_backward, 2, 0) _(hardswish_backward, 2, 0)
#define COSTLY_OPS(_) \
  _(sigmoid, 1, 0) _(log_sigmoid, 1, 0) _(silu, 1, 0) _(gelu, 1, 0) _(gelu_tanh, 1, 0) _(mish, 1, 0) _(softplus, 1, 2) \
  _(elu, 1, 1) _(celu, 1, 1) _(selu, 1, 0) _(log_sigmoid_backward, 2, 0) _(silu_backward, 2, 0) _(gelu_backward, 2, 0) \
  _(gelu_tanh_backward, 2, 0) _(mish_backward, 2, 0) _(softplus_backward, 2, 2) _(elu_backward, 2, 1) _(celu_backward, 2, 1) \
  _(selu_backward, 2, 0)

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
CHEAP_OPS(FORMULA)
COSTLY_OPS(FORMULA)
}  // namespace

#define CHEAP(name, inputs, params) \
  {OpId::name, kF32ish, map_kernel<name##_formula, float, inputs>}, {OpId::name, kF64, map_kernel<name##_formula, double, inputs>},
#define COSTLY(name, inputs, params) \
  {OpId::name, kF32ish, map_kernel_long<name##_formula, float, inputs>}, {OpId::name, kF64, map_kernel_long<name##_formula, double, inputs>},
FD_KERNEL_TABLE(activation) = {CHEAP_OPS(CHEAP) COSTLY_OPS(COSTLY) {}};
// clang-format on
}  // namespace fastdl
