// The op table in memory, and helpers of shape inference.
#include "op.h"

#include <cstring>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "../cpu/cpuid.h"
#include "gemm_workspace.h"

// Tables exported by kernel objects, one line FD_TABLE(isa, family) per object.
#define FD_TABLE(isa, family) extern "C" const ::fastdl::KernelRow fastdl_rows_##family##_##isa[];
#include "generated/kernel_tables.inc"
#undef FD_TABLE

namespace fastdl {

// One inference function per family, in core/infer/. Weak: a build without a family links, and its ops report "no kernel".
#define FD_OP(name, family, nin, nout, dtypes) void infer_##family(Call&) __attribute__((weak));
#include "../ops.def"

namespace {

// The dtype classes that rows of ops.def name.
constexpr DTypeMask kFLOAT = kMaskFloat, kREAL = kMaskFloat | kMaskInt, kNUMERIC = kREAL | kMaskComplex,
                    kALL = kNUMERIC | kMaskBool, kINTEGER = kMaskInt, kINTEGRAL = kMaskInt | kMaskBool,
                    kFLOAT_COMPLEX = kMaskFloat | kMaskComplex, kREAL_BOOL = kREAL | kMaskBool,
                    kWIDE_FLOAT = mask_of(DType::float32) | mask_of(DType::float64),
                    kWIDE_INTEGER = mask_of(DType::int32) | mask_of(DType::uint32) | mask_of(DType::int64) | mask_of(DType::uint64);

struct KernelTable {
  const char* isa;
  const KernelRow* rows;
};
constexpr KernelTable kKernelTables[] = {
#define FD_TABLE(isa, family) {#isa, fastdl_rows_##family##_##isa},
#include "generated/kernel_tables.inc"
#undef FD_TABLE
    {nullptr, nullptr}};

void install_rows(const KernelRow* rows) {
  for (; rows->fn; rows++)
    for (int d = 0; d < kNumDTypes; d++)
      if (rows->dtypes & mask_of(DType(d))) op_table[int(rows->op)].cpu[d] = rows->fn;
}

}  // namespace

OpInfo op_table[kNumOps] = {
#define FD_OP(name, family, nin, nout, dtypes) {#name, #family, nin, nout, k##dtypes, nullptr, {}},
#include "../ops.def"
};

bool gemm_has_tiles = false;
int vector_lanes = 4;
int gemm_parts = 3;

void init_op_table() {
  static std::once_flag once;
  std::call_once(once, [] {
    int op = 0;
#define FD_OP(name, family, ...) op_table[op++].infer = infer_##family;
#include "../ops.def"
    for (int isa = 0; isa <= chosen_isa(); isa++)  // lowest first: a later row replaces an earlier one
      for (const KernelTable* t = kKernelTables; t->isa; t++)
        if (!strcmp(t->isa, isa_name(isa))) install_rows(t->rows);
    gemm_has_tiles = !strcmp(isa_name(chosen_isa()), "amx");
    vector_lanes = isa_lanes(chosen_isa());
  });
}

int find_op(const char* name) {
  static const auto* ids = [] {
    auto* map = new std::unordered_map<std::string_view, int>;
    for (int i = 0; i < kNumOps; i++) map->emplace(op_table[i].name, i);
    return map;
  }();
  const auto it = ids->find(name);
  return it == ids->end() ? -1 : it->second;
}

std::string shape_text(const int64_t* shape, int ndim) {
  std::string s = "(";
  for (int i = 0; i < ndim; i++) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + (ndim == 1 ? ",)" : ")");
}

std::string shape_text(const View& v) { return v.given() ? shape_text(v.shape, v.ndim) : "none"; }

int64_t checked_numel(const char* op, const int64_t* shape, int ndim, int64_t item) {
  bool empty = false;
  for (int i = 0; i < ndim; i++) {
    if (shape[i] < 0) fail(ErrorCode::Shape, "%s: negative size in shape %s", op, shape_text(shape, ndim).c_str());
    empty |= shape[i] == 0;
  }
  if (empty) {
    // Strides of an empty tensor are products of its other sizes: these must fit as well.
    int64_t n = item;
    for (int i = 0; i < ndim; i++)
      if (shape[i] > 0 && __builtin_mul_overflow(n, shape[i], &n))
        fail(ErrorCode::Shape, "%s: shape %s is too large", op, shape_text(shape, ndim).c_str());
    return 0;
  }
  int64_t n = 1, bytes;
  for (int i = 0; i < ndim; i++)
    if (__builtin_mul_overflow(n, shape[i], &n))
      fail(ErrorCode::Shape, "%s: shape %s is too large", op, shape_text(shape, ndim).c_str());
  if (__builtin_mul_overflow(n, item, &bytes))
    fail(ErrorCode::Shape, "%s: shape %s of %lld-byte elements is too large", op, shape_text(shape, ndim).c_str(),
         static_cast<long long>(item));
  return n;
}

void set_out(Call& c, int k, DType dtype, const int64_t* shape, int ndim, Layout layout) {
  if (ndim < 0 || ndim > kMaxDims)
    fail(ErrorCode::Shape, "%s: result of %d dimensions; at most %d are supported", op_name(c), ndim, kMaxDims);
  checked_numel(op_name(c), shape, ndim, itemsize(dtype));
  OutSpec& o = c.out[k];
  o.dtype = dtype;
  o.ndim = ndim;
  for (int i = 0; i < ndim; i++) o.shape[i] = shape[i];
  o.layout = layout;
  o.alias = -1;
  if (c.nout <= k) c.nout = k + 1;
}

}  // namespace fastdl
