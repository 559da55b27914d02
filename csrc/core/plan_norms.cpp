// batch_norm and what nets do with its result at once: relu, or the addition of a skip connection and relu. All of it is one pass
// over memory, and so is, in the other direction, the derivative of relu with that of batch_norm.
#include <algorithm>
#include <map>

#include "plan.h"

namespace fastdl {

void extend(Program& p, Step& s, const View* out, Place out_place, const View* in, Place in_place) {
  std::vector<View> views;
  std::vector<Place> places;
  const auto add = [&](int from, int to) {
    for (int v = from; v < to; v++) views.push_back(view_at(p, s, v)), places.push_back(p.places[s.first_view + uint32_t(v)]);
  };
  add(0, s.nout);
  if (out) views.push_back(*out), places.push_back(out_place);
  add(s.nout, s.nout + s.nin);
  if (in) views.push_back(*in), places.push_back(in_place);
  s.first_view = uint32_t(p.views.size());
  s.nout += out ? 1 : 0, s.nin += in ? 1 : 0;
  p.views.insert(p.views.end(), views.begin(), views.end());
  p.places.insert(p.places.end(), places.begin(), places.end());
}

uint32_t keep_factors(Program& p, Step& norm) {
  if (norm.nout == 3) {
    const View& x = view_at(p, norm, norm.nout);
    View factors{};
    factors.ndim = 1, factors.dtype = norm.compute, factors.shape[0] = 3 * x.shape[1], factors.strides[0] = 1;
    Block block;
    block.bytes = factors.shape[0] * itemsize(factors.dtype);
    p.blocks.push_back(block);
    extend(p, norm, &factors, {int32_t(p.blocks.size() - 1), 0}, nullptr, {});
  }
  return norm.first_view + 3;
}

namespace {

bool same_place(Place a, Place b) { return a.block == b.block && a.offset == b.offset; }

}  // namespace

void fuse_norms(Program& p) {
  const std::vector<int> written = count_writes(p), read = count_reads(p);
  std::vector<bool> dead(p.steps.size());
  std::vector<int> first_write(p.blocks.size(), -1);
  std::map<int, size_t> norms, sums;  // block -> the batch_norm, or the addition, that makes it and that only one step reads
  std::map<int, size_t> fused;        // block -> the batch_norm with relu that makes it
  std::map<int, size_t> masks;        // block -> the relu_backward that makes it, for one reader
  const auto untouched = [&](int b, size_t before) {  // holds what it holds at `before` from then on
    if (b < 0) return false;
    return written[b] == 0 || (written[b] == 1 && first_write[b] >= 0 && first_write[b] < int(before));
  };
  for (size_t k = 0; k < p.steps.size(); k++) {
    Step& s = p.steps[k];
    for (int v = 0; v < s.nout + s.nin; v++)
      if (const int b = block_at(p, s, v); b >= 0 && writes(s, v) && first_write[b] < 0) first_write[b] = int(k);
    if (s.device.kind != Device::CPU || !wide_float(s)) continue;
    const int out = block_at(p, s, 0);
    const View& to = view_at(p, s, 0);
    if (op_is(s, "batch_norm") && s.nin == 5 && made_once(p, written, out) && read[out] == 1 && to.dtype == s.compute &&
        view_at(p, s, s.nout).dtype == s.compute)
      norms[out] = k;
    if (op_is(s, "add") && s.nin == 2 && made_once(p, written, out) && read[out] == 1 && same_view(to, view_at(p, s, 1)) &&
        same_view(to, view_at(p, s, 2)))
      sums[out] = k;
    if (op_is(s, "relu") && out >= 0 && p.blocks[out].kind != Block::Held && written[out] == 1 && same_view(to, view_at(p, s, 1)) &&
        p.places[s.first_view].offset == 0) {
      const int from = block_at(p, s, 1);
      size_t norm = p.steps.size();
      int other = -1;  // the operand of the addition that is not the norm's result
      const auto sum = sums.find(from);
      if (const auto it = norms.find(from); it != norms.end()) norm = it->second;
      for (int v = 1; sum != sums.end() && v <= 2; v++) {
        const Step& add = p.steps[sum->second];
        const auto it = norms.find(block_at(p, add, v));
        const int beside = block_at(p, add, 3 - v);
        if (it == norms.end() || beside == it->first || !untouched(beside, it->second) ||
            p.blocks[beside].device.kind != Device::CPU)
          continue;
        norm = it->second, other = 3 - v;
      }
      if (norm == p.steps.size() || !same_view(to, view_at(p, p.steps[norm], 0)) || !moves_up(p, k, norm, from)) continue;
      Step& made = p.steps[norm];
      norms.erase(block_at(p, made, 0));
      if (other >= 0) {
        const Step& add = p.steps[sum->second];
        const View view = view_at(p, add, other);
        const Place place = p.places[add.first_view + uint32_t(other)];
        dead[sum->second] = true;
        extend(p, made, nullptr, {}, &view, place);
      } else {
        fused[out] = norm;
      }
      p.views[made.first_view] = view_at(p, s, 0);
      p.places[made.first_view] = p.places[s.first_view];
      made.attrs.i[3] = 1;
      dead[k] = true;
    }
    if (op_is(s, "relu_backward") && made_once(p, written, out) && read[out] == 1 && fused.count(block_at(p, s, 2)) &&
        same_view(to, view_at(p, s, 1)) && same_view(to, view_at(p, s, 2)) && untouched(block_at(p, s, 1), k))
      masks[out] = k;
    if (op_is(s, "batch_norm_backward") && s.nin == 5) {
      const auto it = masks.find(block_at(p, s, s.nout));
      if (it == masks.end()) continue;
      Step& mask = p.steps[it->second];
      Step& norm = p.steps[fused[block_at(p, mask, 2)]];
      const uint32_t x = norm.first_view + norm.nout, own = s.first_view + s.nout + 1;
      if (!same_place(p.places[x], p.places[own]) || !same_view(p.views[x], p.views[own]) ||
          !untouched(p.places[x].block, fused[block_at(p, mask, 2)]) || !same_view(view_at(p, s, s.nout), view_at(p, mask, 0)) ||
          s.attrs.i[1] != norm.attrs.i[1])
        continue;
      const uint32_t factors = keep_factors(p, norm);
      extend(p, s, nullptr, {}, &p.views[factors], p.places[factors]);
      p.views[s.first_view + s.nout] = view_at(p, mask, 1);
      p.places[s.first_view + s.nout] = p.places[mask.first_view + 1];
      dead[it->second] = true;
    }
  }
  erase_steps(p, dead);
}

}  // namespace fastdl
