// Matrix products with at most eight lines on one side: bound by reading the wide operand, which is read once.
//
// along_lines (lines lie along the depth: x · wᵀ for a few rows of x; the scores of a few heads): a warp takes one or four
// lines, its lanes V elements of the depth at a time, and they meet by shuffles. Four lines share the reads of the few.
// across_lines (lines lie across the depth: a gradient's xᵀ · g): a block of 8 warps takes 32 · V lines and a part of the depth,
// its warps every eighth step; they meet in shared memory, and parts are added by columns.h.
#pragma once
#include "columns.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kFewLines = 8;
constexpr int kNarrowWarps = 8;
constexpr int64_t kStepsWorthAPart = 128;  // depth: 16 a warp

// Element k of line s is data[s · line + k · step].
struct Few {
  const float* data;
  int64_t line, step, count;
};

// Where the product of line s of the few and wide line r goes: y[s · few + r · wide].
struct Narrow {
  float* y;
  int64_t few, wide;
  const float *bias_wide, *bias_few;  // one for each wide line, or for each of the few, or none
  int64_t size;                       // of y: parts lie one after the other
};

// Two blocks a multiprocessor are said because the compiler would else rather spill registers than go below three.
template <int kFew, int kLines, int V>
__global__ void __launch_bounds__(32 * kNarrowWarps, 2)
    along(Few few, const float* wide, int64_t lines, int64_t depth, Narrow out) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kNarrowWarps + threadIdx.x / 32) * kLines;
  float sum[kFew][kLines] = {};
  for (int64_t k = lane * V; k < depth; k += 32 * V) {
    Pack<V> x[kLines];
#pragma unroll
    for (int r = 0; r < kLines; ++r) x[r] = load_pack<V>(wide + min(first + r, lines - 1) * depth + k);
#pragma unroll
    for (int s = 0; s < kFew; ++s) {
      if (s >= few.count) break;
      Pack<V> w;
      if (V > 1) w = load_pack<V>(few.data + s * few.line + k);
      else w.x[0] = few.data[s * few.line + k * few.step];
#pragma unroll
      for (int r = 0; r < kLines; ++r)
#pragma unroll
        for (int j = 0; j < V; ++j) sum[s][r] += x[r].x[j] * w.x[j];
    }
  }
#pragma unroll
  for (int s = 0; s < kFew; ++s)
#pragma unroll
    for (int r = 0; r < kLines; ++r) {
      const float total = warp_sum(sum[s][r]);
      const int64_t line = first + r;
      if (lane != 0 || s >= few.count || line >= lines) continue;
      const float bias = out.bias_wide ? out.bias_wide[line] : out.bias_few ? out.bias_few[s] : 0.0f;
      out.y[s * out.few + line * out.wide] = total + bias;
    }
}

template <int kFew, int V>
__global__ void __launch_bounds__(32 * kNarrowWarps)
    across(Few few, const float* wide, int64_t lines, int64_t depth, int64_t part, Narrow out) {
  GPU_SHARED(float, room, [kNarrowWarps][kFew][32 * V]);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t line = (static_cast<int64_t>(blockIdx.x) * 32 + lane) * V;
  const int64_t first = blockIdx.y * part, end = min(depth, first + part);
  float sum[kFew][V] = {};
  if (line < lines)
    for (int64_t k = first + warp; k < end; k += kNarrowWarps) {
      const Pack<V> x = load_pack<V>(wide + k * lines + line);
#pragma unroll
      for (int s = 0; s < kFew; ++s) {
        if (s >= few.count) break;
        const float w = few.data[s * few.line + k * few.step];
#pragma unroll
        for (int j = 0; j < V; ++j) sum[s][j] += x.x[j] * w;
      }
    }
#pragma unroll
  for (int s = 0; s < kFew; ++s)
#pragma unroll
    for (int j = 0; j < V; ++j) room[warp][s][lane * V + j] = sum[s][j];
  __syncthreads();
  // Every thread adds what the eight warps have for some of the block's results.
  float* y = out.y + blockIdx.y * out.size;
  for (int i = static_cast<int>(threadIdx.x); i < few.count * 32 * V; i += 32 * kNarrowWarps) {
    const int s = i / (32 * V), r = i % (32 * V);
    const int64_t to = static_cast<int64_t>(blockIdx.x) * 32 * V + r;
    if (to >= lines) continue;
    float total = 0;
    for (int w = 0; w < kNarrowWarps; ++w) total += room[w][s][r];
    y[s * out.few + to * out.wide] = total;
  }
}

template <int kFew>
void run_along(Stream stream, const Few& few, const float* wide, int64_t lines, int64_t depth, const Narrow& out) {
  const auto run = [&](auto kernel, int64_t each) {
    gpu::launch(kernel, blocks(divide_up(lines, each * kNarrowWarps)), 32 * kNarrowWarps, stream, few, wide, lines, depth, out);
  };
  const bool four = few.step == 1 && few.line % 4 == 0 && depth % 4 == 0 && aligned(few.data, wide);
  const bool many = lines >= 4 * 16 * kNarrowWarps * gpu::processors(stream);  // four a warp still fill the card
  if (many) four ? run(along<kFew, 4, 4>, 4) : run(along<kFew, 4, 1>, 4);
  else four ? run(along<kFew, 1, 4>, 1) : run(along<kFew, 1, 1>, 1);
}

void along_lines(Stream stream, const Few& few, const float* wide, int64_t lines, int64_t depth, const Narrow& out) {
  if (few.count == 1) run_along<1>(stream, few, wide, lines, depth, out);
  else if (few.count <= 4) run_along<4>(stream, few, wide, lines, depth, out);
  else run_along<kFewLines>(stream, few, wide, lines, depth, out);
}

template <int kFew>
void run_across(Stream stream, const Few& few, const float* wide, int64_t lines, int64_t depth, const Narrow& out, int64_t parts,
                bool four) {
  const dim3 grid(blocks(divide_up(lines, four ? 128 : 32)), blocks(parts));
  gpu::launch(four ? across<kFew, 4> : across<kFew, 1>, grid, 32 * kNarrowWarps, stream, few, wide, lines, depth,
              divide_up(depth, parts), out);
}

// No bias: only the gradients' products have this shape.
void across_lines(Stream stream, const Few& few, const float* wide, int64_t lines, int64_t depth, Narrow out) {
  const bool four = lines % 4 == 0 && aligned(wide);
  const int64_t wanted = divide_up(8 * gpu::processors(stream), divide_up(lines, four ? 128 : 32));
  const int64_t parts = at_least(1, at_most(at_most(wanted, kMostParts), depth / kStepsWorthAPart));
  float* const y = out.y;
  if (parts > 1) out.y = gpu::scratch(stream, parts * out.size);
  if (few.count == 1) run_across<1>(stream, few, wide, lines, depth, out, parts, four);
  else if (few.count <= 4) run_across<4>(stream, few, wide, lines, depth, out, parts, four);
  else run_across<kFewLines>(stream, few, wide, lines, depth, out, parts, four);
  if (parts > 1) launch_columns(stream, out.y, y, 1, parts, out.size, 1);
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
