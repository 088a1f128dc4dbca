// The gradient of linear attention on the CPU (favor_backward.h has the equations and what is done with a chunk).
//
// With a causal mask, the states before the chunks of a segment come from the mark that the forward pass left at its beginning,
// by going forward again; then its chunks are taken from the last to the first. (Subtracting from the final state instead, as the
// released code does, needs no marks, but drifts.) Without a mask, queries come first, then keys.
#include "core/op.h"
#include "core/partition.h"
#include "ops/favor_backward.h"

namespace oplus::OPLUS_TARGET {
namespace {

struct Problem {
  const float *q, *k, *v, *o, *R, *g;  // g may be null
  float *dq, *dk, *dv;
  FavorSizes n;

  int64_t query(int64_t row, int64_t h) const { return row * n.H + h; }
  int64_t key(int64_t row, int64_t g) const { return row * n.G + g; }
};

void read_values(const Problem& p, const FavorGradient& own, int64_t row, int64_t g, int64_t tokens) {
  columns_of(p.v + p.key(row, g) * p.n.E, p.n.G * p.n.E, tokens, p.n.E, 1, own.v_columns);
}

void write_keys(const Problem& p, const FavorGradient& own, int64_t row, int64_t g, int64_t tokens) {
  own.to_keys(p.dk + p.key(row, g) * p.n.D, p.n.G * p.n.D, p.dv + p.key(row, g) * p.n.E, p.n.G * p.n.E, tokens);
}

// A head's queries of a chunk. with `ladder`, within the chunk too.
void queries(const Problem& p, const FavorGradient& own, const FavorState& state, FavorState& after, const Ladder* ladder,
             int64_t row, int64_t h, int64_t tokens) {
  const FavorSizes& n = p.n;
  const int64_t at = p.query(row, h);
  alignas(64) float fades[kWide], r[kWide];
  for (int t = 0; t < kWide; ++t) fades[t] = ladder ? fade(ladder->before, ladder->running[t]) : 1.f;
  own.read_queries(p.q + at * n.D, n.H * n.D, tokens);
  own.read_gradient(p.g + at * n.E, p.o + at * n.E, n.H * n.E, p.R + at, n.H, tokens, r);
  if (ladder) own.weigh(*ladder, r), own.add_within();
  own.to_queries(state, fades, r, ladder, p.dq + at * n.D, n.H * n.D, tokens);
  own.add_to(after, fades, r);
}

void scale(const FavorSizes& n, float factor, FavorState& state) {
  if (factor == 1) return;
  for (int64_t i = 0; i < FavorState::floats(n); ++i) state.z[i] *= factor;
}

// Tokens [first, end) of one head, from the last to the first. states: room for those before its chunks.
void segment(const Problem& p, const FavorGradient& own, const float* mark, float* states, FavorState& after, int64_t b,
             int64_t g, int64_t first, int64_t end) {
  const FavorSizes& n = p.n;
  const int64_t step = FavorState::floats(n);
  alignas(64) Ladder ladder;
  FavorState before(n, states);
  before.read(n, mark[0], mark + 1, mark + 1 + n.M);
  const auto read = [&](int64_t t) {
    const int64_t row = b * n.T + t, tokens = at_most(kWide, end - t);
    own.read_keys(p.k + p.key(row, g) * n.D, n.G * n.D, tokens, ladder.scale);
    ladder.climb(before.c, tokens);
    return tokens;
  };
  float c[kMostChunks];
  for (int64_t t = first; t < end; t += kWide) {
    const int64_t chunk = (t - first) / kWide;
    c[chunk] = before.c;
    if (t + kWide >= end) break;
    const int64_t tokens = read(t), row = b * n.T + t;
    panels_of(p.v + p.key(row, g) * n.E, n.G * n.E, tokens, kWide, n.E, ladder.weight, own.dv);
    FavorState next(n, states + (chunk + 1) * step);
    copy_row(before.z, 1, step, next.z);
    next.add(n, fade(ladder.before, ladder.after), own.psi_k, ladder.weight, own.dv);
    next.c = ladder.after;
    before = next;
  }
  for (int64_t chunk = (end - 1 - first) / kWide; chunk >= 0; --chunk) {
    const int64_t t = first + chunk * kWide, row = b * n.T + t;
    before = FavorState(n, states + chunk * step);
    before.c = c[chunk];
    const int64_t tokens = read(t);
    read_values(p, own, row, g, tokens);
    own.begin_keys(after, ladder.weight);
    scale(n, fade(ladder.before, ladder.after), after);
    for (int64_t h = g * n.group(); p.g && h < (g + 1) * n.group(); ++h) queries(p, own, before, after, &ladder, row, h, tokens);
    write_keys(p, own, row, g, tokens);
  }
}

void both_ways(const Problem& p, const FavorGradient& own, const float* mark, float* states, FavorState& after, int64_t b,
               int64_t g, int64_t length) {
  const FavorSizes& n = p.n;
  FavorState state(n, states);
  state.read(n, mark[0], mark + 1, mark + 1 + n.M);
  for (int64_t t = 0; p.g && t < length; t += kWide)
    for (int64_t h = g * n.group(); h < (g + 1) * n.group(); ++h)
      queries(p, own, state, after, nullptr, b * n.T + t, h, at_most(kWide, length - t));
  alignas(64) Ladder ladder;
  for (int64_t t = 0; t < length; t += kWide) {
    const int64_t row = b * n.T + t, tokens = at_most(kWide, length - t);
    own.read_keys(p.k + p.key(row, g) * n.D, n.G * n.D, tokens, ladder.scale);
    ladder.climb(state.c, tokens);
    read_values(p, own, row, g, tokens);
    own.begin_keys(after, ladder.weight);
    write_keys(p, own, row, g, tokens);
  }
}

// Tokens that took no part; and queries, where no gradient came to them.
void clear(const Problem& p, int64_t b, int64_t g, int64_t length) {
  const FavorSizes& n = p.n;
  const auto zero = [](float* to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = 0;
  };
  for (int64_t t = p.g ? length : 0; t < n.T; ++t) zero(p.dq + p.query(b * n.T + t, g * n.group()) * n.D, n.group() * n.D);
  for (int64_t t = length; t < n.T; ++t)
    zero(p.dk + p.key(b * n.T + t, g) * n.D, n.D), zero(p.dv + p.key(b * n.T + t, g) * n.E, n.E);
}

}  // namespace

void linear_attention_backward(In<float> q, In<float> k, In<float> v, In<float> omega, MaybeIn<int32_t> lengths, In<float> o,
                               In<float> R, In<float> marks, MaybeIn<float> g, MaybeIn<float> dz, MaybeIn<float> dS,
                               Out<float> dq, Out<float> dk, Out<float> dv, MaybeOut<float> dz0, MaybeOut<float> dS0, int64_t B,
                               int64_t T, int64_t H, int64_t G, int64_t D, int64_t E, int64_t M, int64_t feature, float factor,
                               float epsilon, int64_t every, bool causal) {
  const FavorSizes n = favor_sizes(B, T, H, G, D, E, M, feature, factor, epsilon, every, causal);
  expect("q", q, volume(B, T, H, D)), expect("k", k, volume(B, T, G, D)), expect("v", v, volume(B, T, G, E));
  expect("omega", omega, volume(M, D)), expect("lengths", lengths, B), expect("o", o, volume(B, T, H, E)),
      expect("R", R, volume(B, T, H));
  expect("marks", marks, volume(B, G, n.marks(), n.mark())), expect("g", g, volume(B, T, H, E)),
      expect("dz", dz, volume(B, G, M));
  expect("dS", dS, volume(B, G, M, E)), expect("dq", dq, volume(B, T, H, D)), expect("dk", dk, volume(B, T, G, D));
  expect("dv", dv, volume(B, T, G, E)), expect("dz0", dz0, volume(B, G, M)), expect("dS0", dS0, volume(B, G, M, E));
  if (every > kMostChunks * kWide)
    fail(OPLUS_BAD_SHAPE, "%lld tokens between marks, expected at most %d", static_cast<long long>(every), kMostChunks * kWide);

  Scratch packed(whole_features(M) * D + whole_rows(D) * M);
  float* back = packed.data() + whole_features(M) * D;
  pack_omega(omega.data, M, D, packed.data()), pack_omega_back(omega.data, M, D, back);
  const Problem p{q.data, k.data, v.data, o.data, R.data, g.data, dq.data, dk.data, dv.data, n};
  const int64_t room = FavorGradient::floats(n), state = FavorState::floats(n),
                chunks = causal ? divide_up(at_most(T, every), kWide) : 1;
  const bool alone = 10. * static_cast<double>(B * T * H) * static_cast<double>(M * D) < 1e5;
  parallel_with_scratch(B * G, room + state * (1 + at_least(1, chunks)), alone, [&](float* memory, int64_t task) {
    const int64_t b = task / G, head = task % G, length = lengths ? at_most(T, at_least(0, lengths[b])) : T;
    const FavorGradient own(n, packed.data(), back, memory);
    FavorState after(n, memory + room);
    after.clear(n);
    if (dz)
      for (int64_t m = 0; m < M; ++m) after.z[m] = dz[task * M + m];
    if (dS) panels_of(&dS[task * M * E], E, M, whole_features(M), E, nullptr, after.S);
    const float* mark = marks.data + task * n.marks() * n.mark();
    float* states = memory + room + state;
    if (!causal) both_ways(p, own, mark, states, after, b, head, length);
    else
      for (int64_t first = (length - 1) / every * every; length > 0 && first >= 0; first -= every)
        segment(p, own, mark + first / every * n.mark(), states, after, b, head, first, at_most(length, first + every));
    clear(p, b, head, length);
    if (dz0 && dS0) after.write(n, &dz0[task * M], &dS0[task * M * E]);
  });
}

double linear_attention_backward_cost(In<float>, In<float>, In<float>, In<float>, MaybeIn<int32_t>, In<float>, In<float>,
                                      In<float>, MaybeIn<float>, MaybeIn<float>, MaybeIn<float>, Out<float>, Out<float>,
                                      Out<float>, MaybeOut<float>, MaybeOut<float>, int64_t B, int64_t T, int64_t H, int64_t G,
                                      int64_t D, int64_t E, int64_t M, int64_t, float, float, int64_t, bool) {
  return 2.5 * static_cast<double>(B * T) * static_cast<double>(H + G) * static_cast<double>(M * (D + E));
}

static constexpr oplus_op list[] = {op<linear_attention_backward, linear_attention_backward_cost>("linearAttentionBackward")};
extern constinit const Ops linear_attention_backward_ops(list);

}  // namespace oplus::OPLUS_TARGET
