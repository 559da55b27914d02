// Block sizes of the kernels, as data: one row per vector width. Change figures here, never in a kernel.
#pragma once
#include <cstdint>

#include "cpu/vec/vec.h"

namespace fastdl {
namespace {

// GEMM register tiles: rows(nv) is how many rows of C a tile of nv vectors of columns may have, so that accumulators, the nv
// vectors of B and one broadcast of A fit the registers (32, 16, 16). With three vectors it is half of the rows with two: columns
// of an odd number of vectors end in a panel of three, as one alone has too few sums to hide the latency of multiply-adds.
constexpr int kTileMaxVectors = 4, kTileMaxRows = 14;  // of any instruction set
#if FD_VEC_BYTES == 64                                 // 14 sums are enough
constexpr int kTileRows[kTileMaxVectors + 1] = {0, 14, 14, 0, 6};
#elif FD_VEC_BYTES == 32
constexpr int kTileRows[kTileMaxVectors + 1] = {0, 6, 6, 3, 2};
#else
constexpr int kTileRows[kTileMaxVectors + 1] = {0, 4, 4, 0, 2};
#endif

// Rows of B that are so far apart are copied, unless B is small, for few tiles in blocks of kGemmLowKc x kGemmLowCols. Measured
// with AVX2 only.
constexpr int64_t kGemmFarBytes = FD_VEC_BYTES == 32 ? 4 << 10 : INT64_MAX, kGemmLowTiles = 3, kGemmLowKc = 64;
template <class T>
constexpr int64_t kGemmLowCols = 4608 / sizeof(T);

// Vectors of a row-major B that are copied, at most, where the last is partial.
constexpr int kGemmEdge = FD_VEC_BYTES == 32 ? 3 : 1;

// GEMM loops. A's strip of rows(nv) x kGemmKc and a panel of B stay in L1 (32 KB with AVX2, 48 with AVX-512), a block of B of
// kGemmKc x kGemmBlockCols in L2 (512 KB, 1 to 2 MB). kGemmWide: the same for transposed rows of A.
constexpr int64_t kGemmKc = FD_VEC_BYTES == 32 ? 192 : 384, kGemmWideKc = 192;
template <class T>
constexpr int64_t kGemmBlockCols = FD_VEC_BYTES == 32 ? 1536 / sizeof(T) : 512;  // columns of C in one piece of work, at most
template <class T>
constexpr int64_t kGemmWideCols = FD_VEC_BYTES == 32 ? 2048 / sizeof(T) : 1024;
constexpr int64_t kGemmBlockTiles = 16;      // and tiles along its rows
constexpr int64_t kGemmChunks = 16;          // pieces wanted, so that threads finish together, ...
constexpr int64_t kGemmChunkMacs = 1 << 18;  // ... unless they fall below this many multiply-adds (a few microseconds)
constexpr int64_t kConvPieceMacs = 1 << 19;  // the same for convolutions
constexpr int64_t kGemmDirectTiles = FD_VEC_BYTES == 32 ? 11 : 10;  // up to so many tiles of rows B is read where it lies
constexpr int64_t kGemmDirectBytes = FD_VEC_BYTES == 64 ? 768 << 10 : 128 << 10;  // and also when all of B is no larger
constexpr int64_t kGemmCopyBytes = 2 << 10;                      // steps of k of A that are so far apart are copied to a strip
constexpr int64_t kGemmCopyFew = FD_VEC_BYTES == 32 ? 192 : 0;   // or so few transposed rows
constexpr int64_t kGemmCopyNear = FD_VEC_BYTES == 32 ? 192 : 0;  // and rows that are a multiple of 4 KB apart, within so much, ...
constexpr int64_t kGemmCopyPanels = 8;                           // ... where so many panels pass over them
constexpr int64_t kGemmCopyRows = 112;  // rows that are copied side by side where they are adjacent: 448 bytes a step
constexpr int64_t kGemmPackAhead = FD_VEC_BYTES == 32 ? 16 : 0;  // rows of B that are fetched before they are copied; 0: none
constexpr int64_t kGemmPackPiece = 1 << 13;                      // elements that a thread packs at a time
constexpr int64_t kGemvChunkMacs = 1 << 15;                      // pieces of products with few rows, which wait for memory
constexpr int64_t kGemvBytes = 16 << 10;                         // of y, at most
constexpr int64_t kGemvLeast = 64;                               // columns of a piece, however many threads there are
constexpr int64_t kDotRows = 12;                                 // up to so many rows, x W^T is computed as dot products
constexpr int64_t kGemmPrefetchBytes = 256 << 10;                // a larger B, read where it lies, and a larger C are prefetched
constexpr bool kFetchesStrips = FD_VEC_BYTES == 32;              // of A, during the strips before; a larger B's next block, too
constexpr int64_t kGemmPrefetchK = 128;                          // C only if k is at least this long
constexpr int64_t kSoftmaxFetchBytes = 64 << 10;                 // rows up to so long are fetched during the row before
constexpr bool kWinogradFetches = FD_VEC_BYTES == 32;            // where results will be written, during products

}  // namespace
}  // namespace fastdl
