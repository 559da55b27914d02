// The op table: ids and facts from ops.def, kernels per dtype from the best instruction set, shape inference per family.
#pragma once
#include <string>

#include "error.h"
#include "view.h"

namespace fastdl {

enum class OpId : uint16_t {
#define FD_OP(name, ...) name,
#include "../ops.def"
};
constexpr int kNumOps = 0
#define FD_OP(...) +1
#include "../ops.def"
    ;

constexpr int kMaxIn = 8;   // fixed-arity ops; `concat` and friends take any number
constexpr int kMaxOut = 4;

// dtype classes of ops.def
constexpr DTypeMask kMaskBool = mask_of(DType::bool_);
constexpr DTypeMask kMaskInt = mask_of(DType::uint8) | mask_of(DType::int8) | mask_of(DType::uint16) | mask_of(DType::int16) |
                               mask_of(DType::uint32) | mask_of(DType::int32) | mask_of(DType::uint64) | mask_of(DType::int64);
constexpr DTypeMask kMaskFloat =
    mask_of(DType::float16) | mask_of(DType::bfloat16) | mask_of(DType::float32) | mask_of(DType::float64);
constexpr DTypeMask kMaskComplex = mask_of(DType::complex64) | mask_of(DType::complex128);

enum class Layout : uint8_t {
  Like,          // memory order of the first input of the same rank if that is dense, else row-major
  Contiguous,    // row-major
  ChannelsLast,  // NCHW shape on NHWC memory (ndim >= 3: channel stride 1)
  PlacesFirst,   // row-major but for axes -3 and -2, which are swapped: (N, heads, L, E) on memory of (N, L, heads, E)
};

struct OutSpec {
  DType dtype;
  int32_t ndim;
  int64_t shape[kMaxDims];
  Layout layout;
  int8_t alias;  // >= 0: the output is that input, updated in place
};

// One call of an op, from arguments to launch. infer() reads in/attrs, may normalise attrs, and fills the rest.
struct Call {
  OpId op;
  int nin;
  const View* in;  // data pointers are valid (host memory may be read for CPU index checks)
  Attrs attrs;
  int nout;
  OutSpec out[kMaxOut];
  DType compute;      // which kernel row: kernels[op][compute]
  int64_t workspace;  // bytes of scratch the kernel needs
  uint32_t contiguous_inputs;     // bit k: hand the kernel a row-major copy of input k unless it is row-major already
  uint32_t channels_last_inputs;  // bit k: the same for NHWC memory
  uint32_t own_dtype_inputs;      // bit k: input k keeps its dtype (indices, taps, saved statistics); others are cast to `compute`
};

using InferFn = void (*)(Call&);

struct OpInfo {
  const char* name;
  const char* family;
  int8_t nin, nout;  // nin -1: any number
  DTypeMask dtypes;
  InferFn infer;
  KernelFn cpu[kNumDTypes];
};
extern OpInfo op_table[kNumOps];
int find_op(const char* name);  // -1: none

// Fills op_table once: family inference and the CPU rows of every instruction set up to the chosen one.
void init_op_table();

// What each kernel object exports: rows ended by fn == nullptr.
struct KernelRow {
  OpId op;
  DTypeMask dtypes;  // the compute dtypes this function serves
  KernelFn fn;
};

// ---- helpers for infer functions ---------------------------------------------------------------------------------
std::string shape_text(const View& v);                      // "(3, 4)"
std::string shape_text(const int64_t* shape, int ndim);
inline const char* op_name(const Call& c) { return op_table[int(c.op)].name; }
int64_t checked_numel(const char* op, const int64_t* shape, int ndim, int64_t item);  // throws on overflow of int64 bytes
void set_out(Call& c, int k, DType dtype, const int64_t* shape, int ndim, Layout layout = Layout::Contiguous);

}  // namespace fastdl
