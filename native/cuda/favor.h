// Linear attention (ops/favor.h) on CUDA: where things lie, the frames that sums are relative to, and features.
//
// Features are worked out in tiles of 64 tokens by 64 features, wherever they are needed, and never written to memory. What is
// written are three numbers a key and one a query, because a tile does not see all features of its tokens:
//
//   top      max of Ω x, not scaled, of exponential features (one product more, for them alone)
//   scale    ℓ of a key; −∞ where there is none
//   running  c after it, from the state that came in
//
// Sums of what lies between two tokens are relative to c at its end (to c before it for the gradient's sums, which run
// backwards), so no exponent is above 0 and what comes later changes no bit of what came before.
#pragma once
#include "attend.h"
#include "core/host_device.h"
#include "ops/favor.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kFavorThreads = kAttendThreads;
constexpr int kSquare = 64;                 // tokens of a chunk, and features of a tile
constexpr int64_t kMostFavorColumns = 128;  // D and E: sums of a chunk are kept in registers
constexpr float kNothing = -__builtin_inff();

// e^x for x ≤ 0; 0 where it would be less than a normal number, as on the CPU: a normaliser of those has no finite inverse.
__device__ inline float exp_below(float x) { return x < -87.33654f ? 0.0f : expf(x); }

// e^(from − to), where −∞ says that there is nothing.
__device__ inline float fade(float from, float to) { return from == kNothing ? 0.0f : from == to ? 1.0f : exp_below(from - to); }

// What a sum keeps of itself where its frame moves on; a state that meets no token stays as it is, also if it is nothing.
__device__ inline float kept(float state, float from, float to) {
  const float keep = from == to ? 1 : fade(from, to);
  return keep == 0 ? 0 : keep * state;
}

// The larger of an earlier and a later c. NaN stays.
__device__ inline float later_c(float earlier, float later) { return later > earlier || later != later ? later : earlier; }

// The states before (or, of the gradient, after) segments while they are worked with: z [M], S [M, columns], rows aligned.
struct Slots {
  float* data;
  int64_t M, E, columns;

  Slots(int64_t M_of, int64_t E_of) : data(nullptr), M(M_of), E(E_of), columns(divide_up(E_of, 4) * 4) {}
  HOST_DEVICE int64_t rows() const { return (M + 3) / 4 * 4; }
  HOST_DEVICE int64_t size() const { return rows() + M * columns; }
  __device__ float* z(int64_t slot) const { return data + slot * size(); }
  __device__ float* S(int64_t slot) const { return z(slot) + rows(); }
  // Number i of (z, S) in a slot.
  __device__ int64_t place(int64_t i) const { return i < M ? i : rows() + (i - M) / E * columns + (i - M) % E; }
};

struct Favor {
  FavorSizes n;
  const float* omega;
  const int32_t* lengths;
  int64_t span, segments;                                                          // tokens of a segment, a multiple of kSquare
  float *top_q = nullptr, *top_k = nullptr, *scale = nullptr, *running = nullptr;  // [B, T, H], and [B, T, G] three times
  float* start = nullptr;                                                          // [B, G]

  __device__ int64_t length(int64_t b) const {
    return lengths ? max(int64_t{0}, min(static_cast<int64_t>(lengths[b]), n.T)) : n.T;
  }
  __device__ int64_t key(int64_t b, int64_t t, int64_t g) const { return (b * n.T + t) * n.G + g; }
  __device__ int64_t query(int64_t b, int64_t t, int64_t h) const { return (b * n.T + t) * n.H + h; }
  __device__ int64_t slot(int64_t b, int64_t h, int64_t segment) const { return (b * n.H + h) * segments + segment; }

  // 0 for exponential features' tokens that are not there, which read as zeros, and for other features.
  __device__ float query_top(int64_t b, int64_t t, int64_t h) const { return top_q && t < n.T ? top_q[query(b, t, h)] : 0; }
  __device__ float key_top(int64_t b, int64_t t, int64_t g) const { return top_k && t < n.T ? top_k[key(b, t, g)] : 0; }

  // c after token t, or of the state that came in.
  __device__ float c(int64_t b, int64_t g, int64_t t) const { return t < 0 ? start[b * n.G + g] : running[key(b, t, g)]; }
  // What sums that end with a segment are relative to. Without a causal mask everything is relative to the last c.
  __device__ float frame(int64_t b, int64_t g, int64_t segment) const {
    return c(b, g, segment < 0 ? -1 : n.causal ? min((segment + 1) * span, n.T) - 1 : n.T - 1);
  }
  // Tokens of a head as lines; those past the length read as 0.
  template <bool kFour>
  __device__ Lines<true, kFour> tokens(const float* x, int64_t b, int64_t head, int64_t heads, int64_t width) const {
    return {x + (b * n.T * heads + head) * width, heads * width, length(b), width};
  }
  template <bool kFour>
  __device__ Lines<true, kFour> projection() const {
    return {omega, n.D, n.M, n.D};
  }
};

// Cosine and sine, reduced in double: those of CUDA keep the digits of π in local memory.
__device__ inline float wave_of(bool sine, float a, float* slope) {
  const double turns = static_cast<double>(a) * 0.31830988618379067154;  // 1 / π
  const float cosine = static_cast<float>(cospi(turns)), s = static_cast<float>(sinpi(turns));
  *slope = sine ? cosine : -s;
  return sine ? s : cosine;
}

// f(a) of generalised attention, and f'(a).
__device__ inline float feature_of(Feature feature, float a, float* slope) {
  *slope = 1;
  switch (feature) {
    case Feature::relu:
      *slope = a > 0 ? 1 : 0;
      return a < 0 ? 0 : a;
    case Feature::sigmoid: {
      const float y = 1 / (1 + expf(-a));
      *slope = y * (1 - y);
      return y;
    }
    case Feature::exp:
      return *slope = expf(a);
    case Feature::abs:
      *slope = a > 0 ? 1 : a < 0 ? -1 : 0;
      return fabsf(a);
    case Feature::gelu: {
      const float below = 0.5f * erfcf(-a * 0.70710678118654752f);      // 1 / √2
      *slope = below + a * 0.39894228040143268f * expf(-0.5f * a * a);  // 1 / √(2π)
      return a * below;
    }
    case Feature::cos:
      return wave_of(false, a, slope);
    case Feature::tanh: {
      const float y = tanhf(a);
      *slope = 1 - y * y;
      return y;
    }
    case Feature::elu:
      *slope = a > 0 ? 1 : expf(a);
      return a > 0 ? a + 1 : *slope;
    case Feature::exponential:  // these two have a scale of their own
    case Feature::trigonometric:
    case Feature::identity:
      break;
  }
  return a;
}

// ψ of feature m, and the slope ψ', from the product with the token as it is: scaled after the largest is taken off, exponents
// are rounded relative to their own size. 0 beyond M.
__device__ inline float psi_of(const FavorSizes& n, int64_t m, float product, float top, float* slope) {
  if (m >= n.M) return *slope = 0;
  if (n.feature == Feature::exponential) return (*slope = exp_below((product - top) * n.factor)) + n.epsilon;
  const float a = product * n.factor;
  if (n.feature == Feature::trigonometric) return wave_of(2 * m >= n.M, a, slope);
  return feature_of(n.feature, a, slope) + n.epsilon;
}

// ψ, and its slope, of a thread's 4 tokens by 4 features of a tile. `room`: panels (attend.h). `tops`: of the 64 tokens, in
// shared memory. A row of the thread at a time, the others moved up, so that registers hold one of them while functions are
// evaluated.
template <bool kFour>
__device__ void features(const Favor& f, float* room, const Lines<true, kFour>& tokens, int64_t first, int64_t tile,
                         const float* tops, float (&psi)[4][4], float (&slope)[4][4]) {
  using Tile = Tile<4, 4>;
  Tile::template dot_rows<kFour>(room, tokens, first, f.template projection<kFour>(), tile, psi);
#pragma unroll 1
  for (int row = 0; row < 4; ++row) {
    const float top = tops[Tile::ty() * 4 + row];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float rise;
      const float y = psi_of(f.n, tile + Tile::tx() * 4 + j, psi[0][j], top, &rise);
#pragma unroll
      for (int i = 0; i < 3; ++i) psi[i][j] = psi[i + 1][j], slope[i][j] = slope[i + 1][j];
      psi[3][j] = y, slope[3][j] = rise;
    }
  }
}

// `top` (if the features need it) and, for keys, `scale` of 64 tokens of a head. Grid: heads of all sequences × chunks.
template <bool kFour>
__global__ void __launch_bounds__(kFavorThreads, 1)
    token_scales(Favor f, const float* x, int64_t heads, float* top, float* scale, int64_t chunks) {
  using Tile = Tile<4, 4>;
  GPU_SHARED(float, room, [Tile::kRoom]);
  const FavorSizes& n = f.n;
  const int64_t first = blockIdx.x % chunks * kSquare, head = blockIdx.x / chunks % heads, b = blockIdx.x / chunks / heads;
  const auto tokens = f.template tokens<kFour>(x, b, head, heads, n.D);
  float most[4], norm[4] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) most[i] = kNothing;
  for (int64_t tile = 0; top && tile < n.M; tile += kSquare) {
    float a[4][4];
    Tile::template dot_rows<kFour>(room, tokens, first, f.template projection<kFour>(), tile, a);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (tile + Tile::tx() * 4 + j < n.M) most[i] = fmaxf(most[i], a[i][j]);
  }
  for (int64_t d = Tile::tx(); d < n.D; d += 16)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t t = first + Tile::ty() * 4 + i;
      const float at = t < tokens.lines ? tokens.data[t * tokens.stride + d] * n.factor : 0;
      norm[i] += at * at;
    }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t t = first + Tile::ty() * 4 + i, at = (b * n.T + t) * heads + head;
    const float largest = row_of_threads_max(most[i]), half = 0.5f * row_of_threads_sum(norm[i]);
    if (t >= n.T || Tile::tx() != 0) continue;
    if (top) top[at] = largest;
    if (!scale) continue;
    const float own = n.feature == Feature::exponential     ? fmaf(largest, n.factor, -half)
                      : n.feature == Feature::trigonometric ? half
                                                            : 0;
    scale[at] = t < tokens.lines ? own : kNothing;
  }
}

// c after every key of a head, from `from[sequence · stride]` (or nothing) on, and the last of them. Grid: B · G.
__global__ void __launch_bounds__(kFavorThreads, 1) climb(Favor f, const float* from, int64_t stride, float* last) {
  constexpr int kRun = 8;
  GPU_SHARED(float, room, [kFavorThreads / 32]);
  const int64_t b = blockIdx.x / f.n.G, g = blockIdx.x % f.n.G;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  float carry = from ? from[blockIdx.x * stride] : kNothing;
  if (threadIdx.x == 0) f.start[blockIdx.x] = carry;
  for (int64_t base = 0; base < f.n.T; base += kRun * kFavorThreads) {
    const int64_t first = base + static_cast<int64_t>(threadIdx.x) * kRun;
    float run[kRun], own = kNothing;
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      if (first + i < f.n.T) own = later_c(own, f.scale[f.key(b, first + i, g)]);
      run[i] = own;
    }
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const float below = __shfl_up_sync(kAllLanes, own, static_cast<unsigned>(step));
      if (lane >= step) own = later_c(below, own);
    }
    if (lane == 31) room[warp] = own;
    const float below = __shfl_up_sync(kAllLanes, own, 1);
    __syncthreads();
    float before = carry;
    for (int w = 0; w < kFavorThreads / 32; ++w) {
      if (w == warp) before = carry;
      carry = later_c(carry, room[w]);
    }
    if (lane > 0) before = later_c(before, below);
#pragma unroll
    for (int i = 0; i < kRun; ++i)
      if (first + i < f.n.T) f.running[f.key(b, first + i, g)] = later_c(before, run[i]);
    __syncthreads();
  }
  __syncthreads();  // `last` may be where `from` is, which all threads have read by now
  if (last && threadIdx.x == 0) last[blockIdx.x] = carry;
}

// ---- launching -----------------------------------------------------------------------------------

inline void expect_columns(const FavorSizes& n) {
  if (n.D > kMostFavorColumns || n.E > kMostFavorColumns)
    fail(OPLUS_BAD_SHAPE, "D, E are %lld, %lld, expected at most %lld on this device", static_cast<long long>(n.D),
         static_cast<long long>(n.E), static_cast<long long>(kMostFavorColumns));
}

// f's arrays from `memory` on; returns how many floats they take, a multiple of four. Without memory it only counts.
inline int64_t place(Favor& f, float* memory) {
  const int64_t queries = volume(f.n.B, f.n.T, f.n.H), keys = volume(f.n.B, f.n.T, f.n.G);
  const bool tops = f.n.feature == Feature::exponential;
  int64_t taken = 0;
  const auto take = [&](int64_t count) {
    float* at = memory ? memory + taken : nullptr;
    taken += divide_up(count, 4) * 4;
    return at;
  };
  f.top_q = tops ? take(queries) : nullptr, f.top_k = tops ? take(keys) : nullptr;
  f.scale = take(keys), f.running = take(keys), f.start = take(f.n.B * f.n.G);
  return taken;
}

// top, scale and running. `from`: where c begins, `stride` apart, or null; `last`: where c ends goes there, or null.
template <bool kFour>
void measure_tokens(Stream stream, const Favor& f, const float* q, const float* k, const float* from, int64_t stride,
                    float* last) {
  const FavorSizes& n = f.n;
  const int64_t chunks = divide_up(n.T, kSquare);
  if (f.top_q)
    gpu::launch(token_scales<kFour>, blocks(n.B * n.H * chunks), kFavorThreads, stream, f, q, n.H, f.top_q, nullptr, chunks);
  gpu::launch(token_scales<kFour>, blocks(n.B * n.G * chunks), kFavorThreads, stream, f, k, n.G, f.top_k, f.scale, chunks);
  gpu::launch(climb, blocks(n.B * n.G), kFavorThreads, stream, f, from, stride, last);
}

// f(width, four) with the smallest kWidth for `columns`.
template <typename F>
void with_columns(int64_t columns, bool four, F&& f) {
  const auto width = [&](auto is_four) {
    if (columns <= 32) f(std::integral_constant<int, 2>{}, is_four);
    else if (columns <= 64) f(std::integral_constant<int, 4>{}, is_four);
    else f(std::integral_constant<int, 8>{}, is_four);
  };
  if (four) width(std::true_type{});
  else width(std::false_type{});
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
