// DLPack (github.com/dmlc/dlpack, version 1.0): tensors to and from other libraries without copying.
#include "dlpack.h"

#include "core/cuda.h"
#include "capture.h"
#include "device.h"

namespace fastdl::python {

namespace {

struct Capsule {  // keeps the memory alive for the consumer
  Buffer* buffer;
  int64_t shape[kMaxDims], strides[kMaxDims];
  union {
    DLManagedTensor plain;
    DLManagedTensorVersioned versioned;
  };
};

void drop_export(Capsule* e) {
  if (Py_IsInitialized()) {  // the memory may be another library's, whose release runs Python
    const PyGILState_STATE state = PyGILState_Ensure();
    release(e->buffer);
    PyGILState_Release(state);
  }
  delete e;
}

bool dl_dtype(DType d, DLDataType* out) {
  out->lanes = 1;
  out->bits = uint8_t(itemsize(d) * 8);
  switch (kind(d)) {
    case 'b': out->code = kDLBool; break;
    case 'u': out->code = kDLUInt; break;
    case 'i': out->code = kDLInt; break;
    case 'c': out->code = kDLComplex; break;
    default: out->code = d == DType::bfloat16 ? kDLBfloat : kDLFloat;
  }
  return true;
}
int dtype_of_dl(DLDataType t) {
  if (t.lanes != 1) return -1;
  for (int k = 0; k < kNumDTypes; k++) {
    DLDataType mine;
    dl_dtype(DType(k), &mine);
    if (mine.code == t.code && mine.bits == t.bits) return k;
  }
  return -1;
}

// Another library's device memory: what we have queued on it comes first when its owner uses it again. Owners work on the legacy default
// stream, or on one that synchronises with it.
struct Foreign {
  void (*deleter)(void*);
  void* managed;
  int device;
};
void release_foreign(void* context) {
  auto* f = static_cast<Foreign*>(context);
  void* ours = nullptr;
  const CudaApi* api = cuda_api();
  if (api && api->get_stream(f->device, &ours) == CudaStatus::Ok) api->stream_wait(f->device, reinterpret_cast<void*>(1), ours);
  f->deleter(f->managed);
  delete f;
}

void capsule_destructor(PyObject* capsule) {  // only if nobody consumed it
  if (PyCapsule_IsValid(capsule, "dltensor")) {
    auto* m = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor"));
    if (m->deleter) m->deleter(m);
  } else if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
    auto* m = static_cast<DLManagedTensorVersioned*>(PyCapsule_GetPointer(capsule, "dltensor_versioned"));
    if (m->deleter) m->deleter(m);
  }
}

}  // namespace

PyObject* to_dlpack(PyObject* self, bool versioned) {
  TensorObject* t = as_tensor(self);
  if (!check_readable(t, "dlpack")) return nullptr;
  note_export(t);
  Capsule* e = new Capsule;
  e->buffer = retain(t->buffer);
  DLTensor dl;
  dl.data = t->view.data;
  const Device device = device_of(t);
  dl.device = {device.kind == Device::CPU ? kDLCPU : kDLCUDA, device.kind == Device::CPU ? 0 : int32_t(device.index)};
  dl.ndim = t->view.ndim;
  dl_dtype(t->view.dtype, &dl.dtype);
  for (int d = 0; d < t->view.ndim; d++) e->shape[d] = t->view.shape[d], e->strides[d] = t->view.strides[d];
  dl.shape = e->shape;
  dl.strides = e->strides;
  dl.byte_offset = 0;
  PyObject* capsule;
  if (versioned) {
    e->versioned = {};
    e->versioned.version = {1, 0};
    e->versioned.manager_ctx = e;
    e->versioned.deleter = [](DLManagedTensorVersioned* m) { drop_export(static_cast<Capsule*>(m->manager_ctx)); };
    e->versioned.flags = 0;
    e->versioned.dl_tensor = dl;
    capsule = PyCapsule_New(&e->versioned, "dltensor_versioned", capsule_destructor);
  } else {
    e->plain = {};
    e->plain.manager_ctx = e;
    e->plain.deleter = [](DLManagedTensor* m) { drop_export(static_cast<Capsule*>(m->manager_ctx)); };
    e->plain.dl_tensor = dl;
    capsule = PyCapsule_New(&e->plain, "dltensor", capsule_destructor);
  }
  if (!capsule) drop_export(e);
  return capsule;
}

PyObject* from_dlpack(PyObject* capsule) {
  const bool versioned = PyCapsule_IsValid(capsule, "dltensor_versioned");
  if (!versioned && !PyCapsule_IsValid(capsule, "dltensor"))
    return raise(ErrorCode::Value, "from_dlpack: not an unconsumed DLPack capsule");
  void* p = PyCapsule_GetPointer(capsule, versioned ? "dltensor_versioned" : "dltensor");
  DLTensor* dl;
  if (versioned) {
    auto* m = static_cast<DLManagedTensorVersioned*>(p);
    if (m->version.major != 1) return raise(ErrorCode::Value, "from_dlpack: DLPack version %u; need 1", m->version.major);
    dl = &m->dl_tensor;
  } else {
    dl = &static_cast<DLManagedTensor*>(p)->dl_tensor;
  }
  const int dtype = dtype_of_dl(dl->dtype);
  const bool cuda = dl->device.device_type == kDLCUDA;
  if (!cuda && dl->device.device_type != kDLCPU && dl->device.device_type != kDLCUDAHost)
    return raise(ErrorCode::Device, "from_dlpack: device type %d; need CPU (1), CUDA (2) or pinned host memory (3)", int(dl->device.device_type));
  if (cuda && dl->device.device_id >= cuda_device_count())
    return raise(ErrorCode::Device, "from_dlpack: the memory is on cuda:%d; %s", int(dl->device.device_id),
                 cuda_api() ? "this device cannot be used here" : cuda_missing().c_str());
  const Device device = cuda ? Device{Device::CUDA, uint8_t(dl->device.device_id)} : Device{};
  if (dtype < 0) return raise(ErrorCode::DType, "from_dlpack: dtype code %d with %d bits is not supported", dl->dtype.code, dl->dtype.bits);
  if (dl->ndim < 0 || dl->ndim > kMaxDims) return raise(ErrorCode::Shape, "from_dlpack: %d dimensions; at most %d are supported", dl->ndim, kMaxDims);
  View v;
  v.dtype = DType(dtype);
  v.ndim = dl->ndim;
  v.data = static_cast<char*>(dl->data) + dl->byte_offset;
  char *lo = static_cast<char*>(v.data), *hi = lo + itemsize(v.dtype);
  for (int d = 0; d < v.ndim; d++) v.shape[d] = dl->shape[d];
  if (dl->strides) {
    for (int d = 0; d < v.ndim; d++) v.strides[d] = dl->strides[d];
  } else {
    set_contiguous_strides(v);
  }
  for (int d = 0; d < v.ndim; d++) {
    if (v.shape[d] < 0) return raise(ErrorCode::Shape, "from_dlpack: negative size");
    if (v.shape[d] > 1) (v.strides[d] < 0 ? lo : hi) += (v.shape[d] - 1) * v.strides[d] * itemsize(v.dtype);
  }
  if (v.numel() > 0 && (!v.data || reinterpret_cast<uintptr_t>(v.data) % size_t(is_complex(v.dtype) ? itemsize(v.dtype) / 2 : itemsize(v.dtype))))
    return raise(ErrorCode::Value, "from_dlpack: the data pointer is null or not aligned to its dtype");
  const bool read_only = versioned && (static_cast<DLManagedTensorVersioned*>(p)->flags & DLPACK_FLAG_BITMASK_READ_ONLY);
  // From here on the memory is ours: the capsule is renamed before anything can fail, and the deleter runs exactly once.
  PyCapsule_SetName(capsule, versioned ? "used_dltensor_versioned" : "used_dltensor");
  const auto deleter = [](void* m) {
    auto* t = static_cast<DLManagedTensor*>(m);
    if (t->deleter) t->deleter(t);
  };
  const auto versioned_deleter = [](void* m) {
    auto* t = static_cast<DLManagedTensorVersioned*>(m);
    if (t->deleter) t->deleter(t);
  };
  auto* foreign = cuda ? new Foreign{versioned ? +versioned_deleter : +deleter, p, device.index} : nullptr;
  Buffer* buffer = cuda ? wrap_buffer(lo, hi - lo, device, release_foreign, foreign)
                        : wrap_buffer(lo, hi - lo, device, versioned ? +versioned_deleter : +deleter, p);
  TensorObject* t = new_tensor(buffer, v);
  if (!t || !read_only) return as_object(t);
  TensorObject* copy = materialise(t, Layout::Contiguous, v.dtype);  // read-only memory is never exposed to writes
  Py_DECREF(as_object(t));
  return as_object(copy);
}

}  // namespace fastdl::python
