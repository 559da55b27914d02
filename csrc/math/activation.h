// Activations and their derivatives, in PyTorch's definitions: values at kinks and limits, and what happens to NaN, follow its
// kernels. Forward: f(x, parameters). Backward: gradient times f'(x), named as the op, from the input x or, where that is all
// it takes, from the output y. Exponentials are taken of -|x| only, so that nothing overflows.
#pragma once
#include "math/erf.h"
#include "math/hyperbolic.h"

namespace fastdl {
namespace {

template <class V>
FD_MATH V relu(V x) {
  return max(V(0), x);
}  // max hands back its second operand for a NaN
template <class V>
FD_MATH V relu_backward(V g, V y) {
  return select(y <= V(0), V(0), g);
}

template <class V>
FD_MATH V hardtanh(V x, V low, V high) {
  return min(high, max(low, x));
}
template <class V>
FD_MATH V hardtanh_backward(V g, V x, V low, V high) {
  return select((x > low) & (x < high), g, V(0));
}

template <class V>
FD_MATH V relu6(V x) {
  return hardtanh(x, V(0), V(6));
}
template <class V>
FD_MATH V relu6_backward(V g, V x) {
  return hardtanh_backward(g, x, V(0), V(6));
}

template <class V>
FD_MATH V leaky_relu(V x, V slope) {
  return select(x > V(0), x, x * slope);
}
template <class V>
FD_MATH V leaky_relu_backward(V g, V x, V slope) {
  return select(x > V(0), g, g * slope);
}

// With e = exp(-|x|) = min(s, 1 - s) / max(s, 1 - s) for s = sigmoid(x).
template <class V>
FD_MATH V sigmoid(V x) {
  const V e = exp_minus_abs(x);
  return quotient(select(x < V(0), e, V(1)), V(1) + e);
}
template <class V>
FD_MATH V sigmoid_backward(V g, V y) {
  return g * ((V(1) - y) * y);
}
template <class V>
FD_MATH V tanh_backward(V g, V y) {
  return g * (V(1) - y * y);
}

template <class V>
FD_MATH V log_sigmoid(V x) {
  return min(V(0), x) - log1p_unit(exp_minus_abs(x));
}
template <class V>
FD_MATH V log_sigmoid_backward(V g, V x) {
  return g * sigmoid(-x);
}

template <class V>
FD_MATH V silu(V x) {
  return x * sigmoid(x);
}
template <class V>
FD_MATH V silu_backward(V g, V x) {  // s (1 + x (1 - s))
  const V e = exp_minus_abs(x), larger = quotient(V(1), V(1) + e), smaller = e * larger;
  const auto negative = x < V(0);
  const V s = select(negative, smaller, larger), rest = select(negative, larger, smaller);
  return g * (s * fma(x, rest, V(1)));
}

// x P(X < x) for a standard normal X, as max(x, 0) - |x| P(X < -|x|): no cancellation on either side. Beyond kNormalBound the tail
// underflows; it keeps infinity * 0 out.
template <class V>
constexpr ScalarOf<V> kNormalBound = kIsDouble<V> ? ScalarOf<V>(40) : ScalarOf<V>(14.5);
template <class V>
FD_MATH V gelu(V x) {
  const V a = min(V(kNormalBound<V>), abs(x));
  if constexpr (kIsDouble<V>) {
    const V tail = map_lanes(a, [](double t) { return 0.5 * t * FD_LIBM(erfc)(t * 0.70710678118654752440); });
    return max(V(0), x) - tail;
  } else {
#if defined(__FMA__) || defined(__aarch64__) || defined(__CUDACC__)
    const V y = normal_tail(a);
#else  // polynomials whose products are rounded before they are added would lose 2 ulp
    const V y = in_double(a, [](auto t) { return normal_tail(t); });
#endif
    V n, r;
    reduce_half_square(a, n, r);
    return fma(-a, ldexp_down(times_exp_minus_half(y, r), n), max(V(0), x));
  }
}
template <class V>
FD_MATH V gelu_backward(V g, V x) {  // P(X < x) + x exp(-x^2 / 2) / sqrt(2 pi)
  const V bound(kNormalBound<V>), b = max(-bound, min(bound, x)), a = abs(b);
  V density, tail;
  if constexpr (kIsDouble<V>) {
    density = exp(a * a * V(-0.5));
    tail = map_lanes(a, [](double t) { return 0.5 * FD_LIBM(erfc)(t * 0.70710678118654752440); });
  } else {
    V n, r;
    reduce_half_square(a, n, r);
    density = ldexp_down(times_exp_minus_half(V(1), r), n);
    tail = density * normal_tail(a);
  }
  return g * fma(b * V(0.39894228040143267794), density, select(x > V(0), V(1) - tail, tail));
}

// x (1 + tanh(u)) / 2 = x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3)
template <class V>
FD_MATH V gelu_tanh_argument(V x, V z) {
  return x * fma(z, V(0.07135481627260025), V(1.5957691216057308));
}
template <class V>
FD_MATH V gelu_tanh(V x) {
  if constexpr (kIsDouble<V>) {
    return x * sigmoid(gelu_tanh_argument(x, x * x));
  } else {  // the rounding errors of the argument, which exp would magnify, are added to its remainder
    const V a = min(V(10.8f), abs(x)), linear(1.5957691216057308f), cubic(-0.07135481627260025f);
    const V z = exact_fma(a, a, V(0.0f)), w = exact_fma(z, cubic, -linear), v = exact_fma(a, w, V(0.0f));
    const V lost = fma(z, cubic, -linear - w) + V(float(1.5957691216057308f - 1.5957691216057308));
    V n, r;
    reduce_exp(v, n, r);
    const V e = ldexp_down(exp_rest(r + fma(a, lost, exact_fma(a, w, -v))) + V(1), n);
    return x * quotient(select(x < V(0), e, V(1)), V(1) + e);
  }
}
template <class V>
FD_MATH V gelu_tanh_backward(V g, V x) {              // s + x s (1 - s) 2 u'
  const V b = max(V(-40), min(V(40), x)), z = b * b;  // keeps infinity * 0 out
  const V v = gelu_tanh_argument(b, z), e = exp_minus_abs(v), larger = quotient(V(1), V(1) + e), smaller = e * larger;
  const V slope = fma(z, V(0.21406444881780076), V(1.5957691216057308));
  return g * fma(b * slope, larger * smaller, select(v < V(0), smaller, larger));
}

// x tanh(softplus(x)). With e = exp(-|x|), tanh(log(1 + e^x)) = ((1 + e^x)^2 - 1) / ((1 + e^x)^2 + 1) becomes
// (e^2 + 2 e) / (e^2 + 2 e + 2) for x < 0 and (1 + 2 e) / (1 + 2 e + 2 e^2) for x >= 0.
template <class V>
FD_MATH void mish_parts(V x, V e, V& numerator, V& denominator) {
  const auto negative = x < V(0);
  const V n = fma(e, e, e + e), p = fma(e, V(2), V(1));
  numerator = select(negative, n, p);
  denominator = select(negative, n + V(2), fma(e + e, e, p));
}
template <class V>
FD_MATH V mish(V x) {
  V n, d;
  mish_parts(x, exp_minus_abs(x), n, d);
  return x * quotient(n, d);
}
template <class V>
FD_MATH V mish_backward(V g, V x) {  // t + x (1 - t^2) sigmoid(x); the last two make 4 e (1 + e) / d^2, and e^2 for e where x >= 0
  const V e = exp_minus_abs(x);
  V n, d;
  mish_parts(x, e, n, d);
  const V r = quotient(V(1), d), w = select(x < V(0), e, e * e) * fma(e, V(4), V(4));
  return g * fma(max(V(-200), min(V(200), x)) * w, r * r, n * r);
}

// log(1 + exp(beta x)) / beta, and x where beta x > threshold
template <class V>
FD_MATH V softplus(V x, V beta, V threshold) {
  const V z = x * beta;
  return select(z > threshold, x, (max(V(0), z) + log1p_unit(exp_minus_abs(z))) / beta);
}
template <class V>
FD_MATH V softplus_backward(V g, V x, V beta, V threshold) {
  const V z = x * beta;
  return select(z > threshold, g, g * sigmoid(z));
}

template <class V>
FD_MATH V softsign(V x) {
  return x / (V(1) + abs(x));
}
template <class V>
FD_MATH V softsign_backward(V g, V x) {
  const V d = V(1) + abs(x);
  return g / (d * d);
}

template <class V>
FD_MATH V elu(V x, V alpha) {
  return select(x > V(0), x, alpha * expm1(x));
}
template <class V>
FD_MATH V elu_backward(V g, V x, V alpha) {
  return select(x > V(0), g, g * (alpha * exp(x)));
}

template <class V>
FD_MATH V celu(V x, V alpha) {
  return select(x > V(0), x, alpha * expm1(x / alpha));
}
template <class V>
FD_MATH V celu_backward(V g, V x, V alpha) {
  return select(x > V(0), g, g * exp(x / alpha));
}

// Klambauer et al., Self-Normalizing Neural Networks (2017): scale * elu(x, alpha)
template <class V>
FD_MATH V selu(V x) {
  return select(x > V(0), x * V(1.0507009873554804934), V(1.7580993408473768600) * expm1(x));
}
template <class V>
FD_MATH V selu_backward(V g, V x) {
  return g * select(x > V(0), V(1.0507009873554804934), V(1.7580993408473768600) * exp(x));
}

template <class V>
FD_MATH V hardsigmoid(V x) {
  return hardtanh(x + V(3), V(0), V(6)) * V(1.0 / 6.0);
}
template <class V>
FD_MATH V hardsigmoid_backward(V g, V x) {
  return select((x > V(-3)) & (x < V(3)), g * V(1.0 / 6.0), V(0));
}

template <class V>
FD_MATH V hardswish(V x) {
  return x * hardsigmoid(x);
}
template <class V>
FD_MATH V hardswish_backward(V g, V x) {
  return select(x <= V(-3), V(0), select(x >= V(3), g, g * fma(x, V(1.0 / 3.0), V(0.5))));
}

// clang-format off
// The ops made of these formulas, for the kernels of every device: name, inputs, parameters (float attributes). CHEAP: a few
// instructions; COSTLY: with an exponential.
#define FD_CHEAP_ACTIVATIONS(_) \
  _(relu, 1, 0) _(relu6, 1, 0) _(softsign, 1, 0) _(leaky_relu, 1, 1) _(hardtanh, 1, 2) _(hardsigmoid, 1, 0) _(hardswish, 1, 0) \
  _(relu_backward, 2, 0) _(relu6_backward, 2, 0) _(sigmoid_backward, 2, 0) _(tanh_backward, 2, 0) _(softsign_backward, 2, 0) \
  _(leaky_relu_backward, 2, 1) _(hardtanh_backward, 2, 2) _(hardsigmoid_backward, 2, 0) _(hardswish_backward, 2, 0)
#define FD_COSTLY_ACTIVATIONS(_) \
  _(sigmoid, 1, 0) _(log_sigmoid, 1, 0) _(silu, 1, 0) _(gelu, 1, 0) _(gelu_tanh, 1, 0) _(mish, 1, 0) _(softplus, 1, 2) \
  _(elu, 1, 1) _(celu, 1, 1) _(selu, 1, 0) _(log_sigmoid_backward, 2, 0) _(silu_backward, 2, 0) _(gelu_backward, 2, 0) \
  _(gelu_tanh_backward, 2, 0) _(mish_backward, 2, 0) _(softplus_backward, 2, 2) _(elu_backward, 2, 1) _(celu_backward, 2, 1) \
  _(selu_backward, 2, 0)
// clang-format on
}  // namespace
}  // namespace fastdl
