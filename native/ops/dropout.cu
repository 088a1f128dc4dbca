// Dropout (Srivastava et al. 2014) with the draws of dropout.h: y[i] = x[i] / (1 − rate) where uniform(seed, i) ≥ rate, else 0.
//
// Grid: enough blocks of 256 threads to fill the card. A thread takes the four elements of one call of the generator at a
// time, as one 16-byte access where the arrays are aligned. x is read and y written once.
#include "cuda/sizes.h"
#include "dropout.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) drop(int64_t n, const float* x, float* y, float rate, uint64_t seed, bool four) {
  const float scale = dropout_scale(rate);
  for (int64_t block = global_thread(); block * 4 < n; block += global_threads()) {
    const Draws draws = philox(seed, static_cast<uint64_t>(block));
    const int64_t i = block * 4;
    if (four && i + 4 <= n) {
      Pack<4> v = load_pack<4>(x + i);
#pragma unroll
      for (int j = 0; j < 4; ++j) v.x[j] = to_uniform(draws.word[j]) >= rate ? v.x[j] * scale : 0.0f;
      store_pack<4>(y + i, v);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (i + j < n) y[i + j] = to_uniform(draws.word[j]) >= rate ? x[i + j] * scale : 0.0f;
    }
  }
}

void dropout(Stream stream, In<float> x, Out<float> y, float rate, int64_t seed_low, int64_t seed_high, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("y", y, n);
  gpu::launch(drop, blocks_for(stream, divide_up(n, 4 * kThreads)), kThreads, stream, n, x.data, y.data, rate,
              seed_of(seed_low, seed_high), aligned(x.data, y.data));
}

constexpr oplus_op list[] = {op<dropout>("dropout")};

}  // namespace

extern constinit const Ops dropout_ops(list);

}  // namespace oplus::OPLUS_TARGET
