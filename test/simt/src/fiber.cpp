// Stacks, and the switch from one to another.
#include <sys/mman.h>

#include "internal.h"

#if !defined(__x86_64__) || defined(SIMT_UCONTEXT)
#include <ucontext.h>
#endif

namespace simt {

constexpr size_t stack_bytes = SIMT_ASAN ? 256 << 10 : 64 << 10;
constexpr size_t page = 4096;

#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)
// By hand: swapcontext makes a system call for the signal mask, which is 12 times slower end to end.
extern "C" __attribute__((visibility("hidden"))) void simt_switch(void** save, void* load);
asm(R"(
.text
.hidden simt_switch
.globl simt_switch
.type simt_switch,@function
simt_switch:
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
.size simt_switch,.-simt_switch
)");
void prepare(Fiber& f) {  // the first switch "returns" into fiber_main
  void** sp = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(&f) & ~uintptr_t(15));
  *--sp = nullptr;
  *--sp = reinterpret_cast<void*>(&fiber_main);
  for (int i = 0; i < 6; ++i) *--sp = nullptr;
  f.sp = sp;
}
#else
static void simt_switch(void** save, void* load) {
  ucontext_t here;
  *save = &here;
  swapcontext(&here, static_cast<ucontext_t*>(load));
}
void prepare(Fiber& f) {
  static auto& first = *new std::map<Fiber*, ucontext_t>;
  ucontext_t& u = first[&f];
  getcontext(&u);
  u.uc_stack.ss_sp = f.low;
  u.uc_stack.ss_size = size_t(reinterpret_cast<char*>(&f) - f.low);
  u.uc_link = nullptr;
  makecontext(&u, fiber_main, 0);
  f.sp = &u;
}
#endif

void arrived_on_fiber() {
#if SIMT_ASAN
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(current()->fake_stack, &bottom, &size);
  if (!engine.main_stack) engine.main_stack = bottom, engine.main_stack_bytes = size;
#endif
}

void switch_to(Fiber* to) {
  Fiber* from = current();
  if (to == from) return;
  ++engine.stats.switches;
  self = &to->info;
#if SIMT_ASAN
  __sanitizer_start_switch_fiber(&from->fake_stack, to->low, size_t(to->high - to->low));
#endif
  simt_switch(&from->sp, to->sp);
  arrived_on_fiber();
}

void switch_to_main() {
  Fiber* from = current();
  self = nullptr;
#if SIMT_ASAN
  __sanitizer_start_switch_fiber(&from->fake_stack, engine.main_stack, engine.main_stack_bytes);
#endif
  simt_switch(&from->sp, engine.main_sp);
  arrived_on_fiber();
}

void enter_from_main(Fiber* to) {
  self = &to->info;
#if SIMT_ASAN
  void* fake = nullptr;
  engine.main_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake, to->low, size_t(to->high - to->low));
#endif
  simt_switch(&engine.main_sp, to->sp);
#if SIMT_ASAN
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void build_fibers(Block& b, unsigned threads, bool reset) {
  while (b.pool.size() < threads) {
    void* memory = mmap(nullptr, page + stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("no memory for a fiber's stack");
    char* low = static_cast<char*>(memory);
    mprotect(low, page, PROT_NONE);  // overflow traps
    char* high = low + page + stack_bytes;
    // The hot ends of the stacks must not all fall into the same cache sets: 2 to 3 times slower.
    high -= b.pool.size() % 29 * 128;
    auto* f = new (high - (sizeof(Fiber) + 63) / 64 * 64) Fiber;
    f->low = low + page;
    f->high = high;
    f->index = unsigned(b.pool.size());
    f->block = &b;
    prepare(*f);
    b.pool.push_back(f);
  }
  if (reset)
    for (Fiber* f : b.pool) {
#if SIMT_ASAN
      __asan_unpoison_memory_region(f->low, size_t(f->high - f->low));
#endif
      f->fake_stack = nullptr;
      prepare(*f);
    }
  b.fibers.assign(b.pool.begin(), b.pool.begin() + threads);
  for (Fiber* f : b.fibers) {
    f->lane = f->index % 32;
    f->warp = &b.warp[f->index / 32];
    f->warp->block = &b;
    f->warp->index = f->index / 32;
    f->warp->fiber[f->lane] = f;
  }
}

}  // namespace simt
