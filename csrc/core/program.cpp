#include "program.h"

#include <cstdio>
#include <cstring>

#include "cuda.h"
#include "device_graph.h"
#include "launch.h"

namespace fastdl {

Program::Program() = default;

Program::~Program() {
  graphs_.clear();  // before the memory that they use
  for (Block& b : blocks)
    if (b.kind == Block::Held) release(b.buffer);
  for (Buffer* b : arenas_) release(b);
  if (slices_) release(slices_);
}

char* Program::slice_memory(int64_t bytes) {
  if (!slices_ || slices_->bytes < bytes) {
    if (slices_) release(slices_);
    slices_ = nullptr;
    slices_ = alloc_buffer(bytes);
  }
  return static_cast<char*>(slices_->data);
}

void Program::place_views() {
  views_of_.assign(blocks.size(), {});
  for (size_t v = 0; v < views.size(); v++) {
    const Place at = places[v];
    if (at.block < 0) continue;
    const Block& b = blocks[at.block];
    if (b.base) views[v].data = b.base + at.offset;
    if (b.kind == Block::Bound) views_of_[at.block].push_back(uint32_t(v));
  }
}

void Program::finish(const Passes& passes) {
  recorded_steps = int64_t(steps.size());
  use_graphs_ = passes.graphs;
  if (passes.constants) forward_constants(*this);
  if (passes.common) merge_common_steps(*this);
  if (passes.dead_code) remove_dead_steps(*this);
  if (passes.slices) join_slices(*this);
  if (passes.epilogue) fuse_epilogues(*this);
  if (passes.norms) fuse_norms(*this);
  if (passes.pooling) move_relu_before_pool(*this), fuse_pooled_gradients(*this);
  if (passes.fuse) group_elementwise(*this);
  if (passes.images) group_images(*this);
  if (passes.updates) advance_updates(*this), split_updates(*this);
  if (passes.recompute && passes.arena) recompute_values(*this, passes.recompute_convolutions);
  if (passes.in_place) reuse_in_place(*this);
  place_workspaces(*this);
  std::vector<Device> devices{Device{}};
  for (const Block& b : blocks) {
    bool known = false;
    for (const Device d : devices) known = known || d == b.device;
    if (!known) devices.push_back(b.device);
  }
  arena_bytes = unplanned_bytes = 0;
  for (const Device d : devices) {
    const int64_t bytes = plan_arena(*this, d, passes.arena);
    arena_bytes += bytes;
    if (bytes == 0) continue;
    Buffer* arena = d.kind == Device::CPU ? alloc_arena(bytes) : alloc_device_buffer(bytes, d);
    arenas_.push_back(arena);
    if (d.kind == Device::CUDA) cuda_check(need_cuda().get_stream(d.index, &streams_[d.index]));
    for (Block& b : blocks)
      if (b.kind == Block::Internal && b.device == d) b.base = b.offset >= 0 ? static_cast<char*>(arena->data) + b.offset : nullptr;
  }
  place_views();
}

void Program::bind(int block, void* base) {
  Block& b = blocks[block];
  if (b.base == base) return;
  b.base = static_cast<char*>(base);
  for (const uint32_t v : views_of_[block]) views[v].data = b.base + places[v].offset;
}

namespace {
// The checks of inference once more, on values that may differ from the recorded ones.
void check_step(Program& p, const Step& s) {
  Call call;
  call.op = OpId(s.op - op_table);
  call.nin = s.nin;
  call.in = p.views.data() + s.first_view + s.nout;
  call.attrs = s.attrs;
  call.nout = 0;
  call.workspace = 0;
  call.contiguous_inputs = call.channels_last_inputs = call.own_dtype_inputs = 0;
  s.op->infer(call);
}
}  // namespace

void Program::check_indices() {
  for (const Step& s : steps)  // a device's kernels check for themselves
    if (s.check == IndexCheck::Before && s.device.kind == Device::CPU) check_step(*this, s);
}

void Program::replay(bool timed) {
  const size_t n = steps.size();
  reserve_slices(*this);  // before anything is written
  const bool watch = timed || profiling;
  for (size_t k = 0; k < n; k++) {
    Step& s = steps[k];
    if (s.device.kind != Device::CPU) {
      k = replay_on_device(k, watch) - 1;
      continue;
    }
    if (s.check == IndexCheck::At) check_step(*this, s);
    size_t end = k + 1;
    while (s.group >= 0 && (s.images || !watch) && end < n && steps[end].group == s.group) end++;
    if (__builtin_expect(watch, 0)) {  // elementwise groups step by step; the time of slices of images counts for their first step
      const Args args = args_of(s);
      const double start = now_seconds();
      if (s.images)
        run_images(*this, k, end);
      else
        s.fn(args);
      const double stop = now_seconds();
      s.seconds += stop - start;
      if (profiling) note_time(*s.op, s.compute, args, start, stop);
      k = end - 1;
    } else if (s.group >= 0) {
      if (s.images)
        run_images(*this, k, end);
      else
        run_group(*this, k, end);
      k = end - 1;
    } else {
      s.fn(args_of(s));
    }
  }
  replays++;
  timed_replays += timed;
}

Program::Graphs Program::graphs() const {
  Graphs n;
  for (const auto& [first, graph] : graphs_)
    if (graph) n.count++, n.launches += graph->launches(), n.made += graph->made();
  return n;
}

// The program's own memory belongs to one stream at a time: another one waits for the last, and memory freed later waits for both.
void Program::follow_stream(Device device) {
  void* now = nullptr;
  cuda_check(need_cuda().get_stream(device.index, &now));
  void*& last = streams_[device.index];
  if (now == last) return;
  if (last) cuda_check(need_cuda().stream_wait(device.index, now, last));  // null: no memory of its own on this device
  for (const Buffer* b : arenas_)
    if (b->device == device) cuda_check(need_cuda().record_stream(b->context, now));
  for (const auto& [first, graph] : graphs_)
    if (graph && graph->scratch() && graph->scratch()->device == device)
      cuda_check(need_cuda().record_stream(graph->scratch()->context, now));
  last = now;
}

// The steps from k on as a graph. What cannot be one, and what is timed: a step, or consecutive steps of one optimiser, in few
// launches where it can.
size_t Program::replay_on_device(size_t k, bool watch) {
  follow_stream(steps[k].device);
  if (use_graphs_ && !watch) {
    auto at = graphs_.find(k);
    if (at == graphs_.end()) {
      auto graph = std::make_unique<DeviceGraph>(*this, k);
      if (!graph->made()) graph = nullptr;
      at = graphs_.emplace(k, std::move(graph)).first;
    }
    if (at->second) return at->second->run(*this), at->second->end();
  }
  std::vector<Call> calls;
  std::vector<Args> args;
  const Step& first = steps[k];
  const bool together = !std::strcmp(first.op->family, "optim");
  size_t end = k;
  do {
    const Step& s = steps[end];
    Call call{};
    call.op = OpId(s.op - op_table);
    call.nin = s.nin;
    call.in = views.data() + s.first_view + s.nout;
    call.attrs = s.attrs;
    call.nout = s.nout;
    call.compute = s.compute;
    call.workspace = s.workspace;
    calls.push_back(call);
    args.push_back(args_of(s));
    end++;
  } while (together && end < steps.size() && steps[end].op == first.op && steps[end].device == first.device);
  if (together)
    launch_cuda_many(calls.data(), args.data(), int(calls.size()), first.device);
  else
    launch_cuda(calls[0], args[0], first.device);
  return end;
}

int64_t Program::moved_bytes() const {
  int64_t bytes = 0;
  for (const Step& s : steps) bytes += bytes_of(const_cast<Program*>(this)->args_of(s));
  return bytes;
}

std::string Program::dump() const {
  char line[400];
  std::snprintf(line, sizeof line,
                "%zu launches (%lld recorded), arena %.2f MB (%.2f MB without reuse), scratch of one launch up to %.2f MB\n",
                steps.size(), static_cast<long long>(recorded_steps), double(arena_bytes) / 1e6, double(unplanned_bytes) / 1e6,
                double(workspace_bytes) / 1e6);
  std::string text = line;
  text += "   #  op                          dtype     output               bytes       FLOPs        us  reads -> writes\n";
  const auto place = [this](uint32_t v) -> std::string {
    const int b = places[v].block;
    if (b < 0) return views[v].given() ? "#" : "-";
    const char kind = blocks[b].kind == Block::Held ? 'h' : blocks[b].kind == Block::Bound ? 'b' : 't';
    return kind + std::to_string(b);
  };
  for (size_t k = 0; k < steps.size(); k++) {
    const Step& s = steps[k];
    const Args args = const_cast<Program*>(this)->args_of(s);
    std::string reads, writes;
    for (int i = 0; i < s.nin; i++) reads += (i ? " " : "") + place(s.first_view + s.nout + uint32_t(i));
    for (int i = 0; i < s.nout; i++) writes += (i ? " " : "") + place(s.first_view + uint32_t(i));
    char time[32] = "-";
    if (timed_replays) std::snprintf(time, sizeof time, "%.2f", s.seconds / double(timed_replays) * 1e6);
    std::snprintf(line, sizeof line, "%4zu%c %-27s %-9s %-17s %9lld %11lld %9s  %s -> %s\n", k, s.group >= 0 ? '|' : ' ',
                  s.op->name, dtype_name(s.compute), shape_text(args.out[0]).c_str(), static_cast<long long>(bytes_of(args)),
                  static_cast<long long>(flops_of(*s.op, args)), time, reads.c_str(), writes.c_str());
    text += line;
  }
  return text;
}

}  // namespace fastdl
