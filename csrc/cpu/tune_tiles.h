// Block sizes of the products on AMX tiles (isa/gemm_amx.h), as data; which products use tiles is in core/gemm_workspace.h.
// Measured on one core of Emerald Rapids with 2 MB of L2.
#pragma once
#include <cstdint>

namespace fastdl {
namespace {

constexpr int64_t kTileKc = 768;             // k of one pass through the tiles: a strip of A and a panel of B take 150 KB each
constexpr int64_t kTileCols = 256;           // columns of B per piece of work; B's share stays in L2
constexpr int64_t kTileChunkMacs = 1 << 19;  // pieces are not cut below this many multiply-adds
constexpr int64_t kTileFewStrips = 8;        // up to so many strips of 32 rows, B is packed by the piece that uses it, once, ...
constexpr double kTileFewShare = 1.15;       // ... unless so much more falls to one thread than to others; then as ever
constexpr int64_t kTilePackCols = 128;       // ... so many columns at a time, in blocks of kTilePackKc
constexpr int64_t kTilePackKc = 512;
// Products of bfloat16: kNarrowBlocks of B, 32 x 32 numbers each, stay in L2 beside a strip of A. A piece has up to kNarrowStrips.
constexpr int64_t kNarrowKc = 1024, kNarrowBlocks = 512, kNarrowStrips = 48;
constexpr int64_t kNarrowChunkBlocks = 128;     // products of 48 x 32 x 32 in a piece, at least
constexpr int64_t kConvTilePass = 24;           // blocks of 32 channels of a tap in one pass of a convolution, about
constexpr int64_t kTilePanelBytes = 480 << 10;  // weights of one pass, that stay in L2 beside a band of pixels

}  // namespace
}  // namespace fastdl
