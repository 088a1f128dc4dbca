// Barriers of a block and collectives of a warp. Every lane deposits its value; the last to arrive computes all results and
// stores them into each lane's fiber. That is right for any mixture of masks, several of which may be in flight.
#include <algorithm>

#include "internal.h"

namespace simt {

const char* name(Op op) {
  static const char* const names[] = {"__shfl_sync",       "__shfl_up_sync",    "__shfl_down_sync",  "__shfl_xor_sync",
                                      "__syncwarp",        "__ballot_sync",     "__any_sync",        "__all_sync",
                                      "__match_any_sync",  "__reduce_add_sync", "__reduce_min_sync", "__reduce_max_sync",
                                      "__reduce_min_sync", "__reduce_max_sync", "__reduce_and_sync", "__reduce_or_sync",
                                      "__reduce_xor_sync"};
  return names[int(op)];
}

bool release_barrier(Block& b) {
  if (!b.live || b.arrived != b.live) return false;
  if (engine.config.strict_exit && b.live != b.fibers.size())
    fail("__syncthreads at %s:%d is reached by %u of %zu threads; the others have finished", b.file, b.line, b.live,
         b.fibers.size());
  ++engine.stats.barriers;
  b.result = b.votes;
  b.arrived = b.votes = 0;
  engine.idle_spins = 0;
  for (unsigned w = 0; w * 32 < b.fibers.size(); ++w) make_ready(b.warp[w], b.warp[w].live);
  check_barrier(b);
  return true;
}

int barrier(int predicate, const char* file, int line) {
  Fiber& f = *current();
  Block& b = *f.block;
  if (b.arrived && (b.line != line || b.file != file))
    fail("threads of one block wait at different __syncthreads: %s:%d and %s:%d", b.file, b.line, file, line);
  f.file = b.file = file;
  f.line = b.line = line;
  b.votes += unsigned(predicate);
  ++b.arrived;
  not_ready(f, State::barrier);
  release_barrier(b);
  reschedule();
  return int(b.result);
}

static uint64_t shuffled(Warp& w, const Pending& p, unsigned lane) {
  const unsigned base = lane & ~(p.width - 1), argument = w.param[lane];
  unsigned from = lane;
  switch (p.op) {
    case Op::shfl_idx:
      from = base | (argument & (p.width - 1));
      break;
    case Op::shfl_up:
      from = lane >= base + argument ? lane - argument : lane;
      break;
    case Op::shfl_down:
      from = lane + argument < base + p.width ? lane + argument : lane;
      break;
    default:
      from = (lane ^ argument) < base + p.width ? lane ^ argument : lane;
  }
  if (p.arrived >> from & 1) return w.in[from];
  if (engine.config.strict_shuffle) fail("%s: lane %u reads lane %u, which takes no part", name(p.op), lane, from);
  return ~0ull;  // undefined on the GPU: poison
}

static uint64_t reduced(Warp& w, const Pending& p) {
  uint64_t all = 0;
  bool first = true;
  for (unsigned m = p.arrived; m; m &= m - 1) {
    const unsigned l = unsigned(__builtin_ctz(m)), v = unsigned(w.in[l]), sum = unsigned(all);
    switch (p.op) {
      case Op::ballot:
        all |= uint64_t(v) << l;
        break;
      case Op::any:
        all = sum | v;
        break;
      case Op::all:
        all = first ? v : sum & v;
        break;
      case Op::add:
        all = sum + v;
        break;
      case Op::min_u:
        all = first ? v : std::min(sum, v);
        break;
      case Op::max_u:
        all = first ? v : std::max(sum, v);
        break;
      case Op::min_s:
        all = first ? v : unsigned(std::min(int(sum), int(v)));
        break;
      case Op::max_s:
        all = first ? v : unsigned(std::max(int(sum), int(v)));
        break;
      case Op::bit_and:
        all = first ? v : sum & v;
        break;
      case Op::bit_or:
        all = sum | v;
        break;
      case Op::bit_xor:
        all = sum ^ v;
        break;
      default:
        break;
    }
    first = false;
  }
  return all;
}

static void complete(Warp& w, Pending p) {
  ++engine.stats.collectives;
  engine.idle_spins = 0;
  if (engine.config.strict_exit && p.mask & w.exists & ~w.live)
    fail("%s: lanes 0x%08x of mask 0x%08x have finished", name(p.op), p.mask & w.exists & ~w.live, p.mask);
  if (p.op == Op::syncwarp) check_syncwarp(w, p.arrived);
  const uint64_t all = p.op >= Op::ballot ? reduced(w, p) : 0;
  for (unsigned m = p.arrived; m; m &= m - 1) {
    const unsigned l = unsigned(__builtin_ctz(m));
    uint64_t out = all;
    if (p.op <= Op::shfl_xor) out = shuffled(w, p, l);
    if (p.op == Op::match_any) {
      out = 0;
      for (unsigned k = 0; k < 32; ++k)
        if ((p.arrived >> k & 1) && w.in[k] == w.in[l]) out |= 1u << k;
    }
    w.fiber[l]->out = out;
  }
  make_ready(w, p.arrived);
}

uint64_t collective(Op op, unsigned mask, uint64_t value, unsigned param, unsigned width, const char* file, int line) {
  Fiber& f = *current();
  Warp& w = *f.warp;
  const unsigned bit = 1u << f.lane;
  f.file = file;
  f.line = line;
  if (!(mask & bit)) fail("%s at %s:%d: lane %u is not in its own mask 0x%08x", name(op), file, line, f.lane, mask);
  if (width == 0 || width > 32 || (width & (width - 1))) fail("%s at %s:%d: bad width %u", name(op), file, line, width);
  if (op >= Op::shfl_up && op <= Op::shfl_xor && param > 31)  // the hardware uses 5 bits of it
    fail("%s at %s:%d: distance %u", name(op), file, line, param);
  w.in[f.lane] = value;
  w.param[f.lane] = param;
  f.op = op;
  f.mask = mask;
  unsigned k = 0;
  for (; k < w.pending_count && w.pending[k].mask != mask; ++k)
    if ((w.pending[k].mask & bit) && (w.pending[k].arrived & mask))
      fail("%s at %s:%d: lane %u passes mask 0x%08x, but lanes 0x%08x wait for it with mask 0x%08x", name(op), file, line, f.lane,
           mask, w.pending[k].arrived, w.pending[k].mask);
  if (k == w.pending_count) w.pending[w.pending_count++] = {mask, 0, width, op};
  Pending& p = w.pending[k];
  if (p.op != op || p.width != width)
    fail("lanes of mask 0x%08x meet in different intrinsics: %s and %s at %s:%d", mask, name(p.op), name(op), file, line);
  p.arrived |= bit;
  not_ready(f, State::collective);
  if (p.arrived == (mask & w.live)) {
    const Pending done = p;
    w.pending[k] = w.pending[--w.pending_count];
    complete(w, done);
  }
  reschedule();
  return f.out;
}

void complete_without(Warp& w) {
  for (unsigned k = 0; k < w.pending_count; ++k)
    if (w.pending[k].arrived == (w.pending[k].mask & w.live)) {
      const Pending done = w.pending[k];
      w.pending[k--] = w.pending[--w.pending_count];
      complete(w, done);
    }
}

}  // namespace simt
