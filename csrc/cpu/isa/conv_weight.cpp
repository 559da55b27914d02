// conv2d's gradients by the weights and by the bias, put into the forms of conv_weight.h and of the files named in conv.cpp.
#include "cpu/isa/conv_depthwise.h"
#include "cpu/isa/conv_planes.h"
#include "cpu/isa/conv_product.h"
#include "cpu/isa/conv_weight.h"
#include "cpu/isa/conv_winograd_weight.h"
#if defined(__AMX_BF16__)
#include "cpu/isa/conv_tiles_weight.h"
#endif

namespace fastdl {
namespace {

// dy with its few channels padded to one vector.
template <class T>
void pad_channels(const T* from, int64_t pixels, int64_t channels, T* to) {
  parallel_for(pixels, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) store(to + i * Vec<T>::size, load_partial(from + i * channels, int(channels)));
  });
}

// On AMX tiles; false where that is not possible, or not accurate.
template <class T>
bool weights_by_tiles(const ConvWeightPlan& plan, const WeightGrad<T>& g) {
#if defined(__AMX_BF16__)
  if constexpr (sizeof(T) == 4) return plan.tiles && weight_on_tiles(g, plan.blocks);
#endif
  return (void)plan, (void)g, false;
}

template <class T>
bool weights_by_winograd(const ConvWeightPlan& plan, const WeightGrad<T>& g) {
  if constexpr (sizeof(T) == 4) {
    if (plan.winograd.tiles) return winograd_weight_grad(g, plan.winograd), true;
  }
  return (void)plan, (void)g, false;
}

template <class T>
void conv2d_backward_weight_kernel(const Args& a) {
  const View &dy = a.in[0], &x = a.in[1], &dw = a.out[0], &db = a.out[1];
  ConvShape s = conv_shape(*a.attrs, x, dw, dy);
  const bool narrow = dw.dtype != dtype_of<T>();
  const bool pooled = a.nin == 3;  // dy is that of a max-pooling behind, whose taps are given: a program's pass made it so
  for (int axis = 0; axis < 2 && pooled; axis++) s.out[axis] = a.attrs->i[11 + axis];
  const int64_t filters = a.attrs->i[13], first = a.attrs->i[14];  // dy is a view of some of so many (plan_updates.cpp), or 0
  const ConvWeightPlan plan = conv_weight_plan(s, sizeof(T), narrow, a.attrs->i[15], filters);
  if (db.numel() == 0) return;

  WeightGrad<T> g;
  g.s = s;
  g.parts = parts_of(dw.dtype);
  g.splits = plan.splits;
  g.rows_per_split = plan.rows_per_split;
  g.x = x.ptr<T>();
  g.dy = dy.ptr<T>();
  g.filters = filters ? filters : s.group_out();
  g.first_filter = first;
  g.dy_pitch = filters ? filters : s.out_channels;
  for (int axis = 0; axis < 2; axis++) {
    g.x_size[axis] = s.in[axis];
    g.padding[axis] = s.padding[axis];
  }
  g.pairs = s.pads_input();
  for (int axis = 0; axis < 2 && pooled; axis++) g.window[axis] = a.attrs->i[9 + axis], g.pooled[axis] = dy.shape[2 + axis];
  if (pooled) g.taps = a.in[2].ptr<uint8_t>();
  g.sums = scratch<T>(a, plan.sums);
  g.dw = narrow ? scratch<T>(a, plan.wide_out) : dw.ptr<T>();
  g.db = narrow ? g.dw + dw.numel() : db.ptr<T>();
  if (s.batch == 0) {
    set_zeros(g.dw, dw.numel());
    set_zeros(g.db, db.numel());
  } else if (s.depthwise()) {
    depthwise_weight_grad(g);
  } else if (!plan.planes || !weight_planes(g)) {
    if (plan.pad_input) {
      T* padded = scratch<T>(a, plan.padded_input);
      pad_input(s, g.x, padded);
      g.x = padded;
      for (int axis = 0; axis < 2; axis++) g.x_size[axis] = s.padded(axis), g.padding[axis] = 0;
    }
    if (s.out_channels < Vec<T>::size) {
      T* padded = scratch<T>(a, plan.padded_grad);
      pad_channels(g.dy, s.out_pixels(), s.out_channels, padded);
      g.dy = padded;
      g.dy_pitch = Vec<T>::size;
    }
    if (plan.product)
      product_weight_grad(g, g.sums);
    else if (!weights_by_tiles(plan, g) && !weights_by_winograd(plan, g))
      plan.direct ? direct_weight_grad(g) : weight_grad(g);
  }
  if constexpr (sizeof(T) == 4) {
    if (narrow) {
      narrow_output(g.dw, dw);
      narrow_output(g.db, db);
    }
  }
}

}  // namespace

FD_KERNEL_TABLE(conv_weight) = {
    {OpId::conv2d_backward_weight, kF32, conv2d_backward_weight_kernel<float>},
    FD_ROWS_WITHOUT_TILES({OpId::conv2d_backward_weight, kF64, conv2d_backward_weight_kernel<double>}){},
};

}  // namespace fastdl
