// The two products that attention and its gradient are made of, for a block of 16 × 16 threads and tiles of rows (queries, or
// keys in the gradient of keys and values) and columns (the others):
//
//   dot_rows     sum[i][j] = row i · column j over the head dimension. Panels of both, 32 deep, go through shared memory; the
//                next pair is on its way into registers meanwhile
//   add_product  out[i] += Σ_c weight[c][i] · line c: weights from shared memory, lines 16 at a time through shared memory
//
// A thread (ty, tx) has kSide neighbouring rows from ty · kSide on; 4 neighbouring columns of the tile from tx · 4 on; and of
// the head dimension kWidth columns, in packs that are 16 packs apart.
#pragma once
#include "panel.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kAttendThreads = 256;
constexpr int kTileColumns = 64;
constexpr int kPanelDepth = 32;
constexpr int kSlabLines = 16;

// kWidth · 16 ≥ D. kSide: 4 rows a thread, or 2 where two results for each row are kept and D is large.
template <int kWidthOf, int kSideOf>
struct Tile {
  static constexpr int kWidth = kWidthOf, kSide = kSideOf;
  static constexpr int kRows = 16 * kSide, kColumns = 16 * kWidth;
  static constexpr int kPack = kWidth < 4 ? kWidth : 4;
  static constexpr int kSlabRow = kColumns + kPanelPad, kWeightRow = kRows + kPanelPad;
  using RowPanel = Panel<kRows, kPanelDepth, kAttendThreads>;
  using ColumnPanel = Panel<kTileColumns, kPanelDepth, kAttendThreads>;
  static constexpr int kRowRoom = kPanelDepth * (kRows + kPanelPad), kColumnRoom = kPanelDepth * (kTileColumns + kPanelPad);
  static constexpr int kSlabRoom = kSlabLines * kSlabRow;
  // Panels and slabs are never needed at once.
  static constexpr int kRoom = kRowRoom + kColumnRoom > kSlabRoom ? kRowRoom + kColumnRoom : kSlabRoom;
  using Weights = float[kTileColumns][kWeightRow];

  __device__ static int ty() { return static_cast<int>(threadIdx.x) / 16; }
  __device__ static int tx() { return static_cast<int>(threadIdx.x) % 16; }
  // The head-dimension column of element i of a thread's results.
  __device__ static int column(int i) { return (i / kPack * 16 + tx()) * kPack + i % kPack; }

  template <bool kFour>
  __device__ static void dot_rows(float* room, const Lines<true, kFour>& rows, int64_t row, const Lines<true, kFour>& columns,
                                  int64_t first, float (&sum)[kSide][4]) {
    auto& row_panel = *reinterpret_cast<typename RowPanel::Shared*>(room);
    auto& column_panel = *reinterpret_cast<typename ColumnPanel::Shared*>(room + kRowRoom);
#pragma unroll
    for (int i = 0; i < kSide; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[i][j] = 0;
    RowPanel next_row;
    ColumnPanel next_column;
    next_row.fetch(rows, row, 0), next_column.fetch(columns, first, 0);
    for (int64_t d = 0; d < rows.depth; d += kPanelDepth) {
      __syncthreads();  // the room may still be read
      next_row.template put<true>(row_panel), next_column.template put<true>(column_panel);
      __syncthreads();
      if (d + kPanelDepth < rows.depth)
        next_row.fetch(rows, row, d + kPanelDepth), next_column.fetch(columns, first, d + kPanelDepth);
#pragma unroll 8
      for (int e = 0; e < kPanelDepth; ++e) {
        const Pack<kSide> a = load_pack<kSide>(&row_panel[e][ty() * kSide]);
        const Pack<4> b = load_pack<4>(&column_panel[e][tx() * 4]);
#pragma unroll
        for (int i = 0; i < kSide; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) sum[i][j] += a.x[i] * b.x[j];
      }
    }
  }

  // A thread's part of a tile of weights, to where add_product reads it.
  __device__ static void put_weights(Weights& weights, const float (&weight)[kSide][4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      Pack<kSide> v;
#pragma unroll
      for (int i = 0; i < kSide; ++i) v.x[i] = weight[i][j];
      store_pack<kSide>(&weights[tx() * 4 + j][ty() * kSide], v);
    }
  }

  template <bool kFour>
  __device__ static void add_product(float* room, const Weights& weights, const Lines<true, kFour>& lines, int64_t first,
                                     float (&out)[kSide][kWidth]) {
    for (int slab = 0; slab < kTileColumns; slab += kSlabLines) {
      __syncthreads();  // weights have been put; the room may still be read
      for (int q = static_cast<int>(threadIdx.x); q < kSlabLines * kColumns / 4; q += kAttendThreads) {
        const int line = q / (kColumns / 4), column = q % (kColumns / 4) * 4;
        store_pack<4>(&room[line * kSlabRow + column], lines.four(first + slab + line, column));
      }
      __syncthreads();
#pragma unroll 4
      for (int c = 0; c < kSlabLines; ++c) {
        const Pack<kSide> a = load_pack<kSide>(&weights[slab + c][ty() * kSide]);
#pragma unroll
        for (int p = 0; p < kWidth; p += kPack) {
          const Pack<kPack> b = load_pack<kPack>(&room[c * kSlabRow + column(p)]);
#pragma unroll
          for (int i = 0; i < kSide; ++i)
#pragma unroll
            for (int j = 0; j < kPack; ++j) out[i][p + j] += a.x[i] * b.x[j];
        }
      }
    }
  }

  // Row i of a thread's results, times a factor, to a row of D numbers in memory.
  __device__ static void write(float* row, int64_t D, const float (&from)[kWidth], float factor) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i)
      if (column(i) < D) row[column(i)] = from[i] * factor;
  }
};

// The sum or the largest of the 16 threads that share a row.
__device__ inline float row_of_threads_sum(float x) {
#pragma unroll
  for (int step = 8; step; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
__device__ inline float row_of_threads_max(float x) {
#pragma unroll
  for (int step = 8; step; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

// Sizes and places of one attention, in kernels.
struct Heads {
  const int32_t* lengths;
  int64_t T, S, H, G, D, capacity;
  float scale;  // 1 / √D
  bool causal;

  __device__ int64_t seen(int64_t b) const { return lengths ? max(int64_t{0}, min(static_cast<int64_t>(lengths[b]), S)) : S; }
  // Query t sees keys below this, if there are `keys` of them.
  __device__ int64_t limit(int64_t t, int64_t keys) const { return causal ? max(int64_t{0}, min(keys, S - T + t + 1)) : keys; }
  __device__ int64_t query_row(int64_t b, int64_t h) const { return b * T * H + h; }  // of t = 0 in [B, T, H]; rows are H apart
  template <bool kFour>
  __device__ Lines<true, kFour> queries(const float* q, int64_t b, int64_t h) const {
    return {q + query_row(b, h) * D, H * D, T, D};
  }
  template <bool kFour>
  __device__ Lines<true, kFour> keys(const float* k, int64_t b, int64_t g, int64_t count) const {
    return {k + (b * capacity * G + g) * D, G * D, count, D};
  }
};

// f(width, four) with the smallest kWidth for D.
template <typename F>
void with_width(int64_t D, bool four, F&& f) {
  const auto width = [&](auto is_four) {
    if (D <= 32) f(std::integral_constant<int, 2>{}, is_four);
    else if (D <= 64) f(std::integral_constant<int, 4>{}, is_four);
    else if (D <= 128) f(std::integral_constant<int, 8>{}, is_four);
    else f(std::integral_constant<int, 16>{}, is_four);
  };
  if (four && D % 4 == 0) width(std::true_type{});
  else width(std::false_type{});
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
