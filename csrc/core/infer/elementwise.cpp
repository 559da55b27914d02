// Shapes and dtypes of elementwise ops: NumPy's broadcasting and promotion. Equal shapes and dtypes, the common case, come first.
#include "infer.h"

namespace fastdl {

int broadcast_shapes(const Call& c, int first, int n, int64_t* shape) {
  int ndim = 0;
  for (int k = first; k < first + n; k++)
    if (c.in[k].ndim > ndim) ndim = c.in[k].ndim;
  for (int i = 0; i < ndim; i++) shape[i] = 1;
  for (int k = first; k < first + n; k++) {
    const View& v = c.in[k];
    for (int i = 0; i < v.ndim; i++) {
      int64_t& s = shape[ndim - v.ndim + i];
      if (v.shape[i] == s || v.shape[i] == 1) continue;
      if (s != 1) {
        std::string shapes;
        for (int j = first; j < first + n; j++)
          if (c.in[j].given()) shapes += (shapes.empty() ? "" : ", ") + shape_text(c.in[j]);
        fail(ErrorCode::Shape,
             "%s: shapes %s do not broadcast: sizes %lld and %lld meet at dimension %d from the right; "
             "sizes must be equal, or one of them 1",
             op_name(c), shapes.c_str(), static_cast<long long>(s), static_cast<long long>(v.shape[i]), v.ndim - i);
      }
      s = v.shape[i];
    }
  }
  return ndim;
}

DType promote_inputs(const Call& c, int first, int n) {
  DType d = DType::bool_;
  bool any = false;
  for (int k = first; k < first + n; k++)
    if (c.in[k].given()) d = any ? promote(d, c.in[k].dtype) : c.in[k].dtype, any = true;
  return d;
}

DType lift_dtype(const Call& c, DType d) {
  const DTypeMask mask = op_table[int(c.op)].dtypes;
  if (mask & mask_of(d)) return d;
  if (is_integer(d) || d == DType::bool_) {
    if (!(mask & kMaskInt)) {
      if (c.op == OpId::divide) return DType::float64;  // NumPy's true division
      if (mask & kMaskFloat) return float_of(d);
    } else if (d == DType::bool_) {
      const char* advice = c.op == OpId::subtract   ? "use a ^ b (different) or a & ~b (set difference)"
                           : c.op == OpId::negative ? "use ~a"
                           : c.op == OpId::positive ? "use a"
                           : c.op == OpId::sign     ? "use a"
                                                    : nullptr;
      if (advice) fail(ErrorCode::DType, "%s: not defined for bool; %s, or convert with astype(int8)", op_name(c), advice);
      return DType::int8;
    }
  }
  const char* need = mask & kMaskFloat ? (mask & kMaskInt ? "real numbers" : "real floats") : "integers";
  fail(ErrorCode::DType, "%s: got %s; needs %s", op_name(c), dtype_name(d), need);
}

int normal_axis(const Call& c, int64_t axis, int ndim) {
  if (axis < -ndim || axis >= ndim)
    fail(ErrorCode::Index, "%s: axis %lld is out of range for %d dimensions", op_name(c), static_cast<long long>(axis), ndim);
  return int(axis < 0 ? axis + ndim : axis);
}

void infer_unary(Call& c) {
  const View& x = c.in[0];
  c.compute = lift_dtype(c, x.dtype);
  set_out_like(c, c.compute, x);
}

void infer_test(Call& c) {
  c.compute = lift_dtype(c, c.in[0].dtype);
  set_out_like(c, DType::bool_, c.in[0]);
}

void infer_abs(Call& c) {
  c.compute = lift_dtype(c, c.in[0].dtype);
  const DType d = c.compute;
  set_out_like(c, d == DType::complex64 ? DType::float32 : d == DType::complex128 ? DType::float64 : d, c.in[0]);
}

namespace {

bool is_whole(DType d) { return is_integer(d) || d == DType::bool_; }

// Integers of different types in a float op each become their float first: int8 and uint8 meet in float16, not by way of int16.
DType promote_in_float_op(const Call& c, int first) {
  DType all = DType::bool_;
  for (int k = first; k < c.nin; k++) {
    if (!c.in[k].given()) continue;
    if (!is_whole(c.in[k].dtype)) return promote_inputs(c, first, c.nin - first);
    const DType d = float_of(c.in[k].dtype);
    all = all == DType::bool_ ? d : promote(all, d);
  }
  return all;
}

// compute dtype and the broadcast output, whose dtype is the compute dtype or `out`
void infer_broadcast(Call& c, int first, const DType* out) {
  const bool floats_only = !(op_table[int(c.op)].dtypes & kMaskInt) && c.op != OpId::divide;
  c.compute = lift_dtype(c, floats_only ? promote_in_float_op(c, first) : promote_inputs(c, first, c.nin - first));
  int64_t shape[kMaxDims];
  const int ndim = broadcast_shapes(c, 0, c.nin, shape);
  set_out(c, 0, out ? *out : c.compute, shape, ndim, Layout::Like);
}

bool alike(const Call& c) { return c.in[0].dtype == c.in[1].dtype && same_shape(c.in[0], c.in[1]); }

}  // namespace

void infer_binary(Call& c) {
  if (!alike(c)) return infer_broadcast(c, 0, nullptr);
  c.compute = lift_dtype(c, c.in[0].dtype);
  set_out_like(c, c.compute, c.in[0]);
}

void infer_compare(Call& c) {
  constexpr DType kBool = DType::bool_;
  if (!alike(c)) return infer_broadcast(c, 0, &kBool);
  c.compute = lift_dtype(c, c.in[0].dtype);
  set_out_like(c, kBool, c.in[0]);
}

void infer_where(Call& c) { infer_broadcast(c, 1, nullptr); }  // the condition may be of any dtype: true where not zero
void infer_clip(Call& c) {                                     // a bound may be left out
  if (!c.in[0].given()) fail(ErrorCode::Type, "clip: needs a tensor");
  infer_broadcast(c, 0, nullptr);
}
void infer_addcmul(Call& c) { infer_broadcast(c, 0, nullptr); }

}  // namespace fastdl
