// A prefix (m, u, w) held by a few threads, and the operator ⊕ on it (ops/scan.h): the row w of D numbers is spread over
// kLanes neighbouring lanes, which hold m and u each. Such a group of lanes is called a unit.
#pragma once
#include "ops/scan.h"
#include "sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

// How a row of D numbers lies in a unit: lane l holds kPacks packs of kPack neighbouring columns, pack i from column
// (l + i · kLanes) · kPack on. Columns at or past D hold 0.
template <int kLanesOf, int kPack, int kPacks>
struct Shape {
  static constexpr int kLanes = kLanesOf, kCount = kPack * kPacks, kColumns = kLanes * kCount;
  static constexpr int kUnits = 32 / kLanes;  // in a warp

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kLanes; }
  __device__ static void load(const float* row, int D, float (&to)[kCount]) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int column = (lane() + i * kLanes) * kPack;
      Pack<kPack> v = {};
      if (column < D) v = load_pack<kPack>(row + column);
#pragma unroll
      for (int j = 0; j < kPack; ++j) to[i * kPack + j] = v.x[j];
    }
  }
  __device__ static void store(float* row, int D, const float (&from)[kCount]) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int column = (lane() + i * kLanes) * kPack;
      Pack<kPack> v;
#pragma unroll
      for (int j = 0; j < kPack; ++j) v.x[j] = from[i * kPack + j];
      if (column < D) store_pack<kPack>(row + column, v);
    }
  }
  // a · b over the row, the same in all lanes of the unit. All 32 lanes of the warp must call it.
  __device__ static float dot(const float (&a)[kCount], const float (&b)[kCount]) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum += a[i] * b[i];
#pragma unroll
    for (int step = kLanes / 2; step; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
    return sum;
  }
};

template <typename S>
struct State {
  Prefix p;
  float w[S::kCount];

  __device__ static State none() {
    State s;
    s.p = nothing();
#pragma unroll
    for (int i = 0; i < S::kCount; ++i) s.w[i] = 0;
    return s;
  }
  // this ← this ⊕ right
  __device__ void append(const State& right) {
    const Join j = join(p.m, right.p.m);
    p = {j.m, p.u * j.left + right.p.u * j.right};
#pragma unroll
    for (int i = 0; i < S::kCount; ++i) w[i] = w[i] * j.left + right.w[i] * j.right;
  }
  // The state of the same lane of the unit `lanes / kLanes` before, in the same warp.
  __device__ State from_below(int lanes) const {
    State s;
    s.p.m = __shfl_up_sync(kAllLanes, p.m, static_cast<unsigned>(lanes));
    s.p.u = __shfl_up_sync(kAllLanes, p.u, static_cast<unsigned>(lanes));
#pragma unroll
    for (int i = 0; i < S::kCount; ++i) s.w[i] = __shfl_up_sync(kAllLanes, w[i], static_cast<unsigned>(lanes));
    return s;
  }
};

// States in memory: m[n], u[n], w[n, D].
struct States {
  float *m, *u, *w;
  template <typename S>
  __device__ State<S> load(int64_t i, int D) const {
    State<S> s;
    s.p = {m[i], u[i]};
    S::load(w + i * D, D, s.w);
    return s;
  }
  template <typename S>
  __device__ void store(int64_t i, int D, const State<S>& s) const {
    if (S::lane() == 0) m[i] = s.p.m, u[i] = s.p.u;
    S::store(w + i * D, D, s.w);
  }
};

// n states in scratch memory, each row of w as aligned as the memory itself where D is a multiple of four.
inline int64_t states_size(int64_t n, int64_t D) { return 2 * divide_up(n, 4) * 4 + n * D; }
inline States states_in(float* memory, int64_t n) {
  const int64_t padded = divide_up(n, 4) * 4;
  return {memory, memory + padded, memory + 2 * padded};
}

constexpr int64_t kMostColumns = 256;  // eight a lane of a warp

inline void expect_heads(int64_t H, int64_t G, int64_t D) {
  if (H < 1 || G < 1 || H % G)
    fail(OPLUS_BAD_SHAPE, "H = %lld heads do not share G = %lld groups evenly", static_cast<long long>(H),
         static_cast<long long>(G));
  if (D < 1 || D > kMostColumns)
    fail(OPLUS_BAD_SHAPE, "D = %lld, expected 1 to %lld on this device", static_cast<long long>(D),
         static_cast<long long>(kMostColumns));
}

// f(shape) for the smallest unit that holds D columns; `four`: rows can be read four floats at a time.
template <typename F>
void with_shape(int64_t D, bool four, F&& f) {
  if (four && D % 4 == 0) {
    if (D <= 32) f(Shape<8, 4, 1>{});
    else if (D <= 64) f(Shape<16, 4, 1>{});
    else if (D <= 128) f(Shape<32, 4, 1>{});
    else f(Shape<32, 4, 2>{});
  } else {
    if (D <= 32) f(Shape<8, 1, 4>{});
    else f(Shape<32, 1, 8>{});
  }
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
