#include "record.h"

#include <cstring>
#include <mutex>

#include "cuda.h"
#include "launch.h"

namespace fastdl {

thread_local Recorder* recorder = nullptr;
int recorders = 0;

namespace {
// Buffers may be dropped by any thread; recordings are rare and short, so one lock serves all of them.
std::recursive_mutex mutex;
std::vector<Recorder*> all;
using Guard = std::lock_guard<std::recursive_mutex>;

IndexCheck index_check(const Program& p, const Step& s) {
  static const char* const families[] = {"take",      "take_backward", "take_along_axis", "scatter_add",           "index_get",
                                         "index_put", "one_hot",       "cross_entropy",   "cross_entropy_backward"};
  bool reads = false;
  for (const char* f : families) reads = reads || !std::strcmp(s.op->family, f);
  if (!reads) return IndexCheck::None;
  for (int k = 0; k < s.nin; k++) {  // integers that an earlier step wrote can be checked when they are there, not before
    const View& v = p.views[s.first_view + s.nout + k];
    const Place& at = p.places[s.first_view + s.nout + k];
    if (v.given() && is_integer(v.dtype) && at.block >= 0 && p.blocks[at.block].written) return IndexCheck::At;
  }
  return IndexCheck::Before;
}
}  // namespace

void begin_record(Recorder* r) {
  if (recorder) fail(ErrorCode::Capture, "capture: this thread is already recording; captures do not nest");
  const Guard guard(mutex);
  all.push_back(r);
  recorder = r;
  recorders++;
}

void end_record() {
  const Guard guard(mutex);
  for (size_t k = 0; k < all.size(); k++)
    if (all[k] == recorder) {
      all.erase(all.begin() + long(k));
      recorders--;
      break;
    }
  recorder = nullptr;
}

void note_allocated(Buffer* b) {
  if (recorder) return recorder->allocated(b);
  const Guard guard(mutex);
  for (Recorder* r : all) r->of_others_.insert(b);
}
void note_freed(Buffer* b) {
  const Guard guard(mutex);
  for (Recorder* r : all) r->freed(b);
}

int Recorder::add(Block block) {
  program->blocks.push_back(block);
  return int(program->blocks.size()) - 1;
}

void Recorder::allocated(Buffer* b) {
  const Guard guard(mutex);
  Block block;
  block.bytes = b->bytes;
  block.base = static_cast<char*>(b->data);
  block.device = b->device;
  block.buffer = b;
  live_[block.base] = add(block);
}

void Recorder::freed(Buffer* b) {
  const Guard guard(mutex);
  of_others_.erase(b);
  const auto it = live_.find(static_cast<const char*>(b->data));
  if (it == live_.end() || program->blocks[it->second].buffer != b) return;
  if (program->blocks[it->second].kind == Block::Internal) program->blocks[it->second].buffer = nullptr;
  live_.erase(it);
}

int Recorder::block_of(const Buffer* b) const {
  const Guard guard(mutex);
  const auto it = live_.find(static_cast<const char*>(b->data));
  return it != live_.end() && program->blocks[it->second].buffer == b ? it->second : -1;
}

int Recorder::touch(Buffer* b) {
  const int known = block_of(b);
  if (known >= 0) return known;
  const Guard guard(mutex);
  if (of_others_.count(b)) foreign = true;
  Block block;
  block.kind = Block::Held;
  block.bytes = b->bytes;
  block.base = static_cast<char*>(b->data);
  block.device = b->device;
  block.buffer = retain(b);
  return live_[block.base] = add(block);
}

int Recorder::bound(Buffer* b) {
  const Guard guard(mutex);
  Block block;
  block.kind = Block::Bound;
  block.bytes = b->bytes;
  block.base = static_cast<char*>(b->data);
  block.device = b->device;
  block.buffer = b;
  return live_[block.base] = add(block);
}

void Recorder::bind_from_now(int block) {
  Block& b = program->blocks[block];
  if (b.kind != Block::Held) return;
  b.kind = Block::Bound;
  release(b.buffer);  // somebody else holds it
}

bool Recorder::constant(const Buffer* b) const {
  const int k = block_of(b);
  return k >= 0 && program->blocks[k].kind == Block::Internal && !program->blocks[k].written;
}

std::vector<int> Recorder::alive() const {
  const Guard guard(mutex);
  std::vector<int> found;
  for (const auto& [base, k] : live_)
    if (program->blocks[k].kind == Block::Internal) found.push_back(k);
  return found;
}

void Recorder::numbers(const void* first, size_t bytes) { numbers_ = static_cast<const char*>(first), number_bytes_ = bytes; }

void Recorder::drawn(uint64_t seed, uint64_t offset, int draw) { draws_.push_back({seed, offset, draw}); }

int Recorder::snapshot(int block) {
  const Block& b = program->blocks[block];
  const Device device = b.device;
  const void* from = b.base;
  const int64_t bytes = b.bytes;
  Buffer* copy = alloc_device_buffer(bytes, device);  // registered by allocated()
  copy_on(device, copy->data, from, bytes);
  const int k = block_of(copy);
  program->blocks[k].kind = Block::Held;
  return k;
}

// The block behind a view. Values that Python wrote into memory made meanwhile are there only once: the program keeps a copy and
// puts it back at this place of every replay.
Place Recorder::locate(const View& v, bool written) {
  if (!v.given() || v.numel() == 0) return {};
  const char* p = static_cast<const char*>(v.data);
  const Guard guard(mutex);
  auto it = live_.upper_bound(p);
  while (it != live_.begin()) {
    --it;
    Block& b = program->blocks[it->second];
    if (p < b.base || p >= b.base + b.bytes) {
      if (b.kind == Block::Held) continue;  // foreign memory may overlap
      break;
    }
    return {it->second, p - b.base};
  }
  if (!written && p >= numbers_ && p < numbers_ + number_bytes_) {
    std::array<char, 16> value{};
    const size_t left = size_t(numbers_ + number_bytes_ - p);
    std::memcpy(value.data(), p, left < 16 ? left : 16);
    program->numbers.push_back(value);
    return {-2, 0};
  }
  fail(ErrorCode::Capture, "capture: a kernel uses memory that no tensor of the captured function owns");
}

// The recording works on copies of the arguments. A tensor that the function also reaches otherwise, in the same memory, shows the
// difference as soon as one of the two is written.
void Recorder::check_given() const {
  for (const Given& g : given)
    for (const Block& b : program->blocks)
      if (b.kind == Block::Held && b.base < g.hi && g.lo < b.base + b.bytes && (b.written || program->blocks[g.block].written))
        fail(ErrorCode::Capture,
             "capture: an argument shares memory with a tensor that the function also reaches without it, and one of the two is "
             "written; "
             "pass a copy, or use the tensor in one way only");
}

void Recorder::append(const OpInfo& op, KernelFn fn, DType compute, const Args& args, int64_t bytes, Device device) {
  Program& p = *program;
  Step s;
  s.op = &op;
  s.fn = fn;
  s.attrs = *args.attrs;
  s.nout = uint16_t(args.nout), s.nin = uint16_t(args.nin);
  s.compute = compute;
  s.device = device;
  s.host_inputs = args.host_inputs;
  s.workspace = bytes;
  const bool overwrites = !std::strcmp(op.family, "random") || !std::strcmp(op.family, "fill");  // whatever input 0 held
  std::vector<Place> out(size_t(args.nout)), in(size_t(args.nin));
  std::vector<View> in_views(args.in, args.in + args.nin);
  for (int k = 0; k < args.nin; k++) {
    in[k] = locate(args.in[k], false);
    if (in[k].block == -2) {
      in_views[k].data = p.numbers.back().data();
      in[k].block = -1;
    }
    if (in[k].block < 0 || p.blocks[in[k].block].kind != Block::Internal || p.blocks[in[k].block].written) continue;
    if (k == 0 && overwrites && args.nout && args.out[0].data == args.in[0].data) continue;
    const int block = in[k].block, source = snapshot(block);
    Step restore{};
    restore.op = &op_table[int(OpId::copy)];
    restore.fn = restore.op->cpu[int(DType::uint8)];
    restore.attrs.i[0] = int64_t(DType::uint8);
    restore.compute = DType::uint8;
    restore.nout = restore.nin = 1;
    restore.device = p.blocks[block].device;
    restore.first_view = uint32_t(p.views.size());
    restore.draw = restore.group = -1;
    View v{};
    v.ndim = 1;
    v.dtype = DType::uint8;
    v.shape[0] = p.blocks[block].bytes;
    v.strides[0] = 1;
    v.data = p.blocks[block].base;
    p.views.push_back(v), p.places.push_back({block, 0});
    v.data = p.blocks[source].base;
    p.views.push_back(v), p.places.push_back({source, 0});
    p.blocks[block].written = true;
    p.steps.push_back(restore);
  }
  for (int k = 0; k < args.nout; k++) out[k] = locate(args.out[k], true);
  s.first_view = uint32_t(p.views.size());
  p.views.insert(p.views.end(), args.out, args.out + args.nout);
  p.views.insert(p.views.end(), in_views.begin(), in_views.end());
  p.places.insert(p.places.end(), out.begin(), out.end());
  p.places.insert(p.places.end(), in.begin(), in.end());
  s.check = index_check(p, s);
  if (!std::strcmp(op.family, "random") || !std::strcmp(op.family, "dropout"))
    for (const Draw& d : draws_)
      if (d.seed == uint64_t(s.attrs.i[0]) && d.offset == uint64_t(s.attrs.i[1])) s.draw = d.number;
  const uint32_t also = written_inputs(s);
  for (int k = 0; k < args.nout; k++)
    if (out[k].block >= 0) p.blocks[out[k].block].written = true;
  for (int k = 0; k < args.nin; k++)
    if (also >> k & 1 && in[k].block >= 0) p.blocks[in[k].block].written = true;
  check_given();
  p.steps.push_back(s);
}

}  // namespace fastdl
