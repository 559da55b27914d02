// Tensors on CUDA devices: where operands must be, copies between memories, and the bindings behind fastdl/device.py and fastdl/cuda.py.
#include "core/cuda.h"

#include <pybind11/pybind11.h>

#include "capture.h"
#include "device.h"

namespace py = pybind11;

namespace fastdl::python {

namespace {

// Memory of v on the host side of a copy: the whole extent moves, and the strides stay as they are.
TensorObject* dense_on(TensorObject* t) {  // a row-major or otherwise gapless tensor of the same values on t's device
  const char *lo, *hi;
  extent(t->view, &lo, &hi);
  if (hi - lo == t->view.numel() * itemsize(t->view.dtype)) {
    Py_INCREF(as_object(t));
    return t;
  }
  return materialise(t, Layout::Contiguous, t->view.dtype);
}

// Copies bytes between memories; the GIL is released for anything large.
void copy_bytes(void* to, Device to_device, const void* from, Device from_device, int64_t bytes) {
  if (bytes == 0) return;
  const CudaApi& api = need_cuda();
  const bool up = from_device.kind == Device::CPU, down = to_device.kind == Device::CPU;
  const auto run = [&] {
    if (!up && !down && from_device != to_device) return api.copy_peer(to, to_device.index, from, from_device.index, bytes);
    const CudaCopy kind = up ? CudaCopy::HostToDevice : down ? CudaCopy::DeviceToHost : CudaCopy::DeviceToDevice;
    return api.copy(up ? to_device.index : from_device.index, to, from, bytes, kind);
  };
  CudaStatus status;
  PyThreadState* state = PyEval_SaveThread();  // a copy to the host waits for the device
  status = run();
  PyEval_RestoreThread(state);
  cuda_check(status);
}

bool move_operand(Operands* in, int k, Device device) {
  TensorObject* moved = to_device(as_tensor(in->objects[k]), device);
  if (!moved) return false;
  if (in->owned[k]) Py_DECREF(in->objects[k]);
  in->objects[k] = as_object(moved);
  in->owned[k] = true;
  in->views[k] = moved->view;
  in->moved |= uint64_t(1) << (k & 63);
  return true;
}

}  // namespace

std::string device_text(Device d) { return d.kind == Device::CPU ? "cpu" : "cuda:" + std::to_string(d.index); }

TensorObject* to_device(TensorObject* t, Device device) {
  if (device_of(t) == device) return alias_tensor(t, false);
  if (!check_readable(t, "copy to another device")) return nullptr;
  TensorObject* dense = dense_on(t);
  if (!dense) return nullptr;
  TensorObject* r = nullptr;
  try {
    const char *lo, *hi;
    extent(dense->view, &lo, &hi);
    Buffer* buffer = alloc_device_buffer(hi - lo, device);
    View v = dense->view;
    v.data = static_cast<char*>(buffer->data) + (v.ptr<char>() - lo);
    r = new_tensor(buffer, v);
    if (r) copy_bytes(buffer->data, device, lo, device_of(dense), hi - lo);
  } catch (const Error& e) {
    raise(e);
    Py_CLEAR(r);
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
    Py_CLEAR(r);
  }
  Py_DECREF(as_object(dense));
  return r;
}

bool copy_between(const View& dst, Device to, TensorObject* src, const View& wide) {
  if (!check_readable(src, "copy to another device")) return false;
  // Cast and broadcast on the source's side, if that is the smaller tensor; then one plain copy, then strides on the target's side.
  TensorObject* dense = src;
  Py_INCREF(as_object(src));
  if (src->view.dtype != dst.dtype) {
    TensorObject* cast = materialise(src, Layout::Like, dst.dtype);
    Py_DECREF(as_object(dense));
    if (!(dense = cast)) return false;
  }
  bool ok = false;
  View at = dense->view;
  const char *lo, *hi;
  extent(at, &lo, &hi);
  if (same_layout(dst, at) && hi - lo == at.numel() * itemsize(at.dtype)) {
    const char *to_lo, *to_hi;
    extent(dst, &to_lo, &to_hi);
    try {
      copy_bytes(const_cast<char*>(to_lo), to, lo, device_of(dense), hi - lo);
      ok = true;
    } catch (const Error& e) {
      raise(e);
    }
  } else if (TensorObject* here = to_device(dense, to)) {
    View v = here->view, spread;  // the leading ones that `wide` dropped are dropped again
    while (v.ndim > wide.ndim) {
      for (int d = 1; d < v.ndim; d++) v.shape[d - 1] = v.shape[d], v.strides[d - 1] = v.strides[d];
      v.ndim--;
    }
    ok = broadcast_view(v, dst.shape, dst.ndim, &spread) && copy_view(dst, spread, to);
    Py_DECREF(as_object(here));
  }
  Py_DECREF(as_object(dense));
  return ok;
}

bool place_operands(OpObject* op, Operands* in, const TensorObject* out, uint32_t movable, Device* device, uint32_t* host_inputs) {
  const char* name = op_table[op->op].name;
  Device on = out ? device_of(out) : Device{};
  const bool optimiser = std::strcmp(op_table[op->op].family, "optim") == 0;
  // Operands that can be moved do not decide; an optimiser's hyper-parameters neither.
  const auto decides = [&](int k) { return !(k < 32 && movable >> k & 1) && !(optimiser && k == in->n - 1); };
  for (int k = 0; k < in->n; k++)
    if (decides(k) && in->views[k].given() && is_tensor(in->objects[k]) && device_of(as_tensor(in->objects[k])).kind != Device::CPU) {
      const Device d = device_of(as_tensor(in->objects[k]));
      if (on.kind != Device::CPU && on != d) {
        raise(ErrorCode::Device, "%s: tensors on %s and on %s; move one with .to(device)", name, device_text(on).c_str(), device_text(d).c_str());
        return false;
      }
      if (out && on.kind == Device::CPU) {
        raise(ErrorCode::Device, "%s: the output is on cpu, an input on %s; move one with .to(device)", name, device_text(d).c_str());
        return false;
      }
      on = d;
    }
  *device = on;
  if (on.kind == Device::CPU) {  // indices in a device's memory come to values on the CPU
    for (int k = 0; k < in->n; k++)
      if (!decides(k) && in->views[k].given() && is_tensor(in->objects[k]) && device_of(as_tensor(in->objects[k])) != on &&
          !move_operand(in, k, on))
        return false;
    return true;
  }
  for (int k = 0; k < in->n; k++) {
    if (!in->views[k].given()) continue;
    const uint32_t bit = k < 32 ? 1u << k : 0;
    if (!is_tensor(in->objects[k])) {
      *host_inputs |= bit;  // a number
      continue;
    }
    const TensorObject* t = as_tensor(in->objects[k]);
    if (op->op == int(OpId::nonzero) && k == 1) {  // the count gives the shape of the result
      if (!move_operand(in, k, Device{})) return false;
      *host_inputs |= bit;
      continue;
    }
    if (device_of(t) == on) continue;
    if ((op->elementwise && t->view.ndim == 0 && !needs_grad(t)) || (optimiser && k == in->n - 1)) {
      *host_inputs |= bit;
      continue;
    }
    if (!(in->converted >> (k & 63) & 1) && !(movable & bit) && (t->view.ndim > 0 || needs_grad(t))) {
      raise(ErrorCode::Device, "%s: argument %d is on cpu, the others are on %s; move one with .to(device)", name, k, device_text(on).c_str());
      return false;
    }
    if (!move_operand(in, k, on)) return false;
  }
  return true;
}

// ---- many steps of an optimiser in few launches ----------------------------------------------------------------------------
namespace {

// One step with all tensors on `device`, ready to launch; what does not fit is left to dispatch.
struct Step {
  Call call;
  View in[kMaxIn], out[kMaxOut];
  TensorObject* written[kMaxOut];
  Args args;
};

bool collect(OpObject* op, PyObject* tuple, Device device, Step* s) {
  const int n = op->ntensors;
  if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != n) return false;
  Call& c = s->call;
  c = Call{};
  c.op = OpId(op->op);
  c.nin = n;
  c.in = s->in;
  uint32_t host_inputs = 0;
  for (int k = 0; k < n; k++) {
    PyObject* o = PyTuple_GET_ITEM(tuple, k);
    if (o == Py_None) {
      s->in[k] = View{};
      s->in[k].ndim = -1;
      continue;
    }
    if (!is_tensor(o) || !check_version(as_tensor(o), op_table[op->op].name)) return PyErr_Clear(), false;
    touch(as_tensor(o)->buffer);
    s->in[k] = as_tensor(o)->view;
    if (device_of(as_tensor(o)) == device) continue;
    if (k < n - 1 || device_of(as_tensor(o)).kind != Device::CPU) return false;
    host_inputs |= 1u << k;  // hyper-parameters
  }
  op_table[op->op].infer(c);
  if (!s->in[n - 1].contiguous()) return false;
  for (int k = 0; k < c.nout; k++) {
    const int a = c.out[k].alias;
    s->out[k] = s->in[a];
    s->written[k] = s->in[a].given() ? as_tensor(PyTuple_GET_ITEM(tuple, a)) : nullptr;
    if (s->written[k] && needs_grad(s->written[k]) && grad_enabled) return false;
  }
  s->args = Args{s->out, s->in, &c.attrs, nullptr, c.nout, n, nullptr, host_inputs};
  return true;
}

// step(*tensors) for each tuple of the list. On a device, steps of parameters that lie there are launched together.
bool step_many(OpObject* op, PyObject* list) {
  const Running running;
  std::vector<Step> steps;
  std::vector<PyObject*> alone;  // on the CPU, strided, ...
  steps.reserve(size_t(PyList_GET_SIZE(list)));
  Device device;
  for (Py_ssize_t k = 0; k < PyList_GET_SIZE(list); k++) {
    PyObject* tuple = PyList_GET_ITEM(list, k);
    PyObject* first = PyTuple_Check(tuple) && PyTuple_GET_SIZE(tuple) ? PyTuple_GET_ITEM(tuple, 0) : nullptr;
    const Device d = first && is_tensor(first) ? device_of(as_tensor(first)) : Device{};
    if (d.kind != Device::CPU && (steps.empty() || d == device)) {
      device = d;
      steps.emplace_back();
      if (collect(op, tuple, device, &steps.back())) continue;
      steps.pop_back();
    }
    alone.push_back(tuple);
  }
  std::vector<Call> calls;
  std::vector<Args> args;
  for (Step& s : steps) calls.push_back(s.call), args.push_back(s.args);
  if (!steps.empty()) launch_cuda_many(calls.data(), args.data(), int(steps.size()), device);
  for (Step& s : steps)
    for (int k = 0; k < s.call.nout; k++)
      if (s.written[k]) bump_version(s.written[k]);
  for (PyObject* tuple : alone) {
    PyObject* r = PyObject_Call(reinterpret_cast<PyObject*>(op), tuple, nullptr);
    if (!r) return false;
    Py_DECREF(r);
  }
  return true;
}

}  // namespace

// ---- bindings --------------------------------------------------------------------------------------------------------
namespace {

Device device_from(const py::handle& kind, int index) {
  if (py::cast<std::string>(kind) == "cpu") return {};
  return {Device::CUDA, uint8_t(index)};
}

// Errors of the core become Python's.
template <class F>
auto guarded(F f) {
  try {
    return f();
  } catch (const Error& e) {
    raise(e);
    throw py::error_already_set();
  }
}

TensorObject* need(const py::object& o, const char* what) {
  if (!is_tensor(o.ptr())) {
    raise(ErrorCode::Type, "%s: need a tensor, not %.80s", what, Py_TYPE(o.ptr())->tp_name);
    throw py::error_already_set();
  }
  return as_tensor(o.ptr());
}

}  // namespace

void bind_cuda(py::module_& m) {
  m.def("cuda_device_count", &cuda_device_count, "Number of CUDA devices that can be used; 0 if there is no library, driver or GPU.");
  m.def("cuda_missing", [] { return cuda_api() ? std::string() : cuda_missing(); });
  m.def("cuda_emulated", [] {
    CudaProperties p{};
    return cuda_device_count() > 0 && cuda_api()->properties(0, &p) == CudaStatus::Ok && p.emulated;
  });
  m.def("step_many", [](const py::object& step, const py::list& calls) {
    if (Py_TYPE(step.ptr()) != op_type || reinterpret_cast<OpObject*>(step.ptr())->op < 0) throw py::type_error("step_many: need an op with kernels");
    guarded([&] {
      if (!step_many(reinterpret_cast<OpObject*>(step.ptr()), calls.ptr())) throw py::error_already_set();
      return 0;
    });
  }, "step(*tensors) for each tuple of the list, on a CUDA device in few launches.");
  m.def("cuda_require", [](int index) {
    guarded([&] {
      int32_t n = 0;
      cuda_check(need_cuda().device_count(&n));
      if (index < 0 || index >= n) fail(ErrorCode::Device, "cuda:%d: this machine has %d CUDA device(s)", index, n);
      return 0;
    });
  }, "DeviceError, with what is missing, unless cuda:index can be used.");
  m.def("to_device", [](const py::object& t, const py::str& kind, int index) {
    TensorObject* r = to_device(need(t, "to"), device_from(kind, index));
    if (!r) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(as_object(r));
  }, "A copy on another device (an alias if it is there already), without its gradient history.");
  m.def("cuda_fallbacks", [] {
    py::dict d;
    for (int k = 0; k < kNumOps; k++)
      if (const int64_t n = cuda_fallbacks(OpId(k))) d[op_table[k].name] = n;
    return d;
  }, "Calls on a device that ran on the host, because the op has no CUDA row for their dtype: {op: calls}.");
  m.def("cuda_table", [] {
    py::list rows;
    for (int k = 0; k < kNumOps; k++) {
      py::list dtypes;
      for (int d = 0; d < kNumDTypes; d++)
        if (cuda_row(OpId(k), DType(d))) dtypes.append(dtype_name(DType(d)));
      rows.append(py::make_tuple(op_table[k].name, dtypes));
    }
    return rows;
  }, "(op, dtypes with a CUDA row) for every op.");
  // DLPack and __cuda_array_interface__: the consumer's stream (1 legacy default, 2 per-thread default, else a pointer) waits for ours;
  // -1: the consumer takes care of it.
  m.def("cuda_ready_for", [](const py::object& o, int64_t stream) {
    const Device device = device_of(need(o, "__dlpack__"));
    if (stream == 0 || stream < -1) {
      raise(ErrorCode::Value, "__dlpack__: stream %lld is not allowed; need None, -1, 1 (legacy default), 2 (per-thread default) or a stream's address",
            static_cast<long long>(stream));
      throw py::error_already_set();
    }
    if (device.kind == Device::CPU || stream == -1) return;
    guarded([&] {
      const CudaApi& api = need_cuda();
      void* ours = nullptr;
      cuda_check(api.get_stream(device.index, &ours));
      cuda_check(api.stream_wait(device.index, reinterpret_cast<void*>(stream), ours));
      const Buffer* b = as_tensor(o.ptr())->buffer;  // and when it goes, its memory waits for the consumer
      if (own_memory(b)) cuda_check(api.record_stream(b->context, reinterpret_cast<void*>(stream)));
      return 0;
    });
  });
  m.def("cuda_stream", [](int index) {
    return guarded([&] {
      void* stream = nullptr;
      cuda_check(need_cuda().get_stream(index, &stream));
      return reinterpret_cast<uintptr_t>(stream);
    });
  }, "Address of the current stream of the calling thread.");
  m.def("cuda_synchronize", [](int index) {
    guarded([&] {
      const CudaApi& api = need_cuda();
      py::gil_scoped_release release;
      return cuda_check(api.synchronize(index)), 0;
    });
  });
}

}  // namespace fastdl::python
