// Capture: one recorded call of a Python function (capture.cpp), and its replays (replay.cpp).
#pragma once
#include <string>

#include "core/record.h"
#include "tree.h"

namespace fastdl::python {

// structure_version: raised when a parameter or buffer of a module, or the memory behind a tensor, is replaced, since captured programs
// hold the old ones. mode_version: raised when a module changes between training and evaluation.
extern uint64_t structure_version, mode_version;

class Capture {
 public:
  explicit Capture(bool strict) : recorder_(&program_), strict_(strict) {}
  Capture(const Capture&) = delete;
  ~Capture();

  // Recording, in this order; a new reference, or nullptr with an exception.
  PyObject* begin(PyObject* args, PyObject* kwargs);  // (args, kwargs) for the function; None: they overlap
  int count_leaks(PyObject* result);
  PyObject* finish(PyObject* result, const Passes& passes);  // (why it cannot be replayed or None, result)
  void abort();
  bool refuse(const char* message);  // strict: raises CaptureError and returns false; else the function goes on, eagerly
  void decline(const std::string& reason);  // the recording will not be used

  // Replays if the call is of the recorded kind; else NotImplemented.
  PyObject* run(PyObject* args, PyObject* kwargs, bool timed);

  // What the recorded function does, told by the tensors and generators.
  void note_grad(TensorObject* leaf, bool overwrites);
  bool note_draw(PyObject* generator, uint64_t seed, uint64_t offset);
  void note_seed(PyObject* generator);

  bool stale() const { return structure_ != structure_version; }  // a parameter or buffer has been replaced: no call fits any more
  Program& program() { return program_; }
  int traverse(visitproc visit, void* arg) const;  // for Python's garbage collector
  void clear();
  void accept_mode(uint64_t mode) { mode_ = mode; }  // all modules that it called are in the mode in which they were recorded

 private:
  struct Argument {
    View view;
    Device device;
    int leader;                    // first argument in the same buffer
    int64_t delta = 0;             // bytes from the leader's first element to this one's
    int64_t start = 0, bytes = 0;  // of the leader: extent of all arguments of the buffer, from its first element
    int block = -1;                // of the leader
    char* copied_at = nullptr;     // first element of the copy that was recorded
    TensorObject* same = nullptr;  // must be this very tensor (it requires grad). Owned
    TensorObject *copy = nullptr, *given = nullptr;  // while recording. Owned
  };
  struct Result {
    View view;
    int block = -1;
    int64_t offset = 0;
    int argument = -1;
    bool window = false;  // on the argument's memory
    TensorObject* same = nullptr;  // owned
  };
  struct Grad {
    enum Start : uint8_t { Any, None, Given } start;
    TensorObject* leaf;  // owned
    View view, out_view;
    int in_block = -1, out_block = -1;
    int64_t offset = 0;
    bool unchanged = false, shared = false;
  };
  struct Stream {
    PyObject* generator;  // owned
    bool reseeded = false;
    uint64_t seed = 0, start = 0;    // when first seen
    uint64_t end_seed = 0, end = 0;  // after the call: how far it moved, or (reseeded) where it stood
    uint64_t now_seed = 0, now = 0;  // when the replay began
  };
  struct Draw {
    int stream;
    uint64_t seed, offset;
    bool relative;
  };

  bool fits(const std::vector<TensorObject*>& found) const;
  void copy_back();
  bool arguments_overlap() const;
  static bool state_of(PyObject* generator, uint64_t* seed, uint64_t* offset);
  bool set_streams();
  bool grads_fit() const;
  PyObject* collect(const std::vector<TensorObject*>& found, const std::vector<Buffer*>& fresh);

  Program program_;
  Recorder recorder_;
  Tree args_, kwargs_, result_;
  std::vector<Argument> arguments_;
  std::vector<Result> results_;
  std::vector<Grad> grads_;
  std::vector<Stream> streams_;
  std::vector<Draw> draws_;
  std::vector<int> outputs_;       // blocks that are new memory at every replay
  std::vector<Buffer*> held_, written_;  // memory from outside, and what of it a replay changes
  std::vector<int> random_steps_;
  std::vector<TensorObject*> found_;
  std::string declined_;
  bool strict_;
  bool busy_ = false, quick_ = false, grad_mode_ = true;
  uint64_t structure_ = 0, mode_ = 0, structure_before_ = 0;
};

extern thread_local Capture* capturing;  // the capture that this thread records, or null

// A tensor's values are about to be read by Python: an error while recording, unless they are constants.
bool check_readable(const TensorObject* t, const char* what);

// NumPy or another library gets the memory of a tensor made while recording: what it writes there is not recorded.
void note_export(const TensorObject* t);

inline void note_grad(TensorObject* leaf, bool overwrites) {
  if (__builtin_expect(recorders != 0, 0) && capturing) capturing->note_grad(leaf, overwrites);
}

}  // namespace fastdl::python
