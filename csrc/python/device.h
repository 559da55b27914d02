// Where tensors are, for dispatch and copies (csrc/python/cuda.cpp).
#pragma once
#include <cstring>
#include <string>

#include "operands.h"

namespace fastdl::python {

inline Device device_of(const TensorObject* t) { return t->buffer->device; }
std::string device_text(Device d);

// A copy of t on `device` (an alias where it is already there), without gradient history.
TensorObject* to_device(TensorObject* t, Device device);

// src -> dst on another device; `wide` is src's view broadcast to dst's shape.
bool copy_between(const View& dst, Device to, TensorObject* src, const View& wide);

// Brings the operands of a call to one device: that of the first CUDA tensor. Numbers and 0-d CPU tensors of elementwise ops stay on
// the host (bits of host_inputs), and so do the hyper-parameters of optimisers; arrays that were converted, other 0-d tensors and
// operands in `movable` (indices) are moved; anything else on the CPU is a DeviceError.
bool place_operands(OpObject* op, Operands* in, const TensorObject* out, uint32_t movable, Device* device, uint32_t* host_inputs);

}  // namespace fastdl::python
