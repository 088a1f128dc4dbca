// What the gradient of linear attention on CUDA needs besides its two large kernels (ops/linear_attention_backward.cu): ĝ and r,
// weights within a chunk, and the sums T of queries (ops/favor_backward.h) from the last segment to the first.
#pragma once
#include "favor_states.h"

namespace oplus::OPLUS_TARGET {
namespace {

// What a segment adds of queries: e^(c_before − c_t) ψ(q) [ĝ | r], over the heads that share its keys.
struct Queries {
  const float *x, *y, *r;  // q, ĝ, r
  template <bool kFour>
  __device__ Lines<true, kFour> lines(const Favor& f, int64_t b, int64_t, int64_t h) const {
    return f.tokens<kFour>(x, b, h, f.n.H, f.n.D);
  }
  template <bool kFour>
  __device__ Lines<true, kFour> values(const Favor& f, int64_t b, int64_t, int64_t h) const {
    return f.tokens<kFour>(y, b, h, f.n.H, f.n.E);
  }
  __device__ static int64_t heads(const Favor& f) { return f.n.group(); }
  __device__ static float top(const Favor& f, int64_t b, int64_t, int64_t h, int64_t t) { return f.query_top(b, t, h); }
  __device__ static float frame(const Favor& f, int64_t b, int64_t g, int64_t segment) { return f.frame(b, g, segment - 1); }
  __device__ void weigh(const Favor& f, float frame, int64_t b, int64_t g, int64_t h, int64_t t, float* line, float* one) const {
    *line = f.n.causal ? fade(frame, f.c(b, g, t)) : 1;
    *one = *line * r[f.query(b, t, h)];
  }
};

// ĝ = g / R and r = −ĝ·o; where nothing was seen there is nothing to divide by. A warp takes a row.
__global__ void __launch_bounds__(kFavorThreads)
    upwards(const float* g, const float* o, const float* R, float* up, float* r, int64_t rows, int64_t E) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kFavorThreads / 32) + threadIdx.x / 32;
  const float by = row < rows ? R[row] : 0;
  float sum = 0;
  if (row < rows)
    for (int64_t e = threadIdx.x % 32; e < E; e += 32) {
      const float x = by == 0 ? 0 : g[row * E + e] / by;
      up[row * E + e] = x;
      sum -= x * o[row * E + e];
    }
  sum = warp_sum(sum);
  if (row < rows && threadIdx.x % 32 == 0) r[row] = sum;
}

// Weights of a chunk's queries for its keys, in a thread's rows and columns: e^(ℓ_i − c_t), 0 where t does not see i.
__device__ void weights_within(const Favor& f, int64_t b, int64_t g, int64_t first, int64_t end, float (&weight)[4][4]) {
  using Tile = Tile<4, 4>;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int column = Tile::tx() * 4 + j;
    const float scale = first + column < end ? f.scale[f.key(b, first + column, g)] : kNothing;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = Tile::ty() * 4 + i;
      weight[i][j] = column <= row && first + row < end ? fade(scale, f.c(b, g, first + row)) : 0;
    }
  }
}

// The states before segments from the marks. Grid as above.
__global__ void __launch_bounds__(kCarryThreads) read_marks(Favor f, Slots slots, const float* marks) {
  const FavorSizes& n = f.n;
  const int64_t b = blockIdx.x / n.G, h = blockIdx.x % n.G * n.group();
  const int64_t index = static_cast<int64_t>(blockIdx.y) * kCarryThreads + threadIdx.x;
  if (index >= n.M * (1 + n.E)) return;
  const int64_t at = slots.place(index), count = n.causal ? f.segments : min(f.segments, int64_t{1});
  for (int64_t s = 0; s < count; ++s) {
    const float state = marks[(blockIdx.x * n.marks() + s) * n.mark() + 1 + index];
    for (int64_t i = 0; i < (n.causal ? n.group() : 1); ++i) slots.data[f.slot(b, h + i, s) * slots.size() + at] = state;
  }
}

// T after segments, relative to c at their end: into the slots of the first head, whose gradient takes it; the other heads begin
// with nothing. `own`: whether segments add anything. What is left before the first token goes to `last`. Grid as above.
__global__ void __launch_bounds__(kCarryThreads) carry_back(Favor f, Slots slots, FavorStates from, FavorStates last, bool own) {
  const FavorSizes& n = f.n;
  const int64_t b = blockIdx.x / n.G, g = blockIdx.x % n.G, h = g * n.group();
  const int64_t index = static_cast<int64_t>(blockIdx.y) * kCarryThreads + threadIdx.x;
  if (index >= n.M * (1 + n.E)) return;
  const int64_t at = slots.place(index), size = slots.size();
  const float* begin = from.number(n, blockIdx.x, index);
  float state = begin ? *begin : 0;
  for (int64_t s = f.segments - 1; s >= 0; --s) {
    float* slot = slots.data + f.slot(b, h, s) * size + at;
    const float added = own ? *slot : 0;
    if (n.causal) {
      *slot = state;
      for (int64_t i = 1; i < n.group(); ++i) slots.data[f.slot(b, h + i, s) * size + at] = 0;
      state = kept(state, f.frame(b, g, s - 1), f.frame(b, g, s));
    }
    state += added;
  }
  if (!n.causal && f.segments > 0) slots.data[f.slot(b, h, 0) * size + at] = state;
  if (float* to = last.number(n, blockIdx.x, index)) *to = state;
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
