// The negative log-likelihood of one class a row: ln Σ e^x − x[target].
#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"

namespace oplus::OPLUS_TARGET {
namespace {

void cross_entropy(In<float> logits, In<int32_t> targets, Out<float> loss, int64_t N, int64_t V) {
  expect("logits", logits, volume(N, V));
  expect("targets", targets, N);
  expect("loss", loss, N);
  for (int64_t n = 0; n < N; ++n)
    if (targets[n] < 0 || targets[n] >= V)
      fail(OPLUS_BAD_SHAPE, "target %d, expected one from 0 below %lld", targets[n], static_cast<long long>(V));
  for_rows(N, V, [&](int64_t n, int64_t end) {
    for (; n < end; ++n) {
      const float* x = logits.data + n * V;
      Vec top = splat(-__builtin_inff());
      for (int64_t i = 0; i < V; i += kLanes) top = vmax(load_some(x + i, V - i, -__builtin_inff()), top);
      // With nothing but −∞ in a row, or an infinity, the difference is NaN, as it should be.
      const float m = max(top);
      double total = 0;
      for (int64_t i = 0; i < V; i += 64 * kLanes) {  // a double for each stretch: 100,000 classes lose digits in one float
        Vec part{};
        for (int64_t j = i; j < at_most(V, i + 64 * kLanes); j += kLanes)
          part += exp(load_some(x + j, V - j, -__builtin_inff()) - m);
        total += static_cast<double>(sum(part));
      }
      loss[n] = static_cast<float>(__builtin_log(total) + (static_cast<double>(m) - static_cast<double>(x[targets[n]])));
    }
  });
}

}  // namespace

static constexpr oplus_op list[] = {op<cross_entropy>("crossEntropy")};
extern constinit const Ops cross_entropy_ops(list);

}  // namespace oplus::OPLUS_TARGET
