// Gradients of slices. Each slice of an array gives a gradient of the array's size, zeros but for the slice, and these are added
// up. Where the slices do not overlap, the sum is made in one array, which every gradient is written to in its place.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "plan.h"

namespace fastdl {

namespace {

constexpr int64_t kMostElements = int64_t(1) << 24;  // of an array whose elements are marked one by one

// An array of zeros, but for slices that steps write.
struct Patched {
  size_t fill;                 // the step that sets the zeros
  std::vector<size_t> slices;  // the copies into it
  std::vector<bool> covered;   // its elements, in the order of memory
  int64_t count = 0;           // of them
  int reads = 1;               // so far; the fill works in place
};

bool is_zero_fill(const Program& p, const Step& s) {
  const View& v = p.views[s.first_view];
  const bool zero = s.attrs.i[0] == 1 ? s.attrs.i[1] == 0 : s.attrs.f[0] == 0 && !std::signbit(s.attrs.f[0]) && s.attrs.f[1] == 0;
  return family_is(s, "fill") && s.nin == 1 && s.device.kind == Device::CPU && zero && dense(v) && v.numel() <= kMostElements &&
         (v.dtype == DType::float32 || v.dtype == DType::float64);
}

// Marks the elements of view v of the block; false: one was marked before.
bool mark(const View& v, int64_t start, std::vector<bool>& covered, int64_t& count) {
  int64_t index[kMaxDims] = {}, at = start, n = v.numel();
  for (; n > 0; n--) {
    if (at < 0 || at >= int64_t(covered.size()) || covered[size_t(at)]) return false;
    covered[size_t(at)] = true, count++;
    for (int d = v.ndim - 1; d >= 0; d--) {
      at += v.strides[d];
      if (++index[d] < v.shape[d]) break;
      at -= v.shape[d] * v.strides[d], index[d] = 0;
    }
  }
  return true;
}

// Joins b's slices to a's; false: some overlap.
bool join(Patched& a, const Patched& b) {
  for (size_t k = 0; k < a.covered.size(); k++) {
    if (a.covered[k] && b.covered[k]) return false;
    a.covered[k] = a.covered[k] || b.covered[k];
  }
  a.count += b.count;
  a.slices.insert(a.slices.end(), b.slices.begin(), b.slices.end());
  return true;
}

// copy g -> slice becomes g + 0 -> slice: what the addition of zeros makes of it, -0 becomes +0.
void add_zero(Program& p, Step& s) {
  p.numbers.push_back({});
  View zero{};
  zero.data = p.numbers.back().data();
  zero.dtype = s.compute;
  zero.ndim = p.views[s.first_view].ndim;
  std::memcpy(zero.shape, p.views[s.first_view].shape, sizeof zero.shape);
  const uint32_t first = uint32_t(p.views.size());
  for (int v = 0; v < 2; v++) {
    const View view = p.views[s.first_view + uint32_t(v)];
    const Place place = p.places[s.first_view + uint32_t(v)];
    p.views.push_back(view), p.places.push_back(place);
  }
  p.views.push_back(zero), p.places.push_back({});
  s.op = &op_table[int(OpId::add)];
  s.fn = s.op->cpu[int(s.compute)];
  s.attrs = {};
  s.first_view = first;
  s.nin = 2;
}

// The strides that view `made`, whose elements lie as those of `read` do, gets when they move to where `to` says; false: none.
bool moved_strides(const View& made, const View& read, const View& to, View& out) {
  out = made;
  int found = 0, wanted = 0;
  for (int d = 0; d < read.ndim; d++) wanted += read.shape[d] != 1;
  for (int a = 0; a < made.ndim; a++) {
    if (made.shape[a] == 1) continue;
    int at = -1;
    for (int d = 0; d < read.ndim; d++)
      if (read.shape[d] == made.shape[a] && read.strides[d] == made.strides[a]) at = d;
    if (at < 0) return false;
    out.strides[a] = to.strides[at], found++;
  }
  return found == wanted;
}

// A slice whose gradient attention_backward makes for it alone: the kernel, which never makes a -0, writes it where it belongs.
void write_in_place(Program& p, const std::vector<size_t>& slices, std::vector<bool>& dead) {
  const std::vector<int> written = count_writes(p), read = count_reads(p);
  for (const size_t k : slices) {
    const Step& s = p.steps[k];
    const int from = block_at(p, s, 1), array = block_at(p, s, 0);
    if (dead[k] || !made_once(p, written, from) || read[from] != 1) continue;
    size_t maker = k;
    bool alone = true;  // the array is not cleared after the gradient is made
    while (maker > 0) {
      const Step& m = p.steps[--maker];
      int at = 0;
      while (at < m.nout && block_at(p, m, at) != from) at++;
      if (at == m.nout) {
        alone = alone && (dead[maker] || !op_is(m, "fill") || block_at(p, m, 0) != array);
        continue;
      }
      const uint32_t out = m.first_view + uint32_t(at);
      View view;
      if (!alone || !op_is(m, "attention_backward") || m.device.kind != Device::CPU || p.places[out].offset != 0 ||
          p.places[s.first_view + 1].offset != 0 || !moved_strides(p.views[out], view_at(p, s, 1), view_at(p, s, 0), view))
        break;
      if (view.shape[view.ndim - 1] > 1 && view.strides[view.ndim - 1] != 1) break;
      view.data = view_at(p, s, 0).data;
      p.views[out] = view;
      p.places[out] = p.places[s.first_view];
      dead[k] = true;
      break;
    }
  }
}

}  // namespace

void join_slices(Program& p) {
  const std::vector<int> written = count_writes(p), read = count_reads(p);
  std::vector<bool> dead(p.steps.size());
  std::map<int, Patched> arrays;
  std::vector<size_t> joined;
  for (size_t k = 0; k < p.steps.size(); k++) {
    Step& s = p.steps[k];
    const int out = block_at(p, s, 0);
    const View& to = p.views[s.first_view];
    const auto target = arrays.find(out);
    const bool copies = target != arrays.end() && op_is(s, "copy") && target->second.slices.empty() &&
                        to.dtype == p.views[p.steps[target->second.fill].first_view].dtype &&
                        p.views[s.first_view + 1].dtype == to.dtype && !arrays.count(block_at(p, s, 1));
    if (copies && mark(to, p.places[s.first_view].offset / itemsize(to.dtype), target->second.covered, target->second.count)) {
      s.compute = to.dtype;
      target->second.slices.push_back(k);
      continue;
    }
    const bool adds = op_is(s, "add") && s.nout == 1 && s.nin == 2 && out >= 0;
    const auto a = adds ? arrays.find(block_at(p, s, 1)) : arrays.end(), b = adds ? arrays.find(block_at(p, s, 2)) : arrays.end();
    if (a != arrays.end() && b != arrays.end() && a != b && !a->second.slices.empty() && !b->second.slices.empty()) {
      const int left = a->first, right = b->first;
      const bool in_place = out == left;
      // what is added, and its sum, are the arrays in whole; the second one, and the first if it is not the sum, end here
      bool fits = p.blocks[out].bytes == p.blocks[left].bytes && read[right] == b->second.reads + 1 && written[right] == 2 &&
                  (in_place || (read[left] == a->second.reads + 1 && written[out] == 1 && p.blocks[out].kind != Block::Held));
      for (int v = 0; v < 3; v++) {
        const View& view = p.views[s.first_view + uint32_t(v)];
        fits = fits && p.places[s.first_view + uint32_t(v)].offset == 0 && dense(view) && same_view(view, to) &&
               view.numel() * itemsize(view.dtype) == p.blocks[left].bytes;
      }
      Patched sum = a->second;
      if (fits && join(sum, b->second)) {
        sum.fill = std::min(a->second.fill, b->second.fill);
        dead[k] = dead[std::max(a->second.fill, b->second.fill)] = true;
        if (sum.count == int64_t(sum.covered.size())) dead[sum.fill] = true;
        for (const size_t c : sum.slices)
          if (!op_is(p.steps[c], "add")) add_zero(p, p.steps[c]), joined.push_back(c);
        if (!in_place) replace_block(p, left, out);
        replace_block(p, right, out);
        arrays.erase(b);
        arrays.erase(left);
        sum.reads = in_place ? sum.reads + 1 : 0;
        arrays[out] = std::move(sum);
        continue;
      }
    }
    for (int v = 0; v < s.nout + s.nin; v++) arrays.erase(block_at(p, s, v));  // any other use
    if (s.nout == 1 && out >= 0 && p.blocks[out].kind != Block::Held && is_zero_fill(p, s) && p.places[s.first_view].offset == 0 &&
        p.blocks[out].bytes == to.numel() * itemsize(to.dtype))
      arrays[out] = {k, {}, std::vector<bool>(size_t(to.numel()))};
  }
  write_in_place(p, joined, dead);
  erase_steps(p, dead);
}

}  // namespace fastdl
