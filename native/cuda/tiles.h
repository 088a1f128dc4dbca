// A product of two operands in tiles: y[M, N] = a · bᵀ + bias, summed in f32.
//
// A block of 256 threads makes a tile of y, 128 × 128 or 64 × 64, a thread 8 × 8 or 4 × 4 of it in registers (rows and
// columns in fours, 64 apart). Panels 16 deep of both operands go through shared memory, two of each: while one pair is
// multiplied, the next is on its way into registers. A tile reads its rows of both operands once. Where there are too few
// tiles to fill the card, the depth is cut into parts along grid.y, which cuda/columns.h adds in order.
//
// An operand is anything with kAlong, depth and four(line, k) as Lines has them (panel.h).
#pragma once
#include "columns.h"
#include "panel.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kTileThreads = 256;
constexpr int kTileDepth = 16;       // two pairs of panels for 128 × 128 take 34 KB of shared memory
constexpr int64_t kPartDepth = 256;  // depth worth a part of its own: 16 panels against writing and adding a tile

struct Result {
  float* y;           // [parts, M, N]
  const float* bias;  // [N] or null: goes into the first part
  int64_t M, N;
  int64_t columns;  // tiles side by side
  int64_t part;     // depth of a part, a multiple of kTileDepth
  bool four;        // rows of y can be written four floats at a time
};

// Blocks a multiprocessor are said because the compiler would else rather spill registers than have one less.
template <int kTile, typename A, typename B>
__global__ void __launch_bounds__(kTileThreads, kTile == 128 ? 1 : 2) tiles(A a, B b, Result out) {
  constexpr int kSide = kTile / 16;  // rows and columns a thread
  using Side = Panel<kTile, kTileDepth, kTileThreads>;
  GPU_SHARED(typename Side::Shared, panel_a, [2]);
  GPU_SHARED(typename Side::Shared, panel_b, [2]);
  const int ty = static_cast<int>(threadIdx.x) / 16, tx = static_cast<int>(threadIdx.x) % 16;
  const int64_t row = blockIdx.x / out.columns * kTile, column = blockIdx.x % out.columns * kTile;
  const int64_t first = blockIdx.y * out.part, end = min(a.depth, first + out.part);
  float sum[kSide][kSide] = {};

  Side next_a, next_b;
  if (first < end) {
    next_a.fetch(a, row, first), next_b.fetch(b, column, first);
    next_a.template put<A::kAlong>(panel_a[0]), next_b.template put<B::kAlong>(panel_b[0]);
  }
  __syncthreads();
  int now = 0;
  for (int64_t k = first; k < end; k += kTileDepth, now ^= 1) {
    const bool more = k + kTileDepth < end;
    if (more) next_a.fetch(a, row, k + kTileDepth), next_b.fetch(b, column, k + kTileDepth);
#pragma unroll
    for (int d = 0; d < kTileDepth; ++d) {
      float x[kSide], w[kSide];
#pragma unroll
      for (int i = 0; i < kSide; i += 4) {
        const Pack<4> p = load_pack<4>(&panel_a[now][d][i * 16 + ty * 4]), q = load_pack<4>(&panel_b[now][d][i * 16 + tx * 4]);
#pragma unroll
        for (int j = 0; j < 4; ++j) x[i + j] = p.x[j], w[i + j] = q.x[j];
      }
#pragma unroll
      for (int i = 0; i < kSide; ++i)
#pragma unroll
        for (int j = 0; j < kSide; ++j) sum[i][j] += x[i] * w[j];
    }
    if (more) next_a.template put<A::kAlong>(panel_a[now ^ 1]), next_b.template put<B::kAlong>(panel_b[now ^ 1]);
    __syncthreads();
  }

  float* y = out.y + blockIdx.y * out.M * out.N;
  const float* bias = blockIdx.y == 0 ? out.bias : nullptr;
#pragma unroll
  for (int i = 0; i < kSide; ++i) {
    const int64_t m = row + i / 4 * 64 + ty * 4 + i % 4;
#pragma unroll
    for (int j = 0; j < kSide; j += 4) {
      const int64_t n = column + j * 16 + tx * 4;
      if (m >= out.M || n >= out.N) continue;
      Pack<4> v;
#pragma unroll
      for (int e = 0; e < 4; ++e) v.x[e] = sum[i][j + e] + (bias && n + e < out.N ? bias[n + e] : 0.0f);
      if (out.four) {
        store_pack<4>(y + m * out.N + n, v);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e)
          if (n + e < out.N) y[m * out.N + n + e] = v.x[e];
      }
    }
  }
}

// Asks for scratch memory; `y`, `bias`, M and N as in Result.
template <int kTile, typename A, typename B>
void run_tiles(Stream stream, const A& a, const B& b, const float* bias, float* y, int64_t M, int64_t N) {
  const int64_t K = a.depth, across = divide_up(N, kTile), count = divide_up(M, kTile) * across;
  const int64_t wanted = divide_up(2 * gpu::processors(stream), count);
  int64_t parts = at_least(1, at_most(at_most(wanted, kMostParts), K / kPartDepth));
  const int64_t part = at_least(1, divide_up(divide_up(K, parts), kTileDepth)) * kTileDepth;
  parts = at_least(1, divide_up(K, part));
  float* to = parts > 1 ? gpu::scratch(stream, parts * M * N) : y;
  const dim3 grid(blocks(count), blocks(parts));
  gpu::launch(tiles<kTile, A, B>, grid, kTileThreads, stream, a, b,
              Result{to, bias, M, N, across, part, N % 4 == 0 && aligned(to)});
  if (parts > 1) launch_columns(stream, to, y, 1, parts, M * N, 1);
}

// Large tiles do four times the work for twice the reads, where there are enough of them to fill the card.
inline bool large_tiles(Stream stream, int64_t M, int64_t N) {
  return divide_up(M, 128) * divide_up(N, 128) >= gpu::processors(stream);
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
