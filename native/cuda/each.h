// Work that is independent element by element.
//
// Grid: enough blocks of 256 threads to fill the card; each thread takes V elements (four where everything is 16-byte aligned
// and a multiple of four, else one) and goes on by the grid's stride.
#pragma once
#include "sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kEachThreads = 256;
// Four such blocks a multiprocessor keep memory busy; without a number the compiler may spill registers to fit in eight.
constexpr int kEachBlocks = 4;

// f.run<V>(i) handles elements i … i + V − 1 of n.
template <int V, typename F>
__global__ void __launch_bounds__(kEachThreads, kEachBlocks) each(int64_t n, F f) {
  for (int64_t i = global_thread() * V; i < n; i += global_threads() * V) f.template run<V>(i);
}

template <typename F>
void run_each(Stream stream, bool four, int64_t n, F f) {
  const bool vectors = four && n % 4 == 0;
  const unsigned blocks = blocks_for(stream, divide_up(vectors ? n / 4 : n, kEachThreads));
  if (vectors) gpu::launch(each<4, F>, blocks, kEachThreads, stream, n, f);
  else gpu::launch(each<1, F>, blocks, kEachThreads, stream, n, f);
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
