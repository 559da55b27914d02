// Right results, bad access patterns: counted as sectors and wavefronts. And launches that no device accepts.
#include "mutant.h"

namespace fastdl {
namespace {

template <bool kFault>
FD_KERNEL(1024, 1)
bank_conflict_kernel(const float* in, float* out, int) {  // transposes 32 x 32; a column of rows of 32 is one bank
  struct Tile {
    float x[32][kFault ? 32 : 33];
  };
  Tile& s = shared_memory<Tile>();
  const int x = int(threadIdx.x), y = int(threadIdx.y);
  s.x[y][x] = in[y * 32 + x];
  sync_block();
  out[y * 32 + x] = s.x[x][y];
}

template <bool kFault>
FD_KERNEL(1024, 1)
wide_bank_conflict_kernel(const float* in, float* out, int) {  // 16 bytes per lane, 8 lanes at once
  struct Tile {
    alignas(16) float x[32][kFault ? 32 : 36];
  };
  Tile& s = shared_memory<Tile>();
  const int t = int(threadIdx.x);
  for (int k = 0; k < 32; k++) s.x[k][t] = in[k * 32 + t];
  sync_block();
  const float4 v = load_16<float4>(s.x[t]);
  out[t] = v.x;
}

template <bool kFault>
FD_KERNEL(1024, 1)
uncoalesced_kernel(const float* in, float* out, int) {
  const int t = int(threadIdx.x);
  out[t] = in[kFault ? 32 * t : t];
}

FD_KERNEL(1024, 1) nothing_kernel(int) {}

}  // namespace

FD_MUTANT(bank_conflict, 1, dim3(32, 32), sizeof(float) * 32 * 33)
FD_MUTANT(wide_bank_conflict, 1, 32, sizeof(float) * 32 * 36)
FD_MUTANT(uncoalesced, 1, 32, 0)

FD_EXPORT void launch(const unsigned* grid, const unsigned* block, size_t shared) {
  FD_LAUNCH(kArgs, nothing_kernel, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), shared, 0);
}

}  // namespace fastdl
