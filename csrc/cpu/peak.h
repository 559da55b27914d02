// The machine's arithmetic peaks, measured by loops that do nothing else: what `fastdl bench --roofline` divides by.
#pragma once
#include <cstdint>
#include <string>

namespace fastdl {

// Runs `rounds` rounds of independent multiply-adds on the calling thread, in the widest vectors that chosen_isa() allows. Returns
// the floating-point operations of one round; 0, without working, where this machine or build lacks the unit. kind: fp32, fp64,
// amx_bf16.
double measure_peak(const std::string& kind, int64_t rounds);

}  // namespace fastdl
