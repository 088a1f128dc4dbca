// The gradient of linear attention's queries on CUDA; ops/linear_attention_backward.cu says where it comes in.
#pragma once
#include "favor_backward.h"

namespace oplus::OPLUS_TARGET {
namespace {

struct Given {
  const float *q, *k, *v, *up, *r;  // up: ĝ
};

// One block a multiprocessor is said because the compiler would else rather spill registers than go below two.
template <int kWidth, bool kFour>
__global__ void __launch_bounds__(kFavorThreads, 1) query_gradient(Favor f, Given in, Slots slots, float* dq) {
  using Tile = FavorTile<kWidth>;
  GPU_SHARED(Square, squares, [2]);
  GPU_SHARED(float, slab, [Tile::kSlab]);
  GPU_SHARED(float, top_q, [kSquare]);
  GPU_SHARED(float, top_k, [kSquare]);
  GPU_SHARED(float, weight, [kSquare]);
  GPU_SHARED(float, fades, [kSquare]);
  GPU_SHARED(float, r, [kSquare]);
  const FavorSizes& n = f.n;
  const int64_t segment = blockIdx.x % f.segments, h = blockIdx.x / f.segments % n.H, b = blockIdx.x / f.segments / n.H;
  const int64_t g = h / n.group(), length = f.length(b), end = min((segment + 1) * f.span, n.T);
  const int64_t slot = n.causal ? f.slot(b, h, segment) : f.slot(b, g * n.group(), 0);
  const auto queries = f.template tokens<kFour>(in.q, b, h, n.H, n.D), keys = f.template tokens<kFour>(in.k, b, g, n.G, n.D),
             values = f.template tokens<kFour>(in.v, b, g, n.G, n.E), ups = f.template tokens<kFour>(in.up, b, h, n.H, n.E);
  const Lines<true, kFour> S{slots.S(slot), slots.columns, n.M, n.E}, omega = f.template projection<kFour>();
  float* room = &squares[0][0][0];

  for (int64_t first = segment * f.span; first < end; first += kSquare) {
    const bool last = first + kSquare >= end;
    const float before = n.causal ? f.c(b, g, first - 1) : f.c(b, g, n.T - 1);
    const float after = n.causal ? f.c(b, g, min(first + kSquare, n.T) - 1) : before, keep = fade(before, after);
    __syncthreads();  // those of the chunk before are still read
    if (threadIdx.x < kSquare) {
      const int64_t t = first + threadIdx.x;
      top_q[threadIdx.x] = f.query_top(b, t, h), top_k[threadIdx.x] = f.key_top(b, t, g);
      weight[threadIdx.x] = t < end ? fade(f.scale[f.key(b, t, g)], after) : 0;
      fades[threadIdx.x] = !n.causal ? 1 : t < end ? fade(before, f.c(b, g, t)) : 0;
      r[threadIdx.x] = t < end ? in.r[f.query(b, t, h)] : 0;
    }

    float within[4][4] = {}, out[4][kWidth] = {};  // B, and dx
    if (n.causal && first < length) {
      float weights[4][4];
      Tile::template dot_rows<kFour>(room, ups, first, values, first, within);
      weights_within(f, b, g, first, end, weights);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          within[i][j] = weights[i][j] == 0 ? 0 : (within[i][j] + r[Tile::ty() * 4 + i]) * weights[i][j];
    }
    for (int64_t tile = first < length ? 0 : n.M; tile < n.M; tile += kSquare) {
      float psi[4][4], slope[4][4], d[4][4];
      Tile::template dot_rows<kFour>(room, ups, here(first), S, here(tile), d);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t m = tile + Tile::tx() * 4 + j;
        const float z = m < n.M ? slots.z(slot)[m] : 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = Tile::ty() * 4 + i;
          d[i][j] = fades[row] == 0 ? 0 : fades[row] * (d[i][j] + z * r[row]);
        }
      }
      if (n.causal) {
        features<kFour>(f, room, keys, here(first), here(tile), top_k, psi, slope);
        __syncthreads();  // the panels are still read
        put_columns(squares[0], within), put_rows(squares[1], psi);
        __syncthreads();
        add_square<Side::down>(squares[0], squares[1], d);
        if (!last) {
          const float added = row_sum<Side::down>(squares[1], weight);
          const int64_t m = tile + threadIdx.x / 4;
          if (threadIdx.x % 4 == 0 && m < n.M) slots.z(slot)[m] = (keep == 0 ? 0 : keep * slots.z(slot)[m]) + added;
          float added_S[4][kWidth] = {};
          Tile::template add_lines<Side::down>(slab, squares[1], Weighted<kFour>{values, here(first), weight}, added_S);
          Tile::move_on(slots, slots.S(slot), here(tile), keep, added_S);
        }
      }
      features<kFour>(f, room, queries, here(first), here(tile), top_q, psi, slope);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) d[i][j] *= slope[i][j];
      __syncthreads();  // the panels are still read
      put_columns(squares[0], d);
      Tile::template add_lines<Side::down>(slab, squares[0], Weighted<kFour>{omega, here(tile), nullptr}, out);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t t = first + Tile::ty() * 4 + i;
      if (t >= end) continue;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) out[i][j] = t < length ? out[i][j] : 0;
      Tile::write(dq + f.query(b, t, h) * n.D, n.D, out[i], n.factor);
    }
  }
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
