// Exact attention forward, without a T × S matrix: softmax made online over tiles of keys (Milakov & Gimelshein 2018;
// Dao 2023, "FlashAttention-2", algorithm 1).
//
// Keys and values of a head are packed once, in panels that the micro-kernels of tile.h read straight through. A task is a
// tile of kTile query rows (time and, within a group, query heads). For each tile of keys, and kBlock rows at a time, so
// that scores live in registers and L1 only: scores, their maximum, powers, and the product with the values.
// A few queries over a cache take the way of attend_few.h.
#include "core/op.h"
#include "core/partition.h"
#include "core/tile.h"
#include "ops/attend_few.h"
#include "ops/attend_sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int64_t kFewRows = 20;                      // query rows a head below which packing the keys does not pay
constexpr int64_t kPackedFloats = int64_t{16} << 20;  // 64 MiB: heads whose packed keys and values are held at a time

// One row: scores become 2^(score − m); m and the lanes of u follow; returns what the older sums are multiplied by.
OPLUS_INLINE float soften(float* p, int64_t seen, int64_t vectors, float* m, float* u) {
  Vec top = splat(*m);
  if (seen < vectors * kLanes)
    for (int64_t j = seen > 0 ? seen : 0; j < vectors * kLanes; ++j) p[j] = -__builtin_inff();
  for (int64_t j = 0; j < vectors; ++j) top = vmax(load(p + j * kLanes), top);
  top = spread_max(top);
  const float old = *m, now = top[0];
  const Vec base = select(top == -__builtin_inff(), Vec{}, top);
  Vec total{};
  for (int64_t j = 0; j < vectors; ++j) {
    const Vec e = power_of_two(load(p + j * kLanes) - base);
    store(p + j * kLanes, e);
    total += e;
  }
  const float keep = old == now ? 1 : power_of_two(splat(old) - base)[0];
  *m = now;
  store(u, load(u) * keep + total);
  return keep;
}

struct Packed {
  const float* keys;    // [tile][panel of keys][D][kPanel]
  const float* values;  // [tile][panel of D][kTile][kPanel]
};

// A tile of query rows of one head.
void attend_rows(const float* q, const Packed& packed, const QueryRows& rows, float* o, float* L, int64_t D, float* scratch) {
  const int64_t wide = panels(D) * kPanel;
  float* sums = scratch;           // [row][wide]
  float* u = sums + kTile * wide;  // [row][lane]
  float* m = u + kTile * kLanes;   // [row]
  float* pack = m + kTile;         // [block][D][kBlock]
  for (int64_t i = 0; i < kTile * (wide + kLanes); ++i) sums[i] = 0;
  for (int64_t i = 0; i < kTile; ++i) m[i] = -__builtin_inff();
  for (int64_t row = 0; row < rows.count; row += kBlock) {
    const float* from[kBlock];
    rows.block(q, D, row, from);
    pack_block(from, kLog2E / __builtin_sqrtf(static_cast<float>(D)), D, pack + row * D);
  }

  float scores[kBlock * kTile], keep[kBlock];
  for (int64_t key = 0; key < rows.seen[rows.count - 1]; key += kTile) {
    const float* keys = packed.keys + key * D;
    const float* values = packed.values + key * wide;
    for (int64_t row = 0; row < rows.count; row += kBlock) {
      const int64_t* seen = rows.seen + row;  // from key 0; within the tile: less `key`, at most kTile
      const int64_t near = at_least(0, at_most(kTile, seen[0] - key)), far = at_most(kTile, seen[kBlock - 1] - key);
      if (far <= 0) continue;
      score(pack + row * D, keys, D, far, scores);
      for (int i = 0; i < kBlock; ++i)
        keep[i] = soften(scores + i * kTile, seen[i] - key, divide_up(far, kLanes), m + row + i, u + (row + i) * kLanes);
      for (int64_t p = 0; p < panels(D); ++p) {
        Vec add[kBlock][2];
        multiply<kTile, 1>(scores, values + p * kTile * kPanel, near, add);
#pragma GCC unroll 12
        for (int i = 0; i < kBlock; ++i) {
          float* to = sums + (row + i) * wide + p * kPanel;
          store(to, load(to) * keep[i] + add[i][0]);
          store(to + kLanes, load(to + kLanes) * keep[i] + add[i][1]);
        }
      }
      // On the diagonal, rows of a block see different keys: those that not all see are added row by row, so that an
      // infinity or NaN in a later value cannot reach an earlier query (0 · ∞ is NaN).
      for (int i = 0; i < kBlock; ++i)
        for (int64_t j = near; j < at_most(kTile, seen[i] - key); ++j)
          for (int64_t d = 0; d < wide; d += kLanes) {
            float* to = sums + (row + i) * wide + d;
            store(to, load(to) + scores[i * kTile + j] * load(values + (d / kPanel * kTile + j) * kPanel + d % kPanel));
          }
    }
  }
  for (int64_t i = 0; i < rows.count; ++i) {
    const float total = sum(load(u + i * kLanes));
    copy_row(sums + i * wide, total == 0 ? 0 : 1 / total, D, o + rows.place[i] * D);
    if (L) L[rows.place[i]] = log_sum(m[i], total);
  }
}

void attend_tiled(const float* q, const float* k, const float* v, const int32_t* lengths, float* o, float* L,
                  const AttendSizes& n) {
  const int64_t tiles = divide_up(n.S, kTile), wide = panels(n.D) * kPanel;
  const int64_t of_keys = tiles * kTile * n.D, of_values = tiles * kTile * wide, heads = n.B * n.G;
  const int64_t wave = at_most(heads, at_least(1, kPackedFloats / at_least(1, of_keys + of_values)));
  const int64_t row_tiles = divide_up(n.T * n.group(), kTile);
  Scratch packed(volume(wave, of_keys + of_values));
  const bool alone = n.cost() < kInline;
  for (int64_t start = 0; start < heads; start += wave) {
    const int64_t now = at_most(wave, heads - start);
    auto parts = [&](int64_t head) {
      float* at = packed.data() + head * (of_keys + of_values);
      return Packed{at, at + of_keys};
    };
    parallel_with_scratch(now * tiles, 0, alone, [&](float*, int64_t task) {
      const int64_t head = task / tiles, b = (start + head) / n.G, g = (start + head) % n.G, first = task % tiles * kTile;
      const int64_t filled = n.seen(n.T - 1, lengths ? lengths[b] : n.S) - first,
                    from = ((b * n.capacity + first) * n.G + g) * n.D;
      float* keys = packed.data() + head * (of_keys + of_values) + first * n.D;
      for (int64_t p = 0; p < kTile / kPanel; ++p)
        pack_columns(k + from + p * kPanel * n.G * n.D, n.G * n.D, filled - p * kPanel, n.D, keys + p * kPanel * n.D);
      pack_rows(v + from, n.G * n.D, at_least(0, at_most(kTile, filled)), n.D, kTile,
                packed.data() + head * (of_keys + of_values) + of_keys + first * wide);
    });
    // Last rows first: with a causal mask they are the longest tasks.
    const int64_t scratch = kTile * (n.D + wide + kLanes + 1) + kLanes;
    parallel_with_scratch(now * row_tiles, scratch, alone, [&](float* memory, int64_t task) {
      const int64_t head = task % now, tile = row_tiles - 1 - task / now, b = (start + head) / n.G;
      const QueryRows of_tile(n, b, (start + head) % n.G, tile * kTile, lengths ? lengths[b] : n.S);
      attend_rows(q, parts(head), of_tile, o, L, n.D, memory);
    });
  }
}

void attend(In<float> q, In<float> k, In<float> v, MaybeIn<int32_t> lengths, Out<float> o, MaybeOut<float> L, int64_t B,
            int64_t T, int64_t S, int64_t H, int64_t G, int64_t D, int64_t capacity, bool causal) {
  const int64_t size = volume(B, T, H, D);
  expect_heads(H, G, D);
  if (S < 0 || S > capacity)
    fail(OPLUS_BAD_SHAPE, "%lld keys in a cache of %lld", static_cast<long long>(S), static_cast<long long>(capacity));
  expect("q", q, size);
  expect("k", k, volume(B, capacity, G, D));
  expect("v", v, volume(B, capacity, G, D));
  expect("lengths", lengths, B);
  expect("o", o, size);
  expect("L", L, volume(B, T, H));
  if (volume(B, T, H) == 0) return;
  const AttendSizes n{B, T, S, H, G, D, capacity, causal};
  if (T * n.group() < kFewRows) attend_few(q.data, k.data, v.data, lengths.data, o.data, L.data, n);
  else attend_tiled(q.data, k.data, v.data, lengths.data, o.data, L.data, n);
}

double attend_cost(In<float>, In<float>, In<float>, MaybeIn<int32_t>, Out<float>, MaybeOut<float>, int64_t B, int64_t T,
                   int64_t S, int64_t H, int64_t G, int64_t D, int64_t capacity, bool causal) {
  return AttendSizes{B, T, S, H, G, D, capacity, causal}.cost();
}

}  // namespace

static constexpr oplus_op list[] = {op<attend, attend_cost>("attend")};
extern constinit const Ops attend_ops(list);

}  // namespace oplus::OPLUS_TARGET
