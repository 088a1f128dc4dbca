// AdamW (Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2) and the sum of squares that
// clipping by the global norm needs (Pascanu et al. 2013, section 3.2).
#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"

namespace oplus::OPLUS_TARGET {
namespace {

// (The masked form, because GCC 12 warns about the plain one: its bug 105593.)
OPLUS_INLINE Vec square_root(Vec x) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
#elif defined(__AVX2__)
  return (Vec)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
  return (Vec)_mm_sqrt_ps((__m128)x);
#else
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

float squares_of(const float* x, int64_t n) {
  Vec s[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) {
      const Vec v = load(x + i + j * kLanes);
      s[j] += v * v;
    }
  for (; i < n; i += kLanes) {
    const Vec v = load_part(x + i, at_most(kLanes, n - i));
    s[0] += v * v;
  }
  return sum((s[0] + s[1]) + (s[2] + s[3]));
}

void sum_squares(In<float> x, InOut<float> total, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("total", total, 1);
  total[0] += static_cast<float>(sum_pieces(n, [&](int64_t i, int64_t end) { return squares_of(x.data + i, end - i); }));
}

void adamw(InOut<float> p, In<float> g, InOut<float> m, InOut<float> v, MaybeIn<float> total, float clip, float rate, float beta1,
           float beta2, float epsilon, float decay, float correction1, float correction2, int64_t n) {
  volume(n);
  expect("p", p, n);
  expect("g", g, n);
  expect("m", m, n);
  expect("v", v, n);
  expect("total", total, 1);
  float factor = 1;
  if (clip > 0 && total) {
    const float norm = __builtin_sqrtf(total[0]);
    factor = clip / (norm > clip ? norm : clip);
  }
  for_pieces(n, [&](int64_t i, int64_t end) {
    for (; i < end; i += kLanes) {
      const int64_t part = at_most(kLanes, end - i);
      auto get = [&](const float* from) { return load_some(from + i, part); };
      auto put = [&](float* to, Vec x) { store_some(to + i, x, part); };
      const Vec gradient = get(g.data) * factor;
      const Vec first = get(m.data) * beta1 + gradient * (1 - beta1);
      const Vec second = get(v.data) * beta2 + gradient * gradient * (1 - beta2);
      put(m.data, first);
      put(v.data, second);
      const Vec old = get(p.data);
      put(p.data, old - rate * (first / correction1 / (square_root(second / correction2) + epsilon) + decay * old));
    }
  });
}

}  // namespace

static constexpr oplus_op list[] = {op<sum_squares>("sumSquares"), op<adamw>("adamw")};
extern constinit const Ops optimizer_ops(list);

}  // namespace oplus::OPLUS_TARGET
