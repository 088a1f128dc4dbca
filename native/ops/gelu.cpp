// GELU (Hendrycks & Gimpel 2016), exact: y = x · Φ(x), and its gradient Φ(x) + x · φ(x).
// For x < 0 the product x · Φ(x) is made from the tail itself, so small results keep their digits; where a library writes
// 1 + erf(x / √2) they cancel. −∞ gives −0, the limit.
#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"
#include "core/simd_erf.h"

namespace oplus::OPLUS_TARGET {
namespace {

// Beyond ±14 both Φ(−|x|) and φ(x) are 0 in f32; keeping x finite keeps ∞ · 0 away. In this order, NaN passes.
OPLUS_INLINE Vec finite(Vec x) { return vmin(splat(14.0f), vmax(splat(-14.0f), x)); }
OPLUS_INLINE Vec magnitude(Vec x) { return (Vec)((VecInt)x & 0x7fffffff); }

OPLUS_INLINE Vec gelu_of(Vec x) {
  const Vec tail = normal_tail(magnitude(x)).tail;
  const Vec part = finite(x) * tail;
  return select(x < 0.0f, part, x - part);
}

OPLUS_INLINE Vec slope_of(Vec x) {
  const NormalTail at = normal_tail(magnitude(x));
  const Vec below = select(x < 0.0f, at.tail, 1.0f - at.tail);
  return below + finite(x) * at.gauss * 0.398942280401432678f;  // 1 / √(2π)
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
