// The negative log-likelihood of one class a row: ln Σ e^x − x[target].
//
// A row belongs to a block, which reads it once, kAhead accesses of V classes at a time for each thread. A thread keeps the
// largest number that it has met and the sum of powers relative to it; at the end the sums move to the largest of the row. A
// sum of 150,000 powers is that of 512 threads, so no float takes in more than a few hundred.
#include <cfloat>

#include "cuda/sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kThreads = 512;

// The same in all threads, and NaN is not looked at. `room` may be used again after the call.
__device__ inline float block_max(float x, float* room) {
#pragma unroll
  for (int step = 16; step; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
  __syncthreads();
  x = room[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / 32; ++warp) x = fmaxf(x, room[warp]);
  __syncthreads();
  return x;
}

template <int V, int kAhead>
__global__ void __launch_bounds__(kThreads)
    unlikeliness(const float* logits, const int32_t* targets, float* loss, int64_t classes) {
  GPU_SHARED(float, room, [kThreads / 32]);
  const float* x = logits + blockIdx.x * classes;
  // Not −∞, from which −∞ has no distance: a row of nothing else has a sum of 0, and its loss is NaN.
  float top = -FLT_MAX, sum = 0;
  for (int64_t start = 0; start < classes; start += kThreads * V * kAhead) {
    Pack<V> part[kAhead];
    float most = top;
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int64_t i = start + (a * kThreads + static_cast<int>(threadIdx.x)) * V;
      if (i < classes) part[a] = load_pack<V>(x + i);
      else
#pragma unroll
        for (int j = 0; j < V; ++j) part[a].x[j] = -INFINITY;
#pragma unroll
      for (int j = 0; j < V; ++j) most = fmaxf(most, part[a].x[j]);
    }
    float powers = 0;
#pragma unroll
    for (int a = 0; a < kAhead; ++a)
#pragma unroll
      for (int j = 0; j < V; ++j) powers += expf(part[a].x[j] - most);
    sum = sum * expf(top - most) + powers;
    top = most;
  }
  const float most = block_max(top, room);
  const double total = block_sum<kThreads>(sum * expf(top - most), room);
  if (threadIdx.x) return;
  const int32_t target = targets[blockIdx.x];
  const bool known = target >= 0 && target < classes;
  loss[blockIdx.x] = known ? static_cast<float>(log(total) + (static_cast<double>(most) - static_cast<double>(x[target])))
                           : __uint_as_float(0x7fc00000);
}

void cross_entropy(Stream stream, In<float> logits, In<int32_t> targets, Out<float> loss, int64_t N, int64_t V) {
  expect("logits", logits, volume(N, V)), expect("targets", targets, N), expect("loss", loss, N);
  const auto run = [&](auto kernel) {
    gpu::launch(kernel, blocks(N), kThreads, stream, logits.data, targets.data, loss.data, V);
  };
  if (V % 4 == 0 && aligned(logits.data)) run(unlikeliness<4, 4>);
  else run(unlikeliness<1, 8>);
}

constexpr oplus_op list[] = {op<cross_entropy>("crossEntropy")};

}  // namespace

extern constinit const Ops cross_entropy_ops(list);

}  // namespace oplus::OPLUS_TARGET
