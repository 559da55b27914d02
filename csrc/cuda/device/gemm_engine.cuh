// The engine of every matrix product: what a block does from its number to its results, whatever the operands (a form,
// gemm_load.cuh and conv_load.cuh) and the arithmetic (a Math, gemm_ffma.cuh and gemm_mma.cuh).
//
// Tiles of A and B of kDepth along k go through a ring of stages in shared memory. With asynchronous copies, kStages - 1 tiles are
// on their way while one is multiplied, and no register holds them; else two stages, with the next tile in registers meanwhile.
// (what is stored as it lies in memory may still be copied). Either way one barrier per tile. Partial sums of a split k go to the
// workspace, and gemm_add_parts adds them in order.
#pragma once
#include "cuda/device/epilogue.cuh"
#include "cuda/device/gemm_load.cuh"

namespace fastdl {
namespace {

// The results pass through shared memory, kBandRows rows at a time, so that they are stored as whole rows. 32 bytes after a row
// keep the writes of a warp, which are some rows by some columns, from bank conflicts.
template <class Math>
struct ResultBand {
  using T = typename Math::Sum;
  static constexpr int kPitch = Math::kN + 32 / sizeof(T);
  T v[Math::kBandRows * kPitch];
};
template <class Math, class Form>
struct GemmStorage {
  struct Stage {
    typename Math::OperandA a;
    typename Math::OperandB b;
  };
  union {
    Stage stage[Math::kStages];
    ResultBand<Math> band;
  };
  // What all threads need at the beginning and at the end; registers are dear in between.
  TilePlace place;
  typename Form::Rows rows;
  typename Math::Sum line_sum[Math::kM];
  int32_t failed;
};

template <class T>
FD_DEVICE void read_4(T* r, const T* shared) {
#pragma unroll
  for (int i = 0; i < 4; i += kPack<T>) {
    const auto x = load_16<Pack<T>>(shared + i);
#pragma unroll
    for (int j = 0; j < kPack<T>; j++) r[i + j] = x.v[j];
  }
}

// A whole chunk or, where nothing exists, zeros; only asynchronous copies can cut chunks short.
template <class S, int kVector>
FD_DEVICE void read_chunk(S (&r)[kVector], const Chunk<S>& from) {
#pragma unroll
  for (int i = 0; i < kVector; i += kPack<S>) {
    Pack<S> x = {};
    if (from.count > 0) x = load_16<Pack<S>>(from.p + i);
#pragma unroll
    for (int j = 0; j < kPack<S>; j++) r[i + j] = x.v[j];
  }
}

template <class Map, class Loader, class S, class Operand>
FD_DEVICE void copy_tile(Loader& from, const S* any, Operand& to, int thread) {
  const int line = Map::line(from.walk(), thread), k = Map::k(from.walk(), thread);
#pragma unroll
  for (int i = 0; i < Map::kChunks; i++) {
    const Chunk<S> c = from.chunk(i);
    copy_async_16(to.slot(line + i * Map::line_step(from.walk()), k + i * Map::k_step(from.walk())), c.count > 0 ? c.p : any,
                  c.count * int(sizeof(S)));
  }
  from.advance();
}

// The next tile on its way: in registers until the stage is free, or copied into the stage at once.
template <class S, class Map, bool kCopied>
struct NextTile {
  S v[kCopied ? 1 : Map::kChunks][Map::kVector];

  template <class Loader, class Operand>
  FD_DEVICE void start(Loader& from, const S* any, Operand& to, int thread) {
    if constexpr (kCopied) {
      copy_tile<Map>(from, any, to, thread);
    } else {
#pragma unroll
      for (int i = 0; i < Map::kChunks; i++) {
        if (from.whole())
          read_chunk(v[i], from.chunk(i));
        else
          from.gather(i, v[i]);
      }
      from.advance();
    }
  }
  template <class Operand>
  FD_DEVICE void finish(Operand& to, ChunkOrder walk, int thread) const {
    if constexpr (!kCopied) {
      const int line = Map::line(walk, thread), k = Map::k(walk, thread);
#pragma unroll
      for (int i = 0; i < Map::kChunks; i++) to.put(line + i * Map::line_step(walk), k + i * Map::k_step(walk), walk, v[i]);
    }
  }
};

// All tiles along k through the stages; multiply(stage) is called for each.
template <class Math, class MapA, class MapB, class Form, class LoadA, class LoadB, class F>
FD_DEVICE void go_along_k(const Form& form, GemmStorage<Math, Form>& s, LoadA& load_a, LoadB& load_b, int32_t steps,
                          const F& multiply) {
  using S = typename Form::Element;
  const int thread = threadIdx.x;
  if constexpr (Math::kAsync) {
    constexpr int kAhead = Math::kStages - 1;
    static_assert((Math::kStages & kAhead) == 0, "a power of two");
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      if (i < steps) {
        copy_tile<MapA>(load_a, form.any_a(), s.stage[i].a, thread);
        copy_tile<MapB>(load_b, form.any_b(), s.stage[i].b, thread);
      }
      copy_async_commit();
    }
    for (int32_t step = 0; step < steps; step++) {
      copy_async_wait<kAhead - 1>();
      sync_block();  // the tile is here for all, and everyone has left the stage of the tile before
      if (step + kAhead < steps) {
        auto& next = s.stage[(step + kAhead) % Math::kStages];
        copy_tile<MapA>(load_a, form.any_a(), next.a, thread);
        copy_tile<MapB>(load_b, form.any_b(), next.b, thread);
      }
      copy_async_commit();
      multiply(s.stage[step % Math::kStages]);
    }
    copy_async_wait<0>();
  } else {
    NextTile<S, MapA, Math::kCopyA> next_a;
    NextTile<S, MapB, Math::kCopyB> next_b;
    if (steps > 0) {
      next_a.start(load_a, form.any_a(), s.stage[0].a, thread);
      next_b.start(load_b, form.any_b(), s.stage[0].b, thread);
    }
    for (int32_t step = 0; step < steps; step++) {
      auto &stage = s.stage[step % 2], &other = s.stage[(step + 1) % 2];
      next_a.finish(stage.a, load_a.walk(), thread);
      next_b.finish(stage.b, load_b.walk(), thread);
      if constexpr (Math::kCopyA || Math::kCopyB) {
        copy_async_commit();
        copy_async_wait<0>();
      }
      sync_block();  // also: everyone has left the other stage
      if (step + 1 < steps) {
        next_a.start(load_a, form.any_a(), other.a, thread);
        next_b.start(load_b, form.any_b(), other.b, thread);
      }
      multiply(stage);
    }
  }
}

template <class Math, class Form>
FD_KERNEL(Math::kThreads, Math::kBlocksPerSm)
gemm(const Form form) {
  auto& s = shared_memory<GemmStorage<Math, Form>>();
  using T = typename Math::Sum;
  using MapA = ChunkMap<Math::kM, Math::kDepth, Math::kThreads, Math::kVector>;
  using MapB = ChunkMap<Math::kN, Math::kDepth, Math::kThreads, Math::kVector>;
  const int thread = threadIdx.x;
  const GemmTiling& g = form.tiling;
  const TilePlace& t = s.place;
  const auto& rows = s.rows;
  if (thread == 0) {
    s.place = place_of(g, int32_t(blockIdx.x));
    s.rows = form.find_rows(s.place);
    s.failed = 0;
  }
  sync_block();
  if (int64_t(t.row) * Math::kM >= rows.count(form)) return;

  Math math(thread);
  // Once; and once more, with the plain arithmetic, where the fast one could not do with the numbers it met.
#pragma unroll 1
  for (bool plain = false;; plain = true) {
    typename Form::template LoadA<MapA, Math::kLoadA> load_a;
    typename Form::template LoadB<MapB, Math::kLoadB> load_b;
    form.begin(t, rows, int64_t(t.row) * Math::kM, int64_t(t.column) * Math::kN, load_a, load_b, thread);
    if (thread < Math::kM) s.line_sum[thread] = T(0);
    const int32_t steps = int32_t(ceil_div(max_of(t.k1 - t.k0, 0), Math::kDepth));
    go_along_k<Math, MapA, MapB>(form, s, load_a, load_b, steps, [&](auto& stage) {
      math.multiply(stage.a, stage.b, plain);
      if (form.out.line_sums && t.column == 0 && thread < Math::kM) {
        T sum = s.line_sum[thread];
#pragma unroll 1
        for (int k = 0; k < Math::kDepth; k++) sum += T(wide(*stage.a.at(k, thread)));
        s.line_sum[thread] = sum;
      }
    });
    if constexpr (Math::kMayFail) {
      if (!plain) {
        if (math.failed()) atomic_max(&s.failed, 1);
        sync_block();
        if (s.failed) {
          math.clear();
          sync_block();
          continue;
        }
      }
    }
    break;
  }

  const int64_t part = t.split * g.z + t.z, m0 = int64_t(t.row) * Math::kM, n0 = int64_t(t.column) * Math::kN;
  if (form.out.line_sums && t.column == 0 && thread < Math::kM && m0 + thread < rows.count(form)) {
    if (form.partial)
      static_cast<T*>(form.partial)[g.splits * g.z * g.m * g.n + part * g.m + m0 + thread] = s.line_sum[thread];
    else
      store_float(form.out.line_sums, form.out.dtype, t.z * g.m + m0 + thread, s.line_sum[thread]);
  }
  T* const band = s.band.v;
  constexpr int kPitch = ResultBand<Math>::kPitch, kRuns = Math::kN / 4;
#pragma unroll 1
  for (int first = 0; first < Math::kM; first += Math::kBandRows) {
    sync_block();
    math.write(band, kPitch, first);
    sync_block();
#pragma unroll 1
    for (int i = thread; i < Math::kBandRows * kRuns; i += Math::kThreads) {
      const int64_t m = m0 + first + i / kRuns, n = n0 + i % kRuns * 4;
      const int count = m < rows.count(form) ? int(max_of(min_of(g.n - n, 4), 0)) : 0;
      if (count == 0) continue;
      T* const at = band + i / kRuns * kPitch + i % kRuns * 4;
      const bool costly = form.out.activation > 1 && !form.partial;
      if (costly) {  // one by one, so that the code is there once and takes few registers
#pragma unroll 1
        for (int e = 0; e < count; e++) at[e] = activate(at[e] + bias_of<T>(form.out, t.z, n + e), form.out.activation);
      }
      T v[4];
      read_4(v, at);
      if (form.partial) {
        store_4(form.partial, kDType<T>, (part * g.m + m) * g.n + n, v, count, g.n % 4 == 0);
        continue;
      }
      if (!costly) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          if (e < count) v[e] += bias_of<T>(form.out, t.z, n + e);
          if (form.out.activation) v[e] = relu(v[e]);
        }
      }
      store_4(form.out.out, form.out.dtype, rows.offset(form, t.z, m) + n, v, count, form.vector_out);
    }
  }
}

// Adds the sums of parts in their order and finishes them; those of lines, which lie behind, likewise.
template <class T, class Form>
FD_KERNEL(256, 4)
gemm_add_parts(const Form form) {
  const GemmTiling& g = form.tiling;
  const T* partial = static_cast<const T*>(form.partial);
  const int64_t size = g.z * g.m * g.n, sums = form.out.line_sums ? g.z * g.m : 0;
  for (int64_t i = blockIdx.x * int64_t(256) + threadIdx.x; i < size + sums; i += gridDim.x * int64_t(256)) {
    const bool is_sum = i >= size;
    const T* p = is_sum ? partial + g.splits * size + (i - size) : partial + i;
    const int64_t step = is_sum ? g.z * g.m : size;
    T total = T(0);
    for (int64_t part = 0; part < g.splits; part++) total += p[part * step];
    if (is_sum) {
      store_float(form.out.line_sums, form.out.dtype, i - size, total);
      continue;
    }
    const int64_t row = i / g.n, n = i - row * g.n, z = row / g.m, m = row - z * g.m;
    const int64_t at = form.part_offset(z, m, n);  // < 0: a row that this product lacks
    if (at < 0) continue;
    total = activate(total + bias_of<T>(form.out, z, n), form.out.activation);
    store_float(form.out.out, form.out.dtype, at, total);
  }
}

// Host: launches the engine for all products, and the addition of parts where there are several.
template <class Math, class Form>
void launch_gemm(const Args& a, Form form) {
  using T = typename Math::Sum;
  GemmTiling& g = form.tiling;
  const int64_t per_product = g.tiles_m * g.tiles_n, most = max_of(1, kMaxGrid / (per_product * g.splits));
  g.per_product = make_divisor(per_product);
  g.per_band = make_divisor(kTileBand * g.tiles_n);
  g.per_z = make_divisor(g.splits);
  for (g.first_z = 0; g.first_z < g.z; g.first_z += most) {
    const int64_t blocks = min_of(most, g.z - g.first_z) * g.splits * per_product;
    FD_LAUNCH(a, (gemm<Math, Form>), uint32_t(blocks), Math::kThreads, sizeof(GemmStorage<Math, Form>), form);
  }
  if (form.partial) FD_LAUNCH(a, (gemm_add_parts<T, Form>), stride_grid(a.device, g.z * g.m * (g.n + 1), 256), 256, 0, form);
}

}  // namespace
}  // namespace fastdl
