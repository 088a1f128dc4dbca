// Root mean square normalisation: y = x · gamma / √(mean x² + epsilon) (Zhang & Sennrich 2019, equation 4).
#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"

namespace oplus::OPLUS_TARGET {
namespace {

void rms_norm(In<float> x, In<float> gamma, Out<float> y, int64_t N, int64_t C, float epsilon) {
  expect("x", x, volume(N, C));
  expect("gamma", gamma, C);
  expect("y", y, volume(N, C));
  if (volume(N, C) == 0) return;
  for_rows(N, C, [&](int64_t row, int64_t end) {
    for (; row < end; ++row) {
      const float* from = x.data + row * C;
      float* to = y.data + row * C;
      Vec squares[4] = {};  // four sums in flight: one would wait for itself
      int64_t c = 0;
      for (; c + 4 * kLanes <= C; c += 4 * kLanes)
        for (int i = 0; i < 4; ++i) squares[i] += load(from + c + i * kLanes) * load(from + c + i * kLanes);
      for (; c < C; c += kLanes) {
        const Vec part = load_some(from + c, C - c);
        squares[0] += part * part;
      }
      const float mean = sum((squares[0] + squares[1]) + (squares[2] + squares[3])) / static_cast<float>(C);
      const float factor = 1 / __builtin_sqrtf(mean + epsilon);
      for (c = 0; c < C; c += kLanes)
        store_some(to + c, load_some(from + c, C - c) * factor * load_some(gamma.data + c, C - c), C - c);
    }
  });
}

}  // namespace

static constexpr oplus_op list[] = {op<rms_norm>("rmsNorm")};
extern constinit const Ops rms_norm_ops(list);

}  // namespace oplus::OPLUS_TARGET
