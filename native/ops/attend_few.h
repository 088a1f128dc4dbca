// Attention of a few queries over a long cache: bound by reading it. Keys and values are read once, in the order they lie in
// memory, by all heads together; nothing is packed. The cache is cut into parts of a fixed size, each leaves (m, u, w) for every
// query, and the parts are joined in order by ⊕ (Milakov & Gimelshein 2018, section 3.1; "flash-decoding").
#pragma once
#include "core/partition.h"
#include "core/tile.h"
#include "ops/attend_sizes.h"

namespace oplus::OPLUS_TARGET {

// Lane j: q · k_j, for kLanes keys `stride` apart.
OPLUS_INLINE Vec dots(const float* q, const float* k, int64_t stride, int64_t D) {
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
OPLUS_INLINE void add_values(const float* p, const float* v, int64_t stride, int64_t n, int64_t D, float* w) {
  int64_t d = 0;
  if (n == kGather) {
    const Vec p0 = splat(p[0]), p1 = splat(p[1]), p2 = splat(p[2]), p3 = splat(p[3]);
    const float *v1 = v + stride, *v2 = v1 + stride, *v3 = v2 + stride;
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
OPLUS_INLINE void prefetch_rows(const float* from, int64_t stride, int64_t rows, int64_t D) {
  for (int64_t j = 0; j < rows; ++j)
    for (int64_t d = 0; d < D; d += 16) __builtin_prefetch(from + j * stride + d);
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

static inline void attend_few(const float* q, const float* k, const float* v, const int32_t* lengths, float* o, float* L,
                              const AttendSizes& n) {
  const int64_t row = n.G * n.D, queries = n.T * n.H, width = n.D + 2;
  // About a megabyte of keys and values a part: long enough to stream, short enough that two threads share 2,000 keys.
  const int64_t keys = at_most(2048, at_least(32, 131072 / at_least(1, row) / 16 * 16));
  const int64_t parts = at_least(1, divide_up(n.S, keys));
  const float factor = kLog2E / __builtin_sqrtf(static_cast<float>(n.D));
  Scratch states(volume(n.B, parts, queries, width));

  parallel_with_scratch(n.B * parts, queries * keys, n.cost() < kInline, [&](float* scores, int64_t task) {
    const int64_t b = task / parts, first = task % parts * keys, count = at_most(keys, n.S - first), R = n.group();
    const float* from_k = k + (b * n.capacity + first) * row;
    const float* from_v = v + (b * n.capacity + first) * row;
    float* states_of_part = states.data() + task * queries * width;
    auto seen = [&](int64_t t) { return at_most(count, n.seen(t, lengths ? lengths[b] : n.S) - first); };  // keys of this part

    for (int64_t j = 0; j < count; j += kLanes)
      for (int64_t g = 0; g < n.G; ++g) {
        const float* at = from_k + j * row + g * n.D;
        prefetch_rows(at + kLanes * row, row, at_most(kLanes, count - j - kLanes), n.D);
        for (int64_t t = 0; t < n.T; ++t) {
          if (seen(t) <= j) continue;
          for (int64_t query = t * n.H + g * R; query < t * n.H + (g + 1) * R; ++query) {
            const float* x = q + (b * queries + query) * n.D;
            float* to = scores + query * keys + j;
            if (j + kLanes <= count) store(to, dots(x, at, row, n.D) * factor);
            else
              for (int64_t i = 0; i < count - j; ++i) to[i] = dot(x, at + i * row, n.D) * factor;
          }
        }
      }
    for (int64_t query = 0; query < queries; ++query) {
      float* state = states_of_part + query * width;
      state[1] = soften_part(scores + query * keys, seen(query / n.H), state);
      for (int64_t d = 0; d < n.D; ++d) state[2 + d] = 0;
    }
    for (int64_t j = 0; j < count; j += kGather)
      for (int64_t g = 0; g < n.G; ++g) {
        const float* at = from_v + j * row + g * n.D;
        prefetch_rows(at + kLanes * row, row, at_most(kGather, count - j - kLanes), n.D);
        for (int64_t t = 0; t < n.T; ++t) {
          const int64_t now = at_most(kGather, seen(t) - j);
          for (int64_t query = t * n.H + g * R; now > 0 && query < t * n.H + (g + 1) * R; ++query)
            add_values(scores + query * keys + j, at, row, now, n.D, states_of_part + query * width + 2);
        }
      }
  });

  for_rows(n.B * queries, parts * width, [&](int64_t i, int64_t end) {
    for (; i < end; ++i) {
      const float* state = states.data() + (i / queries * parts * queries + i % queries) * width;
      const int64_t next = queries * width;
      float* to = o + i * n.D;
      float m = -__builtin_inff(), u = 0;
      for (int64_t part = 0; part < parts; ++part) m = state[part * next] > m ? state[part * next] : m;
      const float base = m == -__builtin_inff() ? 0 : m;
      for (int64_t d = 0; d < n.D; ++d) to[d] = 0;
      for (int64_t part = 0; part < parts; ++part) {
        const float* one = state + part * next;
        const float weight = power_of_two(splat(one[0] - base))[0];
        u += weight * one[1];
        if (weight != 0)
          for (int64_t d = 0; d < n.D; ++d) to[d] += weight * one[2 + d];
      }
      const float inverse = u == 0 ? 0 : 1 / u;
      for (int64_t d = 0; d < n.D; ++d) to[d] *= inverse;
      if (L) L[i] = log_sum(base, u);
    }
  });
}

}  // namespace oplus::OPLUS_TARGET
