// Memory for a little time: what batch_norm made for the layers behind it is dropped after its last use in the forward direction,
// and made again when a gradient asks for it (rematerialisation; Chen et al. 2016, "Training Deep Nets with Sublinear Memory
// Cost"). The convolution's result, from which it comes, mostly stays for the gradient of batch_norm, and no more is taken where it
// does not; a pass over memory is all that it takes, since center, scale and offset of each channel are kept (keep_factors). So are
// the bits.
#include <algorithm>

#include "plan.h"

namespace fastdl {

namespace {

constexpr int64_t kLeastPeak = int64_t(32) << 20;  // bytes: smaller programs keep all that they made

// Which bytes live at each step, scratch included.
std::vector<int64_t> live_bytes(const Program& p) {
  std::vector<int64_t> change(p.steps.size() + 1);
  for (const Block& b : p.blocks)
    if (b.kind == Block::Internal && b.device.kind == Device::CPU && b.first >= 0 && b.slice < 0)
      change[size_t(b.first)] += b.bytes, change[size_t(b.last) + 1] -= b.bytes;
  for (size_t k = 1; k < change.size(); k++) change[k] += change[k - 1];
  change.pop_back();
  for (size_t k = 0; k < p.steps.size(); k++)
    if (!p.steps[k].images) change[k] += p.steps[k].workspace;
  return change;
}

// Which view of a batch_norm is what it adds, or -1.
int added(const Step& s) { return s.nin > 5 ? s.nout + 5 : -1; }

// Values that can be made again, and where they shall be: behind step `peak`, before their next reader.
class Recomputation {
 public:
  Recomputation(const Program& p, int peak) : made_(p.blocks.size(), -1), at_(p.blocks.size(), -1), program_(p) {
    const std::vector<int> written = count_writes(p);
    std::vector<int> before(p.blocks.size(), -1), behind(p.blocks.size(), -1);  // the readers on both sides of the peak
    for (int k = 0; k < int(p.steps.size()); k++) {
      const Step& s = p.steps[size_t(k)];
      const int out = block_at(p, s, 0);
      if (op_is(s, "batch_norm") && s.attrs.i[0] && s.device.kind == Device::CPU && wide_float(s) && made_once(p, written, out) &&
          p.places[s.first_view].offset == 0 && made_once(p, written, block_at(p, s, s.nout)) &&
          (added(s) < 0 || made_once(p, written, block_at(p, s, added(s)))))
        made_[size_t(out)] = k;
      for (int v = s.nout; v < s.nout + s.nin; v++)
        if (const int b = block_at(p, s, v); b >= 0 && made_[size_t(b)] >= 0) {
          if (k <= peak) before[size_t(b)] = k;
          if (k > peak && behind[size_t(b)] < 0) behind[size_t(b)] = k;
        }
    }
    for (size_t b = 0; b < p.blocks.size(); b++)
      if (made_[b] >= 0 && made_[b] < peak && before[b] < peak && behind[b] >= 0) at_[b] = start_of_group(behind[b]);
    for (int k = int(p.steps.size()) - 1; k >= 0; k--) {  // what a batch_norm adds must be there before it: it comes later here
      const int b = block_at(p, p.steps[size_t(k)], 0);
      if (b < 0 || made_[size_t(b)] != k || at_[size_t(b)] < 0) continue;
      const int place = at_[size_t(b)], more = operand(b);
      if (place <= peak || !can_be(b, place))
        at_[size_t(b)] = -1;
      else if (more >= 0 && (at_[size_t(more)] >= 0 || !lives(more, place)))
        at_[size_t(more)] = at_[size_t(more)] < 0 ? place : std::min(at_[size_t(more)], place);
    }
  }
  int step_of(int block) const { return made_[size_t(block)]; }
  int place_of(int block) const { return at_[size_t(block)]; }

 private:
  int start_of_group(int k) const {
    while (k > 0 && program_.steps[size_t(k)].group >= 0 && program_.steps[size_t(k) - 1].group == program_.steps[size_t(k)].group)
      k--;
    return k;
  }
  int operand(int block) const {  // what batch_norm adds
    const Step& s = program_.steps[size_t(made_[size_t(block)])];
    return added(s) < 0 ? -1 : block_at(program_, s, added(s));
  }
  bool lives(int block, int place) const { return program_.blocks[size_t(block)].last >= place; }
  // From memory that is there at `place` in any case, or can be made again like it.
  bool can_be(int block, int place) const {
    const Step& s = program_.steps[size_t(made_[size_t(block)])];
    if (!lives(block_at(program_, s, s.nout), place)) return false;
    const int more = operand(block);
    return more < 0 || lives(more, place) || (made_[size_t(more)] >= 0 && can_be(more, place));
  }

  std::vector<int> made_;  // block -> the batch_norm that makes it, or -1
  std::vector<int> at_;    // block -> the step before which it is made again, or -1
  const Program& program_;
};

// The batch_norm of step k, from x, its factors and what it adds only: no sums, no statistics.
Step apply_again(Program& p, size_t k, int out, int more) {
  const uint32_t factors = keep_factors(p, p.steps[k]);
  Step s = p.steps[k];
  std::vector<uint32_t> from{s.first_view, s.first_view + s.nout, factors};
  if (added(s) >= 0) from.push_back(s.first_view + uint32_t(added(s)));
  s.attrs.i[0] = 0, s.attrs.i[4] = 1;
  s.nout = 1, s.nin = uint16_t(from.size() - 1), s.workspace = 0;
  s.first_view = uint32_t(p.views.size());
  for (const uint32_t v : from) {
    const View view = p.views[v];
    const Place place = p.places[v];
    p.views.push_back(view), p.places.push_back(place);
  }
  p.places[s.first_view].block = out;
  if (more >= 0) p.places[s.first_view + 3].block = more;
  return s;
}

}  // namespace

// Makes values again behind the step where most bytes live, if that lowers this peak by a sixteenth.
void recompute_norms(Program& p) {
  find_group_lifetimes(p);
  const std::vector<int64_t> live = live_bytes(p);
  if (live.empty()) return;
  const auto peak = std::max_element(live.begin(), live.end());
  if (*peak < kLeastPeak) return;
  const Recomputation again(p, int(peak - live.begin()));

  const auto steps = p.steps;
  const auto views = p.views;
  const auto places = p.places;
  const auto blocks = p.blocks;
  std::vector<int> copy(p.blocks.size(), -1);  // block -> the one that holds it behind its place
  std::vector<std::vector<Step>> before(p.steps.size());
  for (size_t k = 0; k < p.steps.size(); k++) {
    const int b = block_at(p, p.steps[k], 0);
    if (b < 0 || size_t(b) >= copy.size() || again.step_of(b) != int(k) || again.place_of(b) < 0) continue;
    const Block made = p.blocks[size_t(b)];
    copy[size_t(b)] = int(p.blocks.size());
    p.blocks.push_back(made);
    const int more = added(p.steps[k]) < 0 ? -1 : copy[size_t(block_at(p, p.steps[k], added(p.steps[k])))];
    before[size_t(again.place_of(b))].push_back(apply_again(p, k, copy[size_t(b)], more));
  }
  std::vector<Step> order;
  for (size_t k = 0; k < p.steps.size(); k++) {
    order.insert(order.end(), before[k].begin(), before[k].end());
    order.push_back(p.steps[k]);
    for (int v = 0; v < p.steps[k].nout + p.steps[k].nin; v++) {
      int& b = p.places[p.steps[k].first_view + uint32_t(v)].block;
      if (b >= 0 && size_t(b) < copy.size() && copy[size_t(b)] >= 0 && again.place_of(b) <= int(k)) b = copy[size_t(b)];
    }
  }
  p.steps = order;
  find_group_lifetimes(p);
  const std::vector<int64_t> less = live_bytes(p);
  if (*std::max_element(less.begin(), less.end()) > *peak - *peak / 16)
    p.steps = steps, p.views = views, p.places = places, p.blocks = blocks;
}

}  // namespace fastdl
