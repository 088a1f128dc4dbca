// The steps of one decoder layer over a bounded cache (docs/architecture.md), one launch a token: attention over the held slots and
// the new entry, the probability that each received, and the new entry in the place of the victim. The cache is read
// once for up to eight query heads of a group, and one slot of it is written; nothing is gathered.
//
// Who does what: a block takes the entries of one chunk, for one group of heads.
//   scores   a unit of lanes (cache.h) takes an entry: its key in registers, rotated where the cache keeps keys unrotated, against
//            the queries of all heads, which lie in shared memory
//   weights  relative to the chunk's largest score, a warp a head: (m, u) of the chunk, and the weights to memory as well
//   values   a unit takes an entry: Σ weight · value of all heads in registers; units join by shuffles, warps in shared memory
//   join     the last block of a group joins its chunks by ⊕ (ops/scan.h), writes o, and adds what each entry received
//   settle   the last block of a chooser (of all groups, where they share) adds the groups and puts the new entry (cache_step.h)
// Which block is the last, counters say (gpu::arrive): the order of all sums is fixed whatever the order of blocks. Grid: chunks
// × groups × batch, about two blocks a multiprocessor where the cache is long enough.
#include "cuda/cache_step.h"
#include "cuda/states.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kChunkEntries = 256;  // at most: their weights are in shared memory
constexpr int kMostHeads = 8;       // at a time; groups of more heads are read again for each eight, from the L2 cache

struct Step {
  Cache cache;
  Policy policy;
  const float *q, *k, *v, *table;
  const int32_t *seen, *lengths;
  float *o, *received;
  int64_t T, H, t, reach;
  int64_t chunk, chunks, parts;  // entries of a chunk, chunks at most, parts that the heads of a group are cut into
  float scale;                   // 1 / √D
  bool neighbours;
  // Memory between blocks: of each chunk and head m (a factor later), u and w [B, H, chunks(, D)]; of each entry its weight
  // [B, H, S + 1] and what it received from a group [B, G, S + 1].
  float *m, *u, *w, *weights, *groups;
  unsigned *group_counters, *counters;  // [B, G], [B]

  __device__ int64_t share() const { return H / cache.G; }  // heads of a group
  __device__ bool active(int64_t b) const { return t < (lengths ? min(static_cast<int64_t>(lengths[b]), T) : T); }
  __device__ int64_t position(int64_t b) const { return max(int64_t{0}, static_cast<int64_t>(seen[b])) + t; }
  __device__ const float* query(int64_t b, int64_t h) const { return q + ((b * T + t) * H + h) * cache.D; }
  __device__ int64_t fresh(int64_t b) const { return (b * T + t) * cache.G * cache.D; }  // of k and v of all groups
};

// The entries of one block, for heads first … first + heads − 1.
struct Part {
  int64_t b, g, first, held, position, begin, end;
  int heads;
  const int32_t *positions, *ranks;  // [S], ranks null without a table

  __device__ bool sees(const Step& step, int64_t e) const {
    return e < end && (e == held || positions[e] > position - step.reach);
  }
  __device__ const float* turn(const Step& step, int64_t e) const {
    return step.table + (e == held ? held : static_cast<int64_t>(ranks[e])) * step.cache.D;
  }
  // Entry e of the cache's keys or values, or the new one.
  template <typename R, typename E>
  __device__ void load(const Step& step, int64_t e, const uint8_t* old, const float* fresh, float (&to)[R::kCount]) const {
    if (e == held) R::load_rounded(fresh + step.fresh(b) + g * step.cache.D, step.cache.D, to);
    else R::load(reinterpret_cast<const E*>(old) + step.cache.row(b, g, e), step.cache.D, to);
  }
};

// Entries a unit has in registers at a time.
template <typename R, int kHeads>
constexpr int kFlight = R::kCount > 8 || kHeads > 4 ? 2 : 4;

template <typename Rows, int kHeads>
__device__ void score_entries(const Step& step, const Part& part, const float (&q)[kHeads][Rows::Key::kColumns],
                              float (&score)[kChunkEntries][kHeads]) {
  using R = typename Rows::Key;
  using E = typename Rows::Number;
  constexpr int kUnits = kCacheThreads / R::kLanes;
  const int unit = static_cast<int>(threadIdx.x) / R::kLanes, D = step.cache.D;
  for (int64_t base = part.begin; base < part.end; base += kUnits * kFlight<R, kHeads>) {
    float key[kFlight<R, kHeads>][R::kCount] = {};
    bool sees[kFlight<R, kHeads>];
#pragma unroll
    for (int i = 0; i < kFlight<R, kHeads>; ++i) {
      const int64_t e = base + i * kUnits + unit;
      sees[i] = part.sees(step, e);
      if (sees[i]) part.load<R, E>(step, e, step.cache.keys, step.k, key[i]);
    }
    if (step.table) {
#pragma unroll
      for (int i = 0; i < kFlight<R, kHeads>; ++i) {
        const int64_t e = base + i * kUnits + unit;
        if (!sees[i]) continue;
        rotate<R>(key[i], D, part.turn(step, e), step.neighbours, [&](int c) {
          if (e == part.held) return widened(stored<E>(step.k[step.fresh(part.b) + part.g * D + c]));
          return widened(reinterpret_cast<const E*>(step.cache.keys)[step.cache.row(part.b, part.g, e) + c]);
        });
      }
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      if (h >= part.heads) break;
      float sum[kFlight<R, kHeads>] = {};
#pragma unroll
      for (int p = 0; p < R::kPacks; ++p) {
        const int column = R::column(p, D);
        float x[R::kPack];
        load_widened<R::kPack>(&q[h][column < D ? column : 0], x);  // columns outside: the key has 0 there
#pragma unroll
        for (int i = 0; i < kFlight<R, kHeads>; ++i)
#pragma unroll
          for (int j = 0; j < R::kPack; ++j) sum[i] += x[j] * key[i][p * R::kPack + j];
      }
#pragma unroll
      for (int i = 0; i < kFlight<R, kHeads>; ++i) {
#pragma unroll
        for (int lanes = R::kLanes / 2; lanes; lanes /= 2) sum[i] += __shfl_xor_sync(kAllLanes, sum[i], lanes);
        const int64_t e = base + i * kUnits + unit;
        if (R::lane() == 0 && e < part.end) score[e - part.begin][h] = sees[i] ? sum[i] * step.scale : kNoScore;
      }
    }
  }
}

// Scores become weights relative to the chunk's largest.
template <int kHeads>
__device__ void weigh_entries(const Step& step, const Part& part, int64_t chunk, float (&score)[kChunkEntries][kHeads]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, count = static_cast<int>(part.end - part.begin);
  for (int h = static_cast<int>(threadIdx.x) / 32; h < part.heads; h += kCacheWarps) {
    const int64_t head = part.b * step.H + part.first + h;
    float m = kNoScore, u = 0;
    for (int i = lane; i < count; i += 32) m = fmaxf(m, score[i][h]);
#pragma unroll
    for (int lanes = 16; lanes; lanes /= 2) m = fmaxf(m, __shfl_xor_sync(kAllLanes, m, lanes));
    float* weights = step.weights + head * (step.cache.S + 1) + part.begin;
    for (int i = lane; i < count; i += 32) {
      const float weight = score[i][h] == kNoScore ? 0.0f : expf(score[i][h] - m);
      weights[i] = score[i][h] = weight;
      u += weight;
    }
    u = warp_sum(u);
    if (lane == 0) step.m[head * step.chunks + chunk] = m, step.u[head * step.chunks + chunk] = u;
  }
}

template <typename Rows, int kHeads>
__device__ void add_values(const Step& step, const Part& part, int64_t chunk, const float (&weight)[kChunkEntries][kHeads],
                           float (&room)[2][kCacheWarps][Rows::Value::kColumns]) {
  using R = typename Rows::Value;
  constexpr int kUnits = kCacheThreads / R::kLanes, kPack = kHeads < 4 ? kHeads : 4;
  const int unit = static_cast<int>(threadIdx.x) / R::kLanes, D = step.cache.D;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  float sum[kHeads][R::kCount] = {};
  for (int64_t base = part.begin; base < part.end; base += kUnits * kFlight<R, kHeads>) {
    float value[kFlight<R, kHeads>][R::kCount] = {};
#pragma unroll
    for (int i = 0; i < kFlight<R, kHeads>; ++i) {
      const int64_t e = base + i * kUnits + unit;
      if (part.sees(step, e)) part.load<R, typename Rows::Number>(step, e, step.cache.values, step.v, value[i]);
    }
#pragma unroll
    for (int i = 0; i < kFlight<R, kHeads>; ++i) {
      const int64_t e = base + i * kUnits + unit;
      if (e >= part.end) continue;
#pragma unroll
      for (int h = 0; h < kHeads; h += kPack) {
        const Pack<kPack> x = load_pack<kPack>(&weight[e - part.begin][h]);
#pragma unroll
        for (int n = 0; n < kPack; ++n)
#pragma unroll
          for (int j = 0; j < R::kCount; ++j) sum[h + n][j] += x.x[n] * value[i][j];
      }
    }
  }
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    if (h >= part.heads) break;
#pragma unroll
    for (int p = 0; p < R::kPacks; ++p) {
      const int column = R::column(p, D);
#pragma unroll
      for (int j = 0; j < R::kPack; ++j) {
        float x = sum[h][p * R::kPack + j];
#pragma unroll
        for (int lanes = R::kLanes; lanes < 32; lanes *= 2) x += __shfl_xor_sync(kAllLanes, x, lanes);
        if (lane < R::kLanes && column < D) room[h % 2][warp][column + j] = x;
      }
    }
    __syncthreads();  // the other half of the room is free: it was read before this barrier
    float* w = step.w + ((part.b * step.H + part.first + h) * step.chunks + chunk) * D;
    for (int c = static_cast<int>(threadIdx.x); c < D; c += kCacheThreads) {
      float x = 0;
      for (int i = 0; i < kCacheWarps; ++i) x += room[h % 2][i][c];
      w[c] = x;
    }
  }
}

// The chunks of all heads of a group, by the last block of the group.
__device__ inline void join_chunks(const Step& step, int64_t b, int64_t g, int64_t entries) {
  const int64_t share = step.share(), first = b * step.H + g * share, S = step.cache.S, D = step.cache.D;
  const int64_t chunks = (entries + step.chunk - 1) / step.chunk;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int64_t h = first + threadIdx.x / 32; h < first + share; h += kCacheWarps) {
    float *m = step.m + h * step.chunks, *u = step.u + h * step.chunks;
    Prefix total = nothing();
    for (int64_t c = lane; c < chunks; c += 32) total = join(total, Prefix{m[c], u[c]});
#pragma unroll
    for (int lanes = 16; lanes; lanes /= 2)
      total = join(total, Prefix{__shfl_xor_sync(kAllLanes, total.m, lanes), __shfl_xor_sync(kAllLanes, total.u, lanes)});
    for (int64_t c = lane; c < chunks; c += 32) m[c] = expf(m[c] - total.m) / total.u;
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < share * D; i += kCacheThreads) {
    const int64_t h = first + i / D, d = i % D;
    float sum = 0;
    for (int64_t c = 0; c < chunks; ++c) sum += step.m[h * step.chunks + c] * step.w[(h * step.chunks + c) * D + d];
    step.o[((b * step.T + step.t) * step.H + g * share) * D + i] = sum;
  }
  float* received = step.groups + (b * step.cache.G + g) * (S + 1);
  for (int64_t e = threadIdx.x; e < entries; e += kCacheThreads) {
    const int64_t c = e / step.chunk;
    float sum = 0;
    for (int64_t h = first; h < first + share; ++h) sum += step.m[h * step.chunks + c] * step.weights[h * (S + 1) + e];
    received[e] = sum;
  }
}

// True in all threads of the last block to come here.
__device__ inline bool block_arrives(unsigned* counter, int64_t expected) {
  GPU_SHARED(unsigned, last, [1]);
  __syncthreads();
  if (threadIdx.x == 0) last[0] = gpu::arrive(counter, static_cast<unsigned>(expected));
  __syncthreads();
  return last[0] != 0;
}

// A sequence that has no token in this step.
__device__ inline void leave_out(const Step& step, int64_t b, int64_t g) {
  const int64_t share = step.share() * step.cache.D;
  for (int64_t i = threadIdx.x; i < share; i += kCacheThreads)
    step.o[((b * step.T + step.t) * step.cache.G + g) * share + i] = 0;
  const int64_t p = step.cache.chooser(g), S = step.cache.S;
  if (!step.received || g != step.cache.first_group(p)) return;
  for (int64_t e = threadIdx.x; e <= S; e += kCacheThreads) step.received[(b * step.cache.P + p) * (S + 1) + e] = 0;
}

template <typename Rows, int kHeads>
__global__ void __launch_bounds__(kCacheThreads, Rows::kBlocks) cache_step(Step step) {
  using E = typename Rows::Number;
  GPU_SHARED(float, q, [kHeads][Rows::Key::kColumns]);
  GPU_SHARED(float, weight, [kChunkEntries][kHeads]);
  GPU_SHARED(float, room, [2][kCacheWarps][Rows::Value::kColumns]);
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
  const Part part{b,   g,        first, held, position, begin, min(entries, begin + step.chunk),
                  static_cast<int>(min(int64_t{kHeads}, (g + 1) * step.share() - first)),
                  cache.positions + at, step.table ? cache.ranks + at : nullptr};
  for (int i = static_cast<int>(threadIdx.x); i < kHeads * Rows::Key::kColumns; i += kCacheThreads) {
    const int h = i / Rows::Key::kColumns, c = i % Rows::Key::kColumns;
    float x = 0;
    if (h < part.heads && c < D) {
      const float* query = step.query(b, first + h);
      x = query[c];
      if (step.table)
        x = rotated(x, query[partner(c, D, step.neighbours)], c, D, step.table + held * D, step.neighbours);
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
  join_chunks(step, b, g, entries);
  const int64_t group = cache.first_group(p), end = cache.end_group(p);
  if (!block_arrives(end - group > 1 ? step.counters + b : step.group_counters + b * cache.G + g, end - group)) return;
  // One chooser for all: the mean over all heads. One for each group: the sum over its heads.
  const float factor = cache.P == 1 ? 1 / static_cast<float>(step.H) : 1.0f;
  const float* groups = step.groups + b * cache.G * (cache.S + 1);
  settle<E>(cache, step.policy, b, p, held, position, step.k + step.fresh(b), step.v + step.fresh(b),
            step.received ? step.received + (b * cache.P + p) * (cache.S + 1) : nullptr, [&](int64_t e) {
              float sum = 0;
              for (int64_t i = group; i < end; ++i) sum += groups[i * (cache.S + 1) + e];
              return sum * factor;
            });
}

// ---- launches ------------------------------------------------------------------------------------

int64_t number_size(int64_t kind) {
  if (kind != 0 && kind != 1)
    fail(OPLUS_BAD_SHAPE, "`kind` is %lld, expected 0 (f32) or 1 (f16)", static_cast<long long>(kind));
  return kind == 0 ? 4 : 2;
}

void expect_cache(const Cache& cache, const InOut<uint8_t>& keys, const InOut<uint8_t>& values, const InOut<int32_t>& positions,
                  const InOut<float>& scores, const MaybeInOut<int32_t>& ranks, int64_t B, int64_t kind) {
  if (cache.S < 1) fail(OPLUS_BAD_SHAPE, "S = %lld slots, expected at least 1", static_cast<long long>(cache.S));
  if (cache.P != 1 && cache.P != cache.G)
    fail(OPLUS_BAD_SHAPE, "P = %lld, expected 1 or G = %lld", static_cast<long long>(cache.P), static_cast<long long>(cache.G));
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

  const int64_t heads = volume(B, step.H, step.chunks), weights = volume(B, step.H, entries), groups = volume(B, cache.G, entries);
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
  expect_cache(cache, keys, values, positions, scores, ranks, B, kind);
  expect("q", q, volume(B, T, H, D)), expect("k", k, volume(B, T, G, D)), expect("v", v, volume(B, T, G, D));
  expect("table", table, volume(S + 1, D)), expect("seen", seen, B), expect("lengths", lengths, B);
  expect("o", o, volume(B, T, H, D)), expect("received", received, volume(B, P, S + 1));
  if (rule < kGrow || rule > kOutside) fail(OPLUS_BAD_SHAPE, "`rule` is %lld, expected 0 to 3", static_cast<long long>(rule));
  if (table && (!ranks || D % 2)) fail(OPLUS_BAD_SHAPE, "%s", "keys are rotated by rank: expected `ranks`, and an even D");
  Step step{};
  step.cache = cache;
  step.policy = {rule, sinks, recent, keep};
  step.q = q.data, step.k = k.data, step.v = v.data, step.table = table.data;
  step.seen = seen.data, step.lengths = lengths.data;
  step.o = o.data, step.received = received.data;
  step.T = T, step.H = H, step.reach = reach;
  step.scale = 1 / sqrtf(static_cast<float>(D));
  step.neighbours = neighbours;
  const bool wide = aligned(k.data, v.data, keys.data, values.data, table.data);
  const auto run = [&](auto rows) {
    if (H == G) run_steps<decltype(rows), 1>(stream, step, B);
    else if (H / G <= 4) run_steps<decltype(rows), 4>(stream, step, B);
    else run_steps<decltype(rows), kMostHeads>(stream, step, B);
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
  if (cache.ranks) renew_rank(cache, b, p, slot);
}

void cache_put(Stream stream, In<float> k, In<float> v, InOut<uint8_t> keys, InOut<uint8_t> values, InOut<int32_t> positions,
               InOut<float> scores, MaybeInOut<int32_t> ranks, In<int32_t> slots, In<float> fresh, In<int32_t> seen, int64_t B,
               int64_t G, int64_t D, int64_t S, int64_t P, int64_t kind) {
  expect_heads(G, G, D);
  const Cache cache{keys.data, values.data, positions.data, scores.data, ranks.data, G, S, P, static_cast<int>(D)};
  expect_cache(cache, keys, values, positions, scores, ranks, B, kind);
  expect("k", k, volume(B, G, D)), expect("v", v, volume(B, G, D));
  expect("slots", slots, volume(B, P)), expect("fresh", fresh, volume(B, P)), expect("seen", seen, B);
  gpu::launch(kind == 0 ? put_chosen<float> : put_chosen<Half>, blocks(volume(B, P)), kCacheThreads, stream, cache, k.data, v.data,
              slots.data, fresh.data, seen.data);
}

constexpr oplus_op list[] = {op<cache_attend, cache_attend_cost>("cacheAttend"), op<cache_put>("cachePut")};

}  // namespace

extern constinit const Ops cache_attend_ops(list);

}  // namespace oplus::OPLUS_TARGET
