// Activations as the last step of another kernel, on values that it has just stored. Codes as in ops.def (linear, conv2d).
#pragma once
#include "cpu/isa/kernel.h"
#include "math/activation.h"

namespace fastdl {
namespace {

template <class T>
using ActivateFn = void (*)(T* values, int64_t count);

template <class T, class F>
FD_INLINE void activate(T* values, int64_t count, F&& f) {
  constexpr int lanes = Vec<T>::size;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(values + i, f(load(values + i)));
  if (i < count) store_partial(values + i, f(load_partial(values + i, int(count - i))), int(count - i));
}

template <class T>
void activate_sigmoid(T* values, int64_t count) {
  activate(values, count, [](Vec<T> v) { return sigmoid(v); });
}
template <class T>
void activate_tanh(T* values, int64_t count) {
  activate(values, count, [](Vec<T> v) { return tanh(v); });
}
template <class T>
void activate_gelu(T* values, int64_t count) {
  activate(values, count, [](Vec<T> v) { return gelu(v); });
}
template <class T>
void activate_silu(T* values, int64_t count) {
  activate(values, count, [](Vec<T> v) { return silu(v); });
}

// The function of an activation code; null for none (0) and relu (1), which register tiles do themselves.
template <class T>
FD_INLINE ActivateFn<T> activation(int64_t code) {
  switch (code) {
    case 2:
      return activate_sigmoid<T>;
    case 3:
      return activate_tanh<T>;
    case 4:
      return activate_gelu<T>;
    case 5:
      return activate_silu<T>;
    default:
      return nullptr;
  }
}

}  // namespace
}  // namespace fastdl
