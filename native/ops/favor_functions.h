// The feature functions f of favor.h and their derivatives, on vectors.
#pragma once
#include "core/simd.h"
#include "core/simd_erf.h"
#include "ops/favor.h"

namespace oplus::OPLUS_TARGET {

// cos(a), or sin(a) for the second half of the features.
OPLUS_INLINE Vec wave_of(bool sine, Vec a, Vec* slope) {
  float lanes[kLanes], slopes[kLanes];
  store(lanes, a);
  for (int i = 0; i < kLanes; ++i) {
    const float cosine = __builtin_cosf(lanes[i]), s = __builtin_sinf(lanes[i]);
    lanes[i] = sine ? s : cosine, slopes[i] = sine ? cosine : -s;
  }
  if (slope) *slope = load(slopes);
  return load(lanes);
}

// f(a), and f'(a) where it is asked for. Cosines and tanh come from the C library, a lane at a time: they are here for
// comparison.
OPLUS_INLINE Vec feature_of(Feature feature, Vec a, Vec* slope) {
  switch (feature) {
    case Feature::relu:
      if (slope) *slope = select(a > 0.f, splat(1), Vec{});
      return select(a < 0.f, Vec{}, a);
    case Feature::sigmoid: {
      const Vec y = 1.f / (1.f + exp(-a));
      if (slope) *slope = y * (1.f - y);
      return y;
    }
    case Feature::exp: {
      const Vec y = exp(a);
      if (slope) *slope = y;
      return y;
    }
    case Feature::abs:
      if (slope) *slope = select(a > 0.f, splat(1), select(a < 0.f, splat(-1), Vec{}));
      return (Vec)((VecInt)a & 0x7fffffff);
    case Feature::gelu: {
      const NormalTail at = normal_tail((Vec)((VecInt)a & 0x7fffffff));
      const Vec left = at.tail - at.t * at.gauss * 0.398942280401432678f;  // at −|a|; 1 / √(2π)
      if (slope) *slope = select(a < 0.f, left, 1.f - left);
      return vmax(a, Vec{}) - at.t * at.tail;
    }
    case Feature::cos:
      return wave_of(false, a, slope);
    case Feature::tanh: {
      float lanes[kLanes];
      store(lanes, a);
      for (int i = 0; i < kLanes; ++i) lanes[i] = __builtin_tanhf(lanes[i]);
      const Vec y = load(lanes);
      if (slope) *slope = 1.f - y * y;
      return y;
    }
    case Feature::elu: {
      const Vec low = exp(vmin(a, Vec{}));
      if (slope) *slope = low;
      return select(a > 0.f, a + 1.f, low);
    }
    case Feature::exponential:  // these two have a scale of their own: favor_features.h
    case Feature::trigonometric:
    case Feature::identity:
      break;
  }
  if (slope) *slope = splat(1);
  return a;
}

}  // namespace oplus::OPLUS_TARGET
