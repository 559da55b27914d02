// Memory for a little time: what can be made again cheaply is dropped where most bytes live, and made again when somebody asks for
// it (rematerialisation; Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"). That is what batch_norm made, by a
// pass over memory from the convolution's result and center, scale and offset of each channel, which are kept (keep_factors); and
// convolutions of few operations for each byte of their result: first layers and projections of skip connections, or, if that is
// asked for, 3x3 kernels on up to 128 channels. The same kernels on the same values: the bits are the same, too.
#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "launch.h"
#include "plan.h"

namespace fastdl {

namespace {

constexpr int64_t kLeastPeak = int64_t(32) << 20;  // bytes: smaller programs keep all that they made
// The price of a byte where most live: bytes that are read and written, or operations, so many of which take as long as a byte, of
// all that must be made to save it. And the most operations of one convolution for each byte of its result.
struct Limits {
  double price, operations;
};
constexpr double kOperations = 16;
// If more convolutions are asked for, the better plan of two: the search is greedy, and freer, it may end higher.
constexpr Limits kLimits = {24, 32}, kMoreLimits[] = {{24, 300}, {40, 600}};
constexpr int64_t kMostWork = 4'000'000;  // units that are gone through while a plan is sought, and as many to make it smaller

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

// A block that can be made again. Units are steps, or groups of them.
struct Value {
  int block, unit;  // the unit that makes it
  size_t step;
  int until;  // the last unit before which that can be done
  int64_t bytes, scratch;
  double cost;            // in bytes
  std::vector<int> from;  // values that it reads
};

// Value `first` is not kept across unit `second`, unless that reads it.
using Gap = std::pair<int, int>;

struct Instance {  // a value, from its making to its last use: positions in Schedule::order
  int value, first;
  std::vector<int> uses;
};

struct Schedule {
  std::vector<int> order, unit;  // a value to be made again, or ~ a unit; and of both, the unit that is next
  std::vector<Instance> instances;
  std::vector<int64_t> live;
  double cost = 0;
  bool possible = true;
  int64_t peak() const { return *std::max_element(live.begin(), live.end()); }
};

class Recomputation {
 public:
  Recomputation(Program& p, const Limits& limits) : p_(p), limits_(limits), value_of_(p.blocks.size(), -1) {
    for (size_t k = 0; k < p.steps.size(); k = units_.back().second) {
      size_t end = k + 1;
      while (p.steps[k].group >= 0 && end < p.steps.size() && p.steps[end].group == p.steps[k].group) end++;
      for (size_t j = k; j < end; j++) unit_of_.push_back(int(units_.size()));
      units_.push_back({k, end});
    }
    find_group_lifetimes(p);
    find_values();
    reads_.resize(units_.size());
    for (size_t k = 0; k < p.steps.size(); k++)
      for (int v = p.steps[k].nout; v < p.steps[k].nout + p.steps[k].nin; v++)
        if (const int b = block_at(p, p.steps[k], v); b >= 0 && value_of_[size_t(b)] >= 0)
          reads_[size_t(unit_of_[k])].insert(value_of_[size_t(b)]);
    find_others();
  }

  // The cheapest gaps that bring the highest point down, as far as it goes.
  Schedule find() {
    std::set<Gap> gaps;
    std::vector<Gap> added;  // in this order
    struct Plan {
      size_t gaps;  // so many of them
      int64_t peak;
      double cost;
    };
    std::vector<Plan> plans;
    Schedule now = run(gaps);
    plans.push_back({0, now.peak(), now.cost});
    const int at = highest(now);
    std::vector<Gap> norms;  // at first all at once, but for those that exclude each other
    for (const int v : across(now, at))
      if (op_is(p_.steps[values_[size_t(v)].step], "batch_norm")) norms.push_back({v, now.unit[size_t(at)]});
    gaps.insert(norms.begin(), norms.end());
    if (!run(gaps).possible) {
      gaps.clear();
      for (const Gap& gap : norms) {
        if (work_ > kMostWork) break;
        gaps.insert(gap);
        if (!run(gaps).possible) gaps.erase(gap);
      }
    }
    now = run(gaps);
    if (now.peak() > plans[0].peak) gaps.clear(), now = run(gaps);
    added.assign(gaps.begin(), gaps.end());
    do plans.push_back({added.size(), now.peak(), now.cost});
    while (improve(gaps, added, now));
    const auto price = [this](const Plan& plan) { return plan.cost + limits_.price * double(plan.peak); };
    const Plan best =
        *std::min_element(plans.begin(), plans.end(), [&](const Plan& a, const Plan& b) { return price(a) < price(b); });
    gaps = {added.begin(), added.begin() + std::ptrdiff_t(best.gaps)};
    for (const Gap& gap : std::set<Gap>(gaps)) {  // without those that later ones made needless
      if (work_ > 2 * kMostWork) break;
      gaps.erase(gap);
      if (const Schedule less = run(gaps); !less.possible || less.peak() > best.peak) gaps.insert(gap);
    }
    return run(gaps);
  }
  int64_t peak_of_all() { return run({}).peak(); }  // where everything is kept
  const std::vector<Value>& values() const { return values_; }
  const std::vector<std::pair<size_t, size_t>>& units() const { return units_; }
  int value_of(int block) const { return block < 0 || size_t(block) >= value_of_.size() ? -1 : value_of_[size_t(block)]; }

 private:
  bool may_be_made(const Step& s) const {
    if (s.device.kind != Device::CPU || !wide_float(s) || s.draw >= 0 || s.check != IndexCheck::None) return false;
    return op_is(s, "batch_norm") ? s.attrs.i[0] != 0 : op_is(s, "conv2d");
  }
  void find_values() {
    const std::vector<int> written = count_writes(p_);
    const int all = int(units_.size());
    for (size_t k = 0; k < p_.steps.size(); k++) {
      const Step& s = p_.steps[k];
      const int out = block_at(p_, s, 0);
      if (!may_be_made(s) || !made_once(p_, written, out) || p_.places[s.first_view].offset || p_.blocks[size_t(out)].slice >= 0)
        continue;
      const bool norm = op_is(s, "batch_norm");
      Value value{out, unit_of_[k], k, all, p_.blocks[size_t(out)].bytes, norm ? 0 : s.workspace, 0, {}};
      const Args args = p_.args_of(s);
      for (int v = 0; v < s.nout + s.nin; v++) {
        const View& view = view_at(p_, s, v);
        if (view.given() && (v == 0 || v >= s.nout)) value.cost += double(view.numel() * itemsize(view.dtype));
      }
      const double operations = norm ? 0 : double(flops_of(*s.op, args));
      value.cost += operations / kOperations;
      bool whole = operations <= limits_.operations * double(value.bytes);
      for (int v = s.nout; whole && v < s.nout + s.nin; v++) {
        const int b = block_at(p_, s, v);
        if (b < 0 || (norm && v != s.nout && v != added(s))) continue;  // the rest is in the factors
        const Block& block = p_.blocks[size_t(b)];
        whole = block.slice < 0 && (block.kind != Block::Internal || made_once(p_, written, b));
        if (block.kind == Block::Internal && value_of_[size_t(b)] >= 0) {
          value.from.push_back(value_of_[size_t(b)]);
          continue;
        }
        int until = block.kind == Block::Internal && block.last >= 0 ? unit_of_[size_t(block.last)] : all;
        for (size_t j = k; block.kind != Block::Internal && j < p_.steps.size() && until == all; j++)
          for (int w = 0; w < p_.steps[j].nout + p_.steps[j].nin; w++)
            if (writes(p_.steps[j], w) && may_overlap(p_, b, block_at(p_, p_.steps[j], w))) until = unit_of_[j];
        value.until = std::min(value.until, until);
      }
      if (!whole) continue;
      value_of_[size_t(out)] = int(values_.size());
      values_.push_back(value);
    }
  }
  // Blocks that are no values: how many bytes of them live at each unit, after elementwise launches have taken over operands.
  void find_others() {
    const auto places = p_.places;
    const auto blocks = p_.blocks;
    reuse_in_place(p_);
    std::vector<int> with(blocks.size());
    for (size_t b = 0; b < blocks.size(); b++) with[b] = int(b);
    for (size_t v = 0; v < places.size(); v++)
      if (const int from = places[v].block, to = p_.places[v].block;
          from >= 0 && value_of_[size_t(from)] < 0 && value_of_[size_t(to)] < 0)
        with[size_t(from)] = to;
    p_.places = places, p_.blocks = blocks;
    std::vector<std::pair<int, int>> life(blocks.size(), {-1, -1});
    for (size_t k = 0; k < p_.steps.size(); k++)
      for (int v = 0; v < p_.steps[k].nout + p_.steps[k].nin; v++)
        if (const int b = block_at(p_, p_.steps[k], v); b >= 0) {
          auto& [first, last] = life[size_t(with[size_t(b)])];
          if (first < 0) first = unit_of_[k];
          last = unit_of_[k];
        }
    others_.resize(units_.size() + 1), begin_.resize(units_.size());
    for (size_t b = 0; b < blocks.size(); b++)
      if (blocks[b].kind == Block::Internal && blocks[b].device.kind == Device::CPU && blocks[b].slice < 0 && value_of_[b] < 0 &&
          life[b].first >= 0)
        begin_[size_t(life[b].first)] += blocks[b].bytes, others_[size_t(life[b].second) + 1] -= blocks[b].bytes;
    for (size_t u = 0; u < units_.size(); u++) others_[u] += begin_[u] + (u ? others_[u - 1] : 0);
    scratch_.resize(units_.size());
    for (size_t k = 0; k < p_.steps.size(); k++)
      if (!p_.steps[k].images) scratch_[size_t(unit_of_[k])] = std::max(scratch_[size_t(unit_of_[k])], p_.steps[k].workspace);
  }

  // The program with these gaps.
  Schedule run(const std::set<Gap>& gaps) {
    Schedule s;
    work_ += int64_t(units_.size());
    std::vector<int> now(values_.size(), -1);  // the instance that is there
    std::vector<std::vector<int>> dropped(units_.size());
    for (const auto& [v, unit] : gaps) dropped[size_t(unit)].push_back(v);
    size_t made = 0;
    const auto make = [&](auto& self, int v, int unit) -> void {
      if (now[size_t(v)] >= 0) return;
      const Value& value = values_[size_t(v)];
      if (value.unit >= unit || value.until < unit) return void(s.possible = value.unit == unit && s.possible);
      for (const int from : value.from) self(self, from, unit);
      const int at = int(s.order.size());
      for (const int from : value.from)
        if (now[size_t(from)] >= 0) s.instances[size_t(now[size_t(from)])].uses.push_back(at);
      s.order.push_back(v), s.unit.push_back(unit);
      s.cost += value.cost;
      now[size_t(v)] = int(s.instances.size());
      s.instances.push_back({v, at, {}});
    };
    for (int u = 0; u < int(units_.size()); u++) {
      for (const int v : reads_[size_t(u)]) make(make, v, u);
      const int at = int(s.order.size());
      s.order.push_back(~u), s.unit.push_back(u);
      for (; made < values_.size() && values_[made].unit == u; made++) {
        now[made] = int(s.instances.size());
        s.instances.push_back({int(made), at, {}});
      }
      for (const int v : reads_[size_t(u)])
        if (now[size_t(v)] >= 0) s.instances[size_t(now[size_t(v)])].uses.push_back(at);
      for (const int v : dropped[size_t(u)])
        if (!reads_[size_t(u)].count(v)) now[size_t(v)] = -1;
    }
    std::vector<int64_t> change(s.order.size() + 1);
    for (const Instance& i : s.instances) {
      const int64_t bytes = values_[size_t(i.value)].bytes;
      change[size_t(i.first)] += bytes, change[size_t(i.uses.empty() ? i.first : i.uses.back()) + 1] -= bytes;
    }
    int64_t all = 0;
    for (size_t k = 0; k < s.order.size(); k++) {
      all += change[k];
      const int u = s.unit[k];
      // before a unit: what lives on both sides of it
      s.live.push_back(all + (s.order[k] < 0 ? others_[size_t(u)] + scratch_[size_t(u)]
                                             : others_[size_t(u)] - begin_[size_t(u)] + values_[size_t(s.order[k])].scratch));
    }
    return s;
  }
  static int highest(const Schedule& s) { return int(std::max_element(s.live.begin(), s.live.end()) - s.live.begin()); }
  // Values that are there at `at`, and not needed.
  std::vector<int> across(const Schedule& s, int at) const {
    std::vector<int> all;
    for (const Instance& i : s.instances)
      if (i.first < at && !i.uses.empty() && i.uses.back() > at && !std::count(i.uses.begin(), i.uses.end(), at) &&
          !reads_[size_t(s.unit[size_t(at)])].count(i.value))
        all.push_back(i.value);
    return all;
  }
  // Adds the gap that saves most bytes near the highest point for its cost; false if there is none.
  bool improve(std::set<Gap>& gaps, std::vector<Gap>& added, Schedule& now) {
    const int at = highest(now);
    const int64_t peak = now.live[size_t(at)], high = peak - peak / 8;
    const auto excess = [&](const Schedule& s) {
      double sum = 0;
      int64_t most = 0;  // of a unit and what is made before it
      for (size_t k = 0; k < s.live.size(); k++) {
        most = std::max(most, s.live[k] - high);
        if (s.order[k] < 0) sum += double(most), most = 0;
      }
      return sum;
    };
    const double before = excess(now);
    double best = 0;
    Gap chosen;
    Schedule next;
    for (const int v : across(now, at)) {
      if (work_ > kMostWork) return false;
      const Gap gap{v, now.unit[size_t(at)]};
      if (!gaps.insert(gap).second) continue;
      Schedule s = run(gaps);
      gaps.erase(gap);
      const double cost = s.cost - now.cost, gain = (before - excess(s)) / std::max(cost, 1.0);
      if (!s.possible || s.peak() > peak || cost > limits_.price * double(values_[size_t(v)].bytes) || gain <= best) continue;
      best = gain, chosen = gap, next = std::move(s);
    }
    if (best <= 0) return false;
    gaps.insert(chosen), added.push_back(chosen), now = std::move(next);
    return true;
  }

  Program& p_;
  const Limits limits_;
  std::vector<std::pair<size_t, size_t>> units_;  // steps of each
  std::vector<int> unit_of_, value_of_;           // of a step, of a block (or -1)
  std::vector<Value> values_;                     // in the order of their steps
  std::vector<std::set<int>> reads_;              // values, of each unit
  std::vector<int64_t> others_, begin_,
      scratch_;  // bytes at a unit: of blocks that are no values, of those that begin, and of kernels
  int64_t work_ = 0;
};

// Step k once more, to another block. A batch_norm needs x, its factors and what it adds only: no sums, no statistics.
Step make_again(Program& p, size_t k) {
  Step s = p.steps[k];
  std::vector<uint32_t> from;
  if (op_is(s, "batch_norm")) {
    from = {s.first_view, s.first_view + s.nout, keep_factors(p, p.steps[k])};
    s = p.steps[k];
    from[0] = s.first_view, from[1] = s.first_view + s.nout;
    if (added(s) >= 0) from.push_back(s.first_view + uint32_t(added(s)));
    s.attrs.i[0] = 0, s.attrs.i[4] = 1;
    s.workspace = 0;
  } else {
    for (int v = 0; v < s.nout + s.nin; v++) from.push_back(s.first_view + uint32_t(v));
  }
  s.nout = 1, s.nin = uint16_t(from.size() - 1);
  s.group = -1, s.images = 0, s.slice_bytes = s.slice_workspace = 0;
  s.first_view = uint32_t(p.views.size());
  for (const uint32_t v : from) {
    const View view = p.views[v];
    const Place place = p.places[v];
    p.views.push_back(view), p.places.push_back(place);
  }
  return s;
}

}  // namespace

// Makes values again, if that lowers the bytes that live at once by a sixteenth.
void recompute_values(Program& p, bool convolutions) {
  find_group_lifetimes(p);
  const std::vector<int64_t> live = live_bytes(p);
  if (live.empty()) return;
  const int64_t peak = *std::max_element(live.begin(), live.end());
  if (peak < kLeastPeak) return;
  std::vector<Limits> limits = {kLimits};
  if (convolutions) limits.assign(std::begin(kMoreLimits), std::end(kMoreLimits));
  std::unique_ptr<Recomputation> plan;
  Schedule schedule;
  double best = 0;
  for (const Limits& l : limits) {
    auto other = std::make_unique<Recomputation>(p, l);
    Schedule found = other->find();
    const double price = found.cost + limits.back().price * double(found.peak());
    if (const int64_t all = other->peak_of_all(); found.peak() > all - all / 16 || (plan && price >= best)) continue;
    best = price, plan = std::move(other), schedule = std::move(found);
  }
  if (!plan) return;
  std::vector<Step> again;
  for (const int v : schedule.order)
    if (v >= 0) again.push_back(make_again(p, plan->values()[size_t(v)].step));
  std::map<int, int> now;  // block of a value -> the one that holds it
  const auto move = [&](const Step& s) {
    for (int v = 0; v < s.nout + s.nin; v++) {
      int& b = p.places[s.first_view + uint32_t(v)].block;
      if (const auto it = now.find(b); it != now.end()) b = it->second;
    }
  };
  std::vector<Step> order;
  size_t next = 0;
  for (const int v : schedule.order) {
    if (v < 0) {
      for (size_t k = plan->units()[size_t(~v)].first; k < plan->units()[size_t(~v)].second; k++)
        move(p.steps[k]), order.push_back(p.steps[k]);
      continue;
    }
    const int b = plan->values()[size_t(v)].block;
    const Block made = p.blocks[size_t(b)];
    now[b] = int(p.blocks.size());
    p.blocks.push_back(made);
    move(again[next]);
    order.push_back(again[next++]);
  }
  p.steps = order;
}

}  // namespace fastdl
