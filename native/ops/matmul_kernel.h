// The three inner loops of the matrix products. Each output is summed by one accumulator in a fixed order that depends on
// the sizes alone, never on which tile it falls in: so the number of threads does not change a single bit.
#pragma once
#include "matmul_pack.h"

namespace oplus::OPLUS_TARGET {

// ---- tile: packed panels of both operands ---------------------------------------------------

// Accumulators kTileRows × 2 vectors, and registers left for two vectors of B and one element of A.
#if defined(__AVX512F__)
constexpr int kTileRows = 14;  // 28 + 3 of 32
#elif defined(__AVX2__)
constexpr int kTileRows = 6;  // 12 + 3 of 16
#elif defined(__aarch64__)
constexpr int kTileRows = 8;  // 16 + 3 of 32
#else
constexpr int kTileRows = 4;  // 8 + 3, and one for a product without fused multiply-add, of 16
#endif
constexpr int kTileColumns = 2 * kLanes;

// y[i, j] = start + Σ_k a[k, i] · b[k, j] for i < rows, j < columns. start: y itself if `add`, else bias[j], or 0 without.
OPLUS_INLINE void tile(int64_t depth, const float* a, const float* b, const float* bias, bool add, float* y, int64_t stride,
                       int64_t rows, int64_t columns) {
  Vec sums[kTileRows][2];
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) {
    sums[i][0] = sums[i][1] = Vec{};
    if (i < rows) __builtin_prefetch(y + i * stride, 1);  // far apart in memory: ask before the long loop
  }
  for (int64_t k = 0; k < depth; ++k, a += kTileRows, b += kTileColumns) {
    const Vec b0 = load(b), b1 = load(b + kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kTileRows; ++i) {
      sums[i][0] += a[i] * b0;
      sums[i][1] += a[i] * b1;
    }
  }
  if (rows >= kTileRows && columns >= kTileColumns) {
    const Vec s0 = bias ? load(bias) : Vec{}, s1 = bias ? load(bias + kLanes) : Vec{};
#pragma GCC unroll 16
    for (int i = 0; i < kTileRows; ++i) {
      float* p = y + i * stride;
      store(p, (add ? load(p) : s0) + sums[i][0]);
      store(p + kLanes, (add ? load(p + kLanes) : s1) + sums[i][1]);
    }
    return;
  }
  const int64_t n0 = columns, n1 = columns - kLanes;
  const Vec s0 = bias ? load_first(bias, n0) : Vec{}, s1 = bias && n1 > 0 ? load_first(bias + kLanes, n1) : Vec{};
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) {
    float* p = y + i * stride;
    if (i < rows) {
      store_first(p, (add ? load_first(p, n0) : s0) + sums[i][0], n0);
      if (n1 > 0) store_first(p + kLanes, (add ? load_first(p + kLanes, n1) : s1) + sums[i][1], n1);
    }
  }
}

// ---- dot: few rows, both operands along k -----------------------------------------------------

constexpr int kDots = 8;  // independent sums at once: latency of 4 cycles × 2 fused multiply-adds a cycle

template <int kBlock>
OPLUS_INLINE void fold(Vec* v) {
#pragma GCC unroll 8
  for (int i = 0; i < kBlock; ++i) v[i] = even_blocks<kBlock>(v[i], v[i + kBlock], Lanes{}) + odd_blocks<kBlock>(v[i], v[i + kBlock], Lanes{});
}
// out[i] = sum of v[i]'s lanes, all eight at once
OPLUS_INLINE void sum_lanes(const Vec* v, float* out) {
  constexpr int kEach = kLanes < kDots ? kLanes : kDots;
#pragma GCC unroll 2
  for (int g = 0; g < kDots; g += kEach) {
    Vec t[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) t[i] = v[g + i % kEach];
    if constexpr (kLanes >= 16) fold<8>(t);
    if constexpr (kLanes >= 8) fold<4>(t);
    fold<2>(t);
    fold<1>(t);
    store_first(out + g, t[0], kEach);
  }
}

// out[i · (kDots / kRows) + j] = a row i · b row j; rows at or past the counts repeat the last row that is there.
template <int kRows>
OPLUS_INLINE void dot_tile(int64_t depth, const float* a, int64_t a_stride, int64_t a_rows, const float* b, int64_t b_stride,
                           int64_t b_rows, float* out) {
  constexpr int kColumns = kDots / kRows;
  const float *pa[kRows], *pb[kColumns];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) pa[i] = a + (i < a_rows ? i : a_rows - 1) * a_stride;
#pragma GCC unroll 8
  for (int j = 0; j < kColumns; ++j) pb[j] = b + (j < b_rows ? j : b_rows - 1) * b_stride;
  Vec sums[kDots];
#pragma GCC unroll 8
  for (int i = 0; i < kDots; ++i) sums[i] = Vec{};
  const auto step = [&](auto read) __attribute__((always_inline)) {
    Vec va[kRows];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) va[i] = read(pa[i]);
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) {
      const Vec vb = read(pb[j]);
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) sums[i * kColumns + j] += va[i] * vb;
    }
  };
  int64_t k = 0;
  for (; k + kLanes <= depth; k += kLanes) step([k](const float* p) __attribute__((always_inline)) { return load(p + k); });
  if (k < depth) step([k, depth](const float* p) __attribute__((always_inline)) { return load_first(p + k, depth - k); });
  sum_lanes(sums, out);
}

// y[i · y_row + j · y_column] = a row i · b row j + bias (of i, of j, or none), i < M, b0 ≤ j < b1. a is the smaller.
struct Dots {
  const float *a, *b, *bias_a, *bias_b;
  float* y;
  int64_t M, K, a_stride, b_stride, y_row, y_column;
};

template <int kRows>
OPLUS_INLINE void dot_block(const Dots& d, int64_t i0, int64_t j0, int64_t rows, int64_t columns) {
  alignas(64) float out[kDots];
  dot_tile<kRows>(d.K, d.a + i0 * d.a_stride, d.a_stride, rows, d.b + j0 * d.b_stride, d.b_stride, columns, out);
  constexpr int kColumns = kDots / kRows;
  for (int64_t i = 0; i < rows && i < kRows; ++i)
    for (int64_t j = 0; j < columns && j < kColumns; ++j)
      d.y[(i0 + i) * d.y_row + (j0 + j) * d.y_column] =
          out[i * kColumns + j] + (d.bias_a ? d.bias_a[i0 + i] : d.bias_b ? d.bias_b[j0 + j] : 0.0f);
}

static inline void dots(const Dots& d, int64_t j0, int64_t j1) {
  if (d.M == 1) {
    for (int64_t j = j0; j < j1; j += 8) dot_block<1>(d, 0, j, 1, j1 - j);
  } else if (d.M == 2) {
    for (int64_t j = j0; j < j1; j += 4) dot_block<2>(d, 0, j, 2, j1 - j);
  } else {
    for (int64_t j = j0; j < j1; j += 8) {  // eight rows of b stay in the nearest cache while the rows of a pass
      const int64_t columns = j1 - j < 8 ? j1 - j : 8;
      int64_t i = 0;
      for (; i + 2 < d.M; i += 4)
        for (int64_t n = 0; n < columns; n += 2) dot_block<4>(d, i, j + n, d.M - i, columns - n);
      if (i + 2 == d.M)
        for (int64_t n = 0; n < columns; n += 4) dot_block<2>(d, i, j + n, 2, columns - n);
      else if (i < d.M)
        dot_block<1>(d, i, j, 1, columns);
    }
  }
}

// ---- stream: few rows, b across k --------------------------------------------------------------

// y[i, j] = (add ? y : 0) + Σ_k a[i, k] · b[k, j] for kRows rows and `columns` ≤ kVectors · kLanes columns.
template <int kRows, int kVectors, bool kWhole>
OPLUS_INLINE void stream_tile(int64_t depth, const float* a, int64_t a_stride, const float* b, int64_t b_stride, bool add, float* y,
                              int64_t y_stride, int64_t columns) {
  const auto read = [columns](const float* p, int v) __attribute__((always_inline)) {
    return kWhole ? load(p + v * kLanes) : load_first(p + v * kLanes, columns - v * kLanes);
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
      else store_first(p + v * kLanes, whole, columns - v * kLanes);
    }
}

template <int kRows, int kVectors>
static inline void stream_rows(int64_t depth, const float* a, int64_t a_stride, const float* b, int64_t b_stride, bool add, float* y,
                               int64_t y_stride, int64_t columns) {
  int64_t j = 0;
  for (; j + kVectors * kLanes <= columns; j += kVectors * kLanes)
    stream_tile<kRows, kVectors, true>(depth, a, a_stride, b + j, b_stride, add, y + j, y_stride, columns - j);
  for (; j < columns; j += kLanes)
    stream_tile<kRows, 1, false>(depth, a, a_stride, b + j, b_stride, add, y + j, y_stride, columns - j);
}

// y[M, columns] = a[M, K] · b[K, columns], rows as far apart as the strides say.
static inline void stream_product(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* y, int64_t y_stride,
                                  int64_t M, int64_t K, int64_t columns) {
  constexpr int64_t kDepth = 256;  // rows of b that are still near when the next rows of a come by
  for (int64_t k = 0; k == 0 || k < K; k += kDepth) {
    const int64_t depth = K - k < kDepth ? K - k : kDepth;
    for (int64_t i = 0; i < M;) {
      const int64_t left = M - i;
      const float *pa = a + i * a_stride + k, *pb = b + k * b_stride;
      float* py = y + i * y_stride;
      if (left == 1) stream_rows<1, 8>(depth, pa, a_stride, pb, b_stride, k > 0, py, y_stride, columns), i += 1;
      else if (left == 2) stream_rows<2, 4>(depth, pa, a_stride, pb, b_stride, k > 0, py, y_stride, columns), i += 2;
      else if (left == 3 || left == 6) stream_rows<3, 4>(depth, pa, a_stride, pb, b_stride, k > 0, py, y_stride, columns), i += 3;
      else stream_rows<4, 3>(depth, pa, a_stride, pb, b_stride, k > 0, py, y_stride, columns), i += 4;
    }
  }
}

}  // namespace oplus::OPLUS_TARGET
