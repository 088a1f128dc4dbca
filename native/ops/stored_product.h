// y = x · wᵀ + b for weights as they are stored (stored.h): w is widened in registers where few rows of x share it, and into the
// packed panels of matmul_product.h where many do. Sums are f32 in either way.
#pragma once
#include "matmul_product.h"
#include "stored.h"

namespace oplus::OPLUS_TARGET {

// Rows of w as lines along k, for the packed ways.
template <typename S>
struct StoredLines {
  static constexpr int64_t kGrain = kChunk;
  static constexpr bool along = true;
  const uint8_t* data;
  int64_t stride;  // bytes
  void ask(int64_t line, int64_t k, int64_t end) const {
    const uint8_t* row = data + line * stride;
    for (int64_t at = k / S::kNumbers * S::kBytes; at < end / S::kNumbers * S::kBytes; at += 64)
      __builtin_prefetch(row + at, 0, 2);
  }
};

static constinit thread_local PanelRoom wide_rows;

template <int kWidth, typename S>
static inline void pack(const StoredLines<S>& lines, int64_t count, int64_t first, int64_t end, int64_t k, int64_t depth,
                        float* out) {
  const int64_t stride = pieces(depth, kChunk) * kChunk + 16;  // whole chunks are written; not a power of two
  float* wide = reserve(wide_rows, kWidth * stride);
  for (int64_t line = first * kWidth; line < end * kWidth; line += kWidth, out += kWidth * depth) {
    const int64_t there = least(kWidth, count - line);
    for (int64_t r = 0; r < there; ++r) widen_row<S>(lines.data + (line + r) * lines.stride, k, depth, wide + r * stride);
    pack<kWidth>(Lines{wide, stride, true}, there, 0, 1, 0, depth, out);
  }
}

// ---- few rows: dot products of rows of x with rows of w ---------------------------------------------------------------

template <typename S>
struct StoredDots {
  const float *x, *bias;
  const uint8_t* w;
  float* y;
  int64_t N, C, F, stride;  // stride: bytes of a row of w
};

// Rows [i, i + kRows) of x by rows [j, j + kColumns) of w. Rows that are not there are replaced by the last one that is.
template <typename S, int kRows, int kColumns>
OPLUS_INLINE void stored_tile(const StoredDots<S>& d, int64_t i, int64_t j, int64_t j1) {
  const int64_t rows = least(kRows, d.N - i), columns = least(kColumns, j1 - j);
  const float* x[kRows];
  const uint8_t* w[kColumns];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) x[r] = d.x + (i + least(r, rows - 1)) * d.C;
#pragma GCC unroll 8
  for (int c = 0; c < kColumns; ++c) w[c] = d.w + (j + least(c, columns - 1)) * d.stride;
  Vec sums[kRows * kColumns];
#pragma GCC unroll 32
  for (int n = 0; n < kRows * kColumns; ++n) sums[n] = Vec{};
  const auto add = [&](const Vec(&weights)[kColumns], int64_t at, int64_t n) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vec from = n >= kLanes ? load(x[r] + at) : load_part(x[r] + at, n);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) sums[r * kColumns + c] += from * weights[c];
    }
  };
  // Rows side by side are followed badly by the hardware: those of the next tile are asked for while these are in work.
  const int64_t ahead = j + 2 * kColumns <= j1 && i == 0 ? kColumns * d.stride : 0;
  Vec weights[kColumns];
  if constexpr (S::kPlain) {
    int64_t k = 0;
    for (; k + kLanes <= d.C; k += kLanes) {
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) __builtin_prefetch(w[c] + ahead + k * S::kBytes);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) weights[c] = S::at(w[c], k);
      add(weights, k, kLanes);
    }
    if (k < d.C) {
      for (int c = 0; c < kColumns; ++c) weights[c] = part<S>(w[c], k, d.C - k);
      add(weights, k, d.C - k);
    }
  } else {
    for (int64_t k = 0; k < d.C; k += kChunk) {
      Vec wide[kColumns][kChunkVecs];
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) __builtin_prefetch(w[c] + ahead + k * S::kBytes / S::kNumbers);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) S::chunk(w[c], k / kChunk, wide[c]);
#pragma GCC unroll 8
      for (int v = 0; v < kChunkVecs; ++v) {
#pragma GCC unroll 8
        for (int c = 0; c < kColumns; ++c) weights[c] = wide[c][v];
        add(weights, k + v * kLanes, kLanes);
      }
    }
  }
  alignas(64) float out[(kRows * kColumns + kLanes - 1) / kLanes * kLanes];
  sum_lanes<kRows * kColumns>(sums, out);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) d.y[(i + r) * d.F + j + c] = out[r * kColumns + c] + (d.bias ? d.bias[j + c] : 0.0f);
}

template <typename S, int kRows, int kColumns>
static inline void stored_tiles(const StoredDots<S>& d, int64_t j0, int64_t j1) {
  for (int64_t j = j0; j < j1; j += kColumns)
    for (int64_t i = 0; i < d.N; i += kRows) stored_tile<S, kRows, kColumns>(d, i, j, j1);
}

// Up to four rows of x are bound by memory: rows of w one or two at a time, so that it is read upwards, which is what prefetchers
// follow (five times the rate of four rows side by side); kChains sums in flight for each result, because one would wait for
// itself.
template <typename S, int kRows>
static inline void stored_rows(const StoredDots<S>& d, int64_t j0, int64_t j1) {
  constexpr int kChains = kRows == 1 ? 4 : 2;
  constexpr int64_t kStep = S::kPlain || kChains * kLanes > kChunk ? kChains * kLanes : kChunk;
  constexpr int64_t kPiece = S::kPlain ? kLanes : kChunk;
  for (int64_t j = j0; j < j1; ++j) {
    const uint8_t* w = d.w + j * d.stride;
    Vec sums[kRows][kChains];
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int i = 0; i < kChains; ++i) sums[r][i] = Vec{};
    const auto add = [&](Vec weights, int64_t at, int i, int64_t n) __attribute__((always_inline)) {
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r)
        sums[r][i] += (n >= kLanes ? load(d.x + r * d.C + at) : load_part(d.x + r * d.C + at, n)) * weights;
    };
    // A vector of plain numbers, or a chunk; into chain i, and on.
    const auto add_some = [&](int64_t k, int i, int64_t n) __attribute__((always_inline)) {
      if constexpr (S::kPlain) {
        add(n >= kLanes ? S::at(w, k) : part<S>(w, k, n), k, i, n);
      } else {
        Vec wide[kChunkVecs];
        S::chunk(w, k / kChunk, wide);
#pragma GCC unroll 8
        for (int v = 0; v < kChunkVecs; ++v) add(wide[v], k + v * kLanes, (i + v) % kChains, kLanes);
      }
    };
    int64_t k = 0;
    for (; k + kStep <= d.C; k += kStep) {
      __builtin_prefetch(w + k * S::kBytes / S::kNumbers + 4096);
      if constexpr (kStep * S::kBytes / S::kNumbers > 64) {
#pragma GCC unroll 4
        for (int64_t line = 64; line < kStep * S::kBytes / S::kNumbers; line += 64)
          __builtin_prefetch(w + k * S::kBytes / S::kNumbers + 4096 + line);
      }
#pragma GCC unroll 4
      for (int64_t c = 0; c < kStep; c += kPiece) add_some(k + c, static_cast<int>(c / kLanes) % kChains, kPiece);
    }
    for (; k < d.C; k += kPiece) add_some(k, 0, d.C - k);
    for (int r = 0; r < kRows; ++r) {
      Vec total = sums[r][0];
      for (int i = 1; i < kChains; ++i) total += sums[r][i];
      d.y[r * d.F + j] = sum(total) + (d.bias ? d.bias[j] : 0.0f);
    }
  }
}

// Accumulators of a tile: what is left of the registers after weights and one vector of x.
constexpr int kManyRows = kLanes == 16 ? 8 : 4;
constexpr int kColumnsOfMany = kLanes == 16 ? 3 : 2;
constexpr int kColumnsOfFour = kLanes == 16 ? 4 : 2;

template <typename S>
static inline void stored_dots(const StoredDots<S>& d, int64_t j0, int64_t j1) {
  if (d.N == 1) stored_rows<S, 1>(d, j0, j1);
  else if (d.N == 2) stored_rows<S, 2>(d, j0, j1);
  else if (d.N <= 4) stored_tiles<S, 4, kColumnsOfFour>(d, j0, j1);
  else stored_tiles<S, kManyRows, kColumnsOfMany>(d, j0, j1);
}

// Bytes of weights that are worth a task: about 10 µs of memory. (A decoder's step is one product after another, so the pool's
// threads are awake.)
constexpr int64_t kTaskBytes = 1 << 18;
// Packing pays from so many rows on.
constexpr int64_t kStoredDotRows = 32;

template <typename S>
static inline void stored_dot_product(const float* x, const uint8_t* w, const float* bias, float* y, int64_t N, int64_t C,
                                      int64_t F) {
  const int64_t stride = row_bytes<S>(C);
  const StoredDots<S> d{x, bias, w, y, N, C, F, stride};
  split(F, 24, most(F * stride / kTaskBytes, N * F * C / kTaskWork), [&](int64_t j0, int64_t j1) { stored_dots(d, j0, j1); });
}

template <typename S>
static inline void stored_product(const float* x, const uint8_t* w, const float* bias, float* y, int64_t N, int64_t C,
                                  int64_t F) {
  const int64_t stride = row_bytes<S>(C);
  if (N <= 0 || F <= 0) return;
  if (C > 0 && N > kStoredDotRows) {
    const ProductOf<StoredLines<S>> p{{x, C, true}, {w, stride}, bias, y, N, F, C};
    return N <= kBlockPanels * kTileRows ? product_block(p) : product_packed(p);
  }
  stored_dot_product<S>(x, w, bias, y, N, C, F);
}

}  // namespace oplus::OPLUS_TARGET
