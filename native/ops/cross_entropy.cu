// The negative log-likelihood of one class a row: ln Σ e^x − x[target], and its gradient softmax(x) − onehot(target). Rows
// whose target is −1 take no part and are not looked at.
//
// A row belongs to a block, which reads it once (for the gradient again, from the caches if it fits), kAhead accesses of V
// classes at a time for each thread. A thread keeps the largest number that it has met and the sum of powers relative to it; at
// the end the sums move to the largest of the row. A sum of 150,000 powers is that of 512 threads, so no float takes in more than
// a few hundred.
#include <cfloat>

#include "cuda/sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kThreads = 512;
constexpr int32_t kIgnored = -1;

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

struct Powers {
  float most;
  double total;  // Σ e^(x − most)
};

// Of a row, the same in all threads of the block.
template <int V, int kAhead>
__device__ Powers sum_powers(const float* x, int64_t classes, float* room) {
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
  return {most, block_sum<kThreads>(sum * expf(top - most), room)};
}

// A target that there is not has no answer: NaN.
__device__ inline float no_number() { return __uint_as_float(0x7fc00000); }

template <int V, int kAhead>
__global__ void __launch_bounds__(kThreads)
    unlikeliness(const float* logits, const int32_t* targets, float* loss, int64_t classes) {
  GPU_SHARED(float, room, [kThreads / 32]);
  const int32_t target = targets[blockIdx.x];
  if (target == kIgnored) {  // all threads of the block
    if (threadIdx.x == 0) loss[blockIdx.x] = 0;
    return;
  }
  const float* x = logits + blockIdx.x * classes;
  const Powers row = sum_powers<V, kAhead>(x, classes, room);
  if (threadIdx.x) return;
  const bool known = target >= 0 && target < classes;
  loss[blockIdx.x] =
      known ? static_cast<float>(log(row.total) + (static_cast<double>(row.most) - static_cast<double>(x[target]))) : no_number();
}

template <int V, int kAhead>
__global__ void __launch_bounds__(kThreads)
    unlikeliness_backward(const float* logits, const int32_t* targets, const float* g, float* dlogits, int64_t classes) {
  GPU_SHARED(float, room, [kThreads / 32]);
  const int32_t target = targets[blockIdx.x];
  const float* x = logits + blockIdx.x * classes;
  float* dx = dlogits + blockIdx.x * classes;
  float most = 0, up = 0, factor = 0, whole = 1;
  if (target != kIgnored) {  // all threads of the block
    const Powers row = sum_powers<V, kAhead>(x, classes, room);
    most = row.most, whole = static_cast<float>(row.total);
    up = target >= 0 && target < classes ? g[blockIdx.x] : no_number();
    factor = up / whole;
  }
  for (int64_t i = static_cast<int64_t>(threadIdx.x) * V; i < classes; i += kThreads * V) {
    Pack<V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] = 0;
    if (target != kIgnored) {
      out = load_pack<V>(x + i);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const float power = expf(out.x[j] - most);
        out.x[j] = i + j == target ? up * ((power - whole) / whole) : power * factor;
      }
    }
    store_pack<V>(dx + i, out);
  }
}

void cross_entropy(Stream stream, In<float> logits, In<int32_t> targets, Out<float> loss, int64_t N, int64_t V) {
  expect("logits", logits, volume(N, V)), expect("targets", targets, N), expect("loss", loss, N);
  const auto run = [&](auto kernel) {
    gpu::launch(kernel, blocks(N), kThreads, stream, logits.data, targets.data, loss.data, V);
  };
  if (V % 4 == 0 && aligned(logits.data)) run(unlikeliness<4, 4>);
  else run(unlikeliness<1, 8>);
}

void cross_entropy_backward(Stream stream, In<float> logits, In<int32_t> targets, In<float> g, Out<float> dlogits, int64_t N,
                            int64_t V) {
  expect("logits", logits, volume(N, V)), expect("targets", targets, N), expect("g", g, N);
  expect("dlogits", dlogits, volume(N, V));
  const auto run = [&](auto kernel) {
    gpu::launch(kernel, blocks(N), kThreads, stream, logits.data, targets.data, g.data, dlogits.data, V);
  };
  if (V % 4 == 0 && aligned(logits.data, dlogits.data)) run(unlikeliness_backward<4, 4>);
  else run(unlikeliness_backward<1, 8>);
}

constexpr oplus_op list[] = {op<cross_entropy>("crossEntropy"), op<cross_entropy_backward>("crossEntropyBackward")};

}  // namespace

extern constinit const Ops cross_entropy_ops(list);

}  // namespace oplus::OPLUS_TARGET
