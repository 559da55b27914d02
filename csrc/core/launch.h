// launch: the one place where kernels are started; a recorder of the calling thread may also write the launch down for replay.
#pragma once
#include <vector>

#include "buffer.h"
#include "op.h"

namespace fastdl {

// A recorded run: launches in order, with their views and attributes by value. It owns no tensor memory; whoever records keeps the
// buffers behind the views alive. One workspace serves all steps, because they run one after the other.
class Program {
 public:
  struct Step {
    const OpInfo* op;
    KernelFn fn;
    Attrs attrs;
    uint32_t first_view;  // outputs, then inputs, in views
    uint16_t nout, nin;
  };
  Program() = default;
  Program(const Program&) = delete;
  ~Program() { release(workspace); }

  void append(const OpInfo& op, KernelFn fn, const Args& args, int64_t workspace_bytes);
  void replay();
  // Moves the random steps on in their stream: the counter offset is attribute i1 of every op that draws numbers (see ops.def).
  void advance_random(int64_t blocks);

  std::vector<Step> steps;
  std::vector<View> views;
  int64_t workspace_bytes = 0;
  Buffer* workspace = nullptr;  // allocated by the first replay
};

// Runs fn(args). args.workspace holds workspace_bytes (0: none).
void launch(const OpInfo& op, KernelFn fn, const Args& args, int64_t workspace_bytes = 0);

// Launches of this thread are appended to `program` from begin_record to end_record. Recordings do not nest.
void begin_record(Program* program);
void end_record();
bool recording();

}  // namespace fastdl
