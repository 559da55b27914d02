#include "cuda.h"

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#include <dlfcn.h>
#include <unistd.h>

#include "launch.h"
#include "record.h"

namespace fastdl {
namespace {

std::once_flag opened;
const CudaApi* api = nullptr;
std::string missing;
const CudaRow* rows[kNumOps][kNumDTypes];
std::atomic<int64_t> fallbacks[kNumOps];

std::string library_path() {
  if (const char* path = std::getenv("FASTDL_CUDA_LIBRARY"); path && *path) return path;
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void*>(&library_path), &info) || !info.dli_fname) return "";
  std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return (slash == std::string::npos ? "." : path.substr(0, slash)) + "/lib/libfastdl_cuda.so";
}

void open_library() {
  const std::string path = library_path();
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* text = dlerror();
    missing = access(path.c_str(), F_OK) != 0 ? "this build has no CUDA kernels (build with FASTDL_CUDA=ON)"
              : text                          ? text
                                              : "cannot be loaded";
    return;
  }
  using Entry = const CudaApi* (*)();
  const auto entry = reinterpret_cast<Entry>(dlsym(library, "fastdl_cuda_api"));
  const CudaApi* found = entry ? entry() : nullptr;
  if (!found || found->abi != kCudaAbi) {
    missing = path + " belongs to another version of fastdl; build both together";
    return;
  }
  for (const CudaRow* const* table = found->tables; *table; table++)
    for (const CudaRow* row = *table; row->fn; row++)
      for (int d = 0; d < kNumDTypes; d++)
        if (row->dtypes & mask_of(DType(d))) rows[int(row->op)][d] = row;
  api = found;
}

ErrorCode code_of(CudaStatus s) {
  switch (s) {
    case CudaStatus::OutOfMemory:
      return ErrorCode::OutOfMemory;
    case CudaStatus::IndexError:
      return ErrorCode::Index;
    default:
      return ErrorCode::Device;
  }
}

void free_cuda(void* block) { api->free(block); }

// Host copies of the memory behind device views; views of the same bytes share one copy, so that in-place ops stay in place.
class HostCopies {
 public:
  HostCopies(int device) : device_(device) {}
  HostCopies(const HostCopies&) = delete;
  ~HostCopies() {
    for (Copy& c : copies_) release(c.host);
  }
  void bring(View& v) {
    const char *lo, *hi;
    extent(v, &lo, &hi);
    if (lo == hi) return;
    Copy* copy = nullptr;
    for (Copy& c : copies_)
      if (c.lo <= lo && hi <= c.hi) copy = &c;
    if (!copy) {
      copies_.push_back({lo, hi, alloc_buffer(hi - lo)});
      copy = &copies_.back();
      cuda_check(api->copy(device_, copy->host->data, lo, hi - lo, CudaCopy::DeviceToHost));
    }
    v.data = static_cast<char*>(copy->host->data) + (v.ptr<char>() - copy->lo);
  }
  void give_back(const View& v) {  // v: the device view
    const char *lo, *hi;
    extent(v, &lo, &hi);
    for (Copy& c : copies_)
      if (lo != hi && c.lo <= lo && hi <= c.hi)
        return cuda_check(api->copy(device_, const_cast<char*>(lo), static_cast<char*>(c.host->data) + (lo - c.lo), hi - lo,
                                    CudaCopy::HostToDevice));
  }

 private:
  struct Copy {
    const char *lo, *hi;
    Buffer* host;
  };
  std::vector<Copy> copies_;
  int device_;
};

void run_on_host(const Call& inferred, const Args& args, int device) {
  const OpInfo& info = op_table[int(inferred.op)];
  const KernelFn fn = info.cpu[int(inferred.compute)];
  if (!fn) fail(ErrorCode::DType, "%s: dtype %s is not supported", info.name, dtype_name(inferred.compute));
  fallbacks[int(inferred.op)]++;
  HostCopies copies(device);
  std::vector<View> in(args.in, args.in + args.nin), out(args.out, args.out + args.nout);
  for (int k = 0; k < args.nout; k++)  // first: an output may be the larger window on memory that is an input, too
    if (out[k].given() && out[k].data) copies.bring(out[k]);
  for (int k = 0; k < args.nin; k++)
    if (in[k].given() && !(k < 32 && args.host_inputs >> k & 1)) copies.bring(in[k]);
  Call check = inferred;  // once more, with the indices to be checked in reach
  check.in = in.data();
  info.infer(check);
  Buffer* scratch = inferred.workspace > 0 ? alloc_buffer(inferred.workspace) : nullptr;
  fn(Args{out.data(), in.data(), &inferred.attrs, scratch ? scratch->data : nullptr, args.nout, args.nin});
  release(scratch);
  for (int k = 0; k < args.nout; k++)
    if (args.out[k].given() && args.out[k].data) copies.give_back(args.out[k]);
  if (inferred.op == OpId::batch_norm && inferred.attrs.i[0])  // running statistics are inputs that training updates
    for (int k : {3, 4})
      if (args.in[k].given()) copies.give_back(args.in[k]);
}

}  // namespace

const CudaApi* cuda_api() {
  std::call_once(opened, open_library);
  return api;
}

const std::string& cuda_missing() { return missing; }

const CudaApi& need_cuda() {
  if (!cuda_api()) fail(ErrorCode::Device, "cuda: %s", missing.c_str());
  return *api;
}

void cuda_check(CudaStatus status) {
  if (__builtin_expect(status != CudaStatus::Ok, 0)) throw Error(code_of(status), api->last_error());
}

int cuda_device_count() {
  int32_t n = 0;
  return cuda_api() && api->device_count(&n) == CudaStatus::Ok ? n : 0;
}

Buffer* alloc_cuda_buffer(int64_t bytes, int device) {
  void *data = nullptr, *block = nullptr;
  cuda_check(need_cuda().allocate(device, bytes, &data, &block));
  try {
    Buffer* b = wrap_buffer(data, bytes, Device{Device::CUDA, uint8_t(device)}, free_cuda, block);
    if (recorders) note_allocated(b);
    return b;
  } catch (...) {
    api->free(block);
    throw;
  }
}

bool own_memory(const Buffer* b) { return !b->release_fn || b->release_fn == free_cuda; }

Buffer* alloc_device_buffer(int64_t bytes, Device device) {
  return device.kind == Device::CPU ? alloc_buffer(bytes) : alloc_cuda_buffer(bytes, device.index);
}

void copy_on(Device device, void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  if (device.kind == Device::CPU)
    std::memcpy(to, from, size_t(bytes));
  else
    cuda_check(need_cuda().copy(device.index, to, from, bytes, CudaCopy::DeviceToDevice));
}

void extent(const View& v, const char** lo, const char** hi) {
  const int64_t item = itemsize(v.dtype);
  const char *a = static_cast<const char*>(v.data), *b = a + item;
  *lo = *hi = a;
  for (int d = 0; d < v.ndim; d++) {
    if (v.shape[d] == 0) return;
    const int64_t span = (v.shape[d] - 1) * v.strides[d] * item;
    if (span < 0)
      a += span;
    else
      b += span;
  }
  *lo = a, *hi = b;
}

const CudaRow* cuda_row(OpId op, DType compute) { return cuda_api() ? rows[int(op)][int(compute)] : nullptr; }

void launch_cuda(const Call& call, const Args& given, Device device) {
  if (recording()) recorder->append(op_table[int(call.op)], nullptr, call.compute, given, call.workspace, device);
  const CudaRow* row = cuda_row(call.op, call.compute);
  if (!row) return run_on_host(call, given, device.index);
  Args args = given;
  cuda_check(api->context(device.index, &args.device));
  const int64_t bytes = row->workspace ? row->workspace(args) : 0;
  if (bytes < 0) return run_on_host(call, given, device.index);
  Buffer* scratch = bytes > 0 ? alloc_cuda_buffer(bytes, device.index) : nullptr;
  args.workspace = scratch ? scratch->data : nullptr;
  const OpInfo& info = op_table[int(call.op)];
  run_kernel(info, row->fn, call.compute, args);
  release(scratch);  // stream-ordered: the launch before uses it first
  cuda_check(api->check(info.name));
}

void launch_cuda_many(const Call* calls, const Args* given, int n, Device device) {
  int done = 0;
  while (done < n) {
    const CudaRow* row = cuda_row(calls[done].op, calls[done].compute);
    int end = done + 1;  // calls of one row stand together
    while (end < n && cuda_row(calls[end].op, calls[end].compute) == row) end++;
    if (!row || !takes_many(row)) {
      for (; done < end; done++) launch_cuda(calls[done], given[done], device);
      continue;
    }
    for (int k = done; recording() && k < end; k++)
      recorder->append(op_table[int(calls[k].op)], nullptr, calls[k].compute, given[k], calls[k].workspace, device);
    std::vector<Args> args(given + done, given + end);
    cuda_check(api->context(device.index, &args[0].device));
    for (Args& a : args) a.device = args[0].device;
    row->many(args.data(), end - done);
    cuda_check(api->check(op_table[int(calls[done].op)].name));
    done = end;
  }
}

int64_t cuda_fallbacks(OpId op) { return fallbacks[int(op)]; }

}  // namespace fastdl
