// What each key received from the queries of a prompt (algorithm D.2): received[j] += Σ e^(q_t · k_j / √D − L_t) over query rows
// t ≥ first that see key j, L being the attention's log-sum-exp. No matrix of weights.
//
// First launch: a block of 16 × 16 threads takes 64 keys and one head and goes over the queries 64 at a time (cuda/attend.h):
// scores by dot_rows with keys as rows, their weights added over the queries in registers, then over the threads of a key.
// Second launch: the heads that count for a chooser are added in order. k is read once for each head of its group, q once for
// each 64 keys.
#include "cuda/attend.h"
#include "cuda/each.h"
#include "cuda/states.h"

namespace oplus::OPLUS_TARGET {
namespace {

// partial[b, h, j] for the keys of a tile.
template <int kWidth, bool kFour>
__global__ void __launch_bounds__(kAttendThreads, 1)
    receive_tile(Heads heads, const float* q, const float* k, const float* L, float* partial, int64_t begin, int64_t tiles) {
  using Tile = Tile<kWidth, 4>;
  GPU_SHARED(float, room, [Tile::kRoom]);
  const int64_t tile = blockIdx.x % tiles, h = blockIdx.x / tiles % heads.H, b = blockIdx.x / tiles / heads.H;
  const int64_t first = tile * Tile::kRows;
  const auto queries = heads.template queries<kFour>(q, b, h);
  const auto keys = heads.template keys<kFour>(k, b, h / (heads.H / heads.G), heads.S);
  float received[Tile::kSide] = {};
  // Queries before S − T + t = first see none of these keys.
  const int64_t from = max(begin, first - (heads.S - heads.T)) / kTileColumns * kTileColumns;
  for (int64_t column = max(int64_t{0}, from); column < heads.T; column += kTileColumns) {
    float sum[Tile::kSide][4];
    Tile::template dot_rows<kFour>(room, keys, first, queries, column, sum);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t t = column + Tile::tx() * 4 + j;
      if (t < begin || t >= heads.T) continue;
      const float total = L[heads.query_row(b, h) + t * heads.H];
#pragma unroll
      for (int i = 0; i < Tile::kSide; ++i)
        if (first + Tile::ty() * Tile::kSide + i < heads.limit(t, heads.S)) received[i] += expf(sum[i][j] * heads.scale - total);
    }
  }
#pragma unroll
  for (int i = 0; i < Tile::kSide; ++i) {
    const float total = row_of_threads_sum(received[i]);
    const int64_t key = first + Tile::ty() * Tile::kSide + i;
    if (Tile::tx() == 0 && key < heads.S) partial[(b * heads.H + h) * heads.S + key] = total;
  }
}

// An element is a key of a chooser, to which `count` heads belong.
struct AddHeads {
  const float* partial;
  float* received;
  int64_t S, capacity, count;
  float factor;
  template <int V>
  __device__ void run(int64_t i) const {
    for (int64_t j = i; j < i + V; ++j) {
      const float* from = partial + j / S * count * S + j % S;
      float sum = 0;
      for (int64_t h = 0; h < count; ++h) sum += from[h * S];
      received[j / S * capacity + j % S] += sum * factor;
    }
  }
};

void cache_received(Stream stream, In<float> q, In<float> k, In<float> L, InOut<float> received, int64_t B, int64_t T, int64_t S,
                    int64_t H, int64_t G, int64_t D, int64_t capacity, int64_t first, int64_t P) {
  expect_heads(H, G, D);
  if (S < 0 || S > capacity)
    fail(OPLUS_BAD_SHAPE, "%lld keys in a cache of %lld", static_cast<long long>(S), static_cast<long long>(capacity));
  if (P != 1 && P != G)
    fail(OPLUS_BAD_SHAPE, "%lld choosers, expected 1 or one for each of %lld heads", static_cast<long long>(P),
         static_cast<long long>(G));
  if (first < 0 || first > T)
    fail(OPLUS_BAD_SHAPE, "first query %lld of %lld", static_cast<long long>(first), static_cast<long long>(T));
  expect("q", q, volume(B, T, H, D)), expect("k", k, volume(B, capacity, G, D)), expect("L", L, volume(B, T, H));
  expect("received", received, volume(B, P, capacity));
  if (S == 0 || first == T) return;
  const Heads heads{nullptr, T, S, H, G, D, capacity, 1 / sqrtf(static_cast<float>(D)), true};
  float* partial = gpu::scratch(stream, volume(B, H, S));
  const int64_t tiles = divide_up(S, 64);
  with_width(D, aligned(q.data, k.data), [&](auto width, auto four) {
    gpu::launch(receive_tile<width, four>, blocks(volume(B, H, tiles)), kAttendThreads, stream, heads, q.data, k.data, L.data,
                partial, first, tiles);
  });
  run_each(stream, false, volume(B, P, S),
           AddHeads{partial, received.data, S, capacity, H / P, P == 1 ? 1 / static_cast<float>(H) : 1.0f});
}
double cache_received_cost(In<float>, In<float>, In<float>, InOut<float>, int64_t B, int64_t T, int64_t S, int64_t H, int64_t,
                           int64_t D, int64_t, int64_t, int64_t) {
  return static_cast<double>(B * T) * static_cast<double>(S) * static_cast<double>(H * D);
}

constexpr oplus_op list[] = {op<cache_received, cache_received_cost>("cacheReceived")};

}  // namespace

extern constinit const Ops cache_received_ops(list);

}  // namespace oplus::OPLUS_TARGET
