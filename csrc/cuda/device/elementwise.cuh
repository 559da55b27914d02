// The kernel of all elementwise ops, and what launches it.
//
// A formula of csrc/math is instantiated once per type it computes in: float (f32, f16, bf16 and bool in memory), double, int64 and
// uint64 (integers of any size). A thread computes a group of elements: one or two chunks of 16 bytes in that type, or of four
// floats. Each operand has a mode, the same for all threads: a number passed by value, or runs, read by one access per chunk at the
// chunk's own place (dense operands) or at one found by index arithmetic (slices, rows that repeat), or one element for all of a
// chunk (columns that repeat, 0-d tensors). All loads of a group are issued before the first is used. If an operand has none of
// these modes, and in the last block if it is not full, elements go one by one, neighbouring threads at neighbouring elements of
// the output.
//
// Inputs of other dtypes are first cast into the workspace, results of other dtypes cast out of it.
#pragma once
#include "cuda/copy.h"
#include "cuda/device/element.cuh"
#include "math/formula.h"

namespace fastdl {
namespace {

constexpr int kElementwiseThreads = 256;

enum class Mode : uint8_t {
  Value,   // one number, by value
  Linear,  // element i of the walk at i, in runs
  Run,     // runs within the rows of the walk
  Repeat   // one element for each chunk: the rows of this operand repeat it
};

template <class C>
constexpr int kChunk = sizeof(C) == 4 ? 4 : 2;

// ---- device ------------------------------------------------------------------------------------------------------------------
template <class C, int nin>
struct Elementwise {
  static constexpr int kOperands = nin + 1;  // the last is the output
  Walk<kOperands> walk;
  char* data[kOperands];
  C value[nin];
  C params[2];
  DType dtype[kOperands];
  uint8_t item[kOperands];
  Mode mode[kOperands];
  bool any_run;
  bool strided;   // some operand has no mode: element by element
  bool adjacent;  // the chunks of a thread are neighbours: one access for both where that makes at most 16 bytes
};

template <class F>
FD_HOST_DEVICE constexpr int param_count() {
  if constexpr (std::is_base_of_v<Formula, F>)
    return F::kParams;
  else
    return 0;
}
template <class F, int nin, class C>
FD_DEVICE auto apply(const C (&x)[nin], const C* p) {
  constexpr bool with_params = param_count<F>() > 0;
  if constexpr (nin == 1 && with_params)
    return F::of(x[0], p);
  else if constexpr (nin == 1)
    return F::of(x[0]);
  else if constexpr (nin == 2 && with_params)
    return F::of(x[0], x[1], p);
  else if constexpr (nin == 2)
    return F::of(x[0], x[1]);
  else if constexpr (with_params)
    return F::of(x[0], x[1], x[2], p);
  else
    return F::of(x[0], x[1], x[2]);
}

// A group of two chunks at offsets i0 and i1, or of one.
template <class C, int n>
FD_DEVICE void load_group(const char* data, DType d, int item, bool adjacent, int64_t i0, int64_t i1, C (&v)[n]) {
  constexpr int W = kChunk<C>;
  if constexpr (n == W) {
    load_elements(data + i0 * item, d, v);
  } else if (adjacent && item * n <= 16) {
    load_elements(data + i0 * item, d, v);
  } else {
    C low[W], high[W];
    load_elements(data + i0 * item, d, low);
    load_elements(data + i1 * item, d, high);
#pragma unroll
    for (int j = 0; j < W; j++) v[j] = low[j], v[W + j] = high[j];
  }
}
template <class R, int W, int n>
FD_DEVICE void store_group(char* data, DType d, int item, bool adjacent, int64_t i0, int64_t i1, const R (&v)[n]) {
  if constexpr (n == W) {
    store_elements(data + i0 * item, d, v);
  } else if (adjacent && item * n <= 16) {
    store_elements(data + i0 * item, d, v);
  } else {
    R low[W], high[W];
#pragma unroll
    for (int j = 0; j < W; j++) low[j] = v[j], high[j] = v[W + j];
    store_elements(data + i0 * item, d, low);
    store_elements(data + i1 * item, d, high);
  }
}

// R: type of results (bool, or as C). chunks: per thread.
template <class F, class C, class R, int nin, int chunks>
FD_KERNEL(kElementwiseThreads, 4)
elementwise_kernel(const Elementwise<C, nin> job) {
  constexpr int W = kChunk<C>, N = W * chunks;
  constexpr uint32_t kBlock = N * kElementwiseThreads;
  const uint32_t n = job.walk.n, start = blockIdx.x * kBlock;
  if (job.strided || n - start < kBlock) {
#pragma unroll 4
    for (int j = 0; j < N; j++) {
      const uint32_t i = start + j * kElementwiseThreads + threadIdx.x;
      if (i >= n) continue;
      int32_t at[nin + 1];
      locate(job.walk, i, at);
      C v[nin];
#pragma unroll
      for (int k = 0; k < nin; k++) {
        v[k] = job.value[k];
        if (job.mode[k] != Mode::Value) {
          C one[1];
          load_elements(job.data[k] + int64_t(at[k]) * job.item[k], job.dtype[k], one);
          v[k] = one[0];
        }
      }
      const R y[1] = {apply<F>(v, job.params)};
      store_elements(job.data[nin] + int64_t(at[nin]) * job.item[nin], job.dtype[nin], y);
    }
    return;
  }

  const uint32_t i0 = start + threadIdx.x * (job.adjacent ? N : W);
  const uint32_t i1 = i0 + (job.adjacent ? W : W * kElementwiseThreads);  // of the second chunk, if there is one
  int32_t at0[nin + 1] = {}, at1[nin + 1] = {};
  if (job.any_run) {
    locate(job.walk, i0, at0);
    if (chunks == 2) locate(job.walk, i1, at1);
  }
  C x[nin][N];
#pragma unroll
  for (int k = 0; k < nin; k++) {
    if (job.mode[k] == Mode::Value) {
#pragma unroll
      for (int j = 0; j < N; j++) x[k][j] = job.value[k];
    } else if (job.mode[k] == Mode::Repeat) {
      C low[1], high[1];
      load_elements(job.data[k] + int64_t(at0[k]) * job.item[k], job.dtype[k], low);
      load_elements(job.data[k] + int64_t(at1[k]) * job.item[k], job.dtype[k], high);
#pragma unroll
      for (int j = 0; j < N; j++) x[k][j] = j < W ? low[0] : high[0];
    } else {
      const bool run = job.mode[k] == Mode::Run;
      load_group(job.data[k], job.dtype[k], job.item[k], job.adjacent, run ? at0[k] : int64_t(i0), run ? at1[k] : int64_t(i1),
                 x[k]);
    }
  }
  R y[N];
#pragma unroll
  for (int j = 0; j < N; j++) {
    C v[nin];
#pragma unroll
    for (int k = 0; k < nin; k++) v[k] = x[k][j];
    y[j] = apply<F>(v, job.params);
  }
  const bool run = job.mode[nin] == Mode::Run;
  store_group<R, W>(job.data[nin], job.dtype[nin], job.item[nin], job.adjacent, run ? at0[nin] : int64_t(i0),
                    run ? at1[nin] : int64_t(i1), y);
}

// ---- host --------------------------------------------------------------------------------------------------------------------
template <class C, int nin>
using ElementwiseKernel = void (*)(const Elementwise<C, nin>);

inline int64_t padded(int64_t bytes) { return ceil_div(bytes, 256) * 256; }

// `v` without its repeats: what is staged of it.
inline View distinct(View v) {
  for (int d = 0; d < v.ndim; d++)
    if (v.strides[d] == 0) v.shape[d] = 1;
  return v;
}
// A dense view of dtype d in the workspace at `at`, with the shape and the repeats of v.
inline View staged(const View& v, DType d, void* at) {
  View s = distinct(v);
  s.dtype = d, s.data = at;
  set_contiguous_strides(s);
  for (int i = 0; i < v.ndim; i++) {
    if (v.strides[i] == 0) s.strides[i] = 0;
    s.shape[i] = v.shape[i];
  }
  return s;
}
template <class C>
constexpr DType kStageAs = same_type<C, float>    ? DType::float32
                           : same_type<C, double> ? DType::float64
                                                  : DType::int64;
template <>
constexpr DType kStageAs<bool> = DType::bool_;
template <class C>
bool loadable(const Args& a, int k) {
  return a.host_inputs >> k & 1 || kLoadable<C> >> int(a.in[k].dtype) & 1;
}

template <class C, class R, int nin>
int64_t elementwise_workspace(const Args& a) {
  int64_t bytes = 0;
  for (int k = 0; k < nin; k++)
    if (!loadable<C>(a, k)) bytes += padded(distinct(a.in[k]).numel() * int64_t(sizeof(C)));
  if (!(kStorable<R> >> int(a.out[0].dtype) & 1)) bytes += padded(a.out[0].numel() * int64_t(sizeof(R)));
  return bytes;
}

template <class C, int nin>
void launch_elementwise(const Args& a, const View& out, const View* in, int chunks, ElementwiseKernel<C, nin> kernel) {
  constexpr int kOperands = nin + 1;
  const View* views[kOperands];
  for (int k = 0; k < nin; k++) views[k] = &in[k];
  views[nin] = &out;
  Elementwise<C, nin> job{};
  for (int k = 0; k < kOperands; k++) {
    job.dtype[k] = views[k]->dtype;
    job.item[k] = uint8_t(itemsize(views[k]->dtype));
  }
  for (int k = 0; k < nin; k++)
    if (a.host_inputs >> k & 1) cast_number(&job.value[k], dtype_of<C>(), in[k].data, in[k].dtype);
  for (int i = 0; i < 2; i++) job.params[i] = a.attrs ? C(a.attrs->f[i]) : C(0);
  const auto launch = [&](const Plan<kOperands>& p) {
    const auto is_value = [&](int k) { return k < nin && a.host_inputs >> k & 1; };
    int widest = 1;
    for (int k = 0; k < kOperands; k++)
      if (!is_value(k)) widest = int(max_of(widest, job.item[k]));
    job.adjacent = chunks == 2 && 2 * kChunk<C> * widest <= 16;
    const int64_t run = job.adjacent ? 2 * kChunk<C> : kChunk<C>;
    const bool rows = p.ndim == 1 || p.shape[0] % run == 0;  // no chunk crosses the end of a row
    job.any_run = job.strided = false;
    for (int k = 0; k < kOperands; k++) {
      const int64_t bytes = min_of(16, run * job.item[k]);
      bool fits = aligned(p.data[k], bytes);
      if (is_value(k)) {
        job.mode[k] = Mode::Value;
      } else if (fits && p.dense(k)) {
        job.mode[k] = Mode::Linear;
      } else {
        for (int d = 1; d < p.ndim; d++) fits &= p.stride[d][k] * job.item[k] % bytes == 0;
        const bool repeats = k < nin && p.stride[0][k] == 0;
        job.mode[k] = repeats ? Mode::Repeat : Mode::Run;
        job.any_run = true;
        job.strided |= !rows || !(repeats || (fits && p.stride[0][k] == 1));
      }
      job.data[k] = p.data[k];
    }
    job.walk = make_walk(p);
    const int64_t group = int64_t(chunks) * kChunk<C> * kElementwiseThreads;
    FD_LAUNCH(a, kernel, dim3(unsigned(ceil_div(job.walk.n, group))), kElementwiseThreads, 0, job);
  };
  in_parts(make_plan<kOperands>(views), launch);
}

// Casts input k to dtype d in the workspace at `at`: `v` becomes a view of that.
inline void stage_input(const Args& a, int k, DType d, View& v, char*& at) {
  v = staged(a.in[k], d, at);
  const View target = distinct(v);
  at += padded(target.numel() * itemsize(d));
  copy_on_device(a, target, distinct(a.in[k]));
}

template <class C, class R, int nin>
void run_elementwise(const Args& a, int chunks, ElementwiseKernel<C, nin> kernel) {
  if (a.out[0].numel() == 0) return;
  View in[nin], out = a.out[0];
  char* at = static_cast<char*>(a.workspace);
  for (int k = 0; k < nin; k++) {
    in[k] = a.in[k];
    if (!loadable<C>(a, k)) stage_input(a, k, kStageAs<C>, in[k], at);
  }
  const bool direct = kStorable<R> >> int(out.dtype) & 1;
  if (!direct) {
    out.dtype = kStageAs<R>, out.data = at;
    set_contiguous_strides(out);
  }
  launch_elementwise<C, nin>(a, out, in, chunks, kernel);
  if (!direct) copy_on_device(a, a.out[0], out);
}

// A row's function for formula F.
template <class F, class C, class R, int nin, int chunks = 2>
void map_row(const Args& a) {
  run_elementwise<C, R, nin>(a, chunks, elementwise_kernel<F, C, R, nin, chunks>);
}

}  // namespace
}  // namespace fastdl

// Rows of formula F: FD_CUDA_TABLE(unary) = {FD_FLOAT_ROWS(exp, Exp, 1, 1) ..., {}}; chunks: 2 for cheap formulas, 1 for costly
// ones.
#define FD_ELEMENTWISE_ROW(op, mask, F, C, R, nin, chunks) \
  {OpId::op, mask, map_row<F, C, R, nin, chunks>, elementwise_workspace<C, R, nin>},
#define FD_TEST_ROWS(op, F, nin)                          \
  FD_ELEMENTWISE_ROW(op, kF32ish, F, float, bool, nin, 2) \
  FD_ELEMENTWISE_ROW(op, kF64, F, double, bool, nin, 2)
#define FD_FLOAT_ROWS(op, F, nin, chunks)                       \
  FD_ELEMENTWISE_ROW(op, kF32ish, F, float, float, nin, chunks) \
  FD_ELEMENTWISE_ROW(op, kF64, F, double, double, nin, 1)
