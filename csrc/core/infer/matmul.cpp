// Shapes, dtypes and scratch of matmul, linear and the weight gradient of linear.
#include "core/gemm_workspace.h"
#include "infer.h"

namespace fastdl {
namespace {

constexpr int kActivations = 6;  // codes of ops.def

// The dtype of all inputs together; workspace as elements of the dtype that the kernels compute in.
void set_compute(Call& c, int inputs) {
  const DType d = promote_inputs(c, 0, inputs);
  if (d == DType::bool_) fail(ErrorCode::DType, "%s: not defined for bool; convert with astype", op_name(c));
  c.compute = lift_dtype(c, d);
}

bool is_16bit(DType d) { return d == DType::float16 || d == DType::bfloat16; }

// Workspace of a product, and for 16-bit floats of float copies of its operands (which are read row-major) and result. Tiles
// multiply bfloat16 where it lies.
void set_workspace(Call& c, int64_t elements, std::initializer_list<int64_t> copies) {
  if (c.compute == DType::bfloat16 && gemm_has_tiles) return void(c.workspace = 0);
  if (!is_16bit(c.compute)) {
    const bool tuned = c.compute == DType::float32 || c.compute == DType::float64;
    c.workspace = tuned ? elements * itemsize(c.compute) : 0;
    return;
  }
  c.contiguous_inputs |= 3;
  for (const int64_t n : copies) {
    if (__builtin_add_overflow(elements, (n + 15) / 16 * 16, &elements) || elements > (int64_t(1) << 58))
      fail(ErrorCode::OutOfMemory, "%s: too large", op_name(c));
  }
  c.workspace = elements * int64_t(sizeof(float));
}

// rows = product of the leading dims of x
int64_t leading(const View& x) {
  int64_t n = 1;
  for (int i = 0; i < x.ndim - 1; i++) n *= x.shape[i];
  return n;
}

// Views may claim more elements than memory has; products of sizes are safe after this.
void check_sizes(const Call& c, int inputs) {
  for (int k = 0; k < inputs; k++)
    if (c.in[k].given()) checked_numel(op_name(c), c.in[k].shape, c.in[k].ndim, 16);
}

int64_t checked_workspace(const Call& c, int64_t batch, int64_t m, int64_t n, int64_t k) {
  const int64_t padded = n > 0 && n < 16 ? 16 : n;
  const int64_t packed[] = {padded, k};
  checked_numel(op_name(c), packed, 2, 16);
  return gemm_workspace_elements(batch, m, n, k);
}

}  // namespace

void infer_matmul(Call& c) {
  const View &a = c.in[0], &b = c.in[1];
  if (a.ndim < 2 || b.ndim < 2)
    fail(ErrorCode::Shape, "matmul: a is %s, b is %s; both need at least 2 dimensions", shape_text(a).c_str(),
         shape_text(b).c_str());
  const int64_t m = a.shape[a.ndim - 2], k = a.shape[a.ndim - 1], n = b.shape[b.ndim - 1];
  if (k != b.shape[b.ndim - 2])
    fail(ErrorCode::Shape, "matmul: inner sizes differ: a is %s, b is %s; need a.shape[-1] == b.shape[-2]", shape_text(a).c_str(),
         shape_text(b).c_str());
  set_compute(c, 2);
  check_sizes(c, 2);
  const int ndim = a.ndim > b.ndim ? a.ndim : b.ndim;
  int64_t shape[kMaxDims], batch = 1;
  for (int i = 0; i < ndim - 2; i++) {
    const int ia = i - (ndim - a.ndim), ib = i - (ndim - b.ndim);
    const int64_t sa = ia < 0 ? 1 : a.shape[ia], sb = ib < 0 ? 1 : b.shape[ib];
    if (sa != sb && sa != 1 && sb != 1)
      fail(ErrorCode::Shape, "matmul: batch sizes do not broadcast: a is %s, b is %s; sizes before the last two must be equal or 1",
           shape_text(a).c_str(), shape_text(b).c_str());
    shape[i] = sa == 1 ? sb : sa;
  }
  shape[ndim - 2] = m, shape[ndim - 1] = n;
  set_out(c, 0, c.compute, shape, ndim);
  for (int i = 0; i < ndim - 2; i++) batch *= shape[i];
  set_workspace(c, checked_workspace(c, batch, m, n, k), {a.numel(), b.numel(), batch * m * n});
}

void infer_linear(Call& c) {
  const View &x = c.in[0], &w = c.in[1], &bias = c.in[2];
  if (x.ndim < 1 || w.ndim != 2 || x.shape[x.ndim - 1] != w.shape[1])
    fail(ErrorCode::Shape, "linear: x is %s, w is %s; need w of 2 dimensions (out, in) and x.shape[-1] == w.shape[1]",
         shape_text(x).c_str(), shape_text(w).c_str());
  if (bias.given() && (bias.ndim != 1 || bias.shape[0] != w.shape[0]))
    fail(ErrorCode::Shape, "linear: bias is %s, w is %s; need bias.shape == (w.shape[0],)", shape_text(bias).c_str(),
         shape_text(w).c_str());
  if (c.attrs.i[0] < 0 || c.attrs.i[0] >= kActivations)
    fail(ErrorCode::Value, "linear: activation code %lld; need 0 to %d", static_cast<long long>(c.attrs.i[0]), kActivations - 1);
  set_compute(c, 3);
  check_sizes(c, 3);
  int64_t shape[kMaxDims];
  for (int i = 0; i < x.ndim - 1; i++) shape[i] = x.shape[i];
  shape[x.ndim - 1] = w.shape[0];
  set_out(c, 0, c.compute, shape, x.ndim);
  c.contiguous_inputs |= 4;
  const int64_t m = leading(x), n = w.shape[0], k = w.shape[1];
  // leading dims that cannot be merged make a batch
  const int64_t rows = x.ndim >= 2 ? x.shape[x.ndim - 2] : 1, batch = rows > 0 ? m / rows : 0;
  set_workspace(c, checked_workspace(c, batch, rows, n, k), {m * k, n * k, m * n, n});
}

void infer_linear_backward_weight(Call& c) {
  const View &g = c.in[0], &x = c.in[1];
  bool fits = g.ndim == x.ndim && g.ndim >= 1;
  for (int i = 0; fits && i < g.ndim - 1; i++) fits = g.shape[i] == x.shape[i];
  if (!fits)
    fail(ErrorCode::Shape, "linear_backward_weight: g is %s, x is %s; all sizes but the last must be equal", shape_text(g).c_str(),
         shape_text(x).c_str());
  set_compute(c, 2);
  check_sizes(c, 2);
  const int64_t rows = leading(g), n = g.shape[g.ndim - 1], k = x.shape[x.ndim - 1];
  const int64_t shape[2] = {n, k};
  set_out(c, 0, c.compute, shape, 2);
  set_out(c, 1, c.compute, shape, 1);
  if (g.ndim > 2) c.contiguous_inputs |= 3;  // so that the leading dims are one
  const int64_t product = checked_workspace(c, 1, n, k, rows), sums = rows > 0 ? gemv_splits(n, rows) * n : 0;
  set_workspace(c, product > sums ? product : sums, {rows * n, rows * k, n * k, n});
}

}  // namespace fastdl
