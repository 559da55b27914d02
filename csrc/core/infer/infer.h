// Helpers that inference functions share.
#pragma once
#include "core/op.h"

namespace fastdl {

// The shape that inputs first .. first+n-1 broadcast to (NumPy's rule; inputs not given are skipped), into shape[kMaxDims]; returns
// its rank. Throws ShapeError.
int broadcast_shapes(const Call& c, int first, int n, int64_t* shape);

// Promotes the dtypes of the given inputs first .. first+n-1.
DType promote_inputs(const Call& c, int first, int n);

// The dtype in which the op of `c` computes on inputs of dtype d: d itself if the row allows it, a float for integers in float ops,
// int8 for bool in integer ops. Throws DTypeError where the op has no meaning for d.
DType lift_dtype(const Call& c, DType d);

// Whether 3x3 convolutions in float32 may use Winograd's algorithm: 1.5 to 2 times as fast, rounding errors twice as large (rms), and
// an infinity or NaN spreads to the tile of 4x4 pixels. On unless the environment says FASTDL_WINOGRAD=0. Returns the old setting.
bool set_conv_winograd(bool allowed);

// axis in [-ndim, ndim) -> [0, ndim). Throws IndexError.
int normal_axis(const Call& c, int64_t axis, int ndim);

inline bool same_shape(const View& a, const View& b) {
  if (a.ndim != b.ndim) return false;
  for (int i = 0; i < a.ndim; i++)
    if (a.shape[i] != b.shape[i]) return false;
  return true;
}

// Output 0 with the shape and memory order of an input: set_out without its loops.
inline void set_out_like(Call& c, DType dtype, const View& v) {
  OutSpec& o = c.out[0];
  int64_t bytes = itemsize(dtype);
  bool overflow = false;
  for (int i = 0; i < v.ndim; i++) {
    o.shape[i] = v.shape[i];
    overflow |= __builtin_mul_overflow(bytes, v.shape[i] > 0 ? v.shape[i] : 1, &bytes);  // a broadcast view may be that large
  }
  if (overflow) return set_out(c, 0, dtype, v.shape, v.ndim, Layout::Like);
  o.dtype = dtype;
  o.ndim = v.ndim;
  o.layout = Layout::Like;
  o.alias = -1;
  if (c.nout < 1) c.nout = 1;
}

}  // namespace fastdl
