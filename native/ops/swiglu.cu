// The gate of LLaMA's feed-forward part: y = a · sigmoid(a) · b (Shazeer 2020, "GLU variants improve Transformer", equation 6),
// and its gradients da = g · b · σ · (1 + a · (1 − σ)), db = g · a · σ, σ = sigmoid(a). σ and 1 − σ are both made from e^−|a|,
// which is at most 1: neither overflows, and neither is the small difference of large numbers.
//
// Who does what: cuda/each.h. Every array is read or written once; y may be a or b.
#include "cuda/each.h"

namespace oplus::OPLUS_TARGET {
namespace {

struct Gate {
  const float *a, *b;
  float* y;
  template <int V>
  __device__ void run(int64_t i) const {
    const Pack<V> gate = load_pack<V>(a + i);
    Pack<V> out = load_pack<V>(b + i);
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] *= gate.x[j] / (1 + expf(-gate.x[j]));
    store_pack<V>(y + i, out);
  }
};

void swiglu(Stream stream, In<float> a, In<float> b, Out<float> y, int64_t n) {
  volume(n);
  expect("a", a, n), expect("b", b, n), expect("y", y, n);
  run_each(stream, aligned(a.data, b.data, y.data), n, Gate{a.data, b.data, y.data});
}

struct GateBackward {
  const float *a, *b, *g;
  float *da, *db;
  template <int V>
  __device__ void run(int64_t i) const {
    const Pack<V> gate = load_pack<V>(a + i), up = load_pack<V>(g + i);
    Pack<V> of_a = load_pack<V>(b + i), of_b;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const float power = expf(-fabsf(gate.x[j])), large = 1 / (1 + power), small = power * large;
      const float open = gate.x[j] < 0 ? small : large, shut = gate.x[j] < 0 ? large : small;
      of_a.x[j] *= up.x[j] * (open * (1 + gate.x[j] * shut));
      of_b.x[j] = up.x[j] * (gate.x[j] * open);
    }
    store_pack<V>(da + i, of_a), store_pack<V>(db + i, of_b);
  }
};

void swiglu_backward(Stream stream, In<float> a, In<float> b, In<float> g, Out<float> da, Out<float> db, int64_t n) {
  volume(n);
  expect("a", a, n), expect("b", b, n), expect("g", g, n), expect("da", da, n), expect("db", db, n);
  const bool four = aligned(a.data, b.data, g.data, da.data, db.data);
  run_each(stream, four, n, GateBackward{a.data, b.data, g.data, da.data, db.data});
}

constexpr oplus_op list[] = {op<swiglu>("swiglu"), op<swiglu_backward>("swigluBackward")};

}  // namespace

extern constinit const Ops swiglu_ops(list);

}  // namespace oplus::OPLUS_TARGET
