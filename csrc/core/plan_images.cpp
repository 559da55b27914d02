// Passes for nets of images. Pooling makes arrays four times smaller and convolution with few input channels makes them many times
// larger: what is done on the small side, or image by image while the large array lies in the cache, need not be done in memory.
#include <algorithm>
#include <atomic>
#include <map>
#include <set>

#include "conv_plan.h"
#include "parallel.h"
#include "plan.h"
#include "threads.h"

namespace fastdl {

namespace {

// Windows side by side that start at the first pixel.
bool windows_tile(const Step& s) {
  const int64_t* i = s.attrs.i;
  return i[0] == i[2] && i[1] == i[3] && i[4] == 0 && i[5] == 0 && i[6] == 1 && i[7] == 1;
}

constexpr int kPlanes = 12;  // attribute of pooling: row-major memory

}  // namespace

// relu_backward(max_pool2d_backward(g, taps), x), where x is the pooled array: the maximum that took a gradient is the pooled
// value, so the same elements are kept by max_pool2d_backward(relu_backward(g, pooled), taps), on a fraction of the elements.
void move_relu_before_pool(Program& p) {
  const std::vector<int> written = count_writes(p), read = count_reads(p);
  std::map<int, size_t> pools, gradients;  // block of taps -> max_pool2d; block of dx -> max_pool2d_backward
  for (size_t k = 0; k < p.steps.size(); k++) {
    Step& s = p.steps[k];
    if (s.device.kind != Device::CPU || !wide_float(s)) continue;
    if (op_is(s, "max_pool2d") && made_once(p, written, block_at(p, s, 1))) pools[block_at(p, s, 1)] = k;
    if (op_is(s, "max_pool2d_backward") && made_once(p, written, block_at(p, s, 0)) && read[block_at(p, s, 0)] == 1)
      gradients[block_at(p, s, 0)] = k;
    if (!op_is(s, "relu_backward")) continue;
    const auto back = gradients.find(block_at(p, s, 1));
    if (back == gradients.end()) continue;
    Step& gradient = p.steps[back->second];
    const auto forward = pools.find(block_at(p, gradient, 2));
    if (forward == pools.end() || gradient.compute != s.compute) continue;
    const Step& pool = p.steps[forward->second];
    const int pooled = block_at(p, pool, 0), source = block_at(p, pool, 2);
    const View &g = view_at(p, gradient, 1), &y = view_at(p, pool, 0);
    const bool whole = same_view(view_at(p, s, 0), view_at(p, gradient, 0)) && same_view(view_at(p, s, 1), view_at(p, gradient, 0));
    if (!whole || !made_once(p, written, pooled) || !made_once(p, written, source) || source != block_at(p, s, 2) ||
        p.places[s.first_view + 2].offset != p.places[pool.first_view + 2].offset ||
        !same_view(view_at(p, s, 2), view_at(p, pool, 2)) || !same_view(g, y) || !dense(g))
      continue;
    // the two steps change places: a new block between them
    Block between;
    between.bytes = g.numel() * itemsize(g.dtype);
    const int block = int(p.blocks.size());
    const View g_view = g, y_view = y;
    const Place g_place = p.places[gradient.first_view + 1], y_place = p.places[pool.first_view];
    p.blocks.push_back(between);
    Step relu = s;
    relu.first_view = uint32_t(p.views.size());
    for (const View& v : {g_view, g_view, y_view}) p.views.push_back(v);
    p.places.insert(p.places.end(), {Place{block, 0}, g_place, y_place});
    p.views[gradient.first_view] = p.views[s.first_view];
    p.places[gradient.first_view] = p.places[s.first_view];
    p.views[gradient.first_view + 1] = g_view;
    p.places[gradient.first_view + 1] = {block, 0};
    const Step moved = gradient;
    p.steps[back->second] = relu;
    p.steps[k] = moved;
    gradients.erase(back);
  }
}

// conv2d_backward_weight of the gradient that max_pool2d_backward spreads, for a first layer (nothing else reads it): the kernel
// spreads it itself, row by row, and gets the pooled gradient, x, the taps, and in i9 .. i12 the window and the size of the rows.
void fuse_pooled_gradients(Program& p) {
  const std::vector<int> written = count_writes(p), read = count_reads(p);
  std::vector<bool> dead(p.steps.size());
  std::map<int, size_t> spread;
  for (size_t k = 0; k < p.steps.size(); k++) {
    Step& s = p.steps[k];
    if (s.device.kind != Device::CPU || !wide_float(s)) continue;
    if (op_is(s, "max_pool2d_backward") && windows_tile(s) && !s.attrs.i[kPlanes] && made_once(p, written, block_at(p, s, 0)) &&
        read[block_at(p, s, 0)] == 1)
      spread[block_at(p, s, 0)] = k;
    if (!op_is(s, "conv2d_backward_weight") || s.nin != 2) continue;
    const auto it = spread.find(block_at(p, s, 2));
    if (it == spread.end()) continue;
    const Step& pool = p.steps[it->second];
    const View &dw = view_at(p, s, 0), &g = view_at(p, s, 2), &x = view_at(p, s, 3);
    if (pool.compute != s.compute || dw.dtype != s.compute || !same_view(g, view_at(p, pool, 0)) ||
        written[block_at(p, pool, 1)] > 1 || written[block_at(p, pool, 2)] != 1)
      continue;
    const ConvShape shape = conv_shape(s.attrs, x, dw, g);
    if (shape.batch == 0 || !conv_weight_spreads(shape, itemsize(s.compute))) continue;
    const uint32_t first = uint32_t(p.views.size());
    for (int v = 0; v < 5; v++) {  // dw, db, g, x, taps
      const uint32_t at = v == 2 ? pool.first_view + 1 : v == 4 ? pool.first_view + 2 : s.first_view + uint32_t(v);
      const View view = p.views[at];
      p.views.push_back(view);
      p.places.push_back(p.places[at]);
    }
    s.first_view = first;
    s.nin = 3;
    for (int axis = 0; axis < 2; axis++) s.attrs.i[9 + axis] = pool.attrs.i[axis], s.attrs.i[11 + axis] = shape.out[axis];
    dead[it->second] = true;
    spread.erase(it);
  }
  erase_steps(p, dead);
}

// ---- image by image ----------------------------------------------------------------------------------------------------------

namespace {

constexpr int64_t kSliceBytes = 256 << 10;      // of the largest array in one slice: two or three of them stay in L2
constexpr int64_t kLeastHandover = 512 << 10;   // of an array between two steps, for slices to be worth it
constexpr int64_t kMostWeightBytes = 64 << 10;  // that a convolution would read, and pack, for each slice

int64_t bytes_of_view(const View& v) { return v.numel() * itemsize(v.dtype); }

// The array lies image behind image: a slice of images is a run of memory.
bool by_images(const View& v, int64_t images) {
  return v.given() && v.ndim == 4 && v.shape[0] == images && dense(v) && v.numel() > 0 && v.strides[0] == v.numel() / images;
}

// Whether step s may be run on some of the images at a time; bit k of `whole` is set where view k is handed over unchanged.
bool image_wise(const Program& p, const Step& s, int64_t images, uint32_t* whole) {
  *whole = 0;
  if (s.device.kind != Device::CPU || s.nout + s.nin > kMaxIn + kMaxOut || s.check != IndexCheck::None || s.draw >= 0) return false;
  int sliced = s.nout + s.nin;
  if (op_is(s, "conv2d")) {
    const View &x = view_at(p, s, 1), &w = view_at(p, s, 2);
    if (x.ndim != 4 || x.shape[1] > 4 || bytes_of_view(w) > kMostWeightBytes || view_at(p, s, 0).dtype != s.compute) return false;
    sliced = 2, *whole = 4 | 8;
  } else if (!family_is(s, "pool2d") && !family_is(s, "pool2d_backward") && !op_is(s, "copy") && !is_elementwise(*s.op)) {
    return false;
  }
  for (int v = 0; v < sliced; v++) {
    const View& view = view_at(p, s, v);
    if (v >= s.nout && is_elementwise(*s.op) && view.given() && is_number(view))
      *whole |= 1u << v;
    else if (!by_images(view, images))
      return false;
  }
  return true;
}

}  // namespace

void group_images(Program& p) {
  int32_t groups = 0;
  for (const Step& s : p.steps) groups = std::max(groups, s.group + 1);
  const std::vector<int> written = count_writes(p);
  find_lifetimes(p);
  for (size_t k = 0; k < p.steps.size(); k++) {
    if (p.steps[k].group >= 0) continue;
    const View& like = view_at(p, p.steps[k], 0);
    const int64_t images = like.given() && like.ndim == 4 ? like.shape[0] : 0;
    if (images < 2) continue;
    size_t end = k;
    int64_t handed = 0, largest = 0;
    uint32_t whole;
    std::set<int> made;  // blocks that the group writes, slice by slice
    while (end < p.steps.size() && p.steps[end].group < 0 && image_wise(p, p.steps[end], images, &whole)) {
      const Step& s = p.steps[end];
      int64_t taken = 0;
      bool fits = true;
      for (int v = 0; v < s.nout + s.nin; v++) {
        const int b = block_at(p, s, v);
        if (b < 0) continue;
        const bool fresh = p.blocks[b].first == int32_t(end) && written[b] == 1;  // the step is its first use, and only writer
        if (v < s.nout ? !fresh || p.places[s.first_view + uint32_t(v)].offset : made.count(b) && whole >> v & 1) fits = false;
        if (v >= s.nout && made.count(b)) {
          if (p.places[s.first_view + uint32_t(v)].offset) fits = false;
          taken += bytes_of_view(view_at(p, s, v));
        }
      }
      if (!fits || (end > k && taken == 0)) break;
      handed += taken;
      for (int v = 0; v < s.nout + s.nin; v++) {
        if (!(whole >> v & 1)) largest = std::max(largest, bytes_of_view(view_at(p, s, v)));
        if (v < s.nout && block_at(p, s, v) >= 0) made.insert(block_at(p, s, v));
      }
      end++;
    }
    if (end - k < 2 || handed < kLeastHandover) continue;
    const int64_t slice = std::min(std::max<int64_t>(1, images / 16), std::max<int64_t>(1, kSliceBytes / (largest / images + 1)));
    int64_t bytes = 0, workspace = 0;
    const auto rounded = [](int64_t n) { return (n + 127) / 64 * 64; };  // and room to prefetch beyond the end
    for (size_t j = k; j < end; j++) {
      Step& s = p.steps[j];
      s.group = groups, s.images = int32_t(slice);
      workspace = std::max(workspace, s.workspace);
      const int b = block_at(p, s, 0);
      for (int v = 0; v < s.nout; v++)
        if (const int out = block_at(p, s, v); out >= 0) {
          Block& made = p.blocks[out];
          if (made.kind != Block::Internal || made.last >= int32_t(end) || (v > 0 && out == b)) continue;
          made.slice = bytes;  // nobody else needs it: it never exists as a whole
          bytes += rounded(bytes_of_view(view_at(p, s, v)) / images * slice);
        }
    }
    for (size_t j = k; j < end; j++) p.steps[j].slice_bytes = bytes, p.steps[j].slice_workspace = workspace;
    groups++;
    k = end - 1;
  }
}

namespace {

struct Slices {
  int64_t chunks, each, places;  // each: bytes of a place
};

Slices slices_of(const Program& p, const Step& head) {
  const int64_t images = p.views[head.first_view].shape[0], slice = head.images, chunks = (images + slice - 1) / slice;
  const int64_t each = (head.slice_bytes + head.slice_workspace + 63) / 64 * 64 + 64;
  return {chunks, each, std::min<int64_t>(chunks, num_threads())};
}

}  // namespace

void reserve_slices(Program& p) {
  int64_t most = 0;
  for (const Step& s : p.steps)
    if (s.images) {
      const Slices n = slices_of(p, s);
      most = std::max(most, n.each * n.places);
    }
  if (most) p.slice_memory(most);
}

// Scratch for the slices: as many places as threads can be at work, taken and given back slice by slice.
void run_images(Program& p, size_t first, size_t end) {
  const Step& head = p.steps[first];
  const int64_t images = p.views[head.first_view].shape[0], slice = head.images;
  const Slices n = slices_of(p, head);
  char* const memory = p.slice_memory(n.each * n.places);
  std::atomic<bool> taken[kMaxThreads] = {};
  parallel_chunks(n.chunks, [&](int64_t chunk) {
    int64_t place = 0;
    while (taken[place].exchange(true, std::memory_order_acquire)) place = (place + 1) % n.places;
    char* const own = memory + place * n.each;
    const int64_t from = chunk * slice, count = std::min(slice, images - from);
    for (size_t k = first; k < end; k++) {
      const Step& s = p.steps[k];
      View views[kMaxIn + kMaxOut];
      for (int v = 0; v < s.nout + s.nin; v++) {
        View& view = views[v] = p.views[s.first_view + uint32_t(v)];
        if (!view.given() || (op_is(s, "conv2d") && v > 1)) continue;
        const bool number = v >= s.nout && is_number(view);
        if (view.ndim == 4 && view.shape[0] == images) view.shape[0] = count;
        const int b = block_at(p, s, v);
        if (b >= 0 && p.blocks[b].slice >= 0)
          view.data = own + p.blocks[b].slice;
        else if (!number)
          view.data = static_cast<char*>(view.data) + from * view.strides[0] * itemsize(view.dtype);
      }
      s.fn(Args{views, views + s.nout, &s.attrs, own + head.slice_bytes, s.nout, s.nin});
    }
    taken[place].store(false, std::memory_order_release);
  });
}

}  // namespace fastdl
