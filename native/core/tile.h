// Small dense products in registers, and the layouts that feed them: what the CPU's attention is made of.
//
// A micro-kernel keeps kBlock × kPanel results in registers (Goto & van de Geijn 2008, "Anatomy of high-performance matrix
// multiplication", section 5): each step reads kPanel neighbouring numbers of b and broadcasts kBlock numbers of a.
// "Panel": kPanel columns of a matrix, step by step, without gaps. Columns beyond the matrix are zeros.
#pragma once
#include <utility>

#include "simd.h"

namespace oplus::OPLUS_TARGET {

// Rows: with two vectors each they fill 24 of 32 registers, 12 of 16, or 8 of 16 where a product needs one of its own.
constexpr int kBlock = kLanes == 16 ? 12 : kLanes == 8 ? 6 : 4;
constexpr int kPanel = 2 * kLanes;
constexpr int kTile = 96;  // keys and queries a tile: a multiple of every kBlock and kPanel, and two 96 × 64 tiles fit in L2

OPLUS_INLINE int64_t panels(int64_t n) { return (n + kPanel - 1) / kPanel; }

// sums[i][j] = Σ_k a[i·RowStep + k·Step] · b[k·kPanel + j], k < n
template <int RowStep, int Step>
OPLUS_INLINE void multiply(const float* a, const float* b, int64_t n, Vec (&sums)[kBlock][2]) {
#pragma GCC unroll 12
  for (int i = 0; i < kBlock; ++i) sums[i][0] = sums[i][1] = Vec{};
  for (int64_t k = 0; k < n; ++k) {
    const Vec b0 = load(b), b1 = load(b + kLanes);
#pragma GCC unroll 12
    for (int i = 0; i < kBlock; ++i) {
      const Vec x = splat(a[i * RowStep]);
      sums[i][0] += x * b0;
      sums[i][1] += x * b1;
    }
    a += Step;
    b += kPanel;
  }
}

// Lanes of (a, b) taken alternately in groups of S: the low groups of both, or the high ones.
template <int S, bool High, int... Lane>
OPLUS_INLINE Vec pick(Vec a, Vec b, std::integer_sequence<int, Lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (Lane & S ? kLanes + Lane - (High ? 0 : S) : Lane + (High ? S : 0))...);
#else
  return __builtin_shuffle(a, b, VecInt{(Lane & S ? kLanes + Lane - (High ? 0 : S) : Lane + (High ? S : 0))...});
#endif
}
template <int S, bool High>
OPLUS_INLINE Vec pick(Vec a, Vec b) {
  return pick<S, High>(a, b, std::make_integer_sequence<int, kLanes>{});
}

template <int S = 1>
OPLUS_INLINE void transpose(Vec (&v)[kLanes]) {
  if constexpr (S < kLanes) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      if (i & S) continue;
      const Vec low = pick<S, false>(v[i], v[i + S]), high = pick<S, true>(v[i], v[i + S]);
      v[i] = low;
      v[i + S] = high;
    }
    transpose<S * 2>(v);
  }
}

// Lane i of the result: the sum of v[i]'s lanes.
template <int S = 1>
OPLUS_INLINE Vec sums_of(Vec (&v)[kLanes]) {
  if constexpr (S < kLanes) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; i += 2 * S) v[i] = pick<S, false>(v[i], v[i + S]) + pick<S, true>(v[i], v[i + S]);
    return sums_of<S * 2>(v);
  } else {
    return v[0];
  }
}

// The largest lane, in every lane.
template <int S = kLanes / 2>
OPLUS_INLINE Vec spread_max(Vec v) {
  if constexpr (S > 0) {
    const Vec low = pick<S, false>(v, v), high = pick<S, true>(v, v);
    return spread_max<S / 2>(vmax(low, high));
  } else {
    return v;
  }
}

// Panel whose columns are rows of `from`: to[d·kPanel + j] = from[j·stride + d], d < D; zeros for j ≥ rows.
static inline void pack_columns(const float* from, int64_t stride, int64_t rows, int64_t D, float* to) {
  for (int first = 0; first < kPanel; first += kLanes) {
    const int64_t filled = rows - first;
    for (int64_t d = 0; d < D; d += kLanes) {
      Vec v[kLanes];
      for (int j = 0; j < kLanes; ++j) {
        if (j >= filled) v[j] = Vec{};
        else v[j] = d + kLanes <= D ? load(from + (first + j) * stride + d) : load_part(from + (first + j) * stride + d, D - d);
      }
      transpose(v);
      for (int j = 0; j < kLanes && d + j < D; ++j) store(to + (d + j) * kPanel + first, v[j]);
    }
  }
}

// The same for kBlock rows that lie anywhere (null: zeros), the operand that is broadcast: to[d·kBlock + i] = factor ·
// rows[i][d]. Writes up to kLanes − kBlock numbers beyond its end: pack in rising order, and leave room behind the last.
static inline void pack_block(const float* const* rows, float factor, int64_t D, float* to) {
  for (int64_t d = 0; d < D; d += kLanes) {
    Vec v[kLanes] = {};
#pragma GCC unroll 16
    for (int i = 0; i < kBlock; ++i)
      if (rows[i]) v[i] = d + kLanes <= D ? load(rows[i] + d) : load_part(rows[i] + d, D - d);
    transpose(v);
    for (int j = 0; j < kLanes && d + j < D; ++j) store(to + (d + j) * kBlock, v[j] * factor);
  }
}

// One step of the panels below: to[(p·steps)·kPanel + i] = factor · row[p·kPanel + i], zeros beyond D or for a null row.
static inline void pack_row(const float* row, float factor, int64_t D, int64_t steps, float* to) {
  for (int64_t d = 0; d < D; d += kPanel, to += steps * kPanel) {
    const int64_t left = row ? D - d : 0;
    store(to, left >= kLanes ? load(row + d) * factor : left > 0 ? load_part(row + d, left) * factor : Vec{});
    store(to + kLanes, left >= kPanel  ? load(row + d + kLanes) * factor
                       : left > kLanes ? load_part(row + d + kLanes, left - kLanes) * factor
                                       : Vec{});
  }
}

// Panels whose steps are rows of `from`: to[(p·steps + j)·kPanel + i] = from[j·stride + p·kPanel + i]; zeros beyond rows and D.
static inline void pack_rows(const float* from, int64_t stride, int64_t rows, int64_t D, int64_t steps, float* to) {
  for (int64_t j = 0; j < steps; ++j) pack_row(j < rows ? from + j * stride : nullptr, 1, D, steps, to + j * kPanel);
}

// to[i] = factor · from[i]
static inline void copy_row(const float* from, float factor, int64_t n, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, load(from + i) * factor);
  if (i < n) store_part(to + i, load_part(from + i, n - i) * factor, n - i);
}

// 2^x for x ≤ 0 (and a little above), relative error below 2 units in the last place; exactly 0 below −126, so for −∞; NaN
// stays NaN. Attention works in powers of two: the factor log2 e goes into the scores' scale.
OPLUS_INLINE Vec power_of_two(Vec x) {
  const Vec shifter = splat(12582912.0f + 127);  // 1.5 · 2^23: rounds to an integer, and leaves it + 127 in the low bits
  const Vec shifted = x + shifter;
  const Vec r = x - (shifted - shifter);
  Vec p = splat(1.535334259e-4f);  // relative minimax on |r| ≤ 1/2 by Lawson's iteration, error 2e-9
  p = p * r + 1.339886761e-3f;
  p = p * r + 9.618437367e-3f;
  p = p * r + 5.550332488e-2f;
  p = p * r + 2.402264791e-1f;
  p = p * r + 6.931472028e-1f;
  p = p * r + 1.0f;
  return select(x < -126.0f, Vec{}, p * (Vec)((VecInt)shifted << 23));
}

}  // namespace oplus::OPLUS_TARGET
