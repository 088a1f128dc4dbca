// The scan and its gradient, against the definition: sums over every pair of tokens, in plain loops.
#pragma once
#include "harness.h"

struct ScanCase {
  int64_t B, T, H, G, D;
  bool state = false, lengths = false, reverse = false;
  float spread = 1;    // of the scores
  float masked = 0;    // share of tokens with s = −∞, whose v is NaN
  bool tokens = true;  // false: only the final state has a gradient
};

struct ScanInput {
  ScanCase c;
  Floats s, v, m0, u0, w0, g, du, dw;
  std::vector<int32_t> lengths;

  explicit ScanInput(const ScanCase& sizes) : c(sizes) {
    Random random(unsigned(c.T * 31 + c.D * 7 + c.H));
    s = random.normals(c.B * c.T * c.H, c.spread);
    v = random.normals(c.B * c.T * c.G * c.D);
    g = random.normals(c.B * c.T * c.H * c.D);
    m0 = random.normals(c.B * c.H, c.spread), u0 = random.normals(c.B * c.H), w0 = random.normals(c.B * c.H * c.D);
    du = random.normals(c.B * c.H), dw = random.normals(c.B * c.H * c.D);
    for (float& u : u0) u = 1 + std::fabs(u);
    if (c.B > 1) {  // an empty state among the others
      m0[0] = -kInf, u0[0] = 0;
      for (int64_t d = 0; d < c.D; ++d) w0[size_t(d)] = 0;
    }
    for (int64_t b = 0; b < c.B; ++b) lengths.push_back(b == 0 ? int32_t(c.T) : b == 1 ? 0 : int32_t(c.T / (b + 1) + 1));
    if (c.masked > 0)
      for (int64_t row = 0; row < c.B * c.T; ++row) {
        const bool first = row % c.T < 3;  // so that prefixes are empty
        if (!first && random.below(1000) >= int(c.masked * 1000)) continue;
        for (int64_t h = 0; h < c.H; ++h) s[size_t(row * c.H + h)] = -kInf;
        for (int64_t d = 0; d < c.G * c.D; ++d) v[size_t(row * c.G * c.D + d)] = NAN;
      }
  }
  int64_t length(int64_t b) const { return c.lengths ? lengths[size_t(b)] : c.T; }
};

template <typename T>
struct ScanResult {
  std::vector<T> o, L, m, u, w, ds, dv, du0, dw0;
};

template <typename T>
ScanResult<T> scan_reference(const ScanInput& in) {
  const ScanCase& c = in.c;
  const auto n = [](int64_t size) { return size_t(size); };
  ScanResult<T> r;
  r.o.assign(n(c.B * c.T * c.H * c.D), T(0)), r.L.assign(n(c.B * c.T * c.H), -T(kInf));
  r.m.assign(n(c.B * c.H), -T(kInf)), r.u.assign(n(c.B * c.H), T(0)), r.w.assign(n(c.B * c.H * c.D), T(0));
  r.ds.assign(n(c.B * c.T * c.H), T(0)), r.dv.assign(n(c.B * c.T * c.H * c.D), T(0));
  r.du0.assign(n(c.B * c.H), T(0)), r.dw0.assign(n(c.B * c.H * c.D), T(0));
  for (int64_t b = 0; b < c.B; ++b)
    for (int64_t h = 0; h < c.H; ++h) {
      const int64_t q = b * c.H + h, length = in.length(b);
      const auto at = [&](int64_t t) { return n((b * c.T + t) * c.H + h); };
      const auto value = [&](int64_t t) { return &in.v[n(((b * c.T + t) * c.G + h / (c.H / c.G)) * c.D)]; };
      T m = -T(kInf), u = 0;
      std::vector<T> w(n(c.D), T(0));
      if (c.state) {
        m = in.m0[n(q)], u = in.u0[n(q)];
        for (int64_t d = 0; d < c.D; ++d) w[n(d)] = in.w0[n(q * c.D + d)];
      }
      std::vector<int64_t> order;  // of the tokens that take part
      for (int64_t i = 0; i < c.T; ++i) {
        const int64_t t = c.reverse ? c.T - 1 - i : i;
        if (t < length) order.push_back(t);
      }
      for (int64_t t : order) {
        const T s = in.s[at(t)];
        if (s != -T(kInf)) {
          const T next = std::fmax(m, s), a = m == -T(kInf) ? T(0) : std::exp(m - next), e = std::exp(s - next);
          for (int64_t d = 0; d < c.D; ++d) w[n(d)] = w[n(d)] * a + e * T(value(t)[d]);
          u = u * a + e, m = next;
        }
        if (u == 0) continue;
        r.L[at(t)] = m + std::log(u);
        for (int64_t d = 0; d < c.D; ++d) r.o[at(t) * n(c.D) + n(d)] = w[n(d)] / u;
      }
      r.m[n(q)] = m, r.u[n(q)] = u;
      for (int64_t d = 0; d < c.D; ++d) r.w[n(q * c.D + d)] = w[n(d)];

      // gradients: token i (or the state that came in, i = −1) weighs exp(s_i − L_k) in output k, exp(s_i − m) in the state
      const auto dot = [&](const auto* x, const auto* y) {
        T sum = 0;
        for (int64_t d = 0; d < c.D; ++d) sum += T(x[d]) * T(y[d]);
        return sum;
      };
      for (int64_t i = -1; i < int64_t(order.size()); ++i) {
        if (i < 0 && !c.state) continue;
        const T s = i < 0 ? in.m0[n(q)] : in.s[at(order[n(i)])];
        if (s == -T(kInf)) continue;
        std::vector<T> vector(n(c.D), T(0));
        T scalar = 0;  // of −δ and ∂ℓ/∂u
        for (int64_t k = std::max<int64_t>(i, 0); k < int64_t(order.size()) && c.tokens; ++k) {
          const size_t t = at(order[n(k)]);
          const T p = std::exp(s - r.L[t]);
          scalar -= p * dot(&in.g[t * n(c.D)], &r.o[t * n(c.D)]);
          for (int64_t d = 0; d < c.D; ++d) vector[n(d)] += p * T(in.g[t * n(c.D) + n(d)]);
        }
        const T p = std::exp(s - m);
        scalar += p * in.du[n(q)];
        for (int64_t d = 0; d < c.D; ++d) vector[n(d)] += p * T(in.dw[n(q * c.D + d)]);
        if (i < 0) {
          r.du0[n(q)] = scalar;
          for (int64_t d = 0; d < c.D; ++d) r.dw0[n(q * c.D + d)] = vector[n(d)];
        } else {
          const size_t t = at(order[n(i)]);
          r.ds[t] = dot(vector.data(), value(order[n(i)])) + scalar;
          for (int64_t d = 0; d < c.D; ++d) r.dv[t * n(c.D) + n(d)] = vector[n(d)];
        }
      }
    }
  return r;
}

inline void scan_case(const ScanCase& c) {
  std::string name = label("scan", {c.B, c.T, c.H, c.G, c.D});
  name += std::string(c.state ? " state" : "") + (c.lengths ? " lengths" : "") + (c.reverse ? " reverse" : "") +
          (c.masked > 0 ? " masked" : "");
  name += (c.spread != 1 ? " spread " + std::to_string(int(c.spread)) : "") + (c.tokens ? "" : " final");
  if (!wanted(name)) return;
  const ScanInput in(c);
  const auto truth = scan_reference<double>(in);
  const auto naive = scan_reference<float>(in);
  const Tensor s(in.s), v(in.v), m0(in.m0), u0(in.u0), w0(in.w0), g(in.g), du(in.du), dw(in.dw);
  const Ints lengths(in.lengths);
  const Tensor o(truth.o.size()), L(truth.L.size()), m(truth.m.size()), u(truth.u.size()), w(truth.w.size());
  const auto maybe = [](bool there, const auto& x) { return Argument(there ? &x : nullptr); };
  const std::vector<Argument> sizes{double(c.B), double(c.T), double(c.H), double(c.G), double(c.D), c.reverse};
  const auto with_sizes = [&](std::vector<Argument> a) { return a.insert(a.end(), sizes.begin(), sizes.end()), a; };
  call(name, "scan",
       with_sizes({s, v, maybe(c.state, m0), maybe(c.state, u0), maybe(c.state, w0), maybe(c.lengths, lengths), o, L, m, u, w}));
  compare(name + " o", o, truth.o, naive.o);
  compare(name + " L", L, truth.L, naive.L);
  compare(name + " m", m, truth.m, naive.m);
  compare(name + " u", u, truth.u, naive.u);
  compare(name + " w", w, truth.w, naive.w);
  if (c.state) {  // the state in place, and nothing else wanted
    const Tensor mi(in.m0), ui(in.u0), wi(in.w0);
    call(name, "scan", with_sizes({s, v, mi, ui, wi, maybe(c.lengths, lengths), nullptr, nullptr, mi, ui, wi}));
    compare(name + " w in place", wi, truth.w, naive.w);
    compare(name + " u in place", ui, truth.u, naive.u);
  }
  const Tensor ds(truth.ds.size()), dv(truth.dv.size()), du0(truth.du0.size()), dw0(truth.dw0.size());
  call(name, "scanBackward",
       with_sizes({s, v, maybe(c.state, m0), maybe(c.state, u0), maybe(c.state, w0), maybe(c.lengths, lengths), o, L,
                   maybe(c.tokens, g), m, du, dw, ds, dv, maybe(c.state, du0), maybe(c.state, dw0)}));
  compare(name + " ds", ds, truth.ds, naive.ds);
  compare(name + " dv", dv, truth.dv, naive.dv);
  if (c.state) compare(name + " du0", du0, truth.du0, naive.du0), compare(name + " dw0", dw0, truth.dw0, naive.dw0);
}

inline void join_case(int64_t n, int64_t D) {
  const std::string name = label("join", {n, D});
  if (!wanted(name)) return;
  Random random(unsigned(n + D));
  Floats m[2], u[2], w[2];
  for (int i = 0; i < 2; ++i) {
    m[i] = random.normals(n, 3), u[i] = random.normals(n), w[i] = random.normals(n * D);
    for (float& x : u[i]) x = 1 + std::fabs(x);
  }
  const auto clear = [&](int i, int64_t k) {
    m[i][size_t(k)] = -kInf, u[i][size_t(k)] = 0;
    for (int64_t d = 0; d < D; ++d) w[i][size_t(k * D + d)] = 0;
  };
  clear(0, 0);
  if (n > 2) clear(1, 1), clear(0, 2), clear(1, 2);
  const auto reference = [&](auto zero, int which) {
    using T = decltype(zero);
    std::vector<T> out;
    for (size_t k = 0; k < size_t(n); ++k) {
      const T largest = std::fmax(T(m[0][k]), T(m[1][k]));
      const T a = largest == -T(kInf) ? zero : std::exp(m[0][k] - largest),
              b = largest == -T(kInf) ? zero : std::exp(m[1][k] - largest);
      if (which == 0) out.push_back(largest);
      if (which == 1) out.push_back(a * u[0][k] + b * u[1][k]);
      for (size_t d = k * size_t(D); which == 2 && d < (k + 1) * size_t(D); ++d) out.push_back(a * w[0][d] + b * w[1][d]);
    }
    return out;
  };
  const Tensor m1(m[0]), u1(u[0]), w1(w[0]), m2(m[1]), u2(u[1]), w2(w[1]);
  call(name, "join", {m1, u1, w1, m2, u2, w2, m1, u1, w1, double(n), double(D)});  // in place
  compare(name + " m", m1, reference(0.0, 0), reference(0.0f, 0));
  compare(name + " u", u1, reference(0.0, 1), reference(0.0f, 1));
  compare(name + " w", w1, reference(0.0, 2), reference(0.0f, 2));
}

inline void scan_cases() {
  join_case(1, 1), join_case(5, 40), join_case(3, 64);
  // every width of a unit, whole and ragged; short and long; one block and several chunks
  for (int64_t D : {1, 3, 8, 32, 33, 36, 64, 100, 128, 130, 200, 256})
    scan_case({2, 37, 2, 1, D, true}), scan_case({1, 1, 1, 1, D});
  for (int64_t T : {2, 7, 8, 9, 33, 129, 300})
    scan_case({1, T, 3, 3, 20, false, false, T % 2 == 1}), scan_case({1, T, 2, 2, 64, T % 2 == 0});
  scan_case({1, 0, 2, 1, 8, true});
  for (bool reverse : {false, true}) {
    scan_case({3, 50, 4, 2, 24, false, true, reverse}), scan_case({3, 50, 4, 2, 24, true, true, reverse});
    scan_case({3, 90, 2, 2, 32, true, true, reverse, 1, 0.5f}), scan_case({2, 40, 2, 1, 7, false, false, reverse, 1, 1});
    scan_case({1, 700, 1, 1, 64, true, false, reverse}), scan_case({1, 300, 2, 1, 128, false, false, reverse, 1, 0.3f});
    scan_case({2, 200, 1, 1, 256, true, true, reverse}), scan_case({1, 1300, 1, 1, 5, true, false, reverse, 3});
  }
  scan_case({1, 64, 2, 2, 16, true, false, false, 40});  // weights that underflow
  scan_case({8, 300, 1, 1, 64, true, false, true});      // three tiles in one block
  scan_case({9, 20, 1, 1, 64}), scan_case({1, 60, 2, 2, 16, true, false, false, 1, 0, false}),
      scan_case({1, 400, 1, 1, 64, true, false, true, 1, 0, false});
}
