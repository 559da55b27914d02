// matmul, linear and the weight gradient of linear. float and double run gemm.h; bfloat16 runs gemm_bf16.h where there are tiles,
// other 16-bit floats are widened to float first and rounded once at the end; integers and complex numbers take the plain loop of
// matmul_any.h.
#include "cpu/isa/gemm.h"
#include "cpu/isa/gemm_tile_kernel.h"
#include "cpu/isa/matmul_any.h"
#include "cpu/vec/cast.h"

namespace fastdl {
namespace {

// Batch dims of out (all but the last two) with the strides of a and b, size-1 dims broadcast.
inline ProductBatch batch_of(const View& out, const View& a, const View& b) {
  ProductBatch batch = {};
  batch.ndim = max_of(out.ndim - 2, 0);
  batch.count = 1;
  for (int d = 0; d < batch.ndim; d++) {
    batch.shape[d] = out.shape[d];
    batch.count *= out.shape[d];
    const int da = d - (out.ndim - a.ndim), db = d - (out.ndim - b.ndim);
    batch.a[d] = da < 0 || a.shape[da] == 1 ? 0 : a.strides[da];
    batch.b[d] = db < 0 || b.shape[db] == 1 ? 0 : b.strides[db];
  }
  return batch;
}

// The stride of dim `at` from the end; 1, the convenient one, where the dim has one element or is missing.
inline int64_t stride_of(const View& v, int at) { return v.ndim < at || v.shape[v.ndim - at] == 1 ? 1 : v.strides[v.ndim - at]; }
inline int64_t size_of(const View& v, int at) { return v.ndim < at ? 1 : v.shape[v.ndim - at]; }

// c (m, n) = a (m, k) b (k, n) of the last two dims.
template <class T>
Gemm<T> product_of(const View& c, const View& a, const View& b) {
  Gemm<T> g = {};
  g.m = size_of(c, 2), g.n = size_of(c, 1), g.k = size_of(a, 1);
  g.a = a.ptr<T>(), g.a_row = stride_of(a, 2), g.a_k = stride_of(a, 1);
  g.b = b.ptr<T>(), g.b_k = stride_of(b, 2), g.b_col = stride_of(b, 1);
  g.c = c.ptr<T>(), g.c_row = g.n;
  return g;
}

View transposed(View v) {
  const int64_t n = v.shape[0], s = v.strides[0];
  v.shape[0] = v.shape[1], v.strides[0] = v.strides[1];
  v.shape[1] = n, v.strides[1] = s;
  return v;
}

// The view as (rows, last dim); leading dims must lie like one, which inference has seen to.
View as_matrix(const View& v) {
  View m = v;
  m.ndim = 2;
  m.shape[0] = 1;
  for (int d = 0; d < v.ndim - 1; d++) m.shape[0] *= v.shape[d];
  m.shape[1] = v.shape[v.ndim - 1];
  m.strides[1] = v.strides[v.ndim - 1];
  m.strides[0] = v.ndim == 2 ? v.strides[0] : m.shape[1];
  return m;
}

template <class T>
void multiply(const Gemm<T>& g, const ProductBatch& batch, void* workspace) {
#if defined(__AMX_BF16__)
  if constexpr (same_type<T, bf16>)
    gemm_narrow(g, batch);
  else
#endif
    gemm(g, batch, static_cast<T*>(workspace));
}

template <class T>
void run_matmul(const Args& args) {
  const View &a = args.in[0], &b = args.in[1], &c = args.out[0];
  multiply(product_of<T>(c, a, b), batch_of(c, a, b), args.workspace);
}

template <class T>
void run_matmul_any(const Args& args) {
  const View &a = args.in[0], &b = args.in[1], &c = args.out[0];
  const Gemm<T> g = product_of<T>(c, a, b);
  if (g.m > 0 && g.n > 0) multiply_any(g, batch_of(c, a, b));
}

// y (.., N) = x (.., K) w^T: leading dims of x are rows where strides allow, else a batch on the same w.
template <class T>
void run_linear(const Args& args) {
  const View &x = args.in[0], &w = args.in[1], &bias = args.in[2], &y = args.out[0];
  const View wt = transposed(w);
  Gemm<T> g = product_of<T>(y, x, wt);
  if (bias.given()) g.bias = bias.ptr<T>();
  g.relu = args.attrs->i[0] == 1;
  g.finish = activation<WideOf<T>>(args.attrs->i[0]);
  multiply(g, batch_of(y, x, wt), args.workspace);
}

// dw (N, K) = g^T x, db (N) = ones^T g. For pieces of dw (core/plan_updates.cpp) g has some of all columns; db, of all, goes with
// the first piece and is absent in the others.
template <class T>
void run_linear_backward_weight(const Args& args) {
  const View g = as_matrix(args.in[0]), x = as_matrix(args.in[1]);
  const View gt = transposed(g);
  ProductBatch one = {};
  one.count = 1;
  Gemm<T> products = product_of<T>(args.out[0], gt, x);
  if (args.out[1].given() && sums_rows(products)) {
    products.row_sums = args.out[1].ptr<T>();
  } else if (args.out[1].given()) {
    T ones;
    store_narrow_one(&ones, WideOf<T>(1));
    Gemm<T> sums = product_of<T>(args.out[1], gt, g);
    sums.m = 1, sums.n = args.out[1].shape[0];
    sums.a = &ones, sums.a_row = sums.a_k = 0;
    multiply(sums, one, args.workspace);
  }
  multiply(products, one, args.workspace);
}

// Runs the float kernel on float copies of 16-bit inputs, which are row-major, and rounds its outputs. Workspace: the copies, each
// padded to 16 elements, then what the kernel itself needs.
template <class T, KernelFn run>
void through_float(const Args& args) {
  constexpr int64_t grain = int64_t(1) << 15;
  View in[3], out[2];
  float* scratch = static_cast<float*>(args.workspace);
  const auto place = [&](const View& v) {
    View f = v;
    if (!v.given()) return f;
    f.dtype = DType::float32;
    f.data = scratch;
    set_contiguous_strides(f);
    scratch += ceil_div(v.numel(), int64_t(16)) * 16;
    return f;
  };
  for (int k = 0; k < args.nin; k++) {
    in[k] = place(args.in[k]);
    if (!in[k].given()) continue;
    parallel_for(in[k].numel(), grain, [&](int64_t begin, int64_t end) {
      cast_block<float, T>(in[k].ptr<float>() + begin, args.in[k].ptr<T>() + begin, end - begin);
    });
  }
  for (int k = 0; k < args.nout; k++) out[k] = place(args.out[k]);
  run(Args{out, in, args.attrs, scratch, args.nout, args.nin});
  for (int k = 0; k < args.nout; k++) {
    parallel_for(out[k].numel(), grain, [&](int64_t begin, int64_t end) {
      cast_block<T, float>(args.out[k].ptr<T>() + begin, out[k].ptr<float>() + begin, end - begin);
    });
  }
}

[[maybe_unused]] constexpr DTypeMask k8Bit = mask_of(DType::int8) | mask_of(DType::uint8),
                                     k16Bit = mask_of(DType::int16) | mask_of(DType::uint16);
[[maybe_unused]] constexpr DTypeMask k32Bit = mask_of(DType::int32) | mask_of(DType::uint32),
                                     k64Bit = mask_of(DType::int64) | mask_of(DType::uint64);

}  // namespace

#if defined(__AMX_BF16__)
#define BF16_KERNEL(run) run<bf16>
#else
#define BF16_KERNEL(run) through_float<bf16, run<float>>
#endif
#define FLOAT_ROWS(op)                                                                      \
  {OpId::op, kF32, run_##op<float>}, {OpId::op, kF16, through_float<f16, run_##op<float>>}, \
      {OpId::op, kBF16, BF16_KERNEL(run_##op)}, FD_ROWS_WITHOUT_TILES({OpId::op, kF64, run_##op<double>})

const TileTable<float> FD_SHARED_NAME(tiles_f32) = compiled_tiles<float>();
void FD_SHARED_NAME(gemm_f32)(const Gemm<float>& g, const ProductBatch& batch, float* workspace) { gemm(g, batch, workspace); }
#if !defined(__AMX_BF16__)
const TileTable<double> FD_SHARED_NAME(tiles_f64) = compiled_tiles<double>();
void FD_SHARED_NAME(gemm_f64)(const Gemm<double>& g, const ProductBatch& batch, double* workspace) { gemm(g, batch, workspace); }
#endif

FD_KERNEL_TABLE(matmul) = {
    FLOAT_ROWS(matmul) FLOAT_ROWS(linear) FLOAT_ROWS(linear_backward_weight)  //
    FD_ROWS_WITHOUT_TILES({OpId::matmul, k8Bit, run_matmul_any<uint8_t>}, {OpId::matmul, k16Bit, run_matmul_any<uint16_t>},
                          {OpId::matmul, k32Bit, run_matmul_any<uint32_t>}, {OpId::matmul, k64Bit, run_matmul_any<uint64_t>},
                          {OpId::matmul, mask_of(DType::complex64), run_matmul_any<c64>},
                          {OpId::matmul, mask_of(DType::complex128), run_matmul_any<c128>}){},
};

}  // namespace fastdl
