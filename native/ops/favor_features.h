// Features of a chunk of tokens on the CPU (favor.h says what they are): projected, and turned into ψ and ℓ, as panels whose
// columns are tokens. They live in a cache and are never written to memory.
#pragma once
#include "ops/favor_functions.h"
#include "ops/favor_tile.h"

namespace oplus::OPLUS_TARGET {

// Features padded to whole vectors, so to whole blocks of rows: ψ of the padding is 0.
OPLUS_INLINE int64_t whole_features(int64_t M) { return divide_up(M, 16) * 16; }

// Ω [M, D] as the micro-kernel broadcasts it: kRows rows side by side, to[(j / kRows · D + d) · kRows + j % kRows]; zeros beyond
// M.
static inline void pack_omega(const float* omega, int64_t M, int64_t D, float* to) {
  for (int64_t j = 0; j < whole_features(M); j += kRows)
    for (int64_t d = 0; d < D; ++d, to += kRows)
      for (int64_t r = 0; r < kRows; ++r) to[r] = j + r < M ? omega[(j + r) * D + d] : 0;
}

// e^x for x ≤ 0 and a little above: exp of core/simd.h without what larger numbers need. 0 below −87.3; NaN stays NaN.
// (power_of_two is shorter by one step, but x log2 e is rounded, which costs digits where x is large.)
OPLUS_INLINE Vec exp_below(Vec x) {
  const Vec shifter = splat(12582912.0f + 127);  // 1.5 · 2^23: rounds to an integer, and leaves it + 127 in the low bits
  const Vec shifted = x * kLog2 + shifter, n = shifted - shifter;
  Vec r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return select(x < -87.33654f, Vec{}, p * (Vec)((VecInt)shifted << 23));
}

// Over the M rows of a panel: ψ in place of a = Ω x̂, the slope ψ' if it is asked for, and ℓ.
static inline void exponentials(int64_t M, float epsilon, const float* columns, int64_t D, float* psi, float* slope,
                                float* scale) {
  for (int s = 0; s < kWide; s += kLanes) {
    Vec norm{}, most = load(psi + s);
    for (int64_t d = 0; d < D; ++d) {
      const Vec x = load(columns + d * kWide + s);
      norm += x * x;
    }
    for (int64_t m = 1; m < M; ++m) most = vmax(load(psi + m * kWide + s), most);
    for (int64_t m = 0; m < M; ++m) {
      const Vec y = exp_below(load(psi + m * kWide + s) - most);
      if (slope) store(slope + m * kWide + s, y);
      store(psi + m * kWide + s, y + epsilon);
    }
    store(scale + s, most - norm * 0.5f);
  }
}

static inline void generalised(const FavorSizes& n, const float* columns, float* psi, float* slope, float* scale) {
  const bool waves = n.feature == Feature::trigonometric;
  for (int s = 0; s < kWide; s += kLanes) {
    Vec norm{};
    for (int64_t d = 0; waves && d < n.D; ++d) {
      const Vec x = load(columns + d * kWide + s);
      norm += x * x;
    }
    for (int64_t m = 0; m < n.M; ++m) {
      Vec rise, *at = slope ? &rise : nullptr;
      const Vec a = load(psi + m * kWide + s);
      store(psi + m * kWide + s, waves ? wave_of(2 * m >= n.M, a, at) : feature_of(n.feature, a, at) + n.epsilon);
      if (slope) store(slope + m * kWide + s, rise);
    }
    store(scale + s, norm * 0.5f);
  }
}

// Tokens `stride` apart, at most kWide of them: their columns [D, kWide], ψ [whole_features(M), kWide], the slopes of the M
// features or null, and ℓ [kWide]. Columns beyond the tokens hold what zeros give.
static inline void features(const FavorSizes& n, const float* omega, const float* x, int64_t stride, int64_t tokens,
                            float* columns, float* psi, float* slope, float* scale) {
  const int64_t rows = whole_features(n.M);
  columns_of(x, stride, tokens, n.D, n.factor, columns);
  product<1, kRows>(omega, n.D * kRows, columns, n.D, rows, psi);
  if (n.feature == Feature::exponential) exponentials(n.M, n.epsilon, columns, n.D, psi, slope, scale);
  else generalised(n, columns, psi, slope, scale);
  for (int64_t i = n.M * kWide; i < rows * kWide; ++i) psi[i] = 0;
}

// e^(from − to), where −∞ says that there is nothing.
OPLUS_INLINE float fade(float from, float to) {
  return from == to && from != -__builtin_inff() ? 1.f : from == -__builtin_inff() ? 0.f : exp(splat(from - to))[0];
}

// What the keys of a chunk are to the state: where it stood, the running c of every token, where it ends, and each key's weight
// there.
struct Ladder {
  float before, after;
  float scale[kWide], running[kWide], weight[kWide];
  bool level;  // all scales are 0 (generalised features): every weight is 1

  void climb(float c, int64_t tokens) {
    before = after = c;
    level = c == 0 || c == -__builtin_inff();
    for (int64_t i = 0; i < kWide; ++i) {
      if (i >= tokens) scale[i] = -__builtin_inff();
      else level = level && scale[i] == 0, after = scale[i] > after || scale[i] != scale[i] ? scale[i] : after;
      running[i] = after == -__builtin_inff() ? 0 : after;  // before any weight: e^(−∞ − 0) is 0, and e^(−∞ + ∞) is not
    }
    for (int64_t i = 0; i < kWide; ++i) weight[i] = fade(scale[i], after);
  }
};

}  // namespace oplus::OPLUS_TARGET
