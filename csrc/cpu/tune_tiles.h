// Block sizes of the products on AMX tiles (isa/gemm_amx.h), as data; which products use tiles is in core/gemm_workspace.h.
// Measured on one core of Emerald Rapids with 2 MB of L2.
#pragma once
#include <cstdint>

namespace fastdl {
namespace {

constexpr int64_t kTileKc = 800;                // k up to which sums stay in the tiles, ...
constexpr int64_t kTilePassKc = 512;            // ... else of each pass: C is read and written once more for each
constexpr int64_t kTilePassBlocks = 192;        // packed blocks, 6 KB each, that stay in L2 beside two strips or panels
constexpr double kTilePackCost = 1.1;           // packing a block, in products of blocks
constexpr double kTileCutLoss = 1.03;           // so much more work is done for more pieces
constexpr int64_t kTilePageBytes = 2 << 10;     // rows that are at least so far apart are packed for all lines at once
constexpr int64_t kTileFetchBytes = 128 << 10;  // a larger operand is fetched to L2 a line ahead
constexpr int64_t kTileChunkMacs = 1 << 19;     // pieces are not cut below this many multiply-adds
// Products of bfloat16: kNarrowBlocks of B, 32 x 32 numbers each, stay in L2, kNarrowChunk of A in L1. A piece has up to
// kNarrowStrips of 32 rows.
constexpr int64_t kNarrowKc = 1024, kNarrowBlocks = 512, kNarrowChunk = 20, kNarrowStrips = 72;
constexpr int64_t kNarrowChunkBlocks = 192;     // products of blocks in a piece, at least
constexpr int64_t kConvTilePass = 24;           // blocks of 32 channels of a tap in one pass of a convolution, about
constexpr int64_t kTilePanelBytes = 480 << 10;  // weights of one pass, that stay in L2 beside a band of pixels

}  // namespace
}  // namespace fastdl
