// Every function of the device vocabulary once, for comparison with NumPy.
#include "mutant.h"

static_assert(sizeof(float4) == 16 && alignof(float4) == 16 && alignof(float2) == 8 && alignof(double2) == 16);
static_assert(sizeof(uint3) == 12 && alignof(uint3) == 4 && alignof(ushort4) == 8 && alignof(uchar4) == 4);

namespace fastdl {
namespace {

// ---- conversions ---------------------------------------------------------------------------------------------------------------
FD_KERNEL(256, 1) widen_kernel(float* as_f16, float* as_bf16) {  // of all 65536 patterns
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  as_f16[i] = widen(f16{uint16_t(i)});
  as_bf16[i] = widen(bf16{uint16_t(i)});
}
template <class T>
FD_KERNEL(256, 1)
narrow_kernel(const T* x, f16* as_f16, bf16* as_bf16, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  as_f16[i] = narrow_f16(x[i]);
  as_bf16[i] = narrow_bf16(x[i]);
}
FD_KERNEL(256, 1) tf32_kernel(const float* x, uint32_t* out, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = round_tf32(x[i]);
}

// ---- lanes
// -----------------------------------------------------------------------------------------------------------------------
template <class T>
FD_KERNEL(64, 1)
shuffle_kernel(const T* in, T* out, int operand) {  // out[4][64]
  const int t = int(threadIdx.x);
  out[t] = shuffle_xor(in[t], operand);
  out[64 + t] = shuffle_down(in[t], operand);
  out[128 + t] = shuffle_up(in[t], operand);
  out[192 + t] = shuffle(in[t], operand);
}
// Halves of a warp go different ways and sum among themselves; the last warp has 8 threads.
FD_KERNEL(40, 1) masked_kernel(const int32_t* in, int32_t* out) {
  const int t = int(threadIdx.x), lane = t % 32;
  const uint32_t mask = t >= 32 ? 0xffu : lane < 16 ? 0xffffu : 0xffff0000u;
  int32_t v = in[t];
  if (lane < 16)
    for (int d = t >= 32 ? 4 : 8; d; d /= 2) v += shuffle_xor(v, d, mask);
  else
    for (int d = 1; d < 16; d *= 2) v += shuffle_xor(v, d, mask);
  out[t] = v;
}
FD_KERNEL(64, 1) bits_kernel(const int32_t* in, uint32_t* out) {
  const uint32_t votes = ballot(in[threadIdx.x] > 0);
  out[threadIdx.x] = votes;
  out[64 + threadIdx.x] = uint32_t(popcount(votes)) + 100 * uint32_t(find_first_set(votes));
}

// ---- threads, barriers, atomics
// --------------------------------------------------------------------------------------------------
FD_KERNEL(24, 1) index_kernel(int32_t* out) {
  const unsigned b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[b * blockDim.x * blockDim.y * blockDim.z + t] = int32_t(b * 1000 + t);
}
struct Atomics {
  int32_t i;
  uint32_t u;
  uint64_t q;
  float f;
  double d;
  int32_t most, claimed;
};
FD_KERNEL(96, 1) atomics_kernel(Atomics* a, int32_t* order) {
  Atomics& s = shared_memory<Atomics>();
  const int t = int(threadIdx.x);
  if (t == 0) s = Atomics();
  sync_block();
  atomic_add(&s.i, -t);
  atomic_add(&s.u, uint32_t(t));
  atomic_add(&s.q, uint64_t(t) << 32);
  atomic_add(&s.f, 0.5f);
  atomic_add(&s.d, 0.25);
  atomic_max(&s.most, t * 7 % 96);
  order[t] = atomic_add(&a->i, 1);
  if (atomic_cas(&s.claimed, 0, t + 1) == 0) order[96] = t;
  sync_block();
  if (t == 0) {
    const int32_t i = a->i;
    *a = s;
    a->claimed = i;
  }
}
struct Ring {
  int32_t x[128];
};
FD_KERNEL(128, 1) named_kernel(int32_t* out, int rounds) {  // warps 0 and 1 hand a value to and fro, 2 and 3 another one
  Ring& s = shared_memory<Ring>();
  const int t = int(threadIdx.x), pair = t / 64, other = t ^ 32;
  s.x[t] = t;
  for (int r = 0; r < rounds; r++) {
    sync_named(1 + pair, 64);
    const int32_t v = s.x[other];
    sync_named(3 + pair, 64);
    s.x[t] = v + 1;
  }
  out[t] = s.x[t];
}

// ---- copies
// ----------------------------------------------------------------------------------------------------------------------
struct Bytes {
  alignas(16) unsigned char b[17 * 16 + 32 * 4];
};
FD_KERNEL(32, 1)
copy_kernel(const unsigned char* in, unsigned char* out) {  // lane l < 17: l bytes of 16; all lanes: 4 bytes, odd lanes none
  Bytes& s = shared_memory<Bytes>();
  const int t = int(threadIdx.x);
  if (t < 17) copy_async_16(s.b + 16 * t, in + 16 * t, t);
  copy_async_4(s.b + 272 + 4 * t, in + 4 * t, t % 2 ? 0 : 4);
  copy_async_commit();
  copy_async_wait<0>();
  sync_block();
  for (int i = t; i < int(sizeof s.b); i += 32) out[i] = s.b[i];
}

// ---- tensor cores: c[16][8] += a[16][K] b[K][8]
// ----------------------------------------------------------------------------------
template <class H>
FD_KERNEL(32, 1)
mma_kernel(const H* a, const H* b, float* c) {  // b[8 columns][16 k] by ldmatrix, then again b[16 k][8 columns] by its transpose
  struct Storage {
    alignas(16) H a[16][16], b[8][16], bt[16][8];
  };
  Storage& s = shared_memory<Storage>();
  const int l = int(threadIdx.x);
  for (int i = l; i < 256; i += 32) s.a[i / 16][i % 16] = a[i];
  for (int i = l; i < 128; i += 32) s.b[i / 16][i % 16] = b[i], s.bt[i % 16][i / 16] = b[i];
  sync_block();
  uint32_t fa[4], fb[4], ft[4];
  ldmatrix_x4(fa, &s.a[l % 16][l / 16 * 8]);
  ldmatrix_x4(fb, &s.b[l % 8][l / 8 % 2 * 8]);
  ldmatrix_x4_trans(ft, s.bt[l % 16]);
  for (int form = 0; form < 2; form++) {
    float d[4];
    for (int j = 0; j < 4; j++) d[j] = c[(l / 4 + j / 2 * 8) * 8 + l % 4 * 2 + j % 2];
    const uint32_t fragment[2] = {form ? ft[0] : fb[0], form ? ft[1] : fb[1]};
    mma_16816(d, fa, fragment, H());
    for (int j = 0; j < 4; j++) c[(form + 1) * 128 + (l / 4 + j / 2 * 8) * 8 + l % 4 * 2 + j % 2] = d[j];
  }
}
FD_DEVICE uint32_t bits_of_float(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}
FD_KERNEL(32, 1) mma_tf32_kernel(const float* a, const float* b, float* c) {  // a[16][8], b[8 k][8]; then with rounded operands
  const int l = int(threadIdx.x), row = l / 4, k = l % 4;
  for (int form = 0; form < 2; form++) {
    uint32_t fa[4], fb[2];
    for (int j = 0; j < 4; j++) {
      const float x = a[(row + j % 2 * 8) * 8 + k + j / 2 * 4];
      fa[j] = form ? round_tf32(x) : bits_of_float(x);
    }
    for (int j = 0; j < 2; j++) {
      const float x = b[(k + j * 4) * 8 + row];
      fb[j] = form ? round_tf32(x) : bits_of_float(x);
    }
    float d[4] = {};
    mma_1688_tf32(d, fa, fb);
    for (int j = 0; j < 4; j++) c[form * 128 + (row + j / 2 * 8) * 8 + k * 2 + j % 2] = d[j];
  }
}

}  // namespace

FD_EXPORT void widen_all(float* a, float* b) { FD_LAUNCH(kArgs, widen_kernel, 256, 256, 0, a, b); }
FD_EXPORT void narrow_float(const float* x, f16* a, bf16* b, int n) {
  FD_LAUNCH(kArgs, narrow_kernel<float>, ceil_div(n, 256), 256, 0, x, a, b, n);
}
FD_EXPORT void narrow_double(const double* x, f16* a, bf16* b, int n) {
  FD_LAUNCH(kArgs, narrow_kernel<double>, ceil_div(n, 256), 256, 0, x, a, b, n);
}
FD_EXPORT void tf32(const float* x, uint32_t* y, int n) { FD_LAUNCH(kArgs, tf32_kernel, ceil_div(n, 256), 256, 0, x, y, n); }
FD_EXPORT void shuffle_4(const float* x, float* y, int operand) {
  FD_LAUNCH(kArgs, shuffle_kernel<float>, 1, 64, 0, x, y, operand);
}
FD_EXPORT void shuffle_8(const double* x, double* y, int operand) {
  FD_LAUNCH(kArgs, shuffle_kernel<double>, 1, 64, 0, x, y, operand);
}
FD_EXPORT void masked(const int32_t* x, int32_t* y) { FD_LAUNCH(kArgs, masked_kernel, 1, 40, 0, x, y); }
FD_EXPORT void bits(const int32_t* x, uint32_t* y) { FD_LAUNCH(kArgs, bits_kernel, 1, 64, 0, x, y); }
FD_EXPORT void indices(int32_t* y) { FD_LAUNCH(kArgs, index_kernel, dim3(5, 3, 2), dim3(4, 3, 2), 0, y); }
FD_EXPORT void atomics(Atomics* a, int32_t* order) { FD_LAUNCH(kArgs, atomics_kernel, 1, 96, sizeof(Atomics), a, order); }
FD_EXPORT void named(int32_t* y, int rounds) { FD_LAUNCH(kArgs, named_kernel, 1, 128, sizeof(Ring), y, rounds); }
FD_EXPORT void copies(const unsigned char* x, unsigned char* y) { FD_LAUNCH(kArgs, copy_kernel, 1, 32, sizeof(Bytes), x, y); }
FD_EXPORT void mma_f16(const f16* a, const f16* b, float* c) { FD_LAUNCH(kArgs, mma_kernel<f16>, 1, 32, 1024, a, b, c); }
FD_EXPORT void mma_bf16(const bf16* a, const bf16* b, float* c) { FD_LAUNCH(kArgs, mma_kernel<bf16>, 1, 32, 1024, a, b, c); }
FD_EXPORT void mma_tf32(const float* a, const float* b, float* c) { FD_LAUNCH(kArgs, mma_tf32_kernel, 1, 32, 0, a, b, c); }

}  // namespace fastdl
