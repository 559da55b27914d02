// The Python types of the extension and what connects them. Tensor and Op live on CPython's own slots (a call costs tens of
// nanoseconds); pybind11 binds the rest (module.cpp).
#pragma once
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>  // T_PYSSIZET on Python 3.11

#include <vector>

#include "core/buffer.h"
#include "core/op.h"

namespace fastdl::python {

struct Node;
struct OpObject;

// fd.Tensor: a view on a buffer, plus its place in the autograd graph.
struct TensorObject {
  PyObject_HEAD
  Buffer* buffer;      // one reference owned
  View view;           // data points at element (0, ..., 0)
  Node* node;          // the op that made it, when that was recorded; one reference owned
  uint32_t output_nr;  // which output of node
  uint32_t version;    // buffer version that node (or the leaf) stands for: a later in-place write makes it stale
  bool requires_grad;  // leaves only; a tensor with a node always does
  bool is_view;        // shares the memory of a tensor it was made from
  bool detached;       // a view by detach(): takes no part in gradients whatever is written to its memory
  PyObject* grad;      // TensorObject or nullptr
  PyObject* weakrefs;
};

extern PyTypeObject* tensor_type;
extern PyTypeObject* op_type;

inline bool is_tensor(PyObject* o) {
  return Py_TYPE(o) == tensor_type || PyType_IsSubtype(Py_TYPE(o), tensor_type);
}
inline TensorObject* as_tensor(PyObject* o) { return reinterpret_cast<TensorObject*>(o); }
inline PyObject* as_object(TensorObject* t) { return reinterpret_cast<PyObject*>(t); }
inline bool needs_grad(const TensorObject* t) { return t->node || t->requires_grad; }

// All functions that return PyObject* or TensorObject* give a new reference, or nullptr with a Python exception set.
TensorObject* new_tensor(Buffer* buffer_owned, const View& view);      // takes the buffer reference
TensorObject* empty_tensor(DType dtype, const int64_t* shape, int ndim, Layout layout = Layout::Contiguous,
                           const View* like = nullptr, int likes = 0, Device device = {});
TensorObject* alias_tensor(TensorObject* t, bool keep_node);           // same memory, new object
bool make_tensor_type(PyObject* module);
bool make_op_type(PyObject* module);
bool set_error_classes(PyObject* error_module);
PyObject* raise(const Error& error);                                   // sets the Python exception, returns nullptr
PyObject* raise(ErrorCode code, const char* format, ...);

// Memory that a tensor gives up (set_data) while an op may still read it, in another thread or below a conversion that runs Python
// code, waits until no op runs. Counted under the GIL.
extern int ops_running;
extern std::vector<Buffer*> retired_buffers;
void release_retired();
inline void retire(Buffer* owned) {
  if (ops_running) retired_buffers.push_back(owned);
  else release(owned);
}
struct Running {
  Running() { ops_running++; }
  Running(const Running&) = delete;
  ~Running() {
    if (--ops_running == 0 && !retired_buffers.empty()) release_retired();
  }
};

// ---- conversion (convert.cpp) ------------------------------------------------------------------------------------
bool is_scalar(PyObject* o);                                           // exactly bool, int, float, complex
TensorObject* tensor_from(PyObject* o, int dtype = -1, int copy = -1);  // anything array-like; copy: -1 if needed, 0 never, 1 always
bool scalar_to_view(PyObject* o, DType dtype, void* storage16, View* out);
DType scalar_dtype(PyObject* o, bool have_reference, DType reference);
PyObject* dtype_object(DType d);                                       // borrowed
bool set_dtypes(PyObject* tuple);                                      // the fastdl.DType objects, in enum order
int dtype_code(PyObject* o);                                           // fd dtype, NumPy dtype, type or name; -1 with exception
PyObject* as_tuple(PyObject* o);                                       // of any sequence: nobody else can change it meanwhile
bool get_shape(PyObject* o, const char* what, int64_t* shape, int* ndim);  // int or sequence of ints, >= 0
int tensor_getbuffer(PyObject* self, Py_buffer* buf, int flags);
void tensor_releasebuffer(PyObject* self, Py_buffer* buf);
PyObject* tensor_item(TensorObject* t);
PyObject* tensor_tolist(TensorObject* t);
PyObject* to_dlpack(PyObject* t, bool versioned);                      // a capsule
PyObject* from_dlpack(PyObject* capsule);

// ---- ops (op.cpp) ------------------------------------------------------------------------------------------------
// Parameter kinds of an op's signature, by annotation of its Python stanza (fastdl/op.py).
enum class Param : uint8_t { Tensor, OptTensor, Tensors, Int, Bool, Float, Axis, Axes, Pair, DType, Shape, Pads, Choice, Object };

enum class SavedKind : uint8_t { Input, Output, Attr, InputShape };
struct SavedSlot {  // one value that backward needs
  SavedKind kind;
  uint8_t index;      // which input, output or parameter
  uint64_t parts;     // bit k: needed by vjp part k
};
constexpr int16_t kNeeds = 1000;
struct VjpPart {  // a function giving the gradient of one input (or of all: single)
  PyObject* fn;
  std::vector<int16_t> args;  // -1 - k: gradient of output k; >= 0: saved slot; kNeeds: which inputs want a gradient
};

struct OpObject {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  int op;  // row of op_table, or -1: composite, body is called
  int ntensors, nparams, visible;
  bool has_list;        // the first parameter is a list of tensors
  bool elementwise;     // output shape is the broadcast of the inputs, out= allowed
  bool plain;           // unary or binary without parameters: result dtype = operand dtype
  bool single;          // one vjp function returns all gradients
  bool zeros;           // visible outputs without a gradient give the vjp zeros, not None
  bool keepdims_attr;   // reductions: i1 tells whether to keep the reduced axes
  int outputs_if;       // parameter that must differ from its default for outputs to be saved (fused activations), or -1
  PyObject* name;
  PyObject* body;       // the stanza's function: doc, signature and fallback
  PyObject* dict;
  struct Spec {
    PyObject* name;
    PyObject* default_value;  // nullptr: required
    PyObject* choices;        // Choice: tuple of str
    Param kind;
  };
  std::vector<Spec>* params;
  std::vector<SavedSlot>* saved;
  std::vector<VjpPart>* vjp;  // empty: not differentiable
};

PyObject* dispatch(OpObject* op, PyObject* const* bound, TensorObject* out = nullptr);
PyObject* call_binary(OpId id, PyObject* a, PyObject* b);              // NotImplemented for foreign operands
PyObject* call_inplace(OpId id, PyObject* self, PyObject* other);
PyObject* call_unary(OpId id, PyObject* a);
bool overlap(const View& a, const View& b);                            // their memory ranges have a byte in common
bool check_writable(const View& v, const char* op);                    // Value: an element with several places (stride 0)
TensorObject* tensor_from_buffer(PyObject* o, int copy);               // numbers and the buffer protocol only
bool copy_into(TensorObject* dst, TensorObject* src);                  // raw copy with cast and broadcast; no autograd
bool copy_view(const View& dst, const View& src, Device device = {});  // the same, shapes equal, both on `device`
bool fill_view(const View& dst, PyObject* scalar, Device device);
TensorObject* materialise(TensorObject* t, Layout layout, DType dtype);  // dense copy; no autograd
extern OpObject* op_objects[kNumOps];

// ---- autograd (autograd.cpp) -------------------------------------------------------------------------------------
extern thread_local bool grad_enabled;
extern bool anomaly_mode;  // backward checks every gradient for NaN
void node_release(Node* node);
Node* node_retain(Node* node);
// Records `op` when grad mode is on and an input needs it. inputs: TensorObject or other objects (scalars), borrowed.
// in_place: the output's memory was an input's, whose old value is gone.
bool record_op(OpObject* op, PyObject* const* bound, PyObject* const* inputs, int nin, TensorObject* const* outputs, int nout,
               bool in_place);
// A node with a Python rule: vjp(g0, ..., *saved) -> one gradient per input. selective: vjp(needs, g0, ..., *saved), where needs tells
// which inputs want a gradient, and outputs without one give None instead of zeros.
bool record_rule(PyObject* name, PyObject* rule, PyObject* saved, PyObject* const* inputs, int nin, TensorObject* const* outputs, int nout,
                 bool selective = false);
bool any_needs_grad(PyObject* const* inputs, int n);
bool check_version(const TensorObject* t, const char* op);
PyObject* py_backward(PyObject* roots, PyObject* grads, PyObject* targets, bool retain_graph, bool create_graph, bool stop_at_targets);
void bump_version(TensorObject* t);
bool check_inplace(TensorObject* t, const char* op);                   // leaf or view that needs grad: GradError
PyObject* node_name(Node* node);
PyObject* py_graph_leaves(PyObject* roots, uint64_t since);             // (leaves reached, whether nodes older than since are)
uint64_t graph_clock();                                                // number of nodes recorded so far

// ---- views (views.cpp) -------------------------------------------------------------------------------------------
PyObject* tensor_subscript(PyObject* self, PyObject* key);
int tensor_ass_subscript(PyObject* self, PyObject* key, PyObject* value);
TensorObject* make_view(TensorObject* base, const View& view, const char* rule, PyObject* saved_owned);  // records the rule
bool broadcast_view(const View& in, const int64_t* shape, int ndim, View* out);
PyObject* py_permute(PyObject* t, PyObject* axes);
PyObject* py_reshape(PyObject* t, PyObject* shape);
PyObject* py_broadcast_to(PyObject* t, PyObject* shape);
PyObject* py_as_strided(PyObject* t, PyObject* shape, PyObject* strides, Py_ssize_t offset, const char* rule, PyObject* saved);
PyObject* hook(const char* name);                                      // a Python function set by the package; borrowed
bool set_hook(const char* name, PyObject* fn);

}  // namespace fastdl::python
