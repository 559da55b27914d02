// Cells of recurrent layers (math/recurrent.h): one pass over the sums of a step's gates.
#include "math/recurrent.h"
#include "cpu/isa/lines.h"

namespace fastdl {
namespace {

constexpr int64_t kStrip = 128;   // units of a row that are one item, at most
constexpr int64_t kPiece = 1024;  // units that are one piece of work: 5 to 10 us

// f(row, unit, Whole or Part) for the units of all rows, in vectors.
template <class T, class F>
void for_units(const View& state, const F& f) {
  const int64_t units = state.shape[state.ndim - 1], total = state.numel();
  if (total == 0) return;
  const int64_t strips = ceil_div(units, kStrip);
  parallel_for(total / units * strips, ceil_div(kPiece, min_of(units, kStrip)), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; item++) {
      const int64_t row = item / strips, first = (item - row * strips) * kStrip;
      for_vectors<WideOf<T>>(min_of(kStrip, units - first), [&](int64_t i, auto k) { f(row, first + i, k); });
    }
  });
}

template <int gates, class T, class K>
FD_INLINE void get_gates(const T* p, int64_t units, Vec<WideOf<T>> (&v)[gates], K k) {
  for (int j = 0; j < gates; j++) v[j] = get(p + j * units, k);
}
template <int gates, class T, class K>
FD_INLINE void set_gates(T* p, int64_t units, const Vec<WideOf<T>> (&v)[gates], K k) {
  for (int j = 0; j < gates; j++) set(p + j * units, v[j], k);
}

// Fetches the gates of the next row: its runs are too short for the hardware's prefetch.
template <int gates, bool write, class T>
FD_INLINE void fetch_row(const T* p, int64_t units) {
  for (int j = 0; j < gates; j++) __builtin_prefetch(p + (gates + j) * units, write);
}

template <class T>
void lstm_cell_kernel(const Args& a) {
  using V = Vec<WideOf<T>>;
  const View& state = a.in[2];
  const T *x = a.in[0].ptr<const T>(), *r = a.in[1].ptr<const T>(), *c = state.ptr<const T>();
  T *h_next = a.out[0].ptr<T>(), *c_next = a.out[1].ptr<T>(), *gates = a.out[2].ptr<T>();
  const int64_t units = state.shape[state.ndim - 1];
  for_units<T>(state, [=](int64_t row, int64_t unit, auto k) {
    const int64_t at = row * units + unit, to = row * 4 * units + unit;
    V gate[4], part[4], h, next;
    fetch_row<4, true>(gates + to, units);
    get_gates(x + to, units, gate, k);
    get_gates(r + to, units, part, k);
    for (int j = 0; j < 4; j++) gate[j] = gate[j] + part[j];
    lstm_cell(gate, get(c + at, k), h, next);
    set_gates(gates + to, units, gate, k);
    set(h_next + at, h, k);
    set(c_next + at, next, k);
  });
}

template <class T>
void lstm_cell_backward_kernel(const Args& a) {
  using V = Vec<WideOf<T>>;
  const View& state = a.in[3];
  const T* g_h = a.in[0].given() ? a.in[0].ptr<const T>() : nullptr;
  const T* g_c = a.in[1].given() ? a.in[1].ptr<const T>() : nullptr;
  const T *gates = a.in[2].ptr<const T>(), *c = state.ptr<const T>(), *c_next = a.in[4].ptr<const T>();
  T *d = a.out[0].ptr<T>(), *dc = a.out[1].ptr<T>();
  const int64_t units = state.shape[state.ndim - 1];
  for_units<T>(state, [=](int64_t row, int64_t unit, auto k) {
    const int64_t at = row * units + unit, to = row * 4 * units + unit;
    V gate[4], sums[4], before;
    fetch_row<4, false>(gates + to, units);
    fetch_row<4, true>(d + to, units);
    get_gates(gates + to, units, gate, k);
    lstm_cell_backward(g_h ? get(g_h + at, k) : V(0), g_c ? get(g_c + at, k) : V(0), gate, get(c + at, k), get(c_next + at, k),
                       sums, before);
    set_gates(d + to, units, sums, k);
    set(dc + at, before, k);
  });
}

template <class T>
void gru_cell_kernel(const Args& a) {
  using V = Vec<WideOf<T>>;
  const View& state = a.in[2];
  const T *x = a.in[0].ptr<const T>(), *r = a.in[1].ptr<const T>(), *h = state.ptr<const T>();
  T *h_next = a.out[0].ptr<T>(), *gates = a.out[1].ptr<T>();
  const int64_t units = state.shape[state.ndim - 1];
  for_units<T>(state, [=](int64_t row, int64_t unit, auto k) {
    const int64_t at = row * units + unit, from = row * 3 * units + unit, to = row * 4 * units + unit;
    V of_x[3], of_r[3], gate[4], next;
    fetch_row<4, true>(gates + to, units);
    get_gates(x + from, units, of_x, k);
    get_gates(r + from, units, of_r, k);
    gru_cell(of_x, of_r, get(h + at, k), gate, next);
    set_gates(gates + to, units, gate, k);
    set(h_next + at, next, k);
  });
}

template <class T>
void gru_cell_backward_kernel(const Args& a) {
  using V = Vec<WideOf<T>>;
  const View& state = a.in[2];
  const T *g = a.in[0].ptr<const T>(), *gates = a.in[1].ptr<const T>(), *h = state.ptr<const T>();
  T *dx = a.out[0].ptr<T>(), *dr = a.out[1].ptr<T>(), *dh = a.out[2].ptr<T>();
  const int64_t units = state.shape[state.ndim - 1];
  for_units<T>(state, [=](int64_t row, int64_t unit, auto k) {
    const int64_t at = row * units + unit, from = row * 4 * units + unit, to = row * 3 * units + unit;
    V gate[4], of_x[3], of_r[3], before;
    fetch_row<4, false>(gates + from, units);
    fetch_row<3, true>(dx + to, units);
    fetch_row<3, true>(dr + to, units);
    get_gates(gates + from, units, gate, k);
    gru_cell_backward(get(g + at, k), gate, get(h + at, k), of_x, of_r, before);
    set_gates(dx + to, units, of_x, k);
    set_gates(dr + to, units, of_r, k);
    set(dh + at, before, k);
  });
}

}  // namespace

#define FD_FLOAT_ROWS(op)                                                                                            \
  {OpId::op, kF32, op##_kernel<float>}, {OpId::op, kF64, op##_kernel<double>}, {OpId::op, kF16, op##_kernel<f16>}, { \
    OpId::op, kBF16, op##_kernel<bf16>                                                                               \
  }

FD_KERNEL_TABLE(recurrent) = {
    FD_FLOAT_ROWS(lstm_cell), FD_FLOAT_ROWS(lstm_cell_backward), FD_FLOAT_ROWS(gru_cell), FD_FLOAT_ROWS(gru_cell_backward), {}};

}  // namespace fastdl
