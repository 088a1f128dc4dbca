// Attention of a few queries over a long cache: bound by reading it. Keys and values are read once, in the order they lie in
// memory, by all heads together; nothing is packed. The cache is cut into parts of a fixed size, each leaves (m, u, w) for every
// query, and the parts are joined in order by ⊕ (Milakov & Gimelshein 2018, section 3.1; "flash-decoding").
#pragma once
#include "core/partition.h"
#include "core/tile.h"
#include "ops/attend_sizes.h"

namespace oplus::OPLUS_TARGET {

// scores[j] = q · k_j for kLanes keys `stride` apart.
OPLUS_INLINE Vec dots(const float* q, const float* k, int64_t stride, int64_t D) {
  Vec sums[kLanes] = {};
  int64_t d = 0;
  for (; d + kLanes <= D; d += kLanes) {
    const Vec x = load(q + d);
#pragma GCC unroll 16
    for (int j = 0; j < kLanes; ++j) sums[j] += x * load(k + j * stride + d);
  }
  if (d < D) {
    const Vec x = load_part(q + d, D - d);
    for (int j = 0; j < kLanes; ++j) sums[j] += x * load_part(k + j * stride + d, D - d);
  }
  return sums_of(sums);
}

// w += Σ_j p[j] · v_j for n ≤ kLanes values `stride` apart.
OPLUS_INLINE void add_values(const float* p, const float* v, int64_t stride, int64_t n, int64_t D, float* w) {
  for (int64_t d = 0; d < D; d += kLanes) {
    const int64_t part = at_most(kLanes, D - d);
    if (part == kLanes && n == kLanes) {
      Vec sum = load(w + d);
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; ++j) sum += p[j] * load(v + j * stride + d);
      store(w + d, sum);
    } else {
      Vec sum = load_part(w + d, part);
      for (int64_t j = 0; j < n; ++j) sum += p[j] * (part == kLanes ? load(v + j * stride + d) : load_part(v + j * stride + d, part));
      store_part(w + d, sum, part);
    }
  }
}

static inline void attend_few(const float* q, const float* k, const float* v, const int32_t* lengths, float* o, float* L, const AttendSizes& n) {
  const int64_t row = n.G * n.D, queries = n.T * n.H, width = n.D + 2;
  // About a megabyte of keys and values a part: long enough to stream, short enough that two threads share 2,000 keys.
  const int64_t keys = at_most(2048, at_least(32, 131072 / at_least(1, row) / 16 * 16));
  const int64_t parts = at_least(1, divide_up(n.S, keys));
  const float factor = kLog2E / __builtin_sqrtf(static_cast<float>(n.D));
  Scratch states(volume(n.B, parts, queries, width));

  parallel_with_scratch(n.B * parts, queries * keys, n.cost() < kInline, [&](float* scores, int64_t task) {
    const int64_t b = task / parts, first = task % parts * keys, last = at_most(n.S, first + keys);
    const float* from_k = k + b * n.capacity * row;
    const float* from_v = v + b * n.capacity * row;
    float* state = states.data() + task * queries * width;
    const int64_t length = lengths ? lengths[b] : n.S;
    auto seen = [&](int64_t query) { return at_most(last, n.seen(query / n.H, length)) - first; };  // keys of this part

    for (int64_t j = first; j < last; j += kLanes) {
      for (int64_t query = 0; query < queries; ++query) {
        if (seen(query) <= j - first) continue;
        const float* at = from_k + j * row + query % n.H / n.group() * n.D;
        const float* x = q + (b * queries + query) * n.D;
        float* to = scores + query * keys + (j - first);
        if (j + kLanes <= last) store(to, dots(x, at, row, n.D) * factor);
        else for (int64_t i = 0; i < last - j; ++i) to[i] = dot(x, at + i * row, n.D) * factor;
      }
    }
    for (int64_t query = 0; query < queries; ++query) {
      float* p = scores + query * keys;
      float* to = state + query * width;
      const int64_t count = seen(query);
      Vec top = splat(-__builtin_inff());
      int64_t i = 0;
      for (; i + kLanes <= count; i += kLanes) top = vmax(load(p + i), top);
      if (i < count) top = vmax(load_part(p + i, count - i, -__builtin_inff()), top);
      const float m = max(top), base = m == -__builtin_inff() ? 0 : m;
      Vec total{};
      for (i = 0; i + kLanes <= count; i += kLanes) {
        const Vec e = power_of_two(load(p + i) - base);
        store(p + i, e);
        total += e;
      }
      if (i < count) {
        const Vec e = power_of_two(load_part(p + i, count - i, -__builtin_inff()) - base);
        store_part(p + i, e, count - i);
        total += e;
      }
      to[0] = m;
      to[1] = sum(total);
      for (int64_t d = 0; d < n.D; ++d) to[2 + d] = 0;
    }
    for (int64_t j = first; j < last; j += kLanes) {
      for (int64_t query = 0; query < queries; ++query) {
        const int64_t count = at_most(kLanes, seen(query) - (j - first));
        if (count > 0) add_values(scores + query * keys + (j - first), from_v + j * row + query % n.H / n.group() * n.D, row, count, n.D, state + query * width + 2);
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
