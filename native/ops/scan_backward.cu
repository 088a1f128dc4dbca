// The gradient of the scan (algorithms B, form (b); Feng et al. 2024 give none): the same scan, run the other way over the
// leaves (−L_k, g_k · o_k, g_k). Its prefix (m, D, G) at token i gives, with p = exp(s_i + m),
//
//   ∂ℓ/∂v_i = p · G        ∂ℓ/∂s_i = p · (v_i · G − D)
//
// since every later output weighs token i by exp(s_i − L_k). Where L has not lost a place to rounding m is −L_i and p the
// token's weight in its own prefix; using m itself is right in any case. The gradient of the final state is one more leaf in
// front, (−m_T, −∂ℓ/∂u, ∂ℓ/∂w), and the prefix of all leaves gives the gradient of the state that came in.
//
// Who does what: cuda/prefixes.h. L, g and o are read once (twice where time is cut into chunks), s and v once; ds and dv are
// written once.
#include "cuda/prefixes.h"

namespace oplus::OPLUS_TARGET {
namespace {

struct Gradients {
  const float *s, *v, *o, *L, *g;  // g null: nothing but the final state has a gradient
  const float* m0;                 // null: no state came in
  States final;                    // m and ∂ℓ/∂(u, w), or null
  const int32_t* lengths;
  float *ds, *dv, *du0, *dw0;
  int64_t count, H, G;  // count: T
  int D;
  bool reverse;  // of the forward pass
  // Where the sequence lies: found by `enter`.
  int64_t sequence = 0, length = 0, base = 0, value_base = 0;

  __device__ void enter(int64_t index) {
    const int64_t b = index / H, h = index % H;
    sequence = index;
    length = lengths ? min(static_cast<int64_t>(lengths[b]), count) : count;
    base = b * count * H + h;                  // of token 0 in an array [B, T, H]
    value_base = b * count * G + h / (H / G);  // in [B, T, G]
  }
  __device__ int64_t time(int64_t i) const { return reverse ? i : count - 1 - i; }

  template <typename S>
  __device__ State<S> first() const {
    State<S> state = State<S>::none();
    if (!final.m || final.m[sequence] == kNoScore) return state;  // an empty state depends on nothing
    state = final.template load<S>(sequence, D);
    state.p = {-state.p.m, -state.p.u};
    return state;
  }
  template <typename S>
  __device__ State<S> leaf(int64_t i, bool inside) const {
    State<S> state = State<S>::none();
    float out[S::kCount] = {};
    const int64_t t = time(i), at = base + t * H;
    const float sum = inside && g && t < length ? L[at] : kNoScore;
    const bool there = sum != kNoScore;  // the output of an empty prefix is 0 whatever comes
    if (there) {
      S::load(g + at * D, D, state.w);
      S::load(o + at * D, D, out);
    }
    const float delta = S::dot(state.w, out);
    if (there) state.p = {-sum, delta};
    return state;
  }
  template <typename S>
  __device__ void emit(int64_t i, bool inside, const State<S>& state) const {
    const int64_t t = time(i), at = base + t * H;
    const float score = inside && t < length ? s[at] : kNoScore;
    float value[S::kCount] = {}, row[S::kCount];
    const bool there = score != kNoScore && state.p.m != kNoScore;
    if (there) S::load(v + (value_base + t * G) * D, D, value);
    const float along = S::dot(value, state.w), weight = there ? expf(score + state.p.m) : 0.0f;
    if (!inside) return;
#pragma unroll
    for (int j = 0; j < S::kCount; ++j) row[j] = weight * state.w[j];
    S::store(dv + at * D, D, row);
    if (S::lane() == 0) ds[at] = weight * (along - state.p.u);
  }
  template <typename S>
  __device__ void last(const State<S>& state) const {
    const float score = m0 ? m0[sequence] : kNoScore;
    float weight = score != kNoScore && state.p.m != kNoScore ? expf(score + state.p.m) : 0.0f, du = -weight * state.p.u;
    State<S> from = state;
    if (length == 0 && final.m) {  // no token: the state went through as it was, an empty one too
      from = final.template load<S>(sequence, D);
      weight = 1.0f;
      du = from.p.u;
    }
    if (du0 && S::lane() == 0) du0[sequence] = du;
    if (!dw0) return;
    float row[S::kCount];
#pragma unroll
    for (int j = 0; j < S::kCount; ++j) row[j] = weight * from.w[j];
    S::store(dw0 + sequence * D, D, row);
  }
};

void scan_backward(Stream stream, In<float> s, In<float> v, MaybeIn<float> m0, MaybeIn<float> u0, MaybeIn<float> w0,
                   MaybeIn<int32_t> lengths, In<float> o, In<float> L, MaybeIn<float> g, MaybeIn<float> m, MaybeIn<float> du,
                   MaybeIn<float> dw, Out<float> ds, Out<float> dv, MaybeOut<float> du0, MaybeOut<float> dw0, int64_t B,
                   int64_t T, int64_t H, int64_t G, int64_t D, bool reverse) {
  expect("s", s, volume(B, T, H)), expect("v", v, volume(B, T, G, D)), expect("lengths", lengths, B);
  expect("m0", m0, volume(B, H)), expect("u0", u0, volume(B, H)), expect("w0", w0, volume(B, H, D));
  expect("o", o, volume(B, T, H, D)), expect("L", L, volume(B, T, H)), expect("g", g, volume(B, T, H, D));
  expect("m", m, volume(B, H)), expect("du", du, volume(B, H)), expect("dw", dw, volume(B, H, D));
  expect("ds", ds, volume(B, T, H)), expect("dv", dv, volume(B, T, H, D));
  expect("du0", du0, volume(B, H)), expect("dw0", dw0, volume(B, H, D));
  expect_heads(H, G, D);
  if (!!m0 != !!u0 || !!m0 != !!w0) fail(OPLUS_BAD_SHAPE, "%s", "`m0`, `u0` and `w0` are given together or not at all");
  if (!!m != !!du || !!m != !!dw) fail(OPLUS_BAD_SHAPE, "%s", "`m`, `du` and `dw` are given together or not at all");
  // Only read: one type for states that come in and states that go out.
  const States final =
      m ? States{const_cast<float*>(m.data), const_cast<float*>(du.data), const_cast<float*>(dw.data)} : States{};
  const Gradients job{s.data,  v.data,  o.data,   L.data,   g.data, m0.data, final, lengths.data,
                      ds.data, dv.data, du0.data, dw0.data, T,      H,       G,     static_cast<int>(D),
                      reverse};
  with_shape(D, aligned(v.data, o.data, g.data, dw.data, dv.data, dw0.data),
             [&](auto shape) { run_scan<decltype(shape), true>(stream, job, B * H); });
}

constexpr oplus_op list[] = {op<scan_backward>("scanBackward")};

}  // namespace

extern constinit const Ops scan_backward_ops(list);

}  // namespace oplus::OPLUS_TARGET
