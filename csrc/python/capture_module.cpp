// Bindings of captured steps and of the profile.
#include <pybind11/pybind11.h>

#include "capture.h"
#include "core/launch.h"

namespace py = pybind11;

namespace fastdl::python {

namespace {

py::object steal(PyObject* o) {
  if (!o) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(o);
}

Passes passes_of(const py::dict& d) {
  Passes p;
  const auto get = [&d](const char* name, bool* on) {
    if (d.contains(name)) *on = d[name].cast<bool>();
  };
  get("dead_code", &p.dead_code), get("constants", &p.constants), get("common", &p.common), get("in_place", &p.in_place);
  get("fuse", &p.fuse), get("slices", &p.slices), get("epilogue", &p.epilogue), get("norms", &p.norms), get("pooling", &p.pooling), get("images", &p.images), get("updates", &p.updates), get("recompute", &p.recompute), get("recompute_convolutions", &p.recompute_convolutions), get("graphs", &p.graphs);
  get("arena", &p.arena);
  return p;
}

void refuse(Capture& c, const std::string& message) {
  PyObject* fn = hook("user_line");
  const std::string line = fn ? py::handle(fn)().cast<std::string>() : "";
  if (!c.refuse((message + line).c_str())) throw py::error_already_set();
}

py::list steps_of(Program& p) {
  py::list steps;
  for (const Step& s : p.steps) {
    const Args args = p.args_of(s);
    py::dict d;
    d["op"] = s.op->name;
    d["dtype"] = dtype_name(s.compute);
    d["bytes"] = bytes_of(args);
    d["flops"] = flops_of(*s.op, args);
    d["seconds"] = p.timed_replays ? s.seconds / double(p.timed_replays) : 0.0;
    d["group"] = s.group;
    d["workspace"] = s.workspace;
    steps.append(d);
  }
  return steps;
}

py::list timings_of(const std::vector<Timing>& timings) {
  py::list rows;
  for (const Timing& t : timings) {
    py::list shape;
    for (const int64_t n : t.shape)
      if (n >= 0) shape.append(n);
    rows.append(py::make_tuple(t.op->name, dtype_name(t.compute), t.start, t.seconds, t.bytes, t.flops, py::tuple(shape), t.thread, t.on_device ? "cuda" : "cpu"));
  }
  return rows;
}

}  // namespace

void bind_capture(py::module_& m) {
  // Programs hold parameters, generators and arguments that count by identity, and are held by what those belong to.
  const py::custom_type_setup collected([](PyHeapTypeObject* heap) {
    PyTypeObject* type = &heap->ht_type;
    type->tp_flags |= Py_TPFLAGS_HAVE_GC;
    type->tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
      Py_VISIT(Py_TYPE(self));
      if (py::detail::is_holder_constructed(self)) return py::cast<Capture&>(py::handle(self)).traverse(visit, arg);
      return 0;
    };
    type->tp_clear = [](PyObject* self) {
      if (py::detail::is_holder_constructed(self)) py::cast<Capture&>(py::handle(self)).clear();
      return 0;
    };
  });
  py::class_<Capture>(m, "Capture", collected, "One recorded call of a function, and its replays; see fastdl.graph.")
      .def(py::init<bool>(), py::arg("strict") = true)
      .def("refuse", &refuse)
      .def("decline", [](Capture& c, const std::string& reason) { c.decline(reason); })
      .def("begin", [](Capture& c, const py::tuple& args, const py::dict& kwargs) { return steal(c.begin(args.ptr(), kwargs.ptr())); })
      .def("count_leaks", [](Capture& c, const py::object& result) { return c.count_leaks(result.ptr()); })
      .def("finish", [](Capture& c, const py::object& result, const py::dict& passes) { return steal(c.finish(result.ptr(), passes_of(passes))); })
      .def("abort", &Capture::abort)
      .def("run", [](Capture& c, const py::tuple& args, const py::dict& kwargs, bool timed) { return steal(c.run(args.ptr(), kwargs.ptr(), timed)); },
           py::arg("args"), py::arg("kwargs"), py::arg("timed") = false)
      .def("note_draw", [](Capture& c, const py::object& generator, uint64_t seed, uint64_t offset) {
        if (!c.note_draw(generator.ptr(), seed, offset)) throw py::error_already_set();
      })
      .def("note_seed", [](Capture& c, const py::object& generator) { c.note_seed(generator.ptr()); })
      .def("stale", &Capture::stale)
      .def("accept_mode", [](Capture& c) { c.accept_mode(mode_version); })
      .def("dump", [](Capture& c) { return c.program().dump(); })
      .def("steps", [](Capture& c) { return steps_of(c.program()); })
      .def("stats", [](Capture& c) {
        const Program& p = c.program();
        py::dict d;
        d["launches"] = p.steps.size();
        d["recorded"] = p.recorded_steps;
        d["arena_bytes"] = p.arena_bytes;
        d["unplanned_bytes"] = p.unplanned_bytes;
        d["workspace_bytes"] = p.workspace_bytes;
        d["replays"] = p.replays;
        const Program::Graphs graphs = p.graphs();
        d["graphs"] = graphs.count;
        d["graph_launches"] = graphs.launches;
        d["graphs_made"] = graphs.made;
        return d;
      });
  m.def("recording", &recording);
  m.def("refuse_capture", [](const std::string& message) {  // what is recorded cannot be replayed
    if (capturing) refuse(*capturing, message);
  });
  m.def("structure_changed", [] { structure_version++; });
  m.def("mode_changed", [] { mode_version++; });
  m.def("anomaly_enabled", [] { return anomaly_mode; });
  m.def("start_profile", &start_profile);
  m.def("stop_profile", [] { return timings_of(stop_profile()); });
}

}  // namespace fastdl::python
