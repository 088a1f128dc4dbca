// The gradient of linear attention on CUDA: ops/favor_backward.h has the equations and their frames, cuda/favor_states.h the
// states between segments. Segments lie between marks, whose states are those before them.
//
//   token_scales, climb   what features and sums are relative to, from the marks' c
//   upwards               ĝ = g / R and r = −ĝ·o, a warp for each row
//   query_gradient        a block takes a segment of one query head, from its mark on (cuda/favor_queries.h)
//   segment_sums          what queries of each segment add to T, over all heads that share the keys
//   carry_back            T after each segment
//   key_gradient          a block takes a segment of one query head, from the last chunk to the first, with T
//
// The gradient of keys and values is linear in T and in the scores, so each query head adds its own, and T from behind the
// segment goes to the first of a group; sums over heads are added in order (cuda/columns.h). Every product is f32 multiply-adds
// of 64 × 64 squares (cuda/favor_tile.h). Features are never written to memory. Was run on the emulator only so far, never on a
// GPU.
#include "cuda/columns.h"
#include "cuda/favor_queries.h"

namespace oplus::OPLUS_TARGET {
namespace {

// Of query head `rank` of each group, of `ranks`; dk [ranks, B, T, G, D] and dv likewise. within: queries of the segment add to
// it. Grid: ranks × B · G · segments.
template <int kWidth, bool kFour>
__global__ void __launch_bounds__(kFavorThreads, 1)
    key_gradient(Favor f, Given in, Slots slots, float* dk, float* dv, bool within) {
  using Tile = FavorTile<kWidth>;
  constexpr bool kAgain = kWidth > 4;  // B is worked out for each tile of features: registers are short
  GPU_SHARED(Square, squares, [2]);
  GPU_SHARED(float, slab, [Tile::kSlab]);
  GPU_SHARED(float, top_q, [kSquare]);
  GPU_SHARED(float, top_k, [kSquare]);
  GPU_SHARED(float, weight, [kSquare]);
  GPU_SHARED(float, r, [kSquare]);
  GPU_SHARED(float, fades, [kSquare]);  // e^(c_before − c_t)
  GPU_SHARED(float, faded_r, [kSquare]);
  const FavorSizes& n = f.n;
  const int64_t segment = blockIdx.x % f.segments, g = blockIdx.x / f.segments % n.G;
  const int64_t b = blockIdx.x / f.segments / n.G % n.B, rank = blockIdx.x / f.segments / n.G / n.B, h = g * n.group() + rank;
  const int64_t length = f.length(b), begin = segment * f.span, end = min(begin + f.span, n.T);
  const int64_t slot = f.slot(b, h, n.causal ? segment : 0);
  const auto queries = [&] { return f.template tokens<kFour>(in.q, b, here(h), n.H, n.D); };
  const auto keys = [&] { return f.template tokens<kFour>(in.k, b, here(g), n.G, n.D); };
  const auto values = [&] { return f.template tokens<kFour>(in.v, b, here(g), n.G, n.E); };
  const auto ups = [&] { return f.template tokens<kFour>(in.up, b, here(h), n.H, n.E); };
  const auto S = [&] { return Lines<true, kFour>{slots.S(here(slot)), slots.columns, n.M, n.E}; };
  const Lines<true, kFour> omega = f.template projection<kFour>();
  const float sign = n.feature == Feature::exponential ? -1 : n.feature == Feature::trigonometric ? 1 : 0;
  const int64_t part = rank * n.B * n.T * n.G;
  float* room = &squares[0][0][0];

  for (int64_t first = begin + (end - 1 - begin) / kSquare * kSquare; first >= begin; first -= kSquare) {
    const float before = f.c(b, g, first - 1), after = f.c(b, g, min(first + kSquare, n.T) - 1), keep = fade(before, after);
    // Without queries T is not moved on: it stays relative to the end of the segment.
    const float frame = within ? after : f.frame(b, g, segment);
    __syncthreads();  // those of the chunk before are still read
    if (threadIdx.x < kSquare) {
      const int64_t t = first + threadIdx.x;
      const float faded = within && t < end ? fade(before, f.c(b, g, t)) : 0;
      top_q[threadIdx.x] = f.query_top(b, t, h), top_k[threadIdx.x] = f.key_top(b, t, g);
      weight[threadIdx.x] = t < end ? fade(f.scale[f.key(b, t, g)], frame) : 0;
      r[threadIdx.x] = within && t < end ? in.r[f.query(b, t, h)] : 0;
      fades[threadIdx.x] = faded, faded_r[threadIdx.x] = faded * r[threadIdx.x];
    }
    __syncthreads();
    float score[4][4] = {}, both[4][4] = {};  // A and B
    float value_out[4][kWidth] = {}, key_out[4][kWidth] = {};
    const auto weigh_both = [&] {
      float weights[4][4];
      Tile::template dot_rows<kFour>(room, ups(), here(first), values(), here(first), both);
      weights_within(f, b, g, here(first), end, weights);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) both[i][j] = weights[i][j] == 0 ? 0 : (both[i][j] + r[Tile::ty() * 4 + i]) * weights[i][j];
    };
    if (!kAgain && within && first < length) weigh_both();
    for (int64_t tile = first < length ? 0 : n.M; tile < n.M; tile += kSquare) {
      float u[4][4], psi[4][4], slope[4][4];
      Tile::template dot_rows<kFour>(room, values(), here(first), S(), here(tile), u);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t m = tile + Tile::tx() * 4 + j;
        const float z = m < n.M ? slots.z(here(slot))[m] : 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) u[i][j] = weight[Tile::ty() * 4 + i] * (u[i][j] + z);
      }
      if (within) {
        features<kFour>(f, room, queries(), here(first), here(tile), top_q, psi, slope);
        put_rows(squares[1], psi);
        if (kAgain) weigh_both();
        __syncthreads();  // the panels are still read
        put_rows(squares[0], both);
        __syncthreads();
        add_square<Side::down>(squares[0], squares[1], u);
      }
      features<kFour>(f, room, keys(), here(first), here(tile), top_k, psi, slope);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float sum = 0;
#pragma unroll
        for (int j = 0; j < 4; ++j) sum += u[i][j] * psi[i][j], u[i][j] *= slope[i][j];
        sum = row_of_threads_sum(sum);
        // What ℓ brings goes first: it takes most of the rest away, which is then rounded while it is small.
        const int64_t t = here(first) + Tile::ty() * 4 + i;
        const float* x = in.k + f.key(b, t, g) * n.D;
        const float own = sign * sum * n.factor;
#pragma unroll
        for (int j = 0; j < kWidth; ++j)
          if (sign != 0 && t < length && Tile::column(j) < n.D) key_out[i][j] += own * x[Tile::column(j)];
      }
      __syncthreads();  // the panels are still read
      put_columns(squares[0], psi);
      Tile::template add_lines<Side::down>(slab, squares[0], Weighted<kFour>{S(), here(tile), nullptr}, value_out);
      if (within) {
        add_square<Side::across>(squares[1], squares[0], score);
        const float added = row_sum<Side::down>(squares[1], faded_r);
        const int64_t m = tile + threadIdx.x / 4;
        if (threadIdx.x % 4 == 0 && m < n.M) slots.z(here(slot))[m] = (keep == 0 ? 0 : keep * slots.z(here(slot))[m]) + added;
        float added_S[4][kWidth] = {};
        Tile::template add_lines<Side::down>(slab, squares[1], Weighted<kFour>{ups(), here(first), fades}, added_S);
        Tile::move_on(slots, slots.S(here(slot)), here(tile), keep, added_S);
      }
      __syncthreads();  // the square is still read
      put_columns(squares[0], u);
      Tile::template add_lines<Side::down>(slab, squares[0], Weighted<kFour>{omega, here(tile), nullptr}, key_out);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < kWidth; ++j) value_out[i][j] *= weight[Tile::ty() * 4 + i];
    if (within && first < length) {
      float weights[4][4];
      weights_within(f, b, g, first, end, weights);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) score[i][j] = weights[i][j] == 0 ? 0 : score[i][j] * weights[i][j];
      __syncthreads();  // the square is still read
      put_rows(squares[0], score);
      Tile::template add_lines<Side::down>(slab, squares[0], Weighted<kFour>{ups(), first, nullptr}, value_out);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t t = first + Tile::ty() * 4 + i;
      if (t >= end) continue;
      const int64_t at = f.key(b, t, g);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        key_out[i][j] = t < length ? key_out[i][j] : 0;
        value_out[i][j] = t < length ? value_out[i][j] : 0;
      }
      Tile::write(dk + (part + at) * n.D, n.D, key_out[i], n.factor);
      Tile::write(dv + (part + at) * n.E, n.E, value_out[i], 1);
    }
  }
}

void linear_attention_backward(Stream stream, In<float> q, In<float> k, In<float> v, In<float> omega, MaybeIn<int32_t> lengths,
                               In<float> o, In<float> R, In<float> marks, MaybeIn<float> g, MaybeIn<float> dz, MaybeIn<float> dS,
                               Out<float> dq, Out<float> dk, Out<float> dv, MaybeOut<float> dz0, MaybeOut<float> dS0, int64_t B,
                               int64_t T, int64_t H, int64_t G, int64_t D, int64_t E, int64_t M, int64_t feature, float factor,
                               float epsilon, int64_t every, bool causal) {
  const FavorSizes n = favor_sizes(B, T, H, G, D, E, M, feature, factor, epsilon, every, causal);
  expect_columns(n);
  expect("q", q, volume(B, T, H, D)), expect("k", k, volume(B, T, G, D)), expect("v", v, volume(B, T, G, E));
  expect("omega", omega, volume(M, D)), expect("lengths", lengths, B), expect("o", o, volume(B, T, H, E)),
      expect("R", R, volume(B, T, H));
  expect("marks", marks, volume(B, G, n.marks(), n.mark())), expect("g", g, volume(B, T, H, E)),
      expect("dz", dz, volume(B, G, M));
  expect("dS", dS, volume(B, G, M, E)), expect("dq", dq, volume(B, T, H, D)), expect("dk", dk, volume(B, T, G, D));
  expect("dv", dv, volume(B, T, G, E)), expect("dz0", dz0, volume(B, G, M)), expect("dS0", dS0, volume(B, G, M, E));

  Favor f{n, omega.data, lengths.data, every, divide_up(T, every)};
  Slots slots(M, E);
  const bool within = g && causal;
  const int64_t rows = volume(B, T, H), keys = volume(B, T, G), ranks = within ? n.group() : 1;
  const int64_t room = place(f, nullptr), states = B * H * f.segments * slots.size();
  const auto padded = [](int64_t count) { return divide_up(count, 4) * 4; };
  const int64_t ups = g ? padded(rows * E) + padded(rows) : 0,
                parts = ranks > 1 ? padded(ranks * keys * D) + ranks * keys * E : 0;
  float* memory = gpu::scratch(stream, room + states + ups + parts);
  place(f, memory);
  slots.data = memory + room;
  float *up = slots.data + states, *r = up + padded(rows * E), *part = up + ups;
  float *to_k = ranks > 1 ? part : dk.data, *to_v = ranks > 1 ? part + padded(ranks * keys * D) : dv.data;

  const Given in{q.data, k.data, v.data, up, r};
  const FavorStates last{const_cast<float*>(dz.data), const_cast<float*>(dS.data)};  // only read
  const bool four = D % 4 == 0 && E % 4 == 0 && aligned(q.data, k.data, v.data, omega.data);
  with_columns(at_least(D, E), four, [&](auto width, auto is_four) {
    measure_tokens<is_four>(stream, f, q.data, k.data, T > 0 ? marks.data : nullptr, n.marks() * n.mark(), nullptr);
    if (g) {
      gpu::launch(upwards, blocks(divide_up(rows, kFavorThreads / 32)), kFavorThreads, stream, g.data, o.data, R.data, up, r,
                  rows, E);
      gpu::launch(read_marks, carry_grid(n), kCarryThreads, stream, f, slots, marks.data);
      gpu::launch(query_gradient<width, is_four>, blocks(B * H * f.segments), kFavorThreads, stream, f, in, slots, dq.data);
      sum_segments<width, is_four>(stream, f, Queries{q.data, up, r}, slots);
    } else {
      gpu::check(cudaMemsetAsync(dq.data, 0, static_cast<size_t>(dq.count) * sizeof(float), gpu::queue(stream).stream));
    }
    gpu::launch(carry_back, carry_grid(n), kCarryThreads, stream, f, slots, last, FavorStates{dz0.data, dS0.data}, !!g);
    gpu::launch(key_gradient<width, is_four>, blocks(ranks * B * G * f.segments), kFavorThreads, stream, f, in, slots, to_k, to_v,
                within);
  });
  if (ranks > 1) {
    launch_columns(stream, to_k, dk.data, 1, ranks, keys * D, 1);
    launch_columns(stream, to_v, dv.data, 1, ranks, keys * E, 1);
  }
}

double linear_attention_backward_cost(In<float>, In<float>, In<float>, In<float>, MaybeIn<int32_t>, In<float>, In<float>,
                                      In<float>, MaybeIn<float>, MaybeIn<float>, MaybeIn<float>, Out<float>, Out<float>,
                                      Out<float>, MaybeOut<float>, MaybeOut<float>, int64_t B, int64_t T, int64_t H, int64_t G,
                                      int64_t D, int64_t E, int64_t M, int64_t, float, float, int64_t, bool) {
  return 2.5 * static_cast<double>(B * T) * static_cast<double>(H + G) * static_cast<double>(M * (D + E));
}

constexpr oplus_op list[] = {op<linear_attention_backward, linear_attention_backward_cost>("linearAttentionBackward")};

}  // namespace

extern constinit const Ops linear_attention_backward_ops(list);

}  // namespace oplus::OPLUS_TARGET
