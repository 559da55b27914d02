// A mutant is a small kernel in two forms: right (kFault false), and with one fault seeded. tests/cuda/test_emulator.py runs both.
#pragma once
#include "cuda/kernel.h"

namespace fastdl {
namespace {
const DeviceContext kContext = {nullptr, nullptr, 0, 132, 90, 232448, nullptr};
const Args kArgs = {nullptr, nullptr, nullptr, nullptr, 0, 0, &kContext, 0};
}  // namespace
}  // namespace fastdl

#define FD_EXPORT extern "C" __attribute__((visibility("default")))

// template <bool kFault> void <name>_kernel(const float* in, float* out, int n), called from Python as <name>(fault, in, out, n).
#define FD_MUTANT(name, grid, block, shared)                                   \
  FD_EXPORT void name(int fault, const float* in, float* out, int n) {         \
    if (fault)                                                                 \
      FD_LAUNCH(kArgs, name##_kernel<true>, grid, block, shared, in, out, n);  \
    else                                                                       \
      FD_LAUNCH(kArgs, name##_kernel<false>, grid, block, shared, in, out, n); \
  }
