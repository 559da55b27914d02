// Weights, borders and sums of convolution, brought into and out of the layouts that the register tile wants.
#pragma once
#include "core/conv_plan.h"
#include "cpu/isa/conv_tile.h"
#include "cpu/vec/convert.h"
#include "cpu/vec/interleave.h"

namespace fastdl {
namespace {

constexpr int64_t kConvSumsPiece = 1 << 15;  // numbers of parts of a sum that a thread adds up at a time

template <class T>
T* scratch(const Args& a, int64_t offset) {
  return reinterpret_cast<T*>(static_cast<char*>(a.workspace) + offset);
}

// Operands of a bfloat16 result are such numbers themselves: products of one part are exact. Else the setting of precision decides.
int parts_of(DType out) { return out == DType::bfloat16 ? 1 : 0; }

template <class T>
void set_zeros(T* zeros, int64_t n) {
  for (int64_t i = 0; i < n; i++) zeros[i] = T(0);
}

// Columns of a product cut into panels of `most` (1 or 2) vectors; the last may be narrower, and its last vector partly used.
// triple: where it would be a single vector behind others, the last has three.
template <class T>
struct Panels {
  static constexpr int64_t lanes = Vec<T>::size;
  int64_t columns, most, all, count;  // all: vectors
  FD_INLINE Panels(int64_t columns, int64_t most, bool triple = false)
      : columns(columns), most(most), all(ceil_div(columns, lanes)), count(ceil_div(all, most)) {
    if (triple && all % most == 1 && count > 1) count--;
  }
  FD_INLINE int64_t begin(int64_t p) const { return p * most * lanes; }
  FD_INLINE int64_t used(int64_t p) const { return p == count - 1 ? columns - begin(p) : most * lanes; }
  FD_INLINE int vectors(int64_t p) const { return int(p == count - 1 ? all - p * most : most); }
  FD_INLINE int tail(int64_t p) const { return int(used(p) - (vectors(p) - 1) * lanes); }
  FD_INLINE int64_t width(int64_t p) const { return vectors(p) * lanes; }
  FD_INLINE int64_t whole() const { return all * lanes; }  // the width of all panels
  FD_INLINE int64_t of(int64_t vector) const { return min_of(vector / most, count - 1); }
};

// Weights (O, C / groups, KH, KW), row-major, to one matrix of taps * channels rows per group, in panels of columns:
// row position[tap] * channels + r, column n. Channels r are summed over, columns n are produced.
template <class T>
struct ConvPack {
  const T* weights;
  int64_t group_stride, column_stride, channel_stride;  // elements; one of the last two equals taps
  int64_t groups, columns, channels, taps;
  const int64_t* position;
  T* out;
  bool triple = false;  // as in Panels

  int64_t rows() const { return taps * channels; }
  Panels<T> panels() const { return Panels<T>(columns, 2, triple); }
  int64_t group_size() const { return rows() * panels().whole(); }
};

// Channels [r0, r1) of the columns of vector v.
template <class T>
void pack_block(const ConvPack<T>& p, int64_t group, int64_t v, int64_t r0, int64_t r1) {
  constexpr int lanes = Vec<T>::size;
  const Panels<T> panels = p.panels();
  const int64_t panel = panels.of(v), width = panels.width(panel);
  const int used = int(min_of<int64_t>(lanes, p.columns - v * lanes));
  const T* in = p.weights + group * p.group_stride + v * lanes * p.column_stride;
  T* out = p.out + group * p.group_size() + panels.begin(panel) * p.rows() + v * lanes - panels.begin(panel);
  if (p.column_stride == 1) {  // taps == 1 and columns contiguous
    for (int64_t r = r0; r < r1; r++) store(out + r * width, load_partial(in + r * p.channel_stride, used));
    return;
  }
  // Runs of memory along taps, or along channels and taps: a square of `lanes` columns by `lanes` elements is transposed at once.
  const bool long_run = p.channel_stride == p.taps;
  for (int64_t r = r0; r < r1; r += long_run ? r1 - r0 : 1) {
    const int64_t length = long_run ? (r1 - r0) * p.taps : p.taps;
    const T* run = in + r * p.channel_stride;
    int64_t channel = r, tap = 0;
    for (int64_t j = 0; j < length; j += lanes) {
      const int n = int(min_of<int64_t>(lanes, length - j));
      if (n == 1) {  // the ninth of nine taps: no square for a column
        T* to = out + (p.position[tap] * p.channels + channel) * width;
        for (int i = 0; i < lanes; i++) to[i] = i < used ? run[i * p.column_stride + j] : T(0);
        continue;
      }
      Vec<T> square[lanes];
      for (int i = 0; i < lanes; i++) square[i] = i < used ? load_partial(run + i * p.column_stride + j, n) : Vec<T>(T(0));
      transpose_rows(square);
      for (int i = 0; i < n; i++) {
        store(out + (p.position[tap] * p.channels + channel) * width, square[i]);
        if (++tap == p.taps) tap = 0, channel++;
      }
    }
  }
}

template <class T>
void pack_weights(const ConvPack<T>& p) {
  const int64_t vectors = ceil_div<int64_t>(p.columns, Vec<T>::size);
  const int64_t channel = p.taps * Vec<T>::size;  // elements of one, for a vector of columns
  const int64_t slice = max_of<int64_t>(1, kGemmPackPiece / channel), slices = ceil_div(p.channels, slice);
  const int64_t together = max_of<int64_t>(1, kGemmPackPiece / (channel * max_of<int64_t>(1, min_of(slice, p.channels))));
  parallel_for(p.groups * vectors * slices, together, [&](int64_t begin, int64_t end) {
    piece_work((end - begin) * min_of(slice, p.channels) * channel, 2 * kGemmPackPiece);
    for (int64_t c = begin; c < end; c++) {
      const int64_t s = c % slices, v = c / slices % vectors, g = c / slices / vectors;
      pack_block(p, g, v, s * slice, min_of(p.channels, (s + 1) * slice));
    }
  });
}

// x (N, H, W, C) with a border of zeros.
template <class T>
void pad_input(const ConvShape& s, const T* x, T* out) {
  const int64_t h = s.padded(0), row = s.padded(1) * s.in_channels, inner = s.in[1] * s.in_channels;
  parallel_for(s.batch * h, max_of<int64_t>(1, 16384 / max_of<int64_t>(1, row)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t n = r / h, y = r % h - s.padding[0];
      T* to = out + r * row;
      const int64_t left = y < 0 || y >= s.in[0] ? row : s.padding[1] * s.in_channels;
      for (int64_t i = 0; i < left; i++) to[i] = T(0);
      if (left == row) continue;
      const T* from = x + (n * s.in[0] + y) * inner;
      for (int64_t i = 0; i < inner; i++) to[left + i] = from[i];
      for (int64_t i = left + inner; i < row; i++) to[i] = T(0);
    }
  });
}

// float results to the 16-bit output that the user sees.
inline void narrow_output(const float* from, const View& out) {
  const int64_t n = out.numel();
  parallel_for(n, 32768, [&](int64_t begin, int64_t end) {
    const auto copy = [&](auto* to) {
      int64_t i = begin;
      for (; i + VecF::size <= end; i += VecF::size) store_narrow(to + i, load(from + i));
      store_narrow_partial(to + i, load_partial(from + i, int(end - i)), int(end - i));
    };
    if (out.dtype == DType::float16)
      copy(out.ptr<f16>());
    else
      copy(out.ptr<bf16>());
  });
}

}  // namespace
}  // namespace fastdl
