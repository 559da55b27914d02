// 1x1 convolution of step 1, where no AMX tiles run: matrix products (gemm.h), since channels-last images are matrices of
// pixels by channels already.
#pragma once
#include "cpu/isa/conv_weight.h"
#include "cpu/isa/gemm_product.h"

namespace fastdl {
namespace {

// y, or dx: pixels x run by run x columns. Weights (O, C) as they are; for dx channels that are summed lie `columns` apart.
template <class T>
void product_pixels(const Gather<T>& g, const ConvPack<T>& pack, T* workspace) {
  Gemm<T> p = {};
  p.m = g.pixels(), p.n = g.columns, p.k = g.run;
  p.a = g.source, p.a_row = g.pitch, p.a_k = 1;
  p.b = pack.weights, p.b_k = pack.channel_stride, p.b_col = pack.column_stride;
  p.c = g.out, p.c_row = g.out_pitch;
  p.bias = g.bias, p.relu = g.relu, p.finish = g.activate;
  ProductBatch one = {};
  one.count = 1;
  shared_gemm(p, one, workspace);
}

// dw (O, C) = dy^T x, some pixels at a time, so that little is packed; and db.
template <class T>
void product_weight_grad(const WeightGrad<T>& w, T* workspace) {
  Gemm<T> p = {};
  p.m = w.s.out_channels, p.n = w.s.in_channels;
  p.a_row = 1, p.a_k = w.dy_pitch;
  p.b_k = w.s.in_channels, p.b_col = 1;
  p.c = w.dw, p.c_row = w.s.in_channels;
  ProductBatch one = {};
  one.count = 1;
  const Blocks parts(w.s.out_pixels(), kConvProductPixels);
  for (int64_t i = 0; i < parts.count; i++) {
    const int64_t first = parts.begin(i);
    p.k = parts.begin(i + 1) - first;
    p.a = w.dy + first * w.dy_pitch;
    p.b = w.x + first * w.s.in_channels;
    p.accumulate = i > 0;
    shared_gemm(p, one, workspace);
  }
  parallel_chunks(w.panels().count, [&](int64_t p) {
    const WeightPanel<T> panel(w, 0, p);
    alignas(64) T sums[2 * Vec<T>::size];
    piece_work(w.s.out_pixels() * panel.width, kConvPieceMacs);
    for_blocks(w, 0, panel.width, [&](const PixelBlock& block, bool fresh) { add_bias(panel, block, fresh, sums); });
    finish_bias(panel, sums, 1, 0);
  });
}

}  // namespace
}  // namespace fastdl
