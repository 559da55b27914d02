// Convolution of images with few channels, the first layer of most nets: in a padded row the taps of one kernel row and their
// channels are one run of memory, and the next pixel's run begins a few elements further on. So a tile of neighbouring pixels needs
// one pointer per kernel row; the distances of its pixels are constants of the instruction, which leaves the registers to the sums.
#pragma once
#include "cpu/isa/conv_gather.h"

namespace fastdl {
namespace {

template <class T>
struct FirstTile {
  const T* x;      // of the first pixel, at the first kernel row
  int64_t line;    // between kernel rows
  int64_t kernel;  // rows
  int64_t run;     // elements per kernel row
  const T* w;      // panel: kernel * run rows of `vectors` vectors
  T* y;            // pixels, `pitch` elements apart
  int64_t pitch;
  const T* bias;
  int tail;  // lanes of the last vector
  bool relu, past;
};

template <class T, int pixels, int vectors, int step>
__attribute__((noinline)) void first_tile(const FirstTile<T>& t) {
  constexpr int lanes = Vec<T>::size;
  Vec<T> acc[pixels][vectors];
#pragma GCC unroll 16
  for (int i = 0; i < pixels; i++) {
#pragma GCC unroll 2
    for (int j = 0; j < vectors; j++) acc[i][j] = Vec<T>(T(0));
  }
  const T* w = t.w;
  for (int64_t v = 0; v < t.kernel; v++) {
    const T* x = t.x + v * t.line;
    for (const T* end = x + t.run; x != end; x++, w += vectors * lanes) {
      FD_KEEP_POINTER(x);  // else the compiler keeps values that the next steps read again, and moves them between registers: 2x
      Vec<T> weight[vectors];
#pragma GCC unroll 2
      for (int j = 0; j < vectors; j++) weight[j] = load(w + j * lanes);
#pragma GCC unroll 16
      for (int i = 0; i < pixels; i++) {
        Vec<T> a(x[i * step]);
        if (vectors > 1) FD_KEEP_VECTOR(a.v);
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) acc[i][j] = fma(a, weight[j], acc[i][j]);
      }
    }
  }
#pragma GCC unroll 2
  for (int j = 0; j < vectors; j++) {
    const bool cut = j == vectors - 1 && t.tail < lanes;
    if (t.bias) {
      const Vec<T> b = cut ? load_partial(t.bias + j * lanes, t.tail) : load(t.bias + j * lanes);
#pragma GCC unroll 16
      for (int i = 0; i < pixels; i++) acc[i][j] += b;
    }
    if (t.relu) {
#pragma GCC unroll 16
      for (int i = 0; i < pixels; i++) acc[i][j] = max(Vec<T>(T(0)), acc[i][j]);  // NaN, as second operand, stays NaN
    }
    if (cut) {
#pragma GCC unroll 16
      for (int i = 0; i < pixels; i++) store_partial(t.y + i * t.pitch + j * lanes, acc[i][j], t.tail);
    } else if (t.past) {
#pragma GCC unroll 16
      for (int i = 0; i < pixels; i++) stream_store(t.y + i * t.pitch + j * lanes, acc[i][j]);
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < pixels; i++) store(t.y + i * t.pitch + j * lanes, acc[i][j]);
    }
  }
}

// Tile widths: accumulators fill the registers, or fit common row lengths better.
#if FD_VEC_BYTES == 64
constexpr int kFirstPixels[] = {13, 11, 8};
#elif FD_VEC_BYTES == 32
constexpr int kFirstPixels[] = {6, 5, 4};
#else
constexpr int kFirstPixels[] = {5, 4, 3};
#endif

template <class T>
using FirstTileFn = void (*)(const FirstTile<T>&);
template <class T, int which, int step>
FirstTileFn<T> first_tile_of(int vectors) {
  return vectors == 1 ? first_tile<T, kFirstPixels[which], 1, step> : first_tile<T, kFirstPixels[which], 2, step>;
}
template <class T, int step>
FirstTileFn<T> first_tile_of(int which, int vectors) {
  return which == 0   ? first_tile_of<T, 0, step>(vectors)
         : which == 1 ? first_tile_of<T, 1, step>(vectors)
                      : first_tile_of<T, 2, step>(vectors);
}
// step: elements between neighbouring pixels. Null: there is no such tile.
template <class T>
FirstTileFn<T> first_tile_of(int which, int vectors, int64_t step) {
  switch (step) {
    case 1:
      return first_tile_of<T, 1>(which, vectors);
    case 2:
      return first_tile_of<T, 2>(which, vectors);
    case 3:
      return first_tile_of<T, 3>(which, vectors);
    case 4:
      return first_tile_of<T, 4>(which, vectors);
    case 6:
      return first_tile_of<T, 6>(which, vectors);
    default:
      return nullptr;
  }
}

// The width for rows of `length` pixels: fewest wasted, counting a tile's own cost as two pixels; -1: rows are too short.
inline int first_tile_width(int64_t length) {
  int best = -1;
  int64_t least = 0;
  for (int k = 0; k < 3; k++) {
    const int64_t pixels = kFirstPixels[k], cost = ceil_div(length, pixels) * (pixels + 2);
    if (pixels <= length && (best < 0 || cost < least)) best = k, least = cost;
  }
  return best;
}

// g as conv2d sets it up where ConvShape::merges_row(): one tap per kernel row, on padded rows. false: not a case for these tiles.
template <class T>
bool gather_first(const Gather<T>& g) {
  const int which = first_tile_width(g.count[1]);
  const int64_t step = g.step[1] * g.pitch;
  if (which < 0 || !first_tile_of<T>(which, 1, step)) return false;
  const Panels<T> panels(g.columns, 2);
  const int64_t pixels = kFirstPixels[which], line = g.size[1] * g.pitch, width = g.count[1];
  const int64_t work = width * g.columns * g.ntaps[0] * g.run;
  parallel_for(g.batch * g.count[0], max_of<int64_t>(1, (1 << 18) / max_of<int64_t>(1, work)), [&](int64_t begin, int64_t end) {
    FirstTile<T> t;
    t.line = g.tap_step[0] * line;
    t.kernel = g.ntaps[0];
    t.run = g.run;
    t.pitch = g.out_pitch;
    t.relu = g.relu;
    t.past = g.streams();
    for (int64_t r = begin; r < end; r++) {
      const int64_t n = r / g.count[0], y = r % g.count[0];
      const T* row = g.source + (n * g.size[0] + y * g.step[0]) * line;
      T* out = g.out + r * width * g.out_pitch;
      for (int64_t p = 0; p < panels.count; p++) {
        const FirstTileFn<T> tile = first_tile_of<T>(which, panels.vectors(p), step);
        t.w = g.weights + panels.begin(p) * g.weight_rows;
        t.bias = g.bias ? g.bias + panels.begin(p) : nullptr;
        t.tail = panels.tail(p);
        for (int64_t x = 0; x < width; x += pixels) {
          const int64_t at = min_of(x, width - pixels);  // the last tile may do some pixels once more
          t.x = row + at * step;
          t.y = out + at * g.out_pitch + panels.begin(p);
          tile(t);
          for (int64_t i = 0; i < pixels && g.activate; i++) g.activate(t.y + i * g.out_pitch, panels.used(p));
        }
      }
    }
    if (t.past) stream_fence();
  });
  return true;
}

}  // namespace
}  // namespace fastdl
