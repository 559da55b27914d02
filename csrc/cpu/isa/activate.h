// Activations and their derivatives as the last step of another kernel, on values that it has just stored.
#pragma once
#include "core/activations.h"
#include "cpu/isa/channels.h"
#include "math/activation.h"

namespace fastdl {
namespace {

// What becomes of `count` values. beside: as many values that belong to them, of which some functions read or write.
template <class T>
using ActivateFn = void (*)(T* values, T* beside, int64_t count);

// f(values, beside, lanes) for all vectors.
template <class T, class F>
FD_INLINE void for_vectors(T* values, T* beside, int64_t count, F&& f) {
  constexpr int lanes = Vec<T>::size;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) f(values + i, beside + i, lanes);
  if (i < count) f(values + i, beside + i, int(count - i));
}

#define FD_ACTIVATION(name)                                                                                                    \
  template <class T>                                                                                                           \
  void activate_##name(T* values, T*, int64_t count) {                                                                         \
    for_vectors(values, values, count, [](T* v, T*, int n) { store_n(v, name(load_n(v, n)), n); });                            \
  }                                                                                                                            \
  template <class T>                                                                                                           \
  void keep_and_##name(T* values, T* beside, int64_t count) {                                                                  \
    for_vectors(values, beside, count, [](T* v, T* x, int n) {                                                                 \
      const Vec<T> value = load_n(v, n);                                                                                       \
      store_n(x, value, n), store_n(v, name(value), n);                                                                        \
    });                                                                                                                        \
  }                                                                                                                            \
  template <class T>                                                                                                           \
  void slope_of_##name(T* values, T* beside, int64_t count) {                                                                  \
    for_vectors(values, beside, count, [](T* v, T* x, int n) { store_n(v, name##_backward(load_n(v, n), load_n(x, n)), n); }); \
  }
FD_ACTIVATION(relu)
FD_ACTIVATION(sigmoid)
FD_ACTIVATION(tanh)
FD_ACTIVATION(gelu)
FD_ACTIVATION(silu)
FD_ACTIVATION(gelu_tanh)
#undef FD_ACTIVATION

// The function of an activation; null for none and relu, which register tiles do themselves.
template <class T>
FD_INLINE ActivateFn<T> activation(int64_t code) {
  constexpr ActivateFn<T> functions[] = {nullptr,          nullptr,          activate_sigmoid<T>,  activate_tanh<T>,
                                         activate_gelu<T>, activate_silu<T>, activate_gelu_tanh<T>};
  return functions[code];
}

// The same for those whose gradient needs their argument, which goes beside their result.
template <class T>
FD_INLINE ActivateFn<T> keeping_activation(int64_t code) {
  return code == kGelu ? keep_and_gelu<T> : code == kSilu ? keep_and_silu<T> : keep_and_gelu_tanh<T>;
}

// values *= the activation's derivative. beside: results of relu, sigmoid and tanh, arguments of the others.
template <class T>
FD_INLINE ActivateFn<T> slope_of_activation(int64_t code) {
  constexpr ActivateFn<T> functions[] = {nullptr,          slope_of_relu<T>, slope_of_sigmoid<T>,  slope_of_tanh<T>,
                                         slope_of_gelu<T>, slope_of_silu<T>, slope_of_gelu_tanh<T>};
  return functions[code];
}

}  // namespace
}  // namespace fastdl
