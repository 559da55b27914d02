// Shapes and dtypes of softmax, cross-entropy and their gradients.
#include "infer.h"

namespace fastdl {
namespace {

bool same_strides(const View& a, const View& b) {
  for (int d = 0; d < a.ndim; d++)
    if (a.shape[d] != 1 && a.strides[d] != b.strides[d]) return false;
  return true;
}

int64_t int_at(const View& v, int64_t i) {
  const int64_t k = i * v.strides[0];
  switch (v.dtype) {
    case DType::int64:
      return v.ptr<int64_t>()[k];
    case DType::int32:
      return v.ptr<int32_t>()[k];
    case DType::int16:
      return v.ptr<int16_t>()[k];
    case DType::int8:
      return v.ptr<int8_t>()[k];
    case DType::uint32:
      return v.ptr<uint32_t>()[k];
    case DType::uint16:
      return v.ptr<uint16_t>()[k];
    default:
      return v.ptr<uint8_t>()[k];
  }
}

// Checks logits (N, C), target (N) and the attributes.
void check_classes(const Call& c, const View& x, const View& target) {
  const char* name = op_name(c);
  if (x.ndim != 2) fail(ErrorCode::Shape, "%s: logits have shape %s; need (N, C)", name, shape_text(x).c_str());
  if (target.ndim != 1 || target.shape[0] != x.shape[0])
    fail(ErrorCode::Shape, "%s: target has shape %s; logits %s need (%lld,)", name, shape_text(target).c_str(),
         shape_text(x).c_str(), static_cast<long long>(x.shape[0]));
  if (!is_integer(target.dtype) || target.dtype == DType::uint64)
    fail(ErrorCode::DType, "%s: target is %s; needs class numbers in int64 or a smaller integer dtype", name,
         dtype_name(target.dtype));
  const double smoothing = c.attrs.f[0];
  if (!(smoothing >= 0 && smoothing <= 1)) fail(ErrorCode::Value, "%s: label_smoothing is %g; needs 0 to 1", name, smoothing);
  for (int64_t i = 0, n = target.data ? target.shape[0] : 0; i < n;
       i++) {  // no data: in a device's memory, where the kernel checks
    const int64_t t = int_at(target, i);
    if (t != c.attrs.i[0] && (t < 0 || t >= x.shape[1]))
      fail(ErrorCode::Index, "%s: target[%lld] is %lld; %lld classes need targets from 0 to %lld", name, static_cast<long long>(i),
           static_cast<long long>(t), static_cast<long long>(x.shape[1]), static_cast<long long>(x.shape[1] - 1));
  }
}

}  // namespace

void infer_softmax(Call& c) {
  const View& x = c.in[0];
  c.compute = lift_dtype(c, x.dtype);
  if (x.ndim || (c.attrs.i[0] != 0 && c.attrs.i[0] != -1))
    c.attrs.i[0] = normal_axis(c, c.attrs.i[0], x.ndim);
  else
    c.attrs.i[0] = 0;
  if (!dense(x) || c.compute != x.dtype) c.contiguous_inputs |= 1;
  if (c.contiguous_inputs)
    set_out(c, 0, c.compute, x.shape, x.ndim);
  else
    set_out_like(c, c.compute, x);
}

void infer_softmax_backward(Call& c) {
  const View &g = c.in[0], &y = c.in[1];
  if (!same_shape(g, y))
    fail(ErrorCode::Shape, "%s: gradient is %s, output is %s; need equal shapes", op_name(c), shape_text(g).c_str(),
         shape_text(y).c_str());
  c.compute = lift_dtype(c, promote_inputs(c, 0, 2));
  if (y.ndim || (c.attrs.i[0] != 0 && c.attrs.i[0] != -1))
    c.attrs.i[0] = normal_axis(c, c.attrs.i[0], y.ndim);
  else
    c.attrs.i[0] = 0;
  if (!dense(y) || !same_strides(g, y) || c.compute != g.dtype || c.compute != y.dtype) c.contiguous_inputs |= 3;
  if (c.contiguous_inputs)
    set_out(c, 0, c.compute, y.shape, y.ndim);
  else
    set_out_like(c, c.compute, g);
}

void infer_cross_entropy(Call& c) {
  const View &x = c.in[0], &target = c.in[1];
  check_classes(c, x, target);
  c.compute = lift_dtype(c, x.dtype);
  c.contiguous_inputs |= 1;
  c.own_dtype_inputs |= 2;
  set_out(c, 0, c.compute, x.shape, 1);
  set_out(c, 1, c.compute == DType::float64 ? DType::float64 : DType::float32, x.shape, 1);
}

void infer_cross_entropy_backward(Call& c) {
  const View &g = c.in[0], &x = c.in[1], &target = c.in[2], &lse = c.in[3];
  check_classes(c, x, target);
  c.compute = lift_dtype(c, x.dtype);
  const DType wide = c.compute == DType::float64 ? DType::float64 : DType::float32;
  for (const View* v : {&g, &lse})
    if (v->ndim != 1 || v->shape[0] != x.shape[0])
      fail(ErrorCode::Shape, "%s: %s has shape %s; logits %s need (%lld,)", op_name(c), v == &g ? "gradient" : "log-sum-exp",
           shape_text(*v).c_str(), shape_text(x).c_str(), static_cast<long long>(x.shape[0]));
  if (lse.dtype != wide)
    fail(ErrorCode::DType, "%s: log-sum-exp is %s; %s logits need %s", op_name(c), dtype_name(lse.dtype), dtype_name(c.compute),
         dtype_name(wide));
  c.contiguous_inputs |= 2;
  c.own_dtype_inputs |= 4 | 8;
  set_out(c, 0, c.compute, x.shape, 2);
}

}  // namespace fastdl
