#include "launch.h"

#include <cstring>

namespace fastdl {
namespace {
thread_local Program* recorder = nullptr;
}

void Program::append(const OpInfo& op, KernelFn fn, const Args& args, int64_t bytes) {
  steps.push_back({&op, fn, *args.attrs, uint32_t(views.size()), uint16_t(args.nout), uint16_t(args.nin)});
  views.insert(views.end(), args.out, args.out + args.nout);
  views.insert(views.end(), args.in, args.in + args.nin);
  if (bytes > workspace_bytes) workspace_bytes = bytes;
}

void Program::replay() {
  if (workspace_bytes && !workspace) workspace = alloc_buffer(workspace_bytes);
  void* scratch = workspace ? workspace->data : nullptr;
  for (const Step& s : steps) {
    View* v = views.data() + s.first_view;
    s.fn(Args{v, v + s.nout, &s.attrs, scratch, s.nout, s.nin});
  }
}

void Program::advance_random(int64_t blocks) {
  for (Step& s : steps)
    if (!std::strcmp(s.op->family, "random") || !std::strcmp(s.op->family, "dropout"))
      s.attrs.i[1] = int64_t(uint64_t(s.attrs.i[1]) + uint64_t(blocks));
}

void launch(const OpInfo& op, KernelFn fn, const Args& args, int64_t workspace_bytes) {
  if (__builtin_expect(recorder != nullptr, 0)) recorder->append(op, fn, args, workspace_bytes);
  fn(args);
}

void begin_record(Program* program) {
  if (recorder) fail(ErrorCode::Capture, "capture: this thread is already recording; captures do not nest");
  recorder = program;
}
void end_record() { recorder = nullptr; }
bool recording() { return recorder != nullptr; }

}  // namespace fastdl
