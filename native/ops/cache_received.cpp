// The attention that each key received from many queries: column sums of the matrix of probabilities, without that matrix. A
// second pass over the scores, once their log-sum-exp is known (algorithms D.8).
//
// A task is a tile of kTile keys of one sequence: all query rows of all heads pass by it, kBlock at a time.
#include "core/op.h"
#include "core/partition.h"
#include "core/tile.h"
#include "ops/attend_sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

struct Received {
  AttendSizes n;
  int64_t first, P;
  const float *q, *k, *L;
  float* received;

  static int64_t floats(int64_t D) { return kTile * D + kBlock * D + kLanes + kBlock * kTile + 2 * kTile; }

  void tile(int64_t b, int64_t key, float* memory) const {
    float* keys = memory;                          // [panel][D][kPanel]
    float* pack = keys + kTile * n.D;              // [D][kBlock]
    float* scores = pack + kBlock * n.D + kLanes;  // [kBlock][kTile]
    float* sums = scores + kBlock * kTile;         // [kTile]
    const int64_t count = at_most(kTile, n.S - key), R = n.group();
    const float factor = P == 1 ? 1 / static_cast<float>(n.H) : 1;
    for (int64_t g = 0; g < n.G; ++g) {
      if (g == 0 || P != 1)
        for (int64_t j = 0; j < kTile; ++j) sums[j] = 0;
      const float* from = k + ((b * n.capacity + key) * n.G + g) * n.D;
      for (int64_t p = 0; p < kTile / kPanel; ++p)
        pack_columns(from + p * kPanel * n.G * n.D, n.G * n.D, count - p * kPanel, n.D, keys + p * kPanel * n.D);
      for (int64_t row = first * R; row < n.T * R; row += kTile) {
        const QueryRows rows(n, b, g, row, n.S);
        for (int64_t i = 0; i < rows.count; i += kBlock) block(rows, i, key, count, keys, pack, scores, sums);
      }
      if (P == 1 && g + 1 < n.G) continue;
      float* to = received + (b * P + (P == 1 ? 0 : g)) * n.capacity + key;
      for (int64_t j = 0; j < count; ++j) to[j] += factor * sums[j];
    }
  }

  void block(const QueryRows& rows, int64_t row, int64_t key, int64_t count, const float* keys, float* pack, float* scores,
             float* sums) const {
    if (rows.seen[at_most(row + kBlock, rows.count) - 1] <= key) return;
    const float* from[kBlock];
    rows.block(q, n.D, row, from);
    pack_block(from, kLog2E / __builtin_sqrtf(static_cast<float>(n.D)), n.D, pack);
    score(pack, keys, n.D, count, scores);
    for (int64_t i = 0; i < at_most(kBlock, rows.count - row); ++i) {
      const int64_t seen = at_most(count, rows.seen[row + i] - key);
      const float log_sum = L[rows.place[row + i]] * kLog2E;
      float* at = scores + i * kTile;
      for (int64_t j = 0; j < seen; j += kLanes)
        store_some(sums + j, load_some(sums + j, seen - j) + power_of_two(load_some(at + j, seen - j) - log_sum), seen - j);
    }
  }
};

void cache_received(In<float> q, In<float> k, In<float> L, InOut<float> received, int64_t B, int64_t T, int64_t S, int64_t H,
                    int64_t G, int64_t D, int64_t capacity, int64_t first, int64_t P) {
  expect_heads(H, G, D);
  if (S < 0 || S > capacity)
    fail(OPLUS_BAD_SHAPE, "%lld keys in a cache of %lld", static_cast<long long>(S), static_cast<long long>(capacity));
  if (P != 1 && P != G)
    fail(OPLUS_BAD_SHAPE, "%lld choosers, expected 1 or %lld", static_cast<long long>(P), static_cast<long long>(G));
  if (first < 0 || first > T)
    fail(OPLUS_BAD_SHAPE, "first query %lld of %lld", static_cast<long long>(first), static_cast<long long>(T));
  expect("q", q, volume(B, T, H, D));
  expect("k", k, volume(B, capacity, G, D));
  expect("L", L, volume(B, T, H));
  expect("received", received, volume(B, P, capacity));
  const Received sums{{B, T, S, H, G, D, capacity, true}, first, P, q.data, k.data, L.data, received.data};
  const int64_t tiles = divide_up(S, kTile);
  parallel_with_scratch(B * tiles, Received::floats(D), sums.n.cost() < kInline,
                        [&](float* memory, int64_t task) { sums.tile(task / tiles, task % tiles * kTile, memory); });
}
double cache_received_cost(In<float>, In<float>, In<float>, InOut<float>, int64_t B, int64_t T, int64_t S, int64_t H, int64_t G,
                           int64_t D, int64_t capacity, int64_t, int64_t) {
  return AttendSizes{B, T, S, H, G, D, capacity, true}.cost();
}

constexpr oplus_op list[] = {op<cache_received, cache_received_cost>("cacheReceived")};

}  // namespace

extern constinit const Ops cache_received_ops(list);

}  // namespace oplus::OPLUS_TARGET
