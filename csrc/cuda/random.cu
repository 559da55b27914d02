// Random numbers and dropout: the streams of cpu/isa/random.cpp, bit for bit. A thread computes the Philox blocks of 16 bytes of
// output; no state, so blocks and threads are cut as it suits the device.
#include "cuda/device/pack.cuh"
#include "cuda/device/philox.cuh"
#include "math/normal.h"

namespace fastdl {
namespace {

constexpr int kThreads = 256;

template <class T>
constexpr int kBlockItems = sizeof(T) == 8 ? 2 : 4;  // elements per Philox block

// out[0 .. n) = f(block, its first element, y): y gets kBlockItems numbers of the compute type.
template <class T, class F>
FD_DEVICE void fill_packs(T* out, int64_t n, bool aligned, RandomStream stream, const F& f) {
  constexpr int items = kBlockItems<T>, blocks = kPack<T> / items;
  for (int64_t g = blockIdx.x * int64_t(kThreads) + threadIdx.x; g * kPack<T> < n; g += int64_t(gridDim.x) * kThreads) {
    const int64_t at = g * kPack<T>;
    Pack<T> p;
#pragma unroll
    for (int b = 0; b < blocks; b++) {
      WideOf<T> y[items];
      f(stream.block(g * blocks + b), y);
#pragma unroll
      for (int k = 0; k < items; k++) p.v[b * items + k] = narrow<T>(y[k]);
    }
    store_pack(out + at, p, n - at, aligned);
  }
}

// ---- bits --------------------------------------------------------------------------------------------------------------------
// 64-bit draws are two words in memory order, so one kernel serves both widths. n: words.
FD_KERNEL(kThreads, 8) bits_kernel(uint32_t* out, int64_t n, bool aligned, RandomStream stream) {
  for (int64_t b = blockIdx.x * int64_t(kThreads) + threadIdx.x; b * 4 < n; b += int64_t(gridDim.x) * kThreads) {
    const PhiloxBlock w = stream.block(b);
    store_pack(out + b * 4, {{w.w[0], w.w[1], w.w[2], w.w[3]}}, n - b * 4, aligned);
  }
}

void bits_row(const Args& a) {
  const View& out = a.out[0];
  const int64_t n = out.numel() * (itemsize(out.dtype) / 4);
  if (n == 0) return;
  FD_LAUNCH(a, bits_kernel, stride_grid(a.device, ceil_div(n, 4), kThreads), kThreads, 0, out.ptr<uint32_t>(), n,
            is_aligned(out.data), stream_of(a));
}

// ---- uniform -----------------------------------------------------------------------------------------------------------------
template <class T>
constexpr int kMantissaBits = kDType<T> == DType::float64   ? 53
                              : kDType<T> == DType::float32 ? 24
                              : kDType<T> == DType::float16 ? 11
                                                            : 8;

// The greatest number of type T below `high`: what a sum that rounds up to `high` becomes.
template <class T>
FD_DEVICE WideOf<T> below(T high) {
  if constexpr (sizeof(T) == 8) {
    const int64_t b = bit_cast<int64_t>(high);
    return bit_cast<double>(high > 0 ? b - 1 : high < 0 ? b + 1 : INT64_MIN + 1);
  } else if constexpr (sizeof(T) == 4) {
    const int32_t b = bit_cast<int32_t>(high);
    return bit_cast<float>(high > 0 ? b - 1 : high < 0 ? b + 1 : INT32_MIN + 1);
  } else {
    const uint16_t magnitude = high.bits & 0x7fff, sign = high.bits & 0x8000;
    return wide(T{uint16_t(magnitude == 0 ? 0x8001 : sign ? high.bits + 1 : high.bits - 1)});
  }
}

template <class T>
FD_KERNEL(kThreads, 8)
uniform_kernel(T* out, int64_t n, bool aligned, RandomStream stream, WideOf<T> from, WideOf<T> to) {
  using W = WideOf<T>;
  const T low_end = narrow<T>(from), high_end = narrow<T>(to);
  const W low = wide(low_end), high = wide(high_end), range = high - low, last = low < high ? below(high_end) : low;
  fill_packs(out, n, aligned, stream, [=](const PhiloxBlock& b, W(&y)[kBlockItems<T>]) {
    constexpr int bits = kMantissaBits<T>;
#pragma unroll
    for (int k = 0; k < kBlockItems<T>; k++) {
      W u;
      if constexpr (sizeof(T) == 8)
        u = W(word64(b, k) >> 11) * W(0x1p-53);
      else
        u = W(b.w[k] >> (32 - bits)) * W(1.0f / (1 << (bits & 31)));
      y[k] = min(low + product(u, range), last);
    }
  });
}

// ---- normal ------------------------------------------------------------------------------------------------------------------
template <class T>
FD_KERNEL(kThreads, 4)
normal_kernel(T* out, int64_t n, bool aligned, RandomStream stream, WideOf<T> mean, WideOf<T> deviation) {
  using W = WideOf<T>;
  fill_packs(out, n, aligned, stream, [=](const PhiloxBlock& b, W(&y)[kBlockItems<T>]) {
    if constexpr (sizeof(T) == 8) {
      box_muller(int64_t(word64(b, 0)), int64_t(word64(b, 1)), y[0], y[1]);
    } else {
      box_muller(int32_t(b.w[0]), int32_t(b.w[1]), y[0], y[1]);
      box_muller(int32_t(b.w[2]), int32_t(b.w[3]), y[2], y[3]);
    }
#pragma unroll
    for (int k = 0; k < kBlockItems<T>; k++) y[k] = mean + product(deviation, y[k]);
  });
}

template <class T, bool normal>
void float_row(const Args& a) {
  using W = WideOf<T>;
  const View& out = a.out[0];
  const int64_t n = out.numel();
  if (n == 0) return;
  const uint32_t grid = stride_grid(a.device, ceil_div(n, kPack<T>), kThreads);
  const W first = W(a.attrs->f[0]), second = W(a.attrs->f[1]);
  if constexpr (normal)
    FD_LAUNCH(a, normal_kernel<T>, grid, kThreads, 0, out.ptr<T>(), n, is_aligned(out.data), stream_of(a), first, second);
  else
    FD_LAUNCH(a, uniform_kernel<T>, grid, kThreads, 0, out.ptr<T>(), n, is_aligned(out.data), stream_of(a), first, second);
}

// ---- integers ----------------------------------------------------------------------------------------------------------------
// low + floor(x * range / 2^64) for a random 64-bit x (Lemire 2019); the few x that would favour some results are thrown away, and
// another is taken from the same counter with the attempt's number in its upper half. A thread draws the two elements of a block.
FD_DEVICE void multiply_128(uint64_t a, uint64_t b, uint64_t& high, uint64_t& low) {
#if defined(__CUDA_ARCH__)
  high = __umul64hi(a, b);
#else
  high = uint64_t((static_cast<unsigned __int128>(a) * b) >> 64);
#endif
  low = a * b;
}

FD_KERNEL(kThreads, 4)
integers_kernel(void* out, int64_t n, int bytes, RandomStream stream, uint64_t base, uint64_t range, uint64_t reject) {
  for (int64_t g = blockIdx.x * int64_t(kThreads) + threadIdx.x; g * 2 < n; g += int64_t(gridDim.x) * kThreads) {
    const PhiloxBlock first = stream.block(g);
#pragma unroll
    for (int k = 0; k < 2; k++) {
      const int64_t e = g * 2 + k;
      uint64_t high, low;
      multiply_128(word64(first, k), range, high, low);
      for (uint64_t attempt = 1; low < reject && attempt < 256; attempt++) {
        const PhiloxBlock b = philox4x32(attempt, stream.offset + uint64_t(g), stream.key);
        multiply_128(word64(b, k), range, high, low);
      }
      const uint64_t y = base + high;
      if (e >= n) return;
      if (bytes == 8)
        static_cast<uint64_t*>(out)[e] = y;
      else if (bytes == 4)
        static_cast<uint32_t*>(out)[e] = uint32_t(y);
      else if (bytes == 2)
        static_cast<uint16_t*>(out)[e] = uint16_t(y);
      else
        static_cast<uint8_t*>(out)[e] = uint8_t(y);
    }
  }
}

void integers_row(const Args& a) {
  const View& out = a.out[0];
  const int64_t n = out.numel();
  if (n == 0) return;
  const uint64_t base = uint64_t(a.attrs->i[2]), range = uint64_t(a.attrs->i[3]) - base;
  const uint64_t reject = (0 - range) % range;  // 2^64 mod range
  FD_LAUNCH(a, integers_kernel, stride_grid(a.device, ceil_div(n, 2), kThreads), kThreads, 0, out.data, n, int(itemsize(out.dtype)),
            stream_of(a), base, range, reject);
}

// ---- dropout -----------------------------------------------------------------------------------------------------------------
// Dropped: elements whose word is below the threshold; all of them where drop_all (p = 1).
template <class T>
FD_KERNEL(kThreads, 8)
dropout_kernel(const T* x, T* out, int64_t n, bool aligned, RandomStream stream, uint32_t threshold, WideOf<T> scale,
               bool drop_all) {
  for (int64_t g = blockIdx.x * int64_t(kThreads) + threadIdx.x; g * kPack<T> < n; g += int64_t(gridDim.x) * kThreads) {
    const int64_t at = g * kPack<T>;
    Pack<T> p{};
    if (!drop_all) {
      p = load_pack(x + at, n - at, aligned);
#pragma unroll
      for (int k = 0; k < kPack<T>; k += 4) {  // 32-bit draws for every type; for double, half a block
        const PhiloxBlock b = stream.block(at / 4 + k / 4);
#pragma unroll
        for (int j = 0; j < 4 && k + j < kPack<T>; j++) {
          const uint32_t word = kPack<T> == 2 && at % 4 ? b.w[j + 2] : b.w[j];
          p.v[k + j] = word >= threshold ? narrow<T>(wide(p.v[k + j]) * scale) : T{};
        }
      }
    }
    store_pack(out + at, p, n - at, aligned);
  }
}

template <class T>
void dropout_row(const Args& a) {
  const View &x = a.in[0], &out = a.out[0];
  const int64_t n = out.numel();
  if (n == 0) return;
  const double p = a.attrs->f[0], parts = p * 4294967296.0 + 0.5;
  const bool drop_all = !(p < 1);
  const uint32_t threshold = parts < 4294967295.0 ? uint32_t(parts) : UINT32_MAX;
  FD_LAUNCH(a, dropout_kernel<T>, stride_grid(a.device, ceil_div(n, kPack<T>), kThreads), kThreads, 0, x.ptr<const T>(),
            out.ptr<T>(), n, is_aligned(x.data) && is_aligned(out.data), stream_of(a), threshold,
            WideOf<T>(drop_all ? 0 : 1 / (1 - p)), drop_all);
}

}  // namespace

#define FD_FLOATS(op, row)                                                                                              \
  {OpId::op, kF32, row(float), nullptr}, {OpId::op, kF64, row(double), nullptr}, {OpId::op, kF16, row(f16), nullptr}, { \
    OpId::op, kBF16, row(bf16), nullptr                                                                                 \
  }
#define FD_UNIFORM(T) float_row<T, false>
#define FD_NORMAL(T) float_row<T, true>
#define FD_DROPOUT(T) dropout_row<T>

FD_CUDA_TABLE(random) = {{OpId::random_bits, kMaskInt, bits_row, nullptr},
                         {OpId::random_integers, kMaskInt, integers_row, nullptr},
                         FD_FLOATS(random_uniform, FD_UNIFORM),
                         FD_FLOATS(random_normal, FD_NORMAL),
                         FD_FLOATS(dropout, FD_DROPOUT),
                         {}};

}  // namespace fastdl
