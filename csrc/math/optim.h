// One element's step of each optimiser, for values V (Vec, float, double). The formulas and their order of operations are
// PyTorch's, so that training runs can be compared step by step. Sources: Sutskever et al. 2013 (momentum), Kingma & Ba 2015
// (Adam), Loshchilov & Hutter 2019 (AdamW), Reddi et al. 2018 (AMSGrad), Tieleman & Hinton 2012 and Graves 2013 (RMSprop, centred).
//
// A step is made from the op's hyper vector (ops.def), in double, then kept in T, the parameter's type.
#pragma once
#include "math/base.h"

namespace fastdl {
namespace {

// base ^ exponent for a whole exponent >= 0, by repeated squaring: step counts have few bits.
FD_MATH double whole_power(double base, double exponent) {
  double r = 1;
  for (uint64_t n = exponent > 0 ? uint64_t(exponent < 0x1p53 ? exponent : 0x1p53) : 0; n; n >>= 1, base *= base)
    if (n & 1) r *= base;
  return r;
}

// g + decay p; without decay p is not looked at, so that an infinite parameter does not spoil the gradient.
template <class V, class T>
FD_MATH V decayed(V g, V p, T decay) {
  return decay == T(0) ? g : g + V(decay) * p;
}
template <class V>
FD_MATH V moved(V from, V to, V weight) {
  return from + weight * (to - from);
}
// a / b, where b is a root and eps. By multiply-adds where they are faster: division and root share one unit, which takes longer
// than all else.
template <class V, class T>
FD_MATH V divided(V a, V b, T eps) {
  return eps >= T(0x1p-100) ? quotient_to_infinity(a, b) : a / b;
}

// g += wd p; buffer = mu buffer + (1 - dampening) g, in the first step buffer = g; p -= lr (g + mu buffer if Nesterov, else buffer)
template <class T>
struct SgdStep {
  T lr, momentum, gain, decay, sign;
  bool nesterov, first, moving;

  SgdStep() = default;
  FD_MATH explicit SgdStep(const double* h)
      : lr(T(h[0])),
        momentum(T(h[1])),
        gain(T(1 - h[2])),
        decay(T(h[3])),
        sign(T(h[5] != 0 ? -1 : 1)),
        nesterov(h[4] != 0),
        first(h[6] <= 1),
        moving(h[1] != 0) {}
  template <class V>
  FD_MATH void plain(V& p, V g) const {
    p = p - V(lr) * decayed(g * V(sign), p, decay);
  }
  template <class V>
  FD_MATH void with_buffer(V& p, V g, V& buffer) const {
    g = decayed(g * V(sign), p, decay);
    buffer = first ? g : V(momentum) * buffer + V(gain) * g;
    p = p - V(lr) * (nesterov ? g + V(momentum) * buffer : buffer);
  }
};

// m, v = averages of g and g^2; p -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps); AMSGrad: the greatest v so far
template <class T>
struct AdamStep {
  T weight1, beta2, weight2, eps, decay, shrink, rate, root, sign;

  AdamStep() = default;
  FD_MATH explicit AdamStep(const double* h) {
    const bool decoupled = h[5] != 0;
    weight1 = T(1 - h[1]), beta2 = T(h[2]), weight2 = T(1 - h[2]), eps = T(h[3]);
    decay = decoupled ? T(0) : T(h[4]), shrink = decoupled ? T(1 - h[0] * h[4]) : T(1);
    rate = T(h[0] / (1 - whole_power(h[1], h[7]))), root = T(1 / sqrt(1 - whole_power(h[2], h[7])));
    sign = T(h[6] != 0 ? -1 : 1);
  }
  template <class V>
  FD_MATH void update(V& p, V g, V& m, V& v, V& greatest, bool amsgrad) const {
    p = p * V(shrink);
    g = decayed(g * V(sign), p, decay);
    m = moved(m, g, V(weight1));
    v = v * V(beta2) + V(weight2) * g * g;
    V second = v;
    if (amsgrad) second = greatest = select((v > greatest) | (v != v), v, greatest);
    p = p - divided(V(rate) * m, sqrt(second) * V(root) + V(eps), eps);
  }
};

// s = average of g^2 (centred: less the square of the average of g); p -= lr g / (sqrt(s) + eps), or with momentum
// buffer = mu buffer + g / (...), p -= lr buffer
template <class T>
struct RmspropStep {
  T lr, alpha, weight, eps, decay, momentum, sign;
  bool moving;

  RmspropStep() = default;
  FD_MATH explicit RmspropStep(const double* h)
      : lr(T(h[0])),
        alpha(T(h[1])),
        weight(T(1 - h[1])),
        eps(T(h[2])),
        decay(T(h[3])),
        momentum(T(h[4])),
        sign(T(h[5] != 0 ? -1 : 1)),
        moving(h[4] > 0) {}
  template <class V>
  FD_MATH void update(V& p, V g, V& square, V& buffer, bool with_buffer, V& mean, bool centred) const {
    g = decayed(g * V(sign), p, decay);
    square = square * V(alpha) + V(weight) * g * g;
    V spread = square;
    if (centred) {
      mean = moved(mean, g, V(weight));
      spread = square - mean * mean;
    }
    V direction = divided(g, sqrt(spread) + V(eps), eps);
    if (with_buffer) direction = buffer = V(momentum) * buffer + direction;
    p = p - V(lr) * direction;
  }
};

}  // namespace
}  // namespace fastdl
