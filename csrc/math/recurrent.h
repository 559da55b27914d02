// Cells of recurrent layers behind their matrix products: gates from their sums, the next states, and the gradients. Gates and
// their order as in PyTorch and cuDNN.
//   LSTM (S. Hochreiter, J. Schmidhuber, "Long short-term memory", 1997; forget gate: F. Gers, J. Schmidhuber, F. Cummins, 2000)
//   GRU (K. Cho et al., arXiv 1406.1078, with the reset gate behind the product, as cuDNN has it)
#pragma once
#include "math/activation.h"

namespace fastdl {
namespace {

// gate: sums of input, forget, cell and output gate; becomes their values.
template <class V>
FD_MATH void lstm_cell(V (&gate)[4], V c, V& h_next, V& c_next) {
  gate[0] = sigmoid(gate[0]), gate[1] = sigmoid(gate[1]), gate[2] = tanh(gate[2]), gate[3] = sigmoid(gate[3]);
  c_next = fma(gate[1], c, gate[0] * gate[2]);
  h_next = gate[3] * tanh(c_next);
}
// g_h, g_c: gradients of h_next and c_next. d: of the gates' sums.
template <class V>
FD_MATH void lstm_cell_backward(V g_h, V g_c, const V (&gate)[4], V c, V c_next, V (&d)[4], V& dc) {
  const V y = tanh(c_next), total = g_c + tanh_backward(g_h * gate[3], y);
  d[0] = sigmoid_backward(total * gate[2], gate[0]);
  d[1] = sigmoid_backward(total * c, gate[1]);
  d[2] = tanh_backward(total * gate[0], gate[2]);
  d[3] = sigmoid_backward(g_h * y, gate[3]);
  dc = total * gate[1];
}

// x, r: the input's and the state's part of reset, update and new gate; gate: their values, and the state's part of new.
template <class V>
FD_MATH void gru_cell(const V (&x)[3], const V (&r)[3], V h, V (&gate)[4], V& h_next) {
  gate[0] = sigmoid(x[0] + r[0]), gate[1] = sigmoid(x[1] + r[1]);
  gate[2] = tanh(fma(gate[0], r[2], x[2])), gate[3] = r[2];
  h_next = fma(gate[1], h - gate[2], gate[2]);
}
// dx, dr: gradients of x and r; dh: of h, but for what comes through r.
template <class V>
FD_MATH void gru_cell_backward(V g, const V (&gate)[4], V h, V (&dx)[3], V (&dr)[3], V& dh) {
  dx[2] = tanh_backward(g * (V(1) - gate[1]), gate[2]);
  dr[2] = dx[2] * gate[0];
  dx[0] = dr[0] = sigmoid_backward(dx[2] * gate[3], gate[0]);
  dx[1] = dr[1] = sigmoid_backward(g * (h - gate[2]), gate[1]);
  dh = g * gate[1];
}

}  // namespace
}  // namespace fastdl
