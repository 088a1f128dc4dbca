// One step of attention over a bounded cache, but for its last part (cache_step.h): scores, weights and values of a chunk of
// entries, and how the chunks of a group of heads join. Who does what: ops/cache_attend.cu.
#pragma once
#include "cache_step.h"
#include "states.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kChunkEntries = 256;  // at most: their weights are in shared memory
constexpr int kMostHeads = 8;       // at a time; a group of more is read again for each eight, from the second-level cache

struct Step {
  Cache cache;
  Rules rules;
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
  int64_t b, g, first, position;
  int heads, held, begin, end;
  const int32_t *positions, *ranks;  // [S], ranks null without a table

  __device__ bool sees(const Step& step, int e) const { return e < end && (e == held || positions[e] > position - step.reach); }
  __device__ const float* turn(const Step& step, int e) const {
    return step.table + static_cast<int64_t>(e == held ? held : ranks[e]) * step.cache.D;
  }
};

// A part's rows of the cache's keys or values, and the new one.
template <typename E>
struct Entries {
  const E* old;
  const float* fresh;
  int64_t stride;

  __device__ Entries(const Step& step, const Part& part, const uint8_t* cached, const float* given)
      : old(reinterpret_cast<const E*>(cached) + step.cache.row(part.b, part.g, 0)),
        fresh(given + step.fresh(part.b) + part.g * step.cache.D),
        stride(step.cache.D) {}
  template <typename R>
  __device__ void load(const Part& part, int e, int D, float (&to)[R::kCount]) const {
    if (e == part.held) R::load_rounded(fresh, D, to);
    else R::load(old + e * stride, D, to);
  }
  __device__ float number(const Part& part, int e, int column) const {
    return e == part.held ? widened(stored<E>(fresh[column])) : widened(old[e * stride + column]);
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
  const Entries<E> entries(step, part, step.cache.keys, step.k);
  for (int base = part.begin; base < part.end; base += kUnits * kFlight<R, kHeads>) {
    float key[kFlight<R, kHeads>][R::kCount] = {};
    bool sees[kFlight<R, kHeads>];
#pragma unroll
    for (int i = 0; i < kFlight<R, kHeads>; ++i) {
      const int e = base + i * kUnits + unit;
      sees[i] = part.sees(step, e);
      if (sees[i]) entries.template load<R>(part, e, D, key[i]);
    }
    if (step.table) {
#pragma unroll
      for (int i = 0; i < kFlight<R, kHeads>; ++i) {
        const int e = base + i * kUnits + unit;
        if (!sees[i]) continue;
        rotate<R>(key[i], D, part.turn(step, e), step.neighbours, [&](int c) { return entries.number(part, e, c); });
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
        const int e = base + i * kUnits + unit;
        if (R::lane() == 0 && e < part.end) score[e - part.begin][h] = sees[i] ? sum[i] * step.scale : kNoScore;
      }
    }
  }
}

// Scores become weights relative to the chunk's largest.
template <int kHeads>
__device__ void weigh_entries(const Step& step, const Part& part, int64_t chunk, float (&score)[kChunkEntries][kHeads]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, count = part.end - part.begin;
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
                           float (&room)[2][kCacheWarps][Rows::Key::kColumns]) {
  using R = typename Rows::template Value<kHeads>;
  constexpr int kUnits = kCacheThreads / R::kLanes, kPack = kHeads < 4 ? kHeads : 4;
  const int unit = static_cast<int>(threadIdx.x) / R::kLanes, D = step.cache.D;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const Entries<typename Rows::Number> entries(step, part, step.cache.values, step.v);
  float sum[kHeads][R::kCount] = {};
  for (int base = part.begin; base < part.end; base += kUnits * kFlight<R, kHeads>) {
    float value[kFlight<R, kHeads>][R::kCount] = {};
#pragma unroll
    for (int i = 0; i < kFlight<R, kHeads>; ++i) {
      const int e = base + i * kUnits + unit;
      if (part.sees(step, e)) entries.template load<R>(part, e, D, value[i]);
    }
#pragma unroll
    for (int i = 0; i < kFlight<R, kHeads>; ++i) {
      const int e = base + i * kUnits + unit;
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
__device__ inline void join_chunks(const Step& step, int64_t b, int64_t g, int entries) {
  const int share = static_cast<int>(step.share()), D = step.cache.D, chunk = static_cast<int>(step.chunk);
  const int lane = static_cast<int>(threadIdx.x) % 32, count = (entries + chunk - 1) / chunk;
  const int64_t first = b * step.H + g * share, S = step.cache.S;
  float* const factors = step.m + first * step.chunks;
  for (int h = static_cast<int>(threadIdx.x) / 32; h < share; h += kCacheWarps) {
    float *m = factors + h * step.chunks, *u = step.u + (first + h) * step.chunks;
    Prefix total = nothing();
    for (int c = lane; c < count; c += 32) total = join(total, Prefix{m[c], u[c]});
#pragma unroll
    for (int lanes = 16; lanes; lanes /= 2)
      total = join(total, Prefix{__shfl_xor_sync(kAllLanes, total.m, lanes), __shfl_xor_sync(kAllLanes, total.u, lanes)});
    for (int c = lane; c < count; c += 32) m[c] = expf(m[c] - total.m) / total.u;
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < share * D; i += kCacheThreads) {
    const int h = i / D;
    const float *factor = factors + h * step.chunks, *w = step.w + (first + h) * step.chunks * D + i % D;
    float sum = 0;
#pragma unroll 4
    for (int c = 0; c < count; ++c) sum += factor[c] * w[static_cast<int64_t>(c) * D];
    step.o[((b * step.T + step.t) * step.H + g * share) * D + i] = sum;
  }
  if (step.rules.rule != kEvictLeastAttended && !step.received) return;
  float* received = step.groups + (b * step.cache.G + g) * (S + 1);
  for (int base = static_cast<int>(threadIdx.x); base < entries; base += kAtOnce * kCacheThreads) {
    float sum[kAtOnce] = {};
    for (int h = 0; h < share; ++h) {
      const float *factor = factors + h * step.chunks, *weight = step.weights + (first + h) * (S + 1);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int e = base + i * kCacheThreads;
        if (e < entries) sum[i] += factor[e / chunk] * weight[e];
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (base + i * kCacheThreads < entries) received[base + i * kCacheThreads] = sum[i];
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
  for (int64_t i = threadIdx.x; i < share; i += kCacheThreads) step.o[((b * step.T + step.t) * step.cache.G + g) * share + i] = 0;
  const int64_t p = step.cache.chooser(g), S = step.cache.S;
  if (!step.received || g != step.cache.first_group(p)) return;
  for (int64_t e = threadIdx.x; e <= S; e += kCacheThreads) step.received[(b * step.cache.P + p) * (S + 1) + e] = 0;
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
