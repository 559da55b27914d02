// clip(x, low, high) with bounds that may not be given: then it is maximum, minimum or a copy.
#pragma once
#include "cuda/device/elementwise.cuh"

namespace fastdl {
namespace {

struct Bounds {
  View in[3];
  Args args;  // of the inputs that are given
};
inline void given_bounds(const Args& a, Bounds& b) {
  int n = 0;
  uint32_t host = 0;
  for (int k = 0; k < 3; k++)
    if (a.in[k].given()) {
      host |= (a.host_inputs >> k & 1) << n;
      b.in[n++] = a.in[k];
    }
  b.args = a;
  b.args.in = b.in, b.args.nin = n, b.args.host_inputs = host;
}

template <KernelFn both, KernelFn low_only, KernelFn high_only>
void clip_row(const Args& a) {
  Bounds b;
  given_bounds(a, b);
  if (b.args.nin == 1) return copy_on_device(a, a.out[0], a.in[0]);
  (b.args.nin == 3 ? both : a.in[1].given() ? low_only : high_only)(b.args);
}
template <class T>
int64_t clip_workspace(const Args& a) {
  Bounds b;
  given_bounds(a, b);
  return b.args.nin == 3 ? elementwise_workspace<T, T, 3>(b.args) : b.args.nin == 2 ? elementwise_workspace<T, T, 2>(b.args) : 0;
}

}  // namespace
}  // namespace fastdl
