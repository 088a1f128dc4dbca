// The normal distribution's tail, with as many good digits far out as near zero: what GELU and its gradient are made of.
#pragma once
#include "simd.h"

namespace oplus::OPLUS_TARGET {

struct NormalTail {
  Vec tail;   // Φ(−t) = erfc(t / √2) / 2
  Vec gauss;  // exp(−t² / 2)
};

// For t ≥ 0; NaN stays NaN. Relative error below 3 units in the last place until Φ(−t) becomes subnormal, where it is 0
// (t > 13.1).
//
// Φ(−t) = exp(−t² / 2) · R(t), where R = erfcx(t / √2) / 2 is smooth: a polynomial of degree 9 in z = (t − 3) / (t + 3), as
// Shepherd & Laframboise (1981, "Chebyshev approximation of (1 + 2x) exp(x²) erfc x in 0 ≤ x < ∞") map the half line.
// Coefficients: relative minimax on [0, 13.2] by Lawson's iteration, error 6.6e-9.
// exp: t² / 2 reaches 86, so its rounding alone would cost 86 units. t = h + l with h of 12 bits, so h² is exact and
// −t² / 2 = −h² / 2 − l · (t + h) / 2: the second part joins the exponential's reduced argument.
OPLUS_INLINE NormalTail normal_tail(Vec t) {
  t = vmin(splat(13.2f), t);  // in this order, NaN passes
  const Vec h = (Vec)((VecInt)t & static_cast<int32_t>(0xfffff000)), l = t - h;
  const Vec high = h * h * -0.5f, low = l * (t + h) * -0.5f;
  const Vec shifter = splat(12582912.0f + 127);  // 1.5 · 2^23: rounds to an integer, and leaves it + 127 in the low bits
  const Vec shifted = high * 1.44269504088896341f + shifter;
  const Vec n = shifted - shifter;
  Vec r = high - n * 0.693359375f;
  r = r - n * -2.12194440e-4f + low;
  Vec p = splat(1.9875691500e-4f);  // Cephes' expf
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Vec gauss = p * (Vec)((VecInt)shifted << 23);

  const Vec z = (t - 3.0f) / (t + 3.0f);
  Vec q = splat(5.415085932e-05f);
  q = q * z + 1.160373832e-04f;
  q = q * z + -3.399113334e-04f;
  q = q * z + -9.841827720e-04f;
  q = q * z + 2.904702627e-03f;
  q = q * z + 6.132183065e-03f;
  q = q * z + -4.621331381e-02f;
  q = q * z + 1.232250217e-01f;
  q = q * z + -2.064026179e-01f;
  q = q * z + 1.215139477e-01f;
  const VecInt beyond = t > 13.1f;
  return {select(beyond, Vec{}, gauss * q), select(beyond, Vec{}, gauss)};
}

}  // namespace oplus::OPLUS_TARGET
