#include "launch.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>

#include "record.h"

namespace fastdl {

bool profiling = false;

namespace {
constexpr size_t kMaxTimings = 1000000;
std::vector<Timing> timings;
std::mutex timing_mutex;
double profile_start = 0;
std::atomic<uint64_t> thread_count{0};
thread_local uint64_t thread_number = 0;

int64_t numel(const View& v) { return v.given() ? v.numel() : 0; }
}  // namespace

double now_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

int64_t bytes_of(const Args& args) {
  int64_t bytes = 0;
  for (int k = 0; k < args.nout + args.nin; k++) {
    const View& v = k < args.nout ? args.out[k] : args.in[k - args.nout];
    if (!v.given()) continue;
    int64_t n = itemsize(v.dtype);  // repeated elements are read once
    for (int d = 0; d < v.ndim; d++)
      if (v.strides[d] != 0 || v.shape[d] == 0) n *= v.shape[d];
    bytes += n;
  }
  return bytes;
}

namespace {

// Products of attention, forward or (first = 1: the gradient is the first input) backward: scores that are masked do not count.
int64_t attention_flops(const Args& a, int first) {
  const View &q = a.in[first], &k = a.in[first + 1], &v = a.in[first + 2];
  const int64_t queries = q.shape[q.ndim - 2], keys = k.shape[k.ndim - 2], width = q.shape[q.ndim - 1],
                values = v.shape[v.ndim - 1];
  const int64_t heads = queries && width ? numel(q) / (queries * width) : 0, most = queries < keys ? queries : keys;
  const int64_t pairs = a.attrs->i[0] ? most * (most + 1) / 2 + (queries - most) * keys : queries * keys;
  return 2 * heads * pairs * (first ? 3 * width + 2 * values : width + values);
}

}  // namespace

int64_t flops_of(const OpInfo& op, const Args& a) {
  const auto is = [&op](const char* name) { return !std::strcmp(op.name, name); };
  if (is("matmul")) return 2 * numel(a.out[0]) * a.in[0].shape[a.in[0].ndim - 1];
  if (is("linear")) return 2 * numel(a.out[0]) * a.in[1].shape[1];
  if (is("linear_backward_weight")) return 2 * numel(a.in[0]) * a.out[0].shape[1];
  if (is("conv2d")) return 2 * numel(a.out[0]) * (numel(a.in[1]) / (a.in[1].shape[0] ? a.in[1].shape[0] : 1));
  if (is("conv2d_backward_input")) return 2 * numel(a.in[0]) * (numel(a.in[1]) / (a.in[1].shape[0] ? a.in[1].shape[0] : 1));
  if (is("conv2d_backward_weight")) {
    const int64_t filter = numel(a.out[0]) / (a.out[0].shape[0] ? a.out[0].shape[0] : 1);
    if (a.nin == 3)
      return 2 * a.in[0].shape[0] * a.in[0].shape[1] * a.attrs->i[11] * a.attrs->i[12] * filter;  // see plan_images.cpp
    return 2 * numel(a.in[0]) * filter;
  }
  if (is("attention")) return attention_flops(a, 0);
  if (is("attention_backward")) return attention_flops(a, 1);
  return numel(a.out[0]);
}

void note_time(const OpInfo& op, DType compute, const Args& args, double start, double end) {
  if (!thread_number) thread_number = ++thread_count;
  Timing t{&op,
           compute,
           start - profile_start,
           end - start,
           bytes_of(args),
           flops_of(op, args),
           {-1, -1, -1, -1},
           thread_number,
           args.device != nullptr};
  const View& v = args.out[0];
  for (int d = 0; d < 4 && d < v.ndim; d++) t.shape[d] = v.shape[d];
  const std::lock_guard<std::mutex> guard(timing_mutex);
  if (timings.size() < kMaxTimings) timings.push_back(t);
}

void start_profile() {
  const std::lock_guard<std::mutex> guard(timing_mutex);
  timings.clear();
  profile_start = now_seconds();
  profiling = true;
}
const std::vector<Timing>& stop_profile() {
  profiling = false;
  return timings;
}

void run_kernel(const OpInfo& op, KernelFn fn, DType compute, const Args& args) {
  if (__builtin_expect(profiling, 0)) {
    const double start = now_seconds();
    fn(args);
    return note_time(op, compute, args, start, now_seconds());
  }
  fn(args);
}

void launch(const OpInfo& op, KernelFn fn, DType compute, const Args& args, int64_t workspace_bytes) {
  if (__builtin_expect(recorders != 0, 0) && recorder) recorder->append(op, fn, compute, args, workspace_bytes);
  run_kernel(op, fn, compute, args);
}

}  // namespace fastdl
