// The tile instructions of isa/tiles_amx.h in software, for tests on machines without: see avx512.h. Every thread has its eight
// tiles.
#pragma once
#include <cstdint>

#include "cpu/emu/avx512.h"

namespace fastdl {
namespace {
namespace emu {

struct Tiles {
  alignas(64) uint32_t rows[8][16][16];
  bool configured;
};
static thread_local Tiles tiles;

FD_EMU void configured() {
  if (!tiles.configured) __builtin_trap();  // an invalid instruction on the machine
}
FD_EMU void tile_zero(int t) { configured(), __builtin_memset(tiles.rows[t], 0, sizeof tiles.rows[t]); }
FD_EMU void tile_load(int t, const void* from, int64_t row_bytes) {
  configured();
  for (int i = 0; i < 16; i++) __builtin_memcpy(tiles.rows[t][i], static_cast<const char*>(from) + i * row_bytes, 64);
}
FD_EMU void tile_store(int t, void* to, int64_t row_bytes) {
  configured();
  for (int i = 0; i < 16; i++) __builtin_memcpy(static_cast<char*>(to) + i * row_bytes, tiles.rows[t][i], 64);
}

// Even and odd words of the rows are summed apart, each step rounded once, and both sums are added to c. Denormal numbers are
// zeros, as operands and as results: what SSE's control register (bits 6 and 15) makes of them meanwhile.
inline __attribute__((noinline)) void tile_multiply(int c, int a, int b) {
  configured();
  const unsigned control = _mm_getcsr();
  _mm_setcsr(control | 0x8040);
  alignas(64) float right[16][2][16], left[2][16];  // of each pair of rows, the even and the odd one
  const auto words = [](const uint32_t* row, float (&out)[2][16]) {
    const U16 pairs = read<U16>(row);
    write(out[0], pairs << 16), write(out[1], pairs & 0xffff0000);
  };
  for (int p = 0; p < 16; p++) words(tiles.rows[b][p], right[p]);
  for (int i = 0; i < 16; i++) {
    words(tiles.rows[a][i], left);
    for (int half = 0; half < 16; half += 8) {
      __m256 even = {}, odd = {};
      for (int p = 0; p < 16; p++) {
        even = _mm256_fmadd_ps(_mm256_set1_ps(left[0][p]), _mm256_load_ps(right[p][0] + half), even);
        odd = _mm256_fmadd_ps(_mm256_set1_ps(left[1][p]), _mm256_load_ps(right[p][1] + half), odd);
      }
      float* sums = reinterpret_cast<float*>(tiles.rows[c][i]) + half;
      _mm256_store_ps(sums, _mm256_add_ps(_mm256_load_ps(sums), _mm256_add_ps(even, odd)));
    }
  }
  _mm_setcsr(control);
}

}  // namespace emu

class TileRegisters {
 public:
  TileRegisters() { emu::tiles.configured = true; }
  TileRegisters(const TileRegisters&) = delete;
  ~TileRegisters() { emu::tiles.configured = false; }
};

#define FD_TILE_ZERO(t) emu::tile_zero(t)
#define FD_TILE_LOAD(t, from, row_bytes) emu::tile_load(t, from, row_bytes)
#define FD_TILE_LOAD_PAST(t, from, row_bytes) emu::tile_load(t, from, row_bytes)
#define FD_TILE_STORE(t, to, row_bytes) emu::tile_store(t, to, row_bytes)
#define FD_TILE_MULTIPLY(c, a, b) emu::tile_multiply(c, a, b)

}  // namespace
}  // namespace fastdl
