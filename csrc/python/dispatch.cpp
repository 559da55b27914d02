// dispatch: one call of an op with a kernel, from bound arguments to recorded result. Fetches and converts operands, lets inference
// validate and shape, allocates outputs, launches, records for autograd.
#include <cmath>
#include <cstring>

#include "core/cuda.h"
#include "core/launch.h"
#include "core/record.h"
#include "capture.h"
#include "device.h"

namespace fastdl::python {

namespace {

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

// Indices and numbers of taps: they may lie on the CPU and are moved to the device of the values. Never what a kernel updates in place.
uint32_t index_inputs(OpId op) {
  switch (op) {
    case OpId::take: case OpId::take_backward: case OpId::take_along_axis: case OpId::scatter_add: case OpId::cross_entropy:
      return 2;
    case OpId::cross_entropy_backward: return 4;
    case OpId::index_get: return ~1u;
    case OpId::index_put: return ~3u;
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
      in->converted |= uint64_t(1) << (k & 63);
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
bool prepare_inputs(const Call& call, Operands* in, uint32_t host_inputs) {
  const uint32_t keep = uncast_inputs(call.op) | call.own_dtype_inputs;
  for (int k = 0; k < in->n; k++) {
    View& v = in->views[k];
    const uint32_t bit = k < 32 ? 1u << k : 1u << 31;
    if (!v.given() || (k < 32 && host_inputs & bit)) continue;
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
void run(const Call& call, KernelFn fn, const Args& args, Device device) {
  const OpInfo& info = op_table[int(call.op)];
  const int64_t workspace = call.workspace;
  if (device.kind != Device::CPU) {
    if (cuda_row(call.op, call.compute)) return launch_cuda(call, args, device);
    struct Unlock {  // on the host: copies wait for the device
      PyThreadState* state = PyEval_SaveThread();
      ~Unlock() { PyEval_RestoreThread(state); }
    } unlock;
    return launch_cuda(call, args, device);
  }
  int64_t bytes = 0;
  for (int k = 0; k < args.nin; k++) bytes += bytes_of(args.in[k]);
  for (int k = 0; k < args.nout; k++) bytes += bytes_of(args.out[k]);
  if (bytes < 128 * 1024) return launch(info, fn, call.compute, args, workspace);
  PyThreadState* state = PyEval_SaveThread();
  launch(info, fn, call.compute, args, workspace);
  PyEval_RestoreThread(state);
}

// Inference may read the values of indices, but not those in a device's memory: kernels check them there.
class HiddenData {
 public:
  HiddenData(Operands* in, Device device, uint32_t host_inputs) : in_(device.kind == Device::CPU ? nullptr : in) {
    for (int k = 0; in_ && k < in_->n; k++) {
      data_.push_back(in_->views[k].data);
      if (k >= 32 || !(host_inputs >> k & 1)) in_->views[k].data = nullptr;
    }
  }
  HiddenData(const HiddenData&) = delete;
  ~HiddenData() {
    for (int k = 0; in_ && k < in_->n; k++) in_->views[k].data = data_[size_t(k)];
  }

 private:
  Operands* in_;
  std::vector<void*> data_;
};

bool cast_allowed(DType from, DType to) {  // NumPy's same_kind
  const auto rank = [](DType d) { return kind(d) == 'b' ? 0 : is_integer(d) ? 1 : is_float(d) ? 2 : 3; };
  return rank(from) <= rank(to);
}

}  // namespace

namespace {

// The commonest call of all: row-major tensors of one shape and dtype, small enough to keep the GIL. Such a call needs no inference and no
// broadcasting; what it can't serve is left to dispatch().
bool plain_call(OpObject* op, PyObject* const* bound, PyObject** result) {
  const OpInfo& info = op_table[op->op];
  View in[2];
  const int n = op->ntensors;
  for (int k = 0; k < n; k++) {
    if (!is_tensor(bound[k])) return false;
    const TensorObject* t = as_tensor(bound[k]);
    if (t->buffer->device.kind != Device::CPU) return false;
    if (t->version != t->buffer->version && (t->node || t->is_view)) return false;  // check_version() decides
    in[k] = t->view;
    if (!in[k].contiguous() || (k && (in[k].dtype != in[0].dtype || !same_shape(in[k], in[0])))) return false;
  }
  const DType dtype = in[0].dtype;
  const KernelFn fn = info.cpu[int(dtype)];
  if (!fn || !(info.dtypes & mask_of(dtype))) return false;
  const int64_t bytes = in[0].numel() * itemsize(dtype);
  if (bytes > 64 * 1024 || recorders) return false;
  *result = nullptr;
  TensorObject* t;
  try {
    Buffer* buffer = alloc_buffer(bytes);
    View out = in[0];
    out.data = buffer->data;
    set_contiguous_strides(out);
    t = new_tensor(buffer, out);
    if (!t) return true;
    Attrs attrs;  // read by no plain op
    launch(info, fn, dtype, Args{&out, in, &attrs, nullptr, 1, n});
  } catch (const Error& e) {
    raise(e);
    return true;
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
    return true;
  }
  if (grad_enabled && !op->vjp->empty() && any_needs_grad(bound, n) && !record_op(op, bound, bound, n, &t, 1, false)) {
    Py_DECREF(as_object(t));
    return true;
  }
  *result = as_object(t);
  return true;
}

}  // namespace

PyObject* dispatch(OpObject* op, PyObject* const* bound, TensorObject* out) {
  if (op->plain && !out) {
    PyObject* result;
    if (plain_call(op, bound, &result)) return result;
  }
  const Running running;
  Operands in;
  if (!get_operands(op, bound, &in)) return nullptr;
  for (int k = 0; k < in.n; k++)
    if (is_tensor(in.objects[k]) && !check_version(as_tensor(in.objects[k]), op_table[op->op].name)) return nullptr;
  const OpInfo& info = op_table[op->op];
  Device device;
  uint32_t host_inputs = 0;
  if (!place_operands(op, &in, out, index_inputs(OpId(op->op)), &device, &host_inputs)) return nullptr;
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
    {
      const HiddenData hidden(&in, device, host_inputs);
      info.infer(call);
    }
    // 16-bit floats that the CPU computes in float32 have rows of their own on the device's tensor cores.
    if (device.kind != Device::CPU && call.compute == DType::float32 && itemsize(call.out[0].dtype) == 2 && is_float(call.out[0].dtype) &&
        cuda_row(call.op, call.out[0].dtype))
      call.compute = call.out[0].dtype;
    const KernelFn fn = info.cpu[int(call.compute)];
    if (!fn && (device.kind == Device::CPU || !cuda_row(call.op, call.compute))) {
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
          if (!is_tensor(in.objects[k]) || host_inputs >> (k & 31) & 1 || !overlap_unsafely(out->view, in.views[k])) continue;
          TensorObject* copy = materialise(as_tensor(in.objects[k]), Layout::Contiguous, in.views[k].dtype);
          if (!copy) return nullptr;
          in.keep(copy);
          in.views[k] = copy->view;
        }
      } else {
        TensorObject* t = empty_tensor(spec.dtype, spec.shape, spec.ndim, Layout::Like, in.views, in.n, device);
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
      if (!prepare_inputs(call, &in, host_inputs)) return nullptr;
      for (int k = 0; k < call.nout; k++) {
        const OutSpec& spec = call.out[k];
        TensorObject* t;
        if (spec.alias >= 0) {
          if (in.moved >> (spec.alias & 63) & 1)
            fail(ErrorCode::Device, "%s: input %d is updated in place and must be on %s, as the others are", info.name, spec.alias,
                 device_text(device).c_str());
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
          t = empty_tensor(spec.dtype, spec.shape, spec.ndim, spec.layout, in.views, in.n, device);
          if (!t) return nullptr;
          out_views[k] = t->view;
        }
        outputs[nout++] = t;
      }
    }
    if (__builtin_expect(recording(), 0)) {
      for (int k = 0; k < in.n; k++)
        if (is_tensor(in.objects[k])) touch(as_tensor(in.objects[k])->buffer);
      if (out) touch(out->buffer);
      recorder->numbers(in.scalars, sizeof in.scalars);
      if (OpId(op->op) == OpId::nonzero && !check_readable(as_tensor(in.objects[0]), "nonzero")) return nullptr;
    }
    if (call.workspace > 0 && device.kind == Device::CPU) scratch = alloc_buffer(call.workspace);
    const Args args{out_views, in.views, &call.attrs, scratch ? scratch->data : nullptr, nout, in.n, nullptr, host_inputs};
    run(call, fn, args, device);
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

}  // namespace fastdl::python
