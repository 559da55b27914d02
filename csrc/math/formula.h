// A formula: a struct with `template <class V> static FD_MATH V of(V x, ...)`. One with parameters sets kParams and takes a last
// argument `const V* p` with their values: the first kParams float attributes of the op.
//
//   struct Square : Formula { template <class V> static FD_MATH V of(V x) { return x * x; } };
//   struct LeakyRelu : Formula {
//     static constexpr int kParams = 1;  // slope
//     template <class V> static FD_MATH V of(V x, const V* p) { return select(x > V(0), x, x * p[0]); }
//   };
#pragma once

#include "math/base.h"

namespace fastdl {
namespace {
struct Formula {
  static constexpr int kParams = 0;
};
}  // namespace
}  // namespace fastdl
