// Root mean square normalisation: y = x · gamma / √(mean x² + epsilon) (Zhang & Sennrich 2019, equation 4), and its gradient.
//
// Rows (rms_normalize, rms_backward): a row belongs to kWarps warps: one up to 1,024 columns, where a block of 8 warps takes 8
// rows, else a block. Lanes take V columns at a time; sums meet by shuffles, and across the warps of a row in shared memory. A
// row is read twice, the second time from the first-level cache; a thread writes only columns that it alone reads, so y may be x.
// Columns (rms_gain): a block of 32 × 8 threads takes 32 columns and a part of the rows, its warps every eighth row; they meet in
// shared memory, and parts are added by cuda/columns.h. g and x are read once more, and the factor of each row from scratch.
#include "cuda/columns.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kWarpColumns = 1024;

// The sum over the threads of a row, the same in all of them.
template <int kWarps>
__device__ float row_sum(float x, float* room) {
  if constexpr (kWarps == 1) return warp_sum(x);
  else return block_sum<32 * kWarps>(x, room);
}

template <int V, int kWarps>
__global__ void __launch_bounds__(kThreads)
    rms_normalize(const float* x, const float* gamma, float* y, int64_t N, int64_t C, float epsilon) {
  GPU_SHARED(float, room, [kThreads / 32]);
  constexpr int kLanes = 32 * kWarps, kRows = kThreads / kLanes;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kLanes;
  const int64_t end = row < N ? C : 0;  // warps behind the last row go along, so that none leaves before a barrier
  const int first = static_cast<int>(threadIdx.x) % kLanes * V;
  float squares = 0;
  for (int64_t c = first; c < end; c += kLanes * V) {
    const Pack<V> in = load_pack<V>(x + row * C + c);
#pragma unroll
    for (int j = 0; j < V; ++j) squares += in.x[j] * in.x[j];
  }
  const float scale = 1 / sqrtf(row_sum<kWarps>(squares, room) / static_cast<float>(C) + epsilon);
  for (int64_t c = first; c < end; c += kLanes * V) {
    Pack<V> out = load_pack<V>(x + row * C + c);
    const Pack<V> gain = load_pack<V>(gamma + c);
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] = out.x[j] * scale * gain.x[j];
    store_pack<V>(y + row * C + c, out);
  }
}

// dx, and 1 / √(mean x² + epsilon) of every row, [N].
template <int V, int kWarps>
__global__ void __launch_bounds__(kThreads) rms_backward(const float* g, const float* x, const float* gamma, float* dx,
                                                         float* factor, int64_t N, int64_t C, float epsilon) {
  GPU_SHARED(float, room, [kThreads / 32]);
  constexpr int kLanes = 32 * kWarps, kRows = kThreads / kLanes;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kLanes;
  const int64_t end = row < N ? C : 0;
  const int first = static_cast<int>(threadIdx.x) % kLanes * V;
  float squares = 0, along = 0;  // Σ x² and Σ g·gamma·x
  for (int64_t c = first; c < end; c += kLanes * V) {
    const Pack<V> up = load_pack<V>(g + row * C + c), in = load_pack<V>(x + row * C + c), gain = load_pack<V>(gamma + c);
#pragma unroll
    for (int j = 0; j < V; ++j) squares += in.x[j] * in.x[j], along += up.x[j] * gain.x[j] * in.x[j];
  }
  const float scale = 1 / sqrtf(row_sum<kWarps>(squares, room) / static_cast<float>(C) + epsilon);
  along = row_sum<kWarps>(along, room) * scale / static_cast<float>(C);
  for (int64_t c = first; c < end; c += kLanes * V) {
    const Pack<V> in = load_pack<V>(x + row * C + c), gain = load_pack<V>(gamma + c);
    Pack<V> out = load_pack<V>(g + row * C + c);
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] = scale * (out.x[j] * gain.x[j] - in.x[j] * scale * along);
    store_pack<V>(dx + row * C + c, out);
  }
  if (first == 0 && row < N) factor[row] = scale;
}

// dgamma[c] = Σ g·x·factor over the rows of a part: [parts, C].
__global__ void __launch_bounds__(32 * kColumnWarps)
    rms_gain(const float* g, const float* x, const float* factor, float* dgamma, int64_t N, int64_t C, int64_t part) {
  GPU_SHARED(float, room, [kColumnWarps][32]);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + lane;
  const int64_t first = blockIdx.y * part, end = min(N, first + part);
  float gain = 0;
  if (c < C)
    for (int64_t n = first + warp; n < end; n += kColumnWarps) gain += g[n * C + c] * (x[n * C + c] * factor[n]);
  room[warp][lane] = gain;
  __syncthreads();
  if (warp == 0 && c < C) {
    for (int w = 1; w < kColumnWarps; ++w) gain += room[w][lane];
    dgamma[blockIdx.y * C + c] = gain;
  }
}

void rms_norm(Stream stream, In<float> x, In<float> gamma, Out<float> y, int64_t N, int64_t C, float epsilon) {
  expect("x", x, volume(N, C)), expect("gamma", gamma, C), expect("y", y, volume(N, C));
  if (C == 0) return;
  const auto run = [&](auto kernel, int64_t rows) {
    gpu::launch(kernel, blocks(divide_up(N, rows)), kThreads, stream, x.data, gamma.data, y.data, N, C, epsilon);
  };
  const bool four = C % 4 == 0 && aligned(x.data, gamma.data, y.data);
  if (C <= kWarpColumns) four ? run(rms_normalize<4, 1>, 8) : run(rms_normalize<1, 1>, 8);
  else four ? run(rms_normalize<4, 8>, 1) : run(rms_normalize<1, 8>, 1);
}

void rms_norm_backward(Stream stream, In<float> g, In<float> x, In<float> gamma, Out<float> dx, Out<float> dgamma, int64_t N,
                       int64_t C, float epsilon) {
  expect("g", g, volume(N, C)), expect("x", x, volume(N, C)), expect("gamma", gamma, C);
  expect("dx", dx, volume(N, C)), expect("dgamma", dgamma, C);
  if (C == 0) return;
  const int64_t parts = column_parts(stream, C, N);
  float* factor = gpu::scratch(stream, N + parts * C);
  float* partial = parts > 1 ? factor + N : dgamma.data;
  const auto run = [&](auto kernel, int64_t rows) {
    gpu::launch(kernel, blocks(divide_up(N, rows)), kThreads, stream, g.data, x.data, gamma.data, dx.data, factor, N, C, epsilon);
  };
  const bool four = C % 4 == 0 && aligned(g.data, x.data, gamma.data, dx.data);
  if (C <= kWarpColumns) four ? run(rms_backward<4, 1>, 8) : run(rms_backward<1, 1>, 8);
  else four ? run(rms_backward<4, 8>, 1) : run(rms_backward<1, 8>, 1);
  const dim3 grid(blocks(divide_up(C, 32)), blocks(parts));
  gpu::launch(rms_gain, grid, 32 * kColumnWarps, stream, g.data, x.data, factor, partial, N, C, divide_up(N, parts));
  if (parts > 1) launch_columns(stream, partial, dgamma.data, 1, parts, C, 1);
}

constexpr oplus_op list[] = {op<rms_norm>("rmsNorm"), op<rms_norm_backward>("rmsNormBackward")};

}  // namespace

extern constinit const Ops rms_norm_ops(list);

}  // namespace oplus::OPLUS_TARGET
