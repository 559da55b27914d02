// What -fsanitize=thread makes kernels call, GCC's and Clang's names (compiler-rt, tsan_interface.h). libtsan is not linked.
// The callbacks also run in host code of the kernel files, where nothing is checked.
#include <cstring>

#include "cuda/emu/checker.h"

using namespace fastdl::emu;

#define FD_EXPORT extern "C" __attribute__((visibility("hidden")))
#define FD_PC (static_cast<const char*>(__builtin_return_address(0)) - 1)

#define FD_ACCESS(n)                                            \
  FD_EXPORT void __tsan_read##n(void* p) {                      \
    if (!block.running) return;                                 \
    check_alignment(p, n, FD_PC);                               \
    check_access(p, n, false, false, FD_PC);                    \
  }                                                             \
  FD_EXPORT void __tsan_write##n(void* p) {                     \
    if (!block.running) return;                                 \
    check_alignment(p, n, FD_PC);                               \
    check_access(p, n, true, false, FD_PC);                     \
  }                                                             \
  FD_EXPORT void __tsan_volatile_read##n(void* p) {             \
    if (block.running) check_access(p, n, false, false, FD_PC); \
  }                                                             \
  FD_EXPORT void __tsan_volatile_write##n(void* p) {            \
    if (block.running) check_access(p, n, true, false, FD_PC);  \
  }                                                             \
  FD_EXPORT void __tsan_unaligned_read##n(void* p) {            \
    if (block.running) check_access(p, n, false, false, FD_PC); \
  }                                                             \
  FD_EXPORT void __tsan_unaligned_write##n(void* p) {           \
    if (block.running) check_access(p, n, true, false, FD_PC);  \
  }
FD_ACCESS(1)
FD_ACCESS(2)
FD_ACCESS(4)
FD_ACCESS(8)
FD_ACCESS(16)

FD_EXPORT void __tsan_read_range(void* p, size_t n) {
  if (block.running) check_access(p, n, false, false, FD_PC);
}
FD_EXPORT void __tsan_write_range(void* p, size_t n) {
  if (block.running) check_access(p, n, true, false, FD_PC);
}
// Clang's names for what GCC leaves as calls of the C library.
FD_EXPORT void* __tsan_memcpy(void* to, const void* from, size_t n) {
  if (block.running && n) check_access(from, n, false, false, FD_PC), check_access(to, n, true, false, FD_PC);
  return std::memcpy(to, from, n);
}
FD_EXPORT void* __tsan_memmove(void* to, const void* from, size_t n) {
  if (block.running && n) check_access(from, n, false, false, FD_PC), check_access(to, n, true, false, FD_PC);
  return std::memmove(to, from, n);
}
FD_EXPORT void* __tsan_memset(void* to, int value, size_t n) {
  if (block.running && n) check_access(to, n, true, false, FD_PC);
  return std::memset(to, value, n);
}
FD_EXPORT void __tsan_init() {}
FD_EXPORT void __tsan_func_entry(void*) {}
FD_EXPORT void __tsan_func_exit() {}
FD_EXPORT void __tsan_vptr_update(void*, void*) {}
FD_EXPORT void __tsan_vptr_read(void*) {}
// Guards of static variables in host code.
FD_EXPORT uint8_t __tsan_atomic8_load(const volatile uint8_t* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
FD_EXPORT uint32_t __tsan_atomic32_load(const volatile uint32_t* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
FD_EXPORT uint64_t __tsan_atomic64_load(const volatile uint64_t* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
