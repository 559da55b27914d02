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
  // by_dilation(a): a / dilation
  template <class Divide>
  FD_MATH int64_t first_tap(int64_t o, const Divide& by_dilation) const {
    const int64_t s = start(o);
    return s >= 0 ? 0 : lesser(kernel, by_dilation(dilation - 1 - s));
  }
  template <class Divide>
  FD_MATH int64_t end_tap(int64_t o, const Divide& by_dilation) const {
    const int64_t room = in - start(o);
    return room > (kernel - 1) * dilation ? kernel : room <= 0 ? 0 : by_dilation(room + dilation - 1);
  }
  FD_MATH int64_t first_tap(int64_t o) const {
    return first_tap(o, [this](int64_t a) { return a / dilation; });
  }
  FD_MATH int64_t end_tap(int64_t o) const {
    return end_tap(o, [this](int64_t a) { return a / dilation; });
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
  template <class Divide>
  FD_MATH int64_t tap_at(int64_t o, int64_t i, const Divide& by_dilation) const {
    const int64_t offset = i - start(o);
    if (dilation == 1) return offset;
    const int64_t tap = by_dilation(offset);
    return tap * dilation == offset ? tap : -1;
  }
  FD_MATH int64_t tap_at(int64_t o, int64_t i) const {
    return tap_at(o, i, [this](int64_t a) { return a / dilation; });
  }
};

// Adaptive pooling: of `m` cells, cell i spans [first, end) of `n` cells of equal total length. Sizes are below 2^31 (checked in
// inference). The windows that hold an input are given by the same formula with the two sizes exchanged.
struct AdaptiveAxis {
  int64_t in, out;
  // by_out(a): a / out; by_in likewise
  template <class Divide>
  FD_MATH int64_t first_input(int64_t o, const Divide& by_out) const {
    return by_out(o * in);
  }
  template <class Divide>
  FD_MATH int64_t end_input(int64_t o, const Divide& by_out) const {
    return by_out((o + 1) * in + out - 1);
  }
  template <class Divide>
  FD_MATH int64_t first_window(int64_t i, const Divide& by_in) const {
    return by_in(i * out);
  }
  template <class Divide>
  FD_MATH int64_t end_window(int64_t i, const Divide& by_in) const {
    return by_in((i + 1) * out + in - 1);
  }
  FD_MATH int64_t first_input(int64_t o) const {
    return first_input(o, [this](int64_t a) { return a / out; });
  }
  FD_MATH int64_t end_input(int64_t o) const {
    return end_input(o, [this](int64_t a) { return a / out; });
  }
  FD_MATH int64_t first_window(int64_t i) const {
    return first_window(i, [this](int64_t a) { return a / in; });
  }
  FD_MATH int64_t end_window(int64_t i) const {
    return end_window(i, [this](int64_t a) { return a / in; });
  }
};

}  // namespace
}  // namespace fastdl
