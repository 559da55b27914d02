// Optimiser steps (math/optim.h), in place, one pass over memory: per element a step of Adam reads 4 values and writes 3, and does
// nothing else, where a step built from single ops moves each value several times.
//
// Hyper-parameters come in a float64 tensor that is read when the kernel runs: a recorded step sees new learning rates and step
// numbers.
#include "cpu/isa/kernel.h"
#include "math/optim.h"

namespace fastdl {
namespace {

constexpr int64_t kGrain = 16384;  // elements per chunk
constexpr int kPiece = 256;        // elements gathered at a time where memory is strided
constexpr int kAhead = 1024;       // bytes: with so many streams the hardware prefetches too late by itself

// N arrays of equal shape, walked in the memory order of the first one; dims that lie one behind the other in all are merged.
template <class T, int N>
struct Arrays {
  T* data[N];
  int dims = 0;
  int64_t size[kMaxDims], stride[kMaxDims][N];

  explicit Arrays(const View* const (&views)[N]) {
    const View& first = *views[0];
    int order[kMaxDims];
    for (int d = 0; d < first.ndim; d++) {  // insertion sort, greatest stride first
      int at = d;
      for (; at > 0 && first.strides[order[at - 1]] < first.strides[d]; at--) order[at] = order[at - 1];
      order[at] = d;
    }
    for (int a = 0; a < N; a++) data[a] = views[a]->template ptr<T>();
    for (int k = 0; k < first.ndim; k++) {
      const int d = order[k];
      const int64_t n = first.shape[d];
      if (n == 1) continue;
      bool joins = dims > 0;
      for (int a = 0; a < N && joins; a++) joins = stride[dims - 1][a] == views[a]->strides[d] * n;
      if (!joins) size[dims++] = 1;
      size[dims - 1] *= n;
      for (int a = 0; a < N; a++) stride[dims - 1][a] = views[a]->strides[d];
    }
    if (dims == 0) {  // one element
      size[dims++] = 1;
      for (int a = 0; a < N; a++) stride[0][a] = 1;
    }
  }
};

// f(v) updates a vector of each array in place: v[0] the parameter, v[1] the gradient (not stored), then the optimiser's state.
// By value, so that its numbers stay in registers: a store through T* might change what lies behind a reference.
template <class T, int N, class F>
FD_INLINE void update_dense(T* const (&p)[N], int64_t n, F f) {
  constexpr int size = Vec<T>::size;
  Vec<T> v[N];
  int64_t i = 0;
  for (; i + size <= n; i += size) {
    for (int a = 0; a < N; a++) __builtin_prefetch(reinterpret_cast<const char*>(p[a] + i) + kAhead), v[a] = load(p[a] + i);
    f(v);
    for (int a = 0; a < N; a++)
      if (a != 1) store(p[a] + i, v[a]);
  }
  if (i == n) return;
  const int rest = int(n - i);
  for (int a = 0; a < N; a++) v[a] = load_partial(p[a] + i, rest);
  f(v);
  for (int a = 0; a < N; a++)
    if (a != 1) store_partial(p[a] + i, v[a], rest);
}

template <class T, int N, class F>
void update(const View* const (&views)[N], const F& f) {
  const int64_t n = views[0]->numel();
  if (n == 0) return;
  const Arrays<T, N> arrays(views);
  const int last = arrays.dims - 1;
  const auto& step = arrays.stride[last];
  bool dense = true;
  for (int a = 0; a < N; a++) dense &= step[a] == 1;
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t line = begin / arrays.size[last], at = begin - line * arrays.size[last];
      T* p[N];
      int64_t rest = line;
      for (int a = 0; a < N; a++) p[a] = arrays.data[a] + at * step[a];
      for (int d = last - 1; d >= 0; d--) {
        const int64_t q = rest / arrays.size[d], r = rest - q * arrays.size[d];
        for (int a = 0; a < N; a++) p[a] += r * arrays.stride[d][a];
        rest = q;
      }
      int64_t length = min_of(arrays.size[last] - at, end - begin);
      if (dense) {
        update_dense<T, N>(p, length, f);
      } else {
        length = min_of<int64_t>(length, kPiece);
        alignas(64) T piece[N][kPiece];
        T* q[N];
        for (int a = 0; a < N; a++) {
          q[a] = piece[a];
          for (int64_t j = 0; j < length; j++) piece[a][j] = p[a][j * step[a]];
        }
        update_dense<T, N>(q, length, f);
        for (int a = 0; a < N; a++)
          if (a != 1)
            for (int64_t j = 0; j < length; j++) p[a][j * step[a]] = piece[a][j];
      }
      begin += length;
    }
  });
}

template <class T>
void sgd_kernel(const Args& args) {
  const SgdStep<T> step(args.in[3].ptr<const double>());
  if (args.in[2].given() && step.moving) {
    const View* const views[] = {&args.in[0], &args.in[1], &args.in[2]};
    update<T, 3>(views, [=](Vec<T>(&v)[3]) { step.with_buffer(v[0], v[1], v[2]); });
  } else {
    const View* const views[] = {&args.in[0], &args.in[1]};
    update<T, 2>(views, [=](Vec<T>(&v)[2]) { step.plain(v[0], v[1]); });
  }
}

template <class T>
void adam_kernel(const Args& args) {
  const AdamStep<T> step(args.in[5].ptr<const double>());
  const View* in = args.in;
  if (in[4].given()) {
    const View* const views[] = {in, in + 1, in + 2, in + 3, in + 4};
    update<T, 5>(views, [=](Vec<T>(&v)[5]) { step.update(v[0], v[1], v[2], v[3], v[4], true); });
  } else {
    const View* const views[] = {in, in + 1, in + 2, in + 3};
    update<T, 4>(views, [=](Vec<T>(&v)[4]) {
      Vec<T> none;
      step.update(v[0], v[1], v[2], v[3], none, false);
    });
  }
}

template <class T>
void rmsprop_kernel(const Args& args) {
  const RmspropStep<T> step(args.in[5].ptr<const double>());
  const View *in = args.in, *buffer = in + 3, *mean = in + 4;
  const bool moving = buffer->given() && step.moving;
  if (moving && mean->given()) {
    const View* const views[] = {in, in + 1, in + 2, buffer, mean};
    update<T, 5>(views, [=](Vec<T>(&v)[5]) { step.update(v[0], v[1], v[2], v[3], true, v[4], true); });
  } else if (moving) {
    const View* const views[] = {in, in + 1, in + 2, buffer};
    update<T, 4>(views, [=](Vec<T>(&v)[4]) {
      Vec<T> none;
      step.update(v[0], v[1], v[2], v[3], true, none, false);
    });
  } else if (mean->given()) {
    const View* const views[] = {in, in + 1, in + 2, mean};
    update<T, 4>(views, [=](Vec<T>(&v)[4]) {
      Vec<T> none;
      step.update(v[0], v[1], v[2], none, false, v[3], true);
    });
  } else {
    const View* const views[] = {in, in + 1, in + 2};
    update<T, 3>(views, [=](Vec<T>(&v)[3]) {
      Vec<T> none;
      step.update(v[0], v[1], v[2], none, false, none, false);
    });
  }
}

}  // namespace
}  // namespace fastdl

using namespace fastdl;

FD_KERNEL_TABLE(optim) = {{OpId::sgd_step, kF32, sgd_kernel<float>},
                          {OpId::sgd_step, kF64, sgd_kernel<double>},
                          {OpId::adam_step, kF32, adam_kernel<float>},
                          {OpId::adam_step, kF64, adam_kernel<double>},
                          {OpId::rmsprop_step, kF32, rmsprop_kernel<float>},
                          {OpId::rmsprop_step, kF64, rmsprop_kernel<double>},
                          {}};
