// The gate of LLaMA's feed-forward part: y = a · sigmoid(a) · b (Shazeer 2020, "GLU variants improve Transformer", equation 6),
// and its gradients da = g · b · σ · (1 + a · (1 − σ)), db = g · a · σ, σ = sigmoid(a). σ and 1 − σ are both made from e^−|a|,
// which is at most 1: neither overflows, and neither is the small difference of large numbers.
#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"

namespace oplus::OPLUS_TARGET {
namespace {

void swiglu(In<float> a, In<float> b, Out<float> y, int64_t n) {
  volume(n);
  expect("a", a, n);
  expect("b", b, n);
  expect("y", y, n);
  for_pieces(n, [&](int64_t i, int64_t end) {
    for (; i < end; i += kLanes) {
      const Vec gate = load_some(a.data + i, end - i);
      store_some(y.data + i, gate / (1 + exp(-gate)) * load_some(b.data + i, end - i), end - i);
    }
  });
}

void swiglu_backward(In<float> a, In<float> b, In<float> g, Out<float> da, Out<float> db, int64_t n) {
  volume(n);
  expect("a", a, n);
  expect("b", b, n);
  expect("g", g, n);
  expect("da", da, n);
  expect("db", db, n);
  for_pieces(n, [&](int64_t i, int64_t end) {
    for (; i < end; i += kLanes) {
      const Vec gate = load_some(a.data + i, end - i), up = load_some(g.data + i, end - i);
      const Vec power = exp((Vec)((VecInt)gate | INT32_MIN)), large = 1 / (1 + power), small = power * large;
      const Vec open = select(gate < 0.0f, small, large), shut = select(gate < 0.0f, large, small);
      store_some(da.data + i, up * load_some(b.data + i, end - i) * (open * (1 + gate * shut)), end - i);
      store_some(db.data + i, up * (gate * open), end - i);
    }
  });
}

}  // namespace

static constexpr oplus_op list[] = {op<swiglu>("swiglu"), op<swiglu_backward>("swigluBackward")};
extern constinit const Ops swiglu_ops(list);

}  // namespace oplus::OPLUS_TARGET
