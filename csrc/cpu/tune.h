// Block sizes of the kernels, as data: one row per vector width. Change figures here, never in a kernel.
#pragma once
#include <cstdint>

#include "cpu/vec/vec.h"

namespace fastdl {
namespace {

// GEMM register tiles: rows(nv) is how many rows of C a tile of nv vectors of columns may have, so that accumulators, the nv
// vectors of B and one broadcast of A fit the registers (32, 16, 16).
constexpr int kTileMaxVectors = 4;
#if FD_VEC_BYTES == 64
constexpr int kTileRows[kTileMaxVectors + 1] = {0, 14, 14, 0, 6};
#elif FD_VEC_BYTES == 32
constexpr int kTileRows[kTileMaxVectors + 1] = {0, 6, 6, 0, 2};
#else
constexpr int kTileRows[kTileMaxVectors + 1] = {0, 4, 4, 0, 2};
#endif

}  // namespace
}  // namespace fastdl
