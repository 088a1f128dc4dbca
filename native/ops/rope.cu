// Rotary positions (Su et al. 2021, "RoFormer", section 3.4): pairs of a head's numbers turn by an angle in proportion to the
// position. Sines and cosines of a pass are worked out once and serve every layer.
//
// Who does what: cuda/each.h, an element being a pair. x is read and y written once; y may be x.
#include "cuda/each.h"

namespace oplus::OPLUS_TARGET {
namespace {

// In double, and in half turns: a stream's positions grow without end, and an angle of a million radians has no fraction left
// in f32. (sinpi's reduction is exact and needs no table, as that of sin does.)
struct Rotations {
  const int32_t* positions;
  const float* frequencies;
  float* table;
  int64_t half;
  float magnitude;
  template <int V>
  __device__ void run(int64_t i) const {
#pragma unroll 1
    for (int64_t j = i; j < i + V; ++j) {
      const float* f = frequencies + 2 * (j % half);
      const double frequency = static_cast<double>(f[0]) + static_cast<double>(f[1]);
      const double turns = positions[j / half] * frequency * 0.31830988618379067154;  // 1 / π
      table[2 * j] = static_cast<float>(magnitude * cospi(turns));
      table[2 * j + 1] = static_cast<float>(magnitude * sinpi(turns));
    }
  }
};

void rotations(Stream stream, In<int32_t> positions, In<float> frequencies, Out<float> table, int64_t n, int64_t half,
               float magnitude) {
  expect("positions", positions, n), expect("frequencies", frequencies, volume(half, 2));
  expect("table", table, volume(n, half, 2));
  run_each(stream, false, volume(n, half), Rotations{positions.data, frequencies.data, table.data, half, magnitude});
}

// V pairs of one head, which are neighbours, by their angles (direction 1) or by the opposite ones (−1): a turn is a linear map
// whose transpose is the turn back.
template <bool kNeighbours>
struct Turn {
  const float *x, *table;
  float* y;
  int64_t H, half;
  float direction;
  template <int V>
  __device__ void run(int64_t i) const {
    const int64_t pair = i % half, head = i / half;
    const float* turn = table + (head / H * half + pair) * 2;
    const int64_t first = head * 2 * half + (kNeighbours ? 2 : 1) * pair, second = first + (kNeighbours ? V : half);
    const Pack<V> low = load_pack<V>(turn), high = load_pack<V>(turn + V);
    Pack<V> a = load_pack<V>(x + first), b = load_pack<V>(x + second);
    float in[2 * V], angle[2 * V], out[2 * V];
#pragma unroll
    for (int j = 0; j < V; ++j) in[j] = a.x[j], in[V + j] = b.x[j], angle[j] = low.x[j], angle[V + j] = high.x[j];
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const int u = kNeighbours ? 2 * j : j, v = kNeighbours ? 2 * j + 1 : V + j;
      const float sine = direction * angle[2 * j + 1];
      out[u] = in[u] * angle[2 * j] - in[v] * sine;
      out[v] = in[u] * sine + in[v] * angle[2 * j];
    }
#pragma unroll
    for (int j = 0; j < V; ++j) a.x[j] = out[j], b.x[j] = out[V + j];
    store_pack<V>(y + first, a), store_pack<V>(y + second, b);
  }
};

void turn_pairs(Stream stream, const float* x, const float* table, float* y, int64_t n, int64_t H, int64_t D, bool neighbours,
                float direction) {
  const int64_t half = D / 2, pairs = volume(n, H, half);
  const bool four = half % 4 == 0 && aligned(x, table, y);
  if (neighbours) run_each(stream, four, pairs, Turn<true>{x, table, y, H, half, direction});
  else run_each(stream, four, pairs, Turn<false>{x, table, y, H, half, direction});
}

void expect_heads(In<float> table, int64_t n, int64_t D) {
  if (D % 2) fail(OPLUS_BAD_SHAPE, "heads of %lld numbers, expected an even number", static_cast<long long>(D));
  expect("table", table, volume(n, D));
}

void rope(Stream stream, In<float> x, In<float> table, Out<float> y, int64_t n, int64_t H, int64_t D, bool neighbours) {
  expect_heads(table, n, D), expect("x", x, volume(n, H, D)), expect("y", y, volume(n, H, D));
  turn_pairs(stream, x.data, table.data, y.data, n, H, D, neighbours, 1);
}

void rope_backward(Stream stream, In<float> g, In<float> table, Out<float> dx, int64_t n, int64_t H, int64_t D, bool neighbours) {
  expect_heads(table, n, D), expect("g", g, volume(n, H, D)), expect("dx", dx, volume(n, H, D));
  turn_pairs(stream, g.data, table.data, dx.data, n, H, D, neighbours, -1);
}

constexpr oplus_op list[] = {op<rotations>("rotations"), op<rope>("rope"), op<rope_backward>("ropeBackward")};

}  // namespace

extern constinit const Ops rope_ops(list);

}  // namespace oplus::OPLUS_TARGET
