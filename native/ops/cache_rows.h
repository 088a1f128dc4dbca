// What attention over a cache is made of: scores of a query against rows that lie in a cache, softened; and sums of its values.
// Rows are f32 or f16.
#pragma once
#include "core/partition.h"
#include "core/tile.h"
#include "ops/attend_sizes.h"
#include "ops/matmul_stream.h"
#include "ops/stored.h"

namespace oplus::OPLUS_TARGET {

struct Half {
  uint16_t bits;
};
OPLUS_INLINE Vec load(const Half* p) { return F16::at(reinterpret_cast<const uint8_t*>(p), 0); }
// The first n numbers, of whatever n, and zeros behind them.
OPLUS_INLINE Vec load_part(const Half* p, int64_t n) { return part<F16>(reinterpret_cast<const uint8_t*>(p), 0, n); }

// Lane j: q · k_j, for kLanes keys `stride` apart.
template <typename T>
OPLUS_INLINE Vec dots(const float* q, const T* k, int64_t stride, int64_t D) {
  Vec sums[kLanes];
#pragma GCC unroll 16
  for (int j = 0; j < kLanes; ++j) sums[j] = Vec{};
  int64_t d = 0;
  for (; d + kLanes <= D; d += kLanes) {
    const Vec x = load(q + d);
#pragma GCC unroll 16
    for (int j = 0; j < kLanes; ++j) sums[j] += x * load(k + j * stride + d);
  }
  if (d < D) {
    const Vec x = load_part(q + d, D - d);
#pragma GCC unroll 16
    for (int j = 0; j < kLanes; ++j) sums[j] += x * load_part(k + j * stride + d, D - d);
  }
  return sums_of(sums);
}

// w += Σ_j p[j] · v_j, for n ≤ kGather values `stride` apart.
constexpr int kGather = 4;
template <typename T>
OPLUS_INLINE void add_values(const float* p, const T* v, int64_t stride, int64_t n, int64_t D, float* w) {
  int64_t d = 0;
  if (n == kGather) {
    const Vec p0 = splat(p[0]), p1 = splat(p[1]), p2 = splat(p[2]), p3 = splat(p[3]);
    const T *v1 = v + stride, *v2 = v1 + stride, *v3 = v2 + stride;
    for (; d + kLanes <= D; d += kLanes)
      store(w + d, load(w + d) + (p0 * load(v + d) + p1 * load(v1 + d)) + (p2 * load(v2 + d) + p3 * load(v3 + d)));
  }
  for (; d < D; d += kLanes) {
    const int64_t part = at_most(kLanes, D - d);
    Vec sum = load_part(w + d, part);
    for (int64_t j = 0; j < n; ++j) sum += p[j] * load_part(v + j * stride + d, part);
    store_part(w + d, sum, part);
  }
}

// The next rows, asked for while these are in work: the hardware alone follows rows that lie `stride` apart badly.
template <typename T>
OPLUS_INLINE void prefetch_rows(const T* from, int64_t stride, int64_t rows, int64_t D) {
  for (int64_t j = 0; j < rows; ++j)
    for (int64_t d = 0; d < D; d += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(from + j * stride + d);
}

// One query: scores become 2^(score − m); returns their sum.
OPLUS_INLINE float soften_part(float* p, int64_t count, float* m) {
  Vec top = splat(-__builtin_inff());
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) top = vmax(load(p + i), top);
  if (i < count) top = vmax(load_part(p + i, count - i, -__builtin_inff()), top);
  *m = max(top);
  const float base = *m == -__builtin_inff() ? 0 : *m;
  Vec total{};
  for (i = 0; i < count; i += kLanes) {
    const int64_t part = at_most(kLanes, count - i);
    const Vec e = power_of_two(load_some(p + i, part, -__builtin_inff()) - base);
    store_some(p + i, e, part);
    total += e;
  }
  return sum(total);
}

// ---- the queries of a group together, over rows that follow each other without gaps -----------------------------------------

// Lane q · (kLanes / kQueries) + j: query q · key j, for kLanes / kQueries keys.
template <int kQueries, typename T>
OPLUS_INLINE Vec dots_of(const float* query, const T* k, int64_t D) {
  constexpr int kKeys = kLanes / kQueries;
  Vec sums[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) sums[i] = Vec{};
  const auto add = [&](int64_t d, int64_t n) __attribute__((always_inline)) {
    Vec keys[kKeys];
#pragma GCC unroll 16
    for (int j = 0; j < kKeys; ++j) keys[j] = n >= kLanes ? load(k + j * D + d) : load_part(k + j * D + d, n);
#pragma GCC unroll 4
    for (int q = 0; q < kQueries; ++q) {
      const Vec x = n >= kLanes ? load(query + q * D + d) : load_part(query + q * D + d, n);
#pragma GCC unroll 16
      for (int j = 0; j < kKeys; ++j) sums[q * kKeys + j] += x * keys[j];
    }
  };
  int64_t d = 0;
  for (; d + kLanes <= D; d += kLanes) add(d, kLanes);
  if (d < D) add(d, D - d);
  return sums_of(sums);
}

template <int kQueries, typename T>
OPLUS_INLINE void score_queries(const float* query, const T* k, int64_t count, int64_t D, float factor, float* to,
                                int64_t columns) {
  constexpr int kKeys = kLanes / kQueries;
  int64_t j = 0;
  for (; j + kKeys <= count; j += kKeys) {
    alignas(64) float scores[kLanes];
    store(scores, dots_of<kQueries>(query, k + j * D, D) * factor);
#pragma GCC unroll 4
    for (int q = 0; q < kQueries; ++q) __builtin_memcpy(to + q * columns + j, scores + q * kKeys, kKeys * sizeof(float));
  }
  for (; j < count; ++j)
    for (int q = 0; q < kQueries; ++q) to[q * columns + j] = dot(query + q * D, k + j * D, D) * factor;
}

// to[r · columns + j] = factor · query r · key j, for R queries and `count` keys.
template <typename T>
static inline void score_rows(const float* query, int64_t R, const T* k, int64_t count, int64_t D, float factor, float* to,
                              int64_t columns) {
  int64_t r = 0;
  for (; r + 4 <= R; r += 4) score_queries<4>(query + r * D, k, count, D, factor, to + r * columns, columns);
  if (r + 2 <= R) score_queries<2>(query + r * D, k, count, D, factor, to + r * columns, columns), r += 2;
  if (r < R) score_queries<1>(query + r * D, k, count, D, factor, to + r * columns, columns);
}

template <int kQueries, typename T>
OPLUS_INLINE void sum_queries(const float* p, int64_t columns, const T* v, int64_t count, int64_t D, float* to, int64_t stride) {
  int64_t d = 0;
  for (; d + 4 * kLanes <= D; d += 4 * kLanes)
    stream_tile<kQueries, 4, true>(count, p, columns, v + d, D, false, to + d, stride, 4 * kLanes);
  if (D - d > 3 * kLanes) return stream_tile<kQueries, 4, false>(count, p, columns, v + d, D, false, to + d, stride, D - d);
  for (; d + kLanes <= D; d += kLanes) stream_tile<kQueries, 1, true>(count, p, columns, v + d, D, false, to + d, stride, kLanes);
  if (d < D) stream_tile<kQueries, 1, false>(count, p, columns, v + d, D, false, to + d, stride, D - d);
}

// to[r · stride + d] = Σ_j p[r · columns + j] · v_j[d], for R queries and `count` values.
template <typename T>
static inline void sum_rows(const float* p, int64_t columns, int64_t R, const T* v, int64_t count, int64_t D, float* to,
                            int64_t stride) {
  int64_t r = 0;
  if constexpr (kLanes == 16)  // 16 sums and 4 values fit into 32 registers
    for (; r + 4 <= R; r += 4) sum_queries<4>(p + r * columns, columns, v, count, D, to + r * stride, stride);
  for (; r + 2 <= R; r += 2) sum_queries<2>(p + r * columns, columns, v, count, D, to + r * stride, stride);
  if (r < R) sum_queries<1>(p + r * columns, columns, v, count, D, to + r * stride, stride);
}

}  // namespace oplus::OPLUS_TARGET
