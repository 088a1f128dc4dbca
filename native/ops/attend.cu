// Exact attention with grouped query heads: o_t = Σ_j softmax(q_t · k_j / √D) v_j, without the T × S matrix.
//
// Many queries (attend_tile; online softmax after Dao et al. 2022, "FlashAttention", algorithm 1): a block of 16 × 16 threads
// takes 64 queries of one head and goes over the keys 64 at a time (cuda/attend.h): scores by dot_rows, their weights relative
// to the largest score so far through shared memory, and the weighted sum of values in registers, rescaled by ⊕'s factors
// where the largest score rises. Grid: query tiles × heads × batch, those with most keys first. q, k and v of a head are read
// once for each tile of the others.
//
// Few queries (Keys; decoding): one query is the total of the leaves (q · k_j / √D, 1, v_j) under ⊕, so it is the scan's
// kernel without its prefixes (cuda/prefixes.h), cut into chunks of keys where there are too few heads to fill the card. k and
// v are read once for each query.
#include "cuda/attend.h"
#include "cuda/prefixes.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int64_t kFewQueries = 8;  // below, a tile of 64 queries would be mostly empty

// ---- many queries ------------------------------------------------------------------------------

// One block a multiprocessor is said because the compiler would else rather spill registers than go below two.
template <int kWidth, bool kFour>
__global__ void __launch_bounds__(kAttendThreads, 1)
    attend_tile(Heads heads, const float* q, const float* k, const float* v, float* o, float* L, int64_t tiles) {
  using Tile = Tile<kWidth, 4>;
  GPU_SHARED(float, room, [Tile::kRoom]);
  GPU_SHARED(typename Tile::Weights, weights, [1]);
  const int64_t tile = tiles - 1 - blockIdx.x % tiles, h = blockIdx.x / tiles % heads.H, b = blockIdx.x / tiles / heads.H;
  const int64_t first = tile * Tile::kRows, keys = heads.seen(b);
  const auto queries = heads.template queries<kFour>(q, b, h);
  const auto key = heads.template keys<kFour>(k, b, h / (heads.H / heads.G), keys);
  const auto value = heads.template keys<kFour>(v, b, h / (heads.H / heads.G), keys);

  Prefix prefix[Tile::kSide];
  float out[Tile::kSide][kWidth] = {};
#pragma unroll
  for (int i = 0; i < Tile::kSide; ++i) prefix[i] = nothing();

  const int64_t end = heads.limit(min(first + Tile::kRows, heads.T) - 1, keys);
  for (int64_t column = 0; column < end; column += kTileColumns) {
    float weight[Tile::kSide][4];
    Tile::template dot_rows<kFour>(room, queries, first, key, column, weight);
#pragma unroll
    for (int i = 0; i < Tile::kSide; ++i) {
      const int64_t limit = heads.limit(first + Tile::ty() * Tile::kSide + i, keys);
      float largest = kNoScore, sum = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        weight[i][j] = column + Tile::tx() * 4 + j < limit ? weight[i][j] * heads.scale : kNoScore;
        largest = fmaxf(largest, weight[i][j]);
      }
      const Join joined = join(prefix[i].m, row_of_threads_max(largest));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        weight[i][j] = weight[i][j] == kNoScore ? 0.0f : expf(weight[i][j] - joined.m);
        sum += weight[i][j];
      }
      prefix[i] = {joined.m, prefix[i].u * joined.left + row_of_threads_sum(sum)};
#pragma unroll
      for (int j = 0; j < kWidth; ++j) out[i][j] *= joined.left;
    }
    Tile::put_weights(weights[0], weight);
    Tile::template add_product<kFour>(room, weights[0], value, column, out);
  }

#pragma unroll
  for (int i = 0; i < Tile::kSide; ++i) {
    const int64_t t = first + Tile::ty() * Tile::kSide + i;
    if (t >= heads.T) continue;
    const int64_t at = heads.query_row(b, h) + t * heads.H;
    Tile::write(o + at * heads.D, heads.D, out[i], prefix[i].u == 0 ? 0.0f : 1 / prefix[i].u);
    if (L && Tile::tx() == 0) L[at] = log_sum(prefix[i]);
  }
}

// ---- few queries -------------------------------------------------------------------------------

struct Keys {  // a job of prefixes.h: a sequence is the keys of one query, in the order of q's rows
  Heads heads;
  const float *q, *k, *v;
  float *o, *L;
  int64_t count;  // S
  int D;
  int64_t sequence = 0, limit = 0, base = 0;

  __device__ void enter(int64_t index) {
    const int64_t h = index % heads.H, t = index / heads.H % heads.T, b = index / heads.H / heads.T;
    sequence = index;
    limit = heads.limit(t, heads.seen(b));
    base = b * heads.capacity * heads.G + h / (heads.H / heads.G);
  }
  template <typename S>
  __device__ State<S> first() const {
    return State<S>::none();
  }
  template <typename S>
  __device__ State<S> leaf(int64_t j, bool inside) const {
    State<S> state = State<S>::none();
    float query[S::kCount] = {}, key[S::kCount] = {};
    const bool there = inside && j < limit;
    if (there) {
      S::load(q + sequence * D, D, query);
      S::load(k + (base + j * heads.G) * D, D, key);
      S::load(v + (base + j * heads.G) * D, D, state.w);
    }
    const float score = S::dot(query, key) * heads.scale;
    if (there) state.p = {score, 1};
    return state;
  }
  template <typename S>
  __device__ void last(const State<S>& state) const {
    const float inverse = state.p.u == 0 ? 0.0f : 1 / state.p.u;
    float row[S::kCount];
#pragma unroll
    for (int i = 0; i < S::kCount; ++i) row[i] = state.w[i] * inverse;
    S::store(o + sequence * D, D, row);
    if (L && S::lane() == 0) L[sequence] = log_sum(state.p);
  }
};

void attend(Stream stream, In<float> q, In<float> k, In<float> v, MaybeIn<int32_t> lengths, Out<float> o, MaybeOut<float> L,
            int64_t B, int64_t T, int64_t S, int64_t H, int64_t G, int64_t D, int64_t capacity, bool causal) {
  expect_heads(H, G, D);
  if (S > capacity)
    fail(OPLUS_BAD_SHAPE, "S = %lld keys are more than the capacity of %lld", static_cast<long long>(S),
         static_cast<long long>(capacity));
  expect("q", q, volume(B, T, H, D)), expect("k", k, volume(B, capacity, G, D)), expect("v", v, volume(B, capacity, G, D));
  expect("lengths", lengths, B), expect("o", o, volume(B, T, H, D)), expect("L", L, volume(B, T, H));
  const Heads heads{lengths.data, T, S, H, G, D, capacity, 1 / sqrtf(static_cast<float>(D)), causal};
  const bool four = aligned(q.data, k.data, v.data, o.data);
  if (T <= kFewQueries) {
    const Keys job{heads, q.data, k.data, v.data, o.data, L.data, S, static_cast<int>(D)};
    return with_shape(D, four, [&](auto shape) { run_scan<decltype(shape), false>(stream, job, B * T * H); });
  }
  const int64_t tiles = divide_up(T, 64);
  with_width(D, four, [&](auto width, auto is_four) {
    gpu::launch(attend_tile<width, is_four>, blocks(B * H * tiles), kAttendThreads, stream, heads, q.data, k.data, v.data, o.data,
                L.data, tiles);
  });
}

double attend_cost(In<float>, In<float>, In<float>, MaybeIn<int32_t>, Out<float>, MaybeOut<float>, int64_t B, int64_t T,
                   int64_t S, int64_t H, int64_t, int64_t D, int64_t, bool) {
  return 2.0 * static_cast<double>(B * T) * static_cast<double>(S) * static_cast<double>(H * D);
}

constexpr oplus_op list[] = {op<attend, attend_cost>("attend")};

}  // namespace

extern constinit const Ops attend_ops(list);

}  // namespace oplus::OPLUS_TARGET
