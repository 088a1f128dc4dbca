// Products of linear attention on CUDA, for a block of 16 × 16 threads: squares of 64 × 64 in shared memory (features by tokens,
// weights of tokens for tokens) by each other, or by lines that come through shared memory 16 at a time. A thread's rows and
// columns are those of cuda/attend.h, whose dot_rows makes the features.
#pragma once
#include "favor.h"

namespace oplus::OPLUS_TARGET {
namespace {

// x, so that what is worked out from it is worked out here: kept from before, addresses take more registers than there are.
__device__ inline int64_t here(int64_t x) {
#if defined(__CUDACC__)
  asm volatile("" : "+l"(x));
#endif
  return x;
}

// Rows fall into different banks, and take the room of dot_rows' panels.
using Square = float[kSquare][kSquare + kPanelPad];
static_assert(sizeof(Square) >= sizeof(float) * Tile<2, 4>::kRoom);

// A thread's 4 rows by 4 columns: as they are, or with rows as columns.
__device__ inline void put_rows(Square& to, const float (&x)[4][4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
    store_pack<4>(&to[Tile<4, 4>::ty() * 4 + i][Tile<4, 4>::tx() * 4], {x[i][0], x[i][1], x[i][2], x[i][3]});
}
__device__ inline void put_columns(Square& to, const float (&x)[4][4]) { Tile<4, 4>::put_weights(to, x); }

enum class Side {
  down,      // weights[c][row]
  across,    // weights[row][c]
  triangle,  // down, and no line beyond the row is looked at: where it is not finite, 0 times it would not be 0
};

// weight[k][i]: those of four neighbouring lines c + k for the thread's rows.
template <Side kSide>
__device__ void four_weights(const Square& weights, int c, float (&weight)[4][4]) {
  const int row = Tile<4, 4>::ty() * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const Pack<4> p = load_pack<4>(kSide == Side::across ? &weights[row + i][c] : &weights[c + i][row]);
#pragma unroll
    for (int k = 0; k < 4; ++k) (kSide == Side::across ? weight[k][i] : weight[i][k]) = p.x[k];
  }
}

// Multiply-adds are written as such, as nvcc would contract them: the emulator rounds alike.

// sum[i][j] += Σ_c weight of line c for row i · b[c][column j]
template <Side kSide>
__device__ void add_square(const Square& weights, const Square& b, float (&sum)[4][4]) {
#pragma unroll 1
  for (int c = 0; c < kSquare; c += 4) {
    float weight[4][4];
    four_weights<kSide>(weights, c, weight);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const Pack<4> line = load_pack<4>(&b[c + k][Tile<4, 4>::tx() * 4]);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(weight[k][i], line.x[j], sum[i][j]);
    }
  }
}

// Σ_c weights[c][row] · factor[c] for row threadIdx.x / 4, the same in the four threads that share it; across: weights[row][c].
template <Side kSide>
__device__ float row_sum(const Square& weights, const float* factor) {
  const int row = static_cast<int>(threadIdx.x) / 4;
  float sum = 0;
#pragma unroll 4
  for (int c = static_cast<int>(threadIdx.x) % 4; c < kSquare; c += 4)
    sum += (kSide == Side::across ? weights[row][c] : weights[c][row]) * factor[c];
  sum += __shfl_xor_sync(kAllLanes, sum, 1);
  return sum + __shfl_xor_sync(kAllLanes, sum, 2);
}

// Lines from `first` on, each times a factor of its own unless there are none.
template <bool kFour>
struct Weighted {
  Lines<true, kFour> lines;
  int64_t first;
  const float* factor;
  __device__ Pack<4> four(int c, int column) const {
    Pack<4> v = lines.four(first + c, column);
#pragma unroll
    for (int j = 0; factor && j < 4; ++j) v.x[j] *= factor[c];
    return v;
  }
};

template <int kWidth>
struct FavorTile : Tile<kWidth, 4> {
  using Base = Tile<kWidth, 4>;
  static constexpr int kSlab = Base::kSlabRoom;

  // out[i] += Σ_c weight of line c for row i · line c, over 64 lines
  template <Side kSide, bool kFour>
  __device__ static void add_lines(float* slab, const Square& weights, const Weighted<kFour>& lines, float (&out)[4][kWidth]) {
    constexpr int kPack = Base::kPack;
    for (int from = 0; from < kSquare; from += kSlabLines) {
      __syncthreads();  // weights have been put; the slab may still be read
#pragma unroll 1
      for (int q = static_cast<int>(threadIdx.x); q < kSlabLines * Base::kColumns / 4; q += kFavorThreads) {
        const int line = q / (Base::kColumns / 4), column = q % (Base::kColumns / 4) * 4;
        store_pack<4>(&slab[line * Base::kSlabRow + column], lines.four(from + line, column));
      }
      __syncthreads();
#pragma unroll 1
      for (int c = 0; c < kSlabLines; c += 4) {
        float weight[4][4];
        four_weights<kSide>(weights, from + c, weight);
#pragma unroll
        for (int k = 0; k < 4; ++k)
#pragma unroll
          for (int p = 0; p < kWidth; p += kPack) {
            const Pack<kPack> b = load_pack<kPack>(&slab[(c + k) * Base::kSlabRow + Base::column(p)]);
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
              for (int j = 0; j < kPack; ++j)
                if (kSide != Side::triangle || from + c + k <= Base::ty() * 4 + i)
                  out[i][p + j] = fmaf(weight[k][i], b.x[j], out[i][p + j]);
          }
      }
    }
  }

  // The thread's part of 64 features from `tile` on of a slot's S: S ← keep · S + sums, where 0 times anything is 0. A chunk is
  // summed first: added to S one by one, the small parts of a long stream would be rounded away.
  __device__ static void move_on(const Slots& slots, float* S, int64_t tile, float keep, const float (&sums)[4][kWidth]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t m = tile + Base::ty() * 4 + i;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        float* at = S + m * slots.columns + Base::column(j);
        if (m < slots.M && Base::column(j) < slots.E) *at = (keep == 0 ? 0 : keep * *at) + sums[i][j];
      }
    }
  }
};

}  // namespace
}  // namespace oplus::OPLUS_TARGET
