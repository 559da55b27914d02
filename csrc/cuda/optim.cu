// Optimiser steps (math/optim.h), in place, one pass over memory: every array is read and written once, 16 bytes per thread and
// access where all lie one element behind the other in the same order.
//
// Hyper-parameters are a host vector, read at launch, or device memory, read by the kernel: then a captured launch sees new
// learning rates and step numbers.
#include <utility>

#include "cuda/device/pack.cuh"
#include "cuda/device/walk.cuh"
#include "math/optim.h"

namespace fastdl {
namespace {

constexpr int kThreads = 256;

// The arrays of an op: parameter, gradient, then state; null for those not in use.
template <class T, int N>
struct Arrays {
  T* data[N];
  int64_t n;
  bool aligned;
};

// One element of each array; update() writes back all but the gradient.
template <class T>
struct Sgd {
  static constexpr int kArrays = 3;
  using Step = SgdStep<T>;
  static FD_DEVICE void update(const Step& step, T (&v)[kArrays], const bool (&used)[kArrays]) {
    if (used[2] && step.moving)
      step.with_buffer(v[0], v[1], v[2]);
    else
      step.plain(v[0], v[1]);
  }
};
template <class T>
struct Adam {
  static constexpr int kArrays = 5;
  using Step = AdamStep<T>;
  static FD_DEVICE void update(const Step& step, T (&v)[kArrays], const bool (&used)[kArrays]) {
    step.update(v[0], v[1], v[2], v[3], v[4], used[4]);
  }
};
template <class T>
struct Rmsprop {
  static constexpr int kArrays = 5;
  using Step = RmspropStep<T>;
  static FD_DEVICE void update(const Step& step, T (&v)[kArrays], const bool (&used)[kArrays]) {
    step.update(v[0], v[1], v[2], v[3], used[3] && step.moving, v[4], used[4]);
  }
};

// The step of device memory, made by one thread for its block.
template <class Step>
FD_DEVICE Step block_step(const Step& step, const double* hyper) {
  if (!hyper) return step;
  Step& s = shared_memory<Step>();
  if (threadIdx.x == 0) s = Step(hyper);
  sync_block();
  return s;
}

// The elements of one pack, from place `at` on.
template <class Rule, class T>
FD_DEVICE void update_pack(T* const (&data)[Rule::kArrays], const bool (&used)[Rule::kArrays], int64_t at, int64_t count,
                           bool aligned, const typename Rule::Step& step) {
  constexpr int N = Rule::kArrays;
  Pack<T> p[N];
#pragma unroll
  for (int a = 0; a < N; a++) p[a] = used[a] ? load_pack(data[a] + at, count, aligned) : Pack<T>{};
#pragma unroll
  for (int k = 0; k < kPack<T>; k++) {
    T v[N];
#pragma unroll
    for (int a = 0; a < N; a++) v[a] = p[a].v[k];
    Rule::update(step, v, used);
#pragma unroll
    for (int a = 0; a < N; a++) p[a].v[k] = v[a];
  }
#pragma unroll
  for (int a = 0; a < N; a++)
    if (a != 1 && used[a]) store_pack(data[a] + at, p[a], count, aligned);
}

template <class Rule, class T>
FD_KERNEL(kThreads, 3)
dense_kernel(Arrays<T, Rule::kArrays> arrays, typename Rule::Step by_value, const double* hyper) {
  constexpr int N = Rule::kArrays;
  const typename Rule::Step step = block_step(by_value, hyper);
  bool used[N];
#pragma unroll
  for (int a = 0; a < N; a++) used[a] = arrays.data[a] != nullptr;
  for (int64_t g = blockIdx.x * int64_t(kThreads) + threadIdx.x; g * kPack<T> < arrays.n; g += int64_t(gridDim.x) * kThreads) {
    const int64_t at = g * kPack<T>;
    update_pack<Rule, T>(arrays.data, used, at, arrays.n - at, arrays.aligned, step);
  }
}

template <class Rule, class T>
FD_KERNEL(kThreads, 3)
strided_kernel(Arrays<T, Rule::kArrays> arrays, Walk<Rule::kArrays> walk, typename Rule::Step by_value, const double* hyper) {
  constexpr int N = Rule::kArrays;
  const typename Rule::Step step = block_step(by_value, hyper);
  bool used[N];
#pragma unroll
  for (int a = 0; a < N; a++) used[a] = arrays.data[a] != nullptr;
  for (uint32_t i = blockIdx.x * uint32_t(kThreads) + threadIdx.x; i < uint32_t(walk.n); i += gridDim.x * uint32_t(kThreads)) {
    int32_t at[N];
    locate(walk, i, at);
    T v[N];
#pragma unroll
    for (int a = 0; a < N; a++) v[a] = used[a] ? arrays.data[a][at[a]] : T(0);
    Rule::update(step, v, used);
#pragma unroll
    for (int a = 0; a < N; a++)
      if (a != 1 && used[a]) arrays.data[a][at[a]] = v[a];
  }
}

// Several parameters in one launch: a table by value of the arrays of each, and the number of its first chunk. A block does one
// chunk of one parameter, so that a model of many small parameters costs few launches, and a large one is spread over the device.
constexpr int kTableSize = 48;
constexpr int64_t kChunk = 16 * 1024;  // elements
template <class T, int N>
struct Table {
  Arrays<T, N> arrays[kTableSize];
  uint32_t first_chunk[kTableSize + 1];
  int count;
};

template <class Rule, class T>
FD_KERNEL(kThreads, 3)
many_kernel(Table<T, Rule::kArrays> table, typename Rule::Step by_value, const double* hyper) {
  constexpr int N = Rule::kArrays;
  const typename Rule::Step step = block_step(by_value, hyper);
  int low = 0, high = table.count;  // the last parameter whose first chunk is not behind this one
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (table.first_chunk[middle] <= blockIdx.x)
      low = middle;
    else
      high = middle;
  }
  const Arrays<T, N>& arrays = table.arrays[low];
  const int64_t begin = int64_t(blockIdx.x - table.first_chunk[low]) * kChunk, end = min_of(begin + kChunk, arrays.n);
  bool used[N];
#pragma unroll
  for (int a = 0; a < N; a++) used[a] = arrays.data[a] != nullptr;
  for (int64_t at = begin + threadIdx.x * kPack<T>; at < end; at += kThreads * kPack<T>)
    update_pack<Rule, T>(arrays.data, used, at, arrays.n - at, arrays.aligned, step);
}

// The arrays of a call if all are dense in the parameter's order.
template <class Rule, class T>
bool dense_arrays(const Args& args, Arrays<T, Rule::kArrays>* arrays) {
  constexpr int N = Rule::kArrays;
  const View& param = args.in[0];
  *arrays = {{}, param.numel(), true};
  for (int a = 0; a < N; a++) {
    const View& v = args.in[a];
    arrays->data[a] = v.given() ? v.ptr<T>() : nullptr;
    arrays->aligned &= is_aligned(arrays->data[a]);
    if (v.given() && !v.contiguous()) return false;
  }
  return true;
}

template <template <class> class Op, class T>
void row(const Args& args);

// Neighbours in the list that share their hyper-parameters go together.
template <template <class> class Op, class T>
void many(const Args* calls, int n) {
  using Rule = Op<T>;
  constexpr int N = Rule::kArrays;
  Table<T, N> table;
  table.count = 0;
  table.first_chunk[0] = 0;
  const Args* head = nullptr;
  const auto flush = [&] {
    if (table.count == 0) return;
    const bool on_host = head->host_inputs >> N & 1;
    const double* hyper = head->in[N].ptr<const double>();
    typename Rule::Step step{};
    if (on_host) step = typename Rule::Step(hyper);
    FD_LAUNCH(*head, (many_kernel<Rule, T>), table.first_chunk[table.count], kThreads, on_host ? 0 : sizeof step, table, step,
              on_host ? nullptr : hyper);
    table.count = 0;
  };
  for (int k = 0; k < n; k++) {
    Arrays<T, N> arrays;
    const int64_t chunks = ceil_div(calls[k].in[0].numel(), kChunk);
    if (chunks == 0) continue;
    if (chunks > kMaxGrid / kTableSize || !dense_arrays<Rule, T>(calls[k], &arrays)) {
      row<Op, T>(calls[k]);
      continue;
    }
    if (table.count && (table.count == kTableSize || head->in[N].data != calls[k].in[N].data)) flush();
    if (table.count == 0) head = &calls[k];
    table.arrays[table.count] = arrays;
    table.first_chunk[table.count + 1] = table.first_chunk[table.count] + uint32_t(chunks);
    table.count++;
  }
  flush();
}

template <template <class> class Op, class T>
void row(const Args& args) {
  using Rule = Op<T>;
  constexpr int N = Rule::kArrays;
  const View &param = args.in[0], &hyper = args.in[N];
  Arrays<T, N> arrays{{}, param.numel(), true};
  if (arrays.n == 0) return;
  const View* views[N];
  bool dense = true;
  for (int a = 0; a < N; a++) {
    const View& v = args.in[a];
    views[a] = v.given() ? &v : &param;
    arrays.data[a] = v.given() ? v.ptr<T>() : nullptr;
    arrays.aligned &= is_aligned(arrays.data[a]);
  }
  std::swap(views[0], views[N - 1]);  // a plan follows the memory of its last view: the parameter
  Plan<N> plan = make_plan(views);
  for (int k = 0; k < N; k++) dense &= plan.ndim == 1 && plan.stride[0][k] == 1;
  const bool on_host = args.host_inputs >> N & 1;
  typename Rule::Step step{};
  if (on_host) step = typename Rule::Step(hyper.ptr<const double>());
  const double* in_memory = on_host ? nullptr : hyper.ptr<const double>();
  const size_t shared = on_host ? 0 : sizeof step;
  if (dense) {
    const uint32_t grid = stride_grid(args.device, ceil_div(arrays.n, kPack<T>), kThreads);
    return FD_LAUNCH(args, (dense_kernel<Rule, T>), grid, kThreads, shared, arrays, step, in_memory);
  }
  in_parts(plan, [&](const Plan<N>& part) {
    Walk<N> walk = make_walk(part);
    for (int d = 0; d < walk.ndim; d++) std::swap(walk.stride[d][0], walk.stride[d][N - 1]);
    Arrays<T, N> at = arrays;
    for (int a = 0; a < N; a++)
      if (arrays.data[a]) at.data[a] = reinterpret_cast<T*>(part.data[a == 0 ? N - 1 : a == N - 1 ? 0 : a]);
    FD_LAUNCH(args, (strided_kernel<Rule, T>), stride_grid(args.device, walk.n, kThreads), kThreads, shared, at, walk, step,
              in_memory);
  });
}

}  // namespace

FD_CUDA_TABLE(optim) = {{OpId::sgd_step, kF32, row<Sgd, float>, nullptr, many<Sgd, float>},
                        {OpId::sgd_step, kF64, row<Sgd, double>, nullptr, many<Sgd, double>},
                        {OpId::adam_step, kF32, row<Adam, float>, nullptr, many<Adam, float>},
                        {OpId::adam_step, kF64, row<Adam, double>, nullptr, many<Adam, double>},
                        {OpId::rmsprop_step, kF32, row<Rmsprop, float>, nullptr, many<Rmsprop, float>},
                        {OpId::rmsprop_step, kF64, row<Rmsprop, double>, nullptr, many<Rmsprop, double>},
                        {}};

}  // namespace fastdl
