// The key projection of a fixed query folded into one vector a head (algorithms A.5 of the Aaren layer): a[h, c] = factor ·
// Σ_d q[h, d] · w[h·D + d, c], and its gradient. Both are bound by reading or writing w, which happens once.
//
// fold: a block of 8 warps takes 32 columns of one head (grid: column tiles × heads); its warps take every eighth d and meet in
// shared memory. fold_backward: a warp takes one row (h, d) of w: lanes walk along c, write their part of dw's row and meet by
// shuffles for dq[h, d].
#include "cuda/sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kWarps = 8;

__global__ void __launch_bounds__(32 * kWarps)
    fold(const float* q, const float* w, float* a, int64_t D, int64_t C, int64_t tiles, float factor) {
  GPU_SHARED(float, room, [kWarps][32]);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t h = blockIdx.x / tiles, c = blockIdx.x % tiles * 32 + lane;
  float sum = 0;
  if (c < C)
    for (int64_t d = warp; d < D; d += kWarps) sum += q[h * D + d] * w[(h * D + d) * C + c];
  room[warp][lane] = sum;
  __syncthreads();
  if (warp == 0 && c < C) {
    for (int i = 1; i < kWarps; ++i) sum += room[i][lane];
    a[h * C + c] = factor * sum;
  }
}

__global__ void __launch_bounds__(32 * kWarps) fold_backward(const float* q, const float* w, const float* da, float* dq,
                                                             float* dw, int64_t rows, int64_t D, int64_t C, float factor) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  float sum = 0;
  if (row < rows) {
    const float each = factor * q[row];
    const float* up = da + row / D * C;
    for (int64_t c = lane; c < C; c += 32) {
      sum += w[row * C + c] * up[c];
      dw[row * C + c] = each * up[c];
    }
  }
  sum = warp_sum(sum);
  if (row < rows && lane == 0) dq[row] = factor * sum;
}

void fold_query(Stream stream, In<float> q, In<float> w, Out<float> a, int64_t H, int64_t D, int64_t C, float factor) {
  expect("q", q, volume(H, D)), expect("w", w, volume(H, D, C)), expect("a", a, volume(H, C));
  const int64_t tiles = divide_up(C, 32);
  gpu::launch(fold, blocks(H * tiles), 32 * kWarps, stream, q.data, w.data, a.data, D, C, tiles, factor);
}

void fold_query_backward(Stream stream, In<float> q, In<float> w, In<float> da, Out<float> dq, Out<float> dw, int64_t H,
                         int64_t D, int64_t C, float factor) {
  expect("q", q, volume(H, D)), expect("w", w, volume(H, D, C)), expect("da", da, volume(H, C));
  expect("dq", dq, volume(H, D)), expect("dw", dw, volume(H, D, C));
  gpu::launch(fold_backward, blocks(divide_up(H * D, kWarps)), 32 * kWarps, stream, q.data, w.data, da.data, dq.data, dw.data,
              H * D, D, C, factor);
}

constexpr oplus_op list[] = {op<fold_query>("foldQuery"), op<fold_query_backward>("foldQueryBackward")};

}  // namespace

extern constinit const Ops fold_query_ops(list);

}  // namespace oplus::OPLUS_TARGET
