// Attention of a few queries over a long cache: bound by reading it. Keys and values are read once, in the order they lie in
// memory, by all heads together; nothing is packed. The cache is cut into parts of a fixed size, each leaves (m, u, w) for every
// query, and the parts are joined in order by ⊕ (Milakov & Gimelshein 2018, section 3.1; "flash-decoding").
#pragma once
#include "ops/cache_rows.h"

namespace oplus::OPLUS_TARGET {

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
