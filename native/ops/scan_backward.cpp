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

constexpr int kChunk = 32;                  // tokens whose weights are worked out together
constexpr int kRun = 8;                     // tokens of one head taken together, see scan.cpp
constexpr int64_t kBeyondCaches = 8 << 20;  // elements of dv from which stores go past the caches
constexpr int64_t kSmall = 1 << 15;         // elements below which a second thread costs more than it brings

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
  float L;  // L of the token to the right
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
    const Vec l = load_part(here + i, lanes, kNoScore), r = load_part(right + i, lanes, kNoScore),
              s = load_part(score + i, lanes, kNoScore);
    const VecInt empty = l == kNoScore;  // an empty prefix hands nothing to the left and has no weight of its own
    store_part(rho + i, select(empty, Vec{}, exp(l - r)), lanes);
    store_part(p + i, select(empty, Vec{}, exp(s - l)), lanes);
  }
}

// A few tokens of one head, from right to left.
struct Run {
  const float *g, *o, *v;  // of the rightmost token; g may be null
  float* dv;
  const float *rho, *p;
  int64_t step, v_step;  // floats to the token before
  int n;
};

// Columns [d, d + V · kLanes): G ← g + ρG and dv ← p·G with G in registers, and both dot products of every token.
template <int V, bool kPastCaches>
OPLUS_INLINE void columns(const Run& run, int64_t d, float* G, float* delta, float* along) {
  Vec r[V];
#pragma GCC unroll 8
  for (int i = 0; i < V; ++i) r[i] = load(G + d + i * kLanes);
  for (int j = 0; j < run.n; ++j) {
    const float *o = run.o + j * run.step + d, *v = run.v + j * run.v_step + d;
    float* dv = run.dv + j * run.step + d;
    const float rho = run.rho[j], p = run.p[j];
    Vec sum_delta{}, sum_along{};
    if (run.g) {
      const float* g = run.g + j * run.step + d;
#pragma GCC unroll 8
      for (int i = 0; i < V; ++i) {
        const Vec gradient = load(g + i * kLanes);
        r[i] = gradient + rho * r[i];
        sum_delta += gradient * load(o + i * kLanes);
      }
    } else {
#pragma GCC unroll 8
      for (int i = 0; i < V; ++i) r[i] = rho * r[i];
    }
    if (p != 0.f) {  // v of a token without weight is not looked at: it may be anything
#pragma GCC unroll 8
      for (int i = 0; i < V; ++i) sum_along += load(v + i * kLanes) * r[i];
    }
#pragma GCC unroll 8
    for (int i = 0; i < V; ++i) {
      const Vec out = p != 0.f ? p * r[i] : Vec{};
      kPastCaches ? stream(dv + i * kLanes, out) : store(dv + i * kLanes, out);
    }
    delta[j] += sum(sum_delta);
    along[j] += sum(sum_along);
  }
#pragma GCC unroll 8
  for (int i = 0; i < V; ++i) store(G + d + i * kLanes, r[i]);
}

void tail(const Run& run, int64_t d, int64_t D, float* G, float* delta, float* along) {
  for (int j = 0; j < run.n; ++j)
    for (int64_t i = d; i < D; ++i) {
      const float gradient = run.g ? run.g[j * run.step + i] : 0.f;
      G[i] = gradient + run.rho[j] * G[i];
      delta[j] += gradient * run.o[j * run.step + i];
      if (run.p[j] != 0.f) along[j] += run.v[j * run.v_step + i] * G[i];
      run.dv[j * run.step + i] = run.p[j] != 0.f ? run.p[j] * G[i] : 0.f;
    }
}

template <bool kPastCaches>
void run_back(const Run& run, int64_t D, float* G, float* delta, float* along) {
  int64_t d = 0;
  for (; d + 8 * kLanes <= D; d += 8 * kLanes) columns<8, kPastCaches>(run, d, G, delta, along);
  if (d + 4 * kLanes <= D) columns<4, kPastCaches>(run, d, G, delta, along), d += 4 * kLanes;
  if (d + 2 * kLanes <= D) columns<2, kPastCaches>(run, d, G, delta, along), d += 2 * kLanes;
  if (d + kLanes <= D) columns<1, kPastCaches>(run, d, G, delta, along), d += kLanes;
  if (d < D) tail(run, d, D, G, delta, along);
}

void walk_back(const Problem& z, int64_t b, int64_t h0, int64_t h1, int64_t length, Carry* carries) {
  const int64_t step = z.reverse ? 1 : -1, per_group = z.H / z.G;
  const bool past_caches =
      z.B * z.T * z.H * z.D >= kBeyondCaches && z.D % kLanes == 0 && reinterpret_cast<uintptr_t>(z.dv) % (kLanes * 4) == 0;
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
          const int64_t at = row + step * i, head = at * z.H + first + h, group = (at * z.G + (first + h) / per_group) * z.D;
          const Run run{z.g ? z.g + head * z.D : nullptr,
                        z.o + head * z.D,
                        z.v + group,
                        z.dv + head * z.D,
                        rho[h] + i,
                        p[h] + i,
                        step * z.H * z.D,
                        step * z.G * z.D,
                        n - i < kRun ? n - i : kRun};
          float delta[kRun] = {}, along[kRun] = {};
          past_caches ? run_back<true>(run, z.D, carry.G, delta, along) : run_back<false>(run, z.D, carry.G, delta, along);
          for (int j = 0; j < run.n; ++j) {
            carry.D = delta[j] + run.rho[j] * carry.D;
            z.ds[head + step * j * z.H] = run.p[j] != 0.f ? run.p[j] * (along[j] - carry.D) : 0.f;
          }
        }
    }
  }
  if (past_caches) stream_fence();
}

}  // namespace

void scan_backward(In<float> s, In<float> v, MaybeIn<float> m0, MaybeIn<float> u0, MaybeIn<float> w0, MaybeIn<int32_t> lengths,
                   In<float> o, In<float> L, MaybeIn<float> g, MaybeIn<float> m, MaybeIn<float> du, MaybeIn<float> dw,
                   Out<float> ds, Out<float> dv, MaybeOut<float> du0, MaybeOut<float> dw0, int64_t B, int64_t T, int64_t H,
                   int64_t G, int64_t D, bool reverse) {
  if (B < 0 || T < 0 || H < 1 || G < 1 || D < 1 || H % G)
    fail(OPLUS_BAD_SHAPE, "H = %lld heads do not share G = %lld groups evenly", static_cast<long long>(H),
         static_cast<long long>(G));
  expect("s", s, volume(B, T, H)), expect("v", v, volume(B, T, G, D)), expect("lengths", lengths, B);
  expect("m0", m0, volume(B, H)), expect("u0", u0, volume(B, H)), expect("w0", w0, volume(B, H, D));
  expect("o", o, volume(B, T, H, D)), expect("L", L, volume(B, T, H)), expect("g", g, volume(B, T, H, D));
  expect("m", m, volume(B, H)), expect("du", du, volume(B, H)), expect("dw", dw, volume(B, H, D));
  expect("ds", ds, volume(B, T, H)), expect("dv", dv, volume(B, T, H, D)), expect("du0", du0, volume(B, H)),
      expect("dw0", dw0, volume(B, H, D));
  if (!!m0 != !!u0 || !!m0 != !!w0) fail(OPLUS_BAD_SHAPE, "%s", "`m0`, `u0` and `w0` are given together or not at all");
  if (!!m != !!du || !!m != !!dw) fail(OPLUS_BAD_SHAPE, "%s", "`m`, `du` and `dw` are given together or not at all");

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
  else parallel_for(static_cast<int>(tasks), [&](int i) { run(i); });
  ::operator delete(memory);
}

static constexpr oplus_op list[] = {op<scan_backward>("scanBackward")};
extern constinit const Ops scan_backward_ops;
constinit const Ops scan_backward_ops(list);

}  // namespace oplus::OPLUS_TARGET
