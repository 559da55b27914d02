// Capture: one recorded call of a Python function: arguments, gradients, random streams and results while it is recorded.
// fastdl/graph.py decides when to record; everything that happens on each replay is in replay.cpp.
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
  const char* where = line ? PyUnicode_AsUTF8(line) : nullptr;
  bool go_on = false;
  if (where) {
    const std::string text = std::string(what) + ": a captured function must not read the values of a tensor (shape " + shape_text(t->view) +
                             ") in Python: they would be frozen at what they are now" + where +
                             "; return the tensor and read it outside, or use fd.where and other ops instead of Python branches";
    go_on = capturing->refuse(text.c_str());
  }
  Py_XDECREF(line);
  return go_on;
}

void note_export(const TensorObject* t) {
  if (recording() && capturing && recorder->block_of(t->buffer) >= 0) capturing->decline("it gives the memory of a tensor to NumPy or another library");
}

Capture::~Capture() {
  if (capturing == this) abort();
  clear();
}

int Capture::traverse(visitproc visit, void* arg) const {
  for (const Tree* tree : {&args_, &kwargs_, &result_})
    if (const int stop = tree->traverse(visit, arg)) return stop;
  for (const Argument& a : arguments_) {
    Py_VISIT(as_object(a.same));
    Py_VISIT(as_object(a.copy));
    Py_VISIT(as_object(a.given));
  }
  for (const Grad& g : grads_) Py_VISIT(as_object(g.leaf));
  for (const Result& r : results_) Py_VISIT(as_object(r.same));
  for (const Stream& s : streams_) Py_VISIT(s.generator);
  return 0;
}

// Lets go of all Python objects; no call fits from then on.
void Capture::clear() {
  structure_ = ~uint64_t(0);
  for (Argument& a : arguments_) {
    Py_CLEAR(a.same);
    Py_CLEAR(a.copy);
    Py_CLEAR(a.given);
  }
  for (Grad& g : grads_) Py_CLEAR(g.leaf);
  for (Result& r : results_) Py_CLEAR(r.same);
  for (Stream& s : streams_) Py_CLEAR(s.generator);
  grads_.clear(), results_.clear(), streams_.clear(), random_steps_.clear();
  for (Tree* tree : {&args_, &kwargs_, &result_}) tree->clear();
}

bool Capture::refuse(const char* message) {
  if (strict_) {
    raise(ErrorCode::Capture, "%s", message);
    return false;
  }
  decline(message);
  return true;
}

void Capture::decline(const std::string& reason) {
  if (declined_.empty()) declined_ = reason;
}

// ---- arguments -----------------------------------------------------------------------------------------------------------

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
  if (!args_.describe(args, &found, &converted) || !kwargs_.describe(kwargs, &found, &converted)) return nullptr;
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
    structure_before_ = structure_version;
    begin_record(&recorder_);
    capturing = this;
    for (size_t k = 0; k < found.size(); k++)
      if (Argument& a = arguments_[k]; a.copy && a.leader == int(k)) {
        a.block = recorder_.bound(a.copy->buffer);
        const char* lo = static_cast<char*>(a.view.data) + a.start;
        recorder_.given.push_back({lo, lo + a.bytes, a.block});
      }
  } catch (const Error& e) {
    return raise(e);
  }
  std::vector<PyObject*> leaves;
  for (Argument& a : arguments_) leaves.push_back(as_object(a.same ? a.same : a.copy));
  PyObject* new_args = args_.build(leaves);
  PyObject* new_kwargs = new_args ? kwargs_.build(leaves) : nullptr;
  if (!new_kwargs) return Py_XDECREF(new_args), abort(), nullptr;
  return Py_BuildValue("(NN)", new_args, new_kwargs);
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
    program_.blocks[g.in_block].aliased = true;  // a gradient may be any tensor that the user has put there
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
  if (!stream->reseeded && (seed != stream->seed || offset < stream->start))
    return refuse("capture: a generator was set to another state inside the captured function; set it outside");
  const int stream_number = int(stream - streams_.data());
  for (const Draw& d : draws_)
    if (d.seed == seed && d.offset == offset) {
      if (d.stream != stream_number) decline("two of its random generators are in the same state");
      if (d.stream == stream_number) return true;
    }
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
  if (!tree.describe(result, &found, &converted)) PyErr_Clear();
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
  const bool described = result_.describe(result, &found, &converted);
  for (auto* o : converted) Py_DECREF(o);
  if (!converted.empty()) reason = "it returns NumPy arrays";
  for (size_t k = 0; k < arguments_.size(); k++)
    if (const TensorObject* copy = arguments_[k].copy; copy && (copy->grad || copy->requires_grad || copy->node))
      reason = "it gives an argument a gradient, or makes it require one";
  if (grad_enabled != grad_mode_) reason = "it leaves gradients turned on or off";
  if (arguments_overlap()) reason = "arguments share memory with each other or with what it writes";
  if (recorder_.foreign) reason = "it uses tensors that another thread made meanwhile";
  if (structure_version != structure_before_) reason = "it changes a module (an attribute, parameter, buffer or hook), which a replay would not change";
  if (!declined_.empty()) reason = declined_.c_str();
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
    value = result_.build(leaves);
  }
  for (auto* o : leaves) Py_XDECREF(o);
  for (Argument& a : arguments_) {  // of the recorded call alone
    if (a.copy && a.given && reason && (a.copy->requires_grad || a.copy->grad)) {  // what the function has made of its argument
      a.given->requires_grad = a.given->requires_grad || a.copy->requires_grad;
      PyObject* grad = a.copy->grad;
      Py_XINCREF(grad);
      Py_XSETREF(a.given->grad, grad);
    }
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

}  // namespace fastdl::python
