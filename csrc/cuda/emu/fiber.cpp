#include "cuda/emu/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(FD_EMU_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(FD_EMU_OWN_SWITCH)
extern "C" __attribute__((visibility("hidden"))) void fastdl_emu_switch(void** save, void* load);
asm(R"(
.text
.hidden fastdl_emu_switch
.globl fastdl_emu_switch
.type fastdl_emu_switch, @function
fastdl_emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fastdl_emu_switch, . - fastdl_emu_switch
)");
#endif

namespace fastdl {
namespace emu {
namespace {
#if defined(FD_EMU_ASAN)
constexpr size_t kStackBytes = 256 * 1024;  // red zones around every variable
#else
constexpr size_t kStackBytes = 64 * 1024;
#endif
constexpr size_t kGuardBytes = 4096;
constexpr int kColors = 16, kColorBytes = 192;  // equal frames of different fibers in different cache sets
}  // namespace

Fiber* create_fiber() {
  void* p = mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    std::fputs("fastdl: no memory for the stacks of emulated CUDA threads\n", stderr);
    std::abort();
  }
  mprotect(p, kGuardBytes, PROT_NONE);
  auto* fiber = new Fiber;
  fiber->stack = static_cast<char*>(p) + kGuardBytes;
  fiber->bytes = kStackBytes;
  return fiber;
}

void reset_fiber(Fiber* fiber, int color, void (*entry)()) {
  char* top = fiber->stack + fiber->bytes - 64 - (color % kColors) * kColorBytes;
#if defined(FD_EMU_ASAN)
  __asan_unpoison_memory_region(fiber->stack, fiber->bytes);  // frames of a discarded run
  fiber->fake_stack = nullptr;
#endif
#if defined(FD_EMU_OWN_SWITCH)
  auto* sp = reinterpret_cast<uint64_t*>(top);  // 16-byte aligned; entry starts with 8 bytes pushed, as after a call
  *--sp = 0;
  *--sp = reinterpret_cast<uint64_t>(entry);
  for (int i = 0; i < 6; i++) *--sp = 0;
  fiber->sp = sp;
#else
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = fiber->stack;
  fiber->context.uc_stack.ss_size = size_t(top - fiber->stack);
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, entry, 0);
#endif
}

void switch_fiber(Fiber* from, Fiber* to) {
#if defined(FD_EMU_ASAN)
  __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->bytes);
#endif
#if defined(FD_EMU_OWN_SWITCH)
  fastdl_emu_switch(&from->sp, to->sp);
#else
  swapcontext(&from->context, &to->context);
#endif
#if defined(FD_EMU_ASAN)
  __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
#endif
}

void enter_fiber(Fiber* main) {
#if defined(FD_EMU_ASAN)
  const void* bottom;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  if (!main->stack) main->stack = static_cast<char*>(const_cast<void*>(bottom)), main->bytes = bytes;
#else
  (void)main;
#endif
}

}  // namespace emu
}  // namespace fastdl
