// The compiler's instrumentation interface, and file:line of an address.
//
// Kernel sources are compiled with -fsanitize=thread, which makes the compiler call __tsan_read4(address) and so on before
// every load and store. libtsan is not linked: the functions are defined here.
#include <link.h>
#include <unistd.h>

#include "check.h"

namespace simt {

static int find_module(dl_phdr_info* info, size_t, void* out) {
  Module& m = *static_cast<Module*>(out);
  const char *first = nullptr, *last = nullptr;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    const char* from = reinterpret_cast<const char*>(info->dlpi_addr + segment.p_vaddr);
    if (!first || from < first) first = from;
    if (!last || from + segment.p_memsz > last) last = from + segment.p_memsz;
  }
  const char* me = reinterpret_cast<const char*>(&find_module);
  if (!first || me < first || me >= last) return 0;
  m.first = first;
  m.last = last;
  m.base = reinterpret_cast<const char*>(info->dlpi_addr);
  m.path = info->dlpi_name && *info->dlpi_name ? info->dlpi_name : "/proc/" + std::to_string(getpid()) + "/exe";
  return 1;
}
const Module& module() {
  static const Module& found = *[] {
    auto* m = new Module;
    dl_iterate_phdr(find_module, m);
    return m;
  }();
  return found;
}
uint32_t offset_of(const void* pc) { return uint32_t(static_cast<const char*>(pc) - module().base); }

std::string where(uint32_t pc) {
  char line[512] = "?";
  char address[32];
  snprintf(address, sizeof address, "0x%x", pc - 1);
  if (FILE* f = popen(("addr2line -s -e '" + module().path + "' " + address + " 2>/dev/null").c_str(), "r")) {
    if (fgets(line, sizeof line, f)) line[strcspn(line, "\n")] = 0;
    pclose(f);
  }
  return line;
}

void note_access(const void* p, size_t bytes, Access kind, const void* pc) {
  // Host code is instrumented too, and other OS threads may run it meanwhile.
  if (!self || engine.failing || engine.os_thread != __builtin_thread_pointer()) return;
  Fiber& f = *current();
  const char* a = static_cast<const char*>(p);
  if (a >= f.low && a < f.high) return;                  // own stack and ThreadInfo
  if (a >= module().first && a < module().last) return;  // constants, slot descriptors
  const char* args = static_cast<char*>(engine.args);
  if (a >= args && a < args + engine.args_bytes) return;
  ++engine.stats.accesses;
  if (engine.config.check) check_access(f, reinterpret_cast<uintptr_t>(p), bytes, kind, offset_of(pc));
  if (engine.config.preempt && random64() % engine.config.preempt == 0) {
    ++engine.stats.preemptions;
    yield_random();
  }
}

}  // namespace simt

#define SIMT_HOOK(name, bytes, kind) \
  void name(void* p) { simt::note_access(p, bytes, simt::Access::kind, __builtin_return_address(0)); }
#define SIMT_HOOKS(bytes)                                \
  SIMT_HOOK(__tsan_read##bytes, bytes, read)             \
  SIMT_HOOK(__tsan_write##bytes, bytes, write)           \
  SIMT_HOOK(__tsan_unaligned_read##bytes, bytes, read)   \
  SIMT_HOOK(__tsan_unaligned_write##bytes, bytes, write) \
  SIMT_HOOK(__tsan_volatile_read##bytes, bytes, read)    \
  SIMT_HOOK(__tsan_volatile_write##bytes, bytes, write)
#pragma GCC visibility push(hidden)
extern "C" {
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)
void __tsan_read_range(void* p, size_t n) {
  if (n) simt::note_access(p, n, simt::Access::read, __builtin_return_address(0));
}
void __tsan_write_range(void* p, size_t n) {
  if (n) simt::note_access(p, n, simt::Access::write, __builtin_return_address(0));
}
// The guard of a function's static variable, in host code.
char __tsan_atomic8_load(const volatile char* p, int) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
#pragma GCC visibility pop
