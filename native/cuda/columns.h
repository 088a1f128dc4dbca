// Sums down the columns: y[o, i] = Σ_k x[o, k, i]. Who does what: ops/sum.cu. Also adds the parts that other kernels leave.
#pragma once
#include "sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kColumnWarps = 8;
constexpr int64_t kColumnLength = 128;  // values of k worth a block of their own: 16 a thread
constexpr int64_t kMostParts = 1024;

__global__ void __launch_bounds__(32 * kColumnWarps)
    columns(const float* x, float* y, int64_t sums, int64_t n, int64_t inner, int64_t part) {
  GPU_SHARED(float, room, [kColumnWarps][32]);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t j = static_cast<int64_t>(blockIdx.x) * 32 + lane;
  const int64_t first = blockIdx.y * part, end = min(n, first + part);
  float sum = 0;
  if (j < sums) {
    const float* column = x + j / inner * n * inner + j % inner;
#pragma unroll 4
    for (int64_t k = first + warp; k < end; k += kColumnWarps) sum += column[k * inner];
  }
  room[warp][lane] = sum;
  __syncthreads();
  if (warp == 0 && j < sums) {
    for (int w = 1; w < kColumnWarps; ++w) sum += room[w][lane];
    y[blockIdx.y * sums + j] = sum;
  }
}

void launch_columns(Stream stream, const float* x, float* y, int64_t outer, int64_t n, int64_t inner, int64_t parts) {
  const int64_t sums = volume(outer, inner);
  const dim3 grid(blocks(divide_up(sums, 32)), blocks(parts));
  gpu::launch(columns, grid, 32 * kColumnWarps, stream, x, y, sums, n, inner, divide_up(n, parts));
}

// How many parts k is cut into so that the card is full.
int64_t column_parts(Stream stream, int64_t sums, int64_t n) {
  const int64_t wanted = divide_up(8 * gpu::processors(stream), at_least(1, divide_up(sums, 32)));
  return at_least(1, at_most(at_most(wanted, kMostParts), n / kColumnLength));
}

[[maybe_unused]] void sum_columns(Stream stream, const float* x, float* y, int64_t outer, int64_t n, int64_t inner) {
  const int64_t sums = volume(outer, inner), parts = column_parts(stream, sums, n);
  if (parts == 1) return launch_columns(stream, x, y, outer, n, inner, 1);
  float* partial = gpu::scratch(stream, parts * sums);
  launch_columns(stream, x, partial, outer, n, inner, parts);
  launch_columns(stream, partial, y, 1, parts, sums, 1);
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
