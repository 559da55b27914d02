// The figures that choose between kernels and tiles: data only. Sources: notes beside each; measure on the device before changing.
#pragma once
#include <cstdint>

namespace fastdl {
namespace {

// A large tile is taken once there are this many of them per multiprocessor; below that, tiles of 64x64 spread the work wider.
constexpr int64_t kLargeTilesPerSm = 1;

// k is split until there are about this many tiles per multiprocessor, into parts of at least kSplitDepth.
constexpr int64_t kTilesPerSm = 2;
constexpr int64_t kSplitDepth = 256;
constexpr int64_t kMaxSplits = 64;

// Products of at most so many rows or columns go to the kernels that are bound by memory (gemm_skinny.cu); with 16-bit floats,
// tensor cores read as fast from 5 on.
constexpr int kSkinnyLines = 8;
constexpr int kSkinnyLines16 = 4;
// One thread per result: up to this length of k, and for matrices of up to kTinyLines squared.
constexpr int64_t kTinyDepth = 2;
constexpr int64_t kTinyLines = 16;

// float at float's accuracy: on tensor cores, by splitting (device/gemm_split.cuh), or by plain multiply-adds.
constexpr bool kSplitFloat = false;

// Tiles are visited in bands of this many rows of tiles, so that the tiles under way at a time share operands in the L2 cache.
constexpr int32_t kTileBand = 8;

}  // namespace
}  // namespace fastdl
