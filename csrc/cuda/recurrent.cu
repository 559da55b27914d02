// Cells of recurrent layers (math/recurrent.h). A thread has V neighbouring units of a row: 16 bytes of each array if their number
// and all addresses allow it, else one.
#include "cuda/device/divide.cuh"
#include "cuda/device/pack.cuh"
#include "math/recurrent.h"

namespace fastdl {
namespace {

constexpr int kCellThreads = 256;

// Rows of units in V's, and where a thread's units are.
struct Units {
  int64_t cells;
  Division by_row;

  template <int V>
  FD_DEVICE bool locate(int64_t& row, int64_t& unit, int64_t& units) const {
    row = blockIdx.x * int64_t(kCellThreads) + threadIdx.x;
    if (row >= cells) return false;
    unit = by_row.split(row) * V;
    units = by_row.by * V;
    return true;
  }
  uint32_t blocks() const { return uint32_t(ceil_div(cells, kCellThreads)); }
};
Units units_of(const View& state, int v) {
  const int64_t cells = state.numel() / v;
  return {cells, division(state.shape[state.ndim - 1] / v, cells)};
}

template <class T, int V, int gates>
FD_DEVICE void load_gates(const T* p, int64_t units, Cell<T, V> (&v)[gates]) {
#pragma unroll
  for (int j = 0; j < gates; j++) v[j] = load_cell<V>(p + j * units);
}
template <class T, int V, int gates>
FD_DEVICE void store_gates(T* p, int64_t units, const Cell<T, V> (&v)[gates]) {
#pragma unroll
  for (int j = 0; j < gates; j++) store_cell(p + j * units, v[j]);
}
// Unit k of each gate.
template <class T, int V, int gates>
FD_DEVICE void widen_gates(const Convert<T>& as, const Cell<T, V> (&v)[gates], int k, WideOf<T> (&w)[gates]) {
#pragma unroll
  for (int j = 0; j < gates; j++) w[j] = as.wide(v[j].v[k]);
}
template <class T, int V, int gates>
FD_DEVICE void narrow_gates(const Convert<T>& as, const WideOf<T> (&w)[gates], int k, Cell<T, V> (&v)[gates]) {
#pragma unroll
  for (int j = 0; j < gates; j++) v[j].v[k] = as.narrow(w[j]);
}

template <class T, int V>
FD_KERNEL(kCellThreads, 2)
lstm_cell_kernel(const T* x, const T* r, const T* c, T* h_next, T* c_next, T* gates, Units grid, Convert<T> as) {
  int64_t row, unit, units;
  if (!grid.locate<V>(row, unit, units)) return;
  const int64_t at = row * units + unit, gate_at = row * 4 * units + unit;
  Cell<T, V> sums[4], parts[4], next, h;
  load_gates(x + gate_at, units, sums);
  load_gates(r + gate_at, units, parts);
  const Cell<T, V> before = load_cell<V>(c + at);
#pragma unroll
  for (int k = 0; k < V; k++) {
    WideOf<T> gate[4], part[4], y, state;
    widen_gates(as, sums, k, gate);
    widen_gates(as, parts, k, part);
#pragma unroll
    for (int j = 0; j < 4; j++) gate[j] += part[j];
    lstm_cell(gate, as.wide(before.v[k]), y, state);
    narrow_gates(as, gate, k, sums);
    h.v[k] = as.narrow(y), next.v[k] = as.narrow(state);
  }
  store_gates(gates + gate_at, units, sums);
  store_cell(h_next + at, h);
  store_cell(c_next + at, next);
}

template <class T, int V>
FD_KERNEL(kCellThreads, 2)
lstm_cell_backward_kernel(const T* g_h, const T* g_c, const T* gates, const T* c, const T* c_next, T* d, T* dc, Units grid,
                          Convert<T> as) {
  int64_t row, unit, units;
  if (!grid.locate<V>(row, unit, units)) return;
  const int64_t at = row * units + unit, gate_at = row * 4 * units + unit;
  Cell<T, V> values[4], of_h{}, of_c{};
  load_gates(gates + gate_at, units, values);
  if (g_h) of_h = load_cell<V>(g_h + at);
  if (g_c) of_c = load_cell<V>(g_c + at);
  Cell<T, V> before = load_cell<V>(c + at);
  const Cell<T, V> next = load_cell<V>(c_next + at);
#pragma unroll
  for (int k = 0; k < V; k++) {
    WideOf<T> gate[4], sums[4], slope;
    widen_gates(as, values, k, gate);
    lstm_cell_backward(as.wide(of_h.v[k]), as.wide(of_c.v[k]), gate, as.wide(before.v[k]), as.wide(next.v[k]), sums, slope);
    narrow_gates(as, sums, k, values);
    before.v[k] = as.narrow(slope);
  }
  store_gates(d + gate_at, units, values);
  store_cell(dc + at, before);
}

template <class T, int V>
FD_KERNEL(kCellThreads, 2)
gru_cell_kernel(const T* x, const T* r, const T* h, T* h_next, T* gates, Units grid, Convert<T> as) {
  int64_t row, unit, units;
  if (!grid.locate<V>(row, unit, units)) return;
  const int64_t at = row * units + unit, from = row * 3 * units + unit;
  Cell<T, V> of_x[3], of_r[3], values[4], state;
  load_gates(x + from, units, of_x);
  load_gates(r + from, units, of_r);
  state = load_cell<V>(h + at);
#pragma unroll
  for (int k = 0; k < V; k++) {
    WideOf<T> a[3], b[3], gate[4], next;
    widen_gates(as, of_x, k, a);
    widen_gates(as, of_r, k, b);
    gru_cell(a, b, as.wide(state.v[k]), gate, next);
    narrow_gates(as, gate, k, values);
    state.v[k] = as.narrow(next);
  }
  store_gates(gates + row * 4 * units + unit, units, values);
  store_cell(h_next + at, state);
}

template <class T, int V>
FD_KERNEL(kCellThreads, 2)
gru_cell_backward_kernel(const T* g, const T* gates, const T* h, T* dx, T* dr, T* dh, Units grid, Convert<T> as) {
  int64_t row, unit, units;
  if (!grid.locate<V>(row, unit, units)) return;
  const int64_t at = row * units + unit, to = row * 3 * units + unit;
  Cell<T, V> values[4], of_x[3], of_r[3];
  load_gates(gates + row * 4 * units + unit, units, values);
  const Cell<T, V> gradient = load_cell<V>(g + at);
  Cell<T, V> state = load_cell<V>(h + at);
#pragma unroll
  for (int k = 0; k < V; k++) {
    WideOf<T> gate[4], a[3], b[3], before;
    widen_gates(as, values, k, gate);
    gru_cell_backward(as.wide(gradient.v[k]), gate, as.wide(state.v[k]), a, b, before);
    narrow_gates(as, a, k, of_x);
    narrow_gates(as, b, k, of_r);
    state.v[k] = as.narrow(before);
  }
  store_gates(dx + to, units, of_x);
  store_gates(dr + to, units, of_r);
  store_cell(dh + at, state);
}

// run(Convert<T>, V as an integral constant, grid) with V as the arrays of a call allow it.
template <class F>
void by_units(const Args& a, const View& state, const F& run) {
  if (state.numel() == 0) return;
  by_float(state.dtype, [&](auto as) {
    using T = typename decltype(as)::Type;
    bool packs = state.shape[state.ndim - 1] % kPack<T> == 0;
    for (int k = 0; k < a.nin; k++) packs &= !a.in[k].given() || is_aligned(a.in[k].data);
    for (int k = 0; k < a.nout; k++) packs &= is_aligned(a.out[k].data);
    by_packs<T>(packs, [&](auto v) { run(as, v, units_of(state, v.value)); });
  });
}

void lstm_cell_row(const Args& a) {
  by_units(a, a.in[2], [&](auto as, auto v, const Units& grid) {
    using T = typename decltype(as)::Type;
    FD_LAUNCH(a, (lstm_cell_kernel<T, v.value>), grid.blocks(), kCellThreads, 0, a.in[0].ptr<const T>(), a.in[1].ptr<const T>(),
              a.in[2].ptr<const T>(), a.out[0].ptr<T>(), a.out[1].ptr<T>(), a.out[2].ptr<T>(), grid, as);
  });
}
void lstm_cell_backward_row(const Args& a) {
  by_units(a, a.in[3], [&](auto as, auto v, const Units& grid) {
    using T = typename decltype(as)::Type;
    const T* g_h = a.in[0].given() ? a.in[0].ptr<const T>() : nullptr;
    const T* g_c = a.in[1].given() ? a.in[1].ptr<const T>() : nullptr;
    FD_LAUNCH(a, (lstm_cell_backward_kernel<T, v.value>), grid.blocks(), kCellThreads, 0, g_h, g_c, a.in[2].ptr<const T>(),
              a.in[3].ptr<const T>(), a.in[4].ptr<const T>(), a.out[0].ptr<T>(), a.out[1].ptr<T>(), grid, as);
  });
}
void gru_cell_row(const Args& a) {
  by_units(a, a.in[2], [&](auto as, auto v, const Units& grid) {
    using T = typename decltype(as)::Type;
    FD_LAUNCH(a, (gru_cell_kernel<T, v.value>), grid.blocks(), kCellThreads, 0, a.in[0].ptr<const T>(), a.in[1].ptr<const T>(),
              a.in[2].ptr<const T>(), a.out[0].ptr<T>(), a.out[1].ptr<T>(), grid, as);
  });
}
void gru_cell_backward_row(const Args& a) {
  by_units(a, a.in[2], [&](auto as, auto v, const Units& grid) {
    using T = typename decltype(as)::Type;
    FD_LAUNCH(a, (gru_cell_backward_kernel<T, v.value>), grid.blocks(), kCellThreads, 0, a.in[0].ptr<const T>(),
              a.in[1].ptr<const T>(), a.in[2].ptr<const T>(), a.out[0].ptr<T>(), a.out[1].ptr<T>(), a.out[2].ptr<T>(), grid, as);
  });
}

}  // namespace

FD_CUDA_TABLE(recurrent) = {{OpId::lstm_cell, kMaskFloat, lstm_cell_row, nullptr},
                            {OpId::lstm_cell_backward, kMaskFloat, lstm_cell_backward_row, nullptr},
                            {OpId::gru_cell, kMaskFloat, gru_cell_row, nullptr},
                            {OpId::gru_cell_backward, kMaskFloat, gru_cell_backward_row, nullptr},
                            {}};

}  // namespace fastdl
