// Windows of pooling along one axis: which inputs an output covers, which outputs cover an input.
#pragma once
#include "math/base.h"

namespace fastdl {
namespace {

constexpr int kMaxTaps = 255;  // windows of max-pooling have at most 255 taps, so that a tap number fits a byte ...
constexpr int kNoTap = 255;    // ... and 255 says that a (dilated) window holds no element at all

FD_MATH int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
FD_MATH int64_t greater(int64_t a, int64_t b) { return a > b ? a : b; }
FD_MATH int64_t rounded_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One spatial axis of a pooling op. Output o covers input positions o * stride - pad + k * dilation, 0 <= k < kernel.
struct Axis {
  int64_t in, out, kernel, stride, pad, dilation;

  FD_MATH int64_t start(int64_t o) const { return o * stride - pad; }
  // Taps [first_tap, end_tap) of window o lie inside the input. (Divisions are slow: only windows at the border need one.)
  FD_MATH int64_t first_tap(int64_t o) const {
    const int64_t s = start(o);
    return s >= 0 ? 0 : lesser(kernel, rounded_up(-s, dilation));
  }
  FD_MATH int64_t end_tap(int64_t o) const {
    const int64_t room = in - start(o);
    return room > (kernel - 1) * dilation ? kernel : room <= 0 ? 0 : rounded_up(room, dilation);
  }
  FD_MATH int64_t position(int64_t o, int64_t tap) const { return start(o) + tap * dilation; }
  // Windows [first_whole, end_whole) lie inside the input with all their taps.
  FD_MATH int64_t first_whole() const { return lesser(out, rounded_up(pad, stride)); }
  FD_MATH int64_t end_whole() const {
    const int64_t last_start = in + pad - (kernel - 1) * dilation - 1;
    return greater(first_whole(), last_start < 0 ? 0 : lesser(out, last_start / stride + 1));
  }
  // Number of positions that window o averages over: inside the input, or inside the padded input.
  FD_MATH int64_t divisor(int64_t o, bool with_pad) const {
    const int64_t s = start(o), e = lesser(s + kernel, in + pad);
    return with_pad ? e - s : lesser(e, in) - greater(s, 0);
  }
  // The tap by which window o holds input position i, which must lie in the window's span; -1 if i falls between taps.
  FD_MATH int64_t tap_at(int64_t o, int64_t i) const {
    const int64_t offset = i - start(o);
    return dilation == 1 ? offset : offset % dilation ? -1 : offset / dilation;
  }
};

// Adaptive pooling: of `m` cells, cell i spans [first, end) of `n` cells of equal total length. Sizes are below 2^31 (checked in
// inference). The windows that hold an input are given by the same formula with the two sizes exchanged.
FD_MATH int64_t span_first(int64_t i, int64_t n, int64_t m) { return i * n / m; }
FD_MATH int64_t span_end(int64_t i, int64_t n, int64_t m) { return ((i + 1) * n + m - 1) / m; }

struct AdaptiveAxis {
  int64_t in, out;
  FD_MATH int64_t first_input(int64_t o) const { return span_first(o, in, out); }
  FD_MATH int64_t end_input(int64_t o) const { return span_end(o, in, out); }
  FD_MATH int64_t first_window(int64_t i) const { return span_first(i, out, in); }
  FD_MATH int64_t end_window(int64_t i) const { return span_end(i, out, in); }
};

}  // namespace
}  // namespace fastdl
