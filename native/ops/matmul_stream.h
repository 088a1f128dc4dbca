// The loop of products with few rows: b is read as it lies, once, and all sums stay in registers.
#pragma once
#include "../core/simd.h"

namespace oplus::OPLUS_TARGET {

// y[i, j] = (add ? y : 0) + Σ_k a[i, k] · b[k, j] for kRows rows and `columns` ≤ kVectors · kLanes columns. b: floats, or
// what else `load` and `load_part` know.
template <int kRows, int kVectors, bool kWhole, typename T>
OPLUS_INLINE void stream_tile(int64_t depth, const float* a, int64_t a_stride, const T* b, int64_t b_stride, bool add, float* y,
                              int64_t y_stride, int64_t columns) {
  const auto read = [columns](const auto* p, int v) __attribute__((always_inline)) {
    return kWhole ? load(p + v * kLanes) : load_part(p + v * kLanes, columns - v * kLanes);
  };
  Vec sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums[i][v] = Vec{};
  for (int64_t k = 0; k < depth; ++k, b += b_stride) {
    Vec row[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) row[v] = read(b, v);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[i][v] += a[i * a_stride + k] * row[v];
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      float* p = y + i * y_stride;
      const Vec whole = (add ? read(p, v) : Vec{}) + sums[i][v];
      if (kWhole) store(p + v * kLanes, whole);
      else store_part(p + v * kLanes, whole, columns - v * kLanes);
    }
}

}  // namespace oplus::OPLUS_TARGET
