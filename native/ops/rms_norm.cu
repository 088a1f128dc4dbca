// Root mean square normalisation: y = x · gamma / √(mean x² + epsilon) (Zhang & Sennrich 2019, equation 4).
//
// A row belongs to kWarps warps: one up to 1,024 columns, where a block of 8 warps takes 8 rows, else a block. Lanes take V
// columns at a time; sums meet by shuffles, and across the warps of a row in shared memory. A row is read twice, the second
// time from the first-level cache; a thread writes only columns that it alone reads, so y may be x.
#include "cuda/sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kWarpColumns = 1024;

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
  if constexpr (kWarps == 1) squares = warp_sum(squares);
  else squares = block_sum<kLanes>(squares, room);
  const float scale = 1 / sqrtf(squares / static_cast<float>(C) + epsilon);
  for (int64_t c = first; c < end; c += kLanes * V) {
    Pack<V> out = load_pack<V>(x + row * C + c);
    const Pack<V> gain = load_pack<V>(gamma + c);
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] = out.x[j] * scale * gain.x[j];
    store_pack<V>(y + row * C + c, out);
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

constexpr oplus_op list[] = {op<rms_norm>("rmsNorm")};

}  // namespace

extern constinit const Ops rms_norm_ops(list);

}  // namespace oplus::OPLUS_TARGET
