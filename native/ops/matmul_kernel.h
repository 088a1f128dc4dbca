// The three inner loops of the matrix products. Each output is summed by one accumulator in a fixed order that depends on
// the sizes alone, never on which tile it falls in: so the number of threads does not change a single bit.
#pragma once
#include "matmul_pack.h"
#include "matmul_stream.h"

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
// The last panel of rows, when it is at most about half full, takes a tile of fewer rows.
constexpr int kFewRows = kTileRows > 8 ? 8 : kTileRows > 4 ? 4 : 2;

// y[i, j] = start + Σ_k a[k, i] · b[k, j] for i < rows, j < columns. start: y itself if `add`, else bias[j], or 0 without.
template <int kRows>
OPLUS_INLINE void tile(int64_t depth, const float* a, const float* b, const float* bias, bool add, float* y, int64_t stride,
                       int64_t rows, int64_t columns) {
  Vec sums[kRows][2];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    sums[i][0] = sums[i][1] = Vec{};
    if (i < rows) __builtin_prefetch(y + i * stride, 1);  // far apart in memory: ask before the long loop
  }
  for (int64_t k = 0; k < depth; ++k, a += kTileRows, b += kTileColumns) {
    const Vec b0 = load(b), b1 = load(b + kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      sums[i][0] += a[i] * b0;
      sums[i][1] += a[i] * b1;
    }
  }
  if (rows >= kRows && columns >= kTileColumns) {
    const Vec s0 = bias ? load(bias) : Vec{}, s1 = bias ? load(bias + kLanes) : Vec{};
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      float* p = y + i * stride;
      store(p, (add ? load(p) : s0) + sums[i][0]);
      store(p + kLanes, (add ? load(p + kLanes) : s1) + sums[i][1]);
    }
    return;
  }
  const int64_t n0 = columns, n1 = columns - kLanes;
  const Vec s0 = bias ? load_part(bias, n0) : Vec{}, s1 = bias && n1 > 0 ? load_part(bias + kLanes, n1) : Vec{};
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    float* p = y + i * stride;
    if (i < rows) {
      store_part(p, (add ? load_part(p, n0) : s0) + sums[i][0], n0);
      if (n1 > 0) store_part(p + kLanes, (add ? load_part(p + kLanes, n1) : s1) + sums[i][1], n1);
    }
  }
}

// ---- dot: few rows, both operands along k -----------------------------------------------------

template <int kBlock>
OPLUS_INLINE void fold(Vec* v) {
#pragma GCC unroll 8
  for (int i = 0; i < kBlock; ++i)
    v[i] = even_blocks<kBlock>(v[i], v[i + kBlock], Lanes{}) + odd_blocks<kBlock>(v[i], v[i + kBlock], Lanes{});
}
// out[i] = sum of v[i]'s lanes, i < kCount, a vector of sums at once; out has room for whole vectors.
template <int kCount>
OPLUS_INLINE void sum_lanes(const Vec* v, float* out) {
#pragma GCC unroll 4
  for (int g = 0; g < kCount; g += kLanes) {
    Vec t[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) t[i] = v[g + i < kCount ? g + i : g];
    if constexpr (kLanes >= 16) fold<8>(t);
    if constexpr (kLanes >= 8) fold<4>(t);
    fold<2>(t);
    fold<1>(t);
    store(out + g, t[0]);
  }
}

// Dot products of M rows of a with rows of b, both K long: y[i · y_row + j · y_column] = a_i · b_j + bias (of i, of j, or
// none). a is the operand with few rows.
struct Dots {
  const float *a, *b, *bias_a, *bias_b;
  float* y;
  int64_t M, K, a_stride, b_stride, y_row, y_column;
};

// Rows [i, i + kRows) of a by rows [j, min(j + kColumns, j1)) of b, over [k, k + depth). A row of b that is not there is
// replaced by the last one that is.
template <int kRows, int kColumns>
OPLUS_INLINE void dot_tile(const Dots& d, int64_t i, int64_t j, int64_t j1, int64_t k, int64_t depth) {
  const int64_t columns = j1 - j < kColumns ? j1 - j : kColumns;
  const float *a[kRows], *b[kColumns];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) a[r] = d.a + (i + r) * d.a_stride + k;
#pragma GCC unroll 16
  for (int c = 0; c < kColumns; ++c) b[c] = d.b + (j + (c < columns ? c : columns - 1)) * d.b_stride + k;
  Vec sums[kRows * kColumns];
#pragma GCC unroll 16
  for (int n = 0; n < kRows * kColumns; ++n) sums[n] = Vec{};
  const auto step = [&](auto read) __attribute__((always_inline)) {
    Vec bs[kColumns];
    if constexpr (kRows > 1) {
#pragma GCC unroll 16
      for (int c = 0; c < kColumns; ++c) bs[c] = read(b[c]);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vec ar = read(a[r]);
#pragma GCC unroll 16
      for (int c = 0; c < kColumns; ++c) sums[r * kColumns + c] += ar * (kRows > 1 ? bs[c] : read(b[c]));
    }
  };
  int64_t n = 0;
  for (; n + kLanes <= depth; n += kLanes) step([n](const float* p) __attribute__((always_inline)) { return load(p + n); });
  if (n < depth) step([n, depth](const float* p) __attribute__((always_inline)) { return load_part(p + n, depth - n); });
  alignas(64) float out[(kRows * kColumns + kLanes - 1) / kLanes * kLanes];
  sum_lanes<kRows * kColumns>(sums, out);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    float* y = d.y + (i + r) * d.y_row + j * d.y_column;
    for (int64_t c = 0; c < columns; ++c) {
      const float before = k ? y[c * d.y_column] : d.bias_a ? d.bias_a[i + r] : d.bias_b ? d.bias_b[j + c] : 0.0f;
      y[c * d.y_column] = before + out[r * kColumns + c];
    }
  }
}

constexpr int64_t kDotDepth = 512;

template <int kRows, int kColumns>
static inline void dot_rows(const Dots& d, int64_t i, int64_t j0, int64_t j1, int64_t k, int64_t depth) {
  for (int64_t j = j0; j < j1; j += kColumns) dot_tile<kRows, kColumns>(d, i, j, j1, k, depth);
}

// Rows [j0, j1) of b. Tiles of 8 to 12 independent sums hide the latency of multiply-adds: 4 cycles, 2 a cycle. While kDotDepth
// of all rows of a stay in the nearest cache, three or four rows of b at a time stream through: more of them would fall
// into the same cache sets when their stride is a power of two.
static inline void dots(const Dots& d, int64_t j0, int64_t j1) {
  if (d.M == 1) return dot_rows<1, 8>(d, 0, j0, j1, 0, d.K);
  for (int64_t k = 0; k == 0 || k < d.K; k += kDotDepth) {
    const int64_t depth = d.K - k < kDotDepth ? d.K - k : kDotDepth;
    if (d.M == 2) {
      dot_rows<2, 6>(d, 0, j0, j1, k, depth);
    } else if (d.M % 4 == 0) {
      for (int64_t j = j0; j < j1; j += 3)
        for (int64_t i = 0; i < d.M; i += 4) dot_tile<4, 3>(d, i, j, j1, k, depth);
    } else {
      for (int64_t j = j0; j < j1; j += 4) {
        int64_t i = 0;
        for (; d.M - i != 2 && d.M - i != 4 && i < d.M; i += 3) dot_tile<3, 4>(d, i, j, j1, k, depth);
        for (; i < d.M; i += 2) dot_tile<2, 4>(d, i, j, j1, k, depth);
      }
    }
  }
}

// ---- stream: few rows, b across k --------------------------------------------------------------

template <int kRows, int kVectors>
static inline void stream_rows(int64_t depth, const float* a, int64_t a_stride, const float* b, int64_t b_stride, bool add,
                               float* y, int64_t y_stride, int64_t columns) {
  int64_t j = 0;
  for (; j + kVectors * kLanes <= columns; j += kVectors * kLanes)
    stream_tile<kRows, kVectors, true>(depth, a, a_stride, b + j, b_stride, add, y + j, y_stride, columns - j);
  if (j < columns) stream_tile<kRows, kVectors, false>(depth, a, a_stride, b + j, b_stride, add, y + j, y_stride, columns - j);
}

// y[M, columns] = a[M, K] · b[K, columns], rows as far apart as the strides say.
static inline void stream_product(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* y, int64_t y_stride,
                                  int64_t M, int64_t K, int64_t columns) {
  constexpr int64_t kDepth = 64;  // rows of b that are still near when the next columns and the next rows of a come by
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
