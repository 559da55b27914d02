// What the checker (checker.cpp) is told by the rest of the emulator. In plain builds there is none and all of this is nothing.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace fastdl {
namespace emu {

struct Copy;

#if defined(FASTDL_EMU_CHECK)
void checker_begin_launch();
std::string checker_end_launch();  // the faults, a line each
void checker_begin_block();
void checker_end_block();
void checker_block_barrier();
void checker_named_barrier(const uint32_t* lanes);  // of each warp
void checker_warp_barrier(uint32_t lanes);          // of the current warp
void checker_access(const void* p, size_t bytes, bool write, const void* pc);
void checker_atomic(const void* p, size_t bytes, const void* pc);
void checker_copy_started(const Copy& copy, const void* pc);
void checker_copy_finished(const Copy& copy);
void checker_allocated(const void* arena, size_t arena_bytes, const void* p, size_t bytes);
void checker_freed(const void* p, size_t bytes);
void checker_copied(void* to, const void* from, size_t bytes, bool from_device);  // by the host; from null: set
#else
inline void checker_begin_launch() {}
inline std::string checker_end_launch() { return {}; }
inline void checker_begin_block() {}
inline void checker_end_block() {}
inline void checker_block_barrier() {}
inline void checker_named_barrier(const uint32_t*) {}
inline void checker_warp_barrier(uint32_t) {}
inline void checker_access(const void*, size_t, bool, const void*) {}
inline void checker_atomic(const void*, size_t, const void*) {}
inline void checker_copy_started(const Copy&, const void*) {}
inline void checker_copy_finished(const Copy&) {}
inline void checker_allocated(const void*, size_t, const void*, size_t) {}
inline void checker_freed(const void*, size_t) {}
inline void checker_copied(void*, const void*, size_t, bool) {}
#endif

}  // namespace emu
}  // namespace fastdl
