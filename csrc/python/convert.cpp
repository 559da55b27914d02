// Conversion between Python objects and tensors: numbers, the buffer protocol (NumPy, zero copy), DLPack, dtypes, shapes, errors.
#include <complex>
#include <cstdarg>
#include <cstring>

#include "core/cuda.h"
#include "core/launch.h"
#include "core/record.h"
#include "capture.h"
#include "device.h"

namespace fastdl::python {

// ---- errors ------------------------------------------------------------------------------------------------------
namespace {
PyObject* error_classes[10];
PyObject* dtypes = nullptr;  // tuple of fastdl.DType
}  // namespace

int ops_running = 0;
std::vector<Buffer*> retired_buffers;
void release_retired() {
  std::vector<Buffer*> gone;
  gone.swap(retired_buffers);
  for (Buffer* b : gone) release(b);
}

PyObject* as_tuple(PyObject* o) {
  if (PyUnicode_Check(o) || PyBytes_Check(o)) return PyErr_SetString(PyExc_TypeError, "need a sequence"), nullptr;
  return PySequence_Tuple(o);
}

bool set_error_classes(PyObject* module) {
  static const char* const names[] = {"ShapeError", "DTypeError", "IndexError_", "ValueError_", "TypeError_", "DeviceError",
                                      "OutOfMemoryError", "FormatError", "GradError", "CaptureError"};
  for (int k = 0; k < 10; k++) {
    PyObject* c = PyObject_GetAttrString(module, names[k]);
    if (!c) return false;
    Py_XDECREF(error_classes[k]);
    error_classes[k] = c;
  }
  return true;
}

PyObject* raise(const Error& e) {
  PyObject* c = error_classes[int(e.code)];
  PyErr_SetString(c ? c : PyExc_RuntimeError, e.what());
  return nullptr;
}

PyObject* raise(ErrorCode code, const char* format, ...) {
  va_list va;
  va_start(va, format);
  PyObject* text = PyUnicode_FromFormatV(format, va);
  va_end(va);
  if (!text) return nullptr;
  PyObject* c = error_classes[int(code)];
  PyErr_SetObject(c ? c : PyExc_RuntimeError, text);
  Py_DECREF(text);
  return nullptr;
}

// ---- dtypes and shapes -------------------------------------------------------------------------------------------
bool set_dtypes(PyObject* tuple) {
  if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != kNumDTypes) {
    PyErr_SetString(PyExc_ValueError, "set_dtypes: need one DType per row of dtypes.def");
    return false;
  }
  Py_INCREF(tuple);
  Py_XDECREF(dtypes);
  dtypes = tuple;
  return true;
}

PyObject* dtype_object(DType d) { return dtypes ? PyTuple_GET_ITEM(dtypes, int(d)) : Py_None; }

int dtype_code(PyObject* o) {
  if (dtypes)
    for (int k = 0; k < kNumDTypes; k++)
      if (PyTuple_GET_ITEM(dtypes, k) == o) return k;
  PyObject* fn = hook("dtype_code");  // NumPy dtypes, names, Python types
  PyObject* r = fn ? PyObject_CallFunctionObjArgs(fn, o, nullptr) : nullptr;
  if (!r) return -1;
  const int code = int(PyLong_AsLong(r));
  Py_DECREF(r);
  return code;
}

bool get_shape(PyObject* o, const char* what, int64_t* shape, int* ndim) {
  PyObject* seq = PyLong_Check(o) || (PyIndex_Check(o) && !PySequence_Check(o)) ? PyTuple_Pack(1, o) : as_tuple(o);
  if (!seq) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) return false;
    PyErr_Clear();
    raise(ErrorCode::Type, "%s: a shape is an int or a sequence of ints, not %.80s", what, Py_TYPE(o)->tp_name);
    return false;
  }
  const Py_ssize_t n = PySequence_Fast_GET_SIZE(seq);
  bool ok = n <= kMaxDims;
  if (!ok) raise(ErrorCode::Shape, "%s: %zd dimensions; at most %d are supported", what, n, kMaxDims);
  for (Py_ssize_t k = 0; ok && k < n; k++) {
    const Py_ssize_t s = PyNumber_AsSsize_t(PySequence_Fast_GET_ITEM(seq, k), PyExc_OverflowError);
    if (s == -1 && PyErr_Occurred()) {
      if (PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        raise(ErrorCode::Type, "%s: sizes must be ints, not %.80s", what, Py_TYPE(PySequence_Fast_GET_ITEM(seq, k))->tp_name);
      }
      ok = false;
    } else if (s < 0) {
      raise(ErrorCode::Value, "%s: negative size %zd", what, s);
      ok = false;
    } else {
      shape[k] = s;
    }
  }
  Py_DECREF(seq);
  *ndim = int(n);
  return ok;
}

// ---- numbers -----------------------------------------------------------------------------------------------------
bool is_scalar(PyObject* o) {
  return PyFloat_CheckExact(o) || PyLong_CheckExact(o) || PyBool_Check(o) || PyComplex_CheckExact(o);
}

// NEP 50: a Python number adopts the dtype of its partners unless its kind is higher.
DType scalar_dtype(PyObject* o, bool have_reference, DType reference) {
  const char k = have_reference ? kind(reference) : 'n';
  if (PyBool_Check(o)) return have_reference ? reference : DType::bool_;
  if (PyLong_Check(o)) return have_reference && k != 'b' ? reference : DType::int64;
  if (PyFloat_Check(o)) {
    if (!have_reference) return DType::float32;
    return k == 'f' || k == 'c' ? reference : DType::float64;
  }
  if (!have_reference) return DType::complex64;
  if (k == 'c') return reference;
  if (k == 'f') return reference == DType::float64 ? DType::complex128 : DType::complex64;
  return DType::complex128;
}

static uint16_t float_to_half(float f) {
  uint32_t x;
  std::memcpy(&x, &f, 4);
  const uint32_t sign = x >> 16 & 0x8000, mag = x & 0x7fffffff;
  if (mag > 0x7f800000) return uint16_t(sign | 0x7e00);
  if (mag >= 0x477ff000) return uint16_t(sign | 0x7c00);
  if (mag < 0x33000001) return uint16_t(sign);
  if (mag < 0x38800000) {  // subnormal: shift the full significand, round to even
    const int shift = 126 - int(mag >> 23);
    const uint32_t m = (mag & 0x7fffff) | 0x800000, half = 1u << (shift - 1), rest = m & ((1u << shift) - 1);
    uint32_t r = m >> shift;
    if (rest > half || (rest == half && (r & 1))) r++;
    return uint16_t(sign | r);
  }
  const uint32_t r = mag - 0x38000000 + 0xfff + (mag >> 13 & 1);
  return uint16_t(sign | r >> 13);
}
static float half_to_float(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3ff;
  float f;
  if (e == 0) {
    f = float(m) * 0x1p-24f;
    return sign ? -f : f;
  }
  const uint32_t x = sign | (e == 31 ? 0x7f800000 | m << 13 : (e + 112) << 23 | m << 13);
  std::memcpy(&f, &x, 4);
  return f;
}
static uint16_t float_to_bf16(float f) {
  uint32_t x;
  std::memcpy(&x, &f, 4);
  if ((x & 0x7fffffff) > 0x7f800000) return uint16_t(x >> 16 | 0x40);
  return uint16_t((x + 0x7fff + (x >> 16 & 1)) >> 16);
}
static float bf16_to_float(uint16_t h) {
  const uint32_t x = uint32_t(h) << 16;
  float f;
  std::memcpy(&f, &x, 4);
  return f;
}

// Writes the number as `dtype` to storage16 and describes it as a 0-d view.
bool scalar_to_view(PyObject* o, DType dtype, void* storage16, View* out) {
  out->data = storage16;
  out->ndim = 0;
  out->dtype = dtype;
  if (kind(dtype) == 'i' || kind(dtype) == 'u' || dtype == DType::bool_) {
    int64_t i = 0;
    if (PyFloat_Check(o)) {
      const double d = PyFloat_AS_DOUBLE(o);
      if (dtype == DType::bool_) {
        *static_cast<bool*>(storage16) = d != 0;
        return true;
      }
      if (!(d >= -9.3e18 && d <= 1.9e19)) return raise(ErrorCode::Value, "a value of %R does not fit dtype %s", o, dtype_name(dtype)), false;
      i = d >= 9.3e18 ? int64_t(uint64_t(d)) : int64_t(d);
    } else {
      int overflow = 0;
      i = PyLong_AsLongLongAndOverflow(o, &overflow);
      if (i == -1 && PyErr_Occurred()) return false;
      if (overflow > 0 && dtype == DType::uint64) {
        i = int64_t(PyLong_AsUnsignedLongLong(o));
        overflow = PyErr_Occurred() ? 1 : 0;
        if (!overflow) {
          std::memcpy(storage16, &i, 8);
          return true;
        }
        PyErr_Clear();
      }
      bool fits = overflow == 0;
      if (fits && dtype != DType::bool_) {
        const int bits = int(itemsize(dtype)) * 8;
        if (kind(dtype) == 'u') fits = i >= 0 && (bits == 64 || i < (int64_t(1) << bits));
        else fits = bits == 64 || (i >= -(int64_t(1) << (bits - 1)) && i < (int64_t(1) << (bits - 1)));
      }
      if (!fits) {
        PyErr_Format(PyExc_OverflowError, "Python integer %R is out of bounds for %s", o, dtype_name(dtype));
        return false;
      }
    }
    if (dtype == DType::bool_) *static_cast<bool*>(storage16) = i != 0;
    else std::memcpy(storage16, &i, size_t(itemsize(dtype)));  // little-endian
    return true;
  }
  double re, im = 0;
  if (PyComplex_Check(o)) {
    re = PyComplex_RealAsDouble(o);
    im = PyComplex_ImagAsDouble(o);
    if (!is_complex(dtype)) return raise(ErrorCode::DType, "a complex number cannot become %s", dtype_name(dtype)), false;
  } else {
    re = PyFloat_AsDouble(o);
    if (re == -1.0 && PyErr_Occurred()) return false;
  }
  const float f = float(re);
  switch (dtype) {
    case DType::float16: { const uint16_t h = float_to_half(f); std::memcpy(storage16, &h, 2); break; }
    case DType::bfloat16: { const uint16_t h = float_to_bf16(f); std::memcpy(storage16, &h, 2); break; }
    case DType::float32: std::memcpy(storage16, &f, 4); break;
    case DType::float64: std::memcpy(storage16, &re, 8); break;
    case DType::complex64: { const float c[2] = {f, float(im)}; std::memcpy(storage16, c, 8); break; }
    default: { const double c[2] = {re, im}; std::memcpy(storage16, c, 16); break; }
  }
  return true;
}

static PyObject* element(const void* p, DType dtype) {
  switch (dtype) {
    case DType::bool_: return PyBool_FromLong(*static_cast<const uint8_t*>(p));
    case DType::uint8: return PyLong_FromLong(*static_cast<const uint8_t*>(p));
    case DType::int8: return PyLong_FromLong(*static_cast<const int8_t*>(p));
    case DType::uint16: return PyLong_FromLong(*static_cast<const uint16_t*>(p));
    case DType::int16: return PyLong_FromLong(*static_cast<const int16_t*>(p));
    case DType::uint32: return PyLong_FromUnsignedLong(*static_cast<const uint32_t*>(p));
    case DType::int32: return PyLong_FromLong(*static_cast<const int32_t*>(p));
    case DType::uint64: return PyLong_FromUnsignedLongLong(*static_cast<const uint64_t*>(p));
    case DType::int64: return PyLong_FromLongLong(*static_cast<const int64_t*>(p));
    case DType::float16: return PyFloat_FromDouble(half_to_float(*static_cast<const uint16_t*>(p)));
    case DType::bfloat16: return PyFloat_FromDouble(bf16_to_float(*static_cast<const uint16_t*>(p)));
    case DType::float32: return PyFloat_FromDouble(*static_cast<const float*>(p));
    case DType::float64: return PyFloat_FromDouble(*static_cast<const double*>(p));
    case DType::complex64: return PyComplex_FromDoubles(static_cast<const float*>(p)[0], static_cast<const float*>(p)[1]);
    default: return PyComplex_FromDoubles(static_cast<const double*>(p)[0], static_cast<const double*>(p)[1]);
  }
}

PyObject* tensor_item(TensorObject* t) {
  if (!check_readable(t, "item")) return nullptr;
  if (t->view.numel() != 1)
    return raise(ErrorCode::Value, "item: a tensor of shape %s has no single value", shape_text(t->view).c_str());
  if (device_of(t).kind == Device::CPU) return element(t->view.data, t->view.dtype);
  TensorObject* here = to_device(t, Device{});
  if (!here) return nullptr;
  PyObject* r = element(here->view.data, here->view.dtype);
  Py_DECREF(as_object(here));
  return r;
}

static PyObject* to_list(const View& v, int d, const char* p) {
  if (d == v.ndim) return element(p, v.dtype);
  PyObject* list = PyList_New(v.shape[d]);
  for (int64_t k = 0; list && k < v.shape[d]; k++) {
    PyObject* o = to_list(v, d + 1, p + k * v.strides[d] * itemsize(v.dtype));
    if (!o) Py_CLEAR(list);
    else PyList_SET_ITEM(list, k, o);
  }
  return list;
}
PyObject* tensor_tolist(TensorObject* t) {
  if (!check_readable(t, "tolist")) return nullptr;
  TensorObject* here = to_device(t, Device{});
  if (!here) return nullptr;
  PyObject* r = to_list(here->view, 0, here->view.ptr<char>());
  Py_DECREF(as_object(here));
  return r;
}

// ---- buffer protocol ---------------------------------------------------------------------------------------------
static const char* buffer_format(DType d) {
  static const char* const formats[] = {"?", "B", "b", "H", "h", "I", "i", "Q", "q", "e", nullptr, "f", "d", "Zf", "Zd"};
  return formats[int(d)];
}

namespace {
struct Export {
  Buffer* buffer;
  Py_ssize_t dims[2 * kMaxDims];  // shape, strides in bytes
};
}  // namespace

int tensor_getbuffer(PyObject* self, Py_buffer* buf, int flags) {
  TensorObject* t = as_tensor(self);
  buf->obj = nullptr;
  if (!check_readable(t, "numpy")) return -1;
  if (needs_grad(t)) {
    PyErr_SetString(PyExc_BufferError, "this tensor requires grad: use detach() to hand its memory to NumPy");
    return -1;
  }
  if (device_of(t).kind != Device::CPU) {
    PyErr_Format(PyExc_BufferError, "this tensor is on %s: use cpu() to bring it to memory that NumPy can read", device_text(device_of(t)).c_str());
    return -1;
  }
  if (!buffer_format(t->view.dtype)) {
    PyErr_SetString(PyExc_BufferError, "bfloat16 has no buffer format: use astype('float32') first");
    return -1;
  }
  const auto asked = [flags](int mask) { return (flags & mask) == mask; };  // the flags include each other: STRIDES has ND
  if (!asked(PyBUF_STRIDES) && !t->view.contiguous()) {
    PyErr_SetString(PyExc_BufferError, "the tensor is not contiguous and the consumer asked for no strides");
    return -1;
  }
  View reversed = t->view;
  for (int d = 0; d < reversed.ndim; d++)
    reversed.shape[d] = t->view.shape[reversed.ndim - 1 - d], reversed.strides[d] = t->view.strides[reversed.ndim - 1 - d];
  const bool c = t->view.contiguous(), f = reversed.contiguous();
  if ((asked(PyBUF_C_CONTIGUOUS) && !c) || (asked(PyBUF_F_CONTIGUOUS) && !f) || (asked(PyBUF_ANY_CONTIGUOUS) && !c && !f)) {
    PyErr_SetString(PyExc_BufferError, "the tensor's memory order is not the one asked for");
    return -1;
  }
  note_export(t);
  const View& v = t->view;
  // The export holds the memory itself: the tensor may get other memory (set_data) while the consumer reads.
  Export* e = static_cast<Export*>(PyMem_Malloc(sizeof(Export)));
  if (!e) return PyErr_NoMemory(), -1;
  e->buffer = retain(t->buffer);
  Py_ssize_t* dims = e->dims;
  const int64_t item = itemsize(v.dtype);
  for (int d = 0; d < v.ndim; d++) dims[d] = v.shape[d], dims[kMaxDims + d] = v.strides[d] * item;
  static char dummy;
  buf->buf = v.data ? v.data : &dummy;
  buf->len = v.numel() * item;
  buf->itemsize = item;
  buf->readonly = 0;
  buf->ndim = v.ndim;
  buf->format = flags & PyBUF_FORMAT ? const_cast<char*>(buffer_format(v.dtype)) : nullptr;
  buf->shape = asked(PyBUF_ND) ? dims : nullptr;
  buf->strides = asked(PyBUF_STRIDES) ? dims + kMaxDims : nullptr;
  buf->suboffsets = nullptr;
  buf->internal = e;
  Py_INCREF(self);
  buf->obj = self;
  return 0;
}
void tensor_releasebuffer(PyObject*, Py_buffer* buf) {
  release(static_cast<Export*>(buf->internal)->buffer);
  PyMem_Free(buf->internal);
}

static int dtype_of_format(const char* f, Py_ssize_t item) {
  if (!f) return int(DType::uint8);
  if (*f == '@' || *f == '=' || *f == '<') f++;
  if (f[0] == 'Z' && f[1] && !f[2]) return f[1] == 'f' ? int(DType::complex64) : f[1] == 'd' ? int(DType::complex128) : -1;
  if (!f[0] || f[1]) return -1;
  switch (f[0]) {
    case '?': return int(DType::bool_);
    case 'e': return int(DType::float16);
    case 'f': return int(DType::float32);
    case 'd': return int(DType::float64);
    case 'F': return int(DType::complex64);
    case 'D': return int(DType::complex128);
    case 'b': case 'h': case 'i': case 'l': case 'q':
      return item == 1 ? int(DType::int8) : item == 2 ? int(DType::int16) : item == 4 ? int(DType::int32) : int(DType::int64);
    case 'B': case 'H': case 'I': case 'L': case 'Q':
      return item == 1 ? int(DType::uint8) : item == 2 ? int(DType::uint16) : item == 4 ? int(DType::uint32) : int(DType::uint64);
    default: return -1;
  }
}

static void release_py_buffer(void* p) {
  Py_buffer* buf = static_cast<Py_buffer*>(p);
  const PyGILState_STATE state = PyGILState_Ensure();
  PyBuffer_Release(buf);
  PyGILState_Release(state);
  delete buf;
}

// nullptr without an exception: not convertible this way
static TensorObject* from_buffer(PyObject* o, int copy) {
  Py_buffer* buf = new Py_buffer;
  bool writable = true;
  if (PyObject_GetBuffer(o, buf, PyBUF_STRIDES | PyBUF_FORMAT | PyBUF_WRITABLE) < 0) {
    PyErr_Clear();
    writable = false;
    if (PyObject_GetBuffer(o, buf, PyBUF_STRIDES | PyBUF_FORMAT) < 0) {
      PyErr_Clear();
      delete buf;
      return nullptr;
    }
  }
  const int dtype = dtype_of_format(buf->format, buf->itemsize);
  View v;
  v.ndim = buf->ndim;
  bool ok = dtype >= 0 && buf->ndim <= kMaxDims && buf->itemsize == itemsize(DType(dtype)) && !buf->suboffsets &&
            reinterpret_cast<uintptr_t>(buf->buf) % size_t(is_complex(DType(dtype)) ? buf->itemsize / 2 : buf->itemsize) == 0;
  char *lo = static_cast<char*>(buf->buf), *hi = lo + buf->itemsize;
  for (int d = 0; ok && d < v.ndim; d++) {
    v.shape[d] = buf->shape[d];
    const int64_t s = buf->strides[d];
    ok = s % buf->itemsize == 0;
    v.strides[d] = s / buf->itemsize;
    if (v.shape[d] > 1) (s < 0 ? lo : hi) += (v.shape[d] - 1) * s;
  }
  if (!ok) {
    release_py_buffer(buf);
    return nullptr;
  }
  v.dtype = DType(dtype);
  v.data = buf->buf;
  if (writable && copy != 1) return new_tensor(wrap_buffer(lo, hi - lo, Device{}, release_py_buffer, buf), v);
  TensorObject* t = nullptr;
  if (copy == 0) raise(ErrorCode::Value, "asarray: the memory is read-only, so it cannot be shared; allow a copy");
  else t = empty_tensor(v.dtype, v.shape, v.ndim);
  {
    const Unrecorded values_from_python;
    if (t && !copy_view(t->view, v)) Py_CLEAR(t);
  }
  release_py_buffer(buf);
  return t;
}

TensorObject* tensor_from_buffer(PyObject* o, int copy) {
  TensorObject* t = is_scalar(o) ? tensor_from(o) : from_buffer(o, copy);
  if (!t && !PyErr_Occurred()) raise(ErrorCode::Type, "asarray: the memory of %.80s is not an array of numbers of at most %d dimensions", Py_TYPE(o)->tp_name, kMaxDims);
  return t;
}

TensorObject* tensor_from(PyObject* o, int dtype, int copy) {
  if (is_tensor(o) && dtype < 0 && copy != 1) {
    Py_INCREF(o);
    return as_tensor(o);
  }
  if (is_scalar(o)) {
    const DType d = dtype >= 0 ? DType(dtype) : scalar_dtype(o, false, DType::bool_);
    TensorObject* t = empty_tensor(d, nullptr, 0);
    View v;
    alignas(16) char storage[16];
    if (t && !scalar_to_view(o, d, storage, &v)) Py_CLEAR(t);
    if (t) std::memcpy(t->view.data, storage, size_t(itemsize(d)));
    return t;
  }
  if (dtype < 0 && !is_tensor(o) && PyObject_CheckBuffer(o) && !PyBytes_Check(o) && !PyByteArray_Check(o)) {
    TensorObject* t = from_buffer(o, copy);
    if (t || PyErr_Occurred()) return t;
  }
  PyObject* fn = hook("asarray");  // sequences, foreign arrays, dtype changes
  PyObject* d = dtype < 0 ? Py_None : dtype_object(DType(dtype));
  PyObject* c = copy < 0 ? Py_None : copy ? Py_True : Py_False;
  PyObject* r = fn ? PyObject_CallFunctionObjArgs(fn, o, d, c, nullptr) : nullptr;
  if (r && !is_tensor(r)) {
    Py_DECREF(r);
    r = raise(ErrorCode::Type, "asarray: %.80s is not array-like", Py_TYPE(o)->tp_name);
  }
  return as_tensor(r);
}

// ---- raw copies --------------------------------------------------------------------------------------------------
bool overlap(const View& x, const View& y) {
  const char *a, *b, *c, *d;
  extent(x, &a, &b), extent(y, &c, &d);
  return a < d && c < b;
}

bool check_writable(const View& v, const char* op) {
  for (int d = 0; d < v.ndim; d++)
    if (v.shape[d] > 1 && v.strides[d] == 0 && v.numel() > 0) {
      raise(ErrorCode::Value, "%s: the destination of shape %s repeats its elements (it was broadcast), so they cannot be written one by one; use clone() first",
            op, shape_text(v).c_str());
      return false;
    }
  return true;
}

bool copy_view(const View& dst, const View& src, Device device) {
  const Running running;
  if (dst.numel() == 0) return true;
  try {
    Call call;
    call.op = OpId::copy;
    call.nin = 1;
    call.in = &src;
    call.nout = 0;
    call.workspace = 0;
    call.contiguous_inputs = call.channels_last_inputs = call.own_dtype_inputs = 0;
    std::memset(&call.attrs, 0, sizeof call.attrs);
    call.attrs.i[0] = int64_t(dst.dtype);
    const OpInfo& info = op_table[int(OpId::copy)];
    info.infer(call);
    if (device.kind != Device::CPU) {
      View out = dst;
      launch_cuda(call, Args{&out, &src, &call.attrs, nullptr, 1, 1}, device);
      return true;
    }
    const KernelFn fn = info.cpu[int(call.compute)];
    if (!fn) fail(ErrorCode::DType, "copy: no kernel for %s", dtype_name(call.compute));
    Buffer* scratch = call.workspace ? alloc_buffer(call.workspace) : nullptr;
    View out = dst;
    const Args args{&out, &src, &call.attrs, scratch ? scratch->data : nullptr, 1, 1};
    if (dst.numel() * itemsize(dst.dtype) < 256 * 1024) {
      launch(info, fn, call.compute, args, call.workspace);
    } else {
      PyThreadState* state = PyEval_SaveThread();
      launch(info, fn, call.compute, args, call.workspace);
      PyEval_RestoreThread(state);
    }
    release(scratch);
  } catch (const Error& e) {
    return raise(e), false;
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory(), false;
  }
  return true;
}

bool copy_into(TensorObject* dst, TensorObject* src) {
  touch(dst->buffer), touch(src->buffer);
  if (!check_writable(dst->view, "copy")) return false;
  View v = src->view;
  if (is_complex(v.dtype) && !is_complex(dst->view.dtype))
    return raise(ErrorCode::DType, "copy: complex values cannot be stored in a %s tensor; take their real part first", dtype_name(dst->view.dtype)), false;
  // NumPy's assignment rule: leading axes of size 1 in the source may be dropped.
  while (v.ndim > dst->view.ndim && v.shape[0] == 1) {
    for (int d = 1; d < v.ndim; d++) v.shape[d - 1] = v.shape[d], v.strides[d - 1] = v.strides[d];
    v.ndim--;
  }
  View wide;
  if (!broadcast_view(v, dst->view.shape, dst->view.ndim, &wide)) return false;
  if (device_of(src) != device_of(dst)) return copy_between(dst->view, device_of(dst), src, wide);
  if (overlap(src->view, dst->view)) {  // go through a copy
    TensorObject* copy = materialise(src, Layout::Contiguous, src->view.dtype);
    if (!copy) return false;
    const bool ok = copy_into(dst, copy);
    Py_DECREF(as_object(copy));
    return ok;
  }
  return copy_view(dst->view, wide, device_of(dst));
}

TensorObject* materialise(TensorObject* t, Layout layout, DType dtype) {
  touch(t->buffer);
  TensorObject* r = empty_tensor(dtype, t->view.shape, t->view.ndim, layout, &t->view, 1, device_of(t));
  if (r && !copy_view(r->view, t->view, device_of(t))) Py_CLEAR(r);
  return r;
}

bool fill_view(const View& dst, PyObject* scalar, Device device) {
  if (!check_writable(dst, "fill")) return false;
  alignas(16) char storage[16];
  View v;
  if (!scalar_to_view(scalar, dst.dtype, storage, &v)) return false;
  if (device.kind == Device::CPU) {
    View wide;
    if (__builtin_expect(recording(), 0)) recorder->numbers(storage, sizeof storage);
    return broadcast_view(v, dst.shape, dst.ndim, &wide) && copy_view(dst, wide);
  }
  if (dst.numel() == 0) return true;
  try {  // the op `fill` takes the value as attributes
    Call call{};
    call.op = OpId::fill;
    call.nin = 1;
    call.in = &dst;
    if (is_integer(dst.dtype)) {
      call.attrs.i[0] = 1;
      std::memcpy(&call.attrs.i[1], storage, size_t(itemsize(dst.dtype)));
    } else if (PyComplex_Check(scalar)) {
      call.attrs.f[0] = PyComplex_RealAsDouble(scalar);
      call.attrs.f[1] = PyComplex_ImagAsDouble(scalar);
    } else {
      call.attrs.f[0] = PyFloat_AsDouble(scalar);
    }
    op_table[int(OpId::fill)].infer(call);
    View out = dst;
    launch_cuda(call, Args{&out, &dst, &call.attrs, nullptr, 1, 1}, device);
  } catch (const Error& e) {
    return raise(e), false;
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory(), false;
  }
  return true;
}

}  // namespace fastdl::python
