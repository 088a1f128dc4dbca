// Gradient of exact attention, from q, k, v, o and the log-sum-exp L of each query: nothing of size T × S was kept (Dao 2023,
// "FlashAttention-2", algorithm 2).
//
//   P = exp(q·k / √D − L)   dP = g·v   dS = P (dP − δ), δ = g·o
//   dv = Σ_t P g            dk = Σ_t dS q / √D           dq = Σ_j dS k / √D
//
// A task is a head and every `splits`-th tile of its query rows, against all keys it sees, in order: dq is then complete, and dk,
// dv are sums of its own, added over the splits in order. Splits depend on sizes alone, so the bits do not depend on threads.
// The five products run in the micro-kernels of tile.h; scores live in tiles of kTile × kTile in L2.
#include "core/op.h"
#include "core/partition.h"
#include "core/tile.h"
#include "ops/attend_sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int64_t kTasks = 32;                      // enough for the threads of most machines to share evenly
constexpr int64_t kHeldFloats = int64_t{32} << 20;  // 128 MiB: heads that are in work at a time

// A head's keys and values for the length of the call, and the sums of its splits.
struct Head {
  float* key_columns;    // [tile][panel of keys][D][kPanel]
  float* value_columns;  // the same
  float* key_rows;       // [tile][panel of D][kTile][kPanel]
  float* sums;           // [split][dk, dv][tiles · kTile][wide]
};

struct Layout {
  int64_t tiles, wide, rows, row_tiles, splits, columns_size, rows_size, split_size, head_size;

  Layout(const AttendSizes& n)
      : tiles(divide_up(n.S, kTile)),
        wide(panels(n.D) * kPanel),
        rows(n.T * n.group()),
        row_tiles(divide_up(rows, kTile)),
        splits(at_least(1, at_most(row_tiles / 4, divide_up(kTasks, at_least(1, n.B * n.G))))),
        columns_size(tiles * kTile * n.D),
        rows_size(tiles * kTile * wide),
        split_size(2 * rows_size),
        head_size(2 * columns_size + rows_size + splits * split_size) {}
  Head at(float* memory) const {
    return {memory, memory + columns_size, memory + 2 * columns_size, memory + 2 * columns_size + rows_size};
  }
  // What a thread needs: scores and their gradients, a tile of queries and of gradients in two layouts each, dq, L and δ.
  int64_t scratch(int64_t D) const { return 2 * kTile * kTile + 2 * kTile * D + 3 * kTile * wide + 2 * kTile + kLanes; }
};

// a · b for kBlock rows and the tile's first `count` keys, whole panels
OPLUS_INLINE void products(const float* a, const float* b, int64_t D, int64_t count, float* to) {
  for (int64_t p = 0; p < panels(count); ++p) {
    Vec sums[kBlock][2];
    multiply<1, kBlock>(a, b + p * D * kPanel, D, sums);
#pragma GCC unroll 12
    for (int i = 0; i < kBlock; ++i) {
      store(to + i * kTile + p * kPanel, sums[i][0]);
      store(to + i * kTile + p * kPanel + kLanes, sums[i][1]);
    }
  }
}

// to[i, ·] += Σ_k a(i, k) · b[k, ·] for kBlock rows, all panels of `wide`; b in panels of kTile steps
template <int RowStep, int Step>
OPLUS_INLINE void add_products(const float* a, const float* b, int64_t count, int64_t wide, float* to) {
  for (int64_t d = 0; d < wide; d += kPanel) {
    Vec sums[kBlock][2];
    multiply<RowStep, Step>(a, b + d * kTile, count, sums);
#pragma GCC unroll 12
    for (int i = 0; i < kBlock; ++i) {
      float* at = to + i * wide + d;
      store(at, load(at) + sums[i][0]);
      store(at + kLanes, load(at + kLanes) + sums[i][1]);
    }
  }
}

// One row: scores become P, dP becomes dS, as far as `columns`; keys from `seen` on count for nothing, whatever they hold.
OPLUS_INLINE void differentiate(float* p, float* ds, int64_t seen, int64_t columns, float base, float delta) {
  for (int64_t j = at_least(seen, 0); j < columns; ++j) p[j] = -__builtin_inff(), ds[j] = 0;
  for (int64_t j = 0; j < columns; j += kLanes) {
    const Vec e = power_of_two(load(p + j) - base);
    store(p + j, e);
    store(ds + j, e * (load(ds + j) - delta));
  }
}

struct Arguments {
  const float *q, *k, *v, *o, *L, *g;
  const int32_t* lengths;
  float *dq, *dk, *dv;
};

void backward_rows(const Arguments& x, const Head& head, float* dk, float* dv, const QueryRows& rows, int64_t D, int64_t wide,
                   float* scratch) {
  const float scale = 1 / __builtin_sqrtf(static_cast<float>(D));
  float* p = scratch;
  float* ds = p + kTile * kTile;
  float* q_rows = ds + kTile * kTile;
  float* g_rows = q_rows + kTile * wide;
  float* dq = g_rows + kTile * wide;
  float* base = dq + kTile * wide;
  float* delta = base + kTile;
  float* q_blocks = delta + kTile;
  float* g_blocks = q_blocks + kTile * D;

  for (int64_t row = 0; row < rows.count; row += kBlock) {
    const float *q[kBlock], *g[kBlock];
    rows.block(x.q, D, row, q);
    rows.block(x.g, D, row, g);
    pack_block(q, scale * kLog2E, D, q_blocks + row * D);
    for (int i = 0; i < kBlock; ++i) {
      pack_row(q[i], scale, D, kTile, q_rows + (row + i) * kPanel);
      pack_row(g[i], 1, D, kTile, g_rows + (row + i) * kPanel);
      const int64_t at = rows.place[row + i];
      base[row + i] = x.L[at] == -__builtin_inff() ? 0 : x.L[at] * kLog2E;
      delta[row + i] = dot(x.g + at * D, x.o + at * D, D);
    }
  }
  for (int64_t row = 0; row < rows.count; row += kBlock) {  // after the queries: a pack may write beyond its end
    const float* g[kBlock];
    rows.block(x.g, D, row, g);
    pack_block(g, 1, D, g_blocks + row * D);
  }
  for (int64_t i = 0; i < kTile * wide; ++i) dq[i] = 0;

  const int64_t most = rows.seen[rows.count - 1], blocks = divide_up(rows.count, kBlock);
  for (int64_t key = 0; key < most; key += kTile) {
    int64_t far[kTile / kBlock];  // keys of the tile that some row of the block sees
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t row = block * kBlock;
      far[block] = at_most(kTile, rows.seen[row + kBlock - 1] - key);
      if (far[block] <= 0) continue;
      float* to_p = p + row * kTile;
      float* to_ds = ds + row * kTile;
      products(q_blocks + row * D, head.key_columns + key * D, D, far[block], to_p);
      products(g_blocks + row * D, head.value_columns + key * D, D, far[block], to_ds);
      const int64_t columns = at_most(kTile, divide_up(far[block] + kBlock - 1, kLanes) * kLanes);  // what dk and dv will read
      for (int i = 0; i < kBlock; ++i) {
        const int64_t seen = row + i < rows.count ? rows.seen[row + i] - key : 0;
        differentiate(to_p + i * kTile, to_ds + i * kTile, seen, columns, base[row + i], delta[row + i]);
      }
      add_products<kTile, 1>(to_ds, head.key_rows + key * wide, far[block], wide, dq + row * wide);
    }
    int64_t block = 0;  // the first whose rows see key j: with a causal mask, half of a tile on the diagonal is skipped
    for (int64_t j = 0; j < at_most(kTile, most - key); j += kBlock) {
      while (far[block] <= j) ++block;
      const int64_t row = block * kBlock, steps = blocks * kBlock - row;
      add_products<1, kTile>(p + row * kTile + j, g_rows + row * kPanel, steps, wide, dv + (key + j) * wide);
      add_products<1, kTile>(ds + row * kTile + j, q_rows + row * kPanel, steps, wide, dk + (key + j) * wide);
    }
  }
  for (int64_t i = 0; i < rows.count; ++i) copy_row(dq + i * wide, scale, D, x.dq + rows.place[i] * D);
}

// dk and dv of one tile of keys: the splits' sums, added in order.
void join(const Arguments& x, const Head& head, int64_t b, int64_t group, int64_t first, const AttendSizes& n,
          const Layout& layout) {
  for (int64_t j = first; j < at_most(n.S, first + kTile); ++j) {
    float* to[2] = {x.dk + ((b * n.S + j) * n.G + group) * n.D, x.dv + ((b * n.S + j) * n.G + group) * n.D};
    for (int which = 0; which < 2; ++which) {
      float* from = head.sums + which * layout.rows_size + j * layout.wide;
      for (int64_t split = 1; split < layout.splits; ++split)
        for (int64_t d = 0; d < layout.wide; d += kLanes)
          store(from + d, load(from + d) + load(from + split * layout.split_size + d));
      copy_row(from, 1, n.D, to[which]);
    }
  }
}

void backward(const Arguments& x, const AttendSizes& n) {
  const Layout layout(n);
  const int64_t heads = n.B * n.G, wave = at_most(heads, at_least(1, kHeldFloats / at_least(1, layout.head_size)));
  const bool alone = 2.5 * n.cost() < kInline;
  Scratch memory(volume(wave, layout.head_size));
  for (int64_t start = 0; start < heads; start += wave) {
    const int64_t now = at_most(wave, heads - start), stride = n.G * n.D;
    auto head_of = [&](int64_t i) { return layout.at(memory.data() + i * layout.head_size); };
    parallel_with_scratch(now * layout.tiles, 0, alone, [&](float*, int64_t task) {
      const int64_t i = task / layout.tiles, first = task % layout.tiles * kTile, b = (start + i) / n.G;
      const Head head = head_of(i);
      const int64_t filled = at_least(0, at_most(kTile, n.seen(n.T - 1, x.lengths ? x.lengths[b] : n.S) - first));
      const int64_t from = ((b * n.S + first) * n.G + (start + i) % n.G) * n.D;
      for (int64_t j = 0; j < kTile; j += kPanel) {
        pack_columns(x.k + from + j * stride, stride, filled - j, n.D, head.key_columns + (first + j) * n.D);
        pack_columns(x.v + from + j * stride, stride, filled - j, n.D, head.value_columns + (first + j) * n.D);
      }
      pack_rows(x.k + from, stride, filled, n.D, kTile, head.key_rows + first * layout.wide);
    });
    parallel_with_scratch(now * layout.splits, layout.scratch(n.D), alone, [&](float* scratch, int64_t task) {
      const int64_t i = task / layout.splits, split = task % layout.splits, b = (start + i) / n.G;
      const Head head = head_of(i);
      float* dk = head.sums + split * layout.split_size;
      for (int64_t j = 0; j < layout.split_size; ++j) dk[j] = 0;
      for (int64_t tile = split; tile < layout.row_tiles; tile += layout.splits)
        backward_rows(x, head, dk, dk + layout.rows_size,
                      QueryRows(n, b, (start + i) % n.G, tile * kTile, x.lengths ? x.lengths[b] : n.S), n.D, layout.wide,
                      scratch);
    });
    parallel_with_scratch(now * layout.tiles, 0, alone, [&](float*, int64_t task) {
      const int64_t i = task / layout.tiles;
      join(x, head_of(i), (start + i) / n.G, (start + i) % n.G, task % layout.tiles * kTile, n, layout);
    });
  }
}

void attend_backward(In<float> q, In<float> k, In<float> v, MaybeIn<int32_t> lengths, In<float> o, In<float> L, In<float> g,
                     Out<float> dq, Out<float> dk, Out<float> dv, int64_t B, int64_t T, int64_t S, int64_t H, int64_t G,
                     int64_t D, bool causal) {
  const int64_t size = volume(B, T, H, D), keys = volume(B, S, G, D);
  expect_heads(H, G, D);
  expect("q", q, size);
  expect("k", k, keys);
  expect("v", v, keys);
  expect("lengths", lengths, B);
  expect("o", o, size);
  expect("L", L, volume(B, T, H));
  expect("g", g, size);
  expect("dq", dq, size);
  expect("dk", dk, keys);
  expect("dv", dv, keys);
  for (int64_t i = 0; i < (size && keys ? 0 : size); ++i) dq[i] = 0;  // no keys, or no queries: nothing to pass on
  for (int64_t i = 0; i < (size && keys ? 0 : keys); ++i) dk[i] = dv[i] = 0;
  if (!size || !keys) return;
  backward({q.data, k.data, v.data, o.data, L.data, g.data, lengths.data, dq.data, dk.data, dv.data},
           {B, T, S, H, G, D, S, causal});
}

double backward_cost(In<float>, In<float>, In<float>, MaybeIn<int32_t>, In<float>, In<float>, In<float>, Out<float>, Out<float>,
                     Out<float>, int64_t B, int64_t T, int64_t S, int64_t H, int64_t G, int64_t D, bool causal) {
  return 2.5 * AttendSizes{B, T, S, H, G, D, S, causal}.cost();
}

}  // namespace

static constexpr oplus_op list[] = {op<attend_backward, backward_cost>("attendBackward")};
extern constinit const Ops attend_backward_ops(list);

}  // namespace oplus::OPLUS_TARGET
