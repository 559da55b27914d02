#include "tree.h"

#include <cstring>

#include "operands.h"

namespace fastdl::python {

namespace {

// Values that are part of a call's key by what they are; everything else by which object it is.
bool by_value(PyObject* o) {
  return o == Py_None || PyBool_Check(o) || PyLong_CheckExact(o) || PyFloat_CheckExact(o) || PyUnicode_CheckExact(o) || PyBytes_CheckExact(o) ||
         PyComplex_CheckExact(o);
}

bool is_numpy_scalar(PyObject* o) {
  PyObject* type = hook("np_generic");
  return type && PyObject_TypeCheck(o, reinterpret_cast<PyTypeObject*>(type));
}

bool same_static(PyObject* a, PyObject* b) {
  if (a == b) return true;
  if (Py_TYPE(a) != Py_TYPE(b)) return false;
  if (!by_value(a)) {
    if (!is_numpy_scalar(a)) return false;
    PyObject *x = PyObject_Repr(a), *y = PyObject_Repr(b);  // tells -0.0 from 0.0
    const bool same = x && y && PyUnicode_Compare(x, y) == 0;
    Py_XDECREF(x);
    Py_XDECREF(y);
    return same;
  }
  if (PyFloat_CheckExact(a)) {  // -0.0 is not 0.0, NaN is itself
    const double x = PyFloat_AS_DOUBLE(a), y = PyFloat_AS_DOUBLE(b);
    return !std::memcmp(&x, &y, sizeof x);
  }
  return PyObject_RichCompareBool(a, b, Py_EQ) == 1;
}

bool is_array(PyObject* o) {
  PyObject* type = hook("np_ndarray");
  return type && PyObject_TypeCheck(o, reinterpret_cast<PyTypeObject*>(type));
}

}  // namespace

Tree::~Tree() { Py_XDECREF(value); }

bool Tree::describe(PyObject* o, std::vector<TensorObject*>* found, std::vector<PyObject*>* converted) {
  if (is_tensor(o) || is_array(o)) {
    if (!is_tensor(o)) {
      TensorObject* t = tensor_from(o);
      if (!t) return false;
      converted->push_back(o = as_object(t));
    }
    kind = Leaf;
    leaf = int(found->size());
    found->push_back(as_tensor(o));
    return true;
  }
  const bool tuple = PyTuple_CheckExact(o) || (PyTuple_Check(o) && PyObject_HasAttrString(o, "_fields")), list = PyList_CheckExact(o);
  Py_INCREF(o);
  if (tuple || list) {
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(o);
    kind = tuple ? Tuple : List;
    value = reinterpret_cast<PyObject*>(Py_TYPE(o));
    Py_INCREF(value);
    for (Py_ssize_t k = 0; k < n; k++) {
      children.emplace_back(new Tree);
      if (!children.back()->describe(PySequence_Fast_GET_ITEM(o, k), found, converted)) return Py_DECREF(o), false;
    }
    Py_DECREF(o);
    return true;
  }
  if (PyDict_CheckExact(o)) {
    kind = Dict;
    value = PyDict_Keys(o);
    PyObject *key, *item;
    Py_ssize_t at = 0;
    while (value && PyDict_Next(o, &at, &key, &item)) {
      children.emplace_back(new Tree);
      if (!children.back()->describe(item, found, converted)) return Py_DECREF(o), false;
    }
    Py_DECREF(o);
    return value != nullptr;
  }
  kind = Static;
  value = o;  // takes the reference
  return true;
}

bool Tree::match(PyObject* o, std::vector<TensorObject*>* found, std::vector<PyObject*>* converted) const {
  switch (kind) {
    case Leaf: {
      if (!is_tensor(o)) {
        if (!is_array(o)) return false;
        TensorObject* t = tensor_from(o);
        if (!t) return PyErr_Clear(), false;
        converted->push_back(o = as_object(t));
      }
      found->push_back(as_tensor(o));
      return true;
    }
    case Tuple:
    case List: {
      if (reinterpret_cast<PyObject*>(Py_TYPE(o)) != value || PySequence_Fast_GET_SIZE(o) != Py_ssize_t(children.size())) return false;
      for (size_t k = 0; k < children.size(); k++)
        if (!children[k]->match(PySequence_Fast_GET_ITEM(o, Py_ssize_t(k)), found, converted)) return false;
      return true;
    }
    case Dict: {
      if (!PyDict_CheckExact(o) || PyDict_GET_SIZE(o) != Py_ssize_t(children.size())) return false;
      for (size_t k = 0; k < children.size(); k++) {
        PyObject* item = PyDict_GetItemWithError(o, PyList_GET_ITEM(value, Py_ssize_t(k)));
        if (!item || !children[k]->match(item, found, converted)) return PyErr_Clear(), false;
      }
      return true;
    }
    case Static: {
      const bool same = !is_tensor(o) && same_static(value, o);
      if (PyErr_Occurred()) PyErr_Clear();
      return same;
    }
  }
  return false;
}

PyObject* Tree::build(const std::vector<PyObject*>& leaves) const {
  if (kind == Leaf || kind == Static) {
    PyObject* o = kind == Leaf ? leaves[size_t(leaf)] : value;
    Py_INCREF(o);
    return o;
  }
  const Py_ssize_t n = Py_ssize_t(children.size());
  if (kind == Dict) {
    PyObject* d = PyDict_New();
    for (Py_ssize_t k = 0; d && k < n; k++) {
      PyObject* o = children[size_t(k)]->build(leaves);
      if (!o || PyDict_SetItem(d, PyList_GET_ITEM(value, k), o) < 0) Py_CLEAR(d);
      Py_XDECREF(o);
    }
    return d;
  }
  PyObject* seq = kind == List ? PyList_New(n) : PyTuple_New(n);
  for (Py_ssize_t k = 0; seq && k < n; k++) {
    PyObject* o = children[size_t(k)]->build(leaves);
    if (!o) Py_CLEAR(seq);
    else if (kind == List) PyList_SET_ITEM(seq, k, o);
    else PyTuple_SET_ITEM(seq, k, o);
  }
  if (seq && kind == Tuple && value != reinterpret_cast<PyObject*>(&PyTuple_Type)) {  // a named tuple
    PyObject* named = PyObject_CallObject(value, seq);  // one argument per field
    Py_DECREF(seq);
    seq = named;
  }
  return seq;
}

int Tree::traverse(visitproc visit, void* arg) const {
  Py_VISIT(value);
  for (const auto& child : children)
    if (const int stop = child->traverse(visit, arg)) return stop;
  return 0;
}

void Tree::clear() {
  Py_CLEAR(value);
  children.clear();
  kind = Static;
}

}  // namespace fastdl::python
