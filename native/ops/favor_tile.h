// Products of linear attention on the CPU: everything is a panel of kWide columns, `steps` rows of them without gaps, and one
// micro-kernel multiplies them (core/tile.h says how such kernels work). Columns are tokens of a chunk, or numbers of a value.
#pragma once
#include "core/partition.h"
#include "core/simd.h"
#include "core/tile.h"

namespace oplus::OPLUS_TARGET {

// Tokens of a chunk, and columns of a panel. Within a chunk attention is a product of tokens with tokens, which costs kWide / 2 ·
// M a token beside 4 · M · D; between chunks the state is read and written once. So it is short.
constexpr int kWide = 32;
constexpr int kRows = kLanes == 16 ? 8 : 4;  // of a micro-kernel, by two vectors
constexpr int kStrip = 2 * kLanes;           // columns of a micro-kernel: kWide is one strip, two or four
constexpr float kLog2 = 1.44269504088896341f;

OPLUS_INLINE int64_t whole_rows(int64_t n) { return divide_up(n, kRows) * kRows; }
OPLUS_INLINE int64_t wide_panels(int64_t n) { return divide_up(n, kWide); }

using Sums = Vec[kRows][2];

OPLUS_INLINE void clear(Sums& sums) {
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) sums[i][0] = sums[i][1] = Vec{};
}

// sums[i] += Σ_k a[i · Row + k · Step] · b[k · kWide + …], k < n, over kVectors vectors
template <int Row, int Step, int kVectors = 2>
OPLUS_INLINE void multiply_add(const float* a, const float* b, int64_t n, Sums& sums) {
  for (int64_t k = 0; k < n; ++k, a += Step, b += kWide) {
    Vec row[kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) row[j] = load(b + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const Vec x = splat(a[i * Row]);
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) sums[i][j] += x * row[j];
    }
  }
}

OPLUS_INLINE void put(const Sums& sums, float* to) {
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) store(to + i * kWide, sums[i][0]), store(to + i * kWide + kLanes, sums[i][1]);
}
OPLUS_INLINE void take(Sums& sums, const float* from, float factor) {
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
    sums[i][0] = factor * load(from + i * kWide), sums[i][1] = factor * load(from + i * kWide + kLanes);
}

// to[m · kWide + j] = Σ_k a[m][k] · b[k · kWide + j] over whole blocks of rows; a as multiply_add reads it, kBlock apart from
// block to block.
template <int Row, int Step>
static inline void product(const float* a, int64_t block, const float* b, int64_t n, int64_t rows, float* to) {
  for (int64_t m = 0; m < rows; m += kRows, a += block)
    for (int s = 0; s < kWide; s += kStrip) {
      Sums sums;
      clear(sums);
      multiply_add<Row, Step>(a, b + s, n, sums);
      put(sums, to + m * kWide + s);
    }
}

// Tokens become columns: to[d · kWide + j] = factor · from[j · stride + d] for j < tokens, zeros for the others.
static inline void columns_of(const float* from, int64_t stride, int64_t tokens, int64_t D, float factor, float* to) {
  for (int first = 0; first < kWide; first += kLanes)
    for (int64_t d = 0; d < D; d += kLanes) {
      Vec v[kLanes];
      for (int j = 0; j < kLanes; ++j)
        v[j] = first + j < tokens ? load_some(from + (first + j) * stride + d, D - d) * factor : Vec{};
      transpose(v);
      for (int j = 0; j < kLanes && d + j < D; ++j) store(to + (d + j) * kWide + first, v[j]);
    }
}

// And back: to[j · stride + d] = factor · from[d · kWide + j] for j < tokens.
static inline void rows_of(const float* from, int64_t tokens, int64_t D, float factor, float* to, int64_t stride) {
  for (int first = 0; first < kWide && first < tokens; first += kLanes)
    for (int64_t d = 0; d < D; d += kLanes) {
      Vec v[kLanes];
      for (int j = 0; j < kLanes; ++j) v[j] = d + j < D ? load(from + (d + j) * kWide + first) * factor : Vec{};
      transpose(v);
      for (int j = 0; j < kLanes && first + j < tokens; ++j) store_some(to + (first + j) * stride + d, v[j], D - d);
    }
}

// Rows of E numbers as panels of columns: to[(p · rows + i) · kWide + e] = weight[i] · from[i · stride + p · kWide + e]; zeros
// beyond `filled` rows and E columns. Without weights: as they are.
static inline void panels_of(const float* from, int64_t stride, int64_t filled, int64_t rows, int64_t E, const float* weight,
                             float* to) {
  for (int64_t p = 0; p < wide_panels(E); ++p)
    for (int64_t i = 0; i < rows; ++i, to += kWide)
      for (int e = 0; e < kWide; e += kLanes) {
        const int64_t left = E - p * kWide - e;
        const Vec v = i < filled && left > 0 ? load_some(from + i * stride + p * kWide + e, left) : Vec{};
        store(to + e, weight && i < filled ? v * weight[i] : v);
      }
}

// to[i] = from[i] / by; 0 where nothing was seen, so that there is nothing to divide by.
static inline void divide_row(const float* from, float by, int64_t n, float* to) {
  for (int64_t i = 0; i < n; i += kLanes) store_some(to + i, by == 0 ? Vec{} : load_some(from + i, n - i) / by, n - i);
}

}  // namespace oplus::OPLUS_TARGET
