// DeviceGraph: steps in a row of one program on one CUDA device, kept as a graph that the driver takes in one call.
#pragma once
#include <utility>
#include <vector>

#include "program.h"

namespace fastdl {

class DeviceGraph {
 public:
  // Of the steps [first, end()): as many as stand together on one device and need nothing from the host's kernels. Fewer than two
  // are not worth a graph: then made() is 0.
  DeviceGraph(Program& p, size_t first);
  DeviceGraph(const DeviceGraph&) = delete;
  ~DeviceGraph();

  size_t end() const { return end_; }
  int64_t launches() const { return launches_; }  // of kernels
  int64_t made() const { return made_; }          // how often; 1: every launch has kept its place since the first run
  Buffer* scratch() const { return scratch_; }
  // Writes down again what has changed since the last run (memory given for this call, random streams, numbers on the host), and
  // runs. Throws Device, OutOfMemory.
  void run(Program& p);

 private:
  // Steps whose row takes them together (an optimiser's), or one step.
  struct Unit {
    size_t first, end;
    int32_t launch, launches;                             // the first of its launches
    bool on_host;                                         // reads numbers of the host that may change
    bool written;                                         // its nodes are what the following says
    std::vector<std::pair<uint32_t, const void*>> bound;  // views on memory given for each run, and where it was
    int64_t stream[2];                                    // seed and offset of its random numbers
  };
  void make(Program& p);
  bool write(Program& p, Unit& u, void* graph);  // false: its launches do not fit where they were
  bool changed(const Program& p, const Unit& u) const;

  size_t end_;
  Device device_;
  void* graph_ = nullptr;
  Buffer* scratch_ = nullptr;  // of all its launches in turn
  int32_t launches_ = 0;
  int64_t made_ = 0;
  std::vector<Unit> units_;
};

}  // namespace fastdl
