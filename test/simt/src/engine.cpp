// Launching, and which thread runs next.
#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>

#include "internal.h"

namespace simt {

ThreadInfo* self = nullptr;

static Order order_of(const char* variable) {
  const char* value = std::getenv(variable);
  const std::string word = value ? value : "ascending";
  return word == "descending" ? Order::descending : word == "random" ? Order::random : Order::ascending;
}
static unsigned number_of(const char* variable, unsigned otherwise) {
  const char* value = std::getenv(variable);
  return value ? unsigned(std::atoi(value)) : otherwise;
}
static Engine& make_engine() {  // never destroyed: other threads may still launch while the process ends
  Engine& e = *new Engine;
  e.config.threads = order_of("SIMT_THREADS");
  e.config.blocks = order_of("SIMT_BLOCKS");
  e.config.resident = number_of("SIMT_RESIDENT", 1);
  e.config.seed = number_of("SIMT_SEED", 1);
  e.config.preempt = number_of("SIMT_PREEMPT", 0);
  e.config.check = number_of("SIMT_CHECKS", 1) != 0;
  return e;
}
Engine& engine = make_engine();
Config& config() { return engine.config; }
Stats& stats() { return engine.stats; }
void reset_stats() { engine.stats = {}; }

// ---- errors --------------------------------------------------------------------------------------
void fail(const char* format, ...) {
  char text[1024];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  if (!self) throw Error(text);
  engine.failing = true;
  engine.error = text;
  auto &t = self->thread_idx, &b = self->block_idx;
  snprintf(text, sizeof text, " [thread (%u,%u,%u) of block (%u,%u,%u)]", t.x, t.y, t.z, b.x, b.y, b.z);
  engine.error += text;
  switch_to_main();  // the fiber is abandoned; run_grid throws
  __builtin_unreachable();
}

void fail_deadlock() {
  std::string s = "deadlock: no thread can run.";
  for (Block* b : engine.slots) {
    if (!b->active) continue;
    for (unsigned i = 0; i < b->fibers.size();) {  // group neighbours that wait alike
      Fiber &f = *b->fibers[i], *g = &f;
      unsigned j = i;
      while (j < b->fibers.size() && (g = b->fibers[j])->state == f.state &&
             (f.state == State::done || (g->line == f.line && g->file == f.file)))
        ++j;
      char t[256];
      const int n = snprintf(t, sizeof t, "\n  block %u threads %u-%u: ", b->id, i, j - 1);
      const size_t room = sizeof t - size_t(n);
      if (f.state == State::done) snprintf(t + n, room, "finished");
      else if (f.state == State::barrier) snprintf(t + n, room, "at __syncthreads, %s:%d", f.file, f.line);
      else snprintf(t + n, room, "at %s(mask 0x%08x), %s:%d", name(f.op), f.mask, f.file, f.line);
      s += t;
      i = j;
    }
  }
  fail("%s", s.c_str());
}

// ---- scheduling ------------------------------------------------------------------------------------
void make_ready(Warp& w, unsigned lanes) {
  for (unsigned m = lanes; m; m &= m - 1) w.fiber[__builtin_ctz(m)]->state = State::ready;
  w.ready |= lanes;
  if (w.ready) w.block->ready_warps |= 1u << w.index;
}
void not_ready(Fiber& f, State s) {
  f.state = s;
  f.warp->ready &= ~(1u << f.lane);
  if (!f.warp->ready) f.block->ready_warps &= ~(1u << f.warp->index);
}

static unsigned choose(unsigned bits, Order o) {
  if (o == Order::ascending) return unsigned(__builtin_ctz(bits));
  if (o == Order::descending) return 31u - unsigned(__builtin_clz(bits));
  for (unsigned k = unsigned(random64() >> 32) % unsigned(__builtin_popcount(bits)); k; --k) bits &= bits - 1;
  return unsigned(__builtin_ctz(bits));
}

Fiber* pick(Order o) {
  Block* b = nullptr;
  if (o != Order::random && current()) {  // stay in the warp, then in the block
    Warp& w = *current()->warp;
    if (w.ready) return w.fiber[choose(w.ready, o)];
    if (w.block->ready_warps) b = w.block;
  }
  if (!b) {
    size_t n = engine.slots.size(), start = o == Order::random ? random64() % n : 0;
    for (size_t i = 0; i < n && !b; ++i)
      if (engine.slots[(start + i) % n]->ready_warps) b = engine.slots[(start + i) % n];
    if (!b) return nullptr;
  }
  Warp& w = b->warp[choose(b->ready_warps, o)];
  return w.fiber[choose(w.ready, o)];
}

void reschedule() {
  Fiber* next = pick(engine.config.threads);
  if (!next) fail_deadlock();
  switch_to(next);
}

void yield_random() { switch_to(pick(Order::random)); }

void interleave() {
  if (engine.config.threads == Order::random && random64() >> 63) yield_random();
}

void spin_wait() {
  if (++engine.idle_spins > 2000 * engine.slots.size() * engine.block.x * engine.block.y * engine.block.z)
    fail("no forward progress: every runnable thread spins, %zu of %zu blocks have not been started",
         engine.order.size() - engine.next, engine.order.size());
  yield_random();
}

void start_block(Block& b, unsigned id) {
  const dim3 g = engine.grid, d = engine.block;
  const unsigned n = d.x * d.y * d.z;
  b.active = true;
  b.id = id;
  b.live = n;
  b.arrived = b.votes = b.ready_warps = 0;
  for (auto [offset, bytes] : engine.shared_regions) memset(b.arena + offset, 0xff, bytes);  // poison
  for (unsigned w = 0; w * 32 < n; ++w) {
    b.warp[w].live = n - w * 32 >= 32 ? ~0u : (1u << (n - w * 32)) - 1;
    b.warp[w].exists = b.warp[w].live;
    b.warp[w].ready = b.warp[w].pending_count = 0;
    make_ready(b.warp[w], b.warp[w].live);
  }
  for (unsigned i = 0; i < n; ++i)
    b.fibers[i]->info = {{i % d.x, i / d.x % d.y, i / (d.x * d.y)}, {id % g.x, id / g.x % g.y, id / (g.x * g.y)}, d, g};
  engine.stats.threads += n;
  check_block_start(b);
}

static void finish_thread() {
  Fiber& f = *current();
  Block& b = *f.block;
  not_ready(f, State::done);
  f.warp->live &= ~(1u << f.lane);
  --b.live;
  engine.idle_spins = 0;
  complete_without(*f.warp);
  release_barrier(b);
  if (!b.live) {
    b.active = false;
    if (engine.next < engine.order.size()) start_block(b, engine.order[engine.next++]);
  }
  if (Fiber* next = pick(engine.config.threads)) return switch_to(next);
  for (Block* s : engine.slots)
    if (s->active) fail_deadlock();
  switch_to_main();
}

void fiber_main() {
  arrived_on_fiber();
  for (;;) {
    engine.body(engine.args);
    finish_thread();
  }
}

// ---- launching ---------------------------------------------------------------------------------------
void run_grid(dim3 grid, dim3 block, size_t dynamic_bytes, const void* kernel, void (*body)(void*), void* args,
              size_t args_bytes) {
  Engine& e = engine;
  const Lock lock(e.mutex);
  const uint64_t threads = uint64_t(block.x) * block.y * block.z, blocks = uint64_t(grid.x) * grid.y * grid.z;
  if (self) fail("launch from inside a kernel");
  if (!threads || threads > 1024 || block.z > 64) fail("bad block size %u x %u x %u", block.x, block.y, block.z);
  if (!blocks || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    fail("bad grid size %u x %u x %u", grid.x, grid.y, grid.z);
  auto limit = e.dynamic_limit.find(kernel);
  if (dynamic_bytes > (limit == e.dynamic_limit.end() ? 48u << 10 : limit->second))
    fail("%zu bytes of dynamic shared memory need gpu::allow_dynamic_shared first", dynamic_bytes);
  // Fibers left in the middle by an error start afresh, and so do those that another OS thread ran last.
  void* const os_thread = __builtin_thread_pointer();
  const bool reset = !e.error.empty() || e.os_thread != os_thread;
  e.os_thread = os_thread;
  e.error.clear();
  e.failing = false;
  ++e.launch;
  ++e.stats.launches;
  e.grid = grid, e.block = block, e.body = body, e.args = args, e.args_bytes = args_bytes;
  e.rng = e.config.seed * 0x9E3779B97F4A7C15ULL | 1;
  e.idle_spins = 0;
  e.dynamic_bytes = dynamic_bytes, e.static_bytes = 0;
  e.arena_used = (dynamic_bytes + redzone + 255) / 256 * 256;
  e.order.resize(blocks);
  for (size_t i = 0; i < blocks; ++i) e.order[i] = unsigned(e.config.blocks == Order::descending ? blocks - 1 - i : i);
  if (e.config.blocks == Order::random)
    for (size_t i = blocks; i > 1; --i) std::swap(e.order[i - 1], e.order[random64() % i]);
  e.next = 0;
  e.shared_regions.assign(1, {0, dynamic_bytes});
  while (e.pool.size() < std::max(1u, e.config.resident)) {
    auto* b = new Block;
    void* arena = mmap(nullptr, arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (arena == MAP_FAILED) fail("no memory for shared memory");
    b->arena = static_cast<char*>(arena);
    e.pool.push_back(b);
  }
  e.slots.assign(e.pool.begin(), e.pool.begin() + long(std::min<uint64_t>(std::max(1u, e.config.resident), blocks)));
  check_launch();
  for (Block* b : e.pool) {
    b->active = false, b->ready_warps = 0;
    build_fibers(*b, unsigned(threads), reset);
#if SIMT_ASAN
    __asan_poison_memory_region(b->arena, arena_bytes);
    __asan_unpoison_memory_region(b->arena, dynamic_bytes);
#endif
  }
  check_slot(0, dynamic_bytes);
  for (Block* b : e.slots) start_block(*b, e.order[e.next++]);
  enter_from_main(pick(e.config.threads));
  e.failing = false;
  if (!e.error.empty()) throw Error(e.error);
}

}  // namespace simt
