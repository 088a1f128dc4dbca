// What the checker knows of each piece of memory, shared by check.cpp (the checks) and report.cpp (the words, and the
// compiler's instrumentation interface).
#pragma once
#include "internal.h"

#pragma GCC visibility push(hidden)
namespace simt {

// Every (block, barrier interval) of a run is a "segment"; segment numbers only grow.
struct Seen {
  uint32_t segment = 0;  // 0: never; 1: written by the host
  uint32_t clock = 0;    // the thread's warp clock then
  uint32_t pc = 0;
  uint16_t thread = 0;
  bool atomic = false;
};
struct Cell {
  Seen write, read[2];
};

struct Module {  // the executable or library that the emulator and the kernels are linked into
  const char *first = nullptr, *last = nullptr;
  const char* base = nullptr;  // where its address 0 is
  std::string path;
};
const Module& module();
uint32_t offset_of(const void* pc);
std::string where(uint32_t pc);  // file:line through addr2line
void check_access(Fiber& f, uintptr_t at, size_t bytes, Access kind, uint32_t pc);

}  // namespace simt
#pragma GCC visibility pop
