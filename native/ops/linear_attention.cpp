// Linear attention (FAVOR+, favor.h) on the CPU: queries, keys and values are read once, outputs written once, features and
// scores stay in a cache.
//
// A key-value head of a sequence goes through time in chunks of kWide tokens. Token t of a chunk sees the state before the chunk
// by one product, and the tokens of the chunk up to itself by another, whose weights e^(ℓ_i − c_t) are relative to the largest ℓ
// so far, c_t:
//
//   N_t = e^(c_0 − c_t) ψ(q_t)ᵀ S + Σ_{i ≤ t} e^(ℓ_i − c_t) (ψ(q_t)·ψ(k_i)) v_i      R_t the same with z and 1      o_t = N_t /
//   R_t
//
// So what comes later changes no bit of what came before. Without a causal mask all keys go into the state first. A few tokens
// take another way (favor_few.h): chunks of kWide would be mostly empty.
#include "core/op.h"
#include "core/partition.h"
#include "ops/favor_few.h"
#include "ops/favor_state.h"

namespace oplus::OPLUS_TARGET {
namespace {

struct Memory {  // of a thread, [floats]
  float *columns, *psi_q, *psi_k, *values, *weighted, *scores, *state;

  static int64_t floats(const FavorSizes& n) {
    return (n.D + 2 * whole_features(n.M) + (2 * wide_panels(n.E) + 1) * kWide) * kWide + FavorState::floats(n);
  }
  Memory(const FavorSizes& n, float* at) {
    const auto take = [&](int64_t floats) { return at += floats, at - floats; };
    columns = take(n.D * kWide), psi_q = take(whole_features(n.M) * kWide), psi_k = take(whole_features(n.M) * kWide);
    values = take(wide_panels(n.E) * kWide * kWide), weighted = take(wide_panels(n.E) * kWide * kWide);
    scores = take(kWide * kWide), state = at;
  }
};

struct Problem {
  const float *q, *k, *v, *omega;  // omega packed
  float *o, *R;
  FavorSizes n;
};

// scores[t, i] = weight · ψ(q_t)·ψ(k_i) for i ≤ t and 0 beyond; sums[t] += Σ_i of them.
void score(const FavorSizes& n, const float* psi_q, const float* psi_k, const Ladder& ladder, float* scores, float* sums) {
  const int64_t rows = whole_features(n.M);
  for (int t = 0; t < kWide; t += kRows) {
    for (int s = 0; s < t + kRows; s += kStrip) {
      Sums block;
      clear(block);
      if (t + kRows <= s + kLanes) multiply_add<1, kWide, 1>(psi_q + t, psi_k + s, rows, block);
      else multiply_add<1, kWide, 2>(psi_q + t, psi_k + s, rows, block);
      put(block, scores + t * kWide + s);
    }
    for (int i = t; i < t + kRows; ++i) {
      VecInt lane;
      for (int l = 0; l < kLanes; ++l) lane[l] = l;
      Vec sum_of_row{};
      for (int s = 0; s < t + kRows; s += kLanes) {
        float* at = scores + i * kWide + s;
        const Vec weight = ladder.level ? splat(1) : exp(load(ladder.scale + s) - ladder.running[i]);
        const Vec seen = select(lane + s <= i, load(at) * weight, Vec{});
        store(at, seen);
        sum_of_row += seen;
      }
      sums[i] += sum(sum_of_row);
    }
  }
}

// One row alone, over the tokens that it sees: where a value is not finite, 0 times that of a later token would not be 0.
void attend_row(const float* scores, const float* values, int t, int64_t p, float* out) {
  for (int s = 0; s < kWide; s += kLanes) {
    Vec total = load(out + s);
    for (int i = 0; i <= t; ++i) total += scores[t * kWide + i] * load(values + (p * kWide + i) * kWide + s);
    store(out + s, total);
  }
}

bool finite(const float* x, int64_t count) {
  Vec zero{};
  for (int64_t i = 0; i < count; i += kLanes) zero += load(x + i) * 0.f;
  return sum(zero) == 0;
}

// Outputs of a chunk's queries from the state before it and, with a causal mask, from the scores within it. fades[t]: what the
// state counts for; norms[t]: R_t.
void outputs(const FavorSizes& n, const Memory& own, const FavorState& state, const float* fades, const float* norms, bool within,
             bool tame, int64_t tokens, float* o, int64_t stride) {
  const int64_t rows = whole_features(n.M);
  for (int t = 0; t < tokens; t += kRows)
    for (int64_t p = 0; p < wide_panels(n.E); ++p) {
      alignas(64) float out[kRows * kWide];
      for (int s = 0; s < kWide; s += kStrip) {
        Sums sums;
        clear(sums);
        if (!state.empty()) multiply_add<1, kWide>(own.psi_q + t, state.S + p * rows * kWide + s, rows, sums);
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) sums[i][0] *= fades[t + i], sums[i][1] *= fades[t + i];
        if (within && tame) multiply_add<kWide, 1>(own.scores + t * kWide, own.values + p * kWide * kWide + s, t + kRows, sums);
        put(sums, out + s);
      }
      for (int i = 0; i < kRows && t + i < tokens; ++i) {
        if (within && !tame) attend_row(own.scores, own.values, t + i, p, out + i * kWide);
        divide_row(out + i * kWide, norms[t + i], at_most(kWide, n.E - p * kWide), o + (t + i) * stride + p * kWide);
      }
    }
}

// The rows of the next chunk, asked for while this one is in work: they lie far apart, which prefetchers do not follow.
void prefetch_next(const float* from, int64_t stride, int64_t tokens, int64_t width) {
  if (tokens > 0) prefetch_rows(from + kWide * stride, stride, at_most(tokens, kWide), width);
}

void queries(const Problem& p, const Memory& own, const FavorState& state, const Ladder* ladder, bool tame, int64_t row,
             int64_t g, int64_t tokens, int64_t left) {
  const FavorSizes& n = p.n;
  alignas(64) float fades[kWide], sums[kWide], scale[kWide];
  for (int64_t h = g * n.group(); h < (g + 1) * n.group(); ++h) {
    prefetch_next(p.q + (row * n.H + h) * n.D, n.H * n.D, left - kWide, n.D);
    features(n, p.omega, p.q + (row * n.H + h) * n.D, n.H * n.D, tokens, own.columns, own.psi_q, nullptr, scale);
    normalisers(own.psi_q, state.z, whole_features(n.M), sums);
    for (int t = 0; t < kWide; ++t) {
      fades[t] = ladder ? fade(ladder->before, ladder->running[t]) : 1.f;
      sums[t] = fades[t] == 0 ? 0 : fades[t] * sums[t];
    }
    if (ladder) score(n, own.psi_q, own.psi_k, *ladder, own.scores, sums);
    outputs(n, own, state, fades, sums, ladder, tame, tokens, p.o + (row * n.H + h) * n.E, n.H * n.E);
    if (p.R)
      for (int64_t t = 0; t < tokens; ++t) p.R[(row + t) * n.H + h] = sums[t];
  }
}

// Tokens past the length take no part.
void clear_padding(const Problem& p, int64_t b, int64_t g, int64_t length) {
  const FavorSizes& n = p.n;
  for (int64_t t = length; t < n.T; ++t)
    for (int64_t h = g * n.group(); h < (g + 1) * n.group(); ++h) {
      const int64_t at = (b * n.T + t) * n.H + h;
      if (p.R) p.R[at] = 0;
      for (int64_t e = 0; e < n.E; ++e) p.o[at * n.E + e] = 0;
    }
}

// Key-value head g of sequence b from its state onwards.
void walk(const Problem& p, const Memory& own, FavorState& state, int64_t b, int64_t g, int64_t length, float* marks) {
  const FavorSizes& n = p.n;
  alignas(64) Ladder ladder;
  for (int64_t t = 0; t < length; t += kWide) {
    if (marks && n.causal && t % n.every == 0) {
      float* mark = marks + t / n.every * n.mark();
      mark[0] = state.c;
      state.write(n, mark + 1, mark + 1 + n.M);
    }
    const int64_t row = b * n.T + t, tokens = at_most(kWide, length - t);
    const float *k = p.k + (row * n.G + g) * n.D, *v = p.v + (row * n.G + g) * n.E;
    prefetch_next(k, n.G * n.D, length - t - kWide, n.D), prefetch_next(v, n.G * n.E, length - t - kWide, n.E);
    features(n, p.omega, k, n.G * n.D, tokens, own.columns, own.psi_k, nullptr, ladder.scale);
    ladder.climb(state.c, tokens);
    panels_of(v, n.G * n.E, tokens, kWide, n.E, ladder.weight, own.weighted);
    if (n.causal) {
      panels_of(v, n.G * n.E, tokens, kWide, n.E, nullptr, own.values);
      queries(p, own, state, &ladder, finite(own.values, wide_panels(n.E) * kWide * kWide), row, g, tokens, length - t);
    }
    state.add(n, fade(ladder.before, ladder.after), own.psi_k, ladder.weight, own.weighted);
    state.c = ladder.after;
  }
  if (n.causal) return;
  if (marks) {
    marks[0] = state.c;
    state.write(n, marks + 1, marks + 1 + n.M);
  }
  for (int64_t t = 0; t < length; t += kWide)
    queries(p, own, state, nullptr, true, b * n.T + t, g, at_most(kWide, length - t), length - t);
}

}  // namespace

void linear_attention(In<float> q, In<float> k, In<float> v, In<float> omega, MaybeIn<float> c0, MaybeIn<float> z0,
                      MaybeIn<float> S0, MaybeIn<int32_t> lengths, Out<float> o, MaybeOut<float> R, MaybeOut<float> marks,
                      Out<float> c, Out<float> z, Out<float> S, int64_t B, int64_t T, int64_t H, int64_t G, int64_t D, int64_t E,
                      int64_t M, int64_t feature, float factor, float epsilon, int64_t every, bool causal) {
  const FavorSizes n = favor_sizes(B, T, H, G, D, E, M, feature, factor, epsilon, every, causal);
  expect("q", q, volume(B, T, H, D)), expect("k", k, volume(B, T, G, D)), expect("v", v, volume(B, T, G, E));
  expect("omega", omega, volume(M, D)), expect("lengths", lengths, B);
  expect("c0", c0, volume(B, G)), expect("z0", z0, volume(B, G, M)), expect("S0", S0, volume(B, G, M, E));
  expect("o", o, volume(B, T, H, E)), expect("R", R, volume(B, T, H)), expect("marks", marks, volume(B, G, n.marks(), n.mark()));
  expect("c", c, volume(B, G)), expect("z", z, volume(B, G, M)), expect("S", S, volume(B, G, M, E));
  if (!!c0 != !!z0 || !!c0 != !!S0) fail(OPLUS_BAD_SHAPE, "%s", "`c0`, `z0` and `S0` are given together or not at all");

  const auto length = [&](int64_t b) { return lengths ? at_most(T, at_least(0, lengths[b])) : T; };
  const bool alone = 4. * static_cast<double>(B * T * H) * static_cast<double>(M * D) < 1e5;
  if (T <= kFew && causal && !marks) {
    parallel_with_scratch(B * G, few_floats(n), alone, [&](float* own, int64_t task) {
      const int64_t b = task / G;
      if (!c0) c[task] = -__builtin_inff();
      else c[task] = c0[task];
      for (int64_t i = task * M; i < (task + 1) * M; ++i) z[i] = c0 ? z0[i] : 0;
      for (int64_t i = task * M * E; i < (task + 1) * M * E; ++i) S[i] = c0 ? S0[i] : 0;
      few(n, {q.data, k.data, v.data, omega.data, o.data, R.data}, b, task % G, length(b), &c[task], &z[task * M],
          &S[task * M * E], own);
    });
    return;
  }
  Scratch packed(whole_features(M) * D);
  pack_omega(omega.data, M, D, packed.data());
  const Problem p{q.data, k.data, v.data, packed.data(), o.data, R.data, n};
  parallel_with_scratch(B * G, Memory::floats(n), alone, [&](float* memory, int64_t task) {
    const int64_t b = task / G, g = task % G;
    const Memory own(n, memory);
    FavorState state(n, own.state);
    if (c0) state.read(n, c0[task], &z0[task * M], &S0[task * M * E]);
    else state.clear(n);
    walk(p, own, state, b, g, length(b), marks ? marks.data + task * n.marks() * n.mark() : nullptr);
    clear_padding(p, b, g, length(b));
    c[task] = state.c;
    state.write(n, &z[task * M], &S[task * M * E]);
  });
}

// Multiply-adds.
double linear_attention_cost(In<float>, In<float>, In<float>, In<float>, MaybeIn<float>, MaybeIn<float>, MaybeIn<float>,
                             MaybeIn<int32_t>, Out<float>, MaybeOut<float>, MaybeOut<float>, Out<float>, Out<float>, Out<float>,
                             int64_t B, int64_t T, int64_t H, int64_t G, int64_t D, int64_t E, int64_t M, int64_t, float, float,
                             int64_t, bool) {
  return static_cast<double>(B * T) * static_cast<double>(H + G) * static_cast<double>(M * (D + E));
}

static constexpr oplus_op list[] = {op<linear_attention, linear_attention_cost>("linearAttention")};
extern constinit const Ops linear_attention_ops(list);

}  // namespace oplus::OPLUS_TARGET
