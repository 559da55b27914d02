// Activations that products and convolutions apply to their results: attribute i0 of linear, i7 of conv2d; and, as the factor that
// their derivative is, i0 of matmul.
#pragma once
#include <cstdint>

namespace fastdl {

enum Activation : int64_t { kNone, kRelu, kSigmoid, kTanh, kGelu, kSilu, kGeluTanh, kActivations };

// The ops that are the same; with "_backward" behind them, the ops that are their gradients.
constexpr const char* kActivationNames[kActivations] = {"", "relu", "sigmoid", "tanh", "gelu", "silu", "gelu_tanh"};

}  // namespace fastdl
