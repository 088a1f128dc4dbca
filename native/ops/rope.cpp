// Rotary positions (Su et al. 2021, "RoFormer", section 3.4): pairs of a head's numbers turn by an angle in proportion to the
// position. Sines and cosines of a pass are worked out once and serve every layer.
#include <cmath>

#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"

namespace oplus::OPLUS_TARGET {
namespace {

// In double: a stream's positions grow without end, and an angle of a million radians has no fraction left in f32.
void rotations(In<int32_t> positions, In<float> frequencies, Out<float> table, int64_t n, int64_t half, float magnitude) {
  expect("positions", positions, n);
  expect("frequencies", frequencies, volume(half, 2));
  expect("table", table, volume(n, half, 2));
  for_rows(n, 16 * half, [&](int64_t row, int64_t end) {
    for (; row < end; ++row)
      for (int64_t p = 0; p < half; ++p) {
        const double frequency = static_cast<double>(frequencies[2 * p]) + static_cast<double>(frequencies[2 * p + 1]);
        const double angle = positions[row] * frequency;
        float* to = table.data + (row * half + p) * 2;
        to[0] = static_cast<float>(magnitude * std::cos(angle));
        to[1] = static_cast<float>(magnitude * std::sin(angle));
      }
  });
}

// Every pair by its angle (direction 1), or by the opposite one (−1): a turn is a linear map whose transpose is the turn back.
void turn_pairs(const float* x, const float* table, float* y, int64_t n, int64_t H, int64_t D, bool neighbours, float direction) {
  if (volume(n, H, D) == 0) return;
  const int64_t half = D / 2, step = neighbours ? 2 : 1, other = neighbours ? 1 : half;
  for_rows(n, H * D, [&](int64_t row, int64_t end) {
    for (; row < end; ++row)
      for (int64_t h = 0; h < H; ++h) {
        const float *from = x + (row * H + h) * D, *turn = table + row * D;
        float* to = y + (row * H + h) * D;
        for (int64_t p = 0; p < half; ++p) {
          const float a = from[p * step], b = from[p * step + other], sine = direction * turn[2 * p + 1];
          to[p * step] = a * turn[2 * p] - b * sine;
          to[p * step + other] = a * sine + b * turn[2 * p];
        }
      }
  });
}

void expect_heads(In<float> table, int64_t n, int64_t D) {
  if (D % 2) fail(OPLUS_BAD_SHAPE, "heads of %lld numbers, expected an even number", static_cast<long long>(D));
  expect("table", table, volume(n, D));
}

void rope(In<float> x, In<float> table, Out<float> y, int64_t n, int64_t H, int64_t D, bool neighbours) {
  expect_heads(table, n, D);
  expect("x", x, volume(n, H, D));
  expect("y", y, volume(n, H, D));
  turn_pairs(x.data, table.data, y.data, n, H, D, neighbours, 1);
}

void rope_backward(In<float> g, In<float> table, Out<float> dx, int64_t n, int64_t H, int64_t D, bool neighbours) {
  expect_heads(table, n, D);
  expect("g", g, volume(n, H, D));
  expect("dx", dx, volume(n, H, D));
  turn_pairs(g.data, table.data, dx.data, n, H, D, neighbours, -1);
}

}  // namespace

static constexpr oplus_op list[] = {op<rotations>("rotations"), op<rope>("rope"), op<rope_backward>("ropeBackward")};
extern constinit const Ops rope_ops(list);

}  // namespace oplus::OPLUS_TARGET
