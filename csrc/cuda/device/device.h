// What every .cu file includes for device code. Kernels are plain C++ over the names of this header: nvcc compiles them for the
// GPU, g++ compiles the same file for the emulator (csrc/cuda/emu), where a CUDA thread is a fiber. Hence the rules:
//
// - Cross-lane, barrier, asynchronous-copy and tensor-core operations only through the functions here; PTX nowhere else.
// - Launches by FD_LAUNCH (kernel.h), never <<<>>>. Kernels have external linkage only by accident: keep them in anonymous
// namespaces.
// - Shared memory: one struct per kernel, `Storage& s = shared_memory<Storage>()`, of exactly the size that the launch declares.
//   No static __shared__ variables.
// - Addresses that PTX wants in the shared window are plain pointers into the Storage here.
// - Memory fences that an operation needs live inside its wrapper, so that none can be forgotten.
#pragma once
#include <cstdint>

#include "core/view.h"

#if defined(FASTDL_EMULATE)
#include "cuda/emu/emulator.h"
#else
#include "cuda/device/ptx.h"
#endif
