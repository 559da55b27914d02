// Shapes and dtypes of the cells of recurrent layers. Kernels get row-major arrays: rows of H units, and of gates * H.
#include "infer.h"

namespace fastdl {
namespace {

// Inputs first .. first + n - 1 must have the shape of `state` (..., H), whose last size counts `gates` times.
void check_inputs(Call& c, const View& state, int first, int n, int gates, const char* const* names) {
  if (state.ndim < 1) fail(ErrorCode::Shape, "%s: the state has shape (); need (..., units)", op_name(c));
  const int last = state.ndim - 1;
  for (int k = first; k < first + n; k++) {
    const View& v = c.in[k];
    if (!v.given()) continue;
    bool fits = v.ndim == state.ndim && v.shape[last] % gates == 0 && v.shape[last] / gates == state.shape[last];
    for (int d = 0; d < last && fits; d++) fits = v.shape[d] == state.shape[d];
    if (!fits)
      fail(ErrorCode::Shape, "%s: %s has shape %s; a state of shape %s needs the same%s", op_name(c), names[k],
           shape_text(v).c_str(), shape_text(state).c_str(),
           gates == 1   ? ""
           : gates == 3 ? ", with 3 times as many columns"
                        : ", with 4 times as many columns");
    c.contiguous_inputs |= 1u << k;
  }
}

// x, r and the state before a step, which are inputs 0, 1 and 2.
void check_cell(Call& c, int gates, const char* const* names) {
  check_inputs(c, c.in[2], 2, 1, 1, names);
  check_inputs(c, c.in[2], 0, 2, gates, names);
  c.compute = lift_dtype(c, promote_inputs(c, 0, 3));
}

// Output k: (..., count * H).
void set_units(Call& c, int k, const View& state, int count) {
  int64_t shape[kMaxDims];
  for (int d = 0; d < state.ndim; d++) shape[d] = state.shape[d];
  if (__builtin_mul_overflow(shape[state.ndim - 1], int64_t(count), &shape[state.ndim - 1]))
    fail(ErrorCode::Shape, "%s: the tensor is too large", op_name(c));
  set_out(c, k, c.compute, shape, state.ndim);
}

}  // namespace

void infer_lstm_cell(Call& c) {
  static const char* const names[] = {"x", "r", "c"};
  check_cell(c, 4, names);
  set_units(c, 0, c.in[2], 1);
  set_units(c, 1, c.in[2], 1);
  set_units(c, 2, c.in[2], 4);
}

void infer_lstm_cell_backward(Call& c) {
  static const char* const names[] = {"the gradient of h_next", "the gradient of c_next", "gates", "c", "c_next"};
  const View& state = c.in[3];
  for (int k : {0, 1, 3, 4}) check_inputs(c, state, k, 1, 1, names);
  check_inputs(c, state, 2, 1, 4, names);
  for (int k : {0, 1})
    if (c.in[k].given()) lift_dtype(c, c.in[k].dtype);
  c.compute = lift_dtype(c, promote_inputs(c, 2, 3));
  set_units(c, 0, state, 4);
  set_units(c, 1, state, 1);
}

void infer_gru_cell(Call& c) {
  static const char* const names[] = {"x", "r", "h"};
  check_cell(c, 3, names);
  set_units(c, 0, c.in[2], 1);
  set_units(c, 1, c.in[2], 4);
}

void infer_gru_cell_backward(Call& c) {
  static const char* const names[] = {"the gradient", "gates", "h"};
  const View& state = c.in[2];
  for (int k : {0, 2}) check_inputs(c, state, k, 1, 1, names);
  check_inputs(c, state, 1, 1, 4, names);
  lift_dtype(c, c.in[0].dtype);
  c.compute = lift_dtype(c, promote_inputs(c, 1, 2));
  set_units(c, 0, state, 3);
  set_units(c, 1, state, 3);
  set_units(c, 2, state, 1);
}

}  // namespace fastdl
