// Capture: one recorded call of a Python function. It knows how the arguments looked, binds those of a later call to the program,
// replays it, and builds the results. fastdl/graph.py decides when to record; everything that happens on each replay is here.
#include "capture.h"

#include <cstring>

#include "core/cuda.h"
#include "core/launch.h"
#include "core/record.h"
#include "node.h"
#include "operands.h"

namespace fastdl::python {

thread_local Capture* capturing = nullptr;
uint64_t structure_version = 0, mode_version = 0;

bool check_readable(const TensorObject* t, const char* what) {
  if (!recording() || recorder->constant(t->buffer)) return true;
  PyObject* fn = hook("user_line");
  PyObject* line = fn ? PyObject_CallNoArgs(fn) : nullptr;
  if (line)
    raise(ErrorCode::Capture,
          "%s: a captured function must not read the values of a tensor (shape %s) in Python: they would be frozen at what they are now%U; "
          "return the tensor and read it outside, or use fd.where and other ops instead of Python branches",
          what, shape_text(t->view).c_str(), line);
  Py_XDECREF(line);
  return false;
}

namespace {

bool same_layout(const View& a, const View& b) {
  if (a.ndim != b.ndim || a.dtype != b.dtype) return false;
  for (int d = 0; d < a.ndim; d++)
    if (a.shape[d] != b.shape[d] || (a.strides[d] != b.strides[d] && a.shape[d] != 1)) return false;
  return true;
}

// Values that are part of a call's key by what they are; everything else by which object it is.
bool by_value(PyObject* o) {
  return o == Py_None || PyBool_Check(o) || PyLong_CheckExact(o) || PyFloat_CheckExact(o) || PyUnicode_CheckExact(o) || PyBytes_CheckExact(o) ||
         PyComplex_CheckExact(o);
}

bool same_static(PyObject* a, PyObject* b) {
  if (a == b) return true;
  if (Py_TYPE(a) != Py_TYPE(b) || !by_value(a)) return false;
  if (PyFloat_CheckExact(a)) {  // -0.0 is not 0.0, NaN is itself
    const double x = PyFloat_AS_DOUBLE(a), y = PyFloat_AS_DOUBLE(b);
    return !std::memcmp(&x, &y, sizeof x);
  }
  return PyObject_RichCompareBool(a, b, Py_EQ) == 1;
}

bool is_array(PyObject* o) {
  PyObject* type = hook("np_ndarray");
  return type && PyObject_TypeCheck(o, reinterpret_cast<PyTypeObject*>(type));
}

}  // namespace

Tree::~Tree() { Py_XDECREF(value); }

Capture::~Capture() {
  if (capturing == this) abort();
  for (Argument& a : arguments_) Py_XDECREF(as_object(a.same)), Py_XDECREF(as_object(a.copy)), Py_XDECREF(as_object(a.given));
  for (Grad& g : grads_) Py_XDECREF(as_object(g.leaf));
  for (Result& r : results_) Py_XDECREF(as_object(r.same));
  for (Stream& s : streams_) Py_XDECREF(s.generator);
}

// ---- arguments -----------------------------------------------------------------------------------------------------------

// Describes o and appends its tensors to `found` (borrowed, or owned by `converted`).
bool Capture::describe(PyObject* o, Tree* tree, std::vector<TensorObject*>* found, std::vector<PyObject*>* converted) {
  if (is_tensor(o) || is_array(o)) {
    if (!is_tensor(o)) {
      TensorObject* t = tensor_from(o);
      if (!t) return false;
      converted->push_back(o = as_object(t));
    }
    tree->kind = Tree::Leaf;
    tree->leaf = int(found->size());
    found->push_back(as_tensor(o));
    return true;
  }
  const bool tuple = PyTuple_CheckExact(o) || (PyTuple_Check(o) && PyObject_HasAttrString(o, "_fields")), list = PyList_CheckExact(o);
  Py_INCREF(o);
  if (tuple || list) {
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(o);
    tree->kind = tuple ? Tree::Tuple : Tree::List;
    tree->value = reinterpret_cast<PyObject*>(Py_TYPE(o));
    Py_INCREF(tree->value);
    for (Py_ssize_t k = 0; k < n; k++) {
      tree->children.emplace_back(new Tree);
      if (!describe(PySequence_Fast_GET_ITEM(o, k), tree->children.back().get(), found, converted)) return Py_DECREF(o), false;
    }
    Py_DECREF(o);
    return true;
  }
  if (PyDict_CheckExact(o)) {
    tree->kind = Tree::Dict;
    tree->value = PyDict_Keys(o);
    PyObject *key, *item;
    Py_ssize_t at = 0;
    while (tree->value && PyDict_Next(o, &at, &key, &item)) {
      tree->children.emplace_back(new Tree);
      if (!describe(item, tree->children.back().get(), found, converted)) return Py_DECREF(o), false;
    }
    Py_DECREF(o);
    return tree->value != nullptr;
  }
  tree->kind = Tree::Static;
  tree->value = o;  // takes the reference
  return true;
}

// Whether o looks as `tree` says; appends its tensors.
bool Capture::match(const Tree& tree, PyObject* o, std::vector<TensorObject*>* found, std::vector<PyObject*>* converted) const {
  switch (tree.kind) {
    case Tree::Leaf: {
      if (!is_tensor(o)) {
        if (!is_array(o)) return false;
        TensorObject* t = tensor_from(o);
        if (!t) return PyErr_Clear(), false;
        converted->push_back(o = as_object(t));
      }
      found->push_back(as_tensor(o));
      return true;
    }
    case Tree::Tuple:
    case Tree::List: {
      if (reinterpret_cast<PyObject*>(Py_TYPE(o)) != tree.value || PySequence_Fast_GET_SIZE(o) != Py_ssize_t(tree.children.size())) return false;
      for (size_t k = 0; k < tree.children.size(); k++)
        if (!match(*tree.children[k], PySequence_Fast_GET_ITEM(o, Py_ssize_t(k)), found, converted)) return false;
      return true;
    }
    case Tree::Dict: {
      if (!PyDict_CheckExact(o) || PyDict_GET_SIZE(o) != Py_ssize_t(tree.children.size())) return false;
      for (size_t k = 0; k < tree.children.size(); k++) {
        PyObject* item = PyDict_GetItemWithError(o, PyList_GET_ITEM(tree.value, Py_ssize_t(k)));
        if (!item || !match(*tree.children[k], item, found, converted)) return PyErr_Clear(), false;
      }
      return true;
    }
    case Tree::Static: {
      const bool same = !is_tensor(o) && same_static(tree.value, o);
      if (PyErr_Occurred()) PyErr_Clear();
      return same;
    }
  }
  return false;
}

bool Capture::fits(const std::vector<TensorObject*>& found) const {
  for (size_t k = 0; k < arguments_.size(); k++) {
    const Argument& a = arguments_[k];
    const TensorObject* t = found[k];
    if (a.same) {
      if (a.same != t) return false;
      continue;
    }
    if (needs_grad(t) || t->buffer->device != a.device || !same_layout(t->view, a.view)) return false;
    if (a.leader == int(k)) {
      const char *lo, *hi, *from, *to;
      extent(t->view, &lo, &hi);
      for (size_t j = 0; j < k; j++) {
        if (arguments_[j].same || arguments_[j].leader != int(j)) continue;
        extent(found[j]->view, &from, &to);
        if (found[j]->buffer == t->buffer || (from < hi && lo < to)) return false;
      }
      for (const Buffer* b : a.block >= 0 && program_.blocks[a.block].written ? held_ : written_)
        if (lo < static_cast<char*>(b->data) + b->bytes && static_cast<char*>(b->data) < hi) return false;
    } else if (found[a.leader]->buffer != t->buffer || static_cast<char*>(t->view.data) - static_cast<char*>(found[a.leader]->view.data) != a.delta) {
      return false;
    }
  }
  return true;
}

// The arguments of the recorded call: tensors of the same layout in memory of their own, so that what the function does to them is
// told apart from what it does to the same tensors seen by closure.
PyObject* Capture::begin(PyObject* args, PyObject* kwargs) {
  std::vector<TensorObject*> found;
  std::vector<PyObject*> converted;
  struct Drop {
    std::vector<PyObject*>& v;
    ~Drop() {
      for (auto* o : v) Py_DECREF(o);
    }
  } drop{converted};
  if (!describe(args, &args_, &found, &converted) || !describe(kwargs, &kwargs_, &found, &converted)) return nullptr;
  arguments_.resize(found.size());
  for (size_t k = 0; k < found.size(); k++) {
    Argument& a = arguments_[k];
    TensorObject* t = found[k];
    a.view = t->view;
    a.device = t->buffer->device;
    a.leader = int(k);
    a.given = t;
    Py_INCREF(as_object(t));
    if (needs_grad(t)) {  // a parameter: used where it is
      a.same = t;
      Py_INCREF(as_object(t));
      continue;
    }
    for (size_t j = 0; j < k; j++)
      if (!arguments_[j].same && found[j]->buffer == t->buffer) {
        a.leader = int(j);
        a.delta = static_cast<char*>(t->view.data) - static_cast<char*>(found[j]->view.data);
        break;
      }
  }
  if (arguments_overlap()) Py_RETURN_NONE;
  try {
    for (size_t k = 0; k < found.size(); k++) {
      Argument& a = arguments_[k];
      if (a.same || a.leader != int(k)) continue;
      const char *lo = nullptr, *hi = nullptr;  // of all arguments in this buffer
      for (size_t j = k; j < found.size(); j++) {
        if (arguments_[j].same || arguments_[j].leader != int(k)) continue;
        const char *from, *to;
        extent(found[j]->view, &from, &to);
        if (!lo || from < lo) lo = from;
        if (!hi || to > hi) hi = to;
      }
      a.bytes = hi - lo;
      a.start = lo - static_cast<char*>(a.view.data);
      Buffer* memory = alloc_device_buffer(a.bytes, a.device);
      copy_on(a.device, memory->data, lo, a.bytes);
      for (size_t j = k; j < found.size(); j++) {
        Argument& b = arguments_[j];
        if (b.same || b.leader != int(k)) continue;
        View v = b.view;
        v.data = static_cast<char*>(memory->data) - a.start + b.delta;
        b.copied_at = static_cast<char*>(v.data);
        b.copy = new_tensor(retain(memory), v);
      }
      release(memory);
    }
    grad_mode_ = grad_enabled;
    begin_record(&recorder_);
    capturing = this;
    for (size_t k = 0; k < found.size(); k++)
      if (Argument& a = arguments_[k]; a.copy && a.leader == int(k)) a.block = recorder_.bound(a.copy->buffer);
  } catch (const Error& e) {
    return raise(e);
  }
  std::vector<PyObject*> leaves;
  for (Argument& a : arguments_) leaves.push_back(as_object(a.same ? a.same : a.copy));
  PyObject* new_args = build(args_, leaves);
  PyObject* new_kwargs = new_args ? build(kwargs_, leaves) : nullptr;
  if (!new_kwargs) return Py_XDECREF(new_args), abort(), nullptr;
  return Py_BuildValue("(NN)", new_args, new_kwargs);
}

PyObject* Capture::build(const Tree& tree, const std::vector<PyObject*>& leaves) const {
  if (tree.kind == Tree::Leaf || tree.kind == Tree::Static) {
    PyObject* o = tree.kind == Tree::Leaf ? leaves[size_t(tree.leaf)] : tree.value;
    Py_INCREF(o);
    return o;
  }
  const Py_ssize_t n = Py_ssize_t(tree.children.size());
  if (tree.kind == Tree::Dict) {
    PyObject* d = PyDict_New();
    for (Py_ssize_t k = 0; d && k < n; k++) {
      PyObject* o = build(*tree.children[size_t(k)], leaves);
      if (!o || PyDict_SetItem(d, PyList_GET_ITEM(tree.value, k), o) < 0) Py_CLEAR(d);
      Py_XDECREF(o);
    }
    return d;
  }
  PyObject* seq = tree.kind == Tree::List ? PyList_New(n) : PyTuple_New(n);
  for (Py_ssize_t k = 0; seq && k < n; k++) {
    PyObject* o = build(*tree.children[size_t(k)], leaves);
    if (!o) Py_CLEAR(seq);
    else if (tree.kind == Tree::List) PyList_SET_ITEM(seq, k, o);
    else PyTuple_SET_ITEM(seq, k, o);
  }
  if (seq && tree.kind == Tree::Tuple && tree.value != reinterpret_cast<PyObject*>(&PyTuple_Type)) {  // a named tuple
    PyObject* named = PyObject_CallObject(tree.value, seq);  // one argument per field
    Py_DECREF(seq);
    seq = named;
  }
  return seq;
}

// ---- what the recorded function does -----------------------------------------------------------------------------------------

void Capture::note_grad(TensorObject* leaf, bool overwrites) {
  for (const Grad& g : grads_)
    if (g.leaf == leaf) return;
  Grad g;
  g.leaf = leaf;
  Py_INCREF(as_object(leaf));
  g.start = overwrites ? Grad::Any : leaf->grad ? Grad::Given : Grad::None;
  if (g.start == Grad::Given) {
    TensorObject* t = as_tensor(leaf->grad);
    g.view = t->view;
    g.in_block = recorder_.touch(t->buffer);
    g.shared = program_.blocks[g.in_block].kind != Block::Held || t->view.data != t->buffer->data;
    recorder_.bind_from_now(g.in_block);
  }
  grads_.push_back(g);
}

bool Capture::note_draw(PyObject* generator, uint64_t seed, uint64_t offset) {
  Stream* stream = nullptr;
  for (Stream& s : streams_)
    if (s.generator == generator) stream = &s;
  if (!stream) {
    streams_.push_back({});
    stream = &streams_.back();
    stream->generator = generator;
    Py_INCREF(generator);
    stream->seed = seed, stream->start = offset;
  }
  if (!stream->reseeded && (seed != stream->seed || offset < stream->start)) {
    raise(ErrorCode::Capture, "capture: a generator was set to another state inside the captured function; set it outside");
    return false;
  }
  const int stream_number = int(stream - streams_.data());
  for (const Draw& d : draws_)
    if (d.stream == stream_number && d.seed == seed && d.offset == offset) return true;
  recorder_.drawn(seed, offset, int(draws_.size()));
  draws_.push_back({stream_number, seed, offset, !stream->reseeded});
  return true;
}

void Capture::note_seed(PyObject* generator) {
  for (Stream& s : streams_)
    if (s.generator == generator) {
      s.reseeded = true;
      return;
    }
  streams_.push_back({});
  streams_.back().generator = generator;
  Py_INCREF(generator);
  streams_.back().reseeded = true;
}

void Capture::abort() {
  if (capturing != this) return;
  end_record();
  capturing = nullptr;
  copy_back();
}

// Values that Python code has left in the arguments' copies go to the arguments themselves.
void Capture::copy_back() {
  for (Argument& a : arguments_) {
    if (!a.copy || a.block < 0 || !program_.blocks[a.block].written) continue;
    copy_on(a.device, static_cast<char*>(a.given->view.data) + a.start, static_cast<char*>(a.copy->view.data) + a.start, a.bytes);
    bump_version(a.given);
  }
}

// Blocks that a tensor outside of the results still holds.
int Capture::count_leaks(PyObject* result) {
  Tree tree;
  std::vector<TensorObject*> found;
  std::vector<PyObject*> converted;
  if (!describe(result, &tree, &found, &converted)) PyErr_Clear();
  for (size_t k = grads_.size(); k-- > 0;)  // leaves that nobody outside can see
    if (Py_REFCNT(as_object(grads_[k].leaf)) == 1) {
      Py_DECREF(as_object(grads_[k].leaf));
      grads_.erase(grads_.begin() + long(k));
    }
  int leaks = 0;
  for (const int block : recorder_.alive()) {
    bool known = !program_.blocks[block].written;  // constants
    for (const TensorObject* t : found) known = known || recorder_.block_of(t->buffer) == block;
    for (const Grad& g : grads_) known = known || (g.leaf->grad && recorder_.block_of(as_tensor(g.leaf->grad)->buffer) == block);
    leaks += !known;
  }
  for (const Argument& a : arguments_) {  // a copy of an argument that somebody keeps
    if (a.block < 0) continue;
    std::vector<const TensorObject*> seen;
    for (const Argument& b : arguments_)
      if (b.copy && b.copy->buffer == a.copy->buffer) seen.push_back(b.copy);
    for (const TensorObject* t : found) {
      bool known = t->buffer != a.copy->buffer;
      for (const TensorObject* s : seen) known = known || s == t;
      if (!known) seen.push_back(t);
    }
    leaks += a.copy->buffer->references.load() > seen.size();
  }
  for (auto* o : converted) Py_DECREF(o);
  return leaks;
}

// Whether an argument reaches into another one's memory, or into memory that the program writes where it is.
bool Capture::arguments_overlap() const {
  const auto meet = [](const View& v, const char* lo, const char* hi) {
    const char *a, *b;
    extent(v, &a, &b);
    return a < hi && lo < b;
  };
  for (const Argument& a : arguments_) {
    if (!a.given || a.same) continue;
    for (const Argument& b : arguments_) {
      const char *lo, *hi;
      if (&a == &b || !b.given || a.given->buffer == b.given->buffer) continue;
      extent(b.given->view, &lo, &hi);
      if (meet(a.given->view, lo, hi)) return true;
    }
    const bool changed = a.block >= 0 && program_.blocks[a.block].written;
    for (const Block& b : program_.blocks)
      if (b.kind == Block::Held && (b.written || changed) && meet(a.given->view, b.base, b.base + b.bytes)) return true;
  }
  return false;
}

// Ends the recording. Returns (reason or None, what the function's caller gets).
PyObject* Capture::finish(PyObject* result, const Passes& passes) {
  std::vector<TensorObject*> found;
  std::vector<PyObject*> converted, leaves;
  const char* reason = nullptr;
  const int leaks = count_leaks(result);
  if (leaks) reason = "a tensor that it makes is kept outside of it (assigned to an attribute, a list or a variable of another scope)";
  const bool described = describe(result, &result_, &found, &converted);
  for (auto* o : converted) Py_DECREF(o);
  if (!converted.empty()) reason = "it returns NumPy arrays";
  for (size_t k = 0; k < arguments_.size(); k++)
    if (const TensorObject* copy = arguments_[k].copy; copy && (copy->grad || copy->requires_grad || copy->node))
      reason = "it gives an argument a gradient, or makes it require one";
  if (grad_enabled != grad_mode_) reason = "it leaves gradients turned on or off";
  if (arguments_overlap()) reason = "arguments share memory with each other or with what it writes";
  std::vector<int> roles(program_.blocks.size(), 0);
  for (size_t k = 0; described && converted.empty() && k < found.size(); k++) {
    TensorObject* t = found[k];
    Result r;
    r.view = t->view;
    r.block = recorder_.block_of(t->buffer);
    r.offset = static_cast<char*>(t->view.data) - static_cast<char*>(t->buffer->data);
    if (t->node && !t->node->freed) reason = "a result still needs its gradient; call backward inside, or detach() what is returned";
    for (size_t j = 0; j < arguments_.size(); j++) {
      if (arguments_[j].copy == t || arguments_[j].same == t) r.argument = int(j);
      else if (arguments_[j].copy && arguments_[j].copy->buffer == t->buffer && r.argument < 0) r.argument = int(j), r.window = true;
    }
    if (r.argument < 0 && (r.block < 0 || program_.blocks[r.block].kind == Block::Held)) {
      r.same = t;
      Py_INCREF(as_object(t));
    } else if (r.argument < 0 && program_.blocks[r.block].kind == Block::Bound) {
      reason = "it returns a gradient that was there before";
    } else if (r.argument < 0) {
      if (!program_.blocks[r.block].written) {
        reason = "it returns a tensor of values from Python, which would never change";
      }
      roles[r.block] = 1;
    }
    results_.push_back(r);
    if (r.argument >= 0 && !r.window) {
      leaves.push_back(as_object(arguments_[r.argument].given));
      Py_INCREF(leaves.back());
    } else if (r.argument < 0 && !r.same) {
      TensorObject* plain = alias_tensor(t, false);
      if (plain) plain->is_view = plain->detached = false;
      leaves.push_back(as_object(plain));
    } else if (r.window) {
      const Argument& a = arguments_[size_t(r.argument)];
      View v = r.view;
      v.data = static_cast<char*>(a.given->view.data) + (static_cast<char*>(r.view.data) - a.copied_at);
      leaves.push_back(as_object(make_view(a.given, v, nullptr, nullptr)));
    } else {
      leaves.push_back(as_object(t));
      Py_INCREF(leaves.back());
    }
  }
  for (Grad& g : grads_) {
    if (g.start == Grad::Given && g.shared) reason = "a gradient from before the call shares its memory with others";
    PyObject* now = g.leaf->grad;
    if (!now) continue;
    const TensorObject* t = as_tensor(now);
    g.out_view = t->view;
    g.out_block = recorder_.block_of(t->buffer);
    g.offset = static_cast<char*>(t->view.data) - static_cast<char*>(t->buffer->data);
    if (g.start == Grad::Given && g.out_block == g.in_block && same_layout(t->view, g.view)) {
      g.unchanged = true;
    } else if (g.out_block < 0 || program_.blocks[g.out_block].kind != Block::Internal || !program_.blocks[g.out_block].written || t->node) {
      reason = "it gives a parameter a gradient that is not computed by its own backward";
    } else {
      roles[g.out_block] = 1;
    }
  }
  if (!reason)
    for (size_t b = 0; b < roles.size(); b++)
      if (roles[b]) {
        program_.blocks[b].kind = Block::Bound;
        outputs_.push_back(int(b));
      }
  abort();
  PyObject* value = nullptr;
  if (reason || !described) {
    if (PyErr_Occurred()) PyErr_Clear();
    Py_INCREF(result);
    value = result;
    if (!described) reason = "its result cannot be described";
  } else {
    value = build(result_, leaves);
  }
  for (auto* o : leaves) Py_XDECREF(o);
  for (Argument& a : arguments_) {  // of the recorded call alone
    Py_CLEAR(a.given);
    Py_CLEAR(a.copy);
  }
  if (!value) return nullptr;
  if (!reason) {
    for (Stream& s : streams_) {
      uint64_t seed, offset;
      if (!state_of(s.generator, &seed, &offset)) return Py_DECREF(value), nullptr;
      s.end_seed = seed;
      s.end = s.reseeded ? offset : offset - s.start;
    }
    for (size_t b = 0; b < program_.blocks.size(); b++)
      if (Block& block = program_.blocks[b]; block.kind == Block::Held) {
        held_.push_back(block.buffer);
        if (block.written) written_.push_back(block.buffer);
      }
    try {
      program_.finish(passes);
    } catch (const Error& e) {
      Py_DECREF(value);
      return raise(e);
    }
    structure_ = structure_version;
    mode_ = mode_version;
    quick_ = program_.moved_bytes() < 256 * 1024;
    for (size_t k = 0; k < program_.steps.size(); k++)
      if (program_.steps[k].draw >= 0) random_steps_.push_back(int(k));
  }
  return Py_BuildValue("(zN)", reason, value);
}

bool Capture::state_of(PyObject* generator, uint64_t* seed, uint64_t* offset) {
  static PyObject *seed_name = PyUnicode_InternFromString("seed"), *offset_name = PyUnicode_InternFromString("offset");
  PyObject* s = PyObject_GetAttr(generator, seed_name);
  PyObject* o = s ? PyObject_GetAttr(generator, offset_name) : nullptr;
  if (o) *seed = PyLong_AsUnsignedLongLong(s), *offset = PyLong_AsUnsignedLongLong(o);
  Py_XDECREF(s);
  Py_XDECREF(o);
  return o && !PyErr_Occurred();
}

// ---- replay ----------------------------------------------------------------------------------------------------------------------

// Random steps read their stream where it is now; the streams move on as the recorded call moved them.
bool Capture::set_streams() {
  for (size_t i = 0; i < streams_.size(); i++) {
    Stream& s = streams_[i];
    if (!state_of(s.generator, &s.now_seed, &s.now)) return false;
    const uint64_t seed = s.reseeded ? s.end_seed : s.now_seed;
    const uint64_t end = s.reseeded ? s.end : (s.now + s.end) % (uint64_t(1) << 63);
    PyObject *a = PyLong_FromUnsignedLongLong(seed), *b = PyLong_FromUnsignedLongLong(end);
    const bool ok = a && b && PyObject_SetAttrString(s.generator, "seed", a) == 0 && PyObject_SetAttrString(s.generator, "offset", b) == 0;
    Py_XDECREF(a);
    Py_XDECREF(b);
    if (!ok) return false;
  }
  for (const int k : random_steps_) {
    Step& step = program_.steps[k];
    const Draw& d = draws_[step.draw];
    if (!d.relative) continue;
    const Stream& s = streams_[d.stream];
    step.attrs.i[0] = int64_t(s.now_seed);
    step.attrs.i[1] = int64_t((s.now + (d.offset - s.start)) % (uint64_t(1) << 63));
  }
  return true;
}

bool Capture::grads_fit() const {
  for (const Grad& g : grads_) {
    if (g.start == Grad::Any) continue;
    if (g.start == Grad::None ? g.leaf->grad != nullptr : !g.leaf->grad || !same_layout(as_tensor(g.leaf->grad)->view, g.view)) return false;
    if (g.start == Grad::Given && needs_grad(as_tensor(g.leaf->grad))) return false;
  }
  return true;
}

PyObject* Capture::run(PyObject* args, PyObject* kwargs, bool timed) {
  if (busy_ || recording() || anomaly_mode || structure_ != structure_version || mode_ != mode_version || grad_mode_ != grad_enabled) Py_RETURN_NOTIMPLEMENTED;
  std::vector<TensorObject*>& found = found_;
  found.clear();
  std::vector<PyObject*> converted;
  std::vector<Buffer*> fresh;
  struct Cleanup {
    Capture* self;
    std::vector<PyObject*>& converted;
    std::vector<Buffer*>& fresh;
    ~Cleanup() {
      for (auto* o : converted) Py_DECREF(o);
      for (Buffer* b : fresh) release(b);
      self->busy_ = false;
    }
  } cleanup{this, converted, fresh};
  busy_ = true;
  if (!match(args_, args, &found, &converted) || !match(kwargs_, kwargs, &found, &converted) || !fits(found) || !grads_fit()) Py_RETURN_NOTIMPLEMENTED;
  const Running running;  // memory that is read here stays, whatever other threads do
  try {
    for (size_t k = 0; k < arguments_.size(); k++) {
      const Argument& a = arguments_[k];
      if (a.block >= 0) program_.bind(a.block, static_cast<char*>(found[k]->view.data) + a.start);
    }
    for (const Grad& g : grads_)
      if (g.start == Grad::Given) program_.bind(g.in_block, as_tensor(g.leaf->grad)->view.data);
    program_.check_indices();
    for (const Grad& g : grads_)
      if (g.start == Grad::Any) Py_CLEAR(g.leaf->grad);  // its memory is free for the new one
    for (const int b : outputs_) {
      fresh.push_back(alloc_device_buffer(program_.blocks[b].bytes, program_.blocks[b].device));
      program_.bind(b, fresh.back()->data);
    }
    if (!set_streams()) return nullptr;
    if (quick_) {
      program_.replay(timed);
    } else {
      struct Unlock {
        PyThreadState* state = PyEval_SaveThread();
        ~Unlock() { PyEval_RestoreThread(state); }
      } unlock;
      program_.replay(timed);
    }
  } catch (const Error& e) {
    return raise(e);
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  for (Buffer* b : written_) b->version++;
  for (size_t k = 0; k < arguments_.size(); k++)
    if (arguments_[k].block >= 0 && program_.blocks[arguments_[k].block].written) bump_version(found[k]);
  return collect(found, fresh);
}

// Sets gradients and builds the result from the memory that the replay wrote.
PyObject* Capture::collect(const std::vector<TensorObject*>& found, const std::vector<Buffer*>& fresh) {
  const auto tensor_in = [&](int block, View v, int64_t offset) -> TensorObject* {
    Buffer* b = nullptr;
    for (size_t k = 0; k < outputs_.size(); k++)
      if (outputs_[k] == block) b = fresh[k];
    v.data = static_cast<char*>(b->data) + offset;
    return new_tensor(retain(b), v);
  };
  for (Grad& g : grads_) {
    if (g.unchanged) {
      bump_version(as_tensor(g.leaf->grad));
      continue;
    }
    if (g.out_block < 0) {
      Py_CLEAR(g.leaf->grad);
      continue;
    }
    TensorObject* t = tensor_in(g.out_block, g.out_view, g.offset);
    if (!t) return nullptr;
    Py_XSETREF(g.leaf->grad, as_object(t));
  }
  std::vector<PyObject*> leaves;
  bool ok = true;
  for (const Result& r : results_) {
    PyObject* o = nullptr;
    if (r.same || (r.argument >= 0 && !r.window)) {
      o = as_object(r.same ? r.same : found[size_t(r.argument)]);
      Py_INCREF(o);
    } else if (r.window) {
      const Argument& a = arguments_[size_t(r.argument)];
      View v = r.view;
      v.data = static_cast<char*>(found[size_t(r.argument)]->view.data) + (static_cast<char*>(r.view.data) - a.copied_at);
      o = as_object(make_view(found[size_t(r.argument)], v, nullptr, nullptr));
    } else {
      o = as_object(tensor_in(r.block, r.view, r.offset));
    }
    ok = ok && o;
    leaves.push_back(o);
  }
  PyObject* value = ok ? build(result_, leaves) : nullptr;
  for (auto* o : leaves) Py_XDECREF(o);
  return value;
}

}  // namespace fastdl::python
