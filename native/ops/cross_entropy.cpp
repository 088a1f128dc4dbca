// The negative log-likelihood of one class a row: ln Σ e^x − x[target], and its gradient softmax(x) − onehot(target). Rows
// whose target is −1 take no part and are not looked at.
#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int32_t kIgnored = -1;

void expect_targets(In<int32_t> targets, int64_t N, int64_t V) {
  expect("targets", targets, N);
  for (int64_t n = 0; n < N; ++n)
    if (targets[n] != kIgnored && (targets[n] < 0 || targets[n] >= V))
      fail(OPLUS_BAD_SHAPE, "target %d, expected one from 0 below %lld, or -1", targets[n], static_cast<long long>(V));
}

float largest(const float* x, int64_t V) {
  Vec top = splat(-__builtin_inff());
  for (int64_t i = 0; i < V; i += kLanes) top = vmax(load_some(x + i, V - i, -__builtin_inff()), top);
  return max(top);
}

// Σ e^(x − m); each(i, powers, lanes) sees them too. With nothing but −∞ in a row, or an infinity, the difference is NaN, as it
// should be.
template <typename F>
OPLUS_INLINE double sum_powers(const float* x, float m, int64_t V, F&& each) {
  double total = 0;
  for (int64_t i = 0; i < V; i += 64 * kLanes) {  // a double for each stretch: 100,000 classes lose digits in one float
    Vec part{};
    for (int64_t j = i; j < at_most(V, i + 64 * kLanes); j += kLanes) {
      const Vec powers = exp(load_some(x + j, V - j, -__builtin_inff()) - m);
      each(j, powers, V - j);
      part += powers;
    }
    total += static_cast<double>(sum(part));
  }
  return total;
}

void cross_entropy(In<float> logits, In<int32_t> targets, Out<float> loss, int64_t N, int64_t V) {
  expect("logits", logits, volume(N, V));
  expect("loss", loss, N);
  expect_targets(targets, N, V);
  for_rows(N, V, [&](int64_t n, int64_t end) {
    for (; n < end; ++n) {
      loss[n] = 0;
      if (targets[n] == kIgnored) continue;
      const float* x = logits.data + n * V;
      const float m = largest(x, V);
      const double total = sum_powers(x, m, V, [](int64_t, Vec, int64_t) {});
      loss[n] = static_cast<float>(__builtin_log(total) + (static_cast<double>(m) - static_cast<double>(x[targets[n]])));
    }
  });
}

void cross_entropy_backward(In<float> logits, In<int32_t> targets, In<float> g, Out<float> dlogits, int64_t N, int64_t V) {
  expect("logits", logits, volume(N, V));
  expect("g", g, N);
  expect("dlogits", dlogits, volume(N, V));
  expect_targets(targets, N, V);
  for_rows(N, V, [&](int64_t n, int64_t end) {
    for (; n < end; ++n) {
      float* dx = dlogits.data + n * V;
      if (targets[n] == kIgnored) {
        for (int64_t i = 0; i < V; i += kLanes) store_some(dx + i, Vec{}, V - i);
        continue;
      }
      const float* x = logits.data + n * V;
      const double total =
          sum_powers(x, largest(x, V), V, [&](int64_t i, Vec powers, int64_t lanes) { store_some(dx + i, powers, lanes); });
      const double up = static_cast<double>(g[n]), own = static_cast<double>(dx[targets[n]]);
      const float factor = static_cast<float>(up / total);
      for (int64_t i = 0; i < V; i += kLanes) store_some(dx + i, load_some(dx + i, V - i) * factor, V - i);
      dx[targets[n]] = static_cast<float>(up * ((own - total) / total));
    }
  });
}

}  // namespace

static constexpr oplus_op list[] = {op<cross_entropy>("crossEntropy"), op<cross_entropy_backward>("crossEntropyBackward")};
extern constinit const Ops cross_entropy_ops(list);

}  // namespace oplus::OPLUS_TARGET
