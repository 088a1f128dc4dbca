// The one header that kernels include: nvcc gets CUDA, any other compiler the emulator of test/simt. What differs between the
// two is here and nowhere else, and is kept to a few lines, because the emulator never runs the branch that nvcc takes.
#pragma once
#include "core/op.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
// 16-byte aligned, so that four floats are one access.
#define GPU_SHARED(type, name, dims) __shared__ __align__(16) type name dims
#else
#include "simt.h"
#endif

namespace oplus {

// What a stream's handle points to (native/cuda/backend.cu makes and owns it).
struct GpuQueue {
  int device = 0;
  int processors = 1;  // multiprocessors: how many blocks it takes to fill the card
  cudaStream_t stream = nullptr;
  float* scratch = nullptr;  // for results between two launches of one operation; only ever grows
  int64_t scratch_count = 0;
  unsigned* counters = nullptr;  // for blocks that wait for others: 0 between launches; only ever grows
  int64_t counter_count = 0;
};

}  // namespace oplus

namespace gpu {

using oplus::fail;
using oplus::Stream;

inline oplus::GpuQueue& queue(Stream stream) { return *static_cast<oplus::GpuQueue*>(stream.handle); }

inline void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  const char* text = cudaGetErrorString(error);
  cudaGetLastError();  // else the next call would report it again
  fail(error == cudaErrorMemoryAllocation ? OPLUS_OUT_OF_MEMORY : OPLUS_FAILED, "CUDA: %s", text);
}

// kernel<<<grid, block>>>(a...) on the stream and its device. An empty grid is no work.
template <typename... P, typename... A>
inline void launch(void (*kernel)(P...), dim3 grid, dim3 block, Stream stream, A... a) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  check(cudaSetDevice(queue(stream).device));
#if defined(__CUDACC__)
  kernel<<<grid, block, 0, queue(stream).stream>>>(static_cast<P>(a)...);
  check(cudaGetLastError());
#else
  try {
    simt::launch(kernel, grid, block, 0, static_cast<P>(a)...);
  } catch (const simt::Error& error) {
    fail(OPLUS_FAILED, "%s", error.what());
  }
#endif
}

// Memory for results between the launches of one operation. The stream runs operations one after the other, so all of them
// share it; one operation asks once, for all that it needs.
inline float* scratch(Stream stream, int64_t count) {
  oplus::GpuQueue& q = queue(stream);
  if (count <= q.scratch_count) return q.scratch;
  check(cudaSetDevice(q.device));
  check(cudaStreamSynchronize(q.stream));  // what was queued before may still use the old one
  check(cudaFree(q.scratch));
  q.scratch = nullptr;
  q.scratch_count = 0;
  const int64_t rounded = (count + (1 << 18) - 1) / (1 << 18) * (1 << 18);  // MiB: not one allocation for each new size
  void* data = nullptr;
  check(cudaMalloc(&data, static_cast<size_t>(rounded) * sizeof(float)));
  q.scratch = static_cast<float*>(data);
  q.scratch_count = rounded;
  return q.scratch;
}

// n counters for `arrive`, all 0. Kernels leave them so.
inline unsigned* counters(Stream stream, int64_t n) {
  oplus::GpuQueue& q = queue(stream);
  if (n <= q.counter_count) return q.counters;
  check(cudaSetDevice(q.device));
  check(cudaStreamSynchronize(q.stream));
  check(cudaFree(q.counters));
  q.counters = nullptr;
  q.counter_count = 0;
  const int64_t rounded = (n + 1023) / 1024 * 1024;
  void* data = nullptr;
  check(cudaMalloc(&data, static_cast<size_t>(rounded) * sizeof(unsigned)));
  q.counters = static_cast<unsigned*>(data);
  check(cudaMemsetAsync(data, 0, static_cast<size_t>(rounded) * sizeof(unsigned), q.stream));
  q.counter_count = rounded;
  return q.counters;
}

#if defined(__CUDACC__)
// True in the last of `expected` blocks that come here, and what the others wrote before is there for it to read; the counter
// is 0 again then. One thread of a block calls it, between two barriers.
__device__ inline bool arrive(unsigned* counter, unsigned expected) {
  __threadfence();
  const bool last = atomicInc(counter, expected - 1) == expected - 1;
  __threadfence();
  return last;
}

// IEEE half to float, and back to nearest even.
__device__ inline float widen_half(uint16_t x) {
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x));
  return wide;
}
__device__ inline uint16_t narrow_half(float x) {
  uint16_t narrow;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow) : "f"(x));
  return narrow;
}
#endif

inline int64_t processors(Stream stream) { return queue(stream).processors; }

}  // namespace gpu
