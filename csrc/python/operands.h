// The tensor arguments of one call: views, objects and scalar storage; on the stack for up to kMaxIn inputs.
#pragma once
#include "tensor.h"

namespace fastdl::python {

struct Operands {
  int n = 0;
  View* views = fixed_views;
  PyObject** objects = fixed_objects;  // what the caller passed or what it was converted to
  bool* owned = fixed_owned;
  uint64_t converted = 0;  // bit k: operand k was no tensor and became one (k modulo 64)
  uint64_t moved = 0;      // bit k: operand k came from another device (k modulo 64)
  View fixed_views[kMaxIn];
  PyObject* fixed_objects[kMaxIn];
  bool fixed_owned[kMaxIn];
  alignas(16) char scalars[kMaxIn][16];
  TensorObject* temps[2 * kMaxIn];  // cast or relaid copies, released after the launch
  int ntemps = 0;
  std::vector<TensorObject*> more_temps;

  Operands() = default;
  Operands(const Operands&) = delete;
  void reserve(int count) {
    if (count <= kMaxIn) return;
    views = new View[count];
    objects = new PyObject*[count];
    owned = new bool[count];
  }
  void keep(TensorObject* t) {
    if (ntemps < 2 * kMaxIn) temps[ntemps++] = t;
    else more_temps.push_back(t);
  }
  ~Operands() {
    for (int k = 0; k < n; k++)
      if (owned[k]) Py_DECREF(objects[k]);
    for (int k = 0; k < ntemps; k++) Py_DECREF(as_object(temps[k]));
    for (auto* t : more_temps) Py_DECREF(as_object(t));
    if (views != fixed_views) delete[] views, delete[] objects, delete[] owned;
  }
};

}  // namespace fastdl::python
