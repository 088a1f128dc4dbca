// Attention of a fixed query over every prefix, on the CPU (algorithms A.1): one walk over time for each head.
//
// The walk keeps w and writes o = w · (1/u): w ← a·w + b·v with a = e^(m−m'), b = e^(s−m'). While the largest score stays, a is
// 1, so a token without weight leaves w as it is, to the bit. (Keeping o = w / u instead needs a multiplication less, but its
// factors u·e^(m−m')/u' are then 1 but for rounding, and o drifts: by 0.6 % over 100,000 tokens that those before outweigh.)
// The factors of a chunk of tokens are worked out first, one lane a head; then v is read and o written row by row, in the order
// in which they lie in memory, with w in the first cache. (With w in registers for 8 tokens of a head, v is read in pieces of 256
// bytes 2 KB apart, which no prefetcher follows: 15 ms and not 10 for a scan whose bytes are copied in 8.)
//
// Heads are independent, so threads share out batches and heads, and the result does not depend on how many there are.
// Where there are fewer heads than threads, time is cut: totals of each piece, ⊕ over the pieces, then the walk again.
#include "scan.h"

#include "core/op.h"
#include "core/partition.h"
#include "core/pool.h"
#include "core/simd.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kChunk = 16;  // tokens whose factors are worked out together
constexpr int kHeads = 64;  // of so many heads: with this many tokens, 12 KB of factors
constexpr int kAhead = 8;   // tokens between the one that is worked on and the one that is asked of memory: 16 KB in rows of 2 KB
constexpr int64_t kLine = 16;               // floats in a line of the caches
constexpr int64_t kPieceOfRow = 512;        // floats
constexpr int64_t kSmall = 1 << 15;         // elements below which a second thread costs more than it brings
constexpr int64_t kBeyondCaches = 8 << 20;  // elements of o from which stores go past the caches

struct Sizes {
  int64_t B, T, H, G, D;
  bool reverse;
};

// One batch and heads [h0, h1) of it, tokens [t0, t1) in walking order of the `length` that take part.
struct Span {
  int64_t b, h0, h1, t0, t1, length;
};

// What a head carries along.
struct State {
  float* m;  // [H]
  float* u;  // [H]
  float* w;  // [H, D]
};

// Of a chunk of tokens, one lane a head: w ← a·w + b·v, o = inverse · w.
struct Factors {
  float a[kChunk][kHeads], b[kChunk][kHeads], inverse[kChunk][kHeads];
};

// The factors of n tokens for `heads` ≤ kLanes heads, into the columns from h on. Moves m and u on.
void find_factors(const float* s, int64_t s_step, float* L, int64_t heads, int n, float* m_state, float* u_state,
                  Factors& factors, int64_t h) {
  Vec m = load_part(m_state, heads, kNoScore), u = load_part(u_state, heads);
  for (int i = 0; i < n; ++i, s += s_step) {
    const Vec score = heads == kLanes ? load(s) : load_part(s, heads, kNoScore);
    const VecInt risen = score > m;
    const Vec next = select(risen, score, select(score != score, score, m));  // NaN must not be lost
    const VecInt empty = next == kNoScore;                                    // ⊕'s hard case, see join
    // One of e^(m − next) and e^(score − next) is e^0: a single exponential serves both. next − next is NaN for an infinite one.
    const Vec least = exp(select(risen, m, score) - next), most = 1.0f + (next - next);
    const Vec left = select(empty, Vec{}, select(risen, least, most)), right = select(empty, Vec{}, select(risen, most, least));
    u = left * u + right;
    m = next;
    store(factors.a[i] + h, left);
    store(factors.b[i] + h, right);
    store(factors.inverse[i] + h, select(u == 0.f, Vec{}, 1.0f / u));
    if (L) {
      store_part(L, m + log(u), heads);
      L += s_step;
    }
  }
  store_part(m_state, m, heads);
  store_part(u_state, u, heads);
}

// One head over one token; v + ahead is what will be needed soon (beyond the ends of v nothing is read: asking does not fault).
template <bool kStore, bool kPastCaches>
OPLUS_INLINE void walk(float a, float b, float inverse, const float* v, int64_t ahead, float* o, float* w, int64_t D) {
  const auto step = [&](int64_t d, Vec r) {
    store(w + d, r);
    if (kStore) kPastCaches ? stream(o + d, inverse * r) : store(o + d, inverse * r);
  };
  for (int64_t i = 0; i < D; i += kLine) __builtin_prefetch(v + ahead + i);
  int64_t d = 0;
  if (b != 0.f) {
#pragma GCC unroll 8
    for (; d + kLanes <= D; d += kLanes) step(d, a * load(w + d) + b * load(v + d));
  } else {  // v of a token that takes no part is not looked at: it may be anything
    for (; d + kLanes <= D; d += kLanes) step(d, a * load(w + d));
  }
  for (; d < D; ++d) {
    w[d] = b != 0.f ? a * w[d] + b * v[d] : a * w[d];
    if (kStore) o[d] = inverse * w[d];
  }
}

template <bool kStore, bool kPastCaches>
void scan_span(const Sizes& z, const Span& span, const float* s, const float* v, float* o, float* L, const State& state) {
  Factors factors;
  const int64_t sign = z.reverse ? -1 : 1, per_group = z.H / z.G;
  for (int64_t t = span.t0; t < span.t1; t += kChunk) {
    const int n = static_cast<int>(span.t1 - t < kChunk ? span.t1 - t : kChunk);
    const int64_t row = span.b * z.T + (z.reverse ? span.length - 1 - t : t);  // where token t lies
    for (int64_t h0 = span.h0; h0 < span.h1; h0 += kHeads) {
      const int64_t h1 = span.h1 - h0 < kHeads ? span.h1 : h0 + kHeads;
      for (int64_t h = h0; h < h1; h += kLanes)
        find_factors(s + row * z.H + h, sign * z.H, L ? L + row * z.H + h : nullptr, h1 - h < kLanes ? h1 - h : kLanes, n,
                     state.m + h, state.u + h, factors, h - h0);
      for (int i = 0; i < n; ++i) {
        const int64_t at = row + sign * i;
        const float* group = v + (at * z.G + h0 / per_group) * z.D;
        for (int64_t h = h0, left = per_group - h0 % per_group; h < h1; ++h) {
          walk<kStore, kPastCaches>(factors.a[i][h - h0], factors.b[i][h - h0], factors.inverse[i][h - h0], group,
                                    sign * kAhead * z.G * z.D, kStore ? o + (at * z.H + h) * z.D : nullptr, state.w + h * z.D,
                                    z.D);
          if (--left == 0) group += z.D, left = per_group;
        }
      }
    }
  }
}

void run_span(const Sizes& z, const Span& span, const float* s, const float* v, float* o, float* L, const State& state) {
  const bool past_caches =
      o && z.B * z.T * z.H * z.D >= kBeyondCaches && z.D % kLanes == 0 && reinterpret_cast<uintptr_t>(o) % (kLanes * 4) == 0;
  if (!o) scan_span<false, false>(z, span, s, v, o, L, state);
  else if (past_caches) scan_span<true, true>(z, span, s, v, o, L, state), stream_fence();
  else scan_span<true, false>(z, span, s, v, o, L, state);
}

// Tokens past the length take no part: their outputs are 0 and their prefixes are marked empty.
void clear_padding(const Sizes& z, const Span& span, float* o, float* L) {
  for (int64_t t = span.length; t < z.T; ++t)
    for (int64_t h = span.h0; h < span.h1; ++h) {
      const int64_t at = (span.b * z.T + t) * z.H + h;
      if (L) L[at] = kNoScore;
      for (int64_t d = 0; o && d < z.D; ++d) o[at * z.D + d] = 0.f;
    }
}

// state ← state ⊕ total; `total` becomes what the state was, which is where the piece that it belongs to starts from.
void carry(const Sizes& z, const State& state, const State& total) {
  for (int64_t h = 0; h < z.H; ++h) {
    const Prefix before{state.m[h], state.u[h]}, piece{total.m[h], total.u[h]};
    const Join j = join(before.m, piece.m);
    const Prefix both = join(before, piece);
    for (int64_t d = h * z.D; d < (h + 1) * z.D; ++d) {
      const float w = state.w[d];
      state.w[d] = j.left * w + j.right * total.w[d];
      total.w[d] = w;
    }
    state.m[h] = both.m, state.u[h] = both.u;
    total.m[h] = before.m, total.u[h] = before.u;
  }
}

// Few heads, long time: pieces of time side by side. `scratch` holds a state for each piece.
void scan_pieces(const Sizes& z, int64_t b, int64_t length, int pieces, const float* s, const float* v, float* o, float* L,
                 const State& state, float* scratch) {
  const int64_t each = (length + pieces - 1) / pieces, size = z.H * (z.D + 2);
  const auto piece_state = [&](int i) {
    return State{scratch + i * size, scratch + i * size + z.H, scratch + i * size + 2 * z.H};
  };
  const auto piece = [&](int i) {
    const int64_t t0 = i * each < length ? i * each : length;
    return Span{b, 0, z.H, t0, t0 + each < length ? t0 + each : length, length};
  };
  parallel_for(pieces, [&](int i) {
    const State total = piece_state(i);
    for (int64_t h = 0; h < z.H; ++h) total.m[h] = kNoScore, total.u[h] = 0.f;
    for (int64_t d = 0; d < z.H * z.D; ++d) total.w[d] = 0.f;
    run_span(z, piece(i), s, v, nullptr, nullptr, total);
  });
  for (int i = 0; i < pieces; ++i) carry(z, state, piece_state(i));
  parallel_for(pieces, [&](int i) { run_span(z, piece(i), s, v, o, L, piece_state(i)); });
}

}  // namespace

void scan(In<float> s, In<float> v, MaybeIn<float> m0, MaybeIn<float> u0, MaybeIn<float> w0, MaybeIn<int32_t> lengths,
          MaybeOut<float> o, MaybeOut<float> L, Out<float> m, Out<float> u, Out<float> w, int64_t B, int64_t T, int64_t H,
          int64_t G, int64_t D, bool reverse) {
  if (B < 0 || T < 0 || H < 1 || G < 1 || D < 1 || H % G)
    fail(OPLUS_BAD_SHAPE, "H = %lld heads do not share G = %lld groups evenly", (long long)H, (long long)G);
  expect("s", s, volume(B, T, H)), expect("v", v, volume(B, T, G, D)), expect("lengths", lengths, B);
  expect("m0", m0, volume(B, H)), expect("u0", u0, volume(B, H)), expect("w0", w0, volume(B, H, D));
  expect("o", o, volume(B, T, H, D)), expect("L", L, volume(B, T, H)), expect("m", m, volume(B, H)), expect("u", u, volume(B, H)),
      expect("w", w, volume(B, H, D));

  if (!!m0 != !!u0 || !!m0 != !!w0) fail(OPLUS_BAD_SHAPE, "%s", "`m0`, `u0` and `w0` are given together or not at all");

  const Sizes z{B, T, H, G, D, reverse};
  const auto length_of = [&](int64_t b) { return !lengths ? T : lengths[b] < 0 ? 0 : lengths[b] < T ? lengths[b] : T; };
  // The state lives in (m, u, w) while it moves; they may be the memory it came in.
  const auto begin = [&](int64_t b, int64_t h0, int64_t h1) {
    for (int64_t h = b * H + h0; h < b * H + h1; ++h) {
      m[h] = m0 ? m0[h] : kNoScore;
      u[h] = m0 ? u0[h] : 0.f;
      for (int64_t d = h * D; d < (h + 1) * D; ++d) w[d] = m0 ? w0[d] : 0.f;
    }
  };
  const auto state_of = [&](int64_t b) { return State{m.data + b * H, u.data + b * H, w.data + b * H * D}; };
  const int team = B * T * H * D < kSmall ? 1 : threads();

  if (team > 1 && B * H < team && T >= 4 * team) {
    const int64_t size = H * (D + 2);
    float* scratch = new float[static_cast<size_t>(team * size)];
    for (int64_t b = 0; b < B; ++b) {
      begin(b, 0, H);
      scan_pieces(z, b, length_of(b), team, s.data, v.data, o.data, L.data, state_of(b), scratch);
      clear_padding(z, {b, 0, H, 0, 0, length_of(b)}, o.data, L.data);
    }
    delete[] scratch;
    return;
  }
  // Whole batches where they can be shared out evenly enough; else heads are shared out too, in equal parts. Reading a piece of
  // every row costs up to 2.4 times a walk over whole ones (pieces of 1 KB; 1.6 for 2 KB), so two or three threads do not pay
  // then.
  const bool whole = team == 1 || B >= 2 * team || B % team == 0 || (team < 4 && H * D < team * kPieceOfRow);
  const int64_t parts = whole ? 1 : (H < team ? H : team), each = (H + parts - 1) / parts;
  parallel_for(team == 1 ? 1 : static_cast<int>(B * parts), [&](int task) {
    for (int64_t i = team == 1 ? 0 : task; i < (team == 1 ? B * parts : task + 1); ++i) {
      const int64_t b = i / parts, h0 = i % parts * each, h1 = h0 + each < H ? h0 + each : H;
      if (h0 >= h1) continue;
      const Span span{b, h0, h1, 0, length_of(b), length_of(b)};
      begin(b, h0, h1);
      run_span(z, span, s.data, v.data, o.data, L.data, state_of(b));
      clear_padding(z, span, o.data, L.data);
    }
  });
}

static constexpr oplus_op list[] = {op<scan>("scan")};
extern constinit const Ops scan_ops;
constinit const Ops scan_ops(list);

}  // namespace oplus::OPLUS_TARGET
