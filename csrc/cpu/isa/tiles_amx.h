// AMX: eight tile registers of 16 rows of 64 bytes, and the product of bfloat16 tiles added to a tile of floats.
//
// Raw instructions with tile numbers in the text: the intrinsics of GCC 12 do not tell the compiler that loads read memory.
#pragma once
#if defined(FASTDL_EMULATE_AMX)
#include "cpu/emu/amx.h"
#else
#include <cstdint>

namespace fastdl {
namespace {

// All tiles 16 rows of 64 bytes; a thread's tiles between construction and destruction. Products of any other shape are padded.
class TileRegisters {
 public:
  TileRegisters() {
    struct alignas(64) {
      uint8_t palette, start, zero[14];
      uint16_t bytes[16];
      uint8_t rows[16];
    } config = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
  }
  TileRegisters(const TileRegisters&) = delete;
  ~TileRegisters() { __asm__ volatile("tilerelease" ::); }
};

#define FD_TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t::)
#define FD_TILE_LOAD(t, from, row_bytes) \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t::"r"(from), "r"(int64_t(row_bytes)) : "memory")
// The same for lines that are not needed soon again: they do not displace what is in L1.
#define FD_TILE_LOAD_PAST(t, from, row_bytes) \
  __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #t::"r"(from), "r"(int64_t(row_bytes)) : "memory")
#define FD_TILE_STORE(t, to, row_bytes) \
  __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(to), "r"(int64_t(row_bytes)) : "memory")
// c (16 x 16 floats) += a (16 x 32 bfloat16) b (16 pairs x 16 columns): pair p of row i of a meets pair p of column j of b
#define FD_TILE_MULTIPLY(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c::)

}  // namespace
}  // namespace fastdl
#endif
