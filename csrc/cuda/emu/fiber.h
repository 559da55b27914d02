// Fibers: stacks of their own between which the emulator switches by hand. On x86-64 a switch saves the six callee-saved registers
// of the System V ABI and the stack pointer, 12 ns; elsewhere ucontext does it.
#pragma once
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define FD_EMU_ASAN 1
#endif
#if defined(__x86_64__) && !defined(FASTDL_EMU_UCONTEXT)
#define FD_EMU_OWN_SWITCH 1
#else
#include <ucontext.h>
#endif

namespace fastdl {
namespace emu {

struct Fiber {
  char* stack = nullptr;  // lowest address; the page below is a guard
  size_t bytes = 0;
#if defined(FD_EMU_OWN_SWITCH)
  void* sp = nullptr;
#else
  ucontext_t context;
#endif
  void* fake_stack = nullptr;  // of AddressSanitizer
};

Fiber* create_fiber();                                       // with a stack, to be reset before use; lives as long as the process
void reset_fiber(Fiber* fiber, int color, void (*entry)());  // the next switch to it calls entry, which never returns
void switch_fiber(Fiber* from, Fiber* to);
void enter_fiber(Fiber* main);  // first thing in entry: completes the switch; main is whom to return to

}  // namespace emu
}  // namespace fastdl
