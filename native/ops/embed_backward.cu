// The gradient of an embedding: dw[v] = Σ g[n] over the tokens n whose id is v, 0 for a row that no token has.
//
// A block owns a range of ids (blockIdx.x), kThreads columns (blockIdx.y) and a part of the tokens (blockIdx.z). It looks at
// kThreads ids at a time, lists those of its range in their order, and adds their rows of g to its rows of dw, one column a
// thread: an element of dw belongs to one thread, which adds in the order of tokens, so no atomics and always the same bits. Ids
// are read once by every block, g once. Where the table has too few rows to fill the card (amino acids), the tokens are cut into
// parts, each with a table of its own, which cuda/columns.h adds up.
#include "cuda/columns.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kThreads = 256;
constexpr int kAhead = 4;  // rows of g on their way while others are added

__global__ void __launch_bounds__(kThreads)
    scatter_rows(const int32_t* ids, const float* g, float* dw, int64_t N, int64_t V, int64_t C, int64_t range, int64_t part) {
  GPU_SHARED(int, counts, [kThreads / 32]);
  GPU_SHARED(int, token, [kThreads]);
  GPU_SHARED(int, row, [kThreads]);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int64_t first = blockIdx.x * range, last = min(V, first + range);
  const int64_t c = static_cast<int64_t>(blockIdx.y) * kThreads + thread;
  const int64_t begin = blockIdx.z * part, end = min(N, begin + part);
  float* to = dw + (blockIdx.z * V + first) * C + c;
  if (c < C)
    for (int64_t v = 0; v < last - first; ++v) to[v * C] = 0;
  for (int64_t start = begin; start < end; start += kThreads) {
    const int64_t id = start + thread < end ? ids[start + thread] : -1;
    const bool mine = id >= first && id < last;
    const unsigned those = __ballot_sync(kAllLanes, mine);
    if (lane == 0) counts[warp] = __popc(those);
    __syncthreads();
    int place = __popc(those & ((1u << lane) - 1)), listed = 0;
#pragma unroll
    for (int w = 0; w < kThreads / 32; ++w) {
      if (w < warp) place += counts[w];
      listed += counts[w];
    }
    if (mine) token[place] = thread, row[place] = static_cast<int>(id - first);
    __syncthreads();
    const float* from = g + start * C + c;
    if (c < C)
      for (int i = 0; i < listed; i += kAhead) {
        float up[kAhead];
#pragma unroll
        for (int a = 0; a < kAhead; ++a) up[a] = i + a < listed ? from[token[i + a] * C] : 0;
#pragma unroll
        for (int a = 0; a < kAhead; ++a)
          if (i + a < listed) to[row[i + a] * C] += up[a];
      }
    // The list is written again behind the next barrier, which no thread passes before all are done with it.
  }
}

void embed_backward(Stream stream, In<int32_t> ids, In<float> g, Out<float> dw, int64_t N, int64_t V, int64_t C) {
  expect("ids", ids, N), expect("g", g, volume(N, C)), expect("dw", dw, volume(V, C));
  if (volume(V, C) == 0) return;
  // Blocks that fill the card, first by ids, then by parts of the tokens: a part is at least one look at ids.
  const int64_t wanted = 8 * gpu::processors(stream), across = divide_up(C, kThreads);
  const int64_t range = divide_up(V, at_least(1, at_most(V, wanted / across))), ranges = divide_up(V, range);
  const int64_t parts = at_least(1, at_most(wanted / (ranges * across), divide_up(N, kThreads)));
  float* tables = parts > 1 ? gpu::scratch(stream, parts * V * C) : dw.data;
  const dim3 grid(blocks(ranges), blocks(across), blocks(parts));
  gpu::launch(scatter_rows, grid, kThreads, stream, ids.data, g.data, tables, N, V, C, range, divide_up(N, parts));
  if (parts > 1) launch_columns(stream, tables, dw.data, 1, parts, volume(V, C), 1);
}

constexpr oplus_op list[] = {op<embed_backward>("embedBackward")};

}  // namespace

extern constinit const Ops embed_backward_ops(list);

}  // namespace oplus::OPLUS_TARGET
