// batch_norm and its backward pass over x (N, C, ...), one mean and variance per channel.
//
// Memory is either channels-last, seen as R rows of C channels (vectors over C), or row-major, seen as N * C planes (vectors along
// the plane); inference chooses. Statistics: each block of rows (or each plane) gives its exact mean and sum of squared deviations
// by two passes over data that lie in cache; blocks are combined in double, in order (Chan, Golub, LeVeque 1979: M2 = sum M2_b +
// n_b (mean_b - mean)^2). So E[x^2] - E[x]^2 is never formed, and results do not depend on the number of threads.
//
// A pass over all memory for the sums and one for the result read it twice. Channels of row-major memory that fit the second-level
// cache are finished one after the other instead: same sums, same order, but the second reading finds them in the cache.
#include "cpu/isa/norm.h"

namespace fastdl {
namespace {

// The input seen by both layouts; slots i1 .. i3 are filled in by inference.
struct Batch {
  int64_t channels, rows, plane;  // rows = elements per channel; plane = elements per (n, c)
  int64_t block_rows, blocks;     // of statistics; planes: one block per n
  bool planes;

  Batch(const View& x, const Attrs& a) : channels(x.shape[1]), rows(x.shape[0]), plane(1), block_rows(a.i[2]), planes(a.i[1]) {
    for (int i = 2; i < x.ndim; i++) plane *= x.shape[i];
    rows *= plane;
    if (planes) block_rows = plane;
    blocks = rows == 0 ? 0 : ceil_div(rows, block_rows);
  }
  int64_t block_size(int64_t b) const { return min_of(block_rows, rows - b * block_rows); }
  // Is a channel finished at once by the thread that read its `bytes` per element? Where there are channels enough to share out.
  bool channel_stays(int64_t bytes) const {
    return planes && rows * bytes <= kChannelBytes && (num_threads() == 1 || channels >= 8 * num_threads());
  }
  static constexpr int64_t kChannelBytes = 1 << 20;
  template <class T>
  Result<T> result(T* to) const {
    return {to, rows * channels, planes ? plane : channels};
  }
};

constexpr int64_t kChannelGroup = 512;  // channels per task of the statistics pass

// f(block, first channel, end channel) over blocks of rows and groups of channels.
template <class F>
void for_blocks(const Batch& s, F&& f) {
  const int64_t groups = ceil_div(s.channels, kChannelGroup);
  parallel_chunks(s.blocks * groups, [&](int64_t task) {
    const int64_t c = task % groups * kChannelGroup;
    piece_work(s.block_size(task / groups) * (min_of(s.channels, c + kChannelGroup) - c), kRowPiece / 8);
    f(task / groups, c, min_of(s.channels, c + kChannelGroup));
  });
}

// f(first plane, end plane) over row-major planes.
template <class F>
void for_planes(const Batch& s, F&& f) {
  parallel_for(s.blocks * s.channels, row_grain(s.plane), f);
}

// f(first channel, n) over channels in fixed pieces of at most 64, for the work on per-channel sums.
constexpr int kPiece = 64;
template <class F>
void for_pieces(const Batch& s, F&& f) {
  parallel_for(ceil_div<int64_t>(s.channels, kPiece), row_grain(s.blocks * kPiece), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin * kPiece; c < min_of(end * kPiece, s.channels); c += kPiece)
      f(c, int(min_of<int64_t>(kPiece, s.channels - c)));
  });
}

// Channels that stay in the cache, some at a time: first(plane) for all their planes, combine(first channel, n), last(plane).
template <class First, class Combine, class Last>
void for_whole_channels(const Batch& s, bool past, const First& first, const Combine& combine, const Last& last) {
  parallel_for(s.channels, row_grain(s.rows), [&](int64_t begin, int64_t end) {
    for (int64_t b = 0; b < s.blocks; b++)
      for (int64_t c = begin; c < end; c++) first(b * s.channels + c);
    for (int64_t c = begin; c < end; c += kPiece) combine(c, int(min_of<int64_t>(kPiece, end - c)));
    for (int64_t b = 0; b < s.blocks; b++)
      for (int64_t c = begin; c < end; c++) last(b * s.channels + c);
    if (past) stream_fence();
  });
}

// Mean and M2 of plane r, and of every block: stats[block][0 or 1][channel].
template <class T>
void plane_moments(const Batch& s, const T* x, double* stats, int64_t r) {
  const auto m = moments(x + r * s.plane, s.plane);
  double* to = stats + r / s.channels * 2 * s.channels + r % s.channels;
  to[0] = double(m.center) + m.shift, to[s.channels] = m.squares;
}
template <class T>
void block_moments(const Batch& s, const T* x, double* stats) {
  using V = Vec<WideOf<T>>;
  if constexpr (sizeof(T) > 2)
    if (s.planes)
      return for_planes(s, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; r++) plane_moments(s, x, stats, r);
      });
  for_blocks(s, [&](int64_t b, int64_t c0, int64_t c1) {
    const int64_t n = s.block_size(b), ld = s.channels;
    const T* block = x + b * s.block_rows * ld + c0;
    double* to = stats + b * 2 * ld + c0;
    for_channels<V::size>(c1 - c0, [&](int64_t c, int lanes, auto count) {
      constexpr int k = decltype(count)::value;
      V center[k], shift[k], squares[k];
      for (int j = 0; j < k; j++) center[j] = shift[j] = squares[j] = V(0);
      for (int64_t r = 0; r < n; r++)
        for (int j = 0; j < k; j++) center[j] += load_n(block + r * ld + c + j * V::size, lanes);
      for (int j = 0; j < k; j++) center[j] = center[j] / V(WideOf<T>(n));
      for (int64_t r = 0; r < n; r++)
        for (int j = 0; j < k; j++) {
          const V d = load_n(block + r * ld + c + j * V::size, lanes) - center[j];
          shift[j] += d, squares[j] = fma(d, d, squares[j]);
        }
      for (int j = 0; j < k; j++) {
        WideOf<T> base[V::size], lost[V::size], squared[V::size];
        store(base, center[j]), store(lost, shift[j]), store(squared, squares[j]);
        double *mean = to + c + j * V::size, *m2 = mean + ld;
        for (int i = 0; i < lanes; i++) {
          const double e = double(lost[i]) / double(n), q = double(squared[i]) - e * e * double(n);
          mean[i] = double(base[i]) + e, m2[i] = q < 0 ? 0 : q;
        }
      }
    });
  });
}

// Runs over all elements. Rows: row(element, lanes, channel). Planes: plane(channel) gives a function of (element, lanes), so that
// per-channel constants are set up once per plane. (The copies keep captured pointers in registers: stores cannot change them.)
template <class T, class Plane>
FD_INLINE void run_plane(const Batch& s, int64_t r, const Plane& plane) {
  constexpr int size = Vec<WideOf<T>>::size;
  const int64_t length = s.plane;
  const auto f = plane(r % s.channels);
  for_channels<size>(length, [&](int64_t i, int lanes, auto count) {
    for (int k = 0; k < decltype(count)::value; k++) f(r * length + i + k * size, lanes);
  });
}
template <class T, class Row, class Plane>
void for_elements(const Batch& s, bool past, const Row& shared_row, const Plane& plane) {
  constexpr int size = Vec<WideOf<T>>::size;
  if constexpr (sizeof(T) > 2)
    if (s.planes)
      return for_planes(s, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; r++) run_plane<T>(s, r, plane);
        if (past) stream_fence();
      });
  parallel_for(s.rows, row_grain(s.channels), [&](int64_t begin, int64_t end) {
    const Row row = shared_row;
    const int64_t channels = s.channels;
    for (int64_t r = begin; r < end; r++)
      for_channels<size>(channels, [&](int64_t c, int lanes, auto count) {
        for (int k = 0; k < decltype(count)::value; k++) row(r * channels + c + k * size, lanes, c + k * size);
      });
    if (past) stream_fence();
  });
}

// y = (x - center) * scale + offset; center is the mean rounded, offset holds the rest. And what a program has put into this pass
// (plan_norms.cpp): relu, or the addition of an array and relu. run(row, plane) goes over the elements.
template <class T, class Run>
FD_INLINE void normalise(const T* x, const Result<T>& result, const WideOf<T>* center, int64_t channels, bool relu, const T* more,
                         const Run& run) {
  using V = Vec<WideOf<T>>;
  const WideOf<T>*scale = center + channels, *offset = scale + channels;
  const auto apply = [&](auto finish) {
    run(
        [=, y = result](int64_t at, int lanes, int64_t c) {
          const V v = load_n(x + at, lanes) - load_n(center + c, lanes);
          y.store(at, finish(fma(v, load_n(scale + c, lanes), load_n(offset + c, lanes)), at, lanes), lanes);
        },
        [&](int64_t c) {
          return [=, y = result, m = V(center[c]), k = V(scale[c]), o = V(offset[c])](int64_t at, int lanes) {
            y.store(at, finish(fma(load_n(x + at, lanes) - m, k, o), at, lanes), lanes);
          };
        });
  };
  if (more)
    apply([=](V v, int64_t at, int lanes) { return max(V(0), v + load_n(more + at, lanes)); });
  else if (relu)
    apply([](V v, int64_t, int) { return max(V(0), v); });
  else
    apply([](V v, int64_t, int) { return v; });
}

// The result once more, from x, center, scale and offset, and what is added (plan_recompute.cpp).
template <class T>
void normalise_again(const Args& a) {
  const Batch s(a.in[0], *a.attrs);
  const Result<T> y = s.result(a.out[0].ptr<T>());
  normalise(a.in[0].ptr<T>(), y, a.in[1].ptr<WideOf<T>>(), s.channels, a.attrs->i[3], a.nin > 2 ? a.in[2].ptr<T>() : nullptr,
            [&](const auto& row, const auto& plane) { for_elements<T>(s, y.past, row, plane); });
}

template <class T>
void batch_norm_kernel(const Args& a) {
  if (a.attrs->i[4]) return normalise_again<T>(a);
  using W = WideOf<T>;
  const View &weight = a.in[1], &bias = a.in[2], &running_mean = a.in[3], &running_var = a.in[4];
  const Batch s(a.in[0], *a.attrs);
  const bool training = a.attrs->i[0];
  const double momentum = a.attrs->f[0], eps = a.attrs->f[1];
  const T* x = a.in[0].ptr<T>();
  const Result<T> y = s.result(a.out[0].ptr<T>());
  W *mean_out = a.out[1].ptr<W>(), *rstd_out = a.out[2].ptr<W>();
  double* stats = static_cast<double*>(a.workspace);
  W* center = reinterpret_cast<W*>(stats + (training ? s.blocks * 2 * s.channels : 0));
  if (a.nout > 3) center = a.out[3].ptr<W>();  // for the gradient, see Kept, and plan_recompute.cpp
  W *scale = center + s.channels, *offset = scale + s.channels;

  const auto combine = [&](int64_t c, int n) {
    double mean[kPiece] = {}, m2[kPiece] = {};
    if (training) {
      for (int64_t b = 0; b < s.blocks; b++)
        for (int k = 0; k < n; k++) mean[k] += stats[b * 2 * s.channels + c + k] * double(s.block_size(b));
      for (int k = 0; k < n; k++) mean[k] /= double(s.rows);
      for (int64_t b = 0; b < s.blocks; b++) {
        const double *block_mean = stats + b * 2 * s.channels + c, *block_m2 = block_mean + s.channels;
        for (int k = 0; k < n; k++) {
          const double d = block_mean[k] - mean[k];
          m2[k] += block_m2[k] + d * d * double(s.block_size(b));
        }
      }
    }
    for (int k = 0; k < n; k++) {
      const int64_t i = c + k;
      const auto running = [&](const View& v, double batch) {
        if (!v.given() || s.rows == 0) return;
        const int64_t at = i * v.strides[0];
        write_param(v, at, (1 - momentum) * read_param(v, at) + momentum * batch);
      };
      if (training) {
        running(running_mean, mean[k]);
        running(running_var, m2[k] / double(s.rows - 1));
      } else {
        mean[k] = read_param(running_mean, i * running_mean.strides[0]);
      }
      const double variance = training ? m2[k] / double(s.rows) : read_param(running_var, i * running_var.strides[0]);
      const double rstd = inverse_std(variance, eps);
      const double w = weight.given() ? read_param(weight, i * weight.strides[0]) : 1;
      const double shift = bias.given() ? read_param(bias, i * bias.strides[0]) : 0;
      mean_out[i] = W(mean[k]), rstd_out[i] = W(rstd);
      center[i] = W(mean[k]), scale[i] = W(rstd * w);
      offset[i] = W(shift - (mean[k] - double(center[i])) * rstd * w);
    }
  };
  const bool at_once = training && s.channel_stays(sizeof(T));
  if (!at_once) {
    if (training) block_moments(s, x, stats);
    for_pieces(s, combine);
  }
  const auto run = [&](const auto& row, const auto& plane) {
    if constexpr (sizeof(T) > 2)
      if (at_once)
        return for_whole_channels(
            s, y.past, [&](int64_t r) { plane_moments(s, x, stats, r); }, combine, [&](int64_t r) { run_plane<T>(s, r, plane); });
    for_elements<T>(s, y.past, row, plane);
  };
  normalise(x, y, center, s.channels, a.attrs->i[3], a.nin > 5 ? a.in[5].ptr<T>() : nullptr, run);
}

// The gradient as it is; and, in a program that has put relu into batch_norm, only where y > 0. y is computed again, from x and the
// factors that batch_norm kept: that costs less than reading it.
struct All {
  template <class V, class X>
  FD_INLINE V rows(V g, X&&, int64_t, int) const {
    return g;
  }
  struct Plane {
    template <class V, class X>
    FD_INLINE V operator()(V g, X&&) const {
      return g;
    }
  };
  Plane plane(int64_t) const { return {}; }
};
template <class T>
struct Kept {
  using W = WideOf<T>;
  using V = Vec<W>;
  const W *center, *scale, *offset;
  static FD_INLINE V where(V g, V x, V m, V k, V o) { return select(fma(x - m, k, o) <= V(0), V(0), g); }
  template <class X>
  FD_INLINE V rows(V g, X&& x, int64_t c, int lanes) const {
    return where(g, x(), load_n(center + c, lanes), load_n(scale + c, lanes), load_n(offset + c, lanes));
  }
  struct Plane {
    V m, k, o;
    template <class X>
    FD_INLINE V operator()(V g, X&& x) const {
      return where(g, x(), m, k, o);
    }
  };
  Plane plane(int64_t c) const { return {V(center[c]), V(scale[c]), V(offset[c])}; }
};

// Sums of g and of g * (x - mean) of plane r, and of every block: sums[block][0 or 1][channel].
template <class T, class Mask>
void plane_gradients(const Batch& s, const T* g, const T* x, const WideOf<T>* mean, WideOf<T>* sums, const Mask& mask, int64_t r) {
  using W = WideOf<T>;
  using V = Vec<W>;
  const T *gr = g + r * s.plane, *xr = x + r * s.plane;
  const V m(mean[r % s.channels]);
  const auto keep = mask.plane(r % s.channels);
  const auto kept = [&](int64_t i, int lanes) { return keep(load_n(gr + i, lanes), [&] { return load_n(xr + i, lanes); }); };
  W* to = sums + r / s.channels * 2 * s.channels + r % s.channels;
  to[0] = W(blocked_sum<V>(s.plane, kept));
  to[s.channels] = W(blocked_sum<V>(
      s.plane, [&](int64_t i, int lanes) { return kept(i, lanes) * first_lanes(load_n(xr + i, lanes) - m, lanes); }));
}
template <class T, class Mask>
void block_gradients(const Batch& s, const T* g, const T* x, const WideOf<T>* mean, WideOf<T>* sums, const Mask& mask) {
  using W = WideOf<T>;
  using V = Vec<W>;
  if constexpr (sizeof(T) > 2)
    if (s.planes)
      return for_planes(s, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; r++) plane_gradients(s, g, x, mean, sums, mask, r);
      });
  for_blocks(s, [&](int64_t b, int64_t c0, int64_t c1) {
    const int64_t n = s.block_size(b), ld = s.channels, at = b * s.block_rows * ld + c0;
    for_channels<V::size>(c1 - c0, [&](int64_t c, int lanes, auto count) {
      constexpr int k = decltype(count)::value;
      V sum[k], product[k], m[k];
      for (int j = 0; j < k; j++) sum[j] = product[j] = V(0), m[j] = load_n(mean + c0 + c + j * V::size, lanes);
      for (int64_t r = 0; r < n; r++)
        for (int j = 0; j < k; j++) {
          const int64_t e = at + r * ld + c + j * V::size;
          const V xv = load_n(x + e, lanes);
          const V gv = mask.rows(load_n(g + e, lanes), [&] { return xv; }, c0 + c + j * V::size, lanes);
          sum[j] += gv, product[j] = fma(gv, xv - m[j], product[j]);
        }
      for (int j = 0; j < k; j++) {
        W* to = sums + b * 2 * ld + c0 + c + j * V::size;
        store_n(to, sum[j], lanes), store_n(to + ld, product[j], lanes);
      }
    });
  });
}

template <class T, class Mask>
void batch_norm_gradient(const Args& a, const Batch& s, const Mask& shared) {
  using W = WideOf<T>;
  using V = Vec<W>;
  const Mask mask = shared;
  const View& weight = a.in[4];
  const bool training = a.attrs->i[0];
  const T *g = a.in[0].ptr<T>(), *x = a.in[1].ptr<T>();
  const W *mean = a.in[2].ptr<W>(), *rstd = a.in[3].ptr<W>();
  const Result<T> dx = s.result(a.out[0].ptr<T>());
  W* sums = static_cast<W*>(a.workspace);
  // dx = g * scale + (x - mean) * slope + offset
  W *scale = sums + s.blocks * 2 * s.channels, *slope = scale + s.channels, *offset = slope + s.channels;

  const auto combine = [&](int64_t c, int n) {
    double sum[kPiece] = {}, product[kPiece] = {};
    for (int64_t b = 0; b < s.blocks; b++) {
      const W *block_sum = sums + b * 2 * s.channels + c, *block_product = block_sum + s.channels;
      for (int k = 0; k < n; k++) sum[k] += double(block_sum[k]), product[k] += double(block_product[k]);
    }
    for (int k = 0; k < n; k++) {
      const int64_t i = c + k;
      const double r = double(rstd[i]), w = weight.given() ? read_param(weight, i * weight.strides[0]) : 1;
      const double dw = r * product[k], db = sum[k], m = training && s.rows ? 1 / double(s.rows) : 0;
      write_param(a.out[1], i, dw);
      write_param(a.out[2], i, db);
      scale[i] = W(w * r), slope[i] = W(-w * r * r * dw * m), offset[i] = W(-w * r * db * m);
    }
  };
  const auto apply = [&](const auto& row, const auto& plane) {
    if constexpr (sizeof(T) > 2)
      if (s.channel_stays(2 * sizeof(T)))
        return for_whole_channels(
            s, dx.past, [&](int64_t r) { plane_gradients(s, g, x, mean, sums, mask, r); }, combine,
            [&](int64_t r) { run_plane<T>(s, r, plane); });
    block_gradients(s, g, x, mean, sums, mask);
    for_pieces(s, combine);
    for_elements<T>(s, dx.past, row, plane);
  };
  if (!training)  // must not touch x: 0 * inf is NaN
    return apply(
        [=](int64_t at, int lanes, int64_t c) {
          const V gv = mask.rows(load_n(g + at, lanes), [&] { return load_n(x + at, lanes); }, c, lanes);
          dx.store(at, gv * load_n(scale + c, lanes), lanes);
        },
        [&](int64_t c) {
          return [=, k = V(scale[c]), keep = mask.plane(c)](int64_t at, int lanes) {
            dx.store(at, keep(load_n(g + at, lanes), [&] { return load_n(x + at, lanes); }) * k, lanes);
          };
        });
  apply(
      [=](int64_t at, int lanes, int64_t c) {
        const V xv = load_n(x + at, lanes);
        const V rest = fma(xv - load_n(mean + c, lanes), load_n(slope + c, lanes), load_n(offset + c, lanes));
        const V gv = mask.rows(load_n(g + at, lanes), [&] { return xv; }, c, lanes);
        dx.store(at, fma(gv, load_n(scale + c, lanes), rest), lanes);
      },
      [&](int64_t c) {
        return
            [=, m = V(mean[c]), k = V(scale[c]), p = V(slope[c]), o = V(offset[c]), keep = mask.plane(c)](int64_t at, int lanes) {
              const V xv = load_n(x + at, lanes);
              dx.store(at, fma(keep(load_n(g + at, lanes), [&] { return xv; }), k, fma(xv - m, p, o)), lanes);
            };
      });
}

template <class T>
void batch_norm_backward_kernel(const Args& a) {
  const Batch s(a.in[1], *a.attrs);
  if (a.nin <= 5) return batch_norm_gradient<T>(a, s, All{});
  const auto* center = a.in[5].ptr<WideOf<T>>();
  batch_norm_gradient<T>(a, s, Kept<T>{center, center + s.channels, center + 2 * s.channels});
}

}  // namespace
}  // namespace fastdl

#define FD_ROWS(op, kernel)                                                                                     \
  {OpId::op, kF32, kernel<float>}, {OpId::op, kF64, kernel<double>}, {OpId::op, kF16, kernel<::fastdl::f16>}, { \
    OpId::op, kBF16, kernel<::fastdl::bf16>                                                                     \
  }
using namespace fastdl;
FD_KERNEL_TABLE(batch_norm) = {
    FD_ROWS(batch_norm, batch_norm_kernel), FD_ROWS(batch_norm_backward, batch_norm_backward_kernel), {}};
