// Recorder: writes the launches of one thread down as a Program. Every view is traced to the block of memory it lies in, by the
// addresses of the buffers that are made, dropped and touched meanwhile.
#pragma once
#include <map>
#include <set>
#include <string>
#include <vector>

#include "program.h"

namespace fastdl {

class Recorder {
 public:
  explicit Recorder(Program* program) : program(program) {}
  Recorder(const Recorder&) = delete;

  // Called by the allocator, the tensors and the launcher of the recording thread (freed: of any thread).
  void allocated(Buffer* b);
  void freed(Buffer* b);
  int touch(Buffer* b);                           // its block; a Held one if it is new here
  int bound(Buffer* b);                           // registers b as memory that replays give anew
  void numbers(const void* first, size_t bytes);  // scalar operands of the next launch
  void append(const OpInfo& op, KernelFn fn, DType compute, const Args& args, int64_t workspace_bytes, Device device = {});
  void drawn(uint64_t seed, uint64_t offset, int draw);  // the stream position that draw number `draw` took

  int block_of(const Buffer* b) const;   // -1: unknown
  bool constant(const Buffer* b) const;  // made while recording and never written by a step: holds values from Python
  void bind_from_now(int block);         // a Held block becomes Bound
  int snapshot(int block);               // a copy of its present contents, as a Held block
  std::vector<int> alive() const;        // internal blocks that somebody still holds

  Program* program;
  struct Given {
    const char *lo, *hi;  // an argument's own memory; the recording works on a copy of it
    int block;            // the copy
  };
  std::vector<Given> given;
  bool foreign = false;  // a step uses memory that another thread made meanwhile

 private:
  int add(Block block);
  Place locate(const View& v, bool written);
  void check_given() const;
  friend void note_allocated(Buffer* b);

  std::map<const char*, int> live_;    // start of memory -> block
  std::set<const Buffer*> of_others_;  // made by other threads meanwhile
  const char* numbers_ = nullptr;
  size_t number_bytes_ = 0;
  struct Draw {
    uint64_t seed, offset;
    int number;
  };
  std::vector<Draw> draws_;
};

// The recorder of this thread, or null. Recordings do not nest.
extern thread_local Recorder* recorder;
extern int recorders;  // of all threads; changed under the GIL. The allocator looks at this first
void begin_record(Recorder* r);
void end_record();
inline bool recording() { return recorders && recorder; }

// What happens inside is no part of the recording, such as values that Python puts into new memory.
class Unrecorded {
 public:
  Unrecorded() : before_(recorder) { recorder = nullptr; }
  Unrecorded(const Unrecorded&) = delete;
  ~Unrecorded() { recorder = before_; }

 private:
  Recorder* before_;
};

// Hooks of allocator and launcher, called when `recorders` is not zero.
void note_allocated(Buffer* b);
void note_freed(Buffer* b);
inline void touch(Buffer* b) {
  if (__builtin_expect(recorders != 0, 0) && recorder) recorder->touch(b);
}

}  // namespace fastdl
