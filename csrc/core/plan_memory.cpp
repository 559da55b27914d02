// Every block that lives inside the program, scratch of kernels included, gets a place in one arena.
#include <algorithm>

#include "plan.h"

namespace fastdl {

// Scratch of a kernel on the CPU is a block that lives for its step. Slices of images have scratch of their own.
void place_workspaces(Program& p) {
  for (Step& s : p.steps) {
    if (s.workspace <= 0 || s.images || s.device.kind != Device::CPU) continue;
    s.scratch = int32_t(p.blocks.size());
    p.blocks.emplace_back();
    p.blocks.back().bytes = s.workspace;
    p.workspace_bytes = std::max(p.workspace_bytes, s.workspace);
  }
}

void find_group_lifetimes(Program& p) {
  find_lifetimes(p);
  for (size_t k = 0; k < p.steps.size(); k++)
    if (p.steps[k].group >= 0) {
      size_t first = k, last = k;
      while (first > 0 && p.steps[first - 1].group == p.steps[k].group) first--;
      while (last + 1 < p.steps.size() && p.steps[last + 1].group == p.steps[k].group) last++;
      const Step& s = p.steps[k];
      for (int v = 0; v < s.nout + s.nin; v++)
        if (const int b = block_at(p, s, v); b >= 0) {
          p.blocks[b].first = std::min(p.blocks[b].first, int32_t(first));
          p.blocks[b].last = std::max(p.blocks[b].last, int32_t(last));
        }
    }
}

namespace {

int64_t padded(int64_t bytes) { return (bytes + 63) / 64 * 64 + 64; }  // kernels may prefetch beyond the end

// Gives blocks their places in this order, each the lowest that is free for its whole life; returns the bytes of all. Large blocks
// start at varying offsets within a page, so that arrays of equal power-of-two sizes do not meet in the same cache sets.
int64_t place_blocks(Program& p, const std::vector<int>& order, bool reuse) {
  int64_t total = 0;
  std::vector<int> placed;  // by offset
  int colour = 0;
  for (const int k : order) {
    Block& b = p.blocks[k];
    const int64_t bytes = padded(b.bytes), shift = b.bytes >= 65536 ? int64_t(colour++ % 16) * 256 : 0;
    int64_t at = 0;
    for (const int other : placed) {
      const Block& o = p.blocks[other];
      if (reuse && (o.last < b.first || b.last < o.first)) continue;
      if (at + shift + bytes <= o.offset) break;
      at = std::max(at, o.offset + padded(o.bytes));
    }
    b.offset = at + shift;
    total = std::max(total, b.offset + bytes);
    placed.insert(
        std::upper_bound(placed.begin(), placed.end(), k, [&](int x, int y) { return p.blocks[x].offset < p.blocks[y].offset; }),
        k);
  }
  return total;
}

// A better order is sought for arenas of so many bytes, so many times, and while so many pairs of blocks are compared.
constexpr int64_t kLeastSought = int64_t(1) << 20, kMostTries = 100, kPlacingWork = 20'000'000;

}  // namespace

// Blocks are placed by size, the largest first, or by how long they live, as in a stack. From the better order on, the block that
// ends highest is placed before all others, again and again, until nearly no byte is lost between blocks.
int64_t plan_arena(Program& p, Device device, bool reuse) {
  find_group_lifetimes(p);
  std::vector<int> order;
  std::vector<int64_t> live(p.steps.size() + 1);
  for (size_t k = 0; k < p.blocks.size(); k++) {
    const Block& b = p.blocks[k];
    if (b.kind != Block::Internal || b.first < 0 || b.device != device || b.slice >= 0) continue;
    order.push_back(int(k));
    p.unplanned_bytes += padded(b.bytes);
    live[size_t(b.first)] += padded(b.bytes), live[size_t(b.last) + 1] -= padded(b.bytes);
  }
  for (size_t k = 1; k < live.size(); k++) live[k] += live[k - 1];
  const int64_t least = *std::max_element(live.begin(), live.end()), enough = least + least / 200;
  const auto bytes = [&](int a, int b) { return p.blocks[a].bytes > p.blocks[b].bytes; };
  const auto life = [&](int a, int b) { return p.blocks[a].last - p.blocks[a].first > p.blocks[b].last - p.blocks[b].first; };
  std::stable_sort(order.begin(), order.end(), bytes);
  std::vector<int> best = order;
  int64_t total = place_blocks(p, order, reuse);
  if (!reuse || total <= enough || total < kLeastSought) return total;
  std::stable_sort(order.begin(), order.end(), life);
  if (const int64_t other = place_blocks(p, order, reuse); other < total)
    total = other, best = order;
  else
    order = best, place_blocks(p, order, reuse);
  const int64_t tries = std::min(kMostTries, kPlacingWork / int64_t(order.size() * order.size()));
  for (int64_t i = 0; i < tries && total > enough; i++) {
    const auto top = std::max_element(order.begin(), order.end(), [&](int a, int b) {
      return p.blocks[a].offset + p.blocks[a].bytes < p.blocks[b].offset + p.blocks[b].bytes;
    });
    std::rotate(order.begin(), top, top + 1);
    if (const int64_t other = place_blocks(p, order, reuse); other < total) total = other, best = order;
  }
  return place_blocks(p, best, reuse);
}

}  // namespace fastdl
