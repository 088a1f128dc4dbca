// Attention of a fixed query over every prefix, on the CPU (algorithms A.1): one walk over time with all heads side by side.
//
// The walk keeps w and writes o = w · (1/u): w ← a·w + b·v with a = e^(m−m'), b = e^(s−m'). While the largest score stays, a is
// 1, so a token without weight leaves w as it is, to the bit. (Keeping o = w / u instead needs a multiplication less, but its
// factors u·e^(m−m')/u' are then 1 but for rounding, and o drifts: by 0.6 % over 100,000 tokens that those before outweigh.)
// The factors of a chunk of tokens are worked out first (scan_factors.h); then v is read and o written strictly in the order in
// which they lie in memory, or strictly against it, which is what prefetchers follow: rows from the last to the first, but
// each from left to right, take 1.6 times as long.
//
// Threads share out batches. Where these do not suffice, each sequence
// is cut into tiles that fit into a cache (`relay`): a thread sums its tile up, waits for the state before it, hands on
// state ⊕ sum, and walks the tile, which is still in its cache. So v is read from memory once, by any number of threads.
#include "core/op.h"
#include "core/partition.h"
#include "scan_factors.h"
#include "scan_tiles.h"

namespace oplus::OPLUS_TARGET {
namespace {

enum class Store { nothing, outputs, past_caches };

struct Problem {
  const float *s, *v;
  float *o, *L;  // either may be null
  ScanSizes z;
  Store store;
};

// What one head after the other carries along: [heads], [heads], [heads, D].
struct State {
  float *m, *u, *w;
};

State state_in(float* memory, int64_t heads) { return {memory, memory + heads, memory + 2 * heads}; }

void clear(const State& state, int64_t heads, int64_t D) {
  for (int64_t h = 0; h < heads; ++h) state.m[h] = kNoScore, state.u[h] = 0.f;
  for (int64_t d = 0; d < heads * D; ++d) state.w[d] = 0.f;
}

// One head over one token. v of a token that takes no part is not looked at: it may be anything.
template <Store kStore, bool kReverse>
OPLUS_INLINE void walk(float a, float b, float inverse, const float* v, float* o, float* w, int64_t D) {
  const auto step = [&](int64_t d, int64_t lanes, Vec r) {
    store_some(w + d, r, lanes);
    if (kStore == Store::past_caches) stream(o + d, inverse * r);  // only where D is whole vectors
    else if (kStore == Store::outputs) store_some(o + d, inverse * r, lanes);
  };
  if (b != 0.f)
    each_vector<kReverse>(
        D, [&](int64_t d, int64_t lanes) { step(d, lanes, a * load_some(w + d, lanes) + b * load_some(v + d, lanes)); });
  else each_vector<kReverse>(D, [&](int64_t d, int64_t lanes) { step(d, lanes, a * load_some(w + d, lanes)); });
}

// Tokens of a span with state going through them. `ahead`: floats of v to the row that is asked of memory meanwhile, or 0 (asking
// beyond the ends does not fault).
template <Store kStore, bool kReverse>
void walk_span(const Problem& p, const Span& span, const State& state, float* scratch, int64_t ahead) {
  const ScanSizes& z = p.z;
  const int64_t heads = span.h1 - span.h0;
  each_chunk<kReverse>(z, span, [&](int64_t row, int64_t n) {
    const Factors f(scratch, heads);
    find_factors<kReverse>(f, p.s + row * z.H + span.h0, p.L ? p.L + row * z.H + span.h0 : nullptr, z.H, heads, n, state.m,
                           state.u);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t j = kReverse ? n - 1 - i : i, at = row + j;
      if (ahead) prefetch_row<kReverse>(p.v + at * z.G * z.D + ahead, z.G * z.D);
      each_head<kReverse>(z, span, p.v + at * z.G * z.D, [&](int64_t h, const float* v) {
        const int64_t k = j * heads + h - span.h0;
        float* o = kStore == Store::nothing ? nullptr : p.o + (at * z.H + h) * z.D;
        walk<kStore, kReverse>(f.a[k], f.b[k], f.inverse[k], v, o, state.w + (h - span.h0) * z.D, z.D);
      });
    }
  });
  if (kStore == Store::past_caches) stream_fence();
}

// w ← w + Σ b·v over kRows tokens of one head, `step` floats apart.
template <int kRows, bool kReverse>
OPLUS_INLINE void add_rows(const float* b, int64_t b_step, const float* v, int64_t v_step, float* w, int64_t D) {
  for (int i = 0; i < kRows; ++i)
    if (b[i * b_step] == 0.f) {  // v of a token that takes no part is not looked at
      if constexpr (kRows > 1)
        for (int j = 0; j < kRows; ++j) add_rows<1, kReverse>(b + j * b_step, b_step, v + j * v_step, v_step, w, D);
      return;
    }
  each_vector<kReverse>(D, [&](int64_t d, int64_t lanes) {
    Vec sum = load_some(w + d, lanes);
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) sum += b[i * b_step] * load_some(v + i * v_step + d, lanes);
    store_some(w + d, sum, lanes);
  });
}

// (m, u, w) of a span by itself.
template <bool kReverse>
void sum_span(const Problem& p, const Span& span, const State& total, float* scratch) {
  const ScanSizes& z = p.z;
  const int64_t heads = span.h1 - span.h0;
  clear(total, heads, z.D);
  each_chunk<kReverse>(z, span, [&](int64_t row, int64_t n) { find_largest(p.s + row * z.H + span.h0, z.H, heads, n, total.m); });
  each_chunk<kReverse>(z, span, [&](int64_t row, int64_t n) {
    find_weights(scratch, p.s + row * z.H + span.h0, z.H, heads, n, total.m, total.u);
    for (int64_t i = 0, rows; i < n; i += rows) {
      rows = n - i < 4 ? 1 : 4;
      const int64_t j = kReverse ? n - rows - i : i;
      each_head<kReverse>(z, span, p.v + (row + j) * z.G * z.D, [&](int64_t h, const float* v) {
        const float* b = scratch + j * heads + h - span.h0;
        float* w = total.w + (h - span.h0) * z.D;
        if (rows == 4) add_rows<4, kReverse>(b, heads, v, z.G * z.D, w, z.D);
        else add_rows<1, kReverse>(b, heads, v, z.G * z.D, w, z.D);
      });
    }
  });
}

template <bool kReverse>
void walk_span(const Problem& p, const Span& span, const State& state, float* scratch, int64_t ahead) {
  switch (p.store) {
    case Store::nothing:
      return walk_span<Store::nothing, kReverse>(p, span, state, scratch, ahead);
    case Store::outputs:
      return walk_span<Store::outputs, kReverse>(p, span, state, scratch, ahead);
    case Store::past_caches:
      return walk_span<Store::past_caches, kReverse>(p, span, state, scratch, ahead);
  }
}

void walk_tokens(const Problem& p, const Span& span, const State& state, float* scratch, int64_t ahead = 0) {
  p.z.reverse ? walk_span<true>(p, span, state, scratch, ahead) : walk_span<false>(p, span, state, scratch, ahead);
}

void sum_tokens(const Problem& p, const Span& span, const State& total, float* scratch) {
  p.z.reverse ? sum_span<true>(p, span, total, scratch) : sum_span<false>(p, span, total, scratch);
}

// Tokens past the length take no part: their outputs are 0 and their prefixes are marked empty.
void clear_padding(const Problem& p, const Span& span) {
  const ScanSizes& z = p.z;
  for (int64_t t = at_least(span.t0, span.length); t < span.t1; ++t)
    for (int64_t h = span.h0; h < span.h1; ++h) {
      const int64_t at = (span.b * z.T + t) * z.H + h;
      if (p.L) p.L[at] = kNoScore;
      for (int64_t d = 0; p.o && d < z.D; ++d) p.o[at * z.D + d] = 0.f;
    }
}

// state ← state ⊕ total; `total` becomes what the state was, which is where the tile that it belongs to starts from.
void hand_on(const State& state, const State& total, int64_t heads, int64_t D) {
  for (int64_t h = 0; h < heads; ++h) {
    const Prefix before{state.m[h], state.u[h]}, tile{total.m[h], total.u[h]};
    const Join j = join(before.m, tile.m);
    const Prefix both = join(before, tile);
    each_vector<false>(D, [&](int64_t d, int64_t lanes) {
      float *from = state.w + h * D + d, *to = total.w + h * D + d;
      const Vec w = load_some(from, lanes);
      store_some(from, j.left * w + j.right * load_some(to, lanes), lanes);
      store_some(to, w, lanes);
    });
    const bool nan = before.m != before.m || tile.m != tile.m;  // fmaxf loses it
    state.m[h] = nan ? before.m + tile.m : both.m, state.u[h] = both.u;
    total.m[h] = before.m, total.u[h] = before.u;
  }
}

}  // namespace

void scan(In<float> s, In<float> v, MaybeIn<float> m0, MaybeIn<float> u0, MaybeIn<float> w0, MaybeIn<int32_t> lengths,
          MaybeOut<float> o, MaybeOut<float> L, Out<float> m, Out<float> u, Out<float> w, int64_t B, int64_t T, int64_t H,
          int64_t G, int64_t D, bool reverse) {
  const ScanSizes z = scan_sizes(B, T, H, G, D, reverse);
  expect("s", s, volume(B, T, H)), expect("v", v, volume(B, T, G, D)), expect("lengths", lengths, B);
  expect("m0", m0, volume(B, H)), expect("u0", u0, volume(B, H)), expect("w0", w0, volume(B, H, D));
  expect("o", o, volume(B, T, H, D)), expect("L", L, volume(B, T, H)), expect("m", m, volume(B, H)), expect("u", u, volume(B, H)),
      expect("w", w, volume(B, H, D));
  if (!!m0 != !!u0 || !!m0 != !!w0) fail(OPLUS_BAD_SHAPE, "%s", "`m0`, `u0` and `w0` are given together or not at all");

  const bool aligned = D % kLanes == 0 && reinterpret_cast<uintptr_t>(o.data) % (kLanes * sizeof(float)) == 0;
  const Store store = !o ? Store::nothing : aligned && B * T * H * D >= kBeyondCaches ? Store::past_caches : Store::outputs;
  const Problem p{s.data, v.data, o.data, L.data, z, store};
  // The state lives in (m, u, w) while it moves; they may be the memory it came in.
  const auto begin = [&](const Span& span) {
    for (int64_t h = span.b * H + span.h0; h < span.b * H + span.h1; ++h) {
      m[h] = m0 ? m0[h] : kNoScore;
      u[h] = m0 ? u0[h] : 0.f;
      for (int64_t d = h * D; d < (h + 1) * D; ++d) w[d] = m0 ? w0[d] : 0.f;
    }
  };
  const auto state_of = [&](const Span& span) {
    const int64_t head = span.b * H + span.h0;
    return State{m.data + head, u.data + head, w.data + head * D};
  };

  const Shares shares = share_out(z, G * D);
  if (shares.tiles > 1) {
    const int64_t ahead = (reverse ? -1 : 1) * threads() * shares.tile * G * D;
    relay(
        B * shares.tiles, H * (D + 2) + Factors::floats(H),
        [&](float* own, int64_t i) {
          const Span span = shares.span(z, i, lengths);
          sum_tokens(p, span, state_in(own, H), own + H * (D + 2));
        },
        [&](float* own, int64_t i) {
          const Span span = shares.span(z, i, lengths);
          if (span.t0 == 0) begin(span);
          hand_on(state_of(span), state_in(own, H), H, D);
        },
        [&](float* own, int64_t i) {
          const Span span = shares.span(z, i, lengths);
          if (o || L) walk_tokens(p, span, state_in(own, H), own + H * (D + 2), ahead);
          clear_padding(p, span);
        });
    return;
  }
  parallel_with_scratch(B * shares.parts, Factors::floats(H), shares.alone, [&](float* own, int64_t i) {
    const Span span = shares.span(z, i, lengths);
    begin(span);
    walk_tokens(p, span, state_of(span), own);
    clear_padding(p, span);
  });
}

static constexpr oplus_op list[] = {op<scan>("scan")};
extern constinit const Ops scan_ops;
constinit const Ops scan_ops(list);

}  // namespace oplus::OPLUS_TARGET
