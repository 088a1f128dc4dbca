// The gradient of attention (Dao et al. 2022, "FlashAttention", algorithm 4, without atomics). With p_tj = exp(s_tj − L_t),
// dp_tj = g_t · v_j and δ_t = g_t · o_t:  ds_tj = p_tj (dp_tj − δ_t),  dq = ds · k / √D,  dk = dsᵀ · q / √D,  dv = pᵀ · g.
//
// Three launches, each result written once and added up by one thread in order, so it is always the same:
//   deltas           a warp takes one row of g and o
//   query_gradient   a block takes 64 queries of a head and goes over the keys 64 at a time
//   key_gradient     a block takes 64 keys of a group (32 where D > 64: two results a key are kept in registers) and goes over
//                    the heads of the group and their queries, 64 at a time
// The scores are worked out in both, which costs two products more than one pass with atomic additions would. The products are
// those of cuda/attend.h.
#include "cuda/attend.h"
#include "cuda/states.h"

namespace oplus::OPLUS_TARGET {
namespace {

struct Given {  // what both passes read
  const float *q, *k, *v, *g, *L, *delta;
};

__global__ void __launch_bounds__(kAttendThreads) deltas(const float* g, const float* o, float* delta, int64_t rows, int64_t D) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kAttendThreads / 32) + threadIdx.x / 32;
  float sum = 0;
  if (row < rows)
    for (int64_t d = threadIdx.x % 32; d < D; d += 32) sum += g[row * D + d] * o[row * D + d];
  sum = warp_sum(sum);
  if (row < rows && threadIdx.x % 32 == 0) delta[row] = sum;
}

// One block a multiprocessor is said because the compiler would else rather spill registers than go below two.
template <int kWidth, bool kFour>
__global__ void __launch_bounds__(kAttendThreads, 1) query_gradient(Heads heads, Given in, float* dq, int64_t tiles) {
  using Tile = Tile<kWidth, 4>;
  GPU_SHARED(float, room, [Tile::kRoom]);
  GPU_SHARED(typename Tile::Weights, weights, [1]);
  const int64_t tile = tiles - 1 - blockIdx.x % tiles, h = blockIdx.x / tiles % heads.H, b = blockIdx.x / tiles / heads.H;
  const int64_t first = tile * Tile::kRows, group = h / (heads.H / heads.G), keys = heads.seen(b);
  const auto key = heads.template keys<kFour>(in.k, b, group, keys), value = heads.template keys<kFour>(in.v, b, group, keys);
  float out[Tile::kSide][kWidth] = {};
  float L[Tile::kSide], delta[Tile::kSide];
#pragma unroll
  for (int i = 0; i < Tile::kSide; ++i) {
    const int64_t t = first + Tile::ty() * Tile::kSide + i, at = heads.query_row(b, h) + t * heads.H;
    L[i] = t < heads.T ? in.L[at] : kNoScore;
    delta[i] = t < heads.T ? in.delta[at] : 0;
  }

  const int64_t end = heads.limit(min(first + Tile::kRows, heads.T) - 1, keys);
  for (int64_t column = 0; column < end; column += kTileColumns) {
    float score[Tile::kSide][4], weight[Tile::kSide][4];
    Tile::template dot_rows<kFour>(room, heads.template queries<kFour>(in.q, b, h), first, key, column, score);
    Tile::template dot_rows<kFour>(room, heads.template queries<kFour>(in.g, b, h), first, value, column, weight);
#pragma unroll
    for (int i = 0; i < Tile::kSide; ++i) {
      const int64_t limit = heads.limit(first + Tile::ty() * Tile::kSide + i, keys);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const bool visible = column + Tile::tx() * 4 + j < limit && L[i] != kNoScore;
        weight[i][j] = visible ? expf(score[i][j] * heads.scale - L[i]) * (weight[i][j] - delta[i]) : 0.0f;
      }
    }
    Tile::put_weights(weights[0], weight);
    Tile::template add_product<kFour>(room, weights[0], key, column, out);
  }
#pragma unroll
  for (int i = 0; i < Tile::kSide; ++i) {
    const int64_t t = first + Tile::ty() * Tile::kSide + i;
    if (t < heads.T) Tile::write(dq + (heads.query_row(b, h) + t * heads.H) * heads.D, heads.D, out[i], heads.scale);
  }
}

template <int kWidth, bool kFour>
__global__ void __launch_bounds__(kAttendThreads, 1) key_gradient(Heads heads, Given in, float* dk, float* dv, int64_t tiles) {
  using Tile = Tile<kWidth, kWidth <= 4 ? 4 : 2>;  // rows are keys here, columns queries
  GPU_SHARED(float, room, [Tile::kRoom]);
  GPU_SHARED(typename Tile::Weights, weights, [1]);
  const int64_t tile = blockIdx.x % tiles, group = blockIdx.x / tiles % heads.G, b = blockIdx.x / tiles / heads.G;
  const int64_t first = tile * Tile::kRows, keys = heads.seen(b), share = heads.H / heads.G;
  const auto key = heads.template keys<kFour>(in.k, b, group, keys), value = heads.template keys<kFour>(in.v, b, group, keys);
  float key_out[Tile::kSide][kWidth] = {}, value_out[Tile::kSide][kWidth] = {};
  // Queries from here on see the first key of the tile; from keys that nobody sees nothing comes.
  const int64_t begin = heads.causal ? max(int64_t{0}, first - (heads.S - heads.T)) / kTileColumns * kTileColumns : 0;
  const int64_t end = first < keys ? heads.T : 0;

  for (int64_t h = group * share; h < (group + 1) * share; ++h) {
    const auto queries = heads.template queries<kFour>(in.q, b, h), up = heads.template queries<kFour>(in.g, b, h);
    for (int64_t column = begin; column < end; column += kTileColumns) {
      float weight[Tile::kSide][4], gradient[Tile::kSide][4];
      Tile::template dot_rows<kFour>(room, key, first, queries, column, weight);
      Tile::template dot_rows<kFour>(room, value, first, up, column, gradient);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t t = column + Tile::tx() * 4 + j, at = heads.query_row(b, h) + t * heads.H;
        const int64_t limit = t < heads.T ? heads.limit(t, keys) : 0;
        const float L = t < heads.T ? in.L[at] : kNoScore, delta = t < heads.T ? in.delta[at] : 0;
#pragma unroll
        for (int i = 0; i < Tile::kSide; ++i) {
          const bool visible = first + Tile::ty() * Tile::kSide + i < limit && L != kNoScore;
          weight[i][j] = visible ? expf(weight[i][j] * heads.scale - L) : 0.0f;
          gradient[i][j] = visible ? weight[i][j] * (gradient[i][j] - delta) : 0.0f;
        }
      }
      Tile::put_weights(weights[0], weight);
      Tile::template add_product<kFour>(room, weights[0], up, column, value_out);
      __syncthreads();  // the weights are overwritten
      Tile::put_weights(weights[0], gradient);
      Tile::template add_product<kFour>(room, weights[0], queries, column, key_out);
    }
  }
#pragma unroll
  for (int i = 0; i < Tile::kSide; ++i) {
    const int64_t j = first + Tile::ty() * Tile::kSide + i;
    if (j >= heads.S) continue;
    const int64_t at = ((b * heads.S + j) * heads.G + group) * heads.D;
    Tile::write(dk + at, heads.D, key_out[i], heads.scale);
    Tile::write(dv + at, heads.D, value_out[i], 1);
  }
}

void attend_backward(Stream stream, In<float> q, In<float> k, In<float> v, MaybeIn<int32_t> lengths, In<float> o, In<float> L,
                     In<float> g, Out<float> dq, Out<float> dk, Out<float> dv, int64_t B, int64_t T, int64_t S, int64_t H,
                     int64_t G, int64_t D, bool causal) {
  expect_heads(H, G, D);
  const int64_t queries = volume(B, T, H, D), keys = volume(B, S, G, D);
  expect("q", q, queries), expect("k", k, keys), expect("v", v, keys), expect("lengths", lengths, B);
  expect("o", o, queries), expect("L", L, volume(B, T, H)), expect("g", g, queries);
  expect("dq", dq, queries), expect("dk", dk, keys), expect("dv", dv, keys);
  const Heads heads{lengths.data, T, S, H, G, D, S, 1 / sqrtf(static_cast<float>(D)), causal};
  const int64_t rows = B * T * H;
  float* delta = gpu::scratch(stream, rows);
  gpu::launch(deltas, blocks(divide_up(rows, kAttendThreads / 32)), kAttendThreads, stream, g.data, o.data, delta, rows, D);
  const Given in{q.data, k.data, v.data, g.data, L.data, delta};
  with_width(D, aligned(q.data, k.data, v.data, g.data), [&](auto width, auto four) {
    const int64_t query_tiles = divide_up(T, 64), key_tiles = divide_up(S, width <= 4 ? 64 : 32);
    gpu::launch(query_gradient<width, four>, blocks(B * H * query_tiles), kAttendThreads, stream, heads, in, dq.data,
                query_tiles);
    gpu::launch(key_gradient<width, four>, blocks(B * G * key_tiles), kAttendThreads, stream, heads, in, dk.data, dv.data,
                key_tiles);
  });
}

double attend_backward_cost(In<float>, In<float>, In<float>, MaybeIn<int32_t>, In<float>, In<float>, In<float>, Out<float>,
                            Out<float>, Out<float>, int64_t B, int64_t T, int64_t S, int64_t H, int64_t, int64_t D, bool) {
  return 5.0 * static_cast<double>(B * T) * static_cast<double>(S) * static_cast<double>(H * D);
}

constexpr oplus_op list[] = {op<attend_backward, attend_backward_cost>("attendBackward")};

}  // namespace

extern constinit const Ops attend_backward_ops(list);

}  // namespace oplus::OPLUS_TARGET
