// Program: a recorded run. Launches in order, with their views and attributes by value, and where the memory behind each view comes
// from, so that a replay can move it: nothing of Python is needed to run it again.
#pragma once
#include <array>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "buffer.h"
#include "op.h"

namespace fastdl {

// Memory that the steps read and write.
struct Block {
  enum Kind : uint8_t {
    Internal,  // made and dropped by the program: a place in its arena
    Held,      // memory from outside (parameters, constants, optimiser state): used where it lies, kept alive by the program
    Bound,     // given for each replay: arguments and results
  };
  Kind kind = Internal;
  bool written = false;  // by a step
  bool aliased = false;  // Bound: may lie in memory that another block has, too
  Device device;
  int64_t bytes = 0;
  char* base = nullptr;           // where it is now
  Buffer* buffer = nullptr;       // Held: one reference. While recording: whose memory this is (Internal, Bound: none owned)
  int32_t first = -1, last = -1;  // steps that use it
  int64_t offset = -1;            // Internal: in the arena
  int64_t slice = -1;             // >= 0: lives inside a group of images only, there in a thread's scratch
};

struct Place {  // of a view: block -1 stays where it is (numbers, empty and absent views)
  int32_t block = -1;
  int64_t offset = 0;  // bytes
};

enum class IndexCheck : uint8_t { None, Before, At };  // before the first step, or at the step that reads the indices

struct Step {
  const OpInfo* op;
  KernelFn fn;
  Attrs attrs;
  uint32_t first_view;  // outputs, then inputs, in Program::views
  uint16_t nout, nin;
  IndexCheck check = IndexCheck::None;
  DType compute = DType::float32;
  int32_t draw = -1;  // number of the draw that its random numbers are, see Recorder::drawn
  Device device;
  uint32_t host_inputs = 0;  // see Args
  int64_t workspace = 0;     // bytes that the kernel asked for, ...
  int32_t scratch = -1;      // ... and the block that they are
  int32_t group = -1;        // >= 0: runs block by block together with its neighbours of the same group (plan.cpp)
  int32_t images = 0;        // > 0: the group's blocks are slices of so many images (plan_images.cpp), ...
  int64_t slice_bytes = 0, slice_workspace = 0;  // ... for which a thread needs this
  double seconds = 0;                            // sum over profiled replays
};

// Which of the passes of plan.cpp run; all but one are on by default.
struct Passes {
  bool dead_code = true, constants = true, common = true, in_place = true, slices = true, fuse = true, epilogue = true,
       norms = true, pooling = true, images = true, updates = true, recompute = true, recompute_convolutions = false, graphs = true,
       arena = true;
};

class DeviceGraph;

class Program {
 public:
  Program();
  Program(const Program&) = delete;
  ~Program();

  // After recording: passes, then the places of all internal blocks. Throws OutOfMemory.
  void finish(const Passes& passes);

  void bind(int block, void* base);  // moves a Bound block
  void check_indices();              // of the steps that can be checked before anything runs. Throws Index
  void replay(bool timed = false);   // Throws Index
  std::string dump() const;

  Args args_of(const Step& s) {
    View* v = views.data() + s.first_view;
    return Args{v, v + s.nout, &s.attrs, s.scratch >= 0 ? blocks[s.scratch].base : nullptr, s.nout, s.nin, nullptr, s.host_inputs};
  }
  char* slice_memory(int64_t bytes);  // at least so much. Throws OutOfMemory
  struct Graphs {
    int64_t count = 0, launches = 0, made = 0;
  };
  Graphs graphs() const;        // on devices: how many there are, the launches in them, how often one was made
  int64_t moved_bytes() const;  // read and written by all steps, a measure of how long a replay takes

  std::vector<Step> steps;
  std::vector<View> views;
  std::vector<Place> places;  // of views
  std::vector<Block> blocks;
  std::deque<std::array<char, 16>> numbers;      // values of scalar operands; deque: they do not move
  int64_t workspace_bytes = 0;                   // most scratch that one step asks for; part of the arena
  int64_t arena_bytes = 0, unplanned_bytes = 0;  // of the arena, and of its blocks side by side
  int64_t recorded_steps = 0;                    // before the passes
  int64_t replays = 0, timed_replays = 0;

 private:
  void place_views();
  size_t replay_on_device(size_t k, bool watch);  // returns the step after the last one that ran
  void follow_stream(Device device);
  std::vector<std::vector<uint32_t>> views_of_;  // per Bound block
  std::vector<Buffer*> arenas_;                  // one per device in use
  Buffer* slices_ = nullptr;
  bool use_graphs_ = true;
  std::map<int, void*> streams_;  // per CUDA device: where the arena was made, then where the last replay ran
  std::map<size_t, std::unique_ptr<DeviceGraph>> graphs_;  // by their first step; null: too short for one
};

// The passes (plan*.cpp), each of them optional.
void remove_dead_steps(Program& p);
void forward_constants(Program& p);
void merge_common_steps(Program& p);
void fuse_epilogues(Program& p);
void reuse_in_place(Program& p);
void group_elementwise(Program& p);
void join_slices(Program& p);
void fuse_norms(Program& p);
void move_relu_before_pool(Program& p);
void fuse_pooled_gradients(Program& p);
void group_images(Program& p);
void advance_updates(Program& p);
void split_updates(Program& p);
void recompute_values(Program& p, bool convolutions);
void place_workspaces(Program& p);
int64_t plan_arena(Program& p, Device device, bool reuse);  // bytes of the device's arena
void run_group(Program& p, size_t first, size_t end);       // steps of one group, block by block
void reserve_slices(Program& p);                            // scratch for run_images with as many threads as there are now
void run_images(Program& p, size_t first, size_t end);      // or by slices of images

// What a step reads beyond its inputs' role: inputs that it also writes (running statistics of batch_norm in training).
uint32_t written_inputs(const Step& s);
bool is_elementwise(const OpInfo& op);

}  // namespace fastdl
