// How a long reduction is cut for threads: shared by inference (workspace) and kernels, a function of sizes only.
#pragma once
#include <cstdint>

namespace fastdl {
namespace {

constexpr int64_t kReduceGrain = 32768;  // elements that are worth a chunk of their own
constexpr int64_t kReduceLeast = 4096;   // that are not cut any further, however many threads there are
constexpr int64_t kReducePiece = 4096;   // at most so many are summed up by themselves: many threads share them out evenly

// `outs` outputs of n elements each: the elements of every output are cut in this many pieces of piece_length(n, pieces), whose
// partial results are merged in order. 1 where the outputs alone give enough chunks; outs * pieces never exceeds 2^16 or so.
constexpr int64_t reduce_pieces(int64_t outs, int64_t n) {
  if (outs <= 0 || outs > 16384 || n < 512) return 1;
  const int64_t share = kReduceGrain / outs, length = share < 256 ? 256 : share < kReducePiece ? share : kReducePiece;
  int64_t pieces = (n - 1) / length + 1;
  if (n <= 2 * kReduceGrain / outs) return 1;
  const int64_t most = outs == 1 ? 16384 : 65536 / outs;
  return pieces < most ? pieces : most;
}
// Elements per piece: a multiple of 512 along a row, so that blocks of vectors stay whole; of 128 down columns.
constexpr int64_t piece_length(int64_t n, int64_t pieces, bool columns = false) {
  const int64_t multiple = columns ? 128 : 512;
  return ((n - 1) / pieces / multiple + 1) * multiple;
}

}  // namespace
}  // namespace fastdl
