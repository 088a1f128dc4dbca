// Linear attention (FAVOR+, ops/favor.h) on CUDA: queries, keys and values are read, outputs written; features and scores stay in
// shared memory and registers.
//
//   token_scales, climb   what features and sums are relative to (cuda/favor.h)
//   segment_sums,         the state before each segment (cuda/favor_states.h)
//   carry_forward
//   outputs               a block takes a segment of one query head and goes over its chunks of 64 tokens from that state on;
//                         grid: heads of all sequences × segments. Features come 64 at a time: ψ(q) and ψ(k) by dot_rows,
//                         scores within the chunk and outputs from the state summed in registers, and the state, which
//                         stays in the second-level cache, moved on
//
// Within a chunk the weights are those of the CPU (linear_attention.cpp), and so are results to rounding. Keys' features are
// worked out twice (three times if exponential), which is what it costs to cut time into segments; values are read twice. All
// products are f32 multiply-adds: matrix instructions would round their operands. Any M; D and E up to kMostFavorColumns. Was run
// on the emulator only so far, never on a GPU.
#include "cuda/favor_states.h"

namespace oplus::OPLUS_TARGET {
namespace {

// The states before segments, into the slots of all heads; marks, if they are wanted, and the last state. Without a causal mask:
// that of all segments, into the first slot of the first head. Grid: B · G × numbers.
__global__ void __launch_bounds__(kCarryThreads)
    carry_forward(Favor f, Slots slots, FavorStates from, FavorStates last, float* marks) {
  const FavorSizes& n = f.n;
  const int64_t b = blockIdx.x / n.G, g = blockIdx.x % n.G, h = g * n.group();
  const int64_t index = static_cast<int64_t>(blockIdx.y) * kCarryThreads + threadIdx.x;
  if (index >= n.M * (1 + n.E)) return;
  const int64_t at = slots.place(index), size = slots.size();
  const float* begin = from.number(n, blockIdx.x, index);
  float state = begin ? *begin : 0;
  const auto mark = [&](int64_t i, float c) {
    if (!marks) return;
    float* to = marks + (blockIdx.x * n.marks() + i) * n.mark();
    to[1 + index] = state;
    if (index == 0) to[0] = c;
  };
  for (int64_t s = 0; s < f.segments; ++s) {
    const float before = f.frame(b, g, s - 1), own = slots.data[f.slot(b, h, s) * size + at];
    if (n.causal) {
      for (int64_t i = 0; i < n.group(); ++i) slots.data[f.slot(b, h + i, s) * size + at] = state;
      if (s * f.span % n.every == 0) mark(s * f.span / n.every, before);
    }
    state = kept(state, before, f.frame(b, g, s)) + own;
  }
  if (!n.causal) {
    if (f.segments > 0) slots.data[f.slot(b, h, 0) * size + at] = state;
    mark(0, f.c(b, g, n.T - 1));
  }
  if (float* to = last.number(n, blockIdx.x, index)) *to = state;
}

// One block a multiprocessor is said because the compiler would else rather spill registers than go below two.
template <int kWidth, bool kFour>
__global__ void __launch_bounds__(kFavorThreads, 1)
    outputs(Favor f, const float* q, const float* k, const float* v, Slots slots, float* o, float* R) {
  using Tile = FavorTile<kWidth>;
  GPU_SHARED(Square, squares, [2]);
  GPU_SHARED(float, slab, [Tile::kSlab]);
  GPU_SHARED(float, top_q, [kSquare]);
  GPU_SHARED(float, top_k, [kSquare]);
  GPU_SHARED(float, weight, [kSquare]);
  GPU_SHARED(float, fades, [kSquare]);
  GPU_SHARED(float, z, [kSquare]);
  GPU_SHARED(float, norms, [kSquare]);
  const FavorSizes& n = f.n;
  const int64_t segment = blockIdx.x % f.segments, h = blockIdx.x / f.segments % n.H, b = blockIdx.x / f.segments / n.H;
  const int64_t g = h / n.group(), length = f.length(b), end = min((segment + 1) * f.span, n.T);
  const int64_t slot = n.causal ? f.slot(b, h, segment) : f.slot(b, g * n.group(), 0);
  const auto queries = f.template tokens<kFour>(q, b, h, n.H, n.D), keys = f.template tokens<kFour>(k, b, g, n.G, n.D),
             values = f.template tokens<kFour>(v, b, g, n.G, n.E);
  const Lines<true, kFour> S{slots.S(slot), slots.columns, n.M, n.E};

  for (int64_t first = segment * f.span; first < end; first += kSquare) {
    const bool last = first + kSquare >= end;
    const float before = n.causal ? f.c(b, g, first - 1) : f.c(b, g, n.T - 1);
    const float after = n.causal ? f.c(b, g, min(first + kSquare, n.T) - 1) : before, keep = fade(before, after);
    __syncthreads();  // those of the chunk before are still read
    if (threadIdx.x < kSquare) {
      const int64_t t = first + threadIdx.x;
      top_q[threadIdx.x] = f.query_top(b, t, h), top_k[threadIdx.x] = f.key_top(b, t, g);
      weight[threadIdx.x] = t < end ? fade(f.scale[f.key(b, t, g)], after) : 0;
      fades[threadIdx.x] = !n.causal ? 1 : t < end ? fade(before, f.c(b, g, t)) : 0;
    }

    float scores[4][4] = {}, out[4][kWidth] = {}, norm = 0;
    for (int64_t tile = first < length ? 0 : n.M; tile < n.M; tile += kSquare) {
      float psi_q[4][4], psi_k[4][4], slope[4][4];
      features<kFour>(f, &squares[0][0][0], queries, here(first), here(tile), top_q, psi_q, slope);
      if (n.causal) features<kFour>(f, &squares[0][0][0], keys, here(first), here(tile), top_k, psi_k, slope);
      __syncthreads();  // the panels are still read
      put_columns(squares[0], psi_q);
      if (n.causal) put_columns(squares[1], psi_k);
      if (threadIdx.x < kSquare) {
        const int64_t m = tile + threadIdx.x;
        z[threadIdx.x] = m < n.M && before != kNothing ? slots.z(slot)[m] : 0;
      }
      __syncthreads();
      norm += row_sum<Side::down>(squares[0], z);
      if (n.causal) add_square<Side::down>(squares[0], squares[1], scores);
      if (before != kNothing)
        Tile::template add_lines<Side::down>(slab, squares[0], Weighted<kFour>{S, here(tile), nullptr}, out);
      if (!n.causal || last) continue;
      const float added = row_sum<Side::across>(squares[1], weight);
      const int row = static_cast<int>(threadIdx.x) / 4;
      if (threadIdx.x % 4 == 0 && tile + row < n.M) slots.z(slot)[tile + row] = keep * z[row] + added;
      float added_S[4][kWidth] = {};
      Tile::template add_lines<Side::across>(slab, squares[1], Weighted<kFour>{values, here(first), weight}, added_S);
      Tile::move_on(slots, slots.S(slot), here(tile), keep, added_S);
    }

    __syncthreads();  // squares are still read
    if (threadIdx.x % 4 == 0) norms[threadIdx.x / 4] = norm;
    float sums[4] = {};
    if (n.causal) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int column = Tile::tx() * 4 + j;
        const float scale = first + column < end ? f.scale[f.key(b, first + column, g)] : kNothing;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = Tile::ty() * 4 + i;
          const bool seen = column <= row && first + row < end;
          scores[i][j] = seen ? scores[i][j] * fade(scale, f.c(b, g, first + row)) : 0;
          sums[i] += scores[i][j];
        }
      }
    }
    __syncthreads();  // norms have been put
                      // Weights are divided rather than what they give: a token that sees one key gives its value as it is.
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = Tile::ty() * 4 + i;
      const int64_t t = first + row;
      sums[i] = row_of_threads_sum(sums[i]) + (fades[row] == 0 ? 0 : fades[row] * norms[row]);
      const bool seen = t < length && sums[i] != 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) scores[i][j] = seen ? scores[i][j] / sums[i] : 0;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) out[i][j] = seen ? out[i][j] * (fades[row] / sums[i]) : 0;
      if (R && Tile::tx() == 0 && t < end) R[f.query(b, t, h)] = t < length ? sums[i] : 0;
    }
    if (n.causal) {
      put_columns(squares[0], scores);
      Tile::template add_lines<Side::triangle>(slab, squares[0], Weighted<kFour>{values, first, nullptr}, out);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t t = first + Tile::ty() * 4 + i;
      if (t < end) Tile::write(o + f.query(b, t, h) * n.E, n.E, out[i], 1);
    }
  }
}

// Tokens of a segment: those between marks; less where that does not fill the card, and more where it does many times over and no
// marks are wanted, so that the states do not grow with T.
int64_t span_of(Stream stream, const FavorSizes& n, bool marked) {
  const auto blocks_of = [&](int64_t span) { return n.B * n.H * divide_up(n.T, span); };
  int64_t span = n.every;
  while (span % (2 * kSquare) == 0 && blocks_of(span) < gpu::processors(stream)) span /= 2;
  while (!marked && blocks_of(2 * span) >= 4 * gpu::processors(stream) && span < n.T) span *= 2;
  return span;
}

void linear_attention(Stream stream, In<float> q, In<float> k, In<float> v, In<float> omega, MaybeIn<float> c0, MaybeIn<float> z0,
                      MaybeIn<float> S0, MaybeIn<int32_t> lengths, Out<float> o, MaybeOut<float> R, MaybeOut<float> marks,
                      Out<float> c, Out<float> z, Out<float> S, int64_t B, int64_t T, int64_t H, int64_t G, int64_t D, int64_t E,
                      int64_t M, int64_t feature, float factor, float epsilon, int64_t every, bool causal) {
  const FavorSizes n = favor_sizes(B, T, H, G, D, E, M, feature, factor, epsilon, every, causal);
  expect_columns(n);
  expect("q", q, volume(B, T, H, D)), expect("k", k, volume(B, T, G, D)), expect("v", v, volume(B, T, G, E));
  expect("omega", omega, volume(M, D)), expect("lengths", lengths, B);
  expect("c0", c0, volume(B, G)), expect("z0", z0, volume(B, G, M)), expect("S0", S0, volume(B, G, M, E));
  expect("o", o, volume(B, T, H, E)), expect("R", R, volume(B, T, H)), expect("marks", marks, volume(B, G, n.marks(), n.mark()));
  expect("c", c, volume(B, G)), expect("z", z, volume(B, G, M)), expect("S", S, volume(B, G, M, E));
  if (!!c0 != !!z0 || !!c0 != !!S0) fail(OPLUS_BAD_SHAPE, "%s", "`c0`, `z0` and `S0` are given together or not at all");

  const int64_t span = span_of(stream, n, !!marks);
  Favor f{n, omega.data, lengths.data, span, divide_up(T, span)};
  Slots slots(M, E);
  const int64_t room = place(f, nullptr);
  float* memory = gpu::scratch(stream, room + B * H * f.segments * slots.size());
  place(f, memory);
  slots.data = memory + room;
  // The states come in as const and go out otherwise: one type for both, of which the first is only read.
  const FavorStates from{const_cast<float*>(z0.data), const_cast<float*>(S0.data)};
  const bool four = D % 4 == 0 && E % 4 == 0 && aligned(q.data, k.data, v.data, omega.data);
  with_columns(E, four, [&](auto width, auto is_four) {
    measure_tokens<is_four>(stream, f, q.data, k.data, c0.data, 1, c.data);
    sum_segments<width, is_four>(stream, f, Keys{k.data, v.data}, slots);
    gpu::launch(carry_forward, carry_grid(n), kCarryThreads, stream, f, slots, from, FavorStates{z.data, S.data}, marks.data);
    gpu::launch(outputs<width, is_four>, blocks(B * H * f.segments), kFavorThreads, stream, f, q.data, k.data, v.data, slots,
                o.data, R.data);
  });
}

// Multiply-adds.
double linear_attention_cost(In<float>, In<float>, In<float>, In<float>, MaybeIn<float>, MaybeIn<float>, MaybeIn<float>,
                             MaybeIn<int32_t>, Out<float>, MaybeOut<float>, MaybeOut<float>, Out<float>, Out<float>, Out<float>,
                             int64_t B, int64_t T, int64_t H, int64_t G, int64_t D, int64_t E, int64_t M, int64_t, float, float,
                             int64_t, bool) {
  return static_cast<double>(B * T) * static_cast<double>(H + G) * static_cast<double>(M * (D + E));
}

constexpr oplus_op list[] = {op<linear_attention, linear_attention_cost>("linearAttention")};

}  // namespace

extern constinit const Ops linear_attention_ops(list);

}  // namespace oplus::OPLUS_TARGET
