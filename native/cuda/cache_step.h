// Sizes and places of one step of attention over a bounded cache, and its last part: what becomes of the scores, which entry
// goes, and the new one in its place.
#pragma once
#include "cache.h"
#include "ops/cache_attend.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kCacheThreads = 256;
constexpr int kCacheWarps = kCacheThreads / 32;
constexpr int64_t kMostSlots = 1 << 30;  // entries are counted in 32 bits, a few blocks of threads past the last
constexpr int kAtOnce = 4;  // entries a thread asks for before it needs the first, where one block has all that there are

// What a cache is made of, and where one sequence's part of it lies.
struct Cache {
  uint8_t *keys, *values;  // [B, G, S, D]
  int32_t* positions;      // [B, P, S]
  float* scores;           // [B, P, S]
  int32_t* ranks;          // [B, P, S] or null
  int64_t G, S, P;
  int D;

  __device__ int64_t row(int64_t b, int64_t g, int64_t slot) const { return ((b * G + g) * S + slot) * D; }
  __device__ int64_t chosen(int64_t b, int64_t p) const { return (b * P + p) * S; }
  __device__ int64_t chooser(int64_t g) const { return P == 1 ? 0 : g; }
  // The groups that chooser p chooses for.
  __device__ int64_t first_group(int64_t p) const { return P == 1 ? 0 : p; }
  __device__ int64_t end_group(int64_t p) const { return P == 1 ? G : p + 1; }
};

// The new entry of sequence b into a slot of chooser p. k and v: [G, D]. A block calls it; what it writes may have been read
// before by its own threads, so there has been a barrier.
template <typename E>
__device__ void put_entry(const Cache& cache, int64_t b, int64_t p, int64_t slot, const float* k, const float* v,
                          int64_t position, float score) {
  E *const keys = reinterpret_cast<E*>(cache.keys), *const values = reinterpret_cast<E*>(cache.values);
  const int64_t first = cache.first_group(p) * cache.D, columns = cache.end_group(p) * cache.D;
  for (int64_t i = first + threadIdx.x; i < columns; i += kCacheThreads) {
    const int64_t to = cache.row(b, i / cache.D, slot) + i % cache.D;
    keys[to] = stored<E>(k[i]);
    values[to] = stored<E>(v[i]);
  }
  if (threadIdx.x == 0) {
    cache.positions[cache.chosen(b, p) + slot] = static_cast<int32_t>(position);
    cache.scores[cache.chosen(b, p) + slot] = score;
  }
}

// Ranks where `slot` gets a new entry: it comes last, and in a full cache those behind the old one move up.
__device__ inline void renew_rank(const Cache& cache, int64_t b, int64_t p, int64_t slot, int64_t position) {
  int32_t* ranks = cache.ranks + cache.chosen(b, p);
  if (position < cache.S) {
    if (threadIdx.x == 0) ranks[slot] = static_cast<int32_t>(position);
    return;
  }
  const int32_t old = ranks[slot];
  __syncthreads();
  for (int64_t s = threadIdx.x; s < cache.S; s += kCacheThreads) {
    const int32_t rank = ranks[s];
    if (s == slot) ranks[s] = static_cast<int32_t>(cache.S - 1);
    else if (rank > old) ranks[s] = rank - 1;
  }
}

// ---- who goes ------------------------------------------------------------------------------------

struct Candidate {
  float score;
  int position;
  int entry;  // −1: none
};

// Of two that may go the one that goes first. A score that is NaN goes before none, so one of several is kept.
__device__ inline Candidate lower(const Candidate& a, const Candidate& b) {
  if (a.entry < 0) return b;
  if (b.entry < 0) return a;
  return goes_before(b.score, b.position, a.score, a.position) ? b : a;
}

// The lowest of all threads' candidates, the same in all of them.
__device__ inline Candidate lowest(Candidate mine) {
  GPU_SHARED(Candidate, room, [kCacheWarps]);
#pragma unroll
  for (int step = 16; step; step /= 2) {
    Candidate other;
    other.score = __shfl_xor_sync(kAllLanes, mine.score, step);
    other.position = __shfl_xor_sync(kAllLanes, mine.position, step);
    other.entry = __shfl_xor_sync(kAllLanes, mine.entry, step);
    mine = lower(mine, other);
  }
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = mine;
  __syncthreads();
  Candidate best = room[0];
  for (int warp = 1; warp < kCacheWarps; ++warp) best = lower(best, room[warp]);
  return best;
}

struct Rules {
  int64_t rule, sinks, recent;
  float keep;
};

// Scores (rule 2 alone has any), the victim and the new entry of chooser p of sequence b. probability(e): what entry e
// received, the new one being number `held`. `received` [S + 1] or null.
template <typename E, typename Probability>
__device__ void settle(const Cache& cache, const Rules& rules, int64_t b, int64_t p, int64_t held, int64_t position,
                       const float* k, const float* v, float* received, Probability&& probability) {
  GPU_SHARED(float, fresh, [1]);
  const int64_t at = cache.chosen(b, p);
  const int S = static_cast<int>(cache.S);
  const bool full = held == S, scored = rules.rule == kEvictLeastAttended;
  Candidate mine{0, 0, -1};
  for (int base = static_cast<int>(threadIdx.x); base <= S; base += kAtOnce * kCacheThreads) {
    float r[kAtOnce] = {}, score[kAtOnce] = {};
    int from[kAtOnce] = {};
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int e = base + i * kCacheThreads;  // the new entry, whose number is `held`, comes last here: at S
      if (e > S || (e >= held && e != S)) continue;
      if (scored || received) r[i] = probability(e == S ? static_cast<int>(held) : e);
      from[i] = e == S ? static_cast<int>(position) : cache.positions[at + e];
      if (scored && e != S) score[i] = cache.scores[at + e];
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int e = base + i * kCacheThreads;
      if (e > S) continue;
      if (received) received[e] = r[i];
      if (e >= held && e != S) continue;
      if (e == S) score[i] = r[i], fresh[0] = scored ? r[i] : 0.0f;
      else if (scored) cache.scores[at + e] = score[i] = rules.keep * score[i] + r[i];
      if (may_go(from[i], position, rules.sinks, rules.recent)) mine = lower(mine, {scored ? score[i] : 0.0f, from[i], e});
    }
  }
  const Candidate victim = lowest(mine);  // a barrier: scores have been written
  if (full && !scored && rules.rule != kEvictOldest) return;
  // The slot that is free, or whose entry goes; S: it is the new one that goes.
  const int64_t slot = !full ? held : victim.entry < 0 ? cache.S : victim.entry;
  if (slot == cache.S) return;
  put_entry<E>(cache, b, p, slot, k, v, position, fresh[0]);
  if (cache.ranks) renew_rank(cache, b, p, slot, position);
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
