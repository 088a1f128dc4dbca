// What attention over a cache is made of: scores of a query against rows that lie in a cache, softened; and sums of its values.
// Rows are f32 or f16.
#pragma once
#include "core/partition.h"
#include "core/tile.h"
#include "ops/attend_sizes.h"
#include "ops/stored.h"

namespace oplus::OPLUS_TARGET {

struct Half {
  uint16_t bits;
};
OPLUS_INLINE Vec load(const Half* p) { return F16::at(reinterpret_cast<const uint8_t*>(p), 0); }
// The first n numbers, n ≤ kLanes, and zeros behind them.
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

}  // namespace oplus::OPLUS_TARGET
