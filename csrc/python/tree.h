// Tree: how the arguments or results of a captured function are nested.
#pragma once
#include <memory>
#include <vector>

#include "tensor.h"

namespace fastdl::python {

// Tuples, lists and dicts of tensors and of other objects.
struct Tree {
  enum Kind : uint8_t { Leaf, Static, Tuple, List, Dict } kind = Static;
  PyObject* value = nullptr;  // Static: the object; Tuple, List: the type; Dict: the list of keys. Owned
  int leaf = -1;
  std::vector<std::unique_ptr<Tree>> children;
  Tree() = default;
  Tree(const Tree&) = delete;
  ~Tree();

  // Describes o and appends its tensors to `found` (borrowed, or owned by `converted`: those made of NumPy arrays).
  bool describe(PyObject* o, std::vector<TensorObject*>* found, std::vector<PyObject*>* converted);
  // Whether o looks like this; appends its tensors.
  bool match(PyObject* o, std::vector<TensorObject*>* found, std::vector<PyObject*>* converted) const;
  // A new object that looks like this, with these tensors.
  PyObject* build(const std::vector<PyObject*>& leaves) const;
  int traverse(visitproc visit, void* arg) const;  // for Python's garbage collector
  void clear();
};

}  // namespace fastdl::python
