// A linear map and an embedding whose weights stay as a pretrained model's file stores them (cuda/stored.h). Sums are f32.
//
// Few rows of x (along_stored; decoding, bound by reading the weights): a warp, or several where there are too few lines to fill
// the card, takes two lines of w, its lanes a piece of a block of each at a time, decoded in registers and used for all rows;
// lanes meet by shuffles, warps in shared memory. Weights are read once, two lines share the reads of x. Many rows: cuda/tiles.h,
// with panels of w decoded on their way to shared memory. Embedding: cuda/each.h, four numbers a thread.
#include "cuda/each.h"
#include "cuda/stored.h"
#include "cuda/tiles.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int64_t kFewRows = 8;
constexpr int kStoredWarps = 8;
constexpr int kStoredLines = 2;
constexpr int64_t kWarpsToFill = 16;  // a multiprocessor

// Rows of x [lines, depth], an operand of tiles.h.
struct Rows {
  static constexpr bool kAlong = true;
  const float* data;
  int64_t lines, depth;
  bool quads;  // rows can be read four floats at a time

  __device__ Pack<4> four(int64_t r, int64_t k) const {
    Pack<4> v = {};
    if (r >= lines || k >= depth) return v;
    const float* p = data + r * depth + k;
    if (quads) return load_pack<4>(p);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (k + j < depth) v.x[j] = p[j];
    return v;
  }
};

// y[s, line] for kFew rows or fewer. `share`: warps that share their lines, a power of two.
template <typename K, int kFew>
__global__ void __launch_bounds__(32 * kStoredWarps, 2)
    along_stored(Rows x, StoredLines<K> w, const float* bias, float* y, int share) {
  GPU_SHARED(float, room, [kStoredWarps][kFew][kStoredLines]);
  constexpr int kFours = K::kPiece / 4;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kStoredWarps + warp) / share * kStoredLines;
  const int64_t pieces = (w.depth + K::kNumbers - 1) / K::kNumbers * K::kPieces;
  float sum[kFew][kStoredLines] = {};
  for (int64_t i = warp % share * 32 + lane; i < pieces; i += 32 * share) {
    const int64_t block = i / K::kPieces, k = block * K::kNumbers;
    const int piece = static_cast<int>(i % K::kPieces);
    Pack<4> weight[kStoredLines][kFours];
#pragma unroll
    for (int r = 0; r < kStoredLines; ++r) K::decode(w.block(min(first + r, w.lines - 1), block), piece, w.depth - k, weight[r]);
#pragma unroll
    for (int s = 0; s < kFew; ++s) {
      if (s >= x.lines) break;
#pragma unroll
      for (int f = 0; f < kFours; ++f) {
        const Pack<4> in = x.four(s, k + K::column(piece, f));
#pragma unroll
        for (int r = 0; r < kStoredLines; ++r)
#pragma unroll
          for (int j = 0; j < 4; ++j) sum[s][r] += in.x[j] * weight[r][f].x[j];
      }
    }
  }
#pragma unroll
  for (int s = 0; s < kFew; ++s)
#pragma unroll
    for (int r = 0; r < kStoredLines; ++r) {
      const float total = warp_sum(sum[s][r]);
      if (lane == 0) room[warp][s][r] = total;
    }
  __syncthreads();
  // One thread for each result of the block adds what the warps that shared it have.
  const int i = static_cast<int>(threadIdx.x), r = i % kStoredLines, s = i / kStoredLines % kFew;
  const int group = i / kStoredLines / kFew * share;
  const int64_t line = (static_cast<int64_t>(blockIdx.x) * kStoredWarps + group) / share * kStoredLines + r;
  if (group >= kStoredWarps || s >= x.lines || line >= w.lines) return;
  float total = bias ? bias[line] : 0.0f;
  for (int other = 0; other < share; ++other) total += room[group + other][s][r];
  y[s * w.lines + line] = total;
}

template <typename K>
void run_along_stored(Stream stream, const Rows& x, const StoredLines<K>& w, const float* bias, float* y) {
  const int64_t groups = divide_up(w.lines, kStoredLines), steps = divide_up(w.depth, 32 * K::kPiece);
  int share = 1;
  while (share < kStoredWarps && share < steps && groups * share < kWarpsToFill * gpu::processors(stream)) share *= 2;
  gpu::launch(x.lines == 1 ? along_stored<K, 1> : along_stored<K, kFewRows>, blocks(divide_up(groups * share, kStoredWarps)),
              32 * kStoredWarps, stream, x, w, bias, y, share);
}

void linear_stored(Stream stream, In<float> x, In<uint8_t> w, MaybeIn<float> b, Out<float> y, int64_t kind, int64_t N, int64_t C,
                   int64_t F) {
  expect("x", x, volume(N, C)), expect("b", b, F), expect("y", y, volume(N, F));
  const Rows rows{x.data, N, C, C % 4 == 0 && aligned(x.data)};
  with_stored(kind, w, F, C, [&](auto lines) {
    if (N == 0 || F == 0) return;
    if (N <= kFewRows) return run_along_stored(stream, rows, lines, b.data, y.data);
    if (large_tiles(stream, N, F)) run_tiles<128>(stream, rows, lines, b.data, y.data, N, F);
    else run_tiles<64>(stream, rows, lines, b.data, y.data, N, F);
  });
}
double linear_stored_cost(In<float>, In<uint8_t>, MaybeIn<float>, Out<float>, int64_t, int64_t N, int64_t C, int64_t F) {
  return static_cast<double>(N) * static_cast<double>(C) * static_cast<double>(F);
}

template <typename K>
struct Embed {
  const int32_t* ids;
  StoredLines<K> w;
  float* y;
  int64_t fours;  // of a row
  template <int V>
  __device__ void run(int64_t i) const {
#pragma unroll 1
    for (int64_t f = i; f < i + V; ++f) {
      const int64_t row = f / fours, k = f % fours * 4, id = ids[row];
      const bool known = id >= 0 && id < w.lines;
      const Pack<4> v = known ? w.four(id, k) : Pack<4>{};
      for (int j = 0; j < 4; ++j)
        if (k + j < w.depth) y[row * w.depth + k + j] = known ? v.x[j] : __uint_as_float(0x7fc00000);
    }
  }
};

void embed_stored(Stream stream, In<int32_t> ids, In<uint8_t> w, Out<float> y, int64_t kind, int64_t N, int64_t V, int64_t C) {
  expect("ids", ids, N), expect("y", y, volume(N, C));
  with_stored(kind, w, V, C, [&](auto lines) {
    const int64_t fours = divide_up(C, 4);
    run_each(stream, false, volume(N, fours), Embed{ids.data, lines, y.data, fours});
  });
}
double embed_stored_cost(In<int32_t>, In<uint8_t>, Out<float>, int64_t, int64_t N, int64_t, int64_t C) {
  return static_cast<double>(N) * static_cast<double>(C);
}

constexpr oplus_op list[] = {op<linear_stored, linear_stored_cost>("linearStored"),
                             op<embed_stored, embed_stored_cost>("embedStored")};

}  // namespace

extern constinit const Ops linear_stored_ops(list);

}  // namespace oplus::OPLUS_TARGET
