// Root mean square normalisation: y = x · gamma / √(mean x² + epsilon) (Zhang & Sennrich 2019, equation 4), and its gradient:
// with r = 1 / √(mean x² + epsilon), x̂ = x · r and a = g · gamma, dx = r · (a − x̂ · mean(a · x̂)) and dgamma = Σ g · x̂. r is made
// again. The sum over rows is made chunk by chunk; the chunks depend on N alone and are added in order.
#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"

namespace oplus::OPLUS_TARGET {
namespace {

// 1 / √(mean x² + epsilon)
float factor_of(const float* x, int64_t C, float epsilon) {
  Vec squares[4] = {};  // four sums in flight: one would wait for itself
  int64_t c = 0;
  for (; c + 4 * kLanes <= C; c += 4 * kLanes)
    for (int i = 0; i < 4; ++i) squares[i] += load(x + c + i * kLanes) * load(x + c + i * kLanes);
  for (; c < C; c += kLanes) {
    const Vec part = load_some(x + c, C - c);
    squares[0] += part * part;
  }
  const float mean = sum((squares[0] + squares[1]) + (squares[2] + squares[3])) / static_cast<float>(C);
  return 1 / __builtin_sqrtf(mean + epsilon);
}

void rms_norm(In<float> x, In<float> gamma, Out<float> y, int64_t N, int64_t C, float epsilon) {
  expect("x", x, volume(N, C));
  expect("gamma", gamma, C);
  expect("y", y, volume(N, C));
  if (volume(N, C) == 0) return;
  for_rows(N, C, [&](int64_t row, int64_t end) {
    for (; row < end; ++row) {
      const float* from = x.data + row * C;
      float* to = y.data + row * C;
      const float factor = factor_of(from, C, epsilon);
      for (int64_t c = 0; c < C; c += kLanes)
        store_some(to + c, load_some(from + c, C - c) * factor * load_some(gamma.data + c, C - c), C - c);
    }
  });
}

// One row: dx, and its part of dgamma.
OPLUS_INLINE void backward_row(const float* g, const float* x, const float* gamma, float* dx, float* dgamma, int64_t C,
                               float epsilon) {
  const float factor = factor_of(x, C, epsilon);
  Vec along{};  // Σ a · x̂
  for (int64_t c = 0; c < C; c += kLanes) {
    const Vec up = load_some(g + c, C - c), hat = load_some(x + c, C - c) * factor;
    along += up * load_some(gamma + c, C - c) * hat;
    store_some(dgamma + c, load_some(dgamma + c, C - c) + up * hat, C - c);
  }
  const float mean = sum(along) / static_cast<float>(C);
  for (int64_t c = 0; c < C; c += kLanes) {
    const Vec a = load_some(g + c, C - c) * load_some(gamma + c, C - c), hat = load_some(x + c, C - c) * factor;
    store_some(dx + c, (a - hat * mean) * factor, C - c);
  }
}

void rms_norm_backward(In<float> g, In<float> x, In<float> gamma, Out<float> dx, Out<float> dgamma, int64_t N, int64_t C,
                       float epsilon) {
  const int64_t size = volume(N, C);
  expect("g", g, size);
  expect("x", x, size);
  expect("gamma", gamma, C);
  expect("dx", dx, size);
  expect("dgamma", dgamma, C);
  if (C == 0) return;
  constexpr int64_t kMost = 128;  // chunks: enough for any CPU to share, few enough to add up quickly
  const int64_t rows = at_least(32, divide_up(N, kMost)), chunks = at_least(1, divide_up(N, rows));
  Scratch sums(volume(chunks, C));
  auto chunk = [&](int i) {
    float* part = sums.data() + i * C;
    for (int64_t c = 0; c < C; ++c) part[c] = 0;
    for (int64_t row = i * rows; row < at_most(N, (i + 1) * rows); ++row)
      backward_row(g.data + row * C, x.data + row * C, gamma.data, dx.data + row * C, part, C, epsilon);
  };
  if (size < kPiece)
    for (int i = 0; i < chunks; ++i) chunk(i);
  else parallel_for(static_cast<int>(chunks), chunk);
  for_rows(divide_up(C, 64), 64 * chunks, [&](int64_t block, int64_t end) {
    const int64_t first = block * 64, last = at_most(C, end * 64);
    for (int64_t c = first; c < last; ++c) dgamma[c] = 0;
    for (int64_t i = 0; i < chunks; ++i)
      for (int64_t c = first; c < last; ++c) dgamma[c] += sums.data()[i * C + c];
  });
}

double norm_backward_cost(In<float>, In<float>, In<float>, Out<float>, Out<float>, int64_t N, int64_t C, float) {
  return 12.0 * static_cast<double>(N) * static_cast<double>(C);
}

}  // namespace

static constexpr oplus_op list[] = {op<rms_norm>("rmsNorm"), op<rms_norm_backward, norm_backward_cost>("rmsNormBackward")};
extern constinit const Ops rms_norm_ops(list);

}  // namespace oplus::OPLUS_TARGET
