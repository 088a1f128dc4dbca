// GELU (Hendrycks & Gimpel 2016), exact: y = x · Φ(x), Φ(x) = erfc(−x / √2) / 2, and its gradient Φ(x) + x · φ(x).
//
// Who does what: cuda/each.h. Every array is read or written once.
#include "cuda/each.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr float kHalfRoot = 0.70710678118654752f;  // 1 / √2
constexpr float kDensity = 0.39894228040143268f;   // 1 / √(2π)

// erfc rather than 1 + erf: for x far below 0 the sum would cancel.
__device__ float normal_below(float x) { return 0.5f * erfcf(-x * kHalfRoot); }

struct Gelu {
  const float* x;
  float* y;
  template <int V>
  __device__ void run(int64_t i) const {
    Pack<V> out = load_pack<V>(x + i);
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] *= normal_below(out.x[j]);
    store_pack<V>(y + i, out);
  }
};

struct GeluBackward {
  const float *x, *g;
  float* dx;
  template <int V>
  __device__ void run(int64_t i) const {
    const Pack<V> at = load_pack<V>(x + i);
    Pack<V> out = load_pack<V>(g + i);
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] *= normal_below(at.x[j]) + at.x[j] * kDensity * expf(-0.5f * at.x[j] * at.x[j]);
    store_pack<V>(dx + i, out);
  }
};

void gelu(Stream stream, In<float> x, Out<float> y, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("y", y, n);
  run_each(stream, aligned(x.data, y.data), n, Gelu{x.data, y.data});
}

void gelu_backward(Stream stream, In<float> x, In<float> g, Out<float> dx, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("g", g, n);
  expect("dx", dx, n);
  run_each(stream, aligned(x.data, g.data, dx.data), n, GeluBackward{x.data, g.data, dx.data});
}

constexpr oplus_op list[] = {op<gelu>("gelu"), op<gelu_backward>("geluBackward")};

}  // namespace

extern constinit const Ops gelu_ops(list);

}  // namespace oplus::OPLUS_TARGET
