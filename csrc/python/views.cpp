// Views: basic indexing, permute, reshape, broadcast. They share memory and record a rule (a Python function registered by name).
#include <cstring>
#include <string>
#include <unordered_map>

#include "core/record.h"
#include "tensor.h"

namespace fastdl::python {

namespace {

std::unordered_map<std::string, PyObject*>& hooks() {
  static auto* map = new std::unordered_map<std::string, PyObject*>;
  return *map;
}

PyObject* shape_tuple(const View& v) {
  PyObject* t = PyTuple_New(v.ndim);
  for (int d = 0; t && d < v.ndim; d++) PyTuple_SET_ITEM(t, d, PyLong_FromLongLong(v.shape[d]));
  return t;
}

// An int or an object that stands for one (NumPy's integers, anything with __index__), but no bool and no array.
bool is_index(PyObject* o) {
  if (PyLong_Check(o)) return !PyBool_Check(o);
  if (PyBool_Check(o) || PyList_Check(o) || PyTuple_Check(o) || is_tensor(o) || !PyIndex_Check(o)) return false;
  PyObject* integer = hook("np_integer");
  const int numpy = integer ? PyObject_IsInstance(o, integer) : -1;
  if (numpy < 0) PyErr_Clear();
  return numpy > 0 || !PyObject_HasAttrString(o, "shape");
}

PyObject* frozen_number(PyObject* o) {
  if (o == Py_None || PyLong_CheckExact(o)) {
    Py_INCREF(o);
    return o;
  }
  return PyNumber_Index(o);
}

// The key with all numbers of its slices and indices as ints: what a rule keeps for backward must not change meanwhile.
PyObject* frozen_key(PyObject* key) {
  if (PyTuple_Check(key)) {
    const Py_ssize_t n = PyTuple_GET_SIZE(key);
    PyObject* t = PyTuple_New(n);
    for (Py_ssize_t k = 0; t && k < n; k++) {
      PyObject* item = PyTuple_GET_ITEM(key, k);
      if (PyTuple_Check(item)) Py_INCREF(item);  // a sequence of indices
      else item = frozen_key(item);
      if (!item) Py_CLEAR(t);
      else PyTuple_SET_ITEM(t, k, item);
    }
    return t;
  }
  if (PySlice_Check(key)) {
    const auto* s = reinterpret_cast<PySliceObject*>(key);
    PyObject *start = frozen_number(s->start), *stop = start ? frozen_number(s->stop) : nullptr, *step = stop ? frozen_number(s->step) : nullptr;
    PyObject* r = step ? PySlice_New(start, stop, step) : nullptr;
    Py_XDECREF(start);
    Py_XDECREF(stop);
    Py_XDECREF(step);
    return r;
  }
  if (is_index(key)) return frozen_number(key);
  Py_INCREF(key);
  return key;
}

bool plain_key(PyObject* key) {  // what needs no freezing
  const auto plain = [](PyObject* o) { return o == Py_None || PyLong_CheckExact(o); };
  const auto part = [plain](PyObject* o) {
    if (plain(o) || o == Py_Ellipsis) return true;
    const auto* s = reinterpret_cast<PySliceObject*>(o);
    return PySlice_Check(o) && plain(s->start) && plain(s->stop) && plain(s->step);
  };
  if (!PyTuple_Check(key)) return part(key);
  for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(key); k++)
    if (!part(PyTuple_GET_ITEM(key, k))) return false;
  return true;
}

// 1: done, 0: not a basic key, -1: error
int basic_index(const View in, PyObject* key, View* out) {
  PyObject* const* items = &key;
  Py_ssize_t n = 1;
  if (PyTuple_Check(key)) items = &PyTuple_GET_ITEM(key, 0), n = PyTuple_GET_SIZE(key);
  int consumed = 0, ellipsis = -1;
  for (Py_ssize_t k = 0; k < n; k++) {
    PyObject* o = items[k];
    if (o == Py_None) continue;
    if (o == Py_Ellipsis) {
      if (ellipsis >= 0) return raise(ErrorCode::Index, "index: only one ... is allowed"), -1;
      ellipsis = int(k);
    } else if (PySlice_Check(o) || is_index(o)) {
      consumed++;
    } else {
      return 0;
    }
  }
  if (consumed > in.ndim)
    return raise(ErrorCode::Index, "index: %d indices for a tensor of %d dimensions, shape %s", consumed, in.ndim, shape_text(in).c_str()), -1;
  *out = in;
  int d = 0, m = 0;
  const int64_t item = itemsize(in.dtype);
  char* data = static_cast<char*>(in.data);
  const auto push = [&](int64_t size, int64_t stride) {
    if (m < kMaxDims) out->shape[m] = size, out->strides[m] = stride;
    m++;
  };
  for (Py_ssize_t k = 0; k <= n; k++) {
    if (k == n || k == ellipsis) {  // the rest, or all that ... stands for
      const int rest = k == n ? in.ndim - d : in.ndim - consumed;
      if (k == n && ellipsis >= 0) break;
      for (int j = 0; j < rest; j++, d++) push(in.shape[d], in.strides[d]);
      continue;
    }
    PyObject* o = items[k];
    if (o == Py_None) {
      push(1, 0);
    } else if (PySlice_Check(o)) {
      Py_ssize_t start, stop, step;
      if (PySlice_Unpack(o, &start, &stop, &step) < 0) return -1;
      const Py_ssize_t count = PySlice_AdjustIndices(in.shape[d], &start, &stop, step);
      if (count > 0) data += start * in.strides[d] * item;
      push(count, count > 1 ? in.strides[d] * step : in.strides[d]);
      d++;
    } else {
      const Py_ssize_t i = PyNumber_AsSsize_t(o, PyExc_IndexError);
      if (i == -1 && PyErr_Occurred()) return -1;
      if (i < -in.shape[d] || i >= in.shape[d])
        return raise(ErrorCode::Index, "index: %lld is out of range for axis %d of size %lld", static_cast<long long>(i), d,
                     static_cast<long long>(in.shape[d])), -1;
      data += (i < 0 ? i + in.shape[d] : i) * in.strides[d] * item;
      d++;
    }
  }
  if (m > kMaxDims) return raise(ErrorCode::Shape, "index: the result would have %d dimensions; at most %d are supported", m, kMaxDims), -1;
  out->ndim = m;
  out->data = data;
  return 1;
}

}  // namespace

PyObject* hook(const char* name) {
  const auto it = hooks().find(name);
  if (it != hooks().end()) return it->second;
  PyErr_Format(PyExc_RuntimeError, "fastdl is not fully imported: '%s' is missing", name);
  return nullptr;
}
bool set_hook(const char* name, PyObject* fn) {
  Py_INCREF(fn);
  PyObject*& slot = hooks()[name];
  Py_XDECREF(slot);
  slot = fn;
  return true;
}

bool broadcast_view(const View& in, const int64_t* shape, int ndim, View* out) {
  bool ok = in.ndim <= ndim;
  const int extra = ndim - in.ndim;
  out->data = in.data;
  out->dtype = in.dtype;
  out->ndim = ndim;
  for (int d = 0; ok && d < ndim; d++) {
    out->shape[d] = shape[d];
    const int s = d - extra;
    if (s < 0) out->strides[d] = 0;
    else if (in.shape[s] == shape[d]) out->strides[d] = in.strides[s];
    else if (in.shape[s] == 1) out->strides[d] = 0;
    else ok = false;
  }
  if (!ok) raise(ErrorCode::Shape, "broadcast_to: shape %s does not broadcast to %s", shape_text(in).c_str(), shape_text(shape, ndim).c_str());
  return ok;
}

TensorObject* make_view(TensorObject* base, const View& view, const char* rule, PyObject* saved_owned) {
  TensorObject* t = new_tensor(retain(base->buffer), view);
  if (t) {
    t->is_view = true;
    t->detached = base->detached;
    t->version = base->version;
    if (rule && grad_enabled && needs_grad(base) && is_differentiable(view.dtype)) {
      PyObject* fn = check_version(base, rule) ? hook(rule) : nullptr;
      PyObject* name = fn ? PyUnicode_FromString(rule) : nullptr;
      PyObject* input = as_object(base);
      if (!name || !record_rule(name, fn, saved_owned, &input, 1, &t, 1)) {
        Py_DECREF(as_object(t));
        t = nullptr;
      }
      Py_XDECREF(name);
    }
  }
  Py_XDECREF(saved_owned);
  return t;
}

static bool same_memory(const TensorObject* t, const Buffer* before, const char* data) {  // an index may be any Python object
  if (t->buffer == before && t->view.data == data) return true;
  raise(ErrorCode::Value, "index: the tensor got other memory while its index was evaluated");
  return false;
}

PyObject* tensor_subscript(PyObject* self, PyObject* key) {
  TensorObject* t = as_tensor(self);
  const bool graph = grad_enabled && needs_grad(t);
  PyObject* frozen = graph && !plain_key(key) ? frozen_key(key) : nullptr;
  if (frozen) key = frozen;
  else if (PyErr_Occurred()) return nullptr;
  const Running running;
  const Buffer* buffer = t->buffer;
  const char* data = t->view.ptr<char>();
  PyObject* result = nullptr;
  View v;
  const int basic = basic_index(t->view, key, &v);
  if (basic == 0) {
    PyObject* fn = hook("getitem_advanced");
    result = fn ? PyObject_CallFunctionObjArgs(fn, self, key, nullptr) : nullptr;
  } else if (basic > 0 && same_memory(t, buffer, data)) {
    PyObject* saved = graph ? Py_BuildValue("(NO)", shape_tuple(t->view), key) : nullptr;
    result = as_object(make_view(t, v, "getitem", saved));
  }
  Py_XDECREF(frozen);
  return result;
}

// raw write of value (tensor, array or number) into a view
static int assign(TensorObject* dst, PyObject* value) {
  touch(dst->buffer);
  if (is_scalar(value)) return fill_view(dst->view, value, dst->buffer->device) ? 0 : -1;
  TensorObject* src = tensor_from(value);
  if (!src) return -1;
  const bool ok = copy_into(dst, src);
  Py_DECREF(as_object(src));
  return ok ? 0 : -1;
}

int tensor_ass_subscript(PyObject* self, PyObject* key, PyObject* value) {
  TensorObject* t = as_tensor(self);
  if (!value) return raise(ErrorCode::Type, "tensor elements cannot be deleted"), -1;
  const bool graph = grad_enabled && (needs_grad(t) || (is_tensor(value) && needs_grad(as_tensor(value))));
  if (graph && (!check_inplace(t, "setitem") || (is_tensor(value) && !check_version(as_tensor(value), "setitem")))) return -1;
  PyObject* frozen = frozen_key(key);
  if (!frozen) return -1;
  struct Release {
    PyObject** o;
    ~Release() { Py_XDECREF(*o); }
  } release_key{&frozen};
  const Running running;
  const Buffer* buffer = t->buffer;
  const char* data = t->view.ptr<char>();
  View v;
  const int basic = basic_index(t->view, frozen, &v);
  if (basic < 0 || !same_memory(t, buffer, data)) return -1;
  TensorObject* old = graph ? alias_tensor(t, true) : nullptr;
  if (graph && !old) return -1;
  int status = -1;
  if (basic) {
    TensorObject* dst = make_view(t, v, nullptr, nullptr);
    if (dst) status = assign(dst, value);
    Py_XDECREF(as_object(dst));
  } else {
    PyObject* fn = hook("setitem_advanced");
    const bool enabled = grad_enabled;
    grad_enabled = false;
    PyObject* r = fn ? PyObject_CallFunctionObjArgs(fn, self, frozen, value, Py_False, graph ? Py_True : Py_False, nullptr) : nullptr;
    grad_enabled = enabled;
    status = r ? 0 : -1;
    if (r) Py_SETREF(frozen, r);  // for the rule: the indices in memory of their own
  }
  if (status == 0) bump_version(t);
  if (status == 0 && graph) {
    PyObject* fn = hook("setitem");
    PyObject* name = PyUnicode_FromString("setitem");
    PyObject* shape = is_tensor(value) ? shape_tuple(as_tensor(value)->view) : PyTuple_New(0);
    PyObject* saved = name && shape ? PyTuple_Pack(2, frozen, shape) : nullptr;
    PyObject* inputs[2] = {as_object(old), value};
    t->requires_grad = false;
    if (t->node) node_release(t->node), t->node = nullptr;
    if (!fn || !saved || !record_rule(name, fn, saved, inputs, 2, &t, 1)) status = -1;
    t->buffer->graph_version = t->buffer->version;
    Py_XDECREF(name);
    Py_XDECREF(shape);
    Py_XDECREF(saved);
  }
  Py_XDECREF(as_object(old));
  return status;
}

PyObject* py_permute(PyObject* self, PyObject* axes) {
  TensorObject* t = as_tensor(self);
  PyObject* seq = as_tuple(axes);
  if (!seq) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) return nullptr;
    PyErr_Clear();
    return raise(ErrorCode::Type, "permute: axes must be a sequence of ints, not %.80s", Py_TYPE(axes)->tp_name);
  }
  const View in = t->view;
  const Running running;
  const Buffer* buffer = t->buffer;
  View v = in;
  bool seen[kMaxDims] = {};
  const Py_ssize_t n = PyTuple_GET_SIZE(seq);
  bool ok = n == in.ndim;
  PyObject* inverse = PyTuple_New(in.ndim);
  for (Py_ssize_t k = 0; ok && k < n; k++) {
    Py_ssize_t a = PyNumber_AsSsize_t(PyTuple_GET_ITEM(seq, k), PyExc_IndexError);
    if (a == -1 && PyErr_Occurred()) break;
    if (a < 0) a += n;
    ok = a >= 0 && a < n && !seen[a];
    if (!ok) break;
    seen[a] = true;
    v.shape[k] = in.shape[a];
    v.strides[k] = in.strides[a];
    PyTuple_SET_ITEM(inverse, a, PyLong_FromSsize_t(k));
  }
  if (!ok || PyErr_Occurred()) {
    if (!PyErr_Occurred()) raise(ErrorCode::Value, "permute: axes %R are not a permutation of the %d dimensions",
                                 axes, in.ndim);
    Py_DECREF(seq);
    Py_DECREF(inverse);
    return nullptr;
  }
  Py_DECREF(seq);
  if (!same_memory(t, buffer, static_cast<char*>(in.data))) {
    Py_DECREF(inverse);
    return nullptr;
  }
  return as_object(make_view(t, v, "permute", Py_BuildValue("(N)", inverse)));
}

// Strides that give `shape` over the same memory, if there are any.
static bool view_strides(const View& in, View* v) {
  View s = in;  // without size-1 dims, adjacent dims merged where memory allows
  int n = 0;
  for (int d = 0; d < in.ndim; d++) {
    if (in.shape[d] == 1) continue;
    if (n && s.strides[n - 1] == in.shape[d] * in.strides[d]) s.shape[n - 1] *= in.shape[d], s.strides[n - 1] = in.strides[d];
    else s.shape[n] = in.shape[d], s.strides[n] = in.strides[d], n++;
  }
  int d = v->ndim - 1;
  for (int k = n - 1; k >= 0; k--) {
    int64_t left = s.shape[k], stride = s.strides[k];
    while (left > 1 || (d >= 0 && v->shape[d] == 1)) {
      if (d < 0 || left % v->shape[d]) return false;
      v->strides[d] = stride;
      stride *= v->shape[d];
      left /= v->shape[d];
      d--;
      if (left == 1 && (d < 0 || v->shape[d] != 1)) break;
    }
  }
  for (; d >= 0; d--) {
    if (v->shape[d] != 1) return false;
    v->strides[d] = 1;
  }
  return true;
}

PyObject* py_reshape(PyObject* self, PyObject* shape) {
  TensorObject* t = as_tensor(self);
  View v;
  v.ndim = 0;
  int infer = -1;
  int64_t known = 1;
  PyObject* seq = PyLong_Check(shape) || (PyIndex_Check(shape) && !PySequence_Check(shape)) ? PyTuple_Pack(1, shape) : as_tuple(shape);
  if (!seq) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) return nullptr;
    PyErr_Clear();
    return raise(ErrorCode::Type, "reshape: a shape is an int or a sequence of ints, not %.80s", Py_TYPE(shape)->tp_name);
  }
  const Py_ssize_t n = PyTuple_GET_SIZE(seq);
  if (n > kMaxDims) {
    Py_DECREF(seq);
    return raise(ErrorCode::Shape, "reshape: %zd dimensions asked; at most %d are supported", n, kMaxDims);
  }
  bool overflow = false;
  for (Py_ssize_t k = 0; k < n; k++) {
    const Py_ssize_t s = PyNumber_AsSsize_t(PyTuple_GET_ITEM(seq, k), PyExc_OverflowError);
    if (s == -1 && PyErr_Occurred()) {
      Py_DECREF(seq);
      return nullptr;
    }
    if (s < -1 || (s == -1 && infer >= 0)) {
      Py_DECREF(seq);
      return raise(ErrorCode::Value, s < -1 ? "reshape: negative size %zd" : "reshape: only one size can be -1", s);
    }
    v.shape[v.ndim++] = s;
    if (s < 0) infer = int(k);
    else overflow = overflow || __builtin_mul_overflow(known, int64_t(s), &known);
  }
  Py_DECREF(seq);
  const int64_t total = t->view.numel();
  const bool fits = !overflow && (infer < 0 ? known == total : known > 0 ? total % known == 0 : false);
  if (!fits)
    return raise(ErrorCode::Shape, "reshape: %lld elements of shape %s do not fit shape %s", static_cast<long long>(total),
                 shape_text(t->view).c_str(), shape_text(v.shape, v.ndim).c_str());
  if (infer >= 0) v.shape[infer] = total / known;
  v.data = t->view.data;
  v.dtype = t->view.dtype;
  PyObject* copy = nullptr;
  if (total == 0 || t->view.contiguous()) {
    set_contiguous_strides(v);
  } else if (!view_strides(t->view, &v)) {
    OpObject* op = op_objects[int(OpId::copy)];
    PyObject* row_major = PyUnicode_FromString("contiguous");
    PyObject* bound[3] = {self, Py_None, row_major};
    copy = dispatch(op, bound);
    Py_DECREF(row_major);
    if (!copy) return nullptr;
    t = as_tensor(copy);
    v.data = t->view.data;
    set_contiguous_strides(v);
  }
  PyObject* saved = needs_grad(t) && grad_enabled ? Py_BuildValue("(N)", shape_tuple(t->view)) : nullptr;
  TensorObject* result = make_view(t, v, "reshape", saved);
  if (copy && result) result->is_view = false;
  Py_XDECREF(copy);
  return as_object(result);
}

PyObject* py_broadcast_to(PyObject* self, PyObject* shape) {
  TensorObject* t = as_tensor(self);
  int64_t sizes[kMaxDims];
  int n;
  View v;
  if (!get_shape(shape, "broadcast_to", sizes, &n) || !broadcast_view(t->view, sizes, n, &v)) return nullptr;
  try {
    checked_numel("broadcast_to", sizes, n, itemsize(v.dtype));
  } catch (const Error& e) {
    return raise(e);
  }
  return as_object(make_view(t, v, "broadcast_to", PyTuple_New(0)));
}

// Any strided window that stays inside the buffer; strides in elements, offset from the tensor's first element.
PyObject* py_as_strided(PyObject* self, PyObject* shape, PyObject* strides, Py_ssize_t offset, const char* rule, PyObject* saved) {
  TensorObject* t = as_tensor(self);
  View v;
  int64_t sizes[kMaxDims];
  int n;
  if (!get_shape(shape, "as_strided", sizes, &n)) return nullptr;
  PyObject* seq = as_tuple(strides);
  if (!seq) return nullptr;
  bool ok = PyTuple_GET_SIZE(seq) == n;
  v.ndim = n;
  v.dtype = t->view.dtype;
  const int64_t item = itemsize(v.dtype), base = static_cast<char*>(t->view.data) - static_cast<char*>(t->buffer->data);
  __int128 lo = base + __int128(offset) * item, hi = lo + item;
  const __int128 first = lo;
  bool empty = false;
  for (int d = 0; ok && d < n; d++) {
    v.shape[d] = sizes[d];
    const Py_ssize_t s = PyNumber_AsSsize_t(PyTuple_GET_ITEM(seq, d), PyExc_OverflowError);
    if (s == -1 && PyErr_Occurred()) {
      Py_DECREF(seq);
      return nullptr;
    }
    v.strides[d] = s;
    empty = empty || sizes[d] == 0;
    ok = sizes[d] <= int64_t(1) << 46 && s <= int64_t(1) << 46 && s >= -(int64_t(1) << 46);  // beyond any memory
    const __int128 span = ok ? __int128(sizes[d] - 1) * s * item : 0;
    if (span < 0) lo += span; else hi += span;
  }
  Py_DECREF(seq);
  if (!ok || (!empty && (lo < 0 || hi > t->buffer->bytes)))
    return raise(ErrorCode::Value, "as_strided: shape and strides reach outside the tensor's memory of %lld bytes",
                 static_cast<long long>(t->buffer->bytes));
  v.data = empty ? t->view.data : static_cast<char*>(t->buffer->data) + int64_t(first);
  Py_XINCREF(saved);
  return as_object(make_view(t, v, rule, saved));
}

}  // namespace fastdl::python
