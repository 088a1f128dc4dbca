// The normal distribution's tail, with as many good digits far out as near zero: what GELU and its gradient are made of.
#pragma once
#include "simd.h"

namespace oplus::OPLUS_TARGET {

struct NormalTail {
  Vec t;      // as given, at most 13.2: finite, so that t · tail is 0 and not NaN at infinity
  Vec tail;   // Φ(−t) = erfc(t / √2) / 2
  Vec gauss;  // exp(−t² / 2)
};

// For t ≥ 0; NaN stays NaN. Relative error below 5 units in the last place until Φ(−t) becomes subnormal, where it is 0
// (t > 13.1).
//
// Φ(−t) = exp(−t² / 2) · W / (t + 2.5), where W(t) is nearly flat: a polynomial of degree 9 in 1 / (t + 2.5), shifted and scaled
// to [−1, 1], after Shepherd & Laframboise (1981, "Chebyshev approximation of (1 + 2x) exp(x²) erfc x in 0 ≤ x < ∞").
// Coefficients: relative minimax on [0, 13.2] by Lawson's iteration, error 1.5e-8.
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
  const Vec gauss = select(t > 13.1f, Vec{}, p * (Vec)((VecInt)shifted << 23));

  const Vec inverse = 1.0f / (t + 2.5f), z = inverse * 5.946969697f - 1.378787879f;
  Vec q = splat(3.267017425e-05f);
  q = q * z + -2.120085118e-05f;
  q = q * z + -2.775097664e-04f;
  q = q * z + 5.624773685e-04f;
  q = q * z + 1.507684149e-03f;
  q = q * z + -7.125556777e-03f;
  q = q * z + -1.133966201e-02f;
  q = q * z + 8.848029151e-02f;
  q = q * z + 3.991658872e-01f;
  q = q * z + 7.790149372e-01f;
  return {t, gauss * (q * inverse), gauss};
}

}  // namespace oplus::OPLUS_TARGET
