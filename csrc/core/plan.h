// What the passes (plan*.cpp) share: who reads and writes which block of memory.
#pragma once
#include <cstring>
#include <vector>

#include "program.h"

namespace fastdl {

inline bool family_is(const Step& s, const char* family) { return !std::strcmp(s.op->family, family); }

inline int block_at(const Program& p, const Step& s, int k) { return p.places[s.first_view + uint32_t(k)].block; }

// Whether two blocks may be the same memory. Held memory may overlap under two names, and a gradient that is there before a call
// may be any memory.
inline bool may_overlap(const Program& p, int x, int y) {
  if (x < 0 || y < 0) return false;
  const Block &m = p.blocks[x], &n = p.blocks[y];
  const bool outside = m.kind != Block::Internal && n.kind != Block::Internal;
  const bool both_held = m.kind == Block::Held && n.kind == Block::Held;
  return x == y || (outside && (m.aliased || n.aliased)) || (both_held && m.base < n.base + n.bytes && n.base < m.base + m.bytes);
}

inline bool same_view(const View& a, const View& b) {
  return a.dtype == b.dtype && a.ndim == b.ndim && !std::memcmp(a.shape, b.shape, sizeof(int64_t) * size_t(a.ndim)) &&
         !std::memcmp(a.strides, b.strides, sizeof(int64_t) * size_t(a.ndim));
}

// Whether step s writes view k (outputs come first).
inline bool writes(const Step& s, int k) { return k < s.nout || written_inputs(s) >> (k - s.nout) & 1; }

// Whether b must stay behind a: one writes what the other reads or writes. What b has to do with block `except` does not count.
inline bool ordered(const Program& p, const Step& a, const Step& b, int except = -1) {
  for (int v = 0; v < a.nout + a.nin; v++)
    for (int w = 0; w < b.nout + b.nin; w++)
      if ((writes(a, v) || writes(b, w)) && block_at(p, b, w) != except && may_overlap(p, block_at(p, a, v), block_at(p, b, w)))
        return true;
  return false;
}

inline void find_lifetimes(Program& p) {
  for (Block& b : p.blocks) b.first = b.last = -1;
  for (size_t k = 0; k < p.steps.size(); k++) {
    const Step& s = p.steps[k];
    for (int v = 0; v < s.nout + s.nin; v++)
      if (const int b = block_at(p, s, v); b >= 0) {
        if (p.blocks[b].first < 0) p.blocks[b].first = int32_t(k);
        p.blocks[b].last = int32_t(k);
      }
    if (s.scratch >= 0) p.blocks[s.scratch].first = p.blocks[s.scratch].last = int32_t(k);
  }
}

// The same, where the blocks of a group live as long as the group runs. plan_memory.cpp.
void find_group_lifetimes(Program& p);

inline std::vector<int> count_writes(const Program& p) {
  std::vector<int> count(p.blocks.size(), 0);
  for (const Step& s : p.steps)
    for (int v = 0; v < s.nout + s.nin; v++)
      if (const int b = block_at(p, s, v); b >= 0 && writes(s, v)) count[b]++;
  return count;
}

inline std::vector<int> count_reads(const Program& p) {
  std::vector<int> count(p.blocks.size(), 0);
  for (const Step& s : p.steps)
    for (int v = s.nout; v < s.nout + s.nin; v++)
      if (const int b = block_at(p, s, v); b >= 0) count[b]++;
  return count;
}

// Whether step k may run together with step j before it, whose result, or what becomes of it, block `made`, it reads: nothing on
// the way writes what it reads, or reads or writes what it writes, or may refuse its indices before that. plan.cpp.
bool moves_up(const Program& p, size_t k, size_t j, int made);

inline void erase_steps(Program& p, const std::vector<bool>& dead) {
  size_t n = 0;
  for (size_t k = 0; k < p.steps.size(); k++)
    if (!dead[k]) p.steps[n++] = p.steps[k];
  p.steps.resize(n);
}

// All views of block `from` become views of block `to`.
inline void replace_block(Program& p, int from, int to) {
  for (Place& at : p.places)
    if (at.block == from) at.block = to;
}

inline bool op_is(const Step& s, const char* name) { return !std::strcmp(s.op->name, name); }
inline bool wide_float(const Step& s) { return s.compute == DType::float32 || s.compute == DType::float64; }

inline const View& view_at(const Program& p, const Step& s, int k) { return p.views[s.first_view + uint32_t(k)]; }

// Whether block b is made by one step and lives inside the program only.
inline bool made_once(const Program& p, const std::vector<int>& written, int b) {
  return b >= 0 && p.blocks[b].kind == Block::Internal && written[b] == 1;
}

// Adds a view to the outputs of s, to its inputs, or to both (null: none): behind those that it has. plan_norms.cpp.
void extend(Program& p, Step& s, const View* out, Place out_place, const View* in, Place in_place);

// Lets a batch_norm keep center, scale and offset of each channel, from which its result can be had again without sums over x.
// Returns the number of their view. plan_norms.cpp.
uint32_t keep_factors(Program& p, Step& norm);

// All strides 0: the same number for every element.
inline bool is_number(const View& v) {
  for (int d = 0; d < v.ndim; d++)
    if (v.strides[d] != 0 && v.shape[d] != 1) return false;
  return true;
}

}  // namespace fastdl
