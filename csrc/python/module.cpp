// The extension module fastdl._C: pybind11 binds everything that is not on a hot path.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <utility>

#include "core/conv_plan.h"
#include "core/infer/infer.h"
#include "core/parallel.h"
#include "core/threads.h"
#include "capture.h"
#include "cpu/cpuid.h"
#include "cpu/peak.h"
#include "tensor.h"

namespace py = pybind11;
using namespace fastdl;
using namespace fastdl::python;

namespace fastdl::python {
void bind_cuda(py::module_& m);          // cuda.cpp
void bind_cuda_streams(py::module_& m);  // cuda_streams.cpp
void bind_capture(py::module_& m);       // capture_module.cpp
}

namespace {

py::object steal(PyObject* o) {
  if (!o) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(o);
}
TensorObject* need_tensor(const py::object& o, const char* what) {
  if (!is_tensor(o.ptr())) {
    raise(ErrorCode::Type, "%s: need a tensor, not %.80s", what, Py_TYPE(o.ptr())->tp_name);
    throw py::error_already_set();
  }
  return as_tensor(o.ptr());
}
void ok(bool fine) {
  if (!fine) throw py::error_already_set();
}

py::object empty(const py::object& shape, const py::object& dtype, int cuda) {
  int64_t sizes[kMaxDims];
  int n;
  ok(get_shape(shape.ptr(), "empty", sizes, &n));
  const int d = dtype_code(dtype.ptr());
  if (d < 0) throw py::error_already_set();
  return steal(as_object(
      empty_tensor(DType(d), sizes, n, Layout::Contiguous, nullptr, 0, cuda < 0 ? Device{} : Device{Device::CUDA, uint8_t(cuda)})));
}

// Shares t's memory under another type, e.g. nn.Parameter.
py::object as_subclass(const py::object& o, const py::object& cls) {
  TensorObject* t = need_tensor(o, "as_subclass");
  if (!PyType_Check(cls.ptr()) || !PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(cls.ptr()), tensor_type)) {
    raise(ErrorCode::Type, "as_subclass: need a subclass of Tensor");
    throw py::error_already_set();
  }
  auto* type = reinterpret_cast<PyTypeObject*>(cls.ptr());
  if (type == tensor_type) return steal(as_object(alias_tensor(t, false)));
  PyObject* self = type->tp_alloc(type, 0);
  if (!self) throw py::error_already_set();
  as_tensor(self)->buffer = retain(t->buffer);
  as_tensor(self)->view = t->view;
  as_tensor(self)->version = t->version;
  return py::reinterpret_steal<py::object>(self);
}

// Gives `o` other memory of the same shape and dtype (load_state_dict, .to()).
void set_data(const py::object& o, const py::object& source) {
  TensorObject *t = need_tensor(o, "set_data"), *s = need_tensor(source, "set_data");
  if (t->node) {
    raise(ErrorCode::Grad, "set_data: only a leaf can get other memory");
    throw py::error_already_set();
  }
  Buffer* old = t->buffer;
  t->buffer = retain(s->buffer);
  t->view = s->view;
  t->version = t->buffer->version;
  structure_version++;
  retire(old);
}

// View of the real (0) or imaginary (1) parts of complex memory.
py::object complex_part(const py::object& o, int which) {
  TensorObject* t = need_tensor(o, "complex_part");
  if (!is_complex(t->view.dtype)) {
    raise(ErrorCode::DType, "complex_part: dtype %s is not complex", dtype_name(t->view.dtype));
    throw py::error_already_set();
  }
  View v = t->view;
  v.dtype = v.dtype == DType::complex64 ? DType::float32 : DType::float64;
  if (which) v.data = static_cast<char*>(v.data) + itemsize(v.dtype);
  for (int d = 0; d < v.ndim; d++) v.strides[d] *= 2;
  return steal(as_object(make_view(t, v, which ? "imag" : "real", PyTuple_New(0))));
}

void copy_(const py::object& dst, const py::object& src) {
  TensorObject* d = need_tensor(dst, "copy_");
  if (needs_grad(d)) ok(check_inplace(d, "copy_"));
  if (grad_enabled && is_tensor(src.ptr()) && needs_grad(as_tensor(src.ptr()))) {
    raise(ErrorCode::Grad, "copy_: the copy is not recorded, so the source's gradient would be lost; detach() it or copy under no_grad()");
    throw py::error_already_set();
  }
  if (is_scalar(src.ptr())) {
    touch(d->buffer);
    ok(fill_view(d->view, src.ptr(), d->buffer->device));
  } else {
    TensorObject* s = tensor_from(src.ptr());
    ok(s != nullptr);
    const py::object hold = steal(as_object(s));
    ok(copy_into(d, s));
  }
  bump_version(d);
}

py::object record(const py::tuple& outputs, const py::tuple& inputs, const py::object& rule, const py::str& name, const py::tuple& saved,
                  bool selective) {
  std::vector<PyObject*> in;
  std::vector<TensorObject*> out;
  for (auto& o : inputs) {
    in.push_back(o.ptr());
    if (is_tensor(o.ptr())) ok(check_version(as_tensor(o.ptr()), PyUnicode_AsUTF8(name.ptr())));
  }
  for (auto& o : outputs) {
    TensorObject* t = need_tensor(py::reinterpret_borrow<py::object>(o), "record");
    if (grad_enabled && any_needs_grad(in.data(), int(in.size())) && t->requires_grad) {
      raise(ErrorCode::Grad, "%U: an output is a leaf that requires grad; return a new tensor", name.ptr());
      throw py::error_already_set();
    }
    out.push_back(t);
  }
  ok(record_rule(name.ptr(), rule.ptr(), saved.ptr(), in.data(), int(in.size()), out.data(), int(out.size()), selective));
  return outputs;
}

py::list op_table_rows() {
  py::list rows;
  for (const OpInfo& info : op_table) {
    py::list dtypes, kernels;
    for (int d = 0; d < kNumDTypes; d++) {
      if (info.dtypes >> d & 1) dtypes.append(dtype_name(DType(d)));
      if (info.cpu[d]) kernels.append(dtype_name(DType(d)));
    }
    rows.append(py::make_tuple(info.name, info.family, int(info.nin), int(info.nout), dtypes, kernels));
  }
  return rows;
}

std::vector<std::string> isa_list(bool (*test)(int)) {
  std::vector<std::string> names;
  for (int k = 0; k < isa_count(); k++)
    if (test(k)) names.push_back(isa_name(k));
  return names;
}

py::dict memory_stats_dict() {
  const MemoryStats s = memory_stats();
  py::dict d;
  d["in_use"] = s.in_use;
  d["peak"] = s.peak;
  d["cached"] = s.cached;
  d["limit"] = s.limit;
  d["allocations"] = s.allocations;
  d["hits"] = s.hits;
  return d;
}

py::tuple conv_plans(int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t filters, int64_t kernel, int64_t stride,
                     int64_t padding, int64_t dilation, int64_t groups) {
  ConvShape s = {batch, channels, filters, groups, {height, width}, {kernel, kernel}, {}, {stride, stride}, {padding, padding}, {dilation, dilation}};
  for (int axis = 0; axis < 2; axis++) s.out[axis] = (s.in[axis] + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
  const auto gather = [&](bool forward) {
    const ConvGatherPlan p = conv_gather_plan(s, forward, sizeof(float), false, true);
    return s.slides() ? "sliding" : p.images ? "images" : p.runs ? "runs" : p.tiles ? "rows" : p.winograd.tiles ? "winograd" : p.planes ? "planes" : p.product ? "product" : "multiply-adds";
  };
  const ConvWeightPlan weights = conv_weight_plan(s, sizeof(float), false, true);
  return py::make_tuple(gather(true), gather(false), s.slides() ? "sliding" : weights.tiles ? "tiles" : weights.winograd.tiles ? "winograd" : weights.planes ? "planes" : weights.product ? "product" : "multiply-adds");
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "fastdl's compiled core: Tensor, Op, kernels, allocator, threads.";
  if (!isa_error().empty()) throw py::import_error(isa_error());
  init_op_table();
  if (!threads_warning().empty() && PyErr_WarnEx(PyExc_UserWarning, threads_warning().c_str(), 1) < 0) throw py::error_already_set();
  if (!make_tensor_type(m.ptr()) || !make_op_type(m.ptr())) throw py::error_already_set();

  m.def("set_errors", [](const py::object& module) { ok(set_error_classes(module.ptr())); });
  m.def("set_dtypes", [](const py::object& tuple) { ok(set_dtypes(tuple.ptr())); });
  m.def("set_hook", [](const char* name, const py::object& fn) { set_hook(name, fn.ptr()); });
  m.def("op_table", op_table_rows, "Rows of the op table: (name, family, nin, nout, dtypes, dtypes with a CPU kernel).");

  m.def("empty", empty, py::arg("shape"), py::arg("dtype"), py::arg("cuda") = -1);
  m.def("from_buffer", [](const py::object& o, int copy) { return steal(as_object(tensor_from_buffer(o.ptr(), copy))); }, py::arg("obj"), py::arg("copy") = -1);
  m.def("as_subclass", as_subclass);
  m.def("set_data", set_data);
  m.def("copy_", copy_);
  m.def("permute", [](const py::object& t, const py::object& axes) { need_tensor(t, "permute"); return steal(py_permute(t.ptr(), axes.ptr())); });
  m.def("reshape", [](const py::object& t, const py::object& shape) { need_tensor(t, "reshape"); return steal(py_reshape(t.ptr(), shape.ptr())); });
  m.def("broadcast_to", [](const py::object& t, const py::object& shape) { need_tensor(t, "broadcast_to"); return steal(py_broadcast_to(t.ptr(), shape.ptr())); });
  m.def("as_strided", [](const py::object& t, const py::object& shape, const py::object& strides, Py_ssize_t offset, const char* rule, const py::tuple& saved) {
    need_tensor(t, "as_strided");
    return steal(py_as_strided(t.ptr(), shape.ptr(), strides.ptr(), offset, rule, saved.ptr()));
  });
  m.def("overlap", [](const py::object& a, const py::object& b) { return overlap(need_tensor(a, "overlap")->view, need_tensor(b, "overlap")->view); });
  m.def("complex_part", complex_part);
  m.def("element_strides", [](const py::object& t) {
    const View& v = need_tensor(t, "element_strides")->view;
    return py::tuple(py::cast(std::vector<int64_t>(v.strides, v.strides + v.ndim)));
  });
  m.def("to_dlpack", [](const py::object& t, bool versioned) { need_tensor(t, "to_dlpack"); return steal(to_dlpack(t.ptr(), versioned)); });
  m.def("from_dlpack", [](const py::object& capsule) { return steal(from_dlpack(capsule.ptr())); });
  m.def("promote_types", [](const py::object& a, const py::object& b) {
    const int x = dtype_code(a.ptr()), y = x < 0 ? -1 : dtype_code(b.ptr());
    if (y < 0) throw py::error_already_set();
    return py::reinterpret_borrow<py::object>(dtype_object(promote(DType(x), DType(y))));
  });
  m.def("float_of", [](const py::object& a) {
    const int x = dtype_code(a.ptr());
    if (x < 0) throw py::error_already_set();
    return py::reinterpret_borrow<py::object>(dtype_object(float_of(DType(x))));
  });

  m.def("grad_enabled", [] { return grad_enabled; });
  m.def("set_grad_enabled", [](bool on) { const bool before = grad_enabled; grad_enabled = on; return before; });
  m.def("backward", [](const py::tuple& roots, const py::tuple& grads, const py::object& targets, bool retain, bool create, bool stop) {
    for (auto& r : roots) need_tensor(py::reinterpret_borrow<py::object>(r), "backward");
    for (auto& g : grads) need_tensor(py::reinterpret_borrow<py::object>(g), "backward");
    if (roots.size() != grads.size()) throw py::value_error("backward: one gradient per root");
    if (!targets.is_none())
      for (auto& t : targets) need_tensor(py::reinterpret_borrow<py::object>(t), "grad");
    return steal(py_backward(roots.ptr(), grads.ptr(), targets.ptr(), retain, create, stop));
  }, py::arg("roots"), py::arg("grads"), py::arg("targets"), py::arg("retain"), py::arg("create"), py::arg("stop") = false);
  m.def("graph_leaves", [](const py::tuple& roots, uint64_t since) {
    for (auto& r : roots) need_tensor(py::reinterpret_borrow<py::object>(r), "graph_leaves");
    return steal(py_graph_leaves(roots.ptr(), since));
  }, py::arg("roots"), py::arg("since") = 0);
  m.def("graph_clock", &graph_clock);
  m.def("record", record, py::arg("outputs"), py::arg("inputs"), py::arg("rule"), py::arg("name"), py::arg("saved") = py::tuple(),
        py::arg("selective") = false);

  m.def("num_threads", &num_threads);
  m.def("_record_chunks", [](bool on) {
    std::vector<std::pair<int64_t, std::vector<int64_t>>> calls;
    for (ChunkRecord& record : record_chunks(on)) calls.emplace_back(record.least, std::move(record.work));
    return calls;
  });
  m.def("_withhold_scratch", &withhold_scratch);
  m.def("set_num_threads", [](int n) {
    if (n < 1 || n > 1024) throw py::value_error("set_num_threads: need a number from 1 to 1024");
    set_num_threads(n);
  });
  m.def("set_conv_winograd", &set_conv_winograd);
  m.def("conv_plans", &conv_plans, py::arg("batch"), py::arg("channels"), py::arg("height"), py::arg("width"), py::arg("filters"),
        py::arg("kernel"), py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"),
        "Tests: how conv2d, its gradient by the input and that by the weights are computed in float32: by 'images', 'rows', "
        "'winograd', 'sliding', 'planes', 'product' or 'multiply-adds'; the last by 'tiles', 'winograd', 'sliding', 'planes', 'product' or 'multiply-adds'.");
  m.def("set_matmul_parts", [](int parts) { return std::exchange(gemm_parts, parts); });
  m.def("memory_stats", memory_stats_dict);
  m.def("reset_peak_memory", &reset_peak_memory);
  m.def("empty_cache", &empty_cache);
  m.def("set_memory_limit", &set_memory_limit);
  m.def("set_guard", [](bool on) {
    guard_zones = on;
    const int64_t found = guard_violations;
    if (!on) guard_violations = 0;
    return found;
  }, "Tests: guard zones around new buffers on or off; returns how many were found damaged since they were turned on.");
  m.def("fail_after", &fail_after, "Tests: the n-th allocation from now on fails.");
  bind_cuda(m);
  bind_cuda_streams(m);
  bind_capture(m);
  m.def("isa", [] { return isa_name(chosen_isa()); });
  m.def("compiled_isas", [] { return isa_list(isa_compiled); });
  m.def("supported_isas", [] { return isa_list(isa_supported); });
  m.def("measure_peak", &measure_peak, py::arg("kind"), py::arg("rounds"), py::call_guard<py::gil_scoped_release>());
  m.def("set_anomaly", [](bool on) { const bool before = anomaly_mode; anomaly_mode = on; return before; });
  m.def("compiler", [] {
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "gcc " __VERSION__;
#endif
  });
}
