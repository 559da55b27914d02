// Which instruction sets this CPU and operating system offer, and which one the kernels use. Numbers are rows of cmake/isa.cmake.
#pragma once
#include <string>

namespace fastdl {

int isa_count();
const char* isa_name(int isa);  // "baseline", "avx2", "avx512", "amx"
int isa_lanes(int isa);         // floats of a vector
bool isa_supported(int isa);    // by this machine
bool isa_compiled(int isa);     // into this library

// Whether this library has AVX-512 and AMX in software (cpu/emu), for tests on machines without.
constexpr bool isa_emulated() {
#if defined(FASTDL_EMULATE_ISA)
  return true;
#else
  return false;
#endif
}

// The highest that is supported, compiled and allowed by the environment variable FASTDL_ISA. Found once.
int chosen_isa();

// Empty, or what is wrong with FASTDL_ISA; to be raised when the package is imported. chosen_isa() then ignores the variable.
const std::string& isa_error();

}  // namespace fastdl
