// What is done to a recorded program before its first replay. Every pass keeps the numbers: it drops, merges or moves launches of
// the same kernels on the same values. Each can be turned off (Passes).
#include <algorithm>
#include <cstring>
#include <map>

#include "parallel.h"
#include "plan.h"

namespace fastdl {

uint32_t written_inputs(const Step& s) {
  return family_is(s, "batch_norm") && s.attrs.i[0] ? 8u | 16u : 0u;  // running statistics
}

bool is_elementwise(const OpInfo& op) {
  for (const char* f : {"unary", "binary", "test", "compare", "where", "clip", "addcmul", "abs"})
    if (!std::strcmp(op.family, f)) return true;
  return false;
}

// A launch is needed when somebody sees what it writes: from outside, or through a launch that is needed.
void remove_dead_steps(Program& p) {
  std::vector<bool> seen(p.blocks.size()), dead(p.steps.size());
  for (size_t b = 0; b < p.blocks.size(); b++) seen[b] = p.blocks[b].kind != Block::Internal;
  for (size_t k = p.steps.size(); k-- > 0;) {
    const Step& s = p.steps[k];
    bool needed = false;
    for (int v = 0; v < s.nout + s.nin; v++)
      if (const int b = block_at(p, s, v); b >= 0 && writes(s, v)) needed = needed || seen[b];
    dead[k] = !needed;
    for (int v = s.nout; needed && v < s.nout + s.nin; v++)
      if (const int b = block_at(p, s, v); b >= 0) seen[b] = true;
  }
  erase_steps(p, dead);
}

// Memory that only ever holds a copy of a constant: the constant is read where it lies.
void forward_constants(Program& p) {
  const std::vector<int> written = count_writes(p);
  std::vector<bool> dead(p.steps.size());
  for (size_t k = 0; k < p.steps.size(); k++) {
    const Step& s = p.steps[k];
    if (!family_is(s, "copy") || s.compute != DType::uint8 || s.nin != 1) continue;
    const int to = block_at(p, s, 0), from = block_at(p, s, 1);
    if (to < 0 || from < 0 || p.blocks[to].kind != Block::Internal || p.blocks[from].kind != Block::Held) continue;
    const View& v = p.views[s.first_view];
    const bool whole = v.ndim == 1 && v.shape[0] == p.blocks[to].bytes && p.blocks[to].bytes == p.blocks[from].bytes;
    if (!whole || written[to] != 1 || written[from] != 0) continue;
    dead[k] = true;
    replace_block(p, to, from);
  }
  erase_steps(p, dead);
}

// The same op on the same values twice: the second result is the first.
void merge_common_steps(Program& p) {
  const std::vector<int> written = count_writes(p);
  std::vector<int> version(p.blocks.size(), 0), alias(p.blocks.size(), -1);
  std::vector<bool> dead(p.steps.size());
  std::map<std::string, size_t> known;
  for (size_t k = 0; k < p.steps.size(); k++) {
    const Step& s = p.steps[k];
    for (int v = 0; v < s.nout + s.nin; v++)
      if (Place& at = p.places[s.first_view + uint32_t(v)]; at.block >= 0 && alias[at.block] >= 0) at.block = alias[at.block];
    bool pure = written_inputs(s) == 0;
    std::string key(reinterpret_cast<const char*>(&s.op), sizeof s.op);
    key.append(reinterpret_cast<const char*>(&s.attrs), sizeof s.attrs).append(1, char(s.compute));
    for (int v = 0; v < s.nout + s.nin; v++) {
      const View& view = p.views[s.first_view + uint32_t(v)];
      const Place at = p.places[s.first_view + uint32_t(v)];
      if (v < s.nout) {
        pure = pure && at.block >= 0 && p.blocks[at.block].kind == Block::Internal && written[at.block] == 1 && at.offset == 0;
        for (int i = s.nout; pure && i < s.nout + s.nin; i++) pure = block_at(p, s, i) != at.block;
      }
      const int64_t facts[4] = {view.ndim, int64_t(view.dtype), v < s.nout ? 0 : at.block,
                                v < s.nout      ? 0
                                : at.block >= 0 ? at.offset * 65536 + version[at.block]
                                                : 0};
      key.append(reinterpret_cast<const char*>(facts), sizeof facts);
      if (!view.given()) continue;
      key.append(reinterpret_cast<const char*>(view.shape), sizeof(int64_t) * size_t(view.ndim));
      key.append(reinterpret_cast<const char*>(view.strides), sizeof(int64_t) * size_t(view.ndim));
      if (v >= s.nout && at.block < 0 && view.numel() > 0)
        key.append(static_cast<const char*>(view.data), size_t(itemsize(view.dtype)));
    }
    if (pure) {
      const auto [it, fresh] = known.emplace(key, k);
      if (!fresh) {
        for (int v = 0; v < s.nout; v++) alias[block_at(p, s, v)] = block_at(p, p.steps[it->second], v);
        dead[k] = true;
        continue;
      }
    }
    for (int v = 0; v < s.nout + s.nin; v++)
      if (const int b = block_at(p, s, v); b >= 0 && writes(s, v)) version[b]++;
  }
  erase_steps(p, dead);
}

bool moves_up(const Program& p, size_t k, size_t j, int made) {
  const Step& s = p.steps[k];
  const bool seen = p.blocks[size_t(block_at(p, s, 0))].kind != Block::Internal;
  for (size_t m = j; m < k; m++)
    if (ordered(p, p.steps[m], s, made) || (seen && p.steps[m].check == IndexCheck::At)) return false;
  return true;
}

// linear or conv2d without activation, then an activation of all that it wrote: the product's own epilogue does it in registers.
void fuse_epilogues(Program& p) {
  const std::vector<int> written = count_writes(p), read = count_reads(p);
  std::vector<bool> dead(p.steps.size());
  std::map<int, size_t> product;  // block -> the step that makes it
  for (size_t k = 0; k < p.steps.size(); k++) {
    Step& s = p.steps[k];
    const bool linear = family_is(s, "linear"), conv = family_is(s, "conv2d");
    if (linear || conv) {
      if (s.attrs.i[linear ? 0 : 7] == 0 && block_at(p, s, 0) >= 0) product[block_at(p, s, 0)] = k;
      continue;
    }
    const int activation = !std::strcmp(s.op->name, "relu")      ? 1
                           : !std::strcmp(s.op->name, "sigmoid") ? 2
                           : !std::strcmp(s.op->name, "tanh")    ? 3
                                                                 : 0;
    if (!activation || (s.compute != DType::float32 && s.compute != DType::float64)) continue;
    const int from = block_at(p, s, 1), to = block_at(p, s, 0);
    const auto it = product.find(from);
    if (it == product.end() || to < 0 || p.blocks[from].kind != Block::Internal || written[from] != 1 || read[from] != 1 ||
        written[to] != 1)
      continue;
    Step& made = p.steps[it->second];
    const uint32_t target = made.first_view;
    if (made.compute != s.compute || !same_view(p.views[target], p.views[s.first_view + 1]) ||
        !same_view(p.views[target], p.views[s.first_view]) || !moves_up(p, k, it->second, from))
      continue;
    made.attrs.i[family_is(made, "linear") ? 0 : 7] = activation;
    p.views[target] = p.views[s.first_view];
    p.places[target] = p.places[s.first_view];
    dead[k] = true;
  }
  erase_steps(p, dead);
}

// An elementwise result takes the place of an operand that nobody needs any more.
void reuse_in_place(Program& p) {
  find_lifetimes(p);
  for (size_t k = 0; k < p.steps.size(); k++) {
    const Step& s = p.steps[k];
    if (!is_elementwise(*s.op)) continue;
    const int out = block_at(p, s, 0);
    if (out < 0 || p.blocks[out].kind != Block::Internal || p.blocks[out].first != int32_t(k)) continue;
    const View& to = p.views[s.first_view];
    for (int v = s.nout; v < s.nout + s.nin; v++) {
      const Place at = p.places[s.first_view + uint32_t(v)];
      if (at.block < 0 || at.block == out) continue;
      const Block& b = p.blocks[at.block];
      if (b.kind != Block::Internal || b.last != int32_t(k) || b.bytes != p.blocks[out].bytes || b.slice != p.blocks[out].slice ||
          at.offset != p.places[s.first_view].offset)
        continue;
      if (!same_view(to, p.views[s.first_view + uint32_t(v)])) continue;
      bool alone = true;  // no other window on the operand's memory is read
      for (int w = s.nout; w < s.nout + s.nin; w++)
        alone = alone && (block_at(p, s, w) != at.block || (p.places[s.first_view + uint32_t(w)].offset == at.offset &&
                                                            same_view(to, p.views[s.first_view + uint32_t(w)])));
      if (!alone) continue;
      p.blocks[at.block].last = p.blocks[out].last;
      replace_block(p, out, at.block);
      break;
    }
  }
}

// ---- elementwise chains, block by block --------------------------------------------------------------------------------

namespace {

constexpr int64_t kGroupElements = 4096;  // of one block: some operands of 16 KB each stay in L1 and L2
constexpr int64_t kGroupLeast = 16 * kGroupElements;

// Whether every operand of s is a number or lies in memory as `like` does.
bool can_join(const Program& p, const Step& s, const View& like) {
  if (!is_elementwise(*s.op) || s.nout != 1 || s.device.kind != Device::CPU) return false;
  for (int v = 0; v < s.nout + s.nin; v++) {
    const View& view = p.views[s.first_view + uint32_t(v)];
    if (!view.given()) return false;
    if (v >= s.nout && is_number(view)) { continue; }
    if (view.ndim != like.ndim || std::memcmp(view.shape, like.shape, sizeof(int64_t) * size_t(like.ndim))) return false;
    for (int d = 0; d < like.ndim; d++)
      if (like.shape[d] != 1 && view.strides[d] != like.strides[d]) return false;
  }
  return true;
}

// Two steps may share a block-wise loop unless one reads, shifted or as a number, what the other writes.
bool independent(const Program& p, const Step& a, const Step& b) {
  for (int v = 0; v < a.nout + a.nin; v++)
    for (int w = 0; w < b.nout + b.nin; w++) {
      if (!(v < a.nout || w < b.nout)) continue;
      const Place x = p.places[a.first_view + uint32_t(v)], y = p.places[b.first_view + uint32_t(w)];
      if (x.block < 0 || x.block != y.block) continue;
      if (x.offset != y.offset || is_number(p.views[a.first_view + uint32_t(v)]) || is_number(p.views[b.first_view + uint32_t(w)]))
        return false;
      if (itemsize(p.views[a.first_view + uint32_t(v)].dtype) != itemsize(p.views[b.first_view + uint32_t(w)].dtype)) return false;
    }
  return true;
}

}  // namespace

void group_elementwise(Program& p) {
  int32_t groups = 0;
  for (size_t k = 0; k < p.steps.size();) {
    const View& like = p.views[p.steps[k].first_view];
    size_t end = k;
    if (like.given() && like.numel() >= kGroupLeast && dense(like))
      while (end < p.steps.size() && end - k < 32 && can_join(p, p.steps[end], like)) {
        bool fits = true;
        for (size_t j = k; fits && j < end; j++) fits = independent(p, p.steps[j], p.steps[end]);
        if (!fits) break;
        end++;
      }
    if (end - k >= 2) {
      for (size_t j = k; j < end; j++) p.steps[j].group = groups;
      groups++;
    }
    k = end > k ? end : k + 1;
  }
}

void run_group(Program& p, size_t first, size_t end) {
  const int64_t n = p.views[p.steps[first].first_view].numel();
  parallel_for(n, kGroupElements, [&](int64_t begin, int64_t stop) {
    View views[kMaxIn + kMaxOut];
    for (size_t k = first; k < end; k++) {
      const Step& s = p.steps[k];
      for (int v = 0; v < s.nout + s.nin; v++) {
        const View& whole = p.views[s.first_view + uint32_t(v)];
        const bool number = v >= s.nout && is_number(whole);
        views[v].data = static_cast<char*>(whole.data) + (number ? 0 : begin * itemsize(whole.dtype));
        views[v].dtype = whole.dtype;
        views[v].ndim = 1;
        views[v].shape[0] = stop - begin;
        views[v].strides[0] = number ? 0 : 1;
      }
      s.fn(Args{views, views + s.nout, &s.attrs, nullptr, s.nout, s.nin});
    }
  });
}

}  // namespace fastdl
