// Data that the parts of the emulator share: engine.cpp (launching), fiber.cpp (stacks, switching), warp.cpp (barriers and
// warp collectives), runtime.cpp (memory and CUDA's runtime functions), check.cpp and report.cpp (checked build only).
#pragma once
#include <map>
#include <mutex>
#include <vector>

#include "simt.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SIMT_ASAN 1
#else
#define SIMT_ASAN 0
#endif

#pragma GCC visibility push(hidden)
namespace simt {

struct Block;
struct Warp;
enum class State : uint8_t { ready, barrier, collective, done };

struct View {  // checker: what a release made visible of the segment it ended in
  uint32_t segment = 0;
  uint32_t seen[32] = {};
};
using Views = std::map<std::pair<unsigned, unsigned>, View>;  // (block, warp) → latest view

struct Fiber {
  ThreadInfo info;  // first, so that `self` is the fiber
  void* sp = nullptr;
  char *low = nullptr, *high = nullptr;  // stack bounds
  Block* block = nullptr;
  Warp* warp = nullptr;
  unsigned lane = 0, index = 0;
  State state = State::done;
  Op op{};
  unsigned mask = 0;
  const char* file = "";
  int line = 0;
  uint64_t out = 0;
  void* fake_stack = nullptr;  // AddressSanitizer
  uint32_t seen[32] = {};      // checker: warp-level vector clock
  Views acquired;              // checker: since the last __syncthreads
};

struct Pending {  // a warp collective some lanes have reached
  unsigned mask, arrived, width;
  Op op;
};

struct Warp {
  Block* block = nullptr;
  unsigned index = 0, exists = 0, live = 0, ready = 0, pending_count = 0;
  Fiber* fiber[32] = {};
  uint64_t in[32];
  unsigned param[32];
  Pending pending[32];
};

struct Block {
  bool active = false;
  unsigned id = 0, live = 0, arrived = 0, votes = 0, result = 0, ready_warps = 0;
  const char* file = "";
  int line = 0;
  char* arena = nullptr;  // dynamic shared memory first, then the GPU_SHARED variables
  Warp warp[32];
  std::vector<Fiber*> fibers;
  std::vector<Fiber*> pool;                 // all fibers ever made for this block
  uint32_t first_segment = 0, segment = 0;  // checker
  Views views;                              // checker: what all its threads know of other blocks
};

struct Allocation {
  size_t bytes = 0;
  struct Cell* cells = nullptr;
};

constexpr size_t arena_bytes = 512 << 10;
constexpr size_t redzone = 256;

struct Engine {
  std::recursive_mutex mutex;  // held while a kernel runs and in every runtime function
  Config config;
  Stats stats{};
  std::vector<Block*> pool;     // all blocks ever made
  std::vector<Block*> slots;    // those of this launch
  std::vector<unsigned> order;  // block ids still to run, in order
  size_t next = 0;
  dim3 grid, block;
  uint64_t launch = 0, rng = 1, idle_spins = 0;
  size_t dynamic_bytes = 0, static_bytes = 0, arena_used = 0;
  void (*body)(void*) = nullptr;
  void* args = nullptr;
  size_t args_bytes = 0;
  void* main_sp = nullptr;
  const void* main_stack = nullptr;
  size_t main_stack_bytes = 0;
  void* os_thread = nullptr;  // that launched what runs now, or what ran last
  std::string error;
  bool failing = false;  // checker: what the emulator does with an error is not the kernel's doing
  std::vector<std::pair<size_t, size_t>> shared_regions;  // (offset, bytes) within an arena
  std::map<uintptr_t, Allocation> memory;
  std::map<const void*, size_t> dynamic_limit;
};
extern Engine& engine;
using Lock = std::lock_guard<std::recursive_mutex>;

inline Fiber* current() { return reinterpret_cast<Fiber*>(self); }
inline uint64_t random64() {
  uint64_t& x = engine.rng;
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  return x * 0x2545F4914F6CDD1DULL;
}

// fiber.cpp
void prepare(Fiber& f);  // the next switch to f enters fiber_main
void build_fibers(Block& b, unsigned threads, bool reset);
void switch_to(Fiber* to);
void switch_to_main();
void enter_from_main(Fiber* to);
void arrived_on_fiber();

// engine.cpp
void fiber_main();
void start_block(Block& b, unsigned id);
void make_ready(Warp& w, unsigned lanes);
void not_ready(Fiber& f, State s);
Fiber* pick(Order o);  // null when nothing is ready
void reschedule();
void yield_random();  // stay ready, let a random ready thread run
[[noreturn]] void fail_deadlock();

// warp.cpp
const char* name(Op op);
bool release_barrier(Block& b);
void complete_without(Warp& w);  // after a lane has finished: the others need not wait for it

#ifdef SIMT_CHECK
void check_launch();
void check_block_start(Block&);
void check_barrier(Block&);
void check_syncwarp(Warp&, unsigned mask);
void check_host_wrote(void*, size_t);
void check_free(Allocation&);
void check_slot(size_t offset, size_t bytes);
#else
inline void check_launch() {}
inline void check_block_start(Block&) {}
inline void check_barrier(Block&) {}
inline void check_syncwarp(Warp&, unsigned) {}
inline void check_host_wrote(void*, size_t) {}
inline void check_free(Allocation&) {}
inline void check_slot(size_t, size_t) {}
#endif

}  // namespace simt
#pragma GCC visibility pop
