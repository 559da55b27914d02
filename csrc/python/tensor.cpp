// fd.Tensor as a CPython type: construction, attributes, number protocol. Methods that are ops are attached from Python.
#include "capture.h"

#include <algorithm>
#include <cstring>

#include "core/cuda.h"

namespace fastdl::python {

PyTypeObject* tensor_type = nullptr;

namespace {

// Freed objects of the exact type, ready for reuse.
constexpr int kFreeListSize = 256;
TensorObject* free_list[kFreeListSize];
int free_count = 0;

TensorObject* allocate_object() {
  TensorObject* t;
  if (free_count > 0) {
    t = free_list[--free_count];
    PyObject_Init(as_object(t), tensor_type);
  } else {
    t = PyObject_New(TensorObject, tensor_type);
    if (!t) return nullptr;
  }
  t->node = nullptr;
  t->output_nr = 0;
  t->version = 0;
  t->requires_grad = false;
  t->is_view = t->detached = false;
  t->grad = nullptr;
  t->weakrefs = nullptr;
  return t;
}

// Drops an object that may lead to further tensors (a gradient's gradient ...): a long chain must not become deep recursion.
void drop(PyObject* o) {
  static int depth = 0;
  static auto* later = new std::vector<PyObject*>;
  if (!o) return;
  if (depth >= 32) return later->push_back(o);
  depth++;
  Py_DECREF(o);
  while (depth == 1 && !later->empty()) {
    PyObject* next = later->back();
    later->pop_back();
    Py_DECREF(next);
  }
  depth--;
}

// Subclasses with a __dict__ are tracked by the garbage collector; Tensor itself is not.
int tensor_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(as_tensor(self)->grad);
  return 0;
}
int tensor_clear(PyObject* self) {
  Py_CLEAR(as_tensor(self)->grad);
  return 0;
}

void tensor_dealloc(PyObject* self) {
  TensorObject* t = as_tensor(self);
  if (t->weakrefs) PyObject_ClearWeakRefs(self);
  Node* node = t->node;
  t->node = nullptr;
  drop(t->grad);
  t->grad = nullptr;
  release(t->buffer);
  PyTypeObject* type = Py_TYPE(self);
  if (type == tensor_type && free_count < kFreeListSize) free_list[free_count++] = t;
  else type->tp_free(self);
  Py_DECREF(type);
  if (node) node_release(node);
}

// Strides of `shape` in the memory order of v, if v is dense; false otherwise.
bool strides_like(const View& v, View* out) {
  if (v.ndim != out->ndim || std::memcmp(v.shape, out->shape, sizeof(int64_t) * v.ndim) != 0) return false;
  int order[kMaxDims];
  for (int d = 0; d < v.ndim; d++) order[d] = d;
  std::stable_sort(order, order + v.ndim, [&](int a, int b) { return v.strides[a] > v.strides[b]; });
  int64_t s = 1;
  for (int k = v.ndim - 1; k >= 0; k--) {
    const int d = order[k];
    if (v.shape[d] != 1 && v.strides[d] != s) return false;
    out->strides[d] = s;
    s *= v.shape[d];
  }
  return true;
}

}  // namespace

TensorObject* new_tensor(Buffer* buffer, const View& view) {
  TensorObject* t = allocate_object();
  if (!t) {
    release(buffer);
    return nullptr;
  }
  t->buffer = buffer;
  t->view = view;
  t->version = buffer->version;
  return t;
}

TensorObject* empty_tensor(DType dtype, const int64_t* shape, int ndim, Layout layout, const View* like, int likes, Device device) {
  View v;
  v.dtype = dtype;
  v.ndim = ndim;
  int64_t n;
  try {
    for (int d = 0; d < ndim; d++) v.shape[d] = shape[d];
    n = checked_numel("tensor", shape, ndim, itemsize(dtype));
    bool done = false;
    if (layout == Layout::Like && ndim > 1)
      for (int k = 0; k < likes && !done; k++) done = like[k].given() && !like[k].contiguous() && strides_like(like[k], &v);
    if (layout == Layout::ChannelsLast && ndim >= 3) {
      int64_t s = 1;
      const auto set = [&](int d) { v.strides[d] = s, s *= std::max<int64_t>(v.shape[d], 1); };
      set(1);
      for (int d = ndim - 1; d >= 2; d--) set(d);
      set(0);
      done = true;
    }
    if (!done) set_contiguous_strides(v);
    if (layout == Layout::PlacesFirst && ndim >= 3) {
      v.strides[ndim - 3] = v.strides[ndim - 2];
      v.strides[ndim - 2] *= std::max<int64_t>(v.shape[ndim - 3], 1);
    }
    Buffer* buffer = device.kind == Device::CPU ? alloc_buffer(n * itemsize(dtype)) : alloc_cuda_buffer(n * itemsize(dtype), device.index);
    v.data = buffer->data;
    return new_tensor(buffer, v);
  } catch (const Error& e) {
    raise(e);
    return nullptr;
  }
}

TensorObject* alias_tensor(TensorObject* t, bool keep_node) {
  TensorObject* a = new_tensor(retain(t->buffer), t->view);
  if (!a) return nullptr;
  a->is_view = t->is_view;
  a->detached = t->detached;
  if (keep_node && t->node) {
    a->node = node_retain(t->node);
    a->output_nr = t->output_nr;
    a->version = t->version;
  }
  return a;
}

namespace {

PyObject* tensor_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* const names[] = {"data", "dtype", "requires_grad", nullptr};
  PyObject *data, *dtype = Py_None;
  int requires_grad = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|Op:Tensor", const_cast<char**>(names), &data, &dtype, &requires_grad)) return nullptr;
  int code = -1;
  if (dtype != Py_None && (code = dtype_code(dtype)) < 0) return nullptr;
  TensorObject* t = tensor_from(data, code, 1);
  if (!t) return nullptr;
  PyObject* self = as_object(t);
  if (type != tensor_type) {
    self = type->tp_alloc(type, 0);
    if (self) {
      TensorObject* s = as_tensor(self);
      s->buffer = retain(t->buffer);
      s->view = t->view;
      s->version = t->version;
    }
    Py_DECREF(as_object(t));
    if (!self) return nullptr;
  }
  if (requires_grad) {
    if (!is_differentiable(as_tensor(self)->view.dtype)) {
      raise(ErrorCode::Grad, "Tensor: dtype %s cannot require grad; need a float or complex dtype", dtype_name(as_tensor(self)->view.dtype));
      Py_DECREF(self);
      return nullptr;
    }
    as_tensor(self)->requires_grad = true;
  }
  return self;
}

// ---- attributes --------------------------------------------------------------------------------------------------
PyObject* get_shape_tuple(PyObject* self, void*) {
  const View& v = as_tensor(self)->view;
  PyObject* t = PyTuple_New(v.ndim);
  for (int d = 0; t && d < v.ndim; d++) PyTuple_SET_ITEM(t, d, PyLong_FromLongLong(v.shape[d]));
  return t;
}
PyObject* get_strides(PyObject* self, void*) {
  const View& v = as_tensor(self)->view;
  PyObject* t = PyTuple_New(v.ndim);
  for (int d = 0; t && d < v.ndim; d++) PyTuple_SET_ITEM(t, d, PyLong_FromLongLong(v.strides[d] * itemsize(v.dtype)));
  return t;
}
PyObject* get_ndim(PyObject* self, void*) { return PyLong_FromLong(as_tensor(self)->view.ndim); }
PyObject* get_size(PyObject* self, void*) { return PyLong_FromLongLong(as_tensor(self)->view.numel()); }
PyObject* get_itemsize(PyObject* self, void*) { return PyLong_FromLongLong(itemsize(as_tensor(self)->view.dtype)); }
PyObject* get_nbytes(PyObject* self, void*) {
  return PyLong_FromLongLong(as_tensor(self)->view.numel() * itemsize(as_tensor(self)->view.dtype));
}
PyObject* get_dtype(PyObject* self, void*) {
  PyObject* d = dtype_object(as_tensor(self)->view.dtype);
  Py_INCREF(d);
  return d;
}
PyObject* get_device(PyObject* self, void*) {
  const Device device = as_tensor(self)->buffer->device;
  if (device.kind == Device::CPU) {
    PyObject* d = hook("cpu_device");
    Py_XINCREF(d);
    return d;
  }
  PyObject* fn = hook("cuda_device");
  return fn ? PyObject_CallFunction(fn, "i", int(device.index)) : nullptr;
}
PyObject* get_requires_grad(PyObject* self, void*) { return PyBool_FromLong(needs_grad(as_tensor(self))); }
int set_requires_grad(PyObject* self, PyObject* value, void*) {
  TensorObject* t = as_tensor(self);
  const int on = value ? PyObject_IsTrue(value) : 0;
  if (on < 0) return -1;
  if (on && !is_differentiable(t->view.dtype))
    return raise(ErrorCode::Grad, "requires_grad: dtype %s cannot require grad; need a float or complex dtype", dtype_name(t->view.dtype)), -1;
  if (t->node) {
    if (!on) return raise(ErrorCode::Grad, "requires_grad: only leaves can change it; use detach()"), -1;
    return 0;
  }
  if (bool(on) != t->requires_grad && Py_TYPE(self) != tensor_type) structure_version++;  // a parameter: captured steps may hold it
  t->requires_grad = on;
  return 0;
}
PyObject* get_is_leaf(PyObject* self, void*) { return PyBool_FromLong(!as_tensor(self)->node); }
PyObject* get_grad(PyObject* self, void*) {
  note_grad(as_tensor(self), false);
  PyObject* g = as_tensor(self)->grad;
  if (!g) Py_RETURN_NONE;
  Py_INCREF(g);
  return g;
}
int set_grad(PyObject* self, PyObject* value, void*) {
  TensorObject* t = as_tensor(self);
  note_grad(t, true);
  if (!value || value == Py_None) {
    Py_CLEAR(t->grad);
    return 0;
  }
  if (!is_tensor(value)) return raise(ErrorCode::Type, "grad: need a tensor or None, not %.80s", Py_TYPE(value)->tp_name), -1;
  const View &g = as_tensor(value)->view, &v = t->view;
  if (g.ndim != v.ndim || std::memcmp(g.shape, v.shape, sizeof(int64_t) * v.ndim) != 0)
    return raise(ErrorCode::Shape, "grad: shape %s does not match the tensor's %s", shape_text(g).c_str(), shape_text(v).c_str()), -1;
  Py_INCREF(value);
  Py_XSETREF(t->grad, value);
  return 0;
}
PyObject* get_grad_fn(PyObject* self, void*) {
  if (!as_tensor(self)->node) Py_RETURN_NONE;
  return node_name(as_tensor(self)->node);
}
PyObject* get_version(PyObject* self, void*) { return PyLong_FromUnsignedLong(as_tensor(self)->buffer->version); }
PyObject* get_transposed(PyObject* self, void* last_two) {
  const int n = as_tensor(self)->view.ndim;
  if (last_two && n < 2) return raise(ErrorCode::Shape, "mT: needs at least 2 dimensions, shape is %s", shape_text(as_tensor(self)->view).c_str());
  PyObject* axes = PyTuple_New(n);
  for (int d = 0; axes && d < n; d++) {
    const int a = !last_two ? n - 1 - d : d == n - 1 ? n - 2 : d == n - 2 ? n - 1 : d;
    PyTuple_SET_ITEM(axes, d, PyLong_FromLong(a));
  }
  PyObject* r = axes ? py_permute(self, axes) : nullptr;
  Py_XDECREF(axes);
  return r;
}

char kLastTwo;
PyGetSetDef tensor_getset[] = {
    {"shape", get_shape_tuple, nullptr, "tuple of int: size of each dimension", nullptr},
    {"strides", get_strides, nullptr, "tuple of int: bytes to step in each dimension", nullptr},
    {"ndim", get_ndim, nullptr, "int: number of dimensions", nullptr},
    {"size", get_size, nullptr, "int: number of elements", nullptr},
    {"itemsize", get_itemsize, nullptr, "int: bytes of one element", nullptr},
    {"nbytes", get_nbytes, nullptr, "int: bytes of all elements", nullptr},
    {"dtype", get_dtype, nullptr, "element type", nullptr},
    {"device", get_device, nullptr, "where the memory is", nullptr},
    {"requires_grad", get_requires_grad, set_requires_grad, "bool: whether ops on it are recorded for backward", nullptr},
    {"is_leaf", get_is_leaf, nullptr, "bool: not the result of a recorded op", nullptr},
    {"grad", get_grad, set_grad, "gradient gathered by backward(), or None", nullptr},
    {"grad_fn", get_grad_fn, nullptr, "name of the op that made it, or None", nullptr},
    {"_version", get_version, nullptr, "int: number of in-place writes to its memory", nullptr},
    {"T", get_transposed, nullptr, "view with the dimensions reversed", nullptr},
    {"mT", get_transposed, nullptr, "view with the last two dimensions swapped", &kLastTwo},
    {}};

// ---- methods -----------------------------------------------------------------------------------------------------
PyObject* method_item(PyObject* self, PyObject* args) {
  if (PyTuple_GET_SIZE(args) == 0) return tensor_item(as_tensor(self));
  PyObject* e = tensor_subscript(self, PyTuple_GET_SIZE(args) == 1 ? PyTuple_GET_ITEM(args, 0) : args);
  if (!e) return nullptr;
  PyObject* r = is_tensor(e) ? tensor_item(as_tensor(e)) : nullptr;
  Py_DECREF(e);
  return r;
}
PyObject* method_tolist(PyObject* self, PyObject*) { return tensor_tolist(as_tensor(self)); }
PyObject* method_detach(PyObject* self, PyObject*) {
  TensorObject* t = alias_tensor(as_tensor(self), false);
  if (t) t->is_view = t->detached = true;
  return as_object(t);
}
PyObject* method_requires_grad_(PyObject* self, PyObject* args) {
  PyObject* on = Py_True;
  if (!PyArg_ParseTuple(args, "|O:requires_grad_", &on)) return nullptr;
  if (set_requires_grad(self, on, nullptr) < 0) return nullptr;
  Py_INCREF(self);
  return self;
}
PyObject* method_is_contiguous(PyObject* self, PyObject*) { return PyBool_FromLong(as_tensor(self)->view.contiguous()); }
PyObject* method_data_ptr(PyObject* self, PyObject*) { return PyLong_FromVoidPtr(as_tensor(self)->view.data); }
PyObject* method_reshape(PyObject* self, PyObject* args) {  // reshape(2, 3) or reshape((2, 3))
  return py_reshape(self, PyTuple_GET_SIZE(args) == 1 ? PyTuple_GET_ITEM(args, 0) : args);
}
PyMethodDef tensor_methods[] = {
    {"item", method_item, METH_VARARGS, "The only element (or the one at the given index) as a Python number."},
    {"tolist", method_tolist, METH_NOARGS, "The elements as (nested) Python lists of numbers."},
    {"detach", method_detach, METH_NOARGS, "The same memory without its gradient history."},
    {"requires_grad_", method_requires_grad_, METH_VARARGS, "Sets requires_grad (default True) and returns self."},
    {"is_contiguous", method_is_contiguous, METH_NOARGS, "Whether memory is row-major without gaps."},
    {"data_ptr", method_data_ptr, METH_NOARGS, "Address of the first element."},
    {"reshape", method_reshape, METH_VARARGS, "The same elements in row-major order with another shape; a view where memory allows, else a copy."},
    {"view", method_reshape, METH_VARARGS, "Alias of reshape."},
    {}};

// ---- number protocol ---------------------------------------------------------------------------------------------
#define FD_NB_BINARY(slot, op) \
  PyObject* slot(PyObject* a, PyObject* b) { return call_binary(OpId::op, a, b); }
#define FD_NB_INPLACE(slot, op) \
  PyObject* slot(PyObject* a, PyObject* b) { return call_inplace(OpId::op, a, b); }
FD_NB_BINARY(nb_add, add)
FD_NB_BINARY(nb_subtract, subtract)
FD_NB_BINARY(nb_multiply, multiply)
FD_NB_BINARY(nb_true_divide, divide)
FD_NB_BINARY(nb_floor_divide, floor_divide)
FD_NB_BINARY(nb_remainder, remainder)
FD_NB_BINARY(nb_and, bitwise_and)
FD_NB_BINARY(nb_or, bitwise_or)
FD_NB_BINARY(nb_xor, bitwise_xor)
FD_NB_BINARY(nb_lshift, left_shift)
FD_NB_BINARY(nb_rshift, right_shift)
FD_NB_INPLACE(nb_iadd, add)
FD_NB_INPLACE(nb_isubtract, subtract)
FD_NB_INPLACE(nb_imultiply, multiply)
FD_NB_INPLACE(nb_itrue_divide, divide)
FD_NB_INPLACE(nb_ifloor_divide, floor_divide)
FD_NB_INPLACE(nb_iremainder, remainder)
FD_NB_INPLACE(nb_iand, bitwise_and)
FD_NB_INPLACE(nb_ior, bitwise_or)
FD_NB_INPLACE(nb_ixor, bitwise_xor)
FD_NB_INPLACE(nb_ilshift, left_shift)
FD_NB_INPLACE(nb_irshift, right_shift)
PyObject* nb_power(PyObject* a, PyObject* b, PyObject* mod) {
  if (mod != Py_None) Py_RETURN_NOTIMPLEMENTED;
  return call_binary(OpId::power, a, b);
}
PyObject* nb_ipower(PyObject* a, PyObject* b, PyObject*) { return call_inplace(OpId::power, a, b); }
PyObject* nb_negative(PyObject* a) { return call_unary(OpId::negative, a); }
PyObject* nb_positive(PyObject* a) { return call_unary(OpId::positive, a); }
PyObject* nb_absolute(PyObject* a) { return call_unary(OpId::abs, a); }
PyObject* nb_invert(PyObject* a) { return call_unary(OpId::bitwise_not, a); }
PyObject* call_hook(const char* name, PyObject* a, PyObject* b) {
  PyObject* fn = hook(name);
  return fn ? PyObject_CallFunctionObjArgs(fn, a, b, nullptr) : nullptr;
}
PyObject* nb_matmul(PyObject* a, PyObject* b) {
  const View* v[2] = {is_tensor(a) ? &as_tensor(a)->view : nullptr, is_tensor(b) ? &as_tensor(b)->view : nullptr};
  if (v[0] && v[1] && v[0]->ndim >= 2 && v[1]->ndim >= 2) return call_binary(OpId::matmul, a, b);
  if (is_scalar(a) || is_scalar(b)) Py_RETURN_NOTIMPLEMENTED;
  return call_hook("matmul", a, b);  // vectors, arrays
}
PyObject* nb_divmod(PyObject* a, PyObject* b) { return call_hook("divmod", a, b); }
int nb_bool(PyObject* self) {
  TensorObject* t = as_tensor(self);
  if (t->view.numel() != 1)
    return raise(ErrorCode::Value, "bool: the truth value of a tensor of shape %s is ambiguous; use any() or all()", shape_text(t->view).c_str()), -1;
  PyObject* o = tensor_item(t);
  if (!o) return -1;
  const int r = PyObject_IsTrue(o);
  Py_DECREF(o);
  return r;
}
PyObject* nb_float(PyObject* self) {
  PyObject* o = tensor_item(as_tensor(self));
  PyObject* r = o ? PyNumber_Float(o) : nullptr;
  Py_XDECREF(o);
  return r;
}
PyObject* nb_int(PyObject* self) {
  PyObject* o = tensor_item(as_tensor(self));
  PyObject* r = o ? PyNumber_Long(o) : nullptr;
  Py_XDECREF(o);
  return r;
}
PyObject* nb_index(PyObject* self) {
  const TensorObject* t = as_tensor(self);
  if (!is_integer(t->view.dtype) || t->view.ndim != 0)
    return raise(ErrorCode::Type, "only a 0-d integer tensor can be an index; this one is %s of shape %s", dtype_name(t->view.dtype),
                 shape_text(t->view).c_str());
  return tensor_item(as_tensor(self));
}

Py_ssize_t tensor_length(PyObject* self) {
  const View& v = as_tensor(self)->view;
  if (v.ndim == 0) return raise(ErrorCode::Type, "len() of a 0-d tensor"), -1;
  return Py_ssize_t(v.shape[0]);
}
PyObject* sequence_item(PyObject* self, Py_ssize_t i) {
  const View& v = as_tensor(self)->view;
  if (v.ndim == 0) return raise(ErrorCode::Index, "a 0-d tensor cannot be indexed");
  if (i < 0 || i >= v.shape[0]) return raise(ErrorCode::Index, "index: %zd is out of range for axis 0 of size %lld", i, static_cast<long long>(v.shape[0]));
  PyObject* key = PyLong_FromSsize_t(i);
  PyObject* r = tensor_subscript(self, key);
  Py_DECREF(key);
  return r;
}
PyObject* tensor_iter(PyObject* self) {
  if (as_tensor(self)->view.ndim == 0) return raise(ErrorCode::Type, "iteration over a 0-d tensor");
  return PySeqIter_New(self);
}
int tensor_contains(PyObject* self, PyObject* value) {
  PyObject* eq = call_binary(OpId::equal, self, value);
  if (!eq || eq == Py_NotImplemented) return Py_XDECREF(eq), eq ? 0 : -1;
  OpObject* any = op_objects[int(OpId::any)];
  PyObject* bound[8] = {eq};
  for (int k = 1; k < any->nparams && k < 8; k++) bound[k] = (*any->params)[k].default_value;
  PyObject* r = dispatch(any, bound);
  Py_DECREF(eq);
  const int found = r ? nb_bool(r) : -1;
  Py_XDECREF(r);
  return found;
}

PyObject* tensor_richcompare(PyObject* a, PyObject* b, int how) {
  static const OpId ids[] = {OpId::less, OpId::less_equal, OpId::equal, OpId::not_equal, OpId::greater, OpId::greater_equal};
  if (b == Py_None || PyUnicode_Check(b)) Py_RETURN_NOTIMPLEMENTED;
  return call_binary(ids[how], a, b);
}
Py_hash_t tensor_hash(PyObject* self) {  // by identity
  const size_t p = reinterpret_cast<size_t>(self);
  const Py_hash_t h = Py_hash_t((p >> 4) | (p << (8 * sizeof p - 4)));
  return h == -1 ? -2 : h;
}
PyObject* tensor_repr(PyObject* self) {
  PyObject* fn = hook("repr");
  return fn ? PyObject_CallFunctionObjArgs(fn, self, nullptr) : nullptr;
}

PyMemberDef tensor_members[] = {{"__weaklistoffset__", T_PYSSIZET, offsetof(TensorObject, weakrefs), READONLY, nullptr}, {}};

#define FD_SLOT(slot, fn) {slot, reinterpret_cast<void*>(fn)}
PyType_Slot tensor_slots[] = {FD_SLOT(Py_tp_new, tensor_new),
                              FD_SLOT(Py_tp_dealloc, tensor_dealloc),
                              FD_SLOT(Py_tp_traverse, tensor_traverse),
                              FD_SLOT(Py_tp_clear, tensor_clear),
                              FD_SLOT(Py_tp_repr, tensor_repr),
                              FD_SLOT(Py_tp_hash, tensor_hash),
                              FD_SLOT(Py_tp_iter, tensor_iter),
                              FD_SLOT(Py_tp_richcompare, tensor_richcompare),
                              FD_SLOT(Py_tp_getset, tensor_getset),
                              FD_SLOT(Py_tp_methods, tensor_methods),
                              FD_SLOT(Py_tp_members, tensor_members),
                              FD_SLOT(Py_mp_length, tensor_length),
                              FD_SLOT(Py_mp_subscript, tensor_subscript),
                              FD_SLOT(Py_mp_ass_subscript, tensor_ass_subscript),
                              FD_SLOT(Py_sq_length, tensor_length),
                              FD_SLOT(Py_sq_item, sequence_item),
                              FD_SLOT(Py_sq_contains, tensor_contains),
                              FD_SLOT(Py_nb_add, nb_add),
                              FD_SLOT(Py_nb_subtract, nb_subtract),
                              FD_SLOT(Py_nb_multiply, nb_multiply),
                              FD_SLOT(Py_nb_true_divide, nb_true_divide),
                              FD_SLOT(Py_nb_floor_divide, nb_floor_divide),
                              FD_SLOT(Py_nb_remainder, nb_remainder),
                              FD_SLOT(Py_nb_divmod, nb_divmod),
                              FD_SLOT(Py_nb_power, nb_power),
                              FD_SLOT(Py_nb_matrix_multiply, nb_matmul),
                              FD_SLOT(Py_nb_and, nb_and),
                              FD_SLOT(Py_nb_or, nb_or),
                              FD_SLOT(Py_nb_xor, nb_xor),
                              FD_SLOT(Py_nb_lshift, nb_lshift),
                              FD_SLOT(Py_nb_rshift, nb_rshift),
                              FD_SLOT(Py_nb_inplace_add, nb_iadd),
                              FD_SLOT(Py_nb_inplace_subtract, nb_isubtract),
                              FD_SLOT(Py_nb_inplace_multiply, nb_imultiply),
                              FD_SLOT(Py_nb_inplace_true_divide, nb_itrue_divide),
                              FD_SLOT(Py_nb_inplace_floor_divide, nb_ifloor_divide),
                              FD_SLOT(Py_nb_inplace_remainder, nb_iremainder),
                              FD_SLOT(Py_nb_inplace_power, nb_ipower),
                              FD_SLOT(Py_nb_inplace_and, nb_iand),
                              FD_SLOT(Py_nb_inplace_or, nb_ior),
                              FD_SLOT(Py_nb_inplace_xor, nb_ixor),
                              FD_SLOT(Py_nb_inplace_lshift, nb_ilshift),
                              FD_SLOT(Py_nb_inplace_rshift, nb_irshift),
                              FD_SLOT(Py_nb_negative, nb_negative),
                              FD_SLOT(Py_nb_positive, nb_positive),
                              FD_SLOT(Py_nb_absolute, nb_absolute),
                              FD_SLOT(Py_nb_invert, nb_invert),
                              FD_SLOT(Py_nb_bool, nb_bool),
                              FD_SLOT(Py_nb_float, nb_float),
                              FD_SLOT(Py_nb_int, nb_int),
                              FD_SLOT(Py_nb_index, nb_index),
                              FD_SLOT(Py_bf_getbuffer, tensor_getbuffer),
                              FD_SLOT(Py_bf_releasebuffer, tensor_releasebuffer),
                              {0, nullptr}};
PyType_Spec tensor_spec = {"fastdl.Tensor", sizeof(TensorObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, tensor_slots};

}  // namespace

bool make_tensor_type(PyObject* module) {
  tensor_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&tensor_spec));
  return tensor_type && PyModule_AddObjectRef(module, "Tensor", reinterpret_cast<PyObject*>(tensor_type)) == 0;
}

}  // namespace fastdl::python
