#include "device_graph.h"

#include <algorithm>

#include "cuda.h"
#include "plan.h"

namespace fastdl {

namespace {

// The row of a step and the scratch it wants; null: it runs on the host.
const CudaRow* row_of(Program& p, const Step& s, const DeviceContext* context, int64_t* bytes) {
  const CudaRow* row = cuda_row(OpId(s.op - op_table), s.compute);
  if (!row) return nullptr;
  Args args = p.args_of(s);
  args.device = context;
  *bytes = row->workspace ? row->workspace(args) : 0;
  return *bytes < 0 ? nullptr : row;
}

const DeviceContext* context_of(Device device) {
  const DeviceContext* context = nullptr;
  cuda_check(need_cuda().context(device.index, &context));
  return context;
}

}  // namespace

DeviceGraph::DeviceGraph(Program& p, size_t first) : end_(first), device_(p.steps[first].device) {
  const DeviceContext* context = context_of(device_);
  int64_t most = 0;
  while (end_ < p.steps.size() && p.steps[end_].device == device_) {
    const Step& s = p.steps[end_];
    int64_t bytes = 0;
    const CudaRow* row = row_of(p, s, context, &bytes);
    if (!row) break;
    most = std::max(most, bytes);
    if (!units_.empty() && takes_many(row)) {
      Unit& last = units_.back();
      const Step& before = p.steps[last.first];
      if (cuda_row(OpId(before.op - op_table), before.compute) == row) {
        last.end = ++end_;
        continue;
      }
    }
    units_.push_back({end_, end_ + 1, 0, 0, false, false, {}, {0, 0}});
    end_++;
  }
  if (end_ - first < 2) return;
  for (Unit& u : units_)
    for (size_t k = u.first; k < u.end; k++) {
      const Step& s = p.steps[k];
      for (int v = 0; v < s.nout + s.nin; v++) {
        const int b = block_at(p, s, v);
        if (b < 0) continue;
        if (p.blocks[b].kind == Block::Bound) u.bound.push_back({s.first_view + uint32_t(v), nullptr});
        if (v >= s.nout && v - s.nout < 32 && s.host_inputs >> (v - s.nout) & 1) u.on_host = true;
      }
    }
  if (most > 0) scratch_ = alloc_device_buffer(most, device_);
  try {
    make(p);
  } catch (...) {
    release(scratch_);
    throw;
  }
}

// The new graph takes the place of the old one when it is whole.
void DeviceGraph::make(Program& p) {
  void* made = nullptr;
  std::vector<Unit> units = units_;
  int32_t launches = 0;
  cuda_check(need_cuda().create_graph(device_.index, &made));
  try {
    for (Unit& u : units) {
      u.launch = launches, u.launches = 0;
      write(p, u, made);
      launches += u.launches;
    }
    cuda_check(need_cuda().finish_graph(made));
  } catch (...) {
    need_cuda().destroy_graph(made);
    throw;
  }
  if (graph_) need_cuda().destroy_graph(graph_);
  graph_ = made;
  units_ = std::move(units);
  launches_ = launches;
  made_++;
}

DeviceGraph::~DeviceGraph() {
  if (graph_) need_cuda().destroy_graph(graph_);
  release(scratch_);
}

bool DeviceGraph::changed(const Program& p, const Unit& u) const {
  if (u.on_host || !u.written) return true;
  for (const auto& [view, at] : u.bound)
    if (p.views[view].data != at) return true;
  const Step& s = p.steps[u.first];
  return s.draw >= 0 && (s.attrs.i[0] != u.stream[0] || s.attrs.i[1] != u.stream[1]);
}

bool DeviceGraph::write(Program& p, Unit& u, void* graph) {
  const DeviceContext* context = context_of(device_);
  std::vector<Args> args;
  for (size_t k = u.first; k < u.end; k++) {
    args.push_back(p.args_of(p.steps[k]));
    args.back().device = context;
    args.back().workspace = scratch_ ? scratch_->data : nullptr;
  }
  const Step& s = p.steps[u.first];
  const CudaRow* row = cuda_row(OpId(s.op - op_table), s.compute);
  u.written = false;  // until all of it is
  cuda_check(need_cuda().begin_graph(graph, u.launch, u.launches));
  int32_t written = 0;
  try {
    if (takes_many(row))
      row->many(args.data(), int(args.size()));
    else
      row->fn(args[0]);
  } catch (...) {
    need_cuda().end_graph(graph, &written);
    throw;
  }
  cuda_check(need_cuda().end_graph(graph, &written));
  if (written < 0) return false;
  u.launches = written;
  u.written = true;
  for (auto& [view, at] : u.bound) at = p.views[view].data;
  for (int k = 0; k < 2; k++) u.stream[k] = s.attrs.i[k];
  return true;
}

void DeviceGraph::run(Program& p) {
  for (Unit& u : units_)
    if (changed(p, u) && !write(p, u, graph_)) {
      make(p);  // of what all launches are now
      break;
    }
  cuda_check(need_cuda().launch_graph(graph_));
  cuda_check(need_cuda().check("a graph of a captured function"));
}

}  // namespace fastdl
