// What fastdl/cuda.py is made of: devices, streams, events and the memory of devices as plain functions over the C interface of the CUDA
// library. Streams and events are addresses here; the classes are Python's.
#include <pybind11/pybind11.h>

#include "core/cuda.h"
#include "device.h"

namespace py = pybind11;

namespace fastdl::python {
namespace {

using Handle = uintptr_t;
void* pointer(Handle h) { return reinterpret_cast<void*>(h); }

// Waits for the device: other Python threads run meanwhile.
template <class F>
void wait(F f) {
  const CudaApi& api = need_cuda();
  CudaStatus status;
  {
    py::gil_scoped_release release;
    status = f(api);
  }
  cuda_check(status);
}

// What a function of the interface leaves in its last argument.
template <class R, class F>
R result(F f) {
  R r{};
  cuda_check(f(need_cuda(), &r));
  return r;
}
template <class F>
Handle handle(F f) {
  return reinterpret_cast<Handle>(result<void*>(f));
}

py::dict properties(int device) {
  const auto p = result<CudaProperties>([&](const CudaApi& api, CudaProperties* out) { return api.properties(device, out); });
  py::dict d;
  d["name"] = std::string(p.name);
  d["major"] = p.compute_capability / 10;
  d["minor"] = p.compute_capability % 10;
  d["multi_processor_count"] = p.multiprocessors;
  d["shared_memory_per_block_optin"] = p.shared_per_block;
  d["total_memory"] = p.total_memory;
  d["emulated"] = bool(p.emulated);
  return d;
}

py::dict memory_stats(int device) {
  const auto s = result<CudaMemoryStats>([&](const CudaApi& api, CudaMemoryStats* out) { return api.memory_stats(device, out); });
  py::dict d;
  d["in_use"] = s.in_use;
  d["peak"] = s.peak;
  d["cached"] = s.cached;
  d["limit"] = s.limit;
  d["allocations"] = s.allocations;
  d["hits"] = s.hits;
  return d;
}

void record_stream(const py::object& o, Handle stream) {
  if (!is_tensor(o.ptr())) fail(ErrorCode::Type, "record_stream: need a tensor, not %.80s", Py_TYPE(o.ptr())->tp_name);
  const Buffer* b = as_tensor(o.ptr())->buffer;
  if (b->device.kind != Device::CUDA) fail(ErrorCode::Device, "record_stream: the tensor is on cpu");
  if (own_memory(b)) cuda_check(need_cuda().record_stream(b->context, pointer(stream)));
}

}  // namespace

void bind_cuda_streams(py::module_& m) {
  py::register_local_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const Error& e) {
      raise(e);
    }
  });

  m.def("cuda_properties", &properties);
  m.def("cuda_memory_stats", &memory_stats);
  m.def("cuda_reset_peak", [](int device) { cuda_check(need_cuda().reset_peak(device)); });
  m.def("cuda_empty_cache", [](int device) { wait([&](const CudaApi& api) { return api.empty_cache(device); }); });
  m.def("cuda_set_limit", [](int device, int64_t bytes) { cuda_check(need_cuda().set_limit(device, bytes)); });
  m.def("cuda_memory_info", [](int device) {
    int64_t free_bytes = 0, total = 0;
    cuda_check(need_cuda().memory_info(device, &free_bytes, &total));
    return py::make_tuple(free_bytes, total);
  });
  m.def("cuda_record_stream", &record_stream);

  m.def("cuda_default_stream", [](int device) {
    return handle([&](const CudaApi& api, void** s) { return api.default_stream(device, s); });
  });
  m.def("cuda_set_stream", [](int device, Handle stream) { cuda_check(need_cuda().set_stream(device, pointer(stream))); });
  m.def("cuda_create_stream", [](int device, int priority) {
    return handle([&](const CudaApi& api, void** s) { return api.create_stream(device, priority, s); });
  });
  m.def("cuda_destroy_stream", [](int device, Handle stream) { cuda_check(need_cuda().destroy_stream(device, pointer(stream))); });
  m.def("cuda_query_stream", [](int device, Handle stream) {
    return result<int32_t>([&](const CudaApi& api, int32_t* idle) { return api.query_stream(device, pointer(stream), idle); }) != 0;
  });
  m.def("cuda_synchronize_stream", [](int device, Handle stream) {
    wait([&](const CudaApi& api) { return api.synchronize_stream(device, pointer(stream)); });
  });
  m.def("cuda_stream_wait", [](int device, Handle waiting, Handle awaited) {
    cuda_check(need_cuda().stream_wait(device, pointer(waiting), pointer(awaited)));
  });

  m.def("cuda_create_event", [](int device, bool timing) {
    return handle([&](const CudaApi& api, void** e) { return api.create_event(device, timing, e); });
  });
  m.def("cuda_destroy_event", [](int device, Handle event) { cuda_check(need_cuda().destroy_event(device, pointer(event))); });
  m.def("cuda_record_event", [](int device, Handle event, Handle stream) {
    cuda_check(need_cuda().record_event(device, pointer(event), pointer(stream)));
  });
  m.def("cuda_wait_event", [](int device, Handle event, Handle stream) {
    cuda_check(need_cuda().wait_event(device, pointer(event), pointer(stream)));
  });
  m.def("cuda_query_event", [](int device, Handle event) {
    return result<int32_t>([&](const CudaApi& api, int32_t* done) { return api.query_event(device, pointer(event), done); }) != 0;
  });
  m.def("cuda_synchronize_event", [](int device, Handle event) {
    wait([&](const CudaApi& api) { return api.synchronize_event(device, pointer(event)); });
  });
  m.def("cuda_elapsed", [](Handle start, Handle end) {
    return result<float>([&](const CudaApi& api, float* ms) { return api.elapsed(pointer(start), pointer(end), ms); });
  });
}

}  // namespace fastdl::python
