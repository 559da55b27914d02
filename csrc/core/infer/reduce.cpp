// Shapes, dtypes and workspace of reductions and scans. Outputs keep the rank of the input (size 1 on reduced axes); the dispatcher
// drops those dims afterwards unless keepdims was asked for.
#include "infer.h"
#include "pieces.h"

namespace fastdl {
namespace {

struct Extent {
  int64_t shape[kMaxDims];  // of the output
  int64_t outs = 1, n = 1;  // outputs, elements per output
};

Extent reduced_extent(const Call& c, int64_t mask) {
  const View& x = c.in[0];
  if (mask < 0 || mask >> x.ndim != 0)
    fail(ErrorCode::Index, "%s: axes mask %lld names a dimension that a %d-d tensor lacks", op_name(c),
         static_cast<long long>(mask), x.ndim);
  checked_numel(op_name(c), x.shape, x.ndim, 32);  // broadcast views may claim more elements than any memory has
  Extent e;
  for (int d = 0; d < x.ndim; d++) {
    const bool gone = mask >> d & 1;
    e.shape[d] = gone ? 1 : x.shape[d];
    (gone ? e.n : e.outs) *= x.shape[d];
  }
  return e;
}

DType requested_dtype(const Call& c, DType otherwise) {
  const bool scan = c.op == OpId::cumsum || c.op == OpId::cumprod;
  const int64_t d = c.attrs.i[scan ? 1 : 2];
  if (d < -1 || d >= kNumDTypes)
    fail(ErrorCode::Value, "%s: dtype code %lld is not a dtype", op_name(c), static_cast<long long>(d));
  return d < 0 ? otherwise : DType(d);
}

// sum, prod and scans of integers: 64 bits wide unless the caller asks for a dtype. Computing in the input's own dtype
// (accumulating in 64 bits) spares the cast.
void set_wide_dtypes(Call& c, DType& out) {
  const DType in = c.in[0].dtype;
  const DType wide = kind(in) == 'u' ? DType::uint64 : kind(in) == 'i' || kind(in) == 'b' ? DType::int64 : in;
  out = requested_dtype(c, wide);
  c.compute = out == wide ? in : out;
}

void refuse_empty(const Call& c) {
  fail(ErrorCode::Value, "%s: zero-size reduction has no identity: got shape %s", op_name(c), shape_text(c.in[0]).c_str());
}

}  // namespace

void infer_reduce(Call& c) {
  const DType in = c.in[0].dtype;
  const Extent e = reduced_extent(c, c.attrs.i[0]);
  DType out = in;
  int64_t lanes = 1, state = 8;  // numbers per output, bytes of a partial result
  c.compute = in;
  switch (c.op) {
    case OpId::sum:
    case OpId::prod:
      set_wide_dtypes(c, out);
      break;
    case OpId::mean:
      if (is_integer(in) || in == DType::bool_) c.compute = DType::float64;
      out = c.compute;
      break;
    case OpId::var:
      if (is_complex(in)) fail(ErrorCode::DType, "var: got %s; needs real numbers", dtype_name(in));
      if (is_integer(in) || in == DType::bool_) c.compute = DType::float64;
      out = c.compute, state = 16;
      break;
    case OpId::any:
    case OpId::all:
      out = DType::bool_;
      break;
    default:  // max, min
      if (is_complex(in)) fail(ErrorCode::DType, "%s: got %s; complex numbers have no order", op_name(c), dtype_name(in));
      if (e.n == 0 && e.outs > 0) refuse_empty(c);
  }
  if (is_complex(c.compute)) lanes = 2;
  set_out(c, 0, out, e.shape, c.in[0].ndim);
  const int64_t pieces = reduce_pieces(e.outs * lanes, e.n);
  c.workspace = pieces > 1 ? pieces * e.outs * lanes * state : 0;
}

void infer_argreduce(Call& c) {
  const View& x = c.in[0];
  if (is_complex(x.dtype)) fail(ErrorCode::DType, "%s: got %s; complex numbers have no order", op_name(c), dtype_name(x.dtype));
  int64_t& axis = c.attrs.i[0];
  if (axis != -1) axis = normal_axis(c, axis, x.ndim);
  const Extent e = reduced_extent(c, axis < 0 ? (int64_t(1) << x.ndim) - 1 : int64_t(1) << axis);
  if (e.n == 0 && e.outs > 0) refuse_empty(c);
  c.compute = x.dtype;
  set_out(c, 0, DType::int64, e.shape, x.ndim);
  const int64_t pieces = reduce_pieces(e.outs, e.n);
  c.workspace = pieces > 1 ? pieces * e.outs * 16 : 0;
}

void infer_scan(Call& c) {
  const View& x = c.in[0];
  c.attrs.i[0] = normal_axis(c, c.attrs.i[0], x.ndim);
  checked_numel(op_name(c), x.shape, x.ndim, 16);
  DType out;
  set_wide_dtypes(c, out);
  set_out(c, 0, out, x.shape, x.ndim);
}

}  // namespace fastdl
