// What attention and its gradient on the CPU have in common: sizes, what a query sees, the log-sum-exp.
#pragma once
#include "core/op.h"
#include "core/simd.h"
#include "core/tile.h"

namespace oplus::OPLUS_TARGET {

constexpr float kLog2E = 1.44269504088896341f, kLn2 = 0.693147180559945309f;
constexpr double kInline = 1e5;  // multiply-adds below which waking threads costs more than it gains

struct AttendSizes {
  int64_t B, T, S, H, G, D, capacity;
  bool causal;

  int64_t group() const { return H / G; }
  double cost() const {  // multiply-adds: two products, half of them behind a causal mask
    const double scores = static_cast<double>(B) * static_cast<double>(H) * static_cast<double>(T) * static_cast<double>(S);
    return 2 * scores * static_cast<double>(D) * (causal && T == S ? 0.5 : 1);
  }
  // Keys that the query at time t sees: the first of them, always.
  int64_t seen(int64_t t, int64_t length) const {
    const int64_t all = length < 0 ? 0 : length < S ? length : S;
    const int64_t past = causal ? S - T + t + 1 : S;
    return past < 0 ? 0 : past < all ? past : all;
  }
};

// A tile of query rows of one head: rows are (time, query head of the group), time first, so that a row never sees less than
// the one before. Worked out once a tile, because each costs a division.
struct QueryRows {
  int64_t count;         // rows of the tile that exist
  int64_t place[kTile];  // which of the B · T · H vectors; the rest of the last block repeats the last row
  int64_t seen[kTile];   // keys that the row sees

  QueryRows(const AttendSizes& n, int64_t b, int64_t g, int64_t first, int64_t length) {
    const int64_t R = n.group(), rows = n.T * R;
    count = rows - first < kTile ? rows - first : kTile;
    for (int64_t i = 0; i < kTile; ++i) {
      const int64_t row = first + (i < count ? i : count - 1), t = row / R;
      place[i] = (b * n.T + t) * n.H + g * R + (row - t * R);
      seen[i] = n.seen(t, length);
    }
  }
  // The rows of a block in x, [B · T · H, D]; null where there is none.
  void block(const float* x, int64_t D, int64_t row, const float* (&rows)[kBlock]) const {
    for (int64_t i = 0; i < kBlock; ++i) rows[i] = row + i < count ? x + place[row + i] * D : nullptr;
  }
};

// scores ← q · k for the tile's first `count` keys
OPLUS_INLINE void score(const float* q, const float* keys, int64_t D, int64_t count, float* scores) {
  for (int64_t p = 0; p < panels(count); ++p) {
    Vec sums[kBlock][2];
    multiply<1, kBlock>(q, keys + p * D * kPanel, D, sums);
#pragma GCC unroll 12
    for (int i = 0; i < kBlock; ++i) {
      store(scores + i * kTile + p * kPanel, sums[i][0]);
      store(scores + i * kTile + p * kPanel + kLanes, sums[i][1]);
    }
  }
}

static inline void expect_heads(int64_t H, int64_t G, int64_t D) {
  if (G < 1 || H % G)
    fail(OPLUS_BAD_SHAPE, "%lld query heads over %lld key-value heads, expected a multiple", static_cast<long long>(H),
         static_cast<long long>(G));
  if (D < 1) fail(OPLUS_BAD_SHAPE, "head dimension %lld, expected at least 1", static_cast<long long>(D));
}

// ln Σ e^s from m = max s and u = Σ 2^(s − m), both in powers of two. In double: m · ln 2 alone would lose the last digits.
static inline float log_sum(float m, float u) {
  if (u == 0) return -__builtin_inff();
  return static_cast<float>((static_cast<double>(m) + __builtin_log2(static_cast<double>(u))) * 0.693147180559945309);
}

template <typename T>
OPLUS_INLINE float dot(const float* a, const T* b, int64_t n) {
  Vec total{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) total += load(a + i) * load(b + i);
  if (i < n) total += load_part(a + i, n - i) * load_part(b + i, n - i);
  return sum(total);
}

}  // namespace oplus::OPLUS_TARGET
