// The steps of one decoder layer over a bounded cache (docs/architecture.md), one launch a token: attention over the held slots
// and the new entry, the probability that each received, and the new entry in the place of the victim. The cache is read once for
// up to eight query heads of a group, and one slot of it is written; nothing is gathered.
//
// Who does what: a block takes the entries of one chunk, for one group of heads.
//   scores   a unit of lanes (cache.h) takes an entry: its key in registers, rotated where the cache keeps keys unrotated,
//   against
//            the queries of all heads, which lie in shared memory
//   weights  relative to the chunk's largest score, a warp a head: (m, u) of the chunk, and the weights to memory as well
//   values   a unit takes an entry: Σ weight · value of all heads in registers; units join by shuffles, warps in shared memory
//   join     the last block of a group joins its chunks by ⊕ (ops/scan.h), writes o, and adds what each entry received
//   settle   the last block of a chooser (of all groups, where they share) adds the groups and puts the new entry (cache_step.h)
// Which block is the last, counters say (gpu::arrive): the order of all sums is fixed whatever the order of blocks. Grid: chunks
// × groups × batch, about two blocks a multiprocessor where the cache is long enough.
#include "cuda/cache_part.h"

namespace oplus::OPLUS_TARGET {
namespace {

template <typename Rows, int kHeads>
__global__ void __launch_bounds__(kCacheThreads, Rows::kBlocks) cache_step(Step step) {
  using E = typename Rows::Number;
  GPU_SHARED(float, q, [kHeads][Rows::Key::kColumns]);
  GPU_SHARED(float, weight, [kChunkEntries][kHeads]);
  GPU_SHARED(float, room, [2][kCacheWarps][Rows::Key::kColumns]);
  const Cache& cache = step.cache;
  const int D = cache.D;
  const int64_t chunk = blockIdx.x % step.chunks, n = blockIdx.x / step.chunks;
  const int64_t heads = n % step.parts, g = n / step.parts % cache.G, b = n / step.parts / cache.G, p = cache.chooser(g);
  if (!step.active(b)) {
    if (chunk == 0 && heads == 0) leave_out(step, b, g);
    return;
  }
  const int64_t position = step.position(b), held = min(position, cache.S), entries = held + 1;
  const int64_t begin = chunk * step.chunk;
  if (begin >= entries) return;

  const int64_t first = g * step.share() + heads * kHeads, at = cache.chosen(b, p);
  const Part part{b,
                  g,
                  first,
                  position,
                  static_cast<int>(min(int64_t{kHeads}, (g + 1) * step.share() - first)),
                  static_cast<int>(held),
                  static_cast<int>(begin),
                  static_cast<int>(min(entries, begin + step.chunk)),
                  cache.positions + at,
                  step.table ? cache.ranks + at : nullptr};
  for (int i = static_cast<int>(threadIdx.x); i < kHeads * Rows::Key::kColumns; i += kCacheThreads) {
    const int h = i / Rows::Key::kColumns, c = i % Rows::Key::kColumns;
    float x = 0;
    if (h < part.heads && c < D) {
      const float* query = step.query(b, first + h);
      x = query[c];
      if (step.table) x = rotated(x, query[partner(c, D, step.neighbours)], c, D, step.table + held * D, step.neighbours);
    }
    q[h][c] = x;
  }
  // Weights of heads that the group does not have are multiplied as well.
  for (int i = static_cast<int>(threadIdx.x); i < kChunkEntries * kHeads; i += kCacheThreads)
    if (i % kHeads >= part.heads) weight[i / kHeads][i % kHeads] = 0;
  __syncthreads();
  score_entries<Rows, kHeads>(step, part, q, weight);
  __syncthreads();
  weigh_entries<kHeads>(step, part, chunk, weight);
  __syncthreads();
  add_values<Rows, kHeads>(step, part, chunk, weight, room);

  const int64_t chunks = (entries + step.chunk - 1) / step.chunk;
  if (!block_arrives(step.group_counters + b * cache.G + g, chunks * step.parts)) return;
  join_chunks(step, b, g, static_cast<int>(entries));
  const int64_t group = cache.first_group(p), end = cache.end_group(p);
  if (!block_arrives(end - group > 1 ? step.counters + b : step.group_counters + b * cache.G + g, end - group)) return;
  // One chooser for all: the mean over all heads. One for each group: the sum over its heads.
  const float factor = cache.P == 1 ? 1 / static_cast<float>(step.H) : 1.0f;
  const float* groups = step.groups + b * cache.G * (cache.S + 1);
  settle<E>(cache, step.rules, b, p, held, position, step.k + step.fresh(b), step.v + step.fresh(b),
            step.received ? step.received + (b * cache.P + p) * (cache.S + 1) : nullptr, [&](int e) {
              float sum = 0;
              for (int64_t i = group; i < end; ++i) sum += groups[i * (cache.S + 1) + e];
              return sum * factor;
            });
}

// ---- launches ------------------------------------------------------------------------------------

int64_t number_size(int64_t kind) {
  if (kind != 0 && kind != 1) fail(OPLUS_BAD_SHAPE, "there is no kind %lld of cache", static_cast<long long>(kind));
  return kind == 0 ? 4 : 2;
}

void expect_cache(const Cache& cache, const InOut<uint8_t>& keys, const InOut<uint8_t>& values, const InOut<int32_t>& positions,
                  const InOut<float>& scores, const MaybeInOut<int32_t>& ranks, int64_t B, int64_t kind) {
  if (cache.S < 1 || cache.S > kMostSlots)
    fail(OPLUS_BAD_SHAPE, "a cache of %lld slots, expected 1 to %lld", static_cast<long long>(cache.S),
         static_cast<long long>(kMostSlots));
  if (cache.P != 1 && cache.P != cache.G)
    fail(OPLUS_BAD_SHAPE, "%lld choosers, expected 1 or one for each of %lld heads", static_cast<long long>(cache.P),
         static_cast<long long>(cache.G));
  const int64_t bytes = volume(B, cache.S, cache.G, cache.D, number_size(kind)), chosen = volume(B, cache.P, cache.S);
  expect("keys", keys, bytes), expect("values", values, bytes);
  expect("positions", positions, chosen), expect("scores", scores, chosen), expect("ranks", ranks, chosen);
}

template <typename Rows, int kHeads>
void run_steps(Stream stream, Step step, int64_t B) {
  const Cache& cache = step.cache;
  constexpr int64_t kUnits = kCacheThreads / Rows::Key::kLanes;
  step.parts = divide_up(step.H / cache.G, kHeads);
  const int64_t sequences = volume(B, cache.G, step.parts), entries = cache.S + 1;
  const int64_t wanted = divide_up(2 * gpu::processors(stream), at_least(1, sequences));
  step.chunk = at_most(kChunkEntries, divide_up(divide_up(entries, wanted), kUnits) * kUnits);
  step.chunks = divide_up(entries, step.chunk);

  const int64_t heads = volume(B, step.H, step.chunks), weights = volume(B, step.H, entries),
                groups = volume(B, cache.G, entries);
  step.m = gpu::scratch(stream, 2 * heads + volume(heads, cache.D) + weights + groups);
  step.u = step.m + heads, step.w = step.u + heads;
  step.weights = step.w + heads * cache.D, step.groups = step.weights + weights;
  step.group_counters = gpu::counters(stream, B * cache.G + B), step.counters = step.group_counters + B * cache.G;
  for (step.t = 0; step.t < step.T; ++step.t)
    gpu::launch(cache_step<Rows, kHeads>, blocks(volume(sequences, step.chunks)), kCacheThreads, stream, step);
}

void cache_attend(Stream stream, In<float> q, In<float> k, In<float> v, InOut<uint8_t> keys, InOut<uint8_t> values,
                  InOut<int32_t> positions, InOut<float> scores, MaybeInOut<int32_t> ranks, MaybeIn<float> table,
                  In<int32_t> seen, MaybeIn<int32_t> lengths, Out<float> o, MaybeOut<float> received, int64_t B, int64_t T,
                  int64_t H, int64_t G, int64_t D, int64_t S, int64_t P, int64_t rule, int64_t sinks, int64_t recent, float keep,
                  int64_t reach, int64_t kind, bool neighbours) {
  expect_heads(H, G, D);
  const Cache cache{keys.data, values.data, positions.data, scores.data, ranks.data, G, S, P, static_cast<int>(D)};
  expect("q", q, volume(B, T, H, D)), expect("k", k, volume(B, T, G, D)), expect("v", v, volume(B, T, G, D));
  expect_cache(cache, keys, values, positions, scores, ranks, B, kind);
  expect("table", table, volume(S + 1, D)), expect("seen", seen, B), expect("lengths", lengths, B);
  expect("o", o, volume(B, T, H, D)), expect("received", received, volume(B, P, S + 1));
  if (rule < kNeverEvict || rule > kEvictOutside) fail(OPLUS_BAD_SHAPE, "there is no rule %lld", static_cast<long long>(rule));
  if (sinks < 0 || recent < 0 || sinks > S || recent > S - sinks)
    fail(OPLUS_BAD_SHAPE, "%lld sinks and %lld recent entries, expected at most the %lld slots together",
         static_cast<long long>(sinks), static_cast<long long>(recent), static_cast<long long>(S));
  if (reach < 1) fail(OPLUS_BAD_SHAPE, "a reach of %lld, expected at least 1", static_cast<long long>(reach));
  if (!ranks != !table) fail(OPLUS_BAD_SHAPE, "%s", "ranks and a table go together");
  if (table && D % 2) fail(OPLUS_BAD_SHAPE, "heads of %lld numbers, expected an even number", static_cast<long long>(D));
  if (received && T != 1)
    fail(OPLUS_BAD_SHAPE, "%lld tokens, expected 1 where `received` is asked for", static_cast<long long>(T));
  if (rule == kEvictOutside && T != 1)
    fail(OPLUS_BAD_SHAPE, "%lld tokens, expected 1 where the caller chooses what goes", static_cast<long long>(T));
  Step step{};
  step.cache = cache;
  step.rules = {rule, sinks, recent, keep};
  step.q = q.data, step.k = k.data, step.v = v.data, step.table = table.data;
  step.seen = seen.data, step.lengths = lengths.data;
  step.o = o.data, step.received = received.data;
  step.T = T, step.H = H, step.reach = reach;
  step.scale = 1 / sqrtf(static_cast<float>(D));
  step.neighbours = neighbours;
  const bool wide = aligned(k.data, v.data, keys.data, values.data, table.data);
  const auto run = [&](auto rows) {
    using R = decltype(rows);
    if constexpr (!R::kWide) return run_steps<R, 4>(stream, step, B);
    else if (H == G) run_steps<R, 1>(stream, step, B);
    else if (H / G <= 4) run_steps<R, 4>(stream, step, B);
    else run_steps<R, kMostHeads>(stream, step, B);
  };
  if (kind == 0) with_rows<float>(D, wide, run);
  else with_rows<Half>(D, wide, run);
}

double cache_attend_cost(In<float>, In<float>, In<float>, InOut<uint8_t>, InOut<uint8_t>, InOut<int32_t>, InOut<float>,
                         MaybeInOut<int32_t>, MaybeIn<float>, In<int32_t>, MaybeIn<int32_t>, Out<float>, MaybeOut<float>,
                         int64_t B, int64_t T, int64_t H, int64_t, int64_t D, int64_t S, int64_t, int64_t, int64_t, int64_t,
                         float, int64_t, int64_t, bool) {
  return 2.0 * static_cast<double>(B * T) * static_cast<double>(S) * static_cast<double>(H * D);
}

// ---- what a rule from outside chose ----------------------------------------------------------------

template <typename E>
__global__ void __launch_bounds__(kCacheThreads)
    put_chosen(Cache cache, const float* k, const float* v, const int32_t* slots, const float* fresh, const int32_t* seen) {
  const int64_t b = blockIdx.x / cache.P, p = blockIdx.x % cache.P, slot = slots[blockIdx.x];
  if (slot < 0 || slot >= cache.S) return;  // it is the new entry that goes
  const int64_t from = b * cache.G * cache.D;
  put_entry<E>(cache, b, p, slot, k + from, v + from, seen[b], fresh[blockIdx.x]);
  if (cache.ranks) renew_rank(cache, b, p, slot, seen[b]);
}

void cache_put(Stream stream, In<float> k, In<float> v, InOut<uint8_t> keys, InOut<uint8_t> values, InOut<int32_t> positions,
               InOut<float> scores, MaybeInOut<int32_t> ranks, In<int32_t> slots, In<float> fresh, In<int32_t> seen, int64_t B,
               int64_t G, int64_t D, int64_t S, int64_t P, int64_t kind) {
  expect_heads(G, G, D);
  const Cache cache{keys.data, values.data, positions.data, scores.data, ranks.data, G, S, P, static_cast<int>(D)};
  expect_cache(cache, keys, values, positions, scores, ranks, B, kind);
  expect("k", k, volume(B, G, D)), expect("v", v, volume(B, G, D));
  expect("slots", slots, volume(B, P)), expect("fresh", fresh, volume(B, P)), expect("seen", seen, B);
  gpu::launch(kind == 0 ? put_chosen<float> : put_chosen<Half>, blocks(volume(B, P)), kCacheThreads, stream, cache, k.data,
              v.data, slots.data, fresh.data, seen.data);
}

constexpr oplus_op list[] = {op<cache_attend, cache_attend_cost>("cacheAttend"), op<cache_put>("cachePut")};

}  // namespace

extern constinit const Ops cache_attend_ops(list);

}  // namespace oplus::OPLUS_TARGET
