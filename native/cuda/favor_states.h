// States of linear attention between segments, on CUDA. Where there are few heads time is cut into segments, so that blocks can
// take them side by side:
//
//   segment_sums    what each segment adds, a block for 64 features of it, summed in registers over its tokens
//   carry_forward,  the states before segments (of the gradient: after them) from those, a thread for each number
//   carry_back
#pragma once
#include "favor_tile.h"

namespace oplus::OPLUS_TARGET {
namespace {

// What a segment adds of keys: e^(ℓ − c_end) ψ(k) [v | 1], one head. (Of queries: favor_backward.h)
struct Keys {
  const float *x, *y;
  template <bool kFour>
  __device__ Lines<true, kFour> lines(const Favor& f, int64_t b, int64_t g, int64_t) const {
    return f.tokens<kFour>(x, b, g, f.n.G, f.n.D);
  }
  template <bool kFour>
  __device__ Lines<true, kFour> values(const Favor& f, int64_t b, int64_t g, int64_t) const {
    return f.tokens<kFour>(y, b, g, f.n.G, f.n.E);
  }
  __device__ static int64_t heads(const Favor&) { return 1; }
  __device__ static float top(const Favor& f, int64_t b, int64_t g, int64_t, int64_t t) { return f.key_top(b, t, g); }
  __device__ static float frame(const Favor& f, int64_t b, int64_t g, int64_t segment) { return f.frame(b, g, segment); }
  __device__ void weigh(const Favor& f, float frame, int64_t b, int64_t g, int64_t, int64_t t, float* line, float* one) const {
    *line = *one = fade(f.scale[f.key(b, t, g)], frame);
  }
};

// Into the slot of the first head that shares the keys. Grid: B · G · segments × tiles of features.
template <int kWidth, bool kFour, typename Tokens>
__global__ void __launch_bounds__(kFavorThreads, 1) segment_sums(Favor f, Tokens from, Slots slots) {
  using Tile = FavorTile<kWidth>;
  GPU_SHARED(Square, room, [1]);
  GPU_SHARED(Square, psi_square, [1]);
  GPU_SHARED(float, slab, [Tile::kSlab]);
  GPU_SHARED(float, tops, [kSquare]);
  GPU_SHARED(float, factors, [2][kSquare]);
  const int64_t segment = blockIdx.x % f.segments, g = blockIdx.x / f.segments % f.n.G, b = blockIdx.x / f.segments / f.n.G;
  const int64_t tile = static_cast<int64_t>(blockIdx.y) * kSquare, end = min((segment + 1) * f.span, f.length(b));
  const float frame = Tokens::frame(f, b, g, segment);
  float S[4][kWidth] = {}, z = 0;
  for (int64_t h = g * f.n.group(); h < g * f.n.group() + Tokens::heads(f); ++h) {
    const auto lines = from.template lines<kFour>(f, b, g, h);
    const auto values = from.template values<kFour>(f, b, g, h);
    for (int64_t first = segment * f.span; first < end; first += kSquare) {
      float psi[4][4], slope[4][4], line = 0, one = 0;
      __syncthreads();  // those of the chunk before are still read
      if (threadIdx.x < kSquare) {
        const int64_t t = first + threadIdx.x;
        if (t < end) from.weigh(f, frame, b, g, h, t, &line, &one);
        tops[threadIdx.x] = Tokens::top(f, b, g, h, t), factors[0][threadIdx.x] = line, factors[1][threadIdx.x] = one;
      }
      features<kFour>(f, &room[0][0][0], lines, first, tile, tops, psi, slope);
      put_rows(psi_square[0], psi);
      __syncthreads();
      z += row_sum<Side::down>(psi_square[0], factors[1]);
      float of_chunk[4][kWidth] = {};
      Tile::template add_lines<Side::down>(slab, psi_square[0], Weighted<kFour>{values, first, factors[0]}, of_chunk);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < kWidth; ++j) S[i][j] += of_chunk[i][j];
    }
  }
  const int64_t to = f.slot(b, g * f.n.group(), segment), m = tile + threadIdx.x / 4;
  if (threadIdx.x % 4 == 0 && m < f.n.M) slots.z(to)[m] = z;
  Tile::move_on(slots, slots.S(to), tile, 0, S);
}

// States as operations have them, c apart: z [n, M], S [n, M, E]. z null: nothing.
struct FavorStates {
  float *z, *S;
  __device__ float* number(const FavorSizes& n, int64_t state, int64_t i) const {
    return !z ? nullptr : i < n.M ? z + state * n.M + i : S + state * n.M * n.E + i - n.M;
  }
};

constexpr int kCarryThreads = 256;

inline dim3 carry_grid(const FavorSizes& n) { return dim3(blocks(n.B * n.G), blocks(divide_up(n.M * (1 + n.E), kCarryThreads))); }

template <int kWidth, bool kFour, typename Tokens>
void sum_segments(Stream stream, const Favor& f, const Tokens& tokens, const Slots& slots) {
  const dim3 grid(blocks(f.n.B * f.n.G * f.segments), blocks(divide_up(f.n.M, kSquare)));
  gpu::launch(segment_sums<kWidth, kFour, Tokens>, grid, kFavorThreads, stream, f, tokens, slots);
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
