// batch_norm in training and evaluation, and its gradient, on channels-last memory (N, ..., C), which is a matrix of rows and
// channels, or on row-major planes (N, C, ...); inference chooses and says so in attribute i1.
//
// Three kernels. 1: every chunk of a channel's elements gives its mean and sum of squared distances from it (M2); a thread takes a
// few elements at a time, exactly, and joins them to what it has; threads are joined in a tree (T. Chan, G. Golub, R. LeVeque,
// "Updating formulae and a pairwise algorithm for computing sample variances", 1979). E[x^2] - E[x]^2 is never formed. 2: per
// channel, chunks are joined in order, in double; running statistics are updated. 3: y = (x - center) * scale + offset. The
// gradient likewise, with the sums of g and of g * (x - mean). Chunks depend on the shape alone, so results are the same in every
// run.
#include <initializer_list>

#include "cuda/device/divide.cuh"
#include "cuda/device/param.cuh"
#include "cuda/device/reduce.cuh"
#include "math/base.h"

namespace fastdl {
namespace {

constexpr int kThreads = 256;

// The input as threads see it, in packs of V elements: `lanes` neighbouring threads take neighbouring packs of channels of a row,
// the others further rows. Planes: a block has one channel, whose elements are N runs of `run` packs; V of them share the channel.
struct Cells {
  int64_t channels, steps;  // steps: rows, or packs per channel
  Division by_run;
  bool planes;
  int lanes;
  int64_t count;  // elements per channel

  FD_DEVICE int rows_at_once() const { return kThreads / lanes; }
  FD_DEVICE int64_t first_channel(int V) const {
    return planes ? blockIdx.x : (blockIdx.x * int64_t(lanes) + threadIdx.x % lanes) * V;
  }
  FD_DEVICE int64_t at(int64_t step, int64_t channel, int V) const {
    if (!planes) return step * channels + channel;
    const int64_t offset = by_run.split(step);  // step: the run
    return ((step * channels + channel) * by_run.by + offset) * V;
  }
};

// Steps of a chunk, for blockIdx.y; per_chunk depends on the shape alone.
struct Chunks {
  int64_t per_chunk, count;
};

// Joins the values of the threads of a block that have the same lane, in a tree; the result is that of the first row of threads.
template <class Op, class M, int V>
FD_DEVICE void join_rows(M (&m)[V], int lanes, M* storage) {
  const int row = threadIdx.x / lanes;
#pragma unroll
  for (int k = 0; k < V; k++) storage[k * kThreads + threadIdx.x] = m[k];
  for (int half = kThreads / lanes / 2; half > 0; half /= 2) {
    sync_block();
    if (row < half) {
#pragma unroll
      for (int k = 0; k < V; k++) {
        m[k] = Op::of(m[k], storage[k * kThreads + threadIdx.x + half * lanes]);
        storage[k * kThreads + threadIdx.x] = m[k];
      }
    }
  }
}
template <class M, int V>
struct JoinStorage {
  M values[V * kThreads];
};

template <class T>
constexpr int kAhead = sizeof(T) == 2 ? 4 : 8;  // packs that a thread has in flight

// ---- statistics -------------------------------------------------------------------------------------------------------------
// stats: per chunk mean (C), M2 (C)
template <class T, int V>
FD_KERNEL(kThreads, 2)
batch_moments_kernel(const T* x, WideOf<T>* stats, Cells cells, Chunks chunks, Convert<T> as) {
  using W = WideOf<T>;
  constexpr int ahead = kAhead<T>;
  const int64_t channel = cells.first_channel(V);
  const int64_t begin = blockIdx.y * chunks.per_chunk, end = min_of(begin + chunks.per_chunk, cells.steps);
  const int together = cells.rows_at_once();
  Moments<W> m[V] = {};
  if (channel < cells.channels)
    for (int64_t i = begin + threadIdx.x / cells.lanes; i < end; i += together * ahead) {
      Cell<T, V> cell[ahead];
      int found = 0;
#pragma unroll
      for (int j = 0; j < ahead; j++)
        if (i + j * together < end) cell[j] = load_cell<V>(x + cells.at(i + j * together, channel, V)), found++;
      const W n = W(found), share = n / (m[0].count + n), weight = share * m[0].count;
#pragma unroll
      for (int k = 0; k < V; k++) {
        W sum = 0, m2 = 0;
#pragma unroll
        for (int j = 0; j < ahead; j++) sum += j < found ? as.wide(cell[j].v[k]) : W(0);
        const W mean = sum / n;
#pragma unroll
        for (int j = 0; j < ahead; j++) {
          const W d = j < found ? as.wide(cell[j].v[k]) - mean : W(0);
          m2 = fma(d, d, m2);
        }
        const W d = mean - m[k].mean;
        m[k] = {fma(d, share, m[k].mean), m[k].m2 + fma(d * d, weight, m2), m[k].count + n};
      }
    }
  join_rows<MomentsOp>(m, cells.lanes, shared_memory<JoinStorage<Moments<W>, V>>().values);
  if (int(threadIdx.x) >= cells.lanes || channel >= cells.channels) return;
  stats += blockIdx.y * 2 * cells.channels + channel;
  if (cells.planes) {
#pragma unroll
    for (int k = 1; k < V; k++) m[0] = MomentsOp::of(m[0], m[k]);
    stats[0] = m[0].mean, stats[cells.channels] = m[0].m2;
  } else {
    Cell<W, V> mean, m2;
#pragma unroll
    for (int k = 0; k < V; k++) mean.v[k] = m[k].mean, m2.v[k] = m[k].m2;
    store_cell(stats, mean), store_cell(stats + cells.channels, m2);
  }
}

// ---- per channel: 32 channels per block, 8 threads share one ----------------------------------------------------------------
constexpr int kColumns = 32, kShare = 8;
struct ChannelStorage {
  double values[kShare][kColumns];
};

// The sum over chunks of f(chunk), the same for all threads of a channel.
template <class F>
FD_DEVICE double sum_chunks(int64_t chunks, ChannelStorage& s, const F& f) {
  const int column = threadIdx.x % kColumns, share = threadIdx.x / kColumns;
  double sum = 0;
#pragma unroll 4
  for (int64_t b = share; b < chunks; b += kShare) sum += f(b);
  sync_block();
  s.values[share][column] = sum;
  sync_block();
  sum = 0;
#pragma unroll
  for (int k = 0; k < kShare; k++) sum += s.values[k][column];
  return sum;
}

template <class W>
struct ForwardChannels {
  Param weight, bias, running_mean, running_var;
  W *mean, *rstd;
  const W* stats;
  W* apply;  // center (C), scale (C), offset (C)
  double momentum, eps;
  int64_t channels, count;
  Chunks chunks;
  int64_t chunk_elements;  // of all chunks but the last
  bool training;
};
template <class W>
FD_KERNEL(kColumns* kShare, 2)
batch_norm_channels_kernel(ForwardChannels<W> f) {
  ChannelStorage& s = shared_memory<ChannelStorage>();
  const int64_t c = blockIdx.x * int64_t(kColumns) + threadIdx.x % kColumns, C = f.channels;
  const bool exists = c < C;
  const double n = double(f.count);
  double mean = 0, variance = 0, m2 = 0;
  if (f.training) {
    const auto elements = [&](int64_t b) { return double(min_of(f.chunk_elements, f.count - b * f.chunk_elements)); };
    const int64_t chunks = exists ? f.chunks.count : 0;
    mean = sum_chunks(chunks, s, [&](int64_t b) { return double(f.stats[b * 2 * C + c]) * elements(b); }) / n;
    m2 = sum_chunks(chunks, s, [&](int64_t b) {
      const double d = double(f.stats[b * 2 * C + c]) - mean;
      return double(f.stats[b * 2 * C + C + c]) + d * d * elements(b);
    });
    variance = m2 / n;
  }
  if (!exists || threadIdx.x >= kColumns) return;
  if (!f.training) {
    mean = f.running_mean.read(c, 0.0), variance = f.running_var.read(c, 1.0);
  } else if (f.running_mean.given() && f.count > 0) {
    f.running_mean.write(c, (1 - f.momentum) * f.running_mean.read(c, 0.0) + f.momentum * mean);
    f.running_var.write(c, (1 - f.momentum) * f.running_var.read(c, 0.0) + f.momentum * m2 / double(f.count - 1));
  }
  const double rstd = 1 / sqrt(variance + f.eps), w = f.weight.read(c, 1.0), b = f.bias.read(c, 0.0);
  const W center = W(mean);
  f.mean[c] = center, f.rstd[c] = W(rstd);
  f.apply[c] = center, f.apply[C + c] = W(rstd * w), f.apply[2 * C + c] = W(b - (mean - double(center)) * rstd * w);
}

template <class W>
struct BackwardChannels {
  Param weight, dweight, dbias;
  const W *mean, *rstd, *sums;
  W* apply;  // scale (C), slope (C), offset (C)
  int64_t channels, count, chunks;
  bool training;
};
template <class W>
FD_KERNEL(kColumns* kShare, 2)
batch_norm_gradient_channels_kernel(BackwardChannels<W> f) {
  ChannelStorage& s = shared_memory<ChannelStorage>();
  const int64_t c = blockIdx.x * int64_t(kColumns) + threadIdx.x % kColumns, C = f.channels;
  const bool exists = c < C;
  const int64_t chunks = exists ? f.chunks : 0;
  const double sum = sum_chunks(chunks, s, [&](int64_t b) { return double(f.sums[b * 2 * C + c]); });
  const double product = sum_chunks(chunks, s, [&](int64_t b) { return double(f.sums[b * 2 * C + C + c]); });
  if (!exists || threadIdx.x >= kColumns) return;
  const double r = double(f.rstd[c]), w = f.weight.read(c, 1.0), dw = r * product;
  const double m = f.training && f.count > 0 ? 1 / double(f.count) : 0;
  f.dweight.write(c, dw);
  f.dbias.write(c, sum);
  f.apply[c] = W(w * r), f.apply[C + c] = W(-w * r * r * dw * m), f.apply[2 * C + c] = W(-w * r * sum * m);
}

// ---- all elements -----------------------------------------------------------------------------------------------------------
// Channel constants of a thread; aligned like the channels' packs.
template <int V, class W>
FD_DEVICE Cell<W, V> load_channels(const W* from, int64_t channel, const Cells& cells) {
  if (!cells.planes) return load_cell<V>(from + channel);
  Cell<W, V> r;
#pragma unroll
  for (int k = 0; k < V; k++) r.v[k] = from[channel];
  return r;
}

template <class T, int V>
FD_KERNEL(kThreads, 3)
batch_norm_apply_kernel(const T* x, T* y, const WideOf<T>* constants, Cells cells, Chunks chunks, Convert<T> as) {
  using W = WideOf<T>;
  constexpr int ahead = 4;
  const int64_t channel = cells.first_channel(V);
  if (channel >= cells.channels) return;
  const Cell<W, V> center = load_channels<V>(constants, channel, cells);
  const Cell<W, V> scale = load_channels<V>(constants + cells.channels, channel, cells);
  const Cell<W, V> offset = load_channels<V>(constants + 2 * cells.channels, channel, cells);
  const int64_t begin = blockIdx.y * chunks.per_chunk, end = min_of(begin + chunks.per_chunk, cells.steps);
  const int together = cells.rows_at_once();
  for (int64_t i = begin + threadIdx.x / cells.lanes; i < end; i += together * ahead) {
    Cell<T, V> cell[ahead];
#pragma unroll
    for (int j = 0; j < ahead; j++)
      if (i + j * together < end) cell[j] = load_cell<V>(x + cells.at(i + j * together, channel, V));
#pragma unroll
    for (int j = 0; j < ahead; j++)
      if (i + j * together < end) {
#pragma unroll
        for (int k = 0; k < V; k++) cell[j].v[k] = as.narrow(fma(as.wide(cell[j].v[k]) - center.v[k], scale.v[k], offset.v[k]));
        store_cell(y + cells.at(i + j * together, channel, V), cell[j]);
      }
  }
}

// ---- gradient ---------------------------------------------------------------------------------------------------------------
template <class W>
struct GradientSums {
  W sum, product;  // of g; of g (x - mean)
};
struct AddSums {
  template <class S>
  static FD_DEVICE S of(S a, S b) {
    return {a.sum + b.sum, a.product + b.product};
  }
};

// sums: per chunk sum (C), product (C)
template <class T, int V>
FD_KERNEL(kThreads, 2)
batch_sums_kernel(const T* g, const T* x, const WideOf<T>* mean, WideOf<T>* sums, Cells cells, Chunks chunks, Convert<T> as) {
  using W = WideOf<T>;
  constexpr int ahead = 4;
  const int64_t channel = cells.first_channel(V);
  const int64_t begin = blockIdx.y * chunks.per_chunk, end = min_of(begin + chunks.per_chunk, cells.steps);
  const int together = cells.rows_at_once();
  GradientSums<W> s[V] = {};
  if (channel < cells.channels) {
    const Cell<W, V> center = load_channels<V>(mean, channel, cells);
    for (int64_t i = begin + threadIdx.x / cells.lanes; i < end; i += together * ahead) {
      Cell<T, V> gc[ahead], xc[ahead];
#pragma unroll
      for (int j = 0; j < ahead; j++)
        if (i + j * together < end) {
          const int64_t at = cells.at(i + j * together, channel, V);
          gc[j] = load_cell<V>(g + at), xc[j] = load_cell<V>(x + at);
        }
#pragma unroll
      for (int j = 0; j < ahead; j++)
        if (i + j * together < end) {
#pragma unroll
          for (int k = 0; k < V; k++) {
            const W d = as.wide(gc[j].v[k]);
            s[k] = {s[k].sum + d, fma(d, as.wide(xc[j].v[k]) - center.v[k], s[k].product)};
          }
        }
    }
  }
  join_rows<AddSums>(s, cells.lanes, shared_memory<JoinStorage<GradientSums<W>, V>>().values);
  if (int(threadIdx.x) >= cells.lanes || channel >= cells.channels) return;
  sums += blockIdx.y * 2 * cells.channels + channel;
  if (cells.planes) {
#pragma unroll
    for (int k = 1; k < V; k++) s[0] = AddSums::of(s[0], s[k]);
    sums[0] = s[0].sum, sums[cells.channels] = s[0].product;
  } else {
    Cell<W, V> sum, product;
#pragma unroll
    for (int k = 0; k < V; k++) sum.v[k] = s[k].sum, product.v[k] = s[k].product;
    store_cell(sums, sum), store_cell(sums + cells.channels, product);
  }
}

// dx = g * scale + (x - mean) * slope + offset; in evaluation g * scale, without a look at x: 0 * inf is NaN.
template <class T, int V>
FD_KERNEL(kThreads, 2)
batch_norm_gradient_kernel(const T* g, const T* x, const WideOf<T>* mean, const WideOf<T>* constants, T* dx, Cells cells,
                           Chunks chunks, bool training, Convert<T> as) {
  using W = WideOf<T>;
  constexpr int ahead = sizeof(T) == 2 ? 2 : 4;
  const int64_t channel = cells.first_channel(V);
  if (channel >= cells.channels) return;
  const Cell<W, V> center = load_channels<V>(mean, channel, cells);
  const Cell<W, V> scale = load_channels<V>(constants, channel, cells);
  const Cell<W, V> slope = load_channels<V>(constants + cells.channels, channel, cells);
  const Cell<W, V> offset = load_channels<V>(constants + 2 * cells.channels, channel, cells);
  const int64_t begin = blockIdx.y * chunks.per_chunk, end = min_of(begin + chunks.per_chunk, cells.steps);
  const int together = cells.rows_at_once();
  for (int64_t i = begin + threadIdx.x / cells.lanes; i < end; i += together * ahead) {
    Cell<T, V> gc[ahead], xc[ahead];
#pragma unroll
    for (int j = 0; j < ahead; j++)
      if (i + j * together < end) {
        const int64_t at = cells.at(i + j * together, channel, V);
        gc[j] = load_cell<V>(g + at);
        if (training) xc[j] = load_cell<V>(x + at);
      }
#pragma unroll
    for (int j = 0; j < ahead; j++)
      if (i + j * together < end) {
#pragma unroll
        for (int k = 0; k < V; k++) {
          const W d = as.wide(gc[j].v[k]);
          gc[j].v[k] = as.narrow(training ? fma(d, scale.v[k], fma(as.wide(xc[j].v[k]) - center.v[k], slope.v[k], offset.v[k]))
                                          : d * scale.v[k]);
        }
        store_cell(dx + cells.at(i + j * together, channel, V), gc[j]);
      }
  }
}

// ---- rows of the table ------------------------------------------------------------------------------------------------------
struct Shape {
  int64_t channels, count, plane;
  bool planes;
};
Shape shape_of(const View& x, const Attrs& attrs) {
  Shape s{x.shape[1], x.shape[0], 1, attrs.i[1] != 0};
  for (int d = 2; d < x.ndim; d++) s.plane *= x.shape[d];
  s.count *= s.plane;
  return s;
}
Cells cells_of(const Shape& s, int V) {
  Cells c{};
  c.channels = s.channels, c.count = s.count, c.planes = s.planes;
  c.steps = s.planes ? s.count / V : s.count;
  c.by_run = division(s.planes ? max_of(1, s.plane / V) : 1, c.steps);
  c.lanes = 1;
  while (!s.planes && c.lanes < 32 && c.lanes * V < s.channels) c.lanes *= 2;
  return c;
}
dim3 grid_of(const Cells& c, const Chunks& chunks, int V) {
  return dim3(uint32_t(c.planes ? c.channels : ceil_div(c.channels, int64_t(c.lanes) * V)), uint32_t(chunks.count));
}
// Chunks of at least `rounds` loads per thread, and not more than fill a large device `fill` times.
Chunks cut(const Cells& c, int V, int rounds, int64_t fill) {
  const int64_t tiles = c.planes ? c.channels : ceil_div(c.channels, int64_t(c.lanes) * V);
  const int64_t most = max_of(1, min_of(fill / tiles, 32768)), least_steps = int64_t(kThreads / c.lanes) * rounds;
  const int64_t chunks = max_of(1, min_of(most, c.steps / least_steps)), per_chunk = max_of(1, ceil_div(c.steps, chunks));
  return {per_chunk, ceil_div(c.steps, per_chunk)};
}
Chunks reduction_chunks(const Cells& c, int V) { return cut(c, V, 16, 1024); }
Chunks element_chunks(const Cells& c, int V) { return cut(c, V, 8, 8192); }

// An upper bound for packs of any V.
int64_t most_chunks(const Shape& s, DType dtype) {
  const int pack = int(16 / itemsize(dtype));
  const Cells one = cells_of(s, 1), whole = cells_of(s, pack);
  return max_of(reduction_chunks(one, 1).count, reduction_chunks(whole, pack).count);
}
template <class T>
bool cells_are_packs(const Shape& s, std::initializer_list<const void*> addresses) {
  bool r = (s.planes ? s.plane : s.channels) % kPack<T> == 0;
  for (const void* p : addresses) r &= is_aligned(p);
  return r;
}
template <class T, class F>
void by_cell(bool packs, const F& f) {
  if (packs)
    f(std::integral_constant<int, kPack<T>>());
  else
    f(std::integral_constant<int, 1>());
}

int64_t batch_norm_workspace(const Args& a) {
  const Shape s = shape_of(a.in[0], *a.attrs);
  return (a.attrs->i[0] ? most_chunks(s, a.out[0].dtype) * 2 + 3 : 3) * s.channels * itemsize(a.out[1].dtype);
}

void batch_norm_row(const Args& a) {
  const View& in = a.in[0];
  const Shape s = shape_of(in, *a.attrs);
  const bool training = a.attrs->i[0] != 0;
  if (s.channels == 0) return;
  by_float(a.out[0].dtype, [&](auto as) {
    using T = typename decltype(as)::Type;
    using W = WideOf<T>;
    const T* x = in.ptr<const T>();
    T* y = a.out[0].ptr<T>();
    W *apply = static_cast<W*>(a.workspace), *stats = apply + 3 * s.channels;
    by_cell<T>(cells_are_packs<T>(s, {x, y}), [&](auto v) {
      constexpr int V = v.value;
      const Cells cells = cells_of(s, V);
      const Chunks chunks = reduction_chunks(cells, V), elements = element_chunks(cells, V);
      if (training && s.count > 0)
        FD_LAUNCH(a, (batch_moments_kernel<T, V>), grid_of(cells, chunks, V), kThreads, (sizeof(JoinStorage<Moments<W>, V>)), x,
                  stats, cells, chunks, as);
      const ForwardChannels<W> f{param_of(a.in[1]),
                                 param_of(a.in[2]),
                                 param_of(a.in[3]),
                                 param_of(a.in[4]),
                                 a.out[1].ptr<W>(),
                                 a.out[2].ptr<W>(),
                                 stats,
                                 apply,
                                 a.attrs->f[0],
                                 a.attrs->f[1],
                                 s.channels,
                                 s.count,
                                 chunks,
                                 chunks.per_chunk * (s.planes ? V : 1),
                                 training};
      FD_LAUNCH(a, batch_norm_channels_kernel<W>, uint32_t(ceil_div(s.channels, kColumns)), kColumns * kShare,
                sizeof(ChannelStorage), f);
      if (s.count > 0)
        FD_LAUNCH(a, (batch_norm_apply_kernel<T, V>), grid_of(cells, elements, V), kThreads, 0, x, y, apply, cells, elements, as);
    });
  });
}

int64_t batch_norm_backward_workspace(const Args& a) {
  const Shape s = shape_of(a.in[1], *a.attrs);
  return (most_chunks(s, a.out[0].dtype) * 2 + 3) * s.channels * itemsize(a.in[2].dtype);
}

void batch_norm_backward_row(const Args& a) {
  const Shape s = shape_of(a.in[1], *a.attrs);
  const bool training = a.attrs->i[0] != 0;
  if (s.channels == 0) return;
  by_float(a.out[0].dtype, [&](auto as) {
    using T = typename decltype(as)::Type;
    using W = WideOf<T>;
    const T *g = a.in[0].ptr<const T>(), *x = a.in[1].ptr<const T>();
    T* dx = a.out[0].ptr<T>();
    const W *mean = a.in[2].ptr<const W>(), *rstd = a.in[3].ptr<const W>();
    W *apply = static_cast<W*>(a.workspace), *sums = apply + 3 * s.channels;
    by_cell<T>(cells_are_packs<T>(s, {g, x, dx, mean}), [&](auto v) {
      constexpr int V = v.value;
      const Cells cells = cells_of(s, V);
      const Chunks chunks = reduction_chunks(cells, V), elements = element_chunks(cells, V);
      if (s.count > 0)
        FD_LAUNCH(a, (batch_sums_kernel<T, V>), grid_of(cells, chunks, V), kThreads, (sizeof(JoinStorage<GradientSums<W>, V>)), g,
                  x, mean, sums, cells, chunks, as);
      const BackwardChannels<W> f{
          param_of(a.in[4]), param_of(a.out[1]), param_of(a.out[2]), mean, rstd, sums, apply, s.channels, s.count, chunks.count,
          training};
      FD_LAUNCH(a, batch_norm_gradient_channels_kernel<W>, uint32_t(ceil_div(s.channels, kColumns)), kColumns * kShare,
                sizeof(ChannelStorage), f);
      if (s.count > 0)
        FD_LAUNCH(a, (batch_norm_gradient_kernel<T, V>), grid_of(cells, elements, V), kThreads, 0, g, x, mean, apply, dx, cells,
                  elements, training, as);
    });
  });
}

}  // namespace

FD_CUDA_TABLE(batch_norm) = {{OpId::batch_norm, kMaskFloat, batch_norm_row, batch_norm_workspace},
                             {OpId::batch_norm_backward, kMaskFloat, batch_norm_backward_row, batch_norm_backward_workspace},
                             {}};

}  // namespace fastdl
