// The gradient of the scan, on the CPU (algorithms B): one walk over time, from the last token to the first.
//
//   G_i = g_i + ρ_i G_{i+1}     D_i = δ_i + ρ_i D_{i+1}     δ_i = g_i·o_i     ρ_i = e^(L_i − L_{i+1})
//   dv_i = p_i G_i              ds_i = p_i (v_i·G_i − D_i)                    p_i = e^(s_i − L_i)
//
// This is ⊕ from right to left over the leaves (−L_i, δ_i, g_i): L never falls over time, so the running maximum is −L_i
// itself and joining needs only ρ. Every exponent is at most 0. Threads share out batches and heads.
#include "core/op.h"
#include "core/pool.h"
#include "core/simd.h"
#include "scan.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kChunk = 32;           // tokens whose weights are worked out together
constexpr int kRun = 8;              // tokens of one head taken together, see scan.cpp
constexpr int64_t kSmall = 1 << 15;  // elements below which a second thread costs more than it brings

struct Problem {
  const float *s, *v, *o, *L, *g;
  float *ds, *dv;
  int64_t B, T, H, G, D;
  bool reverse;
};

// What one head carries from right to left.
struct Carry {
  float* G;  // [D]
  float D;
  float L;   // L of the token to the right
};

// ρ and p of n tokens, taken from right to left: `row` is the last one's place in [B·T], `step` leads to the one before.
void find_weights(const Problem& z, int64_t row, int64_t step, int64_t h, int n, float* next_L, float* rho, float* p) {
  float right[kChunk], here[kChunk], score[kChunk];
  for (int i = 0; i < n; ++i, row += step) {
    here[i] = z.L[row * z.H + h];
    score[i] = z.s[row * z.H + h];
    right[i] = i ? here[i - 1] : *next_L;
  }
  *next_L = here[n - 1];
  for (int i = 0; i < n; i += kLanes) {
    const int lanes = n - i < kLanes ? n - i : kLanes;
    const Vec l = load_part(here + i, lanes, kNoScore), r = load_part(right + i, lanes, kNoScore), s = load_part(score + i, lanes, kNoScore);
    const VecInt empty = l == kNoScore;  // an empty prefix hands nothing to the left and has no weight of its own
    store_part(rho + i, select(empty, Vec{}, exp(l - r)), lanes);
    store_part(p + i, select(empty, Vec{}, exp(s - l)), lanes);
  }
}

// One token: G ← g + ρG and dv ← p·G column by column, and the two dot products. `kTake`: p is not 0, so v is looked at.
template <bool kTake>
OPLUS_INLINE void token(float* G, const float* g, const float* o, const float* v, float* dv, float rho, float p, int64_t D, float* delta, float* along) {
  Vec sum_delta{}, sum_along{};
  float rest_delta = 0, rest_along = 0;
  int64_t d = 0;
  for (; d + kLanes <= D; d += kLanes) {
    const Vec gradient = g ? load(g + d) : Vec{};
    const Vec carried = gradient + rho * load(G + d);
    store(G + d, carried);
    sum_delta += gradient * load(o + d);
    if (kTake) sum_along += load(v + d) * carried;
    store(dv + d, kTake ? p * carried : Vec{});
  }
  for (; d < D; ++d) {
    const float gradient = g ? g[d] : 0.f;
    G[d] = gradient + rho * G[d];
    rest_delta += gradient * o[d];
    if (kTake) rest_along += v[d] * G[d];
    dv[d] = kTake ? p * G[d] : 0.f;
  }
  *delta = sum(sum_delta) + rest_delta;
  *along = sum(sum_along) + rest_along;
}

void walk_back(const Problem& z, int64_t b, int64_t h0, int64_t h1, int64_t length, Carry* carries) {
  const int64_t step = z.reverse ? 1 : -1, per_group = z.H / z.G;
  // Weights of every head of the span for a chunk, so that memory is then walked row by row.
  constexpr int64_t kHeads = 16;
  float rho[kHeads][kChunk], p[kHeads][kChunk];
  for (int64_t first = h0; first < h1; first += kHeads) {
    const int64_t heads = h1 - first < kHeads ? h1 - first : kHeads;
    for (int64_t t = 0; t < length; t += kChunk) {
      const int n = static_cast<int>(length - t < kChunk ? length - t : kChunk);
      const int64_t row = b * z.T + (z.reverse ? t : length - 1 - t);
      for (int64_t h = 0; h < heads; ++h) find_weights(z, row, step, first + h, n, &carries[first + h].L, rho[h], p[h]);
      for (int i = 0; i < n; i += kRun)
        for (int64_t h = 0; h < heads; ++h) {
          Carry& carry = carries[first + h];
          for (int j = i; j < n && j < i + kRun; ++j) {
            const int64_t at = row + step * j, head = at * z.H + first + h;
            const float* v = z.v + (at * z.G + (first + h) / per_group) * z.D;
            float delta, along;
            const float weight = p[h][j];
            if (weight != 0.f)
              token<true>(carry.G, z.g ? z.g + head * z.D : nullptr, z.o + head * z.D, v, z.dv + head * z.D, rho[h][j], weight, z.D, &delta, &along);
            else
              token<false>(carry.G, z.g ? z.g + head * z.D : nullptr, z.o + head * z.D, v, z.dv + head * z.D, rho[h][j], 0.f, z.D, &delta, &along);
            carry.D = delta + rho[h][j] * carry.D;
            z.ds[head] = weight != 0.f ? weight * (along - carry.D) : 0.f;
          }
        }
    }
  }
}

}  // namespace

void scan_backward(In<float> s, In<float> v, MaybeIn<float> m0, MaybeIn<float> u0, MaybeIn<float> w0, MaybeIn<int32_t> lengths, In<float> o,
                   In<float> L, MaybeIn<float> g, MaybeIn<float> m, MaybeIn<float> du, MaybeIn<float> dw, Out<float> ds, Out<float> dv,
                   MaybeOut<float> du0, MaybeOut<float> dw0, int64_t B, int64_t T, int64_t H, int64_t G, int64_t D, bool reverse) {
  if (B < 0 || T < 0 || H < 1 || G < 1 || D < 1 || H % G)
    fail(OPLUS_BAD_SHAPE, "H = %lld heads do not share G = %lld groups evenly", static_cast<long long>(H), static_cast<long long>(G));
  expect("s", s, B * T * H), expect("v", v, B * T * G * D), expect("lengths", lengths, B);
  expect("m0", m0, B * H), expect("u0", u0, B * H), expect("w0", w0, B * H * D);
  expect("o", o, B * T * H * D), expect("L", L, B * T * H), expect("g", g, B * T * H * D);
  expect("m", m, B * H), expect("du", du, B * H), expect("dw", dw, B * H * D);
  expect("ds", ds, B * T * H), expect("dv", dv, B * T * H * D), expect("du0", du0, B * H), expect("dw0", dw0, B * H * D);

  const Problem z{s.data, v.data, o.data, L.data, g.data, ds.data, dv.data, B, T, H, G, D, reverse};
  const auto one = [&](int64_t b, int64_t h0, int64_t h1, float* memory) {
    const int64_t length = !lengths ? T : lengths[b] < 0 ? 0 : lengths[b] < T ? lengths[b] : T;
    const int64_t first = reverse ? length - 1 : 0, last = reverse ? 0 : length - 1;  // in walking order
    Carry* carries = reinterpret_cast<Carry*>(memory);
    float* G_memory = memory + H * (sizeof(Carry) / sizeof(float));
    for (int64_t h = h0; h < h1; ++h) {
      const int64_t state = b * H + h;
      Carry& carry = carries[h];
      carry = {G_memory + h * D, 0.f, length ? L[(b * T + last) * H + h] : kNoScore};
      // The gradient of the final (u, w) enters right of the last token, with ρ = 1; its m is a constant (algorithms B).
      const float seed = !m ? 0.f : length == 0 ? 1.f : m[state] == kNoScore ? 0.f : expf(carry.L - m[state]);
      carry.D = m ? -seed * du[state] : 0.f;
      for (int64_t d = 0; d < D; ++d) carry.G[d] = m ? seed * dw[state * D + d] : 0.f;
    }
    walk_back(z, b, h0, h1, length, carries);
    for (int64_t h = h0; h < h1; ++h) {
      const int64_t state = b * H + h;
      const Carry& carry = carries[h];
      const float L1 = length ? L[(b * T + first) * H + h] : kNoScore;
      const float back = length == 0 ? 1.f : m0 && m0[state] != kNoScore ? expf(m0[state] - L1) : 0.f;
      if (du0) du0[state] = -back * carry.D;
      for (int64_t d = 0; dw0 && d < D; ++d) dw0[state * D + d] = back * carry.G[d];
    }
    for (int64_t t = length; t < T; ++t)
      for (int64_t h = h0; h < h1; ++h) {
        const int64_t at = (b * T + t) * H + h;
        ds[at] = 0.f;
        for (int64_t d = 0; d < D; ++d) dv[at * D + d] = 0.f;
      }
  };

  const int team = B * T * H * D < kSmall ? 1 : threads();
  const int64_t parts = B >= 2 * team || team == 1 ? 1 : (H < team ? H : team), each = (H + parts - 1) / parts;
  const int64_t stride = (H * (D + static_cast<int64_t>(sizeof(Carry) / sizeof(float))) + 31) / 16 * 16;  // whole cache lines
  const int64_t tasks = B * parts;
  if (tasks == 0) return;
  float* memory = static_cast<float*>(::operator new(sizeof(float) * static_cast<size_t>(stride * tasks)));
  const auto run = [&](int64_t i) {
    const int64_t h0 = i % parts * each, h1 = h0 + each < H ? h0 + each : H;
    if (h0 < h1) one(i / parts, h0, h1, memory + stride * i);
  };
  if (team == 1)
    for (int64_t i = 0; i < tasks; ++i) run(i);
  else
    parallel_for(static_cast<int>(tasks), [&](int i) { run(i); });
  ::operator delete(memory);
}

static constexpr oplus_op list[] = {op<scan_backward>("scanBackward")};
extern constinit const Ops scan_backward_ops;
constinit const Ops scan_backward_ops(list);

}  // namespace oplus::OPLUS_TARGET
