// How a grid of tiles is cut among threads where no sums cross tiles, so that the cut may follow the thread count.
#pragma once
#include <cstdint>

namespace fastdl {
namespace {

struct Cut {
  int64_t rows, cols;  // blocks along each side
};

// The busiest thread's tiles / the mean, for `batch` grids of rows x cols tiles, cut alike. Blocks differ by one tile at most.
inline double cut_share(int64_t batch, int64_t rows, int64_t cols, Cut cut, int threads) {
  const int64_t rounds = (batch * cut.rows * cut.cols - 1) / threads + 1;
  const int64_t most = ((rows - 1) / cut.rows + 1) * ((cols - 1) / cut.cols + 1);
  return double(rounds * most) * threads / (double(batch) * double(rows) * double(cols));
}

// `cut`, or the coarsest finer one with which threads finish together (within a tenth), or nearly so; of at least `least` tiles.
inline Cut fair_cut(int64_t batch, int64_t rows, int64_t cols, Cut cut, int64_t least, int threads) {
  constexpr double fair = 1.1;
  double best = cut_share(batch, rows, cols, cut, threads);
  if (threads <= 1 || best <= fair) return cut;
  const int64_t high = (rows - 1) / cut.rows + 1, wide = (cols - 1) / cut.cols + 1;
  Cut found = cut;
  int64_t size = high * wide;
  for (int64_t h = high; h >= 1; h--) {
    for (int64_t w = wide; w >= 1 && h * w >= least; w--) {
      const Cut finer = {(rows - 1) / h + 1, (cols - 1) / w + 1};
      const double share = cut_share(batch, rows, cols, finer, threads);
      if (best <= fair ? share > fair || h * w <= size : share >= best) continue;
      best = share, found = finer, size = h * w;
    }
    if (h > 16) h = h - h / 16;  // no need to try every height of tall blocks
  }
  return found;
}

// Columns that do not meet, side by side only to save time: blocks of at most `most`, and finer for many threads, but of at least
// `least` columns. Blocks begin at multiples of `unit`, so that vectors of any width stay whole. There are `lines` such rows of
// them.
struct ColumnBlocks {
  static constexpr int64_t kUnit = 16;  // a cache line of float32
  int64_t n, unit, units, count;

  ColumnBlocks(int64_t lines, int64_t n, int64_t most, int64_t least, int threads, int64_t unit = kUnit)
      : n(n), unit(unit), units((n - 1) / unit + 1) {
    count = fair_cut(lines, 1, units, {1, (n - 1) / most + 1}, (least - 1) / unit + 1, threads).cols;
  }
  int64_t begin(int64_t i) const {
    const int64_t at = i * units / count * unit;
    return at < n ? at : n;
  }
};

}  // namespace
}  // namespace fastdl
