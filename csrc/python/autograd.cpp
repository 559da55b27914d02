// The tape: nodes recorded by ops and their life. The engine that walks them backward is engine.cpp.
#include <unordered_set>

#include "node.h"

namespace fastdl::python {

thread_local bool grad_enabled = true;
bool anomaly_mode = false;

namespace {

uint64_t next_sequence = 0;

// Nodes waiting to be destroyed: a chain of any length is freed in a loop, not by recursion.
std::vector<Node*>* graveyard = nullptr;

void destroy(Node* node) {
  drop_saved(node);
  for (auto& e : node->edges) {
    if (e.node) node_release(e.node);
    if (e.leaf) Py_DECREF(as_object(e.leaf));
  }
  Py_XDECREF(node->op);
  Py_XDECREF(node->rule);
  Py_XDECREF(node->name);
  delete node;
}

Node* new_node(PyObject* const* inputs, int nin, TensorObject* const* outputs, int nout) {
  Node* node = new Node;
  node->sequence = next_sequence++;
  node->op = nullptr;
  node->edges.resize(nin);
  for (int k = 0; k < nin; k++)
    if (is_tensor(inputs[k]) && is_differentiable(as_tensor(inputs[k])->view.dtype)) fill_edge(node->edges[k], as_tensor(inputs[k]));
  node->outputs.resize(nout);
  for (int k = 0; k < nout; k++) {
    if (!outputs[k]) continue;
    OutputMeta& m = node->outputs[k];
    m.device = outputs[k]->buffer->device;
    const View& v = outputs[k]->view;
    m.dtype = v.dtype;
    m.ndim = v.ndim;
    for (int d = 0; d < v.ndim; d++) m.shape[d] = v.shape[d];
  }
  return node;
}

void attach(Node* node, TensorObject* const* outputs, int nout) {
  for (int k = 0; k < nout; k++) {
    TensorObject* t = outputs[k];
    if (!t || !is_differentiable(t->view.dtype)) continue;
    if (t->node) node_release(t->node);
    t->node = node_retain(node);
    t->output_nr = uint32_t(k);
    t->version = t->buffer->version;
  }
  node_release(node);
}

}  // namespace

PyObject* shape_tuple(const int64_t* shape, int ndim) {
  PyObject* t = PyTuple_New(ndim);
  for (int d = 0; t && d < ndim; d++) PyTuple_SET_ITEM(t, d, PyLong_FromLongLong(shape[d]));
  return t;
}

void fill_edge(Edge& e, TensorObject* t) {
  e.dtype = t->view.dtype;
  e.ndim = t->view.ndim;
  for (int d = 0; d < e.ndim; d++) e.shape[d] = t->view.shape[d];
  if (t->node) {
    e.node = node_retain(t->node);
    e.output_nr = t->output_nr;
  } else if (t->requires_grad) {
    Py_INCREF(as_object(t));
    e.leaf = t;
  }
}

void drop_saved(Node* node) {
  std::vector<SavedValue> saved;
  saved.swap(node->saved);
  for (auto& s : saved) Py_XDECREF(s.object);
}

Node* node_retain(Node* node) {
  node->references++;
  return node;
}

void node_release(Node* node) {
  if (--node->references > 0) return;
  if (graveyard) {
    graveyard->push_back(node);
    return;
  }
  std::vector<Node*> pending{node};
  graveyard = &pending;
  while (!pending.empty()) {
    Node* next = pending.back();
    pending.pop_back();
    destroy(next);
  }
  graveyard = nullptr;
}

PyObject* node_name(Node* node) {
  PyObject* name = node->name ? node->name : node->op ? reinterpret_cast<OpObject*>(node->op)->name : Py_None;
  Py_INCREF(name);
  return name;
}

bool any_needs_grad(PyObject* const* inputs, int n) {
  for (int k = 0; k < n; k++)
    if (is_tensor(inputs[k]) && needs_grad(as_tensor(inputs[k])) && is_differentiable(as_tensor(inputs[k])->view.dtype)) return true;
  return false;
}

uint64_t graph_clock() { return next_sequence; }

PyObject* py_graph_leaves(PyObject* roots, uint64_t since) {
  std::unordered_set<Node*> seen;
  std::vector<Node*> todo;
  PyObject* leaves = PyList_New(0);
  std::unordered_set<PyObject*> listed;
  bool ok = leaves != nullptr, older = false;
  const auto visit = [&](Node* node, TensorObject* leaf) {
    if (leaf && listed.insert(as_object(leaf)).second) ok = ok && PyList_Append(leaves, as_object(leaf)) == 0;
    if (node && seen.insert(node).second) todo.push_back(node), older = older || node->sequence < since;
  };
  for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(roots); k++) {
    TensorObject* t = as_tensor(PyTuple_GET_ITEM(roots, k));
    visit(t->node, !t->node && t->requires_grad ? t : nullptr);
  }
  while (ok && !todo.empty()) {
    Node* node = todo.back();
    todo.pop_back();
    for (const Edge& e : node->edges) visit(e.node, e.leaf);
  }
  PyObject* result = ok ? Py_BuildValue("(OO)", leaves, older ? Py_True : Py_False) : nullptr;
  Py_XDECREF(leaves);
  return result;
}

void bump_version(TensorObject* t) { t->version = ++t->buffer->version; }

bool check_version(const TensorObject* t, const char* op) {
  if (!t->node) {
    if (!t->is_view || t->detached || !grad_enabled || t->version >= t->buffer->graph_version) return true;
    raise(ErrorCode::Grad,
          "%s: this view was made before values with a gradient were written to its memory, so their gradient would be lost; make the "
          "view after the write, or use detach() if that is meant",
          op);
    return false;
  }
  if (t->version == t->buffer->version || !grad_enabled) return true;
  raise(ErrorCode::Grad,
        "%s: this tensor's memory was changed in place through another tensor after it was computed, so its gradient would be wrong; "
        "use clone() before the in-place write",
        op);
  return false;
}

bool check_inplace(TensorObject* t, const char* op) {
  if (!grad_enabled) return true;
  if (t->requires_grad && !t->node) {
    raise(ErrorCode::Grad, "%s: a leaf that requires grad cannot be changed in place; do it under no_grad() or on a copy", op);
    return false;
  }
  if (t->is_view) {
    raise(ErrorCode::Grad, "%s: an in-place write to a view cannot be recorded for gradients; write to its base tensor or use clone() first", op);
    return false;
  }
  return check_version(t, op);
}

bool record_op(OpObject* op, PyObject* const* bound, PyObject* const* inputs, int nin, TensorObject* const* outputs, int nout,
               bool in_place) {
  Node* node = new_node(inputs, nin, outputs, nout);
  Py_INCREF(reinterpret_cast<PyObject*>(op));
  node->op = reinterpret_cast<PyObject*>(op);
  uint64_t wanted = ~uint64_t(0);
  if (!op->single) {
    wanted = 0;
    for (int k = 0; k < nin && k < 64; k++)
      if (node->edges[k].node || node->edges[k].leaf) wanted |= uint64_t(1) << k;
  }
  node->saved.resize(op->saved->size());
  for (size_t s = 0; s < op->saved->size(); s++) {
    const SavedSlot& slot = (*op->saved)[s];
    if (!(slot.parts & wanted)) continue;
    SavedValue& value = node->saved[s];
    switch (slot.kind) {
      case SavedKind::Input:
        if (op->has_list && slot.index == 0) {  // the whole list
          value.object = PyTuple_New(nin);
          for (int k = 0; value.object && k < nin; k++) Py_INCREF(inputs[k]), PyTuple_SET_ITEM(value.object, k, inputs[k]);
          break;
        }
        value.object = inputs[slot.index];
        Py_INCREF(value.object);
        if (is_tensor(value.object)) {
          const Buffer* b = as_tensor(value.object)->buffer;
          value.version = b->version - (in_place && outputs[0] && b == outputs[0]->buffer);
        }
        break;
      case SavedKind::Output:
        if (op->outputs_if >= 0 && bound[op->outputs_if] == (*op->params)[op->outputs_if].default_value) break;
        value.object = as_object(alias_tensor(outputs[slot.index], false));
        value.version = outputs[slot.index]->buffer->version;
        value.output = slot.index;
        break;
      case SavedKind::Attr:
        value.object = bound[slot.index];
        Py_INCREF(value.object);
        break;
      case SavedKind::InputShape:
        if (op->has_list && slot.index == 0) {
          value.object = PyTuple_New(nin);
          for (int k = 0; value.object && k < nin; k++)
            PyTuple_SET_ITEM(value.object, k, shape_tuple(as_tensor(inputs[k])->view.shape, as_tensor(inputs[k])->view.ndim));
        } else if (is_tensor(inputs[slot.index])) {
          const View& v = as_tensor(inputs[slot.index])->view;
          value.object = shape_tuple(v.shape, v.ndim);
        } else {
          value.object = PyTuple_New(0);
        }
        break;
    }
    if (!value.object && slot.kind != SavedKind::Output) {
      node_release(node);
      return false;
    }
  }
  attach(node, outputs, nout < op->visible ? nout : op->visible);
  return true;
}

bool record_rule(PyObject* name, PyObject* rule, PyObject* saved, PyObject* const* inputs, int nin, TensorObject* const* outputs,
                 int nout, bool selective) {
  if (!grad_enabled || !any_needs_grad(inputs, nin)) return true;
  Node* node = new_node(inputs, nin, outputs, nout);
  node->selective = selective;
  Py_XINCREF(name);
  node->name = name;
  Py_INCREF(rule);
  node->rule = rule;
  const Py_ssize_t n = saved ? PyTuple_GET_SIZE(saved) : 0;
  node->saved.resize(n);
  for (Py_ssize_t s = 0; s < n; s++) {
    PyObject* o = PyTuple_GET_ITEM(saved, s);
    for (int k = 0; k < nout; k++)
      if (o == as_object(outputs[k])) node->saved[s].output = k;
    if (node->saved[s].output >= 0) {
      node->saved[s].object = as_object(alias_tensor(as_tensor(o), false));
    } else {
      Py_INCREF(o);
      node->saved[s].object = o;
    }
    if (is_tensor(o)) node->saved[s].version = as_tensor(o)->buffer->version;
  }
  attach(node, outputs, nout);
  return true;
}

}  // namespace fastdl::python
