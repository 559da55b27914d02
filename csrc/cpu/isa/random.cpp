// Random numbers and dropout. Element e of a call takes its words from Philox block offset + e / 4 (32-bit outputs: word e % 4) or
// offset + e / 2 (64-bit: words 2 (e % 2) and the next): a pure function of the element's index, so every thread count, instruction
// set and device gives the same stream.
//
// uniform: as many random bits as the mantissa holds, scaled to [low, high); normal: Box & Muller on pairs of elements
// (math/normal.h); integers: Lemire, "Fast random integer generation in an interval" (2019), with retries from counters of the
// element's own; dropout: the raw word against a threshold.
#include "cpu/isa/philox_vec.h"
#include "cpu/vec/convert.h"
#include "math/normal.h"

namespace fastdl {
namespace {

constexpr int64_t kGrain = 16384;  // elements per chunk; a multiple of kWords

FD_INLINE uint64_t seed_of(const Args& a) { return uint64_t(a.attrs->i[0]); }
FD_INLINE uint64_t offset_of(const Args& a) { return uint64_t(a.attrs->i[1]); }

// The product of math/normal.h.
template <class T>
FD_INLINE Vec<T> product(Vec<T> a, Vec<T> b) {
  Vec<T> r = a * b;
  FD_KEEP_VECTOR(r.v);
  return r;
}

// f(first word, number of words, Words): all groups of `words` words from the start of the stream, in memory order of the elements.
template <bool in_sequence, class F>
FD_INLINE void for_groups(const Args& args, int64_t words, F&& f) {
  const uint64_t key = seed_of(args), offset = offset_of(args);
  parallel_for(words, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t w = begin; w < end; w += kWords) {
      const Words blocks = philox_blocks(offset + uint64_t(w / 4), key);
      f(w, int(min_of<int64_t>(kWords, end - w)), in_sequence ? sequence(blocks) : blocks);
    }
  });
}

// Stores v[0 .. 4) at p, of `count` elements only.
template <class T, class V>
FD_INLINE void put_group(T* p, const V (&v)[4], int count) {
  if (count == 4 * V::size) {
    for (int k = 0; k < 4; k++) store_narrow(p + k * V::size, v[k]);
  } else {
    for (int k = 0; k < 4 && count > 0; k++, count -= V::size) store_narrow_partial(p + k * V::size, v[k], min_of(count, V::size));
  }
}

template <int words_per_element>
void bits_kernel(const Args& args) {
  int32_t* out = args.out[0].ptr<int32_t>();
  for_groups<true>(args, args.out[0].numel() * words_per_element,
                   [&](int64_t w, int count, const Words& r) { put_group(out + w, r.w, count); });
}

// ---- uniform -----------------------------------------------------------------------------------------------------------

template <class T>
struct Mantissa {
  static constexpr int bits = 53;
};
template <>
struct Mantissa<float> {
  static constexpr int bits = 24;
};
template <>
struct Mantissa<f16> {
  static constexpr int bits = 11;
};
template <>
struct Mantissa<bf16> {
  static constexpr int bits = 8;
};

// The greatest number of type T below `high`: what a sum that rounds up to `high` becomes.
template <class T>
WideOf<T> below(double high) {
  T h;
  store_narrow_one(&h, WideOf<T>(high));
  if constexpr (sizeof(T) == 8) {
    int64_t b = bit_cast<int64_t>(h);
    b = h > 0 ? b - 1 : h < 0 ? b + 1 : INT64_MIN + 1;
    return bit_cast<double>(b);
  } else if constexpr (sizeof(T) == 4) {
    int32_t b = bit_cast<int32_t>(h);
    b = h > 0 ? b - 1 : h < 0 ? b + 1 : INT32_MIN + 1;
    return bit_cast<float>(b);
  } else {
    const uint16_t magnitude = h.bits & 0x7fff, sign = h.bits & 0x8000;
    const T b{uint16_t(magnitude == 0 ? 0x8001 : sign ? h.bits + 1 : h.bits - 1)};
    return load_wide_one(&b);
  }
}

template <class T>
void uniform_kernel(const Args& args) {
  using W = WideOf<T>;
  T *out = args.out[0].ptr<T>(), ends[2];
  store_narrow_one(ends, W(args.attrs->f[0]));
  store_narrow_one(ends + 1, W(args.attrs->f[1]));
  const W low = load_wide_one(ends), high = load_wide_one(ends + 1);
  const W top = low < high ? below<T>(args.attrs->f[1]) : low;
  constexpr int bits = Mantissa<T>::bits;
  const Vec<W> step(sizeof(T) == 8 ? W(0x1p-53) : W(1.0f / (1 << (bits & 31)))), range(high - low), base(low), last(top);
  constexpr int words = sizeof(T) == 8 ? 2 : 1;
  for_groups<true>(args, args.out[0].numel() * words, [&](int64_t w, int count, const Words& r) {
    Vec<W> y[4];
    for (int k = 0; k < 4; k++) {
      Vec<W> u;
      if constexpr (words == 2) {
        const VecL m = (bit_cast<int64_t>(r.w[k]) >> 11) & VecL((int64_t(1) << 53) - 1);
        u = to_float(m);
      } else {
        u = to_float(logical_shift_right(r.w[k], 32 - bits));
      }
      y[k] = min(base + product(u * step, range), last);
    }
    put_group(out + w / words, y, count / words);
  });
}

// ---- normal ------------------------------------------------------------------------------------------------------------

template <class T>
void normal_kernel(const Args& args) {
  using W = WideOf<T>;
  T* out = args.out[0].ptr<T>();
  const int64_t n = args.out[0].numel();
  const Vec<W> mean(W(args.attrs->f[0])), deviation(W(args.attrs->f[1]));
  constexpr int words = sizeof(T) == 8 ? 2 : 1;
  for_groups<false>(args, n * words, [&](int64_t w, int count, const Words& r) {
    Vec<W> y[4];
    if constexpr (words == 1) {  // pairs: words 0 and 1, 2 and 3 of a block
      VecF z[4];
      box_muller(r.w[0], r.w[1], z[0], z[1]);
      box_muller(r.w[2], r.w[3], z[2], z[3]);
      Words bits;
      for (int k = 0; k < 4; k++) bits.w[k] = bit_cast<int32_t>(z[k]);
      bits = sequence(bits);
      for (int k = 0; k < 4; k++) y[k] = bit_cast<float>(bits.w[k]);
    } else {  // a pair per block: 64-bit words 0 and 1; for the steps to memory order see sequence()
      for (int h = 0; h < 2; h++) {
        const VecI u = h ? unpack_high32(r.w[0], r.w[1]) : unpack_low32(r.w[0], r.w[1]);
        const VecI v = h ? unpack_high32(r.w[2], r.w[3]) : unpack_low32(r.w[2], r.w[3]);
        VecD a, b;
        box_muller(bit_cast<int64_t>(u), bit_cast<int64_t>(v), a, b);
        const VecI ai = bit_cast<int32_t>(a), bi = bit_cast<int32_t>(b);
        y[2 * h] = bit_cast<double>(unpack_low64(ai, bi));
        y[2 * h + 1] = bit_cast<double>(unpack_high64(ai, bi));
      }
    }
    for (int k = 0; k < 4; k++) y[k] = mean + product(deviation, y[k]);
    put_group(out + w / words, y, count / words);
  });
}

// ---- integers ------------------------------------------------------------------------------------------------------------

// low + floor(x * range / 2^64) for a random 64-bit x; the few x that would favour some results are thrown away, and another is
// taken from the same counter with the attempt's number in its upper half.
template <class T>
void integers_kernel(const Args& args) {
  T* out = args.out[0].ptr<T>();
  const uint64_t low = uint64_t(args.attrs->i[2]), range = uint64_t(args.attrs->i[3]) - low;
  const uint64_t reject = (0 - range) % range;  // 2^64 mod range
  for_groups<true>(args, args.out[0].numel() * 2, [&](int64_t w, int count, const Words& r) {
    alignas(64) uint64_t x[kWords / 2];
    memcpy(x, r.w, sizeof x);
    for (int j = 0; j < count / 2; j++) {
      const int64_t e = w / 2 + j;
      __uint128_t product = __uint128_t(x[j]) * range;
      for (uint64_t attempt = 1; __builtin_expect(uint64_t(product) < reject, 0) && attempt < 256; attempt++) {
        const PhiloxBlock b = philox4x32(attempt, offset_of(args) + uint64_t(e / 2), seed_of(args));
        const int k = int(e % 2) * 2;
        product = __uint128_t(b.w[k] | uint64_t(b.w[k + 1]) << 32) * range;
      }
      out[e] = T(low + uint64_t(product >> 64));
    }
  });
}

// ---- dropout -------------------------------------------------------------------------------------------------------------

template <class T>
void dropout_kernel(const Args& args) {
  using W = WideOf<T>;
  const T* x = args.in[0].ptr<const T>();
  T* out = args.out[0].ptr<T>();
  const int64_t n = args.out[0].numel();
  const double p = args.attrs->f[0], parts = p * 4294967296.0 + 0.5;
  if (!(p < 1)) {
    parallel_for(n, kGrain, [&](int64_t b, int64_t e) { memset(static_cast<void*>(out + b), 0, size_t(e - b) * sizeof(T)); });
    return;
  }
  // Dropped: words below the threshold. Signed comparison after moving both by 2^31.
  const uint32_t threshold = parts < 4294967295.0 ? uint32_t(parts) : UINT32_MAX;
  const VecI sign(INT32_MIN), least(int32_t(threshold ^ 0x80000000u));
  const Vec<W> scale(W(1.0 / (1.0 - p))), zero(W(0));
  for_groups<true>(args, n, [&](int64_t e, int count, const Words& r) {
    if constexpr (sizeof(T) == 8) {
      int32_t keep[kWords];
      for (int k = 0; k < 4; k++) store(keep + k * VecI::size, (r.w[k] ^ sign) >= least);
      for (int j = 0; j < count; j++) out[e + j] = keep[j] ? x[e + j] * scale[0] : 0.0;
    } else {
      VecF y[4];
      for (int k = 0; k < 4; k++) {
        const int at = k * VecI::size, m = max_of(0, min_of(count - at, VecI::size));
        const VecF v = m == VecI::size ? load_wide(x + e + at) : load_wide_partial(x + e + (m ? at : 0), m);
        y[k] = select((r.w[k] ^ sign) >= least, v * scale, zero);
      }
      put_group(out + e, y, count);
    }
  });
}

}  // namespace
}  // namespace fastdl

using namespace fastdl;

#define FD_FLOATS(op, kernel)                                                                         \
  {OpId::op, kF32, kernel<float>}, {OpId::op, kF64, kernel<double>}, {OpId::op, kF16, kernel<f16>}, { \
    OpId::op, kBF16, kernel<bf16>                                                                     \
  }
#define FD_INTEGERS(type) {OpId::random_integers, mask_of(DType::u##type) | mask_of(DType::type), integers_kernel<u##type##_t>}

FD_KERNEL_TABLE(random) = {{OpId::random_bits, mask_of(DType::uint32) | mask_of(DType::int32), bits_kernel<1>},
                           {OpId::random_bits, mask_of(DType::uint64) | mask_of(DType::int64), bits_kernel<2>},
                           FD_FLOATS(random_uniform, uniform_kernel),
                           FD_FLOATS(random_normal, normal_kernel),
                           FD_INTEGERS(int8),
                           FD_INTEGERS(int16),
                           FD_INTEGERS(int32),
                           FD_INTEGERS(int64),
                           FD_FLOATS(dropout, dropout_kernel),
                           {}};
