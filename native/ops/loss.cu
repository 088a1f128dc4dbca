// Mean squared error and its gradient.
//
// Who does what: cuda/reduce.h (the sum, two launches) and cuda/each.h (the gradient). x and y are read once in each.
#include "cuda/each.h"
#include "cuda/reduce.h"

namespace oplus::OPLUS_TARGET {
namespace {

struct SquaredError {
  const float *x, *y;
  __device__ float operator()(int64_t i) const {
    const float d = x[i] - y[i];
    return d * d;
  }
};

struct WriteMean {
  float* loss;
  float n;
  __device__ void operator()(float sum) const { *loss = sum / n; }
};

struct ErrorGradient {
  const float *x, *y, *g;
  float* dx;
  float factor;  // 2 / n
  template <int V>
  __device__ void run(int64_t i) const {
    const float each = *g * factor;
    const Pack<V> b = load_pack<V>(y + i);
    Pack<V> out = load_pack<V>(x + i);
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] = each * (out.x[j] - b.x[j]);
    store_pack<V>(dx + i, out);
  }
};

void mean_squared_error(Stream stream, In<float> x, In<float> y, Out<float> loss, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("y", y, n);
  expect("loss", loss, 1);
  reduce(stream, n, SquaredError{x.data, y.data}, WriteMean{loss.data, static_cast<float>(n)});
}

void mean_squared_error_backward(Stream stream, In<float> x, In<float> y, In<float> g, Out<float> dx, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("y", y, n);
  expect("g", g, 1);
  expect("dx", dx, n);
  run_each(stream, aligned(x.data, y.data, dx.data), n,
           ErrorGradient{x.data, y.data, g.data, dx.data, 2.0f / static_cast<float>(n)});
}

constexpr oplus_op list[] = {op<mean_squared_error>("meanSquaredError"),
                             op<mean_squared_error_backward>("meanSquaredErrorBackward")};

}  // namespace

extern constinit const Ops loss_ops(list);

}  // namespace oplus::OPLUS_TARGET
