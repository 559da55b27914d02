// Sums that stay in registers, for the loops in which kernels spend their time: unrolling by constant indices, and multiply-adds
// that GCC neither moves elsewhere nor spills.
//
// A core of most servers is shared by two hardware threads, so the other one may take half of the instructions that it starts per
// cycle. A loop of multiply-adds then runs as fast as it has few instructions beside them, however idle the multipliers are.
#pragma once
#include <utility>

#include "cpu/vec/vec.h"

// As FD_KEEP_VECTOR, and in the order of the program among others of its kind: GCC would load operands of many steps first, run
// out of registers and keep sums in memory.
#if defined(FASTDL_EMULATE_ISA)
#define FD_IN_ORDER(x) asm volatile("" : "+m"(x))  // wider than registers are
#elif defined(__x86_64__)
#define FD_IN_ORDER(x) asm volatile("" : "+v"(x))
#else
#define FD_IN_ORDER(x) asm volatile("" : "+w"(x))
#endif

namespace fastdl {
namespace {

// An index that is a constant. Not the library's, whose conversion would be a weak symbol where nothing is inlined.
template <int I>
struct Index {
  FD_INLINE constexpr operator int() const { return I; }
};
template <class F, int... I>
FD_INLINE void unroll_indices(std::integer_sequence<int, I...>, F f) {
  (f(Index<I>()), ...);
}

// f(0), ..., f(N - 1), each index a type of its own. f: an always_inline lambda. A pragma is not enough where the body comes more
// than once: GCC then keeps arrays that it indexes in memory.
template <int N, class F>
FD_INLINE void unroll(F f) {
  unroll_indices(std::make_integer_sequence<int, N>(), f);
}

// sum += a * b in the register of sum. Left to choose, GCC puts the result in that of a or b and copies it back later.
template <class T>
FD_INLINE void add_product(Vec<T>& sum, Vec<T> a, Vec<T> b) {
#if defined(__FMA__) && !defined(FASTDL_EMULATE_ISA)
  if constexpr (sizeof(T) == 4)
    asm("vfmadd231ps %2, %1, %0" : "+v"(sum.v) : "v"(a.v), "v"(b.v));
  else
    asm("vfmadd231pd %2, %1, %0" : "+v"(sum.v) : "v"(a.v), "v"(b.v));
#else
  sum = fma(a, b, sum);
#endif
}

// One step of a register tile: sums[i][j] += A[i] * B[j], for one element of A per row, at address(i), and NV vectors of B that lie
// side by side. address: an always_inline lambda of an Index.
template <class T, int MR, int NV, class Address>
FD_INLINE void add_outer(Vec<T> (&sums)[MR][NV], const char* b, Address address) {
  constexpr int lanes = Vec<T>::size;
  Vec<T> bv[NV];
  unroll<NV>([&](auto j) __attribute__((always_inline)) {
    bv[j] = load(reinterpret_cast<const T*>(b) + j * lanes);
    FD_IN_ORDER(bv[j].v);
  });
  unroll<MR>([&](auto i) __attribute__((always_inline)) {
    Vec<T> av(*reinterpret_cast<const T*>(address(i)));
    if (NV > 1) FD_IN_ORDER(av.v);
    unroll<NV>([&](auto j) __attribute__((always_inline)) {
      if (NV > 1)
        add_product(sums[i][j], av, bv[j]);
      else
        sums[i][j] = fma(av, bv[j], sums[i][j]);  // the broadcast may be its operand
    });
  });
}

}  // namespace
}  // namespace fastdl
