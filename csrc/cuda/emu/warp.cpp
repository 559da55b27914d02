// What lanes do together or in hardware units: shuffles, ballot, atomics, 16-byte accesses, asynchronous copies, ldmatrix and mma.
// Layouts from the PTX ISA 9.0, "Warp Level Matrix Multiply-Accumulate Instructions" and "cp.async".
#include "cuda/emu/report.h"
#include "cuda/emu/scheduler.h"

namespace fastdl {
namespace emu {
namespace {

const void* caller(const void* pc) { return static_cast<const char*>(pc) - 1; }  // an address inside the calling instruction
#define FD_EMU_PC caller(__builtin_return_address(0))

void require_aligned(const char* what, const void* p, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(p) % bytes) fail("%s: %s at %p, which is not a multiple of %zu", where().c_str(), what, p, bytes);
}
void require_aligned(const char* what, const void* p, size_t bytes, Site site) {
  if (reinterpret_cast<uintptr_t>(p) % bytes)
    fail("%s: %s of %p at %s: the address is not a multiple of %zu", where().c_str(), what, p, place(site).c_str(), bytes);
}
void require_shared(const char* what, const void* p, size_t bytes, Site site) {
  const auto* c = static_cast<const unsigned char*>(p);
  if (c < shared_pool || c + bytes > shared_pool + shared_bytes)
    fail("%s: %s at %s: %p is outside the block's %zu bytes of shared memory", where().c_str(), what, place(site).c_str(), p,
         shared_bytes);
}

// ---- shuffles --------------------------------------------------------------------------------------------------------------
struct ShuffleLane {
  uint64_t value, result;
  int source;
};
// A lane outside the mask, or one that has returned, gives an undefined value: all bits set, a NaN.
void complete_shuffle(void* const* lanes, uint32_t part) {
  for (uint32_t rest = part; rest; rest &= rest - 1) {
    auto* lane = static_cast<ShuffleLane*>(lanes[__builtin_ctz(rest)]);
    const int s = lane->source;
    lane->result = part >> s & 1 ? static_cast<const ShuffleLane*>(lanes[s])->value : ~uint64_t(0);
  }
}

struct BallotLane {
  bool p;
  uint32_t result;
};
void complete_ballot(void* const* lanes, uint32_t part) {
  uint32_t result = 0;
  for (uint32_t rest = part; rest; rest &= rest - 1) {
    const int l = __builtin_ctz(rest);
    result |= uint32_t(static_cast<const BallotLane*>(lanes[l])->p) << l;
  }
  for (uint32_t rest = part; rest; rest &= rest - 1) static_cast<BallotLane*>(lanes[__builtin_ctz(rest)])->result = result;
}
void complete_sync(void* const*, uint32_t part) { checker_warp_barrier(part); }

// ---- matrices --------------------------------------------------------------------------------------------------------------
struct MatrixLane {
  uint32_t* r;
  const unsigned char* row;
};
template <bool transpose>
void complete_ldmatrix(void* const* lanes, uint32_t) {
  for (int l = 0; l < kWarp; l++) {
    for (int j = 0; j < 4; j++) {
      uint16_t pair[2];
      for (int k = 0; k < 2; k++) {
        const int row = transpose ? l % 4 * 2 + k : l / 4, column = transpose ? l / 4 : l % 4 * 2 + k;
        std::memcpy(&pair[k], static_cast<const MatrixLane*>(lanes[j * 8 + row])->row + 2 * column, 2);
      }
      std::memcpy(&static_cast<MatrixLane*>(lanes[l])->r[j], pair, 4);
    }
  }
}

struct MmaLane {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};
template <class H>
void widen_pair(uint32_t bits, float& low, float& high, H) {
  low = widen(H{uint16_t(bits)});
  high = widen(H{uint16_t(bits >> 16)});
}
// d[16][8] += a[16][K] b[K][8]; fp32 sums, every product exact before it is added.
template <int K>
void multiply(void* const* lanes, const float (&a)[16][K], const float (&b)[K][8]) {
  float d[16][8];
  for (int l = 0; l < kWarp; l++)
    for (int j = 0; j < 4; j++) d[l / 4 + j / 2 * 8][l % 4 * 2 + j % 2] = static_cast<const MmaLane*>(lanes[l])->d[j];
  for (int row = 0; row < 16; row++)
    for (int k = 0; k < K; k++)
      for (int column = 0; column < 8; column++) d[row][column] += a[row][k] * b[k][column];
  for (int l = 0; l < kWarp; l++)
    for (int j = 0; j < 4; j++) static_cast<MmaLane*>(lanes[l])->d[j] = d[l / 4 + j / 2 * 8][l % 4 * 2 + j % 2];
}
template <class H>
void complete_mma_16816(void* const* lanes, uint32_t) {
  float a[16][16], b[16][8];
  for (int l = 0; l < kWarp; l++) {
    const auto* lane = static_cast<const MmaLane*>(lanes[l]);
    const int row = l / 4, k = l % 4 * 2;
    for (int j = 0; j < 4; j++) {
      float* at = &a[row + j % 2 * 8][k + j / 2 * 8];
      widen_pair(lane->a[j], at[0], at[1], H());
    }
    for (int j = 0; j < 2; j++) widen_pair(lane->b[j], b[k + j * 8][row], b[k + j * 8 + 1][row], H());
  }
  multiply(lanes, a, b);
}
void complete_mma_1688(void* const* lanes, uint32_t) {
  constexpr uint32_t kTf32 = 0xffffe000;  // the unit does not look at the 13 bits below
  float a[16][8], b[8][8];
  for (int l = 0; l < kWarp; l++) {
    const auto* lane = static_cast<const MmaLane*>(lanes[l]);
    const int row = l / 4, k = l % 4;
    for (int j = 0; j < 4; j++) a[row + j % 2 * 8][k + j / 2 * 4] = emu_float(lane->a[j] & kTf32);
    for (int j = 0; j < 2; j++) b[k + j * 4][row] = emu_float(lane->b[j] & kTf32);
  }
  multiply(lanes, a, b);
}

void require_whole_warp(const char* what, Site site) {
  if (block.warp[block.current / kWarp].live != kFullMask)
    fail("%s: %s at %s needs all 32 lanes, some have returned or do not exist", where().c_str(), what, place(site).c_str());
}

// ---- asynchronous copies -----------------------------------------------------------------------------------------------------
void do_copy(const Copy& c) {
  std::memcpy(c.to, c.from, size_t(c.bytes));
  std::memset(static_cast<char*>(c.to) + c.bytes, 0, size_t(c.width - c.bytes));
}

}  // namespace

uint64_t shuffle(Shuffle kind, uint64_t value, int operand, uint32_t mask, Site site) {
  static const char* const names[] = {"shuffle_xor", "shuffle_down", "shuffle_up", "shuffle"};
  const int lane = block.lane();
  int source = 0;
  switch (kind) {
    case Shuffle::Xor:
      source = lane ^ (operand & 31);
      break;
    case Shuffle::Down:
      source = lane + (operand & 31) > 31 ? lane : lane + (operand & 31);
      break;
    case Shuffle::Up:
      source = lane < (operand & 31) ? lane : lane - (operand & 31);
      break;
    case Shuffle::Index:
      source = operand & 31;
      break;
  }
  ShuffleLane data = {value, 0, source};
  warp_operation(names[int(kind)], mask, &data, complete_shuffle, site);
  return data.result;
}
uint32_t ballot(bool p, uint32_t mask, Site site) {
  BallotLane data = {p, 0};
  warp_operation("ballot", mask, &data, complete_ballot, site);
  return data.result;
}
void sync_warp(uint32_t mask, Site site) { warp_operation("sync_warp", mask, nullptr, complete_sync, site); }

void load_16(void* to, const void* from) {
  require_aligned("16-byte load", from, 16);
  checker_access(from, 16, false, FD_EMU_PC);
  std::memcpy(to, from, 16);
}
void store_16(void* to, const void* from) {
  require_aligned("16-byte store", to, 16);
  checker_access(to, 16, true, FD_EMU_PC);
  std::memcpy(to, from, 16);
}

void copy_async(void* to, const void* from, int bytes, int width, Site site) {
  if (bytes < 0 || bytes > width) fail("%s: copy_async of %d bytes at %s", where().c_str(), bytes, place(site).c_str());
  require_aligned("copy_async to", to, size_t(width), site);
  require_aligned("copy_async from", from, size_t(width), site);
  require_shared("copy_async", to, size_t(width), site);
  if (bytes) checker_access(from, size_t(bytes), false, FD_EMU_PC);
  const Copy copy = {to, from, bytes, width, block.self().groups, site};
  checker_copy_started(copy, FD_EMU_PC);
  if (!options.deferred) do_copy(copy);
  block.self().copies.push_back(copy);
}
void copy_async_commit() { block.self().groups++; }
// Deferred: a copy is done in the wait that asks for its group and no earlier; without one, never.
void copy_async_wait(int pending) {
  Thread& t = block.self();
  size_t done = 0;
  for (; done < t.copies.size() && t.copies[done].group < t.groups - pending; done++) {
    if (options.deferred) do_copy(t.copies[done]);
    checker_copy_finished(t.copies[done]);
  }
  t.copies.erase(t.copies.begin(), t.copies.begin() + long(done));
}

void ldmatrix_x4(uint32_t* r, const void* row, bool transpose, Site site) {
  require_whole_warp("ldmatrix", site);
  require_aligned("ldmatrix", row, 16, site);
  require_shared("ldmatrix", row, 16, site);
  checker_access(row, 16, false, FD_EMU_PC);
  MatrixLane data = {r, static_cast<const unsigned char*>(row)};
  warp_operation(transpose ? "ldmatrix_x4_trans" : "ldmatrix_x4", kFullMask, &data,
                 transpose ? complete_ldmatrix<true> : complete_ldmatrix<false>, site);
}

void mma(Mma kind, float* d, const uint32_t* a, const uint32_t* b, Site site) {
  require_whole_warp("mma", site);
  MmaLane data = {d, a, b};
  warp_operation("mma", kFullMask, &data,
                 kind == Mma::F16    ? complete_mma_16816<f16>
                 : kind == Mma::BF16 ? complete_mma_16816<bf16>
                                     : complete_mma_1688,
                 site);
}

}  // namespace emu

// ---- atomics: one thread runs at a time, so a plain read and write is one ------------------------------------------------------
namespace {
template <class T, class F>
T update(T* p, const void* pc, F f) {
  if (reinterpret_cast<uintptr_t>(p) % sizeof(T))
    emu::fail("%s: atomic operation on the misaligned %p", emu::where().c_str(), static_cast<void*>(p));
  emu::checker_atomic(p, sizeof(T), pc);
  const T old = *p;
  *p = f(old);
  return old;
}
}  // namespace
#define FD_EMU_ATOMIC(name, type, expression)                               \
  type name(type* p, type v) {                                              \
    return update(p, emu::FD_EMU_PC, [v](type old) { return expression; }); \
  }
FD_EMU_ATOMIC(atomic_add, int32_t, int32_t(uint32_t(old) + uint32_t(v)))
FD_EMU_ATOMIC(atomic_add, uint32_t, old + v)
FD_EMU_ATOMIC(atomic_add, uint64_t, old + v)
FD_EMU_ATOMIC(atomic_add, float, old + v)
FD_EMU_ATOMIC(atomic_add, double, old + v)
FD_EMU_ATOMIC(atomic_max, int32_t, old > v ? old : v)
int32_t atomic_cas(int32_t* p, int32_t expected, int32_t v) {
  return update(p, emu::FD_EMU_PC, [=](int32_t old) { return old == expected ? v : old; });
}

}  // namespace fastdl
