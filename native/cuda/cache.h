// A bounded cache of keys and values in kernels: where an entry lies, and how a row of it gets into registers.
//
// The entries that a token sees are the held slots 0 … held − 1 and, as number `held`, the token's own key and value, which
// come as f32 and are rounded to what the cache stores, so that a token sees the same as those after it.
#pragma once
#include "sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

using Half = uint16_t;  // the bits of an IEEE half

template <typename E>
__device__ float widened(E x) {
  if constexpr (std::is_same_v<E, Half>) return gpu::widen_half(x);
  else return x;
}
template <typename E>
__device__ E stored(float x) {
  if constexpr (std::is_same_v<E, Half>) return gpu::narrow_half(x);
  else return x;
}

// V neighbouring numbers: one access, or accesses of 16 bytes.
template <int V, typename E>
__device__ void load_widened(const E* p, float* to) {
  constexpr int kMost = 16 / static_cast<int>(sizeof(E)), kPack = V < kMost ? V : kMost;
#pragma unroll
  for (int i = 0; i < V; i += kPack) {
    const Pack<kPack, E> x = load_pack<kPack>(p + i);
#pragma unroll
    for (int j = 0; j < kPack; ++j) to[i + j] = widened(x.x[j]);
  }
}

// How a row of D numbers of type E lies in a unit: kLanes neighbouring lanes hold kPacks packs of kPack neighbouring columns
// each. Pack i of lane l starts at column i · D/2 + l · kPack where kHalves (then the two numbers of a rotated pair are in
// one lane, whichever pairs there are), else at (l + i · kLanes) · kPack. What is at or past D is 0.
template <typename E, int kLanesOf, int kPackOf, int kPacksOf, bool kHalvesOf>
struct Row {
  static constexpr int kLanes = kLanesOf, kPack = kPackOf, kPacks = kPacksOf, kCount = kPack * kPacks;
  static constexpr int kColumns = kLanes * kCount;
  static constexpr bool kHalves = kHalvesOf;
  static_assert(!kHalves || kPacks == 2);

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kLanes; }
  __device__ static int column(int i, int D) {
    if (!kHalves) return (lane() + i * kLanes) * kPack;
    return lane() * kPack < D / 2 ? i * (D / 2) + lane() * kPack : D;
  }
  __device__ static void load(const E* row, int D, float (&to)[kCount]) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i)
      if (column(i, D) < D) load_widened<kPack>(row + column(i, D), to + i * kPack);
  }
  // The same of a row that comes as f32.
  __device__ static void load_rounded(const float* row, int D, float (&to)[kCount]) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (column(i, D) >= D) continue;
      load_widened<kPack>(row + column(i, D), to + i * kPack);
#pragma unroll
      for (int j = 0; j < kPack; ++j) to[i * kPack + j] = widened(stored<E>(to[i * kPack + j]));
    }
  }
};

// Which column makes a pair with this one, and whether this one is the pair's first.
__device__ inline int partner(int column, int D, bool neighbours) {
  return neighbours ? column ^ 1 : column < D / 2 ? column + D / 2 : column - D / 2;
}
// A number of a row after rotation; `turn` is the row's angles as {cos, sin} a pair.
__device__ inline float rotated(float x, float other, int column, int D, const float* turn, bool neighbours) {
  const int pair = neighbours ? column / 2 : column % (D / 2);
  const bool first = neighbours ? column % 2 == 0 : column < D / 2;
  return first ? x * turn[2 * pair] - other * turn[2 * pair + 1] : x * turn[2 * pair] + other * turn[2 * pair + 1];
}

__device__ inline void turn_pair(float& a, float& b, const float* turn) {
  const float u = a, v = b;
  a = u * turn[0] - v * turn[1];
  b = u * turn[1] + v * turn[0];
}

// A row that R::load has loaded, rotated where it is. Where a lane does not hold both numbers of a pair, other(column) loads.
template <typename R, typename Other>
__device__ void rotate(float (&x)[R::kCount], int D, const float* turn, bool neighbours, Other&& other) {
  if constexpr (R::kHalves) {
    if (R::column(0, D) >= D) return;
    constexpr int V = R::kPack;
    float angle[2 * V];
    if (neighbours) {  // the pairs of the first half, then those of the second
      load_widened<V>(turn + R::column(0, D), angle), load_widened<V>(turn + R::column(1, D), angle + V);
#pragma unroll
      for (int j = 0; j < V; ++j) turn_pair(x[2 * j], x[2 * j + 1], &angle[2 * j]);
    } else {
      load_widened<2 * V>(turn + 2 * R::column(0, D), angle);
#pragma unroll
      for (int j = 0; j < V; ++j) turn_pair(x[j], x[j + V], &angle[2 * j]);
    }
  } else {
    static_assert(R::kPack == 1);
#pragma unroll
    for (int i = 0; i < R::kPacks; ++i) {
      const int c = R::column(i, D);
      if (c < D) x[i] = rotated(x[i], other(partner(c, D, neighbours)), c, D, turn, neighbours);
    }
  }
}

// Rows of keys and rows of values of a cache: keys by halves for the rotation; values over more lanes, and for many heads in
// packs of four, so that a thread has few columns and can keep sums for all heads. kBlocks a multiprocessor keep memory busy;
// where there are too few registers for two, one is said, because the compiler would else rather spill some.
template <typename E, int kLanes>
struct Wide {
  static constexpr bool kWide = true;
  static constexpr int kPack = 16 / static_cast<int>(sizeof(E)), kBlocks = kLanes * kPack < 128 ? 2 : 1;
  using Number = E;
  using Key = Row<E, kLanes, kPack, 2, true>;
  static constexpr int value_pack(int heads) { return heads > 4 ? 4 : kPack; }
  static constexpr int value_lanes(int heads) {
    return Key::kColumns / value_pack(heads) < 32 ? Key::kColumns / value_pack(heads) : 32;
  }
  template <int kHeads>
  using Value = Row<E, value_lanes(kHeads), value_pack(kHeads), Key::kColumns / value_pack(kHeads) / value_lanes(kHeads), false>;
};
template <typename E>
struct Single {
  static constexpr bool kWide = false;
  static constexpr int kBlocks = 1;
  using Number = E;
  using Key = Row<E, 32, 1, 8, false>;
  template <int kHeads>
  using Value = Key;
};

// f(rows) for the smallest units that hold D columns. `wide`: halves of rows can be read 16 bytes at a time.
template <typename E, typename F>
void with_rows(int64_t D, bool wide, F&& f) {
  constexpr int kPack = 16 / static_cast<int>(sizeof(E));
  if (!wide || D % (2 * kPack)) f(Single<E>{});
  else if (D <= 64) f(Wide<E, 32 / kPack>{});
  else if (D <= 128) f(Wide<E, 64 / kPack>{});
  else f(Wide<E, 128 / kPack>{});
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
