// The gradient of the scan, on the CPU (algorithms B): one walk over time, from the last token to the first.
//
//   G_i = g_i + ρ_i G_{i+1}     D_i = δ_i + ρ_i D_{i+1}     δ_i = g_i·o_i     ρ_i = e^(L_i − L_{i+1})
//   dv_i = p_i G_i              ds_i = p_i (v_i·G_i − D_i)                    p_i = e^(s_i − L_i)
//
// This is ⊕ from right to left over the leaves (−L_i, δ_i, g_i): L never falls over time, so the running maximum is −L_i
// itself and joining needs only ρ. Every exponent is at most 0.
//
// Memory is walked and threads share out the work as in scan.cpp, from the other end: against the order in which numbers lie,
// rows, heads and vectors alike. (Rows from the last to the first, but each from left to right, took 1.6 times as long.)
#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"
#include "scan.h"
#include "scan_tiles.h"

namespace oplus::OPLUS_TARGET {
namespace {

struct Problem {
  const float *s, *v, *o, *L, *g;  // g may be null
  float *ds, *dv;
  ScanSizes z;
  bool past_caches;
};

// What goes from right to left: [heads], [heads], [heads, D].
struct Carry {
  float* L;  // of the token to the right
  float *D, *G;
};

Carry carry_in(float* memory, int64_t heads) { return {memory, memory + heads, memory + 2 * heads}; }

// ρ and p of n tokens, each [n, heads] in the order of memory. `room` is for n + 2 rows: L, with that of the token walked
// before at its end.
template <bool kFromTheRight>
void find_weights(const float* s, const float* L, int64_t H, int64_t heads, int64_t n, float* L_right, float* room, float* rho,
                  float* p) {
  const int64_t count = n * heads, back = kFromTheRight ? heads : -heads;
  const size_t row = sizeof(float) * static_cast<size_t>(heads);
  float* here = room + heads;
  for (int64_t j = 0; j < n; ++j) std::memcpy(here + j * heads, L + j * H, row), std::memcpy(p + j * heads, s + j * H, row);
  std::memcpy(kFromTheRight ? here + count : here - heads, L_right, row);
  std::memcpy(L_right, kFromTheRight ? here : here + count - heads, row);
  for (int64_t k = 0; k < count; k += kLanes) {
    const Vec l = load(here + k);
    const VecInt empty = l == kNoScore;  // an empty prefix hands nothing to the left and has no weight of its own
    store(rho + k, select(empty, Vec{}, exp(l - load(here + k + back))));
    store(p + k, select(empty, Vec{}, exp(load(p + k) - l)));
  }
}

int64_t chunk_floats(int64_t heads) { return 3 * (at_least(kWeights, heads) + kLanes) + 2 * heads; }

// One head over one token: G ← g + ρG, dv ← p·G; δ, unless it is `known`, and v·G.
template <bool kPastCaches, bool kFromTheRight>
OPLUS_INLINE void walk(float rho, float p, const float* g, const float* o, const float* v, float* dv, float* G, int64_t D,
                       float* delta, float* along, bool known) {
  Vec sum_delta{}, sum_along{};
  each_vector<kFromTheRight>(D, [&](int64_t d, int64_t lanes) {
    Vec r = rho * load_some(G + d, lanes);
    if (g) {
      const Vec gradient = load_some(g + d, lanes);
      r += gradient;
      if (!known) sum_delta += gradient * load_some(o + d, lanes);
    }
    store_some(G + d, r, lanes);
    if (p != 0.f) sum_along += load_some(v + d, lanes) * r;  // v of a token without weight is not looked at
    const Vec out = p != 0.f ? p * r : Vec{};
    if (kPastCaches) stream(dv + d, out);
    else store_some(dv + d, out, lanes);
  });
  if (!known) *delta = sum(sum_delta);
  *along = sum(sum_along);
}

// Tokens of a span. `known`: their δ [tokens, heads] in the order of memory, or null.
template <bool kPastCaches, bool kFromTheRight>
void walk_span(const Problem& z, const Span& span, const Carry& carry, float* scratch, const float* known) {
  const auto& [B, T, H, G, D, reverse] = z.z;
  const int64_t heads = span.h1 - span.h0, room = at_least(kWeights, heads) + kLanes;
  float *rho = scratch, *p = scratch + room;
  const int64_t lowest = lowest_row<kFromTheRight>(z.z, span);
  each_chunk<kFromTheRight>(z.z, span, [&](int64_t row, int64_t n) {
    find_weights<kFromTheRight>(z.s + row * H + span.h0, z.L + row * H + span.h0, H, heads, n, carry.L, p + room, rho, p);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t j = kFromTheRight ? n - 1 - i : i, at = row + j;
      each_head<kFromTheRight>(z.z, span, z.v + at * G * D, [&](int64_t h, const float* v) {
        const int64_t k = j * heads + h - span.h0, head = at * H + h;
        float delta = known ? known[(at - lowest) * heads + h - span.h0] : 0.f, along;
        walk<kPastCaches, kFromTheRight>(rho[k], p[k], z.g ? z.g + head * D : nullptr, z.o + head * D, v, z.dv + head * D,
                                         carry.G + (h - span.h0) * D, D, &delta, &along, known != nullptr);
        float& sum = carry.D[h - span.h0];
        sum = delta + rho[k] * sum;
        z.ds[head] = p[k] != 0.f ? p[k] * (along - sum) : 0.f;
      });
    }
  });
  if (kPastCaches) stream_fence();
}

// What a span by itself hands to its left: Σ e^(L_left − L_i) of g_i and of δ_i, where L_left is that of its leftmost token; and
// δ.
template <bool kFromTheRight>
void sum_span(const Problem& z, const Span& span, const Carry& total, float* deltas, float* weights) {
  const auto& [B, T, H, G, D, reverse] = z.z;
  const int64_t heads = span.h1 - span.h0, end = at_most(span.t1, span.length);
  for (int64_t h = 0; h < heads; ++h) total.D[h] = 0.f;
  for (int64_t d = 0; d < heads * D; ++d) total.G[d] = 0.f;
  if (end <= span.t0) return;
  const int64_t lowest = lowest_row<kFromTheRight>(z.z, span), left = kFromTheRight ? lowest : lowest + end - span.t0 - 1;
  std::memcpy(total.L, z.L + left * H + span.h0, sizeof(float) * static_cast<size_t>(heads));
  each_chunk<kFromTheRight>(z.z, span, [&](int64_t row, int64_t n) {
    for (int64_t h = 0; h < heads; h += kLanes)
      for (int64_t j = 0; j < n; ++j) {
        const Vec L = load_some(z.L + (row + j) * H + span.h0 + h, heads - h);
        store_some(weights + j * heads + h, select(L == kNoScore, Vec{}, exp(load_some(total.L + h, heads - h) - L)), heads - h);
      }
    for (int64_t i = 0; i < n; ++i) {
      const int64_t j = kFromTheRight ? n - 1 - i : i, at = row + j;
      each_head<kFromTheRight>(z.z, span, z.o + at * H * D, [&](int64_t h, const float*) {
        const int64_t head = at * H + h;
        const float weight = weights[j * heads + h - span.h0];
        const float *g = z.g ? z.g + head * D : nullptr, *o = z.o + head * D;
        float* to = total.G + (h - span.h0) * D;
        Vec delta{};
        if (g)
          each_vector<kFromTheRight>(D, [&](int64_t d, int64_t lanes) {
            const Vec gradient = load_some(g + d, lanes);
            delta += gradient * load_some(o + d, lanes);
            store_some(to + d, load_some(to + d, lanes) + weight * gradient, lanes);
          });
        const float along = deltas[(at - lowest) * heads + h - span.h0] = sum(delta);
        total.D[h - span.h0] += weight * along;
      });
    }
  });
}

// carry ← what goes on to the left of a tile; `total` becomes what came from the right.
void hand_on(const Carry& carry, const Carry& total, int64_t heads, int64_t D) {
  for (int64_t h = 0; h < heads; ++h) {
    const float L = carry.L[h], sum = carry.D[h];
    const float rho = total.L[h] == kNoScore ? 0.f : expf(total.L[h] - L);
    each_vector<false>(D, [&](int64_t d, int64_t lanes) {
      float *from = carry.G + h * D + d, *to = total.G + h * D + d;
      const Vec G = load_some(from, lanes);
      store_some(from, rho * G + load_some(to, lanes), lanes);
      store_some(to, G, lanes);
    });
    carry.D[h] = rho * sum + total.D[h], total.D[h] = sum;
    carry.L[h] = total.L[h], total.L[h] = L;
  }
}

void walk_tokens(const Problem& z, const Span& span, const Carry& carry, float* scratch, const float* known = nullptr) {
  if (z.z.reverse)
    z.past_caches ? walk_span<true, false>(z, span, carry, scratch, known)
                  : walk_span<false, false>(z, span, carry, scratch, known);
  else
    z.past_caches ? walk_span<true, true>(z, span, carry, scratch, known)
                  : walk_span<false, true>(z, span, carry, scratch, known);
}

void clear_padding(const Problem& z, const Span& span) {
  for (int64_t t = at_least(span.t0, span.length); t < span.t1; ++t)
    for (int64_t h = span.h0; h < span.h1; ++h) {
      const int64_t at = (span.b * z.z.T + t) * z.z.H + h;
      z.ds[at] = 0.f;
      for (int64_t d = 0; d < z.z.D; ++d) z.dv[at * z.z.D + d] = 0.f;
    }
}

}  // namespace

void scan_backward(In<float> s, In<float> v, MaybeIn<float> m0, MaybeIn<float> u0, MaybeIn<float> w0, MaybeIn<int32_t> lengths,
                   In<float> o, In<float> L, MaybeIn<float> g, MaybeIn<float> m, MaybeIn<float> du, MaybeIn<float> dw,
                   Out<float> ds, Out<float> dv, MaybeOut<float> du0, MaybeOut<float> dw0, int64_t B, int64_t T, int64_t H,
                   int64_t G, int64_t D, bool reverse) {
  const ScanSizes sizes = scan_sizes(B, T, H, G, D, reverse);
  expect("s", s, volume(B, T, H)), expect("v", v, volume(B, T, G, D)), expect("lengths", lengths, B);
  expect("m0", m0, volume(B, H)), expect("u0", u0, volume(B, H)), expect("w0", w0, volume(B, H, D));
  expect("o", o, volume(B, T, H, D)), expect("L", L, volume(B, T, H)), expect("g", g, volume(B, T, H, D));
  expect("m", m, volume(B, H)), expect("du", du, volume(B, H)), expect("dw", dw, volume(B, H, D));
  expect("ds", ds, volume(B, T, H)), expect("dv", dv, volume(B, T, H, D)), expect("du0", du0, volume(B, H)),
      expect("dw0", dw0, volume(B, H, D));
  if (!!m0 != !!u0 || !!m0 != !!w0) fail(OPLUS_BAD_SHAPE, "%s", "`m0`, `u0` and `w0` are given together or not at all");
  if (!!m != !!du || !!m != !!dw) fail(OPLUS_BAD_SHAPE, "%s", "`m`, `du` and `dw` are given together or not at all");

  const bool aligned = D % kLanes == 0 && reinterpret_cast<uintptr_t>(dv.data) % (kLanes * sizeof(float)) == 0;
  const Problem z{s.data, v.data, o.data, L.data, g.data, ds.data, dv.data, sizes, aligned && B * T * H * D >= kBeyondCaches};
  // What enters right of the last token: the gradient of the final (u, w), with ρ = 1; its m is a constant (algorithms B).
  const auto begin = [&](const Span& span, const Carry& carry) {
    for (int64_t h = span.h0; h < span.h1; ++h) {
      const int64_t state = span.b * H + h, k = h - span.h0, last = reverse ? 0 : span.length - 1;
      carry.L[k] = span.length ? L[(span.b * T + last) * H + h] : kNoScore;
      const float seed = !m ? 0.f : !span.length ? 1.f : m[state] == kNoScore ? 0.f : expf(carry.L[k] - m[state]);
      carry.D[k] = m ? -seed * du[state] : 0.f;
      for (int64_t d = 0; d < D; ++d) carry.G[k * D + d] = m ? seed * dw[state * D + d] : 0.f;
    }
  };
  // What leaves left of the first one, to the state that the walk began with.
  const auto end = [&](const Span& span, const Carry& carry) {
    for (int64_t h = span.h0; h < span.h1; ++h) {
      const int64_t state = span.b * H + h, k = h - span.h0, first = reverse ? span.length - 1 : 0;
      const float L1 = span.length ? L[(span.b * T + first) * H + h] : kNoScore;
      const float back = !span.length ? 1.f : m0 && m0[state] != kNoScore ? expf(m0[state] - L1) : 0.f;
      if (du0) du0[state] = -back * carry.D[k];
      for (int64_t d = 0; dw0 && d < D; ++d) dw0[state * D + d] = back * carry.G[k * D + d];
    }
  };

  const Shares shares = share_out(sizes, 2 * H * D);
  const int64_t size = H * (D + 2);
  if (shares.tiles > 1) {
    Scratch memory(size);
    const Carry carry = carry_in(memory.data(), H);
    relay(
        B * shares.tiles, size + shares.tile * H + chunk_floats(H),
        [&](float* own, int64_t i) {
          const Span span = shares.span(sizes, i, lengths);
          float *deltas = own + size, *weights = deltas + shares.tile * H;
          reverse ? sum_span<false>(z, span, carry_in(own, H), deltas, weights)
                  : sum_span<true>(z, span, carry_in(own, H), deltas, weights);
        },
        [&](float* own, int64_t i) {
          const Span span = shares.span(sizes, i, lengths);
          if (span.t0 == 0) begin(span, carry);
          if (span.t0 < span.length) hand_on(carry, carry_in(own, H), H, D);
          if (span.t1 == T) end(span, carry);
        },
        [&](float* own, int64_t i) {
          const Span span = shares.span(sizes, i, lengths);
          walk_tokens(z, span, carry_in(own, H), own + size + shares.tile * H, own + size);
          clear_padding(z, span);
        });
    return;
  }
  parallel_with_scratch(B * shares.parts, size + chunk_floats(H), shares.alone, [&](float* own, int64_t i) {
    const Span span = shares.span(sizes, i, lengths);
    const Carry carry = carry_in(own, span.h1 - span.h0);
    begin(span, carry);
    walk_tokens(z, span, carry, own + size);
    end(span, carry);
    clear_padding(z, span);
  });
}

static constexpr oplus_op list[] = {op<scan_backward>("scanBackward")};
extern constinit const Ops scan_backward_ops;
constinit const Ops scan_backward_ops(list);

}  // namespace oplus::OPLUS_TARGET
