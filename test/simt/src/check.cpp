// The memory checker: each access of a GPU thread against shadow cells.
//   bounds  only this thread's stack, its block's shared variables, cudaMalloc memory
//   init    a read of a cell that nobody wrote
//   races   two accesses, at least one a write, not both atomic, not ordered by __syncthreads (same block), __syncwarp (same
//           warp) or release and acquire (blocks)
// The emulator itself is compiled without -fsanitize=thread.
#include "check.h"

namespace simt {

#ifndef SIMT_GRANULE
#define SIMT_GRANULE 2  // bytes a shadow cell: neighbours closer than this are one location
#endif

static uint32_t segments = 1, launch_first = 2;
static auto& segment_block = *new std::vector<uint32_t>;  // of segments launch_first, launch_first + 1, ...
static auto& arena_cells = *new std::map<Block*, std::vector<Cell>>;
static auto& arena_valid = *new std::vector<uint8_t>;        // per byte: inside a shared variable?
static auto& published = *new std::map<const void*, Views>;  // per flag word

static void merge(Views& into, const Views& from) {
  for (auto& [key, v] : from) {
    View& w = into[key];
    if (v.segment > w.segment) w = v;
    else if (v.segment == w.segment)
      for (int i = 0; i < 32; ++i) w.seen[i] = std::max(w.seen[i], v.seen[i]);
  }
}

static void new_segment(Block& b) {
  b.segment = ++segments;
  segment_block.push_back(b.id);
  for (Fiber* f : b.fibers) {
    memset(f->seen, 0, sizeof f->seen);
    f->seen[f->lane] = 1;
    if (f->acquired.empty()) continue;
    merge(b.views, f->acquired);
    f->acquired.clear();
  }
}
void check_launch() {
  launch_first = segments + 1;
  segment_block.clear();
  published.clear();
  arena_valid.assign(arena_bytes, 0);
}
void check_block_start(Block& b) {
  for (Fiber* f : b.fibers) f->acquired.clear();
  new_segment(b);
  b.first_segment = b.segment;
  b.views.clear();
  arena_cells[&b].resize(arena_bytes / SIMT_GRANULE);
}
void check_barrier(Block& b) { new_segment(b); }
void check_slot(size_t offset, size_t bytes) { memset(&arena_valid[offset], 1, bytes); }
void check_syncwarp(Warp& w, unsigned mask) {
  uint32_t joined[32] = {};
  Views acquired;
  for (unsigned m = mask; m; m &= m - 1) {
    Fiber& f = *w.fiber[__builtin_ctz(m)];
    for (int i = 0; i < 32; ++i) joined[i] = std::max(joined[i], f.seen[i]);
    if (!f.acquired.empty()) merge(acquired, f.acquired);
  }
  for (unsigned m = mask; m; m &= m - 1) {
    Fiber& f = *w.fiber[__builtin_ctz(m)];
    if (!acquired.empty()) f.acquired = acquired;
    memcpy(f.seen, joined, sizeof joined);
    ++f.seen[f.lane];
  }
}
void check_free(Allocation& a) { free(a.cells); }

static Cell* cells_of(Allocation& a) {
  if (!a.cells) a.cells = static_cast<Cell*>(calloc((a.bytes + SIMT_GRANULE - 1) / SIMT_GRANULE, sizeof(Cell)));
  return a.cells;
}
static std::pair<const uintptr_t, Allocation>* find_allocation(uintptr_t at) {
  auto it = engine.memory.upper_bound(at);
  if (it == engine.memory.begin()) return nullptr;
  --it;
  return at - it->first < it->second.bytes ? &*it : nullptr;
}
void check_host_wrote(void* p, size_t bytes) {
  auto* a = find_allocation(reinterpret_cast<uintptr_t>(p));
  if (!a || !bytes) return;
  size_t from = (reinterpret_cast<uintptr_t>(p) - a->first) / SIMT_GRANULE;
  size_t to = (reinterpret_cast<uintptr_t>(p) - a->first + bytes - 1) / SIMT_GRANULE;
  for (Cell* c = cells_of(a->second); from <= to; ++from) c[from] = {}, c[from].write.segment = 1;
}

// ---- release/acquire between blocks ----------------------------------------------------------
// A release publishes all earlier segments of its block, and of the current one what the thread
// itself did (and saw through __syncwarp) so far; what it does later has a higher clock.
void note_release(const void* p) {
  Fiber& f = *current();
  Views& v = published[p];
  v = f.block->views;
  merge(v, f.acquired);
  View& mine = v[{f.block->id, f.index / 32}];
  mine.segment = f.block->segment;
  memcpy(mine.seen, f.seen, sizeof f.seen);
  ++f.seen[f.lane];
}
void note_acquire(const void* p) {
  auto it = published.find(p);
  if (it != published.end()) merge(current()->acquired, it->second);
}

// ---- the check ---------------------------------------------------------------------------------
static bool covers(const Views& views, uint32_t block, const Seen& s) {
  for (auto it = views.lower_bound({block, 0}); it != views.end() && it->first.first == block; ++it) {
    const View& v = it->second;
    if (s.segment < v.segment) return true;
    if (s.segment == v.segment && s.thread / 32u == it->first.second && s.clock <= v.seen[s.thread % 32]) return true;
  }
  return false;
}

static bool ordered(const Fiber& f, const Seen& s) {  // did s happen before now?
  if (s.segment < launch_first) return true;
  const Block& b = *f.block;
  const uint32_t block = segment_block[s.segment - launch_first];
  if (block != b.id) return covers(f.acquired, block, s) || covers(b.views, block, s);
  if (s.segment != b.segment || s.thread == f.index) return true;
  return s.thread / 32 == f.index / 32 && s.clock <= f.seen[s.thread % 32];
}

static void race(const Fiber& f, const Seen& s, const char* was, const char* is, const char* space, size_t offset, uint32_t pc) {
  const uint32_t block = segment_block[s.segment - launch_first];
  fail(
      "race on %s memory, byte %zu: %s by thread %u of block %u at %s, then %s by thread %u of block %u at %s, not ordered by %s",
      space, offset, was, s.thread, block, where(s.pc).c_str(), is, f.index, f.block->id, where(pc).c_str(),
      block != f.block->id            ? "release/acquire"
      : s.thread / 32 == f.index / 32 ? "__syncwarp or __syncthreads"
                                      : "__syncthreads");
}

static void check_cell(Fiber& f, Cell& c, Access kind, const char* space, size_t offset, uint32_t first_segment, uint32_t pc) {
  const bool writes = kind == Access::write || kind == Access::atomic, atomic = kind == Access::atomic;
  const char* is = atomic ? "atomic" : writes ? "write" : "read";
  if (kind != Access::write && c.write.segment < first_segment)
    fail("read of uninitialised %s memory, byte %zu, at %s", space, offset, where(pc).c_str());
  if (kind == Access::read_only && c.write.segment >= launch_first)
    fail("__ldg of %s memory that this kernel writes, byte %zu, at %s (written at %s)", space, offset, where(pc).c_str(),
         where(c.write.pc).c_str());
  if (c.write.segment >= first_segment && c.write.segment >= 2 && !(atomic && c.write.atomic) && !ordered(f, c.write))
    race(f, c.write, c.write.atomic ? "atomic" : "write", is, space, offset, pc);
  const Seen now{f.block->segment, f.seen[f.lane], pc, uint16_t(f.index), atomic};
  if (writes) {
    for (Seen& r : c.read)
      if (r.segment >= first_segment && r.segment >= 2 && !ordered(f, r)) race(f, r, "read", is, space, offset, pc);
    c = {now, {}};
  } else {  // keep two readers that are not ordered, so that any later writer meets one
    Seen& r = c.read[0].segment < first_segment || ordered(f, c.read[0]) ? c.read[0] : c.read[1];
    r = now;
  }
}

void check_access(Fiber& f, uintptr_t at, size_t bytes, Access kind, uint32_t pc) {
  Block& b = *f.block;
  const char* a = reinterpret_cast<const char*>(at);
  if ((bytes & (bytes - 1)) == 0 && bytes <= 16 && at % bytes) fail("misaligned %zu-byte access at %s", bytes, where(pc).c_str());
  if (a >= b.arena && a < b.arena + arena_bytes) {
    size_t from = size_t(a - b.arena);
    for (size_t i = from; i < from + bytes; ++i)
      if (!arena_valid[i])
        fail("%s out of bounds of shared memory at %s", kind == Access::write ? "write" : "access", where(pc).c_str());
    auto& cells = arena_cells[&b];
    for (size_t i = from / SIMT_GRANULE; i <= (from + bytes - 1) / SIMT_GRANULE; ++i)
      check_cell(f, cells[i], kind, "shared", i * SIMT_GRANULE, b.first_segment, pc);
  } else if (auto* m = find_allocation(at)) {
    size_t from = at - m->first;
    if (from + bytes > m->second.bytes)
      fail("access past the end of a %zu-byte allocation at %s", m->second.bytes, where(pc).c_str());
    Cell* cells = cells_of(m->second);
    for (size_t i = from / SIMT_GRANULE; i <= (from + bytes - 1) / SIMT_GRANULE; ++i)
      check_cell(f, cells[i], kind, "global", i * SIMT_GRANULE, 1, pc);
  } else {
    fail("access to memory that is neither shared nor from cudaMalloc, at %s", where(pc).c_str());
  }
}

}  // namespace simt
