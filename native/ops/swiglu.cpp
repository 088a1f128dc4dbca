// The gate of LLaMA's feed-forward part: y = a · sigmoid(a) · b (Shazeer 2020, "GLU variants improve Transformer", equation 6).
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

}  // namespace

static constexpr oplus_op list[] = {op<swiglu>("swiglu")};
extern constinit const Ops swiglu_ops(list);

}  // namespace oplus::OPLUS_TARGET
