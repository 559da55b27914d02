// Lists of elementwise float ops for the kernels of every device, and the formula (math/formula.h) of an op made from the function
// of the same name: FD_FORMULA(silu, 1, 0) defines silu_formula. Activations: the lists at the end of math/activation.h.
#pragma once
#include "math/formula.h"

namespace fastdl {
namespace {
// The ops on scalars that have no other home: for a Vec they are found in vec.h.
FD_MATH float floor(float a) { return FD_LIBM(floorf)(a); }
FD_MATH double floor(double a) { return FD_LIBM(floor)(a); }
FD_MATH float ceil(float a) { return FD_LIBM(ceilf)(a); }
FD_MATH double ceil(double a) { return FD_LIBM(ceil)(a); }
FD_MATH double trunc(double a) { return FD_LIBM(trunc)(a); }
FD_MATH float round(float a) { return FD_LIBM(rintf)(a); }  // half to even
FD_MATH double round(double a) { return FD_LIBM(rint)(a); }
}  // namespace
}  // namespace fastdl

// clang-format off
// name, inputs, parameters. CHEAP: a few instructions.
#define FD_CHEAP_UNARY(_) \
  _(negative, 1, 0) _(positive, 1, 0) _(abs, 1, 0) _(sign, 1, 0) _(square, 1, 0) _(sqrt, 1, 0) _(rsqrt, 1, 0) _(reciprocal, 1, 0) \
  _(floor, 1, 0) _(ceil, 1, 0) _(trunc, 1, 0) _(round, 1, 0)
#define FD_COSTLY_UNARY(_) \
  _(cbrt, 1, 0) _(exp, 1, 0) _(exp2, 1, 0) _(expm1, 1, 0) _(log, 1, 0) _(log2, 1, 0) _(log10, 1, 0) _(log1p, 1, 0) _(erf, 1, 0) \
  _(erfc, 1, 0)
#define FD_TRIGONOMETRIC(_) \
  _(sin, 1, 0) _(cos, 1, 0) _(tan, 1, 0) _(arcsin, 1, 0) _(arccos, 1, 0) _(arctan, 1, 0) _(sinh, 1, 0) _(cosh, 1, 0) _(tanh, 1, 0) \
  _(arcsinh, 1, 0) _(arccosh, 1, 0) _(arctanh, 1, 0)
#define FD_COSTLY_BINARY(_) _(arctan2, 2, 0) _(hypot, 2, 0) _(logaddexp, 2, 0)

#define FD_FORMULA_1_0(name) template <class V> static FD_MATH V of(V x) { return name(x); }
#define FD_FORMULA_1_1(name) template <class V> static FD_MATH V of(V x, const V* p) { return name(x, p[0]); }
#define FD_FORMULA_1_2(name) template <class V> static FD_MATH V of(V x, const V* p) { return name(x, p[0], p[1]); }
#define FD_FORMULA_2_0(name) template <class V> static FD_MATH V of(V x, V y) { return name(x, y); }
#define FD_FORMULA_2_1(name) template <class V> static FD_MATH V of(V x, V y, const V* p) { return name(x, y, p[0]); }
#define FD_FORMULA_2_2(name) template <class V> static FD_MATH V of(V x, V y, const V* p) { return name(x, y, p[0], p[1]); }
#define FD_FORMULA(name, inputs, params)   \
  struct name##_formula : Formula {        \
    static constexpr int kParams = params; \
    FD_FORMULA_##inputs##_##params(name)   \
  };
// clang-format on
