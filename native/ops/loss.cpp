// Mean squared error and its gradient. Partial sums belong to fixed pieces and are added in order.
#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"

namespace oplus::OPLUS_TARGET {
namespace {

float squared_distance(const float* x, const float* y, int64_t n) {
  Vec s[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) {
      const Vec d = load(x + i + j * kLanes) - load(y + i + j * kLanes);
      s[j] += d * d;
    }
  for (; i < n; i += kLanes) {
    const int64_t part = at_most(kLanes, n - i);
    const Vec d = load_part(x + i, part) - load_part(y + i, part);
    s[0] += d * d;
  }
  return sum((s[0] + s[1]) + (s[2] + s[3]));
}

void mean_squared_error(In<float> x, In<float> y, Out<float> loss, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("y", y, n);
  expect("loss", loss, 1);
  const double total = sum_pieces(n, [&](int64_t i, int64_t end) { return squared_distance(x.data + i, y.data + i, end - i); });
  loss[0] = n ? static_cast<float>(total / static_cast<double>(n)) : 0;
}

void mean_squared_error_backward(In<float> x, In<float> y, In<float> g, Out<float> dx, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("y", y, n);
  expect("g", g, 1);
  expect("dx", dx, n);
  if (!n) return;
  const float factor = static_cast<float>(2.0 * static_cast<double>(g[0]) / static_cast<double>(n));
  for_pieces(n, [&](int64_t i, int64_t end) {
    for (; i + kLanes <= end; i += kLanes) store(dx.data + i, (load(x.data + i) - load(y.data + i)) * factor);
    if (i < end) store_part(dx.data + i, (load_part(x.data + i, end - i) - load_part(y.data + i, end - i)) * factor, end - i);
  });
}

}  // namespace

static constexpr oplus_op list[] = {op<mean_squared_error>("meanSquaredError"),
                                    op<mean_squared_error_backward>("meanSquaredErrorBackward")};
extern constinit const Ops loss_ops(list);

}  // namespace oplus::OPLUS_TARGET
