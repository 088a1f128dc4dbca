// Attention of a fixed query over every prefix (Feng et al. 2024, "Attention as an RNN", sections 3.1 and 3.2): o_t = w_t / u_t,
// L_t = m_t + ln u_t, where (m, u, w)_t joins the leaves (s_i, 1, v_i) of tokens i ≤ t by ⊕ (scan.h).
//
// Who does what: cuda/prefixes.h; a sequence is one head of one batch. s and v are read once (twice where time is cut into
// chunks), o and L written once. Sums are f32.
#include "cuda/prefixes.h"

namespace oplus::OPLUS_TARGET {
namespace {

struct Tokens {
  const float *s, *v;
  States before;  // m null: none
  const int32_t* lengths;
  float *o, *L;
  States after;
  int64_t count, H, G;  // count: T
  int D;
  bool reverse;

  // Where the sequence lies: found by `enter`.
  int64_t sequence = 0, length = 0, base = 0, value_base = 0;

  __device__ void enter(int64_t index) {
    const int64_t b = index / H, h = index % H;
    sequence = index;
    length = lengths ? min(static_cast<int64_t>(lengths[b]), count) : count;
    base = b * count * H + h;                  // of token 0 in an array [B, T, H]
    value_base = b * count * G + h / (H / G);  // in [B, T, G]
  }
  __device__ int64_t time(int64_t i) const { return reverse ? count - 1 - i : i; }

  template <typename S>
  __device__ State<S> first() const {
    return before.m ? before.template load<S>(sequence, D) : State<S>::none();
  }
  template <typename S>
  __device__ State<S> leaf(int64_t i, bool inside) const {
    State<S> state = State<S>::none();
    const int64_t t = time(i);
    if (!inside || t >= length) return state;
    const float score = s[base + t * H];
    if (score == kNoScore) return state;  // its v is not looked at: it may be anything
    state.p = {score, 1};
    S::load(v + (value_base + t * G) * D, D, state.w);
    return state;
  }
  template <typename S>
  __device__ void emit(int64_t i, bool inside, const State<S>& state) const {
    if (!inside) return;
    const int64_t t = time(i), at = base + t * H;
    const bool empty = t >= length || state.p.u == 0;
    if (L && S::lane() == 0) L[at] = empty ? kNoScore : log_sum(state.p);
    if (!o) return;
    const float inverse = 1 / state.p.u;
    float row[S::kCount];
#pragma unroll
    for (int j = 0; j < S::kCount; ++j) row[j] = empty ? 0.0f : state.w[j] * inverse;
    S::store(o + at * D, D, row);
  }
  template <typename S>
  __device__ void last(const State<S>& state) const {
    after.template store<S>(sequence, D, state);
  }
};

void scan(Stream stream, In<float> s, In<float> v, MaybeIn<float> m0, MaybeIn<float> u0, MaybeIn<float> w0,
          MaybeIn<int32_t> lengths, MaybeOut<float> o, MaybeOut<float> L, Out<float> m, Out<float> u, Out<float> w, int64_t B,
          int64_t T, int64_t H, int64_t G, int64_t D, bool reverse) {
  expect("s", s, volume(B, T, H)), expect("v", v, volume(B, T, G, D)), expect("lengths", lengths, B);
  expect("m0", m0, volume(B, H)), expect("u0", u0, volume(B, H)), expect("w0", w0, volume(B, H, D));
  expect("o", o, volume(B, T, H, D)), expect("L", L, volume(B, T, H));
  expect("m", m, volume(B, H)), expect("u", u, volume(B, H)), expect("w", w, volume(B, H, D));
  expect_heads(H, G, D);
  if (!!m0 != !!u0 || !!m0 != !!w0) fail(OPLUS_BAD_SHAPE, "%s", "`m0`, `u0` and `w0` are given together or not at all");
  // The states come in as const and go out otherwise: one type for both, of which the first is only read.
  const States before =
      m0 ? States{const_cast<float*>(m0.data), const_cast<float*>(u0.data), const_cast<float*>(w0.data)} : States{};
  const Tokens job{s.data, v.data, before, lengths.data,        o.data, L.data, {m.data, u.data, w.data},
                   T,      H,      G,      static_cast<int>(D), reverse};
  with_shape(D, aligned(v.data, w0.data, o.data, w.data),
             [&](auto shape) { run_scan<decltype(shape), true>(stream, job, B * H); });
}

constexpr oplus_op list[] = {op<scan>("scan")};

}  // namespace

extern constinit const Ops scan_ops(list);

}  // namespace oplus::OPLUS_TARGET
