// The norm of all gradients, and one step of AdamW (Loshchilov & Hutter 2019, algorithm 2) scaled by it.
//
// Who does what: cuda/reduce.h (the sum of squares, two launches) and cuda/each.h (the step). The step reads g once and reads
// and writes p, m and v once; the norm stays on the device.
#include "cuda/each.h"
#include "cuda/reduce.h"

namespace oplus::OPLUS_TARGET {
namespace {

struct Square {
  const float* x;
  __device__ float operator()(int64_t i) const { return x[i] * x[i]; }
};

struct AddTo {
  float* total;
  __device__ void operator()(float sum) const { *total += sum; }
};

struct Step {
  float* p;
  const float* g;
  float *m, *v;
  const float* total;  // null: no clipping
  float clip, rate, beta1, beta2, epsilon, decay, correction1, correction2;

  template <int V>
  __device__ void run(int64_t i) const {
    const float norm = total ? sqrtf(*total) : 0.0f;
    const float factor = norm > clip ? clip / norm : 1.0f;
    const Pack<V> gradient = load_pack<V>(g + i);
    Pack<V> weight = load_pack<V>(p + i), first = load_pack<V>(m + i), second = load_pack<V>(v + i);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const float x = total ? gradient.x[j] * factor : gradient.x[j];
      first.x[j] = beta1 * first.x[j] + (1 - beta1) * x;
      second.x[j] = beta2 * second.x[j] + (1 - beta2) * x * x;
      const float step = first.x[j] / correction1 / (sqrtf(second.x[j] / correction2) + epsilon);
      weight.x[j] -= rate * (step + decay * weight.x[j]);
    }
    store_pack<V>(p + i, weight);
    store_pack<V>(m + i, first);
    store_pack<V>(v + i, second);
  }
};

void sum_squares(Stream stream, In<float> x, InOut<float> total, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("total", total, 1);
  reduce(stream, n, Square{x.data}, AddTo{total.data});
}

void adamw(Stream stream, InOut<float> p, In<float> g, InOut<float> m, InOut<float> v, MaybeIn<float> total, float clip,
           float rate, float beta1, float beta2, float epsilon, float decay, float correction1, float correction2, int64_t n) {
  volume(n);
  expect("p", p, n);
  expect("g", g, n);
  expect("m", m, n);
  expect("v", v, n);
  expect("total", total, 1);
  const Step step{p.data,  g.data, m.data,      v.data,     clip > 0 ? total.data : nullptr, clip, rate, beta1, beta2,
                  epsilon, decay,  correction1, correction2};
  run_each(stream, aligned(p.data, g.data, m.data, v.data), n, step);
}

constexpr oplus_op list[] = {op<sum_squares>("sumSquares"), op<adamw>("adamw")};

}  // namespace

extern constinit const Ops optimizer_ops(list);

}  // namespace oplus::OPLUS_TARGET
