// A sum over all elements, without atomics: always added in the same order on the same device.
//
// First launch: up to kPartials blocks of 256 threads; a thread sums with the grid's stride, a block adds its threads through
// shuffles and shared memory and writes one partial sum. Second launch: one block adds the partial sums.
#pragma once
#include "sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kReduceThreads = 256;
constexpr int64_t kPartials = 1024;  // four for each thread of the second launch

// partial[block] = Σ term(i)
template <typename Term>
__global__ void __launch_bounds__(kReduceThreads) partial_sums(int64_t n, Term term, float* partial) {
  GPU_SHARED(float, room, [kReduceThreads / 32]);
  float sum = 0;
  for (int64_t i = global_thread(); i < n; i += global_threads()) sum += term(i);
  sum = block_sum<kReduceThreads>(sum, room);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <typename Last>
__global__ void __launch_bounds__(kReduceThreads) last_sum(int count, const float* partial, Last last) {
  GPU_SHARED(float, room, [kReduceThreads / 32]);
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kReduceThreads) sum += partial[i];
  sum = block_sum<kReduceThreads>(sum, room);
  if (threadIdx.x == 0) last(sum);
}

// last(Σ term(i), i < n) runs once, in one thread.
template <typename Term, typename Last>
void reduce(Stream stream, int64_t n, Term term, Last last) {
  const int64_t count = at_least(1, at_most(kPartials, divide_up(n, 4 * kReduceThreads)));
  float* partial = gpu::scratch(stream, kPartials);
  gpu::launch(partial_sums<Term>, blocks(count), kReduceThreads, stream, n, term, partial);
  gpu::launch(last_sum<Last>, 1, kReduceThreads, stream, static_cast<int>(count), partial, last);
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
