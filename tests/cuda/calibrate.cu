// Does the hardware do what the emulator says? Small kernels, about one per function of the device vocabulary (device/ptx.h and its
// twin emu/emulator.h). This file is compiled both ways; each program writes what its kernels leave in memory, and bench/gpu_run.py
// compares the two files bit by bit (`approximate` ones to within a relative error: sums of tensor cores do not round as IEEE's
// do).
//
//   program FILE   writes, per kernel, a line "name exact|approximate bytes" and the bytes
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cuda/kernel.h"
#include "math/erf.h"
#include "math/exp.h"
#include "math/log.h"

namespace fastdl {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kOutBytes = 1 << 20, kInBytes = 1 << 20;

using In = const unsigned char*;
using Out = unsigned char*;
template <class T>
FD_DEVICE T load(In in, int64_t k) {
  return reinterpret_cast<const T*>(in)[k];
}
template <class T>
FD_DEVICE void store(Out out, int64_t k, T v) {
  reinterpret_cast<T*>(out)[k] = v;
}

// ---- lanes ---------------------------------------------------------------------------------------------------------------
template <class T>
FD_KERNEL(kThreads, 1)
shuffles(In in, Out out) {
  const int t = int(threadIdx.x);
  const T v = load<T>(in, t);
  int k = 0;
  for (int m = 1; m < 32; m = 2 * m + 1) store(out, k++ * kThreads + t, shuffle_xor(v, m));
  for (int d = 1; d < 32; d = 2 * d + 1) store(out, k++ * kThreads + t, shuffle_down(v, d));
  for (int d = 1; d < 32; d = 2 * d + 1) store(out, k++ * kThreads + t, shuffle_up(v, d));
  store(out, k++ * kThreads + t, shuffle(v, (t * 7 + 3) & 31));
  store(out, k++ * kThreads + t, shuffle(v, 40));  // lanes count modulo 32
  if ((t & 31) < 12) store(out, k * kThreads + t, shuffle(v, 5, 0xfffu));
}

FD_KERNEL(kThreads, 1) votes(In in, Out out) {
  const int t = int(threadIdx.x);
  const uint32_t v = load<uint32_t>(in, t);
  store(out, t, ballot(v & 1));
  store(out, kThreads + t, uint32_t(popcount(v)));
  store(out, 2 * kThreads + t, uint32_t(find_first_set(v & 0xff00)));
  store(out, 3 * kThreads + t, uint32_t(find_first_set(0)));
  if ((t & 31) >= 20) store(out, 4 * kThreads + t, ballot(v & 2, 0xfff00000u));
}

// ---- barriers: two halves of the block, each with a barrier of its own, then all ------------------------------------------------
struct Exchange {
  uint32_t v[kThreads];
};
FD_KERNEL(kThreads, 1) barriers(In in, Out out) {
  Exchange& s = shared_memory<Exchange>();
  const int t = int(threadIdx.x), half = t / 64;
  s.v[t] = load<uint32_t>(in, t);
  sync_named(half + 1, 64);
  store(out, t, s.v[half * 64 + 63 - t % 64]);
  sync_block();
  store(out, kThreads + t, s.v[kThreads - 1 - t]);
  sync_block();
  s.v[t] *= 3;
  sync_warp();
  store(out, 2 * kThreads + t, s.v[t ^ 31]);
}

// ---- memory ------------------------------------------------------------------------------------------------------------------
struct Quad {
  uint32_t v[4];
};
FD_KERNEL(kThreads, 1) wide_accesses(In in, Out out) {
  const int t = int(threadIdx.x);
  Quad a = load_16<Quad>(in + 16 * t), b = load_16_streaming<Quad>(in + 16 * (kThreads + t));
  store_16(out + 16 * t, b);
  store_16_streaming(out + 16 * (kThreads + t), a);
}

FD_KERNEL(kThreads, 1) atomics(In in, Out out) {
  const int t = int(threadIdx.x);
  const uint32_t v = load<uint32_t>(in, t) & 0xffff;
  atomic_add(reinterpret_cast<int32_t*>(out), int32_t(v) - 30000);
  atomic_add(reinterpret_cast<uint32_t*>(out + 4), v << 12);
  atomic_add(reinterpret_cast<uint64_t*>(out + 8), uint64_t(v) << 30);
  atomic_add(reinterpret_cast<float*>(out + 16), float(v & 255));  // exact: integers
  atomic_add(reinterpret_cast<double*>(out + 24), double(v));
  atomic_max(reinterpret_cast<int32_t*>(out + 32), int32_t(v) - 30000);
  atomic_cas(reinterpret_cast<int32_t*>(out + 36), 0, 77);
  int32_t* counter = reinterpret_cast<int32_t*>(out + 40);  // an increment made of compare-and-swap
  for (int32_t old = 0, seen; (seen = atomic_cas(counter, old, old + 1)) != old;) old = seen;
  Exchange& s = shared_memory<Exchange>();
  if (t < 2) s.v[t] = 0;
  sync_block();
  atomic_add(&s.v[t & 1], v);
  sync_block();
  if (t < 2) store(out, 16 + t, s.v[t]);
}

// ---- 16-bit floats: every value up, random bits and the neighbourhood of every half-way case down
// ------------------------------------
FD_KERNEL(kThreads, 1) widenings(In, Out out) {
  for (int k = int(threadIdx.x); k < 65536; k += kThreads) {
    store(out, k, widen(f16{uint16_t(k)}));
    store(out, 65536 + k, widen(bf16{uint16_t(k)}));
  }
}

FD_DEVICE float from_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
FD_KERNEL(kThreads, 1) narrowings(In, Out out) {
  for (int k = int(threadIdx.x); k < 65536; k += kThreads) {
    // Floats around those that lie half-way between two bfloat16, or two float16 of exponent near 0, and random ones
    const uint32_t h = uint32_t(k);
    const float around[4] = {from_bits(h << 16 | 0x7fff), from_bits(h << 16 | 0x8000), from_bits(h << 16 | 0x8001),
                             widen(f16{uint16_t(h)}) * 1.00048828125f};
    for (int j = 0; j < 4; j++) {
      store(out, 4 * k + j, narrow_bf16(around[j]).bits);
      store(out, 4 * (65536 + k) + j, narrow_f16(around[j]).bits);
    }
  }
}
FD_KERNEL(kThreads, 1) narrowings_random(In in, Out out) {
  for (int k = int(threadIdx.x); k < 65536; k += kThreads) {
    const float x = load<float>(in, k);
    const double d = load<double>(in, k),
                 near_f16 = double(widen(f16{uint16_t(k)})) * (1.0 + 0x1p-11 + double(k % 3 - 1) * 0x1p-40);
    store(out, 6 * k, narrow_f16(x).bits);
    store(out, 6 * k + 1, narrow_bf16(x).bits);
    store(out, 6 * k + 2, narrow_f16(d).bits);
    store(out, 6 * k + 3, narrow_bf16(d).bits);
    store(out, 6 * k + 4, narrow_f16(near_f16).bits);
    store(out, 6 * k + 5, narrow_bf16(near_f16).bits);
  }
}
FD_KERNEL(kThreads, 1) tf32_rounding(In in, Out out) {
  for (int k = int(threadIdx.x); k < 65536; k += kThreads) {
    store(out, 2 * k, round_tf32(load<float>(in, k)));
    store(out, 2 * k + 1, round_tf32(from_bits(uint32_t(k) << 12)));
  }
}

// ---- cp.async -------------------------------------------------------------------------------------------------------------------
struct Staged {
  unsigned char wide[3][kThreads * 16];
  unsigned char narrow[kThreads * 4];
};
FD_KERNEL(kThreads, 1) async_copies(In in, Out out) {
  Staged& s = shared_memory<Staged>();
  const int t = int(threadIdx.x);
  for (int k = 0; k < 3; k++) {  // 0 to 16 bytes, the rest zeros
    copy_async_16(s.wide[k] + 16 * t, in + 16 * (k * kThreads + t), k == 0 ? 16 : (t + k) % 17);
    if (k == 2) copy_async_4(s.narrow + 4 * t, in + 4 * (t + 1), t % 3 ? 4 : 0);
    copy_async_commit();
  }
  copy_async_wait<2>();
  sync_block();
  store(out, t, load<uint32_t>(s.wide[0], kThreads - 1 - t));
  copy_async_wait<0>();
  sync_block();
  for (int k = 0; k < 3; k++)
    for (int j = 0; j < 4; j++) store(out, (1 + 4 * k + j) * kThreads + t, load<uint32_t>(s.wide[k], 4 * t + j));
  store(out, 13 * kThreads + t, load<uint32_t>(s.narrow, t));
}

// ---- matrices
// ----------------------------------------------------------------------------------------------------------------------
struct Tiles {
  uint16_t v[kThreads][8];  // a row of 8 per thread: four 8x8 matrices per warp
};
FD_KERNEL(kThreads, 1) matrix_loads(In in, Out out) {
  Tiles& s = shared_memory<Tiles>();
  const int t = int(threadIdx.x), warp = t / 32, lane = t % 32;
  for (int j = 0; j < 8; j++) s.v[t][j] = load<uint16_t>(in, 8 * t + j);
  sync_block();
  uint32_t r[4];
  ldmatrix_x4(r, s.v[warp * 32 + lane]);
  for (int j = 0; j < 4; j++) store(out, j * kThreads + t, r[j]);
  ldmatrix_x4_trans(r, s.v[warp * 32 + (lane ^ 13)]);  // rows in another order
  for (int j = 0; j < 4; j++) store(out, (4 + j) * kThreads + t, r[j]);
}

// Small integers: products and sums are exact, so that only the places of the elements count.
FD_DEVICE f16 narrow(float x, f16) { return narrow_f16(x); }
FD_DEVICE bf16 narrow(float x, bf16) { return narrow_bf16(x); }
template <class T>
FD_DEVICE uint32_t pair_of(uint32_t bits, bool exact) {
  const float low = exact ? float(int(bits & 15) - 8) : float(int(bits & 0xffff) - 32768) / 32768;
  const float high = exact ? float(int(bits >> 16 & 15) - 8) : float(int(bits >> 16) - 32768) / 32768;
  return uint32_t(narrow(high, T{}).bits) << 16 | narrow(low, T{}).bits;
}

template <class T, bool exact>
FD_KERNEL(kThreads, 1)
products(In in, Out out) {
  const int t = int(threadIdx.x);
  float d[4] = {0, 1, 2, 3};
  for (int step = 0; step < 4; step++) {
    uint32_t a[4], b[2];
    for (int j = 0; j < 4; j++) a[j] = pair_of<T>(load<uint32_t>(in, (6 * step + j) * kThreads + t), exact);
    for (int j = 0; j < 2; j++) b[j] = pair_of<T>(load<uint32_t>(in, (6 * step + 4 + j) * kThreads + t), exact);
    mma_16816(d, a, b, T{});
  }
  for (int j = 0; j < 4; j++) store(out, j * kThreads + t, d[j]);
}

template <bool exact>
FD_KERNEL(kThreads, 1)
products_tf32(In in, Out out) {
  const int t = int(threadIdx.x);
  float d[4] = {0, 1, 2, 3};
  const auto value = [&](int k) {
    const uint32_t bits = load<uint32_t>(in, k * kThreads + t);
    return round_tf32(exact ? float(int(bits & 63) - 32) : float(int(bits >> 8) - (1 << 23)) * 0x1p-23f);
  };
  for (int step = 0; step < 4; step++) {
    uint32_t a[4], b[2];
    for (int j = 0; j < 4; j++) a[j] = value(6 * step + j);
    for (int j = 0; j < 2; j++) b[j] = value(6 * step + 4 + j);
    mma_1688_tf32(d, a, b);
  }
  for (int j = 0; j < 4; j++) store(out, j * kThreads + t, d[j]);
}

// ---- formulas: the compilers may contract other pairs to a fused multiply-add
// --------------------------------------------------------
FD_KERNEL(kThreads, 1) formulas(In in, Out out) {
  for (int k = int(threadIdx.x); k < 16384; k += kThreads) {
    const float x = (float(load<uint32_t>(in, k) >> 8) * 0x1p-24f - 0.5f) * 40.0f;
    store(out, 3 * k, exp(x));
    store(out, 3 * k + 1, log(x * x + 0.001f));
    store(out, 3 * k + 2, erf(x * 0.1f));
  }
}

// ---- the program
// ----------------------------------------------------------------------------------------------------------------------
struct Probe {
  const char* name;
  bool exact;
  int64_t bytes;
  void (*kernel)(In, Out);
  int64_t shared;
};
const Probe kProbes[] = {
    {"shuffle 4 bytes", true, 18 * kThreads * 4, shuffles<uint32_t>, 0},
    {"shuffle 8 bytes", true, 18 * kThreads * 8, shuffles<double>, 0},
    {"ballot, popcount, find_first_set", true, 5 * kThreads * 4, votes, 0},
    {"barriers", true, 3 * kThreads * 4, barriers, sizeof(Exchange)},
    {"load_16, store_16", true, 32 * kThreads, wide_accesses, 0},
    {"atomics", true, 128, atomics, sizeof(Exchange)},
    {"widen", true, 2 * 65536 * 4, widenings, 0},
    {"narrow near ties", true, 2 * 65536 * 4 * 2, narrowings, 0},
    {"narrow random", true, 6 * 65536 * 2, narrowings_random, 0},
    {"round_tf32", true, 2 * 65536 * 4, tf32_rounding, 0},
    {"cp.async", true, 14 * kThreads * 4, async_copies, sizeof(Staged)},
    {"ldmatrix", true, 8 * kThreads * 4, matrix_loads, sizeof(Tiles)},
    {"mma float16 exact", true, 4 * kThreads * 4, products<f16, true>, 0},
    {"mma bfloat16 exact", true, 4 * kThreads * 4, products<bf16, true>, 0},
    {"mma tf32 exact", true, 4 * kThreads * 4, products_tf32<true>, 0},
    {"mma float16", false, 4 * kThreads * 4, products<f16, false>, 0},
    {"mma bfloat16", false, 4 * kThreads * 4, products<bf16, false>, 0},
    {"mma tf32", false, 4 * kThreads * 4, products_tf32<false>, 0},
    {"formulas", false, 3 * 16384 * 4, formulas, 0},
};

bool ok(cudaError_t e, const char* what) {
  if (e != cudaSuccess) fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(e));
  return e == cudaSuccess;
}

int run(const char* path) {
  std::vector<unsigned char> host(kInBytes), result(kOutBytes);
  uint64_t state = 20240607;
  for (unsigned char& byte : host) {  // Knuth's MMIX generator
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    byte = static_cast<unsigned char>(state >> 56);
  }
  void *in = nullptr, *out = nullptr;
  if (!ok(cudaMalloc(&in, size_t(kInBytes)), "allocate") || !ok(cudaMalloc(&out, size_t(kOutBytes)), "allocate")) return 1;
  if (!ok(cudaMemcpy(in, host.data(), size_t(kInBytes), cudaMemcpyHostToDevice), "copy")) return 1;
  FILE* file = fopen(path, "wb");
  if (!file) return perror(path), 1;
  DeviceContext context = {};
  Args args = {};
  args.device = &context;
  int failed = 0;
  for (const Probe& p : kProbes) {
    bool good = ok(cudaMemset(out, 0, size_t(kOutBytes)), p.name);
    FD_LAUNCH(args, p.kernel, dim3(1), dim3(kThreads), size_t(p.shared), static_cast<In>(in), static_cast<Out>(out));
    good = good && ok(cudaGetLastError(), p.name) && ok(cudaDeviceSynchronize(), p.name);
    good = good && ok(cudaMemcpy(result.data(), out, size_t(p.bytes), cudaMemcpyDeviceToHost), p.name);
    failed += !good;
    if (!good) continue;
    fprintf(file, "%s\t%s\t%lld\n", p.name, p.exact ? "exact" : "approximate", static_cast<long long>(p.bytes));
    fwrite(result.data(), 1, size_t(p.bytes), file);
  }
  fclose(file);
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace fastdl

int main(int argc, char** argv) { return argc == 2 ? fastdl::run(argv[1]) : (fprintf(stderr, "usage: calibrate FILE\n"), 2); }
