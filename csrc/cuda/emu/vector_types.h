// CUDA's small vector types and dim3 for g++, with the alignment that device code relies on (CUDA C++ Programming Guide, "Built-in
// Vector Types").
#pragma once

#define FD_EMU_VECTORS(type, scalar, align2, align4)                                \
  struct type##1 { scalar x; };                                                     \
  struct alignas(align2) type##2 { scalar x, y; };                                  \
  struct type##3 { scalar x, y, z; };                                               \
  struct alignas(align4) type##4 { scalar x, y, z, w; };                            \
  inline type##2 make_##type##2(scalar x, scalar y) { return {x, y}; }              \
  inline type##3 make_##type##3(scalar x, scalar y, scalar z) { return {x, y, z}; } \
  inline type##4 make_##type##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
FD_EMU_VECTORS(char, signed char, 2, 4)
FD_EMU_VECTORS(uchar, unsigned char, 2, 4)
FD_EMU_VECTORS(short, short, 4, 8)
FD_EMU_VECTORS(ushort, unsigned short, 4, 8)
FD_EMU_VECTORS(int, int, 8, 16)
FD_EMU_VECTORS(uint, unsigned, 8, 16)
FD_EMU_VECTORS(longlong, long long, 16, 16)
FD_EMU_VECTORS(ulonglong, unsigned long long, 16, 16)
FD_EMU_VECTORS(float, float, 8, 16)
FD_EMU_VECTORS(double, double, 16, 16)
#undef FD_EMU_VECTORS

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};
