// Arithmetic on sizes for launchers, and the small pieces that many kernels share.
#pragma once
#include "gpu.h"

namespace oplus::OPLUS_TARGET {

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

// The first dimension of a grid. Larger ones would be cut off silently.
inline unsigned blocks(int64_t n) {
  if (n > INT32_MAX) fail(OPLUS_BAD_SHAPE, "%lld blocks of threads are more than a launch can have", static_cast<long long>(n));
  return static_cast<unsigned>(n);
}

// Blocks for `work` blocks' worth of work in a loop with the grid's stride: enough to fill the card several times over, so
// that blocks that end early leave no gap, and no more.
inline unsigned blocks_for(Stream stream, int64_t work) {
  return static_cast<unsigned>(at_most(work, 16 * gpu::processors(stream)));
}

// Whether four floats from each of these are one 16-byte access. A buffer left out (null) is aligned.
template <typename... P>
inline bool aligned(const P*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

// V elements as one access.
template <int V, typename T = float>
struct alignas(sizeof(T) * V) Pack {
  T x[V];
};
template <int V, typename T>
__device__ inline Pack<V, T> load_pack(const T* p) {
  return *reinterpret_cast<const Pack<V, T>*>(p);
}
template <int V, typename T>
__device__ inline void store_pack(T* p, const Pack<V, T>& v) {
  *reinterpret_cast<Pack<V, T>*>(p) = v;
}

__device__ inline int64_t global_thread() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline int64_t global_threads() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

constexpr unsigned kAllLanes = 0xffffffffu;

// The same sum in all 32 lanes, always added in the same order.
__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

// The same sum in all threads. `room` holds a float for each warp, and may be used again after the call.
template <int kThreads>
__device__ inline float block_sum(float x, float* room) {
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = room[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / 32; ++warp) sum += room[warp];
  __syncthreads();
  return sum;
}

}  // namespace oplus::OPLUS_TARGET
