// Sums over one dimension: y[o, i] = Σ_k x[o, k, i], always added in the same order on the same device. x is read once.
//
// Columns (sum_columns): a block of 32 × 8 threads takes 32 of the outer · inner sums, so that a warp reads 128 bytes in a
// row, and its 8 warps take every eighth k; they meet in shared memory. Rows (inner = 1, sum_rows): a warp takes one sum, its
// lanes every 32nd k, and they meet by shuffles. Where there are too few sums to fill the card, k is cut into parts along
// grid.y, and a second launch adds the parts.
#include "cuda/columns.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kRowWarps = 8;          // in a block: each warp works alone
constexpr int64_t kRowLength = 1024;  // elements worth a warp of its own: 32 loads a lane

__global__ void __launch_bounds__(32 * kRowWarps) sum_rows(const float* x, float* y, int64_t rows, int64_t n, int64_t part) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowWarps + threadIdx.x / 32;
  const int64_t first = blockIdx.y * part, end = min(n, first + part);
  float sum = 0;
  if (row < rows)
    for (int64_t k = first + threadIdx.x % 32; k < end; k += 32) sum += x[row * n + k];
  sum = warp_sum(sum);
  if (row < rows && threadIdx.x % 32 == 0) y[blockIdx.y * rows + row] = sum;
}

void launch_rows(Stream stream, const float* x, float* y, int64_t rows, int64_t n, int64_t parts) {
  const dim3 grid(blocks(divide_up(rows, kRowWarps)), blocks(parts));
  gpu::launch(sum_rows, grid, 32 * kRowWarps, stream, x, y, rows, n, divide_up(n, parts));
}

void sum(Stream stream, In<float> x, Out<float> y, int64_t outer, int64_t n, int64_t inner) {
  expect("x", x, volume(outer, n, inner));
  expect("y", y, volume(outer, inner));
  if (inner != 1 || n < 32) return sum_columns(stream, x.data, y.data, outer, n, inner);
  const int64_t wanted = divide_up(16 * kRowWarps * gpu::processors(stream), at_least(1, outer));
  const int64_t parts = at_least(1, at_most(at_most(wanted, kMostParts), n / kRowLength));
  if (parts == 1) return launch_rows(stream, x.data, y.data, outer, n, 1);
  float* partial = gpu::scratch(stream, parts * outer);
  launch_rows(stream, x.data, partial, outer, n, parts);
  launch_columns(stream, partial, y.data, 1, parts, outer, 1);
}

constexpr oplus_op list[] = {op<sum>("sum")};

}  // namespace

extern constinit const Ops sum_ops(list);

}  // namespace oplus::OPLUS_TARGET
