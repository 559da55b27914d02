// Op: the callable behind every op. It binds arguments by the stanza's signature, infers shapes, allocates, launches and records.
#include <cmath>
#include <cstring>

#include "core/launch.h"
#include "tensor.h"

namespace fastdl::python {

PyTypeObject* op_type = nullptr;
OpObject* op_objects[kNumOps];

namespace {

// Views, objects and scalar storage of one call; on the stack for up to kMaxIn inputs.
struct Operands {
  int n = 0;
  View* views = fixed_views;
  PyObject** objects = fixed_objects;  // what the caller passed or what it was converted to
  bool* owned = fixed_owned;
  View fixed_views[kMaxIn];
  PyObject* fixed_objects[kMaxIn];
  bool fixed_owned[kMaxIn];
  alignas(16) char scalars[kMaxIn][16];
  TensorObject* temps[2 * kMaxIn];  // cast or relaid copies, released after the launch
  int ntemps = 0;
  std::vector<TensorObject*> more_temps;

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

// Inputs that kernels want in their own dtype (indices, taps, hyper-parameters): everything else is cast to the compute dtype.
uint32_t uncast_inputs(OpId op) {
  switch (op) {
    case OpId::take: case OpId::take_backward: case OpId::take_along_axis: case OpId::scatter_add:
    case OpId::cross_entropy: case OpId::max_pool2d_backward: case OpId::adaptive_max_pool2d_backward:
    case OpId::nonzero:
      return 2;
    case OpId::cross_entropy_backward: return 4;
    case OpId::index_get: return ~1u;
    case OpId::index_put: return ~3u;
    case OpId::one_hot: case OpId::copy: case OpId::fill: case OpId::sgd_step: case OpId::adam_step: case OpId::rmsprop_step:
    case OpId::random_bits: case OpId::random_uniform: case OpId::random_normal: case OpId::random_integers:
    case OpId::any: case OpId::all:
      return ~0u;
    // statistics stay in the accumulation dtype of the kernel
    case OpId::layer_norm_backward: case OpId::batch_norm_backward: return 4 | 8;
    case OpId::batch_norm: return 8 | 16;
    default: return 0;
  }
}

bool channels_last(const View& v) {
  if (v.ndim < 3) return true;
  int64_t want = 1;
  for (int k = 0; k < v.ndim; k++) {
    const int d = k == 0 ? 1 : k == v.ndim - 1 ? 0 : v.ndim - k;  // C, W, H, ..., N
    if (v.shape[d] == 0) return true;
    if (v.shape[d] == 1) continue;
    if (v.strides[d] != want) return false;
    want *= v.shape[d];
  }
  return true;
}

bool same_shape(const View& a, const View& b) {
  return a.ndim == b.ndim && std::memcmp(a.shape, b.shape, sizeof(int64_t) * a.ndim) == 0;
}

bool overlap_unsafely(const View& out, const View& in) {
  if (!overlap(out, in)) return false;
  return !(out.data == in.data && out.dtype == in.dtype && same_shape(out, in) &&
           std::memcmp(out.strides, in.strides, sizeof(int64_t) * out.ndim) == 0);
}

bool type_error(OpObject* op, int k, PyObject* got, const char* need) {
  raise(ErrorCode::Type, "%U: argument '%U' is %.80s; need %s", op->name, (*op->params)[k].name, Py_TYPE(got)->tp_name, need);
  return false;
}

bool get_int(OpObject* op, int k, PyObject* o, int64_t* out) {
  if (PyFloat_Check(o)) return type_error(op, k, o, "an int");
  PyObject* i = PyNumber_Index(o);
  if (!i) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) return false;
    return PyErr_Clear(), type_error(op, k, o, "an int");
  }
  int overflow = 0;
  *out = PyLong_AsLongLongAndOverflow(i, &overflow);
  if (overflow > 0) {  // seeds are 64 bits unsigned
    *out = int64_t(PyLong_AsUnsignedLongLong(i));
    if (PyErr_Occurred()) PyErr_Clear(), overflow = -1;
  }
  Py_DECREF(i);
  if (overflow < 0) {
    raise(ErrorCode::Value, "%U: argument '%U' does not fit in 64 bits", op->name, (*op->params)[k].name);
    return false;
  }
  return true;
}

bool normalise_axis(OpObject* op, int64_t axis, int ndim, int64_t* out) {
  const int rank = ndim > 0 ? ndim : 1;  // axis 0 and -1 of a 0-d tensor are accepted as NumPy's reductions do
  if (axis < -rank || axis >= rank) {
    raise(ErrorCode::Index, "%U: axis %lld is out of range for a tensor of rank %d", op->name, static_cast<long long>(axis), ndim);
    return false;
  }
  *out = axis < 0 ? axis + rank : axis;
  return true;
}

bool get_axes(OpObject* op, int k, PyObject* o, int ndim, int64_t* mask) {
  *mask = 0;
  if (o == Py_None) {
    *mask = (int64_t(1) << ndim) - 1;
    return true;
  }
  int64_t a;
  if (!PyTuple_Check(o) && !PyList_Check(o)) {
    if (!get_int(op, k, o, &a) || !normalise_axis(op, a, ndim, &a)) return false;
    *mask = ndim ? int64_t(1) << a : 0;
    return true;
  }
  PyObject* axes = as_tuple(o);  // an axis may be any object with __index__, which may change a list
  bool ok = axes != nullptr;
  for (Py_ssize_t j = 0; ok && j < PyTuple_GET_SIZE(axes); j++) {
    ok = get_int(op, k, PyTuple_GET_ITEM(axes, j), &a) && normalise_axis(op, a, ndim, &a);
    if (ok && (*mask >> a & 1)) {
      raise(ErrorCode::Value, "%U: axis %lld is given twice", op->name, static_cast<long long>(a));
      ok = false;
    }
    if (ok) *mask |= int64_t(1) << a;
  }
  Py_XDECREF(axes);
  if (!ok) return false;
  if (ndim == 0) *mask = 0;
  return true;
}

// Fills attrs from the non-tensor parameters; slots are taken in signature order (see Attrs).
bool get_attrs(OpObject* op, PyObject* const* bound, int ndim, Attrs* attrs) {
  int ni = 0, nf = 0;
  for (int k = op->ntensors; k < op->nparams; k++) {
    PyObject* o = bound[k];
    const OpObject::Spec& spec = (*op->params)[k];
    switch (spec.kind) {
      case Param::Bool:
        if ((attrs->i[ni++] = PyObject_IsTrue(o)) < 0) return false;
        break;
      case Param::Int:
        if (!get_int(op, k, o, &attrs->i[ni++])) return false;
        break;
      case Param::Float: {
        const double d = PyFloat_AsDouble(o);
        if (d == -1.0 && PyErr_Occurred()) return PyErr_Clear(), type_error(op, k, o, "a number");
        attrs->f[nf++] = d;
        break;
      }
      case Param::Axis:
        if (o == Py_None) attrs->i[ni++] = -1;
        else if (!get_int(op, k, o, &attrs->i[ni]) || !normalise_axis(op, attrs->i[ni], ndim, &attrs->i[ni])) return false;
        else ni++;
        break;
      case Param::Axes:
        if (!get_axes(op, k, o, ndim, &attrs->i[ni++])) return false;
        break;
      case Param::Pair:
        if (o == Py_None) {
          attrs->i[ni] = attrs->i[ni - 2], attrs->i[ni + 1] = attrs->i[ni - 1];  // e.g. stride: the kernel size
        } else if (PyTuple_Check(o) || PyList_Check(o)) {
          PyObject* pair = as_tuple(o);
          bool ok = pair && PyTuple_GET_SIZE(pair) == 2;
          if (pair && !ok)
            raise(ErrorCode::Value, "%U: argument '%U' has %zd numbers; need one int or a pair", op->name, spec.name, PyTuple_GET_SIZE(pair));
          for (int j = 0; ok && j < 2; j++) ok = get_int(op, k, PyTuple_GET_ITEM(pair, j), &attrs->i[ni + j]);
          Py_XDECREF(pair);
          if (!ok) return false;
        } else {
          if (!get_int(op, k, o, &attrs->i[ni])) return type_error(op, k, o, "an int or a pair of ints");
          attrs->i[ni + 1] = attrs->i[ni];
        }
        ni += 2;
        break;
      case Param::DType:
        attrs->i[ni] = -1;
        if (o != Py_None) {
          const int d = dtype_code(o);
          if (d < 0) return false;
          attrs->i[ni] = d;
        }
        ni++;
        break;
      case Param::Shape: {
        int n = 0;
        const char* name = PyUnicode_AsUTF8(op->name);
        if (!get_shape(o, name, &attrs->i[ni + 1], &n)) return false;
        attrs->i[ni] = n;
        ni += 1 + kMaxDims;
        break;
      }
      case Param::Pads: {
        PyObject* seq = as_tuple(o);
        if (!seq) return PyErr_Clear(), type_error(op, k, o, "a sequence of (before, after) pairs");
        bool ok = PyTuple_GET_SIZE(seq) == ndim;
        for (int d = 0; ok && d < ndim; d++) {
          PyObject* pair = as_tuple(PyTuple_GET_ITEM(seq, d));
          ok = pair && PyTuple_GET_SIZE(pair) == 2;
          for (int j = 0; ok && j < 2; j++) ok = get_int(op, k, PyTuple_GET_ITEM(pair, j), &attrs->i[ni + 2 * d + j]);
          Py_XDECREF(pair);
        }
        Py_DECREF(seq);
        if (!ok) {
          PyErr_Clear();
          raise(ErrorCode::Value, "%U: argument '%U' needs one (before, after) pair of ints per dimension (%d)", op->name, spec.name, ndim);
          return false;
        }
        ni += 2 * kMaxDims;
        break;
      }
      case Param::Choice: {
        const Py_ssize_t n = PyTuple_GET_SIZE(spec.choices);
        Py_ssize_t j = 0;
        if (PyUnicode_Check(o))
          while (j < n && PyUnicode_Compare(o, PyTuple_GET_ITEM(spec.choices, j)) != 0) j++;
        else j = n;
        if (j == n) {
          raise(ErrorCode::Value, "%U: argument '%U' is %R; need one of %R", op->name, spec.name, o, spec.choices);
          return false;
        }
        attrs->i[ni++] = j;
        break;
      }
      case Param::Object: break;  // for the body or the vjp only
      default: break;
    }
  }
  return true;
}

// Fetches the tensor arguments. A scalar stays what it is: a 0-d view of the dtype that weak promotion (NEP 50) gives it.
bool get_operands(OpObject* op, PyObject* const* bound, Operands* in) {
  PyObject* list = nullptr;
  int count = op->ntensors;
  if (op->has_list) {
    list = as_tuple(bound[0]);  // a list may change while its elements are converted or the kernel runs
    if (!list) return PyErr_Clear(), type_error(op, 0, bound[0], "a sequence of tensors");
    const Py_ssize_t n = PyTuple_GET_SIZE(list);
    if (n > 100000) {
      Py_DECREF(list);
      raise(ErrorCode::Value, "%U: %zd tensors given; need at most 100000", op->name, n);
      return false;
    }
    count = int(n) + op->ntensors - 1;
    in->reserve(count);
  }
  bool have_reference = false;
  DType reference = DType::bool_;
  int scalars = 0;
  const int nlist = list ? count - op->ntensors + 1 : 0;
  const int promotes_from = op->op == int(OpId::where) ? 1 : 0;  // the condition takes no part in promotion
  bool ok = true, converted = false;
  for (int k = 0; k < count && ok; k++) {
    PyObject* o = list ? (k < nlist ? PyTuple_GET_ITEM(list, k) : bound[k - nlist + 1]) : bound[k];
    in->owned[k] = false;
    in->objects[k] = o;
    in->n = k + 1;
    View& v = in->views[k];
    if (is_tensor(o)) {
      v = as_tensor(o)->view;
    } else if (o == Py_None && (*op->params)[list ? (k < nlist ? 0 : k - nlist + 1) : k].kind == Param::OptTensor) {
      v.ndim = -1;
      v.data = nullptr;
      continue;
    } else if (op->elementwise && is_scalar(o)) {
      scalars |= 1 << k;
      continue;
    } else {
      TensorObject* t = tensor_from(o);
      if (!t) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
          PyErr_Clear();
          type_error(op, k < op->nparams ? k : 0, o, "a tensor, an array or a number");
        }
        ok = false;
        break;
      }
      in->objects[k] = as_object(t);
      in->owned[k] = true;
      v = t->view;
      converted = true;
    }
    if (list) {  // keep the elements alive: the list may change while the kernel runs
      if (!in->owned[k]) Py_INCREF(o), in->owned[k] = true;
    }
    if (k >= promotes_from) {
      reference = have_reference ? promote(reference, v.dtype) : v.dtype;
      have_reference = true;
    }
  }
  Py_XDECREF(list);
  if (!ok) return false;
  if (converted) {  // a conversion may have run Python code that gave a tensor other memory
    have_reference = false;
    for (int k = 0; k < count; k++) {
      if (scalars >> (k & 31) & 1 || !in->views[k].given()) continue;
      in->views[k] = as_tensor(in->objects[k])->view;
      if (k >= promotes_from) reference = have_reference ? promote(reference, in->views[k].dtype) : in->views[k].dtype, have_reference = true;
    }
  }
  for (int k = 0; scalars >> k; k++) {
    if (!(scalars >> k & 1)) continue;
    const bool weak = k >= promotes_from && have_reference;
    const DType d = scalar_dtype(in->objects[k], weak, reference);
    if (!have_reference && k >= promotes_from) {  // numbers only: they set the dtype together
      DType all = d;
      for (int j = promotes_from; j < count; j++)
        if (scalars >> j & 1) all = promote(all, scalar_dtype(in->objects[j], false, d));
      if (!scalar_to_view(in->objects[k], all, in->scalars[k], &in->views[k])) return false;
    } else if (!scalar_to_view(in->objects[k], d, in->scalars[k], &in->views[k])) {
      if (!PyErr_ExceptionMatches(PyExc_OverflowError) || std::strcmp(op_table[op->op].family, "compare") != 0) return false;
      PyErr_Clear();  // uint8 < 300 has an answer, as in NumPy: the number is larger than all, or smaller
      in->views[k].dtype = DType::float64;
      const double beyond = _PyLong_Sign(in->objects[k]) < 0 ? -HUGE_VAL : HUGE_VAL;
      std::memcpy(in->scalars[k], &beyond, 8);
    }
  }
  return true;
}

// Casts and relays inputs as the kernel wants them.
bool prepare_inputs(const Call& call, Operands* in) {
  const uint32_t keep = uncast_inputs(call.op) | call.own_dtype_inputs;
  for (int k = 0; k < in->n; k++) {
    View& v = in->views[k];
    if (!v.given()) continue;
    const uint32_t bit = k < 32 ? 1u << k : 1u << 31;
    const bool cast = !(keep & bit) && v.dtype != call.compute;
    const bool row_major = (call.contiguous_inputs & bit) && !v.contiguous();
    const bool nhwc = (call.channels_last_inputs & bit) && !channels_last(v);
    if (!cast && !row_major && !nhwc) continue;
    const Layout layout = call.channels_last_inputs & bit ? Layout::ChannelsLast : call.contiguous_inputs & bit ? Layout::Contiguous : Layout::Like;
    TensorObject* copy = materialise(as_tensor(in->objects[k]), layout, cast ? call.compute : v.dtype);
    if (!copy) return false;
    in->keep(copy);
    v = copy->view;
  }
  return true;
}

int64_t bytes_of(const View& v) { return v.given() ? v.numel() * itemsize(v.dtype) : 0; }

// Runs the kernel; the GIL is released for anything longer than some microseconds.
void run(const OpInfo& info, KernelFn fn, const Args& args, int64_t workspace) {
  int64_t bytes = 0;
  for (int k = 0; k < args.nin; k++) bytes += bytes_of(args.in[k]);
  for (int k = 0; k < args.nout; k++) bytes += bytes_of(args.out[k]);
  if (bytes < 128 * 1024) return launch(info, fn, args, workspace);
  PyThreadState* state = PyEval_SaveThread();
  launch(info, fn, args, workspace);
  PyEval_RestoreThread(state);
}

bool cast_allowed(DType from, DType to) {  // NumPy's same_kind
  const auto rank = [](DType d) { return kind(d) == 'b' ? 0 : is_integer(d) ? 1 : is_float(d) ? 2 : 3; };
  return rank(from) <= rank(to);
}

}  // namespace

PyObject* dispatch(OpObject* op, PyObject* const* bound, TensorObject* out) {
  const Running running;
  Operands in;
  if (!get_operands(op, bound, &in)) return nullptr;
  for (int k = 0; k < in.n; k++)
    if (is_tensor(in.objects[k]) && !check_version(as_tensor(in.objects[k]), op_table[op->op].name)) return nullptr;
  const OpInfo& info = op_table[op->op];
  Call call;
  call.op = OpId(op->op);
  call.nin = in.n;
  call.in = in.views;
  call.nout = 0;
  call.workspace = 0;
  call.contiguous_inputs = call.channels_last_inputs = call.own_dtype_inputs = 0;
  if (!op->elementwise || op->nparams > op->ntensors) std::memset(&call.attrs, 0, sizeof call.attrs);
  TensorObject* outputs[kMaxOut] = {};
  int nout = 0;
  Buffer* scratch = nullptr;
  struct Cleanup {
    TensorObject** outputs;
    int* nout;
    Buffer** scratch;
    ~Cleanup() {
      for (int k = 0; k < *nout; k++) Py_XDECREF(as_object(outputs[k]));
      if (*scratch) release(*scratch);
    }
  } cleanup{outputs, &nout, &scratch};
  try {
    const int rank = in.n && in.views[0].given() ? in.views[0].ndim : 0;
    if (op->nparams > op->ntensors && !get_attrs(op, bound, rank, &call.attrs)) return nullptr;
    if (!info.infer) fail(ErrorCode::DType, "%s: no inference installed", info.name);
    info.infer(call);
    const KernelFn fn = info.cpu[int(call.compute)];
    if (!fn) {
      std::string have;
      for (int d = 0; d < kNumDTypes; d++)
        if (info.cpu[d]) have += std::string(have.empty() ? "" : ", ") + dtype_name(DType(d));
      fail(ErrorCode::DType, "%s: dtype %s is not supported; need one of %s", info.name, dtype_name(call.compute),
           have.empty() ? "(none in this build)" : have.c_str());
    }
    View out_views[kMaxOut];
    if (op->elementwise) {
      const OutSpec& spec = call.out[0];
      if (out) {
        if (out->view.ndim != spec.ndim || std::memcmp(out->view.shape, spec.shape, sizeof(int64_t) * spec.ndim) != 0)
          fail(ErrorCode::Shape, "%s: the result has shape %s, which does not fit the output of shape %s", info.name,
               shape_text(spec.shape, spec.ndim).c_str(), shape_text(out->view).c_str());
        if (!cast_allowed(spec.dtype, out->view.dtype))
          fail(ErrorCode::DType, "%s: a result of dtype %s cannot be stored in a %s tensor in place; use astype first", info.name,
               dtype_name(spec.dtype), dtype_name(out->view.dtype));
        if (!check_writable(out->view, info.name)) return nullptr;
        outputs[nout++] = out;
        Py_INCREF(as_object(out));
        for (int k = 0; k < in.n; k++) {
          if (!is_tensor(in.objects[k]) || !overlap_unsafely(out->view, in.views[k])) continue;
          TensorObject* copy = materialise(as_tensor(in.objects[k]), Layout::Contiguous, in.views[k].dtype);
          if (!copy) return nullptr;
          in.keep(copy);
          in.views[k] = copy->view;
        }
      } else {
        TensorObject* t = empty_tensor(spec.dtype, spec.shape, spec.ndim, Layout::Like, in.views, in.n);
        if (!t) return nullptr;
        outputs[nout++] = t;
      }
      out_views[0] = outputs[0]->view;
      for (int k = 0; k < in.n; k++)
        if (in.views[k].given() && !same_shape(in.views[k], out_views[0])) {
          View wide;
          if (!broadcast_view(in.views[k], out_views[0].shape, out_views[0].ndim, &wide)) return nullptr;
          in.views[k] = wide;
        }
    } else {
      if (!prepare_inputs(call, &in)) return nullptr;
      for (int k = 0; k < call.nout; k++) {
        const OutSpec& spec = call.out[k];
        TensorObject* t;
        if (spec.alias >= 0) {
          if (!is_tensor(in.objects[spec.alias]) || in.views[spec.alias].data != as_tensor(in.objects[spec.alias])->view.data) {
            if (in.views[spec.alias].given())
              fail(ErrorCode::Type, "%s: input %d is updated in place and must be a tensor of the right dtype", info.name, spec.alias);
            t = nullptr;
          } else {
            t = as_tensor(in.objects[spec.alias]);
            if (!check_writable(t->view, info.name)) return nullptr;
            Py_INCREF(as_object(t));
          }
          out_views[k] = in.views[spec.alias];
        } else {
          t = empty_tensor(spec.dtype, spec.shape, spec.ndim, spec.layout, in.views, in.n);
          if (!t) return nullptr;
          out_views[k] = t->view;
        }
        outputs[nout++] = t;
      }
    }
    if (call.workspace > 0) scratch = alloc_buffer(call.workspace);
    const Args args{out_views, in.views, &call.attrs, scratch ? scratch->data : nullptr, nout, in.n};
    run(info, fn, args, call.workspace);
  } catch (const Error& e) {
    return raise(e);
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  if (op->keepdims_attr && !call.attrs.i[1]) {
    View& v = outputs[0]->view;
    const int64_t mask = std::strcmp(info.family, "argreduce") != 0 ? call.attrs.i[0]
                         : call.attrs.i[0] < 0                      ? ~int64_t(0)
                                                                    : int64_t(1) << call.attrs.i[0];
    int n = 0;
    for (int d = 0; d < v.ndim; d++)
      if (!(mask >> d & 1)) v.shape[n] = v.shape[d], v.strides[n] = v.strides[d], n++;
    v.ndim = n;
  }
  for (int k = 0; k < nout && !op->elementwise; k++)
    if (call.out[k].alias >= 0 && outputs[k]) bump_version(outputs[k]);
  if (out) bump_version(out);
  if (!op->vjp->empty() && grad_enabled && any_needs_grad(in.objects, in.n) &&
      !record_op(op, bound, in.objects, in.n, outputs, nout, out != nullptr))
    return nullptr;
  if (op->visible == 1) {
    if (!outputs[0]) Py_RETURN_NONE;
    PyObject* result = as_object(outputs[0]);
    Py_INCREF(result);
    return result;
  }
  PyObject* result = PyTuple_New(op->visible);
  if (!result) return nullptr;
  for (int k = 0; k < op->visible; k++) {
    PyObject* o = outputs[k] ? as_object(outputs[k]) : Py_None;
    Py_INCREF(o);
    PyTuple_SET_ITEM(result, k, o);
  }
  return result;
}

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

// Op(name, body, params, visible, vjp, single, outputs_if): params is a tuple of (name, kind, has_default, default, choices)
PyObject* op_new(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *name, *body, *params, *vjp;
  int visible, single, outputs_if;
  if (!PyArg_ParseTuple(args, "UOO!iO!pi", &name, &body, &PyTuple_Type, &params, &visible, &PyTuple_Type, &vjp, &single, &outputs_if))
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

PyObject* call_binary(OpId id, PyObject* a, PyObject* b) {
  OpObject* op = op_objects[int(id)];
  PyObject* bound[2] = {a, b};
  if (!op) return raise(ErrorCode::Type, "fastdl is not fully imported");
  if (foreign(a) || foreign(b)) {  // arrays and array-likes are converted; anything else is not ours
    PyObject* other = foreign(a) ? a : b;
    TensorObject* t = tensor_from(other);
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
    converted = as_object(tensor_from(other));
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
