// Layer normalisation (Ba, Kiros & Hinton 2016) over the last dimension, and its gradient.
//
// Rows (normalize, normalize_backward): a row belongs to kWarps warps: one up to 1,024 columns, where a block of 8 warps takes
// 8 rows, else a block. Lanes take V columns at a time; sums meet by shuffles, and across the warps of a row in shared memory.
// The variance is the mean of (x − mean)², which needs the row again, so it is read three times (twice in the gradient): once
// from memory, then from the first-level cache.
// Columns (gain_backward): a block of 32 × 8 threads takes 32 columns and a part of the rows, its warps every eighth row; they
// meet in shared memory, and parts are added by cuda/columns.h. g and x are read once more.
#include "cuda/columns.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kWarpColumns = 1024;  // 8 floats a lane and pass: beyond, one warp a row would leave the card idle

// The sum over the threads of a row, the same in all of them.
template <int kWarps>
__device__ float row_sum(float x, float* room) {
  if constexpr (kWarps == 1) return warp_sum(x);
  else return block_sum<32 * kWarps>(x, room);
}

template <int V, int kWarps>
__global__ void __launch_bounds__(kThreads) normalize(const float* x, const float* gamma, const float* beta, float* y,
                                                      float* mean, float* rstd, int64_t N, int64_t C, float epsilon) {
  GPU_SHARED(float, room, [kThreads / 32]);
  constexpr int kLanes = 32 * kWarps, kRows = kThreads / kLanes;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kLanes;
  const int64_t end = row < N ? C : 0;  // warps behind the last row go along, so that none leaves before a barrier
  const int first = static_cast<int>(threadIdx.x) % kLanes * V;
  const float* from = x + row * C;
  float sum = 0, squares = 0;
  for (int64_t c = first; c < end; c += kLanes * V) {
    const Pack<V> in = load_pack<V>(from + c);
#pragma unroll
    for (int j = 0; j < V; ++j) sum += in.x[j];
  }
  const float middle = row_sum<kWarps>(sum, room) / static_cast<float>(C);
  for (int64_t c = first; c < end; c += kLanes * V) {
    const Pack<V> in = load_pack<V>(from + c);
#pragma unroll
    for (int j = 0; j < V; ++j) squares += (in.x[j] - middle) * (in.x[j] - middle);
  }
  const float scale = 1.0f / sqrtf(row_sum<kWarps>(squares, room) / static_cast<float>(C) + epsilon);
  for (int64_t c = first; c < end; c += kLanes * V) {
    Pack<V> out = load_pack<V>(from + c);
    const Pack<V> gain = load_pack<V>(gamma + c), bias = load_pack<V>(beta + c);
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] = (out.x[j] - middle) * scale * gain.x[j] + bias.x[j];
    store_pack<V>(y + row * C + c, out);
  }
  if (first == 0 && row < N) {
    if (mean) mean[row] = middle;
    if (rstd) rstd[row] = scale;
  }
}

template <int V, int kWarps>
__global__ void __launch_bounds__(kThreads)
    normalize_backward(const float* g, const float* x, const float* gamma, const float* mean, const float* rstd, float* dx,
                       int64_t N, int64_t C) {
  GPU_SHARED(float, room, [kThreads / 32]);
  constexpr int kLanes = 32 * kWarps, kRows = kThreads / kLanes;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kLanes;
  const int64_t end = row < N ? C : 0;
  const int first = static_cast<int>(threadIdx.x) % kLanes * V;
  const float middle = row < N ? mean[row] : 0, scale = row < N ? rstd[row] : 0;
  float plain = 0, along = 0;  // Σ g·gamma and Σ g·gamma·(normalised x)
  for (int64_t c = first; c < end; c += kLanes * V) {
    const Pack<V> up = load_pack<V>(g + row * C + c), in = load_pack<V>(x + row * C + c), gain = load_pack<V>(gamma + c);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const float dy = up.x[j] * gain.x[j];
      plain += dy;
      along += dy * ((in.x[j] - middle) * scale);
    }
  }
  plain = row_sum<kWarps>(plain, room) / static_cast<float>(C);
  along = row_sum<kWarps>(along, room) / static_cast<float>(C);
  for (int64_t c = first; c < end; c += kLanes * V) {
    const Pack<V> in = load_pack<V>(x + row * C + c), gain = load_pack<V>(gamma + c);
    Pack<V> out = load_pack<V>(g + row * C + c);
    // Rounded as in `plain`, not fused with the subtraction: in a row of one number the two cancel exactly.
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] = scale * (__fmul_rn(out.x[j], gain.x[j]) - plain - (in.x[j] - middle) * scale * along);
    store_pack<V>(dx + row * C + c, out);
  }
}

// dgamma[c] = Σ g·(normalised x), dbeta[c] = Σ g over the rows of a part: [parts, C] each.
__global__ void __launch_bounds__(32 * kColumnWarps)
    gain_backward(const float* g, const float* x, const float* mean, const float* rstd, float* dgamma, float* dbeta, int64_t N,
                  int64_t C, int64_t part) {
  GPU_SHARED(float, room, [kColumnWarps][2][32]);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + lane;
  const int64_t first = blockIdx.y * part, end = min(N, first + part);
  float gain = 0, bias = 0;
  if (c < C)
    for (int64_t n = first + warp; n < end; n += kColumnWarps) {
      const float up = g[n * C + c];
      gain += up * ((x[n * C + c] - mean[n]) * rstd[n]);
      bias += up;
    }
  room[warp][0][lane] = gain;
  room[warp][1][lane] = bias;
  __syncthreads();
  if (warp == 0 && c < C) {
    for (int w = 1; w < kColumnWarps; ++w) gain += room[w][0][lane], bias += room[w][1][lane];
    dgamma[blockIdx.y * C + c] = gain;
    dbeta[blockIdx.y * C + c] = bias;
  }
}

void layer_norm(Stream stream, In<float> x, In<float> gamma, In<float> beta, Out<float> y, MaybeOut<float> mean,
                MaybeOut<float> rstd, int64_t N, int64_t C, float epsilon) {
  expect("x", x, volume(N, C)), expect("gamma", gamma, C), expect("beta", beta, C), expect("y", y, volume(N, C));
  expect("mean", mean, N), expect("rstd", rstd, N);
  if (C == 0 && !mean && !rstd) return;
  const auto run = [&](auto kernel, int64_t rows) {
    gpu::launch(kernel, blocks(divide_up(N, rows)), kThreads, stream, x.data, gamma.data, beta.data, y.data, mean.data, rstd.data,
                N, C, epsilon);
  };
  const bool four = C % 4 == 0 && aligned(x.data, gamma.data, beta.data, y.data);
  if (C <= kWarpColumns) four ? run(normalize<4, 1>, 8) : run(normalize<1, 1>, 8);
  else four ? run(normalize<4, 8>, 1) : run(normalize<1, 8>, 1);
}

void layer_norm_backward(Stream stream, In<float> g, In<float> x, In<float> gamma, In<float> mean, In<float> rstd, Out<float> dx,
                         Out<float> dgamma, Out<float> dbeta, int64_t N, int64_t C) {
  expect("g", g, volume(N, C)), expect("x", x, volume(N, C)), expect("gamma", gamma, C), expect("mean", mean, N),
      expect("rstd", rstd, N);
  expect("dx", dx, volume(N, C)), expect("dgamma", dgamma, C), expect("dbeta", dbeta, C);
  const auto run = [&](auto kernel, int64_t rows) {
    gpu::launch(kernel, blocks(divide_up(N, rows)), kThreads, stream, g.data, x.data, gamma.data, mean.data, rstd.data, dx.data,
                N, C);
  };
  const bool four = C % 4 == 0 && aligned(g.data, x.data, gamma.data, dx.data);
  if (C <= kWarpColumns) four ? run(normalize_backward<4, 1>, 8) : run(normalize_backward<1, 1>, 8);
  else four ? run(normalize_backward<4, 8>, 1) : run(normalize_backward<1, 8>, 1);

  const int64_t parts = column_parts(stream, C, N);
  float* partial = parts > 1 ? gpu::scratch(stream, 2 * parts * C) : nullptr;
  const dim3 grid(blocks(divide_up(C, 32)), blocks(parts));
  gpu::launch(gain_backward, grid, 32 * kColumnWarps, stream, g.data, x.data, mean.data, rstd.data,
              parts > 1 ? partial : dgamma.data, parts > 1 ? partial + parts * C : dbeta.data, N, C, divide_up(N, parts));
  if (parts == 1) return;
  launch_columns(stream, partial, dgamma.data, 1, parts, C, 1);
  launch_columns(stream, partial + parts * C, dbeta.data, 1, parts, C, 1);
}

constexpr oplus_op list[] = {op<layer_norm>("layerNorm"), op<layer_norm_backward>("layerNormBackward")};

}  // namespace

extern constinit const Ops layer_norm_ops(list);

}  // namespace oplus::OPLUS_TARGET
