// Inference of random fills (in place) and dropout. Kernels write row-major memory, element by element of the stream.
#include <cmath>

#include "core/infer/infer.h"

namespace fastdl {
namespace {

void require_dtype(Call& c, DTypeMask allowed, const char* what) {
  const View& x = c.in[0];
  if (!(mask_of(x.dtype) & allowed)) fail(ErrorCode::DType, "%s: dtype is %s; need %s", op_name(c), dtype_name(x.dtype), what);
  c.compute = x.dtype;
}

void infer_fill_in_place(Call& c) {
  const View& x = c.in[0];
  if (!x.contiguous())
    fail(ErrorCode::Value, "%s: a tensor of shape %s that is not row-major cannot be filled in place", op_name(c),
         shape_text(x).c_str());
  set_out(c, 0, x.dtype, x.shape, x.ndim);
  c.out[0].alias = 0;
}

double greatest(DType d) {
  return d == DType::float16    ? 65504.0
         : d == DType::bfloat16 ? 3.3895313892515355e38
         : d == DType::float32  ? 3.4028234663852886e38
                                : 1.7976931348623157e308;
}

void check_integer_range(const Call& c) {
  const DType d = c.in[0].dtype;
  const int64_t low = c.attrs.i[2], high = c.attrs.i[3];
  const int bits = int(itemsize(d)) * 8;
  const bool is_signed = kind(d) == 'i';
  const int64_t least = !is_signed ? 0 : bits == 64 ? INT64_MIN : -(int64_t(1) << (bits - 1));
  const int64_t most = bits == 64 ? INT64_MAX : (int64_t(1) << (bits - is_signed)) - 1;
  if (low >= high)
    fail(ErrorCode::Value, "%s: low is %lld, high is %lld; need low < high", op_name(c), static_cast<long long>(low),
         static_cast<long long>(high));
  if (low < least || high - 1 > most)
    fail(ErrorCode::Value, "%s: [%lld, %lld) does not fit in %s", op_name(c), static_cast<long long>(low),
         static_cast<long long>(high), dtype_name(d));
}

}  // namespace

void infer_random(Call& c) {
  const double a = c.attrs.f[0], b = c.attrs.f[1];
  switch (c.op) {
    case OpId::random_bits:
      require_dtype(c, mask_of(DType::uint32) | mask_of(DType::int32) | mask_of(DType::uint64) | mask_of(DType::int64),
                    "a 32- or 64-bit integer");
      break;
    case OpId::random_integers:
      require_dtype(c, kMaskInt, "an integer");
      check_integer_range(c);
      break;
    case OpId::random_uniform: {
      require_dtype(c, kMaskFloat, "a float");
      const double most = greatest(c.compute);
      if (!(std::fabs(a) <= most && std::fabs(b) <= most && a <= b &&
            b - a <= greatest(itemsize(c.compute) == 8 ? DType::float64 : DType::float32)))
        fail(ErrorCode::Value, "%s: low is %g, high is %g; need low <= high, both and their difference finite in %s", op_name(c), a,
             b, dtype_name(c.compute));
      break;
    }
    default:
      require_dtype(c, kMaskFloat, "a float");
      if (!(b >= 0)) fail(ErrorCode::Value, "%s: standard deviation is %g; need 0 or more", op_name(c), b);
  }
  infer_fill_in_place(c);
}

void infer_dropout(Call& c) {
  const View& x = c.in[0];
  const double p = c.attrs.f[0];
  if (!(p >= 0 && p <= 1)) fail(ErrorCode::Value, "%s: p is %g; need 0 <= p <= 1", op_name(c), p);
  c.compute = lift_dtype(c, x.dtype);
  c.contiguous_inputs |= 1u;  // the mask belongs to the logical index, so that forward and backward agree in any layout
  set_out(c, 0, c.compute, x.shape, x.ndim);
}

}  // namespace fastdl
