// Runs CUDA C++ kernels on the CPU, one fiber a GPU thread.
//
// The kernel sources are the ones that nvcc compiles; native/cuda/gpu.h selects this header when the compiler is an ordinary
// C++ compiler. Semantics follow the CUDA C++ Programming Guide for sm_70 and later: every thread has its own program
// counter, *_sync intrinsics are rendezvous of the lanes named in the mask, and an unwritten value is poison (all bits one:
// NaN, −1).
//
// One kernel runs at a time, whichever OS threads launch them, and all of its GPU threads on the OS thread that launched it.
// So a run is deterministic for a given Config.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda_subset.h"

// Runtime functions must not report their own memory accesses to the checker.
#define SIMT_RT __attribute__((no_sanitize("thread"), no_sanitize("undefined")))
#define SIMT_AT const char *file = __builtin_FILE(), int line = __builtin_LINE()

#pragma GCC visibility push(hidden)
namespace simt {

enum class Order { ascending, descending, random };

// Set from the environment at the first launch or runtime call (SIMT_THREADS, SIMT_BLOCKS: ascending, descending, random;
// SIMT_RESIDENT, SIMT_SEED, SIMT_PREEMPT: numbers; SIMT_CHECKS: 0 or 1), or by code through config().
struct Config {
  Order threads = Order::ascending;  // which ready thread runs next
  Order blocks = Order::ascending;   // in which order blocks become resident
  unsigned resident = 1;             // blocks in flight at once (interleaved when > 1)
  uint64_t seed = 1;                 // for Order::random, spins and preemption
  unsigned preempt = 0;              // checked build: switch at 1 in N memory accesses
  bool strict_shuffle = false;       // reading a lane that takes no part is an error, not poison
  bool strict_exit = true;           // so is a barrier or collective that threads have left
  bool check = true;                 // checked build: shadow-memory checks on
};

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Stats {
  uint64_t launches, threads, switches, barriers, collectives, preemptions, accesses;
};

enum class Op : uint8_t {
  shfl_idx,
  shfl_up,
  shfl_down,
  shfl_xor,
  syncwarp,
  ballot,
  any,
  all,
  match_any,
  add,
  min_u,
  max_u,
  min_s,
  max_s,
  bit_and,
  bit_or,
  bit_xor
};

enum class Access : uint8_t { read, write, atomic, read_only };

struct SharedSlot {  // one for each GPU_SHARED variable; its offset is fixed within a launch
  uint64_t launch = 0;
  size_t offset = 0;
};

// What a running thread may ask about itself. Lives beside its stack.
struct ThreadInfo {
  uint3 thread_idx, block_idx;
  dim3 block_dim, grid_dim;
};
extern ThreadInfo* self;  // null outside a kernel

Config& config();
Stats& stats();
void reset_stats();
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void run_grid(dim3 grid, dim3 block, size_t dynamic_bytes, const void* kernel, void (*body)(void*), void* args,
              size_t args_bytes);
uint64_t collective(Op op, unsigned mask, uint64_t value, unsigned param, unsigned width, const char* file, int line);
int barrier(int predicate, const char* file, int line);  // returns the number of true votes
void spin_wait();
void interleave();  // before atomics: with random order, maybe let another thread go first
void* shared_slot(SharedSlot& slot, size_t bytes, size_t align);
void* dynamic_shared();
void allow_dynamic_shared(const void* kernel, size_t bytes);
#ifdef SIMT_CHECK
void note_access(const void* p, size_t bytes, Access kind, const void* pc);
void note_release(const void* p);
void note_acquire(const void* p);
#else
inline void note_access(const void*, size_t, Access, const void*) {}
inline void note_release(const void*) {}
inline void note_acquire(const void*) {}
#endif

template <class T>
SIMT_RT inline uint64_t to_bits(T v) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t b = 0;
  __builtin_memcpy(&b, &v, sizeof(T));
  return b;
}
template <class T>
SIMT_RT inline T from_bits(uint64_t b) {
  T v;
  __builtin_memcpy(&v, &b, sizeof(T));
  return v;
}

template <class... P>
struct Call {
  void (*kernel)(P...);
  std::tuple<P...> args;
  SIMT_RT static void enter(void* c) {  // each thread gets its own copy of the arguments
    auto* call = static_cast<Call*>(c);
    std::apply(call->kernel, call->args);
  }
};

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_bytes, A&&... a) {
  Call<P...> call{kernel, std::tuple<P...>(static_cast<P>(std::forward<A>(a))...)};
  run_grid(grid, block, dynamic_bytes, reinterpret_cast<const void*>(kernel), &Call<P...>::enter, &call, sizeof call);
}

}  // namespace simt
#pragma GCC visibility pop

// ---- built-in variables ------------------------------------------------------------------------
#define threadIdx (simt::self->thread_idx)
#define blockIdx (simt::self->block_idx)
#define blockDim (simt::self->block_dim)
#define gridDim (simt::self->grid_dim)
constexpr int warpSize = 32;

// ---- shared memory -----------------------------------------------------------------------------
#define GPU_SHARED(type, name, dims)              \
  static simt::SharedSlot name##_slot;            \
  using name##_type = type dims;                  \
  name##_type& name = *static_cast<name##_type*>( \
      simt::shared_slot(name##_slot, sizeof(name##_type), alignof(name##_type) < 16 ? 16 : alignof(name##_type)))
#define GPU_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(simt::dynamic_shared())

#include "simt_intrinsics.h"
