// Judges every load and store of a kernel: bounds, alignment, uninitialised reads and races.
//
// Shadow memory holds, per 4-byte word of shared memory and of the device arenas, which bytes exist and are written, and the last
// two writers and readers. Time counts synchronisations. An earlier access is ordered before one of thread t if it was made before
// (its time is less than) the last sync_block of the block; before the last sync_warp in which both took part; before the last
// named barrier of both warps, also through others; or, from another block, before a fence and an atomic operation which t's block
// has seen by an atomic operation on the same address. Shuffles order nothing (CUDA C++ Programming Guide, "Warp Shuffle
// Functions"). What is not ordered, touches the same bytes, and includes a write, is a race, whatever this run's order made of it.
#include "cuda/emu/checker.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <unordered_map>

#include "cuda/emu/memory.h"

namespace fastdl {
namespace emu {
namespace {

constexpr uint8_t kAtomic = 1, kInFlight = 2;  // in flight: written by an asynchronous copy that nobody has waited for
constexpr size_t kWord = 4;

struct Entry {
  uint32_t time;
  uint32_t pc;  // less image_begin
  uint16_t thread;
  uint8_t bytes;  // bit k: byte k of the word
  uint8_t flags;
};
struct Cell {
  Entry writer[2], reader[2];  // [0] is the latest
};
// Per word: low half, byte k is allocated; high half, byte k is written.
struct Shadow {
  const char* base = nullptr;
  Cell* cells = nullptr;
  uint8_t* bytes = nullptr;
  size_t words = 0;
};
Shadow shared_shadow, arena_shadow[kDevices];

template <class T>
T* reserve_zeros(size_t count) {
  void* p = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : static_cast<T*>(p);
}
void reserve_shadow(Shadow& s, const char* base, size_t bytes) {
  if (s.base) return;
  s.words = bytes / kWord;
  s.cells = reserve_zeros<Cell>(s.words);
  s.bytes = reserve_zeros<uint8_t>(s.words);
  if (s.cells && s.bytes) s.base = base;
}

// ---- time ------------------------------------------------------------------------------------------------------------------
uint32_t now = 1, launch_start, block_start, block_barrier, seen_blocks;
uint32_t warp_barrier[kMaxWarps];                    // of all lanes that have not returned
uint32_t named_barrier[kMaxWarps][kMaxWarps];        // [w][x]: up to when w knows x
uint32_t lane_barrier[kMaxThreads][kWarp];           // partial masks: up to when a thread knows a lane of its warp
std::unordered_map<const void*, uint32_t> released;  // by a fence and an atomic operation on this address

bool ordered(const Entry& e, int me) {
  if (e.time < block_start) return e.time < launch_start || e.time < seen_blocks;
  if (e.flags & kInFlight) return false;
  if (e.thread == me || e.time < block_barrier) return true;
  const int w = me / kWarp, other = e.thread / kWarp;
  if (w != other) return e.time < named_barrier[w][other];
  return e.time < std::max(warp_barrier[w], lane_barrier[me][e.thread % kWarp]);
}

// ---- faults ----------------------------------------------------------------------------------------------------------------
enum class Kind : uint8_t { Race, InFlight, BlockRace, Uninitialised, Bounds, Host, Freed, Image, OtherStack, Alignment };
struct Fault {
  Kind kind;
  bool write, other_write;
  uint16_t other_thread;
  uint3 thread, block;
  const void* address;
  size_t bytes;
  const void* pc;
  const void* other_pc;
  long offset;  // in the allocation or the pool
  size_t size;  // of it
  uint64_t count;
};
std::vector<Fault> faults;
constexpr size_t kMaxFaults = 12;

Fault make_fault(Kind kind, const void* p, size_t bytes, bool write, const void* pc) {
  return {kind, write, false, 0, threadIdx, blockIdx, p, bytes, pc, nullptr, 0, 0, 1};
}
void remember(const Fault& f) {
  for (Fault& known : faults) {
    if (known.kind != f.kind || known.pc != f.pc || known.other_pc != f.other_pc) continue;
    known.count++;
    return;
  }
  if (faults.size() < kMaxFaults) faults.push_back(f);
}
[[noreturn]] void end_launch(const Fault& f) {
  faults.insert(faults.begin(), f);
  fail("invalid memory access");
}

bool is_shared(const void* p) {
  return static_cast<const unsigned char*>(p) >= shared_pool && static_cast<const unsigned char*>(p) < shared_pool + kSharedOptIn;
}

std::string fault_text(const Fault& f, std::map<const void*, std::string>& places) {
  char text[512], at[96] = "";
  const char* verb = f.write ? "writes" : "reads";
  if (is_shared(f.address))
    std::snprintf(at, sizeof at, "shared memory + %td", static_cast<const unsigned char*>(f.address) - shared_pool);
  else if (f.size)
    std::snprintf(at, sizeof at, "byte %ld of %zu of device memory", f.offset, f.size);
  else
    std::snprintf(at, sizeof at, "%p", f.address);
  std::string s;
  std::snprintf(text, sizeof text, ": thread (%u, %u, %u) of block (%u, %u, %u) %s %zu bytes at %s, ", f.thread.x, f.thread.y,
                f.thread.z, f.block.x, f.block.y, f.block.z, verb, f.bytes, at);
  const std::string who = text + places[f.pc];
  const std::string other = f.other_pc ? places[f.other_pc] : std::string();
  switch (f.kind) {
    case Kind::Race:
      std::snprintf(text, sizeof text, ", which thread %d %s without a barrier between, ", f.other_thread,
                    f.other_write ? "wrote" : "read");
      s = "race" + who + text + other;
      break;
    case Kind::InFlight:
      s = "race" + who + ", to which an asynchronous copy is under way without a wait, " + other;
      break;
    case Kind::BlockRace:
      s = "race between blocks" + who + ", which another block " + (f.other_write ? "wrote" : "read") + " in this launch, " + other;
      break;
    case Kind::Uninitialised:
      s = "uninitialised" + who + ": never written";
      break;
    case Kind::Bounds:
      s = "out of bounds" + who;
      break;
    case Kind::Freed:
      s = "out of bounds" + who + ": no allocation of the device is there";
      break;
    case Kind::Host:
      s = "host memory" + who + ": not a device pointer";
      break;
    case Kind::Image:
      s = "constant memory" + who + ": kernels cannot write global variables";
      break;
    case Kind::OtherStack:
      s = "local memory" + who + ": it belongs to another thread";
      break;
    case Kind::Alignment:
      s = "misaligned" + who;
      break;
  }
  if (f.count > 1) s += " (" + std::to_string(f.count) + " times)";
  return s;
}

void locate(Fault& f) {
  Allocation a;
  for (long back = 0; back <= 1024; back += 64) {  // or of the allocation that ends shortly before
    if (!find_allocation(static_cast<const char*>(f.address) - back, &a)) continue;
    f.offset = static_cast<const char*>(f.address) - a.data;
    f.size = a.bytes;
    return;
  }
}

// ---- one access --------------------------------------------------------------------------------------------------------------
// Other than shared and device memory.
void check_elsewhere(const void* p, size_t bytes, bool write, const void* pc) {
  const auto* c = static_cast<const char*>(p);
  const auto inside = [&](const void* begin, size_t size) {
    return c >= static_cast<const char*>(begin) && c + bytes <= static_cast<const char*>(begin) + size;
  };
  if (inside(image_begin, size_t(image_end - image_begin))) end_launch(make_fault(Kind::Image, p, bytes, write, pc));
  if (!write && (inside(block.launch->arguments, block.launch->argument_bytes) || inside(block.launch, sizeof(Launch)))) return;
  Allocation a;
  if (find_allocation(p, &a) && c + bytes <= a.data + a.bytes) return;  // pinned
  Kind kind = Kind::Host;
  for (int t = 0; t < block.threads; t++)
    if (const Fiber* other = block.thread[t].fiber)
      if (inside(other->stack, other->bytes)) kind = Kind::OtherStack;
  end_launch(make_fault(kind, p, bytes, write, pc));
}

uint32_t compact(const void* pc) { return uint32_t(static_cast<const char*>(pc) - image_begin); }

void report_race(const Entry& e, bool other_write, const void* p, size_t bytes, bool write, const void* pc) {
  const Kind kind = e.time < block_start ? Kind::BlockRace : e.flags & kInFlight ? Kind::InFlight : Kind::Race;
  Fault f = make_fault(kind, p, bytes, write, pc);
  f.other_write = other_write;
  f.other_thread = e.thread;
  f.other_pc = image_begin + e.pc;
  locate(f);
  remember(f);
}

// The new entry takes the place of one that cannot matter any more, or of one that says nearly the same.
void add_reader(Cell& cell, const Entry& mine) {
  Entry &a = cell.reader[0], &b = cell.reader[1];
  const auto same_thread = [&](const Entry& e) { return e.thread == mine.thread && e.time >= block_start; };
  const auto same_warp = [&](const Entry& e) { return e.thread / kWarp == mine.thread / kWarp && e.time >= block_start; };
  if (same_thread(a) || !a.bytes || ordered(a, mine.thread))
    a = {mine.time, mine.pc, mine.thread, uint8_t(mine.bytes | (a.time == mine.time && same_thread(a) ? a.bytes : 0)), mine.flags};
  else if (same_thread(b) || !b.bytes || ordered(b, mine.thread) || !same_warp(a))
    b = mine;
  else
    a = mine;
}
void add_writer(Cell& cell, const Entry& mine) {
  Entry &a = cell.writer[0], &b = cell.writer[1];
  if (a.thread == mine.thread && a.time == mine.time && a.flags == mine.flags) {
    a.bytes |= mine.bytes;
    return;
  }
  if (a.bytes & ~mine.bytes) b = a;
  b.bytes &= uint8_t(~mine.bytes);
  a = mine;
}

// flags: of the entry to leave.
void check_words(Shadow& shadow, const void* p, size_t bytes, bool write, uint8_t flags, const void* pc) {
  const auto* c = static_cast<const char*>(p);
  const int me = block.current;
  const bool atomic = flags & kAtomic;
  size_t word = size_t(c - shadow.base) / kWord, skip = size_t(c - shadow.base) % kWord, left = bytes;
  const uint32_t code = compact(pc), since = &shadow == &shared_shadow ? block_start : launch_start;
  for (; left; word++, skip = 0) {
    const size_t here = std::min(left, kWord - skip);
    const auto mask = uint8_t(((1u << here) - 1) << skip);
    left -= here;
    Cell& cell = shadow.cells[word];
    uint8_t& state = shadow.bytes[word];
    const auto clashes = [&](const Entry& e) {
      return (e.bytes & mask) && e.time >= since && !(atomic && (e.flags & kAtomic)) && !ordered(e, me);
    };
    for (const Entry& e : cell.writer)
      if (clashes(e)) report_race(e, true, p, bytes, write, pc);
    if (write)
      for (const Entry& e : cell.reader)
        if (clashes(e)) report_race(e, false, p, bytes, write, pc);
    const Entry mine = {now, code, uint16_t(me), mask, flags};
    if (write) {
      add_writer(cell, mine);
      if (!(flags & kInFlight)) state |= uint8_t(mask << 4);
    } else {
      add_reader(cell, mine);
    }
  }
}

// A copy of a struct reads its padding, and 16 bytes at the end of a row may be more than what is used: only words of which nothing
// was ever written count, in copies of more than 16 bytes only pairs of such words.
void check_initialised(const Shadow& shadow, const void* p, size_t bytes, const void* pc) {
  const size_t first = size_t(static_cast<const char*>(p) - shadow.base), end = first + bytes;
  const size_t unit = bytes > 16 ? 2 * kWord : kWord;
  for (size_t i = first; i < end; i = (i / unit + 1) * unit) {
    bool written = false;
    for (size_t k = i; k < std::min(end, (i / unit + 1) * unit) && !written; k++)
      written = shadow.bytes[k / kWord] >> (4 + k % kWord) & 1;
    if (written) continue;
    Fault f = make_fault(Kind::Uninitialised, p, bytes, false, pc);
    locate(f);
    return remember(f);
  }
}

Shadow* shadow_of(const void* p) {
  if (is_shared(p)) return &shared_shadow;
  const int device = device_of(p);
  return device >= 0 ? &arena_shadow[device] : nullptr;
}

void check_bounds(const Shadow& shadow, const void* p, size_t bytes, bool write, const void* pc) {
  const auto* c = static_cast<const unsigned char*>(p);
  bool inside = true;
  if (&shadow == &shared_shadow) {
    inside = c + bytes <= shared_pool + shared_bytes;
  } else {
    const size_t first = size_t(static_cast<const char*>(p) - shadow.base);
    for (size_t i = first; i < first + bytes && inside; i = (i / kWord + 1) * kWord) {
      const size_t to = std::min(first + bytes, (i / kWord + 1) * kWord);
      const uint32_t mask = ((1u << (to - i)) - 1) << i % kWord;
      inside = (shadow.bytes[i / kWord] & mask) == mask;
    }
  }
  if (inside) return;
  Fault f = make_fault(Kind::Bounds, p, bytes, write, pc);
  locate(f);
  if (!f.size && !is_shared(p)) f.kind = Kind::Freed;
  end_launch(f);
}

// Bits of every byte in [p, p + bytes): 1 allocated, 16 written.
constexpr uint8_t kAllocated = 1, kWritten = 16, kBoth = kAllocated | kWritten;
void set_bytes(Shadow& shadow, const void* p, size_t bytes, uint8_t which, uint8_t value) {
  const size_t first = size_t(static_cast<const char*>(p) - shadow.base), end = first + bytes;
  for (size_t i = first; i < end;) {
    if (i % kWord == 0 && i + kWord <= end && which == kBoth) {
      const size_t whole = (end - i) / kWord;
      std::memset(shadow.bytes + i / kWord, value * 15, whole);
      i += whole * kWord;
      continue;
    }
    const size_t to = std::min(end, (i / kWord + 1) * kWord);
    const uint32_t mask = ((1u << (to - i)) - 1) << i % kWord;
    uint8_t& b = shadow.bytes[i / kWord];
    b = uint8_t((b & ~(mask * which)) | mask * value);
    i = to;
  }
}

}  // namespace

void check_alignment(const void* p, size_t bytes, const void* pc) {
  if (reinterpret_cast<uintptr_t>(p) % std::min<size_t>(bytes, 8)) end_launch(make_fault(Kind::Alignment, p, bytes, false, pc));
}

void check_access(const void* p, size_t bytes, bool write, bool atomic, const void* pc) {
  const Fiber* own = block.self().fiber;
  const auto* c = static_cast<const char*>(p);
  if (c >= own->stack && c < own->stack + own->bytes) return;
  if (c >= image_begin && c < image_end && !write) return;  // threadIdx and its like, constants
  Shadow* shadow = shadow_of(p);
  if (!shadow) return check_elsewhere(p, bytes, write, pc);
  check_bounds(*shadow, p, bytes, write, pc);
  if (stats_on && !atomic) stats_access(p, bytes, write, shadow == &shared_shadow ? Space::Shared : Space::Global, pc);
  if (!write || atomic) check_initialised(*shadow, p, bytes, pc);
  check_words(*shadow, p, bytes, write, atomic ? kAtomic : 0, pc);
}

// ---- what the rest of the emulator tells -------------------------------------------------------------------------------------
void checker_access(const void* p, size_t bytes, bool write, const void* pc) { check_access(p, bytes, write, false, pc); }
void checker_atomic(const void* p, size_t bytes, const void* pc) {
  check_access(p, bytes, true, true, pc);
  const auto before = released.find(p);
  if (before != released.end()) seen_blocks = std::max(seen_blocks, before->second);
  if (block.self().fenced) released[p] = ++now;
}
void checker_copy_started(const Copy& copy, const void* pc) {
  check_words(shared_shadow, copy.to, size_t(copy.width), true, kInFlight, pc);
  if (stats_on && copy.bytes) stats_access(copy.to, size_t(copy.width), true, Space::Shared, pc);
}
void checker_copy_finished(const Copy& copy) {
  const size_t first = size_t(static_cast<const char*>(copy.to) - shared_shadow.base) / kWord;
  for (size_t word = first; word < first + size_t(copy.width) / kWord; word++) {
    Entry& e = shared_shadow.cells[word].writer[0];
    if (e.thread == block.current && (e.flags & kInFlight)) e.time = now, e.flags = 0;
    shared_shadow.bytes[word] |= 0xf0;
  }
}

void checker_block_barrier() { block_barrier = ++now; }
void checker_named_barrier(const uint32_t* lanes) {
  now++;
  std::vector<int> whole;  // warps of which every lane takes part
  for (int w = 0; w < block.warps; w++)
    if (lanes[w] && lanes[w] == block.warp[w].live) whole.push_back(w);
  uint32_t joined[kMaxWarps] = {};
  for (int w : whole) {
    warp_barrier[w] = now;
    for (int x = 0; x < kMaxWarps; x++) joined[x] = std::max(joined[x], named_barrier[w][x]);
  }
  for (int w : whole) joined[w] = now;
  for (int w : whole) std::memcpy(named_barrier[w], joined, sizeof joined);
}
void checker_warp_barrier(uint32_t lanes) {
  now++;
  const int w = block.current / kWarp;
  if (lanes == block.warp[w].live) {
    warp_barrier[w] = now;
    return;
  }
  uint32_t joined[kWarp] = {};
  for (int l = 0; l < kWarp; l++)
    if (lanes >> l & 1)
      for (int x = 0; x < kWarp; x++) joined[x] = std::max(joined[x], lane_barrier[w * kWarp + l][x]);
  for (int l = 0; l < kWarp; l++)
    if (lanes >> l & 1) joined[l] = now;
  for (int l = 0; l < kWarp; l++)
    if (lanes >> l & 1) std::memcpy(lane_barrier[w * kWarp + l], joined, sizeof joined);
}

void checker_allocated(const void* arena, size_t arena_bytes, const void* p, size_t bytes) {
  Shadow& shadow = arena_shadow[device_of(p)];
  reserve_shadow(shadow, static_cast<const char*>(arena), arena_bytes);
  set_bytes(shadow, p, bytes, kBoth, kAllocated);
}
void checker_freed(const void* p, size_t bytes) { set_bytes(arena_shadow[device_of(p)], p, bytes, kBoth, 0); }
// A copy by the host: written is what was written there.
void checker_copied(void* to, const void* from, size_t bytes, bool from_device) {
  Shadow& shadow = arena_shadow[device_of(to)];
  set_bytes(shadow, to, bytes, kWritten, kWritten);
  if (!from_device) return;
  const Shadow& source = arena_shadow[device_of(from)];
  for (size_t i = 0; i < bytes; i++) {
    const size_t a = size_t(static_cast<const char*>(from) - source.base) + i;
    const size_t b = size_t(static_cast<char*>(to) - shadow.base) + i;
    if (!(source.bytes[a / kWord] >> (4 + a % kWord) & 1)) shadow.bytes[b / kWord] &= uint8_t(~(16u << b % kWord));
  }
}

void checker_begin_launch() {
  faults.clear();
  released.clear();
  if (now > 0xf0000000u) {  // time would run over: forget all accesses
    now = 1;
    for (Shadow& s : arena_shadow)
      if (s.base) madvise(s.cells, s.words * sizeof(Cell), MADV_DONTNEED);
    if (shared_shadow.base) madvise(shared_shadow.cells, shared_shadow.words * sizeof(Cell), MADV_DONTNEED);
    std::memset(warp_barrier, 0, sizeof warp_barrier);
    std::memset(named_barrier, 0, sizeof named_barrier);
    std::memset(lane_barrier, 0, sizeof lane_barrier);
  }
  reserve_shadow(shared_shadow, reinterpret_cast<const char*>(shared_pool), kSharedOptIn + 4096);
  launch_start = ++now;
  stats_begin_launch();
}
void checker_begin_block() {
  block_start = block_barrier = ++now;
  seen_blocks = 0;
  std::memset(shared_shadow.bytes, 0x0f, (shared_bytes + kWord - 1) / kWord);
  stats_begin_block();
}
void checker_end_block() { stats_end_block(); }

std::string checker_end_launch() {
  if (faults.empty()) return {};
  std::vector<const void*> pcs;
  for (const Fault& f : faults) {
    pcs.push_back(f.pc);
    pcs.push_back(f.other_pc);
  }
  std::map<const void*, std::string> places;
  symbolize(pcs, &places);
  std::string s;
  for (const Fault& f : faults) s += "\n  " + fault_text(f, places);
  return s;
}

}  // namespace emu
}  // namespace fastdl
