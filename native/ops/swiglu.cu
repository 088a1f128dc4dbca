// The gate of LLaMA's feed-forward part: y = a · sigmoid(a) · b (Shazeer 2020, "GLU variants improve Transformer", equation 6).
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

constexpr oplus_op list[] = {op<swiglu>("swiglu")};

}  // namespace

extern constinit const Ops swiglu_ops(list);

}  // namespace oplus::OPLUS_TARGET
