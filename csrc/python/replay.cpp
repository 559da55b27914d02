// Replays of a recorded call: whether another call is of its kind, the memory and the random streams that it gets, and its results.
#include "capture.h"
#include "core/cuda.h"
#include "core/launch.h"
#include "node.h"
#include "operands.h"

namespace fastdl::python {

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
  if (!args_.match(args, &found, &converted) || !kwargs_.match(kwargs, &found, &converted) || !fits(found) || !grads_fit()) Py_RETURN_NOTIMPLEMENTED;
  if (!quick_)
    for (TensorObject* t : found) {  // other threads may take them out of the caller's lists meanwhile
      converted.push_back(as_object(t));
      Py_INCREF(converted.back());
    }
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
  PyObject* value = ok ? result_.build(leaves) : nullptr;
  for (auto* o : leaves) Py_XDECREF(o);
  return value;
}

}  // namespace fastdl::python
