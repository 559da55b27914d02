// Op: the callable behind every op. It binds arguments by the stanza's signature, infers shapes, allocates, launches and records.
#include <cstring>

#include "device.h"

namespace fastdl::python {

PyTypeObject* op_type = nullptr;
OpObject* op_objects[kNumOps];

namespace {

PyObject* op_vectorcall(PyObject* self, PyObject* const* args, size_t nargsf, PyObject* kwnames) {
  OpObject* op = reinterpret_cast<OpObject*>(self);
  if (op->op < 0) return PyObject_Vectorcall(op->body, args, nargsf, kwnames);
  const Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
  const int n = op->nparams;
  const auto& params = *op->params;
  if (nargs > n)
    return raise(ErrorCode::Type, "%U: takes at most %d arguments, %zd given", op->name, n, nargs);
  constexpr int kMaxParams = 24;
  PyObject* bound[kMaxParams];
  for (int k = 0; k < nargs; k++) bound[k] = args[k];
  for (int k = int(nargs); k < n; k++) bound[k] = params[k].default_value;
  const Py_ssize_t nkw = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
  PyObject* out = nullptr;
  for (Py_ssize_t j = 0; j < nkw; j++) {
    PyObject* key = PyTuple_GET_ITEM(kwnames, j);
    int k = 0;
    while (k < n && params[k].name != key) k++;
    if (k == n)
      for (k = 0; k < n; k++)
        if (PyUnicode_Compare(params[k].name, key) == 0) break;
    if (k == n) {
      if (op->elementwise && PyUnicode_CompareWithASCIIString(key, "out") == 0) {
        out = args[nargs + j] == Py_None ? nullptr : args[nargs + j];
        continue;
      }
      return raise(ErrorCode::Type, "%U: unknown argument '%U'", op->name, key);
    }
    if (k < nargs) return raise(ErrorCode::Type, "%U: argument '%U' is given twice", op->name, key);
    bound[k] = args[nargs + j];
  }
  for (int k = 0; k < n; k++)
    if (!bound[k]) return raise(ErrorCode::Type, "%U: argument '%U' is missing", op->name, params[k].name);
  if (!out) return dispatch(op, bound);
  if (!is_tensor(out)) return raise(ErrorCode::Type, "%U: out is %.80s; need a tensor", op->name, Py_TYPE(out)->tp_name);
  TensorObject* t = as_tensor(out);
  bool grads = needs_grad(t);
  for (int k = 0; k < op->ntensors; k++) grads = grads || (is_tensor(bound[k]) && needs_grad(as_tensor(bound[k])));
  if (grad_enabled && grads) return raise(ErrorCode::Grad, "%U: out= cannot be recorded; drop out= or use no_grad()", op->name);
  return dispatch(op, bound, t);
}

// t.exp(): methods bind like functions.
PyObject* op_descr_get(PyObject* self, PyObject* instance, PyObject*) {
  if (!instance || instance == Py_None) {
    Py_INCREF(self);
    return self;
  }
  return PyMethod_New(self, instance);
}

bool parse_vjp(OpObject* op, PyObject* vjp) {  // [(fn, [(kind, index), ...]), ...]
  const Py_ssize_t n = PyTuple_GET_SIZE(vjp);
  for (Py_ssize_t p = 0; p < n; p++) {
    PyObject *fn, *list;
    if (!PyArg_ParseTuple(PyTuple_GET_ITEM(vjp, p), "OO!", &fn, &PyTuple_Type, &list)) return false;
    VjpPart part{fn == Py_None ? nullptr : fn, {}};
    Py_XINCREF(part.fn);
    for (Py_ssize_t j = 0; j < PyTuple_GET_SIZE(list); j++) {
      const char* kind_name;
      int index;
      if (!PyArg_ParseTuple(PyTuple_GET_ITEM(list, j), "si", &kind_name, &index)) return false;
      if (kind_name[0] == 'g') {
        part.args.push_back(int16_t(-1 - index));
        continue;
      }
      if (kind_name[0] == 'n') {
        part.args.push_back(kNeeds);
        continue;
      }
      const SavedKind kind = kind_name[0] == 'i' ? SavedKind::Input : kind_name[0] == 'o' ? SavedKind::Output
                           : kind_name[0] == 'a' ? SavedKind::Attr : SavedKind::InputShape;
      size_t s = 0;
      while (s < op->saved->size() && !((*op->saved)[s].kind == kind && (*op->saved)[s].index == index)) s++;
      if (s == op->saved->size()) op->saved->push_back({kind, uint8_t(index), 0});
      (*op->saved)[s].parts |= uint64_t(1) << p;
      part.args.push_back(int16_t(s));
    }
    op->vjp->push_back(std::move(part));
  }
  return true;
}

// Op(name, body, params, visible, vjp, single, outputs_if, zeros): params is a tuple of (name, kind, has_default, default, choices)
PyObject* op_new(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *name, *body, *params, *vjp;
  int visible, single, outputs_if, zeros;
  if (!PyArg_ParseTuple(args, "UOO!iO!pip", &name, &body, &PyTuple_Type, &params, &visible, &PyTuple_Type, &vjp, &single, &outputs_if, &zeros))
    return nullptr;
  OpObject* op = reinterpret_cast<OpObject*>(type->tp_alloc(type, 0));
  if (!op) return nullptr;
  op->vectorcall = op_vectorcall;
  op->op = find_op(PyUnicode_AsUTF8(name));
  Py_INCREF(name);
  PyUnicode_InternInPlace(&name);
  op->name = name;
  Py_INCREF(body);
  op->body = body;
  op->visible = visible;
  op->single = single;
  op->zeros = zeros;
  op->outputs_if = outputs_if;
  op->params = new std::vector<OpObject::Spec>;
  op->saved = new std::vector<SavedSlot>;
  op->vjp = new std::vector<VjpPart>;
  op->nparams = int(PyTuple_GET_SIZE(params));
  if (op->nparams > 24) {
    Py_DECREF(op);
    PyErr_Format(PyExc_ValueError, "%U: at most 24 parameters", name);
    return nullptr;
  }
  static const char* const kinds[] = {"tensor", "opt_tensor", "tensors", "int", "bool", "float", "axis", "axes", "pair", "dtype", "shape", "pads", "choice", "object"};
  for (int k = 0; k < op->nparams; k++) {
    PyObject *pname, *def, *choices;
    const char* kind_name;
    int has_default;
    if (!PyArg_ParseTuple(PyTuple_GET_ITEM(params, k), "UspOO", &pname, &kind_name, &has_default, &def, &choices)) {
      Py_DECREF(op);
      return nullptr;
    }
    int kind = 0;
    while (kind < 13 && std::strcmp(kinds[kind], kind_name) != 0) kind++;
    Py_INCREF(pname);
    PyUnicode_InternInPlace(&pname);
    if (has_default) Py_INCREF(def);
    Py_INCREF(choices);
    op->params->push_back({pname, has_default ? def : nullptr, choices, Param(kind)});
    if (Param(kind) <= Param::Tensors) op->ntensors = k + 1;
    if (Param(kind) == Param::Tensors) op->has_list = true;
  }
  if (op->op >= 0) {
    const OpInfo& info = op_table[op->op];
    for (const char* family : {"unary", "test", "abs", "binary", "compare", "where", "clip", "addcmul"})
      op->elementwise = op->elementwise || std::strcmp(info.family, family) == 0;
    op->plain = op->nparams == op->ntensors && op->ntensors <= 2 && (std::strcmp(info.family, "unary") == 0 || std::strcmp(info.family, "binary") == 0);
    op->keepdims_attr = std::strcmp(info.family, "reduce") == 0 || std::strcmp(info.family, "argreduce") == 0;
    Py_INCREF(op);
    Py_XDECREF(op_objects[op->op]);
    op_objects[op->op] = op;
  }
  if (!parse_vjp(op, vjp)) {
    Py_DECREF(op);
    return nullptr;
  }
  return reinterpret_cast<PyObject*>(op);
}

PyObject* op_repr(PyObject* self) { return PyUnicode_FromFormat("<fastdl op %U>", reinterpret_cast<OpObject*>(self)->name); }
PyObject* op_get_name(PyObject* self, void*) {
  PyObject* name = reinterpret_cast<OpObject*>(self)->name;
  Py_INCREF(name);
  return name;
}
PyObject* op_get_body(PyObject* self, void*) {
  PyObject* body = reinterpret_cast<OpObject*>(self)->body;
  Py_INCREF(body);
  return body;
}
PyObject* op_get_from_body(PyObject* self, void* attribute) {
  return PyObject_GetAttrString(reinterpret_cast<OpObject*>(self)->body, static_cast<const char*>(attribute));
}
PyObject* op_get_row(PyObject* self, void*) { return PyBool_FromLong(reinterpret_cast<OpObject*>(self)->op >= 0); }
PyObject* op_get_differentiable(PyObject* self, void*) { return PyBool_FromLong(!reinterpret_cast<OpObject*>(self)->vjp->empty()); }
PyObject* op_reduce(PyObject* self, PyObject*) {  // pickled and copied by name
  Py_INCREF(reinterpret_cast<OpObject*>(self)->name);
  return reinterpret_cast<OpObject*>(self)->name;
}
PyGetSetDef op_getset[] = {
    {"__name__", op_get_name, nullptr, "name of the op", nullptr},
    {"__qualname__", op_get_name, nullptr, nullptr, nullptr},
    {"__wrapped__", op_get_body, nullptr, "the Python stanza: signature, docstring and body", nullptr},
    {"__doc__", op_get_from_body, nullptr, nullptr, const_cast<char*>("__doc__")},
    {"__module__", op_get_from_body, nullptr, nullptr, const_cast<char*>("__module__")},
    {"__annotations__", op_get_from_body, nullptr, nullptr, const_cast<char*>("__annotations__")},
    {"has_kernel", op_get_row, nullptr, "whether the op is a row of the op table", nullptr},
    {"differentiable", op_get_differentiable, nullptr, "whether the stanza gives a vjp of its own", nullptr},
    {}};
PyMethodDef op_methods[] = {{"__reduce__", op_reduce, METH_NOARGS, nullptr}, {}};
PyMemberDef op_members[] = {{"__vectorcalloffset__", T_PYSSIZET, offsetof(OpObject, vectorcall), READONLY, nullptr},
                            {"__dictoffset__", T_PYSSIZET, offsetof(OpObject, dict), READONLY, nullptr},
                            {}};
PyType_Slot op_slots[] = {{Py_tp_new, reinterpret_cast<void*>(op_new)},
                          {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                          {Py_tp_descr_get, reinterpret_cast<void*>(op_descr_get)},
                          {Py_tp_repr, reinterpret_cast<void*>(op_repr)},
                          {Py_tp_getset, op_getset},
                          {Py_tp_methods, op_methods},
                          {Py_tp_members, op_members},
                          {0, nullptr}};
PyType_Spec op_spec = {"fastdl._C.Op", sizeof(OpObject), 0,
                       Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR, op_slots};

bool foreign(PyObject* o) {  // an operand whose type should get its say first
  return !is_tensor(o) && !is_scalar(o);
}

}  // namespace

bool make_op_type(PyObject* module) {
  op_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&op_spec));
  return op_type && PyModule_AddObjectRef(module, "Op", reinterpret_cast<PyObject*>(op_type)) == 0;
}

// A foreign array as a tensor on the device of the tensor that it meets.
static TensorObject* tensor_on(PyObject* o, Device device) {
  TensorObject* t = tensor_from(o);
  if (!t || device_of(t) == device || t->view.ndim == 0) return t;
  TensorObject* moved = to_device(t, device);
  Py_DECREF(as_object(t));
  return moved;
}

PyObject* call_binary(OpId id, PyObject* a, PyObject* b) {
  OpObject* op = op_objects[int(id)];
  PyObject* bound[2] = {a, b};
  if (!op) return raise(ErrorCode::Type, "fastdl is not fully imported");
  if (foreign(a) || foreign(b)) {  // arrays and array-likes are converted; anything else is not ours
    PyObject* other = foreign(a) ? a : b;
    TensorObject* t = tensor_on(other, as_tensor(foreign(a) ? b : a)->buffer->device);
    if (!t) {
      if (!PyErr_ExceptionMatches(PyExc_TypeError)) return nullptr;
      PyErr_Clear();
      Py_RETURN_NOTIMPLEMENTED;
    }
    bound[foreign(a) ? 0 : 1] = as_object(t);
    PyObject* result = dispatch(op, bound);
    Py_DECREF(as_object(t));
    return result;
  }
  return dispatch(op, bound);
}

PyObject* call_unary(OpId id, PyObject* a) {
  OpObject* op = op_objects[int(id)];
  if (!op) return raise(ErrorCode::Type, "fastdl is not fully imported");
  return dispatch(op, &a);
}

PyObject* call_inplace(OpId id, PyObject* self, PyObject* other) {
  OpObject* op = op_objects[int(id)];
  if (!op) return raise(ErrorCode::Type, "fastdl is not fully imported");
  TensorObject* t = as_tensor(self);
  const char* name = op_table[int(id)].name;
  PyObject* converted = nullptr;
  if (foreign(other)) {
    converted = as_object(tensor_on(other, as_tensor(self)->buffer->device));
    if (!converted) {
      if (!PyErr_ExceptionMatches(PyExc_TypeError)) return nullptr;
      PyErr_Clear();
      Py_RETURN_NOTIMPLEMENTED;
    }
    other = converted;
  }
  PyObject* result = nullptr;
  const bool graph = grad_enabled && (needs_grad(t) || (is_tensor(other) && needs_grad(as_tensor(other))));
  if (!graph) {
    PyObject* bound[2] = {self, other};
    const bool enabled = grad_enabled;
    grad_enabled = false;
    result = dispatch(op, bound, t);
    grad_enabled = enabled;
  } else if (check_inplace(t, name)) {
    // The old value keeps its place in the graph under an alias; the object itself moves on to the new node.
    TensorObject* old = alias_tensor(t, true);
    if (old) {
      PyObject* bound[2] = {as_object(old), other == self ? as_object(old) : other};
      Node* before = t->node;
      t->node = nullptr;
      result = dispatch(op, bound, t);
      if (result) {
        if (before) node_release(before);
        t->requires_grad = false;
        t->buffer->graph_version = t->buffer->version;
      } else {
        t->node = before;
      }
      Py_DECREF(as_object(old));
    }
  }
  Py_XDECREF(converted);
  return result;
}

}  // namespace fastdl::python
