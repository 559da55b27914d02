// Elementwise launches on the result of a product or convolution become its epilogue, which works on values that are in a near
// cache:
//   linear or conv2d, then an activation. Where its gradient needs the activation's argument, linear writes that, too;
//   matmul, then the derivative of an activation: the gradient by a layer's input, on its way through the activation before it.
#include <map>

#include "activations.h"
#include "plan.h"

namespace fastdl {

namespace {

// The activation that s is, or whose derivative it is; kNone: neither.
int64_t activation_of(const Step& s, const char* suffix) {
  for (int64_t code = kNone + 1; code < kActivations; code++) {
    const size_t length = std::strlen(kActivationNames[code]);
    if (!std::strncmp(s.op->name, kActivationNames[code], length) && !std::strcmp(s.op->name + length, suffix)) return code;
  }
  return kNone;
}

// Whether step k may run together with step j before it, whose result, block `made`, it reads: nothing on the way writes what it
// reads, or reads or writes what it writes, or may refuse its indices before that; nor does it write over what it reads.
bool moves_up(const Program& p, size_t k, size_t j, int made) {
  const Step& s = p.steps[k];
  const int to = block_at(p, s, 0);
  for (int v = s.nout; v < s.nout + s.nin; v++)
    if (may_overlap(p, to, block_at(p, s, v))) return false;
  for (size_t m = j; m < k; m++) {
    const Step& other = p.steps[m];
    if (other.check == IndexCheck::At && p.blocks[size_t(to)].kind != Block::Internal) return false;
    for (int v = 0; v < s.nout + s.nin; v++)
      for (int w = 0; w < other.nout + other.nin; w++)
        if (block_at(p, s, v) != made && (writes(s, v) || writes(other, w)) &&
            may_overlap(p, block_at(p, s, v), block_at(p, other, w)))
          return false;
  }
  return true;
}

// The result of s moves into step `product`, as its result.
void take_result(Program& p, Step& product, const Step& s) {
  p.views[product.first_view] = p.views[s.first_view];
  p.places[product.first_view] = p.places[s.first_view];
}

}  // namespace

void fuse_epilogues(Program& p) {
  const std::vector<int> written = count_writes(p), read = count_reads(p);
  std::vector<bool> dead(p.steps.size());
  std::map<int, size_t> products;  // block -> the step that makes it, without epilogue
  for (size_t k = 0; k < p.steps.size(); k++) {
    const Step& s = p.steps[k];
    const bool linear = op_is(s, "linear"), conv = op_is(s, "conv2d");
    if (linear || conv || op_is(s, "matmul")) {
      if (s.attrs.i[conv ? 7 : 0] == kNone && made_once(p, written, block_at(p, s, 0))) products[block_at(p, s, 0)] = k;
      continue;
    }
    const int64_t forward = activation_of(s, ""), backward = activation_of(s, "_backward");
    if ((!forward && !backward) || !wide_float(s)) continue;
    const int from = block_at(p, s, s.nout), to = block_at(p, s, 0);
    const auto it = products.find(from);
    if (it == products.end() || to < 0 || written[to] != 1) continue;
    Step& product = p.steps[it->second];
    const bool only_reader = read[from] == 1, on_cpu = s.device.kind == Device::CPU;
    const View result = view_at(p, product, 0);
    bool fits = product.compute == s.compute && moves_up(p, k, it->second, from);
    for (int v = 0; v < s.nout + s.nin; v++) fits = fits && same_view(result, view_at(p, s, v));
    if (!fits) continue;
    if (op_is(product, "matmul")) {
      if (!backward || !only_reader || !on_cpu) continue;
      const View beside = view_at(p, s, 2);
      const Place place = p.places[s.first_view + 2];
      extend(p, product, nullptr, {}, &beside, place);
      product.attrs.i[0] = backward;
    } else {
      if (!forward) continue;
      if (!only_reader) {
        if (forward < kGelu || !on_cpu || !op_is(product, "linear")) continue;
        const Place place = p.places[product.first_view];
        extend(p, product, &result, place, nullptr, {});
      }
      product.attrs.i[op_is(product, "linear") ? 0 : 7] = forward;
    }
    take_result(p, product, s);
    products.erase(it);
    dead[k] = true;
  }
  erase_steps(p, dead);
}

}  // namespace fastdl
