// The engine: walks the tape backward in a loop, newest node first, so depth is bounded by memory only. Rules are the Python one-liners of
// the stanzas.
#include <queue>
#include <unordered_map>

#include "core/cuda.h"
#include "capture.h"
#include "node.h"

namespace fastdl::python {

namespace {

PyObject* call_op(OpId id, PyObject* a, PyObject* b) {
  PyObject* bound[2] = {a, b};
  return dispatch(op_objects[int(id)], bound);
}

// Sums g over the axes along which the input was broadcast, and casts it to the input's dtype.
PyObject* fit(PyObject* g_owned, const Edge& e) {
  TensorObject* g = as_tensor(g_owned);
  const View& v = g->view;
  bool same = v.ndim == e.ndim;
  for (int d = 0; same && d < e.ndim; d++) same = v.shape[d] == e.shape[d];
  if (!same) {
    const int extra = v.ndim - e.ndim;
    int64_t mask = 0;
    bool ok = extra >= 0;
    for (int d = 0; ok && d < v.ndim; d++) {
      if (d < extra) mask |= int64_t(1) << d;
      else if (e.shape[d - extra] != v.shape[d]) ok = e.shape[d - extra] == 1, mask |= int64_t(1) << d;
    }
    PyObject* axes = PyList_New(0);
    for (int d = 0; ok && axes && d < v.ndim; d++)
      if (mask >> d & 1) {
        PyObject* i = PyLong_FromLong(d);
        PyList_Append(axes, i);
        Py_DECREF(i);
      }
    PyObject* shape = shape_tuple(e.shape, e.ndim);
    PyObject* summed = nullptr;
    if (!ok) {
      raise(ErrorCode::Grad, "backward: a gradient of shape %s does not fit an input of shape %s", shape_text(v).c_str(),
            shape_text(e.shape, e.ndim).c_str());
    } else {
      // Extra parameters of `sum` take their defaults.
      OpObject* sum = op_objects[int(OpId::sum)];
      PyObject* bound[8] = {g_owned, axes};
      for (int k = 2; k < sum->nparams && k < 8; k++) bound[k] = (*sum->params)[k].default_value;
      summed = dispatch(sum, bound);
    }
    Py_XDECREF(axes);
    Py_DECREF(g_owned);
    g_owned = summed && shape ? py_reshape(summed, shape) : nullptr;
    Py_XDECREF(summed);
    Py_XDECREF(shape);
    if (!g_owned) return nullptr;
    g = as_tensor(g_owned);
  }
  if (g->view.dtype != e.dtype) {
    if (is_complex(g->view.dtype) && !is_complex(e.dtype)) {  // a real input: only the real part has meaning
      PyObject* real = PyObject_GetAttrString(g_owned, "real");
      Py_DECREF(g_owned);
      if (!real) return nullptr;
      g_owned = real;
    }
    PyObject* cast = PyObject_CallMethod(g_owned, "astype", "O", dtype_object(e.dtype));
    Py_DECREF(g_owned);
    g_owned = cast;
  }
  return g_owned;
}

// a (owned) + b (owned); adds into a's memory when nobody else can see it.
PyObject* accumulate(PyObject* a, PyObject* b) {
  TensorObject *ta = as_tensor(a), *tb = as_tensor(b);
  const bool mine = Py_REFCNT(a) == 1 && !ta->node && ta->buffer->references.load() == 1 && !ta->is_view && !(grad_enabled && tb->node);
  PyObject* sum;
  if (mine) {
    PyObject* bound[2] = {a, b};
    sum = dispatch(op_objects[int(OpId::add)], bound, ta);
  } else {
    sum = call_op(OpId::add, a, b);
  }
  Py_DECREF(a);
  Py_DECREF(b);
  return sum;
}

bool accumulate_leaf(TensorObject* leaf, PyObject* g_owned) {
  note_grad(leaf, false);
  TensorObject* g = as_tensor(g_owned);
  const bool graph = grad_enabled && g->node;
  if (leaf->grad) {
    TensorObject* old = as_tensor(leaf->grad);
    bool writable = true;
    for (int d = 0; d < old->view.ndim; d++) writable = writable && (old->view.strides[d] != 0 || old->view.shape[d] <= 1);
    if (!graph && !needs_grad(old) && writable) {  // in the same memory, which an optimiser may own
      PyObject* bound[2] = {leaf->grad, g_owned};
      PyObject* r = dispatch(op_objects[int(OpId::add)], bound, old);
      Py_DECREF(g_owned);
      Py_XDECREF(r);
      return r != nullptr;
    }
    PyObject* sum = call_op(OpId::add, leaf->grad, g_owned);
    Py_DECREF(g_owned);
    if (!sum) return false;
    Py_SETREF(leaf->grad, sum);
    return true;
  }
  const bool fresh = Py_REFCNT(g_owned) == 1 && g->buffer->references.load() == 1 && own_memory(g->buffer);
  if (!graph && !(fresh && dense(g->view))) {  // a gradient of its own
    TensorObject* copy = materialise(g, Layout::Like, g->view.dtype);
    Py_DECREF(g_owned);
    if (!copy) return false;
    g_owned = as_object(copy);
  }
  leaf->grad = g_owned;
  return true;
}

PyObject* raise_freed(Node* node) {
  PyObject* name = node_name(node);
  raise(ErrorCode::Grad, "backward: the graph at %U was already freed by an earlier backward; pass retain_graph=True to the first", name);
  Py_XDECREF(name);
  return nullptr;
}

// The saved values of a node as the rule wants them: outputs get their node back, stale memory is an error.
PyObject* unpack(Node* node, size_t s) {
  if (s >= node->saved.size()) return raise_freed(node);  // by another thread, while a kernel ran
  SavedValue& value = node->saved[s];
  PyObject* o = value.object;
  if (!o) {
    Py_RETURN_NONE;
  }
  if (is_tensor(o)) {
    TensorObject* t = as_tensor(o);
    if (t->buffer->version != value.version) {
      PyObject* name = node_name(node);
      raise(ErrorCode::Grad,
            "backward: a tensor of shape %s that %U needs for its gradient was changed in place (version %u, needed %u); "
            "use clone() before the in-place write or an out-of-place op",
            shape_text(t->view).c_str(), name, t->buffer->version, value.version);
      Py_XDECREF(name);
      return nullptr;
    }
    if (value.output >= 0 && grad_enabled) {
      TensorObject* alias = alias_tensor(t, false);
      if (!alias) return nullptr;
      alias->node = node_retain(node);
      alias->output_nr = uint32_t(value.output);
      alias->version = t->buffer->version;
      return as_object(alias);
    }
  }
  Py_INCREF(o);
  return o;
}

struct Engine {
  std::unordered_map<Node*, std::vector<PyObject*>> pending;  // gradients gathered per output
  struct Later {
    bool operator()(const Node* a, const Node* b) const { return a->sequence < b->sequence; }
  };
  std::priority_queue<Node*, std::vector<Node*>, Later> ready;  // newest first: every consumer of a node is newer than it
  // targets of grad(): the result slot of a leaf or of an output of a node
  std::unordered_map<TensorObject*, std::vector<int>> leaf_targets;
  std::unordered_map<Node*, std::vector<std::pair<uint32_t, int>>> node_targets;
  std::vector<PyObject*> results;
  bool capture = false, retain = false, stop = false;  // stop: nothing behind the node of a target is reached through it

  ~Engine() {
    for (auto& p : pending) {
      for (auto* g : p.second) Py_XDECREF(g);
      node_release(p.first);
    }
    for (auto* r : results) Py_XDECREF(r);
    for (Node* r : roots) node_release(r);
  }

  // In capture mode only nodes that lead to a target run: useful[node], filled before the walk, tells which.
  std::unordered_map<Node*, bool> useful;
  std::vector<Node*> roots;  // kept alive, and with them all nodes that `useful` names
  bool is_useful(const Edge& e) const {
    if (e.leaf) return leaf_targets.count(e.leaf) > 0;
    if (!e.node) return false;
    const auto it = useful.find(e.node);
    return (it != useful.end() && it->second) || node_targets.count(e.node) > 0;
  }
  void find_useful(Node* root) {
    std::vector<std::pair<Node*, size_t>> stack{{root, 0}};
    while (!stack.empty()) {  // depth first; a node is decided after its inputs
      auto& [node, next] = stack.back();
      if (next == 0 && useful.count(node)) {
        stack.pop_back();
        continue;
      }
      Node* child = nullptr;
      while (next < node->edges.size() && !child) {
        Node* c = node->edges[next++].node;
        if (c && !useful.count(c)) child = c;
      }
      if (child) {
        stack.push_back({child, 0});
        continue;
      }
      bool any = false;
      for (const Edge& e : node->edges) any = any || is_useful(e);
      any = any && !(stop && node_targets.count(node));
      useful[node] = any;
      stack.pop_back();
    }
  }

  bool add(Node* node, uint32_t output_nr, PyObject* g_owned) {
    auto it = pending.find(node);
    if (it == pending.end()) {
      it = pending.emplace(node_retain(node), std::vector<PyObject*>(node->outputs.size(), nullptr)).first;
      ready.push(node);
    }
    PyObject*& slot = it->second[output_nr];
    if (!slot) {
      slot = g_owned;
      return true;
    }
    PyObject* old = slot;
    slot = nullptr;
    PyObject* sum = accumulate(old, g_owned);
    pending[node][output_nr] = sum;
    return sum != nullptr;
  }

  bool result(int slot, PyObject* g) {
    Py_INCREF(g);
    if (!results[slot]) {
      results[slot] = g;
      return true;
    }
    results[slot] = accumulate(results[slot], g);
    return results[slot] != nullptr;
  }

  bool send(const Edge& e, PyObject* g_owned) {
    g_owned = fit(g_owned, e);
    if (!g_owned) return false;
    if (e.node) return add(e.node, e.output_nr, g_owned);
    return leaf(e.leaf, g_owned);
  }

  bool leaf(TensorObject* t, PyObject* g_owned) {
    if (!capture) return accumulate_leaf(t, g_owned);
    bool ok = true;
    const auto it = leaf_targets.find(t);
    if (it != leaf_targets.end())
      for (int slot : it->second) ok = ok && result(slot, g_owned);
    Py_DECREF(g_owned);
    return ok;
  }

  bool run_node(Node* node, std::vector<PyObject*>& grads) {
    if (node->freed) return raise_freed(node), false;
    // Missing gradients of further outputs are zeros, but for rules that can do without.
    const auto zeros = [&](size_t k) {
      if (node->rule) return !node->selective;
      const OpObject* op = reinterpret_cast<OpObject*>(node->op);
      return op->zeros && op->visible > int(k);
    };
    for (size_t k = 0; k < grads.size(); k++)
      if (!grads[k] && zeros(k)) {
        const OutputMeta& m = node->outputs[k];
        if (!is_differentiable(m.dtype)) continue;
        TensorObject* zero = empty_tensor(m.dtype, m.shape, m.ndim, Layout::Contiguous, nullptr, 0, m.device);
        if (!zero) return false;
        touch(zero->buffer);
        if (!fill_view(zero->view, Py_False, m.device)) {
          Py_DECREF(as_object(zero));
          return false;
        }
        grads[k] = as_object(zero);
      }
    if (node->rule) return run_rule(node, grads);
    OpObject* op = reinterpret_cast<OpObject*>(node->op);
    const int parts = int(op->vjp->size());
    for (int p = 0; p < parts; p++) {
      const VjpPart& part = (*op->vjp)[p];
      if (!part.fn) continue;
      if (!op->single && !wanted(node->edges[p])) continue;
      PyObject* args[24];
      int n = 0;
      bool ok = true;
      for (int16_t a : part.args) {
        if (a < 0) {
          PyObject* g = grads[-1 - a] ? grads[-1 - a] : Py_None;
          Py_INCREF(g);
          args[n++] = g;
        } else if ((args[n] = a == kNeeds ? needs_of(node) : unpack(node, size_t(a)))) {
          n++;
        } else {
          ok = false;
          break;
        }
      }
      PyObject* r = ok ? PyObject_Vectorcall(part.fn, args, n, nullptr) : nullptr;
      for (int k = 0; k < n; k++) Py_DECREF(args[k]);
      if (!r) return false;
      if (!op->single || (node->edges.size() == 1 && !PyTuple_Check(r) && !PyList_Check(r))) {
        if (!deliver(node, node->edges[p], r)) return false;
      } else if (!deliver_all(node, r)) {
        return false;
      }
    }
    return true;
  }

  // Which inputs want a gradient.
  PyObject* needs_of(Node* node) const {
    PyObject* needs = PyTuple_New(Py_ssize_t(node->edges.size()));
    for (size_t k = 0; needs && k < node->edges.size(); k++)
      PyTuple_SET_ITEM(needs, k, PyBool_FromLong(wanted(node->edges[k])));
    return needs;
  }

  bool wanted(const Edge& e) const { return capture ? is_useful(e) : e.node || e.leaf; }

  bool deliver(Node* node, const Edge& e, PyObject* r_owned) {
    if (r_owned == Py_None || !wanted(e)) {
      Py_DECREF(r_owned);
      return true;
    }
    if (!is_tensor(r_owned)) {
      TensorObject* t = tensor_from(r_owned);
      Py_DECREF(r_owned);
      if (!t) return false;
      r_owned = as_object(t);
    }
    if (anomaly_mode && !check_anomaly(node, r_owned)) {
      Py_DECREF(r_owned);
      return false;
    }
    return send(e, r_owned);
  }

  static bool check_anomaly(Node* node, PyObject* g) {
    PyObject* nan = call_unary(OpId::isnan, g);
    OpObject* any = op_objects[int(OpId::any)];
    PyObject* bound[8] = {nan};
    for (int k = 1; k < any->nparams && k < 8; k++) bound[k] = (*any->params)[k].default_value;
    PyObject* found = nan ? dispatch(any, bound) : nullptr;
    Py_XDECREF(nan);
    const int bad = found ? PyObject_IsTrue(found) : -1;
    Py_XDECREF(found);
    if (bad > 0) {
      PyObject* name = node_name(node);
      raise(ErrorCode::Grad, "backward: the gradient rule of %U produced NaN (shape %s)", name, shape_text(as_tensor(g)->view).c_str());
      Py_XDECREF(name);
    }
    return bad == 0;
  }

  bool deliver_all(Node* node, PyObject* r_owned) {
    PyObject* seq = PyTuple_Check(r_owned) || PyList_Check(r_owned) ? PySequence_Fast(r_owned, "") : nullptr;
    if (!seq && node->edges.size() == 1) return deliver(node, node->edges[0], r_owned);
    Py_DECREF(r_owned);
    if (!seq || PySequence_Fast_GET_SIZE(seq) != Py_ssize_t(node->edges.size())) {
      PyObject* name = node_name(node);
      raise(ErrorCode::Grad, "backward: the gradient rule of %U must return a tuple with one gradient (or None) per input (%zd)", name,
            Py_ssize_t(node->edges.size()));
      Py_XDECREF(name);
      Py_XDECREF(seq);
      return false;
    }
    for (size_t k = 0; k < node->edges.size(); k++) {
      PyObject* g = PySequence_Fast_GET_ITEM(seq, k);
      Py_INCREF(g);
      if (PyTuple_CheckExact(seq) && Py_REFCNT(seq) == 1) {  // ours alone: a gradient that nobody else holds need not be copied
        Py_INCREF(Py_None);
        PyTuple_SetItem(seq, Py_ssize_t(k), Py_None);
      }
      if (!deliver(node, node->edges[k], g)) {
        Py_DECREF(seq);
        return false;
      }
    }
    Py_DECREF(seq);
    return true;
  }

  bool run_rule(Node* node, std::vector<PyObject*>& grads) {
    const size_t nsaved = node->saved.size(), first = node->selective, n = first + grads.size() + nsaved;
    PyObject* args = PyTuple_New(Py_ssize_t(n));
    if (!args) return false;
    if (node->selective) {
      PyObject* needs = needs_of(node);
      if (!needs) {
        Py_DECREF(args);
        return false;
      }
      PyTuple_SET_ITEM(args, 0, needs);
    }
    for (size_t k = 0; k < grads.size(); k++) {
      PyObject* g = grads[k] ? grads[k] : Py_None;
      Py_INCREF(g);
      PyTuple_SET_ITEM(args, first + k, g);
    }
    for (size_t s = 0; s < nsaved; s++) {
      PyObject* o = unpack(node, s);
      if (!o) {
        Py_DECREF(args);
        return false;
      }
      PyTuple_SET_ITEM(args, first + grads.size() + s, o);
    }
    PyObject* r = PyObject_CallObject(node->rule, args);
    Py_DECREF(args);
    return r && deliver_all(node, r);
  }

  bool run() {
    while (!ready.empty()) {
      Node* node = ready.top();
      ready.pop();
      auto it = pending.find(node);
      std::vector<PyObject*> grads = std::move(it->second);
      pending.erase(it);  // our reference on node is released below
      bool ok = true;
      const bool only_target = capture && !useful[node];
      const auto target = node_targets.find(node);
      if (target != node_targets.end())
        for (auto& [output_nr, slot] : target->second)
          if (grads[output_nr]) ok = ok && result(slot, grads[output_nr]);
      ok = ok && (only_target || run_node(node, grads));
      for (auto* g : grads) Py_XDECREF(g);
      if (ok && !retain && !only_target) drop_saved(node), node->freed = true;
      node_release(node);
      if (!ok) return false;
      if (PyErr_CheckSignals() < 0) return false;
    }
    return true;
  }
};

struct GradMode {
  bool before = grad_enabled;
  explicit GradMode(bool on) { grad_enabled = on; }
  ~GradMode() { grad_enabled = before; }
};

}  // namespace

// backward of roots with grads; targets None: accumulate into leaves; else a tuple of tensors whose gradients are returned
// (None for those not reached). With stop_at_targets, paths that lead on through a target do not count for the others.
PyObject* py_backward(PyObject* roots, PyObject* grads, PyObject* targets, bool retain_graph, bool create_graph, bool stop_at_targets) {
  Engine engine;
  engine.stop = stop_at_targets;
  engine.retain = retain_graph || create_graph;
  engine.capture = targets != Py_None;
  GradMode mode(create_graph);
  if (engine.capture) {
    const Py_ssize_t n = PyTuple_GET_SIZE(targets);
    engine.results.resize(n, nullptr);
    for (Py_ssize_t k = 0; k < n; k++) {
      TensorObject* t = as_tensor(PyTuple_GET_ITEM(targets, k));
      if (t->node) engine.node_targets[t->node].push_back({t->output_nr, int(k)});
      else engine.leaf_targets[t].push_back(int(k));
    }
  }
  const Py_ssize_t n = PyTuple_GET_SIZE(roots);
  for (Py_ssize_t k = 0; engine.capture && k < n; k++)
    if (Node* node = as_tensor(PyTuple_GET_ITEM(roots, k))->node) engine.roots.push_back(node_retain(node)), engine.find_useful(node);
  for (Py_ssize_t k = 0; k < n; k++) {
    TensorObject* root = as_tensor(PyTuple_GET_ITEM(roots, k));
    PyObject* g = PyTuple_GET_ITEM(grads, k);
    Edge e;
    fill_edge(e, root);
    Py_INCREF(g);
    const bool ok = engine.wanted(e) ? engine.send(e, g) : (Py_DECREF(g), true);
    if (e.node) node_release(e.node);
    if (e.leaf) Py_DECREF(as_object(e.leaf));
    if (!ok) return nullptr;
  }
  if (!engine.run()) return nullptr;
  if (!engine.capture) Py_RETURN_NONE;
  PyObject* out = PyTuple_New(Py_ssize_t(engine.results.size()));
  for (size_t k = 0; out && k < engine.results.size(); k++) {
    PyObject* r = engine.results[k] ? engine.results[k] : Py_None;
    Py_INCREF(r);
    PyTuple_SET_ITEM(out, k, r);
  }
  return out;
}

}  // namespace fastdl::python
