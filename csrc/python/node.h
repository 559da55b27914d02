// Node: one recorded op on the tape, as the recorder (autograd.cpp) writes it and the engine (engine.cpp) reads it.
#pragma once
#include <vector>

#include "tensor.h"

namespace fastdl::python {

// Where the gradient of one input goes, and the shape and dtype it must have there.
struct Edge {
  Node* node = nullptr;          // producer of the input (owned), or
  TensorObject* leaf = nullptr;  // the leaf itself (owned); neither: no gradient wanted
  uint32_t output_nr = 0;
  DType dtype;
  int32_t ndim;
  int64_t shape[kMaxDims];
};

struct SavedValue {
  PyObject* object = nullptr;  // tensor, number, attribute or shape tuple
  uint32_t version = 0;        // of the buffer when saved
  int32_t output = -1;         // >= 0: this output, kept as an alias without its node to avoid a reference cycle
};

struct OutputMeta {
  Device device;
  DType dtype;
  int32_t ndim;
  int64_t shape[kMaxDims];
};

struct Node {
  int64_t references = 1;
  uint64_t sequence;           // grows with creation: inputs always have smaller numbers than outputs
  PyObject* op;                // OpObject, or nullptr when rule is set
  PyObject* rule = nullptr;    // vjp(g0, ..., *saved) -> gradients
  bool selective = false;      // the rule is called with needs first, and with None for outputs without a gradient instead of zeros
  PyObject* name = nullptr;
  std::vector<Edge> edges;
  std::vector<SavedValue> saved;
  std::vector<OutputMeta> outputs;
  bool freed = false;
};

// Fills where the gradient of t goes; keeps t's node or t itself alive.
void fill_edge(Edge& e, TensorObject* t);
PyObject* shape_tuple(const int64_t* shape, int ndim);
void drop_saved(Node* node);

}  // namespace fastdl::python
