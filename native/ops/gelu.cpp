// GELU (Hendrycks & Gimpel 2016), exact: y = x · Φ(x) = max(x, 0) − |x| · Φ(−|x|), and its gradient Φ(x) + x · φ(x).
// Made from the tail, so small results at x < 0 keep their digits; the usual 1 + erf(x / √2) loses them. −∞ gives 0, the limit.
#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"
#include "core/simd_erf.h"

namespace oplus::OPLUS_TARGET {
namespace {

OPLUS_INLINE Vec magnitude(Vec x) { return (Vec)((VecInt)x & 0x7fffffff); }

OPLUS_INLINE Vec gelu_of(Vec x) {
  const NormalTail at = normal_tail(magnitude(x));
  return vmax(x, Vec{}) - at.t * at.tail;
}

OPLUS_INLINE Vec slope_of(Vec x) {
  const NormalTail at = normal_tail(magnitude(x));
  const Vec left = at.tail - at.t * at.gauss * 0.398942280401432678f;  // at −|x|; 1 / √(2π)
  return select(x < 0.0f, left, 1.0f - left);
}

void gelu(In<float> x, Out<float> y, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("y", y, n);
  for_pieces(n, [&](int64_t i, int64_t end) {
    for (; i + kLanes <= end; i += kLanes) store(y.data + i, gelu_of(load(x.data + i)));
    if (i < end) store_part(y.data + i, gelu_of(load_part(x.data + i, end - i)), end - i);
  });
}

void gelu_backward(In<float> x, In<float> g, Out<float> dx, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("g", g, n);
  expect("dx", dx, n);
  for_pieces(n, [&](int64_t i, int64_t end) {
    for (; i + kLanes <= end; i += kLanes) store(dx.data + i, slope_of(load(x.data + i)) * load(g.data + i));
    if (i < end) store_part(dx.data + i, slope_of(load_part(x.data + i, end - i)) * load_part(g.data + i, end - i), end - i);
  });
}

double gelu_cost(In<float>, Out<float>, int64_t n) { return 16.0 * static_cast<double>(n); }
double gelu_backward_cost(In<float>, In<float>, Out<float>, int64_t n) { return 16.0 * static_cast<double>(n); }

}  // namespace

static constexpr oplus_op list[] = {op<gelu, gelu_cost>("gelu"), op<gelu_backward, gelu_backward_cost>("geluBackward")};
extern constinit const Ops gelu_ops(list);

}  // namespace oplus::OPLUS_TARGET
