// The checker's parts: checker.cpp judges every access, callbacks.cpp is where the instrumented kernels call, stats.cpp counts
// sectors and wavefronts, symbols.cpp turns addresses of code into places in the source.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cuda/emu/report.h"
#include "cuda/emu/scheduler.h"

namespace fastdl {
namespace emu {

// pc: an address inside the instruction. Returns if the access is allowed (or wrong, but harmless to do: that is remembered).
void check_access(const void* p, size_t bytes, bool write, bool atomic, const void* pc);
void check_alignment(const void* p, size_t bytes, const void* pc);

// ---- checker_stats.cpp
enum class Space : uint8_t { Shared, Global };
extern bool stats_on;  // this block is counted
void stats_begin_launch();
void stats_begin_block();
void stats_end_block();
void stats_access(const void* p, size_t bytes, bool write, Space space, const void* pc);

// ---- checker_symbols.cpp
// "softmax.cu:41" with the callers into which it was inlined: "device/reduce.cuh:20, from softmax.cu:41"; a place of the emulator's
// own headers is left out.
void symbolize(const std::vector<const void*>& pcs, std::map<const void*, std::string>* places);
std::string function_name(const void* code);  // with its template arguments
extern const char* const image_begin;         // where this library is loaded
extern const char* const image_end;

}  // namespace emu
}  // namespace fastdl
