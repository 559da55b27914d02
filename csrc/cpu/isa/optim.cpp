// Optimiser steps, in place, one pass over memory: per element a step of Adam reads 4 values and writes 3, and does nothing else,
// where a step built from single ops moves each value several times. The formulas and their order of operations are PyTorch's, so
// that training runs can be compared step by step. Sources: Sutskever et al. 2013 (momentum), Kingma & Ba 2015 (Adam), Loshchilov &
// Hutter 2019 (AdamW), Reddi et al. 2018 (AMSGrad), Tieleman & Hinton 2012 and Graves 2013 (RMSprop, centred).
//
// Hyper-parameters come in a float64 tensor that is read when the kernel runs: a recorded step sees new learning rates and step
// numbers.
#include "cpu/isa/kernel.h"

namespace fastdl {
namespace {

constexpr int64_t kGrain = 16384;  // elements per chunk
constexpr int kPiece = 256;        // elements gathered at a time where memory is strided

// N arrays of equal shape, walked in the memory order of the first one; dims that lie one behind the other in all are merged.
template <class T, int N>
struct Arrays {
  T* data[N];
  int dims = 0;
  int64_t size[kMaxDims], stride[kMaxDims][N];

  explicit Arrays(const View* const (&views)[N]) {
    const View& first = *views[0];
    int order[kMaxDims];
    for (int d = 0; d < first.ndim; d++) {  // insertion sort, greatest stride first
      int at = d;
      for (; at > 0 && first.strides[order[at - 1]] < first.strides[d]; at--) order[at] = order[at - 1];
      order[at] = d;
    }
    for (int a = 0; a < N; a++) data[a] = views[a]->template ptr<T>();
    for (int k = 0; k < first.ndim; k++) {
      const int d = order[k];
      const int64_t n = first.shape[d];
      if (n == 1) continue;
      bool joins = dims > 0;
      for (int a = 0; a < N && joins; a++) joins = stride[dims - 1][a] == views[a]->strides[d] * n;
      if (!joins) size[dims++] = 1;
      size[dims - 1] *= n;
      for (int a = 0; a < N; a++) stride[dims - 1][a] = views[a]->strides[d];
    }
    if (dims == 0) {  // one element
      size[dims++] = 1;
      for (int a = 0; a < N; a++) stride[0][a] = 1;
    }
  }
};

// f(v) updates a vector of each array in place: v[0] the parameter, v[1] the gradient (not stored), then the optimiser's state.
template <class T, int N, class F>
FD_INLINE void update_dense(T* const (&p)[N], int64_t n, const F& f) {
  constexpr int size = Vec<T>::size;
  Vec<T> v[N];
  int64_t i = 0;
  for (; i + size <= n; i += size) {
    for (int a = 0; a < N; a++) v[a] = load(p[a] + i);
    f(v);
    for (int a = 0; a < N; a++)
      if (a != 1) store(p[a] + i, v[a]);
  }
  if (i == n) return;
  const int rest = int(n - i);
  for (int a = 0; a < N; a++) v[a] = load_partial(p[a] + i, rest);
  f(v);
  for (int a = 0; a < N; a++)
    if (a != 1) store_partial(p[a] + i, v[a], rest);
}

template <class T, int N, class F>
void update(const View* const (&views)[N], const F& f) {
  const int64_t n = views[0]->numel();
  if (n == 0) return;
  const Arrays<T, N> arrays(views);
  const int last = arrays.dims - 1;
  const auto& step = arrays.stride[last];
  bool dense = true;
  for (int a = 0; a < N; a++) dense &= step[a] == 1;
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t line = begin / arrays.size[last], at = begin - line * arrays.size[last];
      T* p[N];
      int64_t rest = line;
      for (int a = 0; a < N; a++) p[a] = arrays.data[a] + at * step[a];
      for (int d = last - 1; d >= 0; d--) {
        const int64_t q = rest / arrays.size[d], r = rest - q * arrays.size[d];
        for (int a = 0; a < N; a++) p[a] += r * arrays.stride[d][a];
        rest = q;
      }
      int64_t length = min_of(arrays.size[last] - at, end - begin);
      if (dense) {
        update_dense<T, N>(p, length, f);
      } else {
        length = min_of<int64_t>(length, kPiece);
        alignas(64) T piece[N][kPiece];
        T* q[N];
        for (int a = 0; a < N; a++) {
          q[a] = piece[a];
          for (int64_t j = 0; j < length; j++) piece[a][j] = p[a][j * step[a]];
        }
        update_dense<T, N>(q, length, f);
        for (int a = 0; a < N; a++)
          if (a != 1)
            for (int64_t j = 0; j < length; j++) p[a][j * step[a]] = piece[a][j];
      }
      begin += length;
    }
  });
}

// base ^ exponent for a whole exponent >= 0, by repeated squaring: step counts have few bits.
double power(double base, double exponent) {
  double r = 1;
  for (uint64_t n = exponent > 0 ? uint64_t(min_of(exponent, 0x1p53)) : 0; n; n >>= 1, base *= base)
    if (n & 1) r *= base;
  return r;
}

template <class T>
FD_INLINE Vec<T> lerp(Vec<T> from, Vec<T> to, Vec<T> weight) {
  return from + weight * (to - from);
}

// g + decay p; without decay p is not looked at, so that an infinite parameter does not spoil the gradient.
template <class T>
FD_INLINE Vec<T> decayed(Vec<T> g, Vec<T> p, T decay) {
  return decay == T(0) ? g : g + Vec<T>(decay) * p;
}

// ---- SGD: g += wd p; buf = mu buf + (1 - dampening) g, in the first step buf = g; p -= lr (g + mu buf if Nesterov, else buf) ----
template <class T>
void sgd_kernel(const Args& args) {
  const double* h = args.in[3].ptr<const double>();
  const T lr = T(h[0]), momentum = T(h[1]), gain = T(1 - h[2]), decay = T(h[3]), sign = T(h[5] != 0 ? -1 : 1);
  const bool nesterov = h[4] != 0, first = h[6] <= 1;
  const auto gradient = [=](const Vec<T>* v) { return decayed(v[1] * Vec<T>(sign), v[0], decay); };
  if (!args.in[2].given() || h[1] == 0) {
    const View* const views[] = {&args.in[0], &args.in[1]};
    const auto step = [=](Vec<T>(&v)[2]) { v[0] -= Vec<T>(lr) * gradient(v); };
    return update<T, 2>(views, step);
  }
  const View* const views[] = {&args.in[0], &args.in[1], &args.in[2]};
  const auto step = [=](Vec<T>(&v)[3]) {
    const Vec<T> g = gradient(v);
    v[2] = first ? g : Vec<T>(momentum) * v[2] + Vec<T>(gain) * g;
    v[0] -= Vec<T>(lr) * (nesterov ? g + Vec<T>(momentum) * v[2] : v[2]);
  };
  update<T, 3>(views, step);
}

// ---- Adam: m, v = averages of g and g^2; p -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps) --------------------
template <class T>
void adam_kernel(const Args& args) {
  const double* h = args.in[5].ptr<const double>();
  const double correction1 = 1 - power(h[1], h[7]), correction2 = 1 - power(h[2], h[7]);
  const bool decoupled = h[5] != 0;
  const T sign = T(h[6] != 0 ? -1 : 1), decay = decoupled ? T(0) : T(h[4]), shrink = decoupled ? T(1 - h[0] * h[4]) : T(1);
  const T weight1 = T(1 - h[1]), beta2 = T(h[2]), weight2 = T(1 - h[2]), eps = T(h[3]);
  const T rate = T(h[0] / correction1), root = T(1 / __builtin_sqrt(correction2));
  const auto step = [=](Vec<T>* v, bool amsgrad) {
    v[0] *= Vec<T>(shrink);
    const Vec<T> g = decayed(v[1] * Vec<T>(sign), v[0], decay);
    v[2] = lerp(v[2], g, Vec<T>(weight1));
    v[3] = v[3] * Vec<T>(beta2) + Vec<T>(weight2) * (g * g);
    Vec<T> second = v[3];
    if (amsgrad) second = v[4] = select((v[3] > v[4]) | is_nan(v[3]), v[3], v[4]);
    v[0] -= Vec<T>(rate) * v[2] / (sqrt(second) * Vec<T>(root) + Vec<T>(eps));
  };
  const View* in = args.in;
  if (in[4].given()) {
    const View* const views[] = {in, in + 1, in + 2, in + 3, in + 4};
    const auto f = [=](Vec<T>(&v)[5]) { step(v, true); };
    update<T, 5>(views, f);
  } else {
    const View* const views[] = {in, in + 1, in + 2, in + 3};
    const auto f = [=](Vec<T>(&v)[4]) { step(v, false); };
    update<T, 4>(views, f);
  }
}

// ---- RMSprop: s = average of g^2 (centred: less the square of the average of g); p -= lr g / (sqrt(s) + eps), or with momentum
// buf = mu buf + g / (...), p -= lr buf ---------------------------------------------------------------------------------
template <class T>
void rmsprop_kernel(const Args& args) {
  const double* h = args.in[5].ptr<const double>();
  const T lr = T(h[0]), alpha = T(h[1]), weight = T(1 - h[1]), eps = T(h[2]), decay = T(h[3]), momentum = T(h[4]);
  const T sign = T(h[5] != 0 ? -1 : 1);
  // the update before the rate; mean: the average gradient, or null
  const auto direction = [=](Vec<T> p, Vec<T> g, Vec<T>& square, Vec<T>* mean) {
    g = decayed(g * Vec<T>(sign), p, decay);
    square = square * Vec<T>(alpha) + Vec<T>(weight) * (g * g);
    Vec<T> spread = square;
    if (mean) {
      *mean = lerp(*mean, g, Vec<T>(weight));
      spread = square - *mean * *mean;
    }
    return g / (sqrt(spread) + Vec<T>(eps));
  };
  const View *in = args.in, *buffer = in + 3, *mean = in + 4;
  const bool moving = buffer->given() && h[4] > 0;
  const Vec<T> rate(lr), mu(momentum);
  if (moving && mean->given()) {
    const View* const views[] = {in, in + 1, in + 2, buffer, mean};
    const auto f = [=](Vec<T>(&v)[5]) {
      v[3] = mu * v[3] + direction(v[0], v[1], v[2], &v[4]);
      v[0] -= rate * v[3];
    };
    update<T, 5>(views, f);
  } else if (moving) {
    const View* const views[] = {in, in + 1, in + 2, buffer};
    const auto f = [=](Vec<T>(&v)[4]) {
      v[3] = mu * v[3] + direction(v[0], v[1], v[2], nullptr);
      v[0] -= rate * v[3];
    };
    update<T, 4>(views, f);
  } else if (mean->given()) {
    const View* const views[] = {in, in + 1, in + 2, mean};
    const auto f = [=](Vec<T>(&v)[4]) { v[0] -= rate * direction(v[0], v[1], v[2], &v[3]); };
    update<T, 4>(views, f);
  } else {
    const View* const views[] = {in, in + 1, in + 2};
    const auto f = [=](Vec<T>(&v)[3]) { v[0] -= rate * direction(v[0], v[1], v[2], nullptr); };
    update<T, 3>(views, f);
  }
}

}  // namespace
}  // namespace fastdl

using namespace fastdl;

FD_KERNEL_TABLE(optim) = {{OpId::sgd_step, kF32, sgd_kernel<float>},
                          {OpId::sgd_step, kF64, sgd_kernel<double>},
                          {OpId::adam_step, kF32, adam_kernel<float>},
                          {OpId::adam_step, kF64, adam_kernel<double>},
                          {OpId::rmsprop_step, kF32, rmsprop_kernel<float>},
                          {OpId::rmsprop_step, kF64, rmsprop_kernel<double>},
                          {}};
