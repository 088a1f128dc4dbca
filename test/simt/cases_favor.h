// Linear attention (FAVOR+) and its gradient, against the recurrence of native/ops/favor.h taken token by token, and the
// gradient of algorithms C.7 in the same frames.
#pragma once
#include <functional>

#include "harness.h"

struct FavorCase {
  int64_t B, T, H, G, D, E, M;
  int feature = 0;  // native/ops/favor.h's Feature
  bool causal = true, state = false, lengths = false;
  double epsilon = 0;
  int64_t every = 128;
  float spread = 1;      // of queries and keys
  bool outputs = true;   // a gradient comes to the outputs
};

constexpr int kExponential = 0, kTrigonometric = 1, kFavorKinds = 11;

struct FavorInput {
  FavorCase c;
  Floats q, k, v, omega, c0, z0, S0, g, dz, dS;
  std::vector<int32_t> lengths;
  float factor, epsilon;
  explicit FavorInput(const FavorCase& of) : c(of) {
    Random random(unsigned(c.T * 31 + c.D * 7 + c.M + c.feature));
    q = random.normals(c.B * c.T * c.H * c.D, c.spread), k = random.normals(c.B * c.T * c.G * c.D, c.spread);
    v = random.normals(c.B * c.T * c.G * c.E), omega = random.normals(c.M * c.D), g = random.normals(c.B * c.T * c.H * c.E);
    if (c.feature == kTrigonometric)
      for (size_t i = 0; i < omega.size() / 2; ++i) omega[omega.size() / 2 + i] = omega[i];
    c0 = random.normals(c.B * c.G), z0 = random.normals(c.B * c.G * c.M), S0 = random.normals(c.B * c.G * c.M * c.E);
    dz = random.normals(c.B * c.G * c.M), dS = random.normals(c.B * c.G * c.M * c.E);
    for (float& x : z0) x = 1 + std::fabs(x);
    for (float& x : c0) x = c.feature > kTrigonometric ? 0 : x;
    if (!c0.empty()) {  // the first head has seen nothing
      c0[0] = -kInf;
      std::fill(z0.begin(), z0.begin() + c.M, 0.0f), std::fill(S0.begin(), S0.begin() + c.M * c.E, 0.0f);
    }
    for (int64_t b = 0; b < c.B; ++b) lengths.push_back(int32_t(b == 0 ? (c.T + 1) / 2 : b == 1 ? c.T + 5 : 0));
    for (int64_t b = 0; b < c.B; ++b)  // what takes no part may be anything
      for (int64_t t = length(b); t < c.T; ++t) {
        for (int64_t i = 0; i < c.H * c.D; ++i) q[size_t((b * c.T + t) * c.H * c.D + i)] = NAN;
        for (int64_t i = 0; i < c.G * c.D; ++i) k[size_t((b * c.T + t) * c.G * c.D + i)] = NAN;
        for (int64_t i = 0; i < c.G * c.E; ++i) v[size_t((b * c.T + t) * c.G * c.E + i)] = NAN;
      }
    factor = float(std::pow(double(c.D), -0.25)), epsilon = float(c.epsilon);
  }
  int64_t length(int64_t b) const { return c.lengths ? std::min<int64_t>(c.T, lengths[size_t(b)]) : c.T; }
};

template <typename T>
struct FavorResult {
  std::vector<T> o, c, z, S, dq, dk, dv, dz0, dS0;
};

template <typename T>
struct FavorFeatures {
  std::vector<T> x, psi, slope;
  T scale = 0, sign = 0;
};

template <typename T>
FavorFeatures<T> favor_features(const FavorInput& in, const float* token) {
  const FavorCase& c = in.c;
  FavorFeatures<T> f;
  std::vector<T> a;
  T half = 0, top = -T(kInf);
  for (int64_t d = 0; d < c.D; ++d) f.x.push_back(T(token[d]) * T(in.factor)), half += f.x.back() * f.x.back() / 2;
  for (int64_t m = 0; m < c.M; ++m) {
    a.push_back(0);
    for (int64_t d = 0; d < c.D; ++d) a.back() += T(in.omega[size_t(m * c.D + d)]) * f.x[size_t(d)];
    top = std::max(top, a.back());
  }
  const auto normal = [](T x) { return T(0.5) * std::erfc(-x / std::sqrt(T(2))); };
  for (int64_t m = 0; m < c.M; ++m) {
    const T x = a[size_t(m)];
    T y = x, slope = 1;
    switch (c.feature) {
      case kExponential: y = slope = std::exp(x - top); break;
      case kTrigonometric: y = 2 * m >= c.M ? std::sin(x) : std::cos(x), slope = 2 * m >= c.M ? std::cos(x) : -std::sin(x); break;
      case 2: y = std::max(x, T(0)), slope = x > 0; break;
      case 3: y = 1 / (1 + std::exp(-x)), slope = y * (1 - y); break;
      case 4: y = slope = std::exp(x); break;
      case 5: y = std::fabs(x), slope = T(x > 0) - T(x < 0); break;
      case 6: y = x * normal(x), slope = normal(x) + x * std::exp(-x * x / 2) / std::sqrt(2 * T(M_PI)); break;
      case 7: y = std::cos(x), slope = -std::sin(x); break;
      case 8: y = std::tanh(x), slope = 1 - y * y; break;
      case 10: y = x > 0 ? x + 1 : std::exp(x), slope = x > 0 ? T(1) : y; break;
      default: break;
    }
    f.psi.push_back(c.feature == kTrigonometric ? y : y + T(in.epsilon)), f.slope.push_back(slope);
  }
  if (c.feature == kExponential) f.scale = top - half, f.sign = -1;
  if (c.feature == kTrigonometric) f.scale = half, f.sign = 1;
  return f;
}

template <typename T>
FavorResult<T> favor_reference(const FavorInput& in) {
  const FavorCase& c = in.c;
  const auto n = [](int64_t i) { return size_t(i); };
  const int64_t M = c.M, E = c.E, D = c.D, W = E + 1;  // a row of state: [S | z]
  FavorResult<T> r;
  r.o.assign(n(c.B * c.T * c.H * E), T(0)), r.dq.assign(in.q.size(), T(0)), r.dk.assign(in.k.size(), T(0));
  r.dv.assign(in.v.size(), T(0)), r.c.assign(n(c.B * c.G), T(0)), r.z.assign(n(c.B * c.G * M), T(0));
  r.S.assign(n(c.B * c.G * M * E), T(0)), r.dz0 = r.z, r.dS0 = r.S;
  const auto fade = [](T from, T to) { return from == -T(kInf) ? T(0) : std::exp(from - to); };
  for (int64_t b = 0; b < c.B; ++b)
    for (int64_t g = 0; g < c.G; ++g) {
      const int64_t bg = b * c.G + g, length = in.length(b);
      const T start = c.state ? T(in.c0[n(bg)]) : -T(kInf);
      std::vector<FavorFeatures<T>> keys;
      std::vector<T> running;
      T end = start;
      for (int64_t t = 0; t < length; ++t) {
        keys.push_back(favor_features<T>(in, &in.k[n(((b * c.T + t) * c.G + g) * D)]));
        running.push_back(end = std::max(end, keys.back().scale));
      }
      const auto at = [&](int64_t t) { return !c.causal ? end : t < 0 ? start : running[n(t)]; };
      const auto row = [&](int64_t t, int64_t h) { return (b * c.T + t) * c.H + h; };
      const auto value = [&](int64_t t, int64_t e) { return e == E ? T(1) : T(in.v[n(((b * c.T + t) * c.G + g) * E + e)]); };
      std::vector<T> state(n(M * W));
      for (int64_t m = 0; m < M; ++m)
        for (int64_t e = 0; e < W; ++e)
          state[n(m * W + e)] = !c.state ? T(0) : e == E ? T(in.z0[n(bg * M + m)]) : T(in.S0[n((bg * M + m) * E + e)]);
      const auto to_token = [&](const FavorFeatures<T>& f, const std::vector<T>& d, bool scaled, std::vector<T>& to, int64_t from) {
        T along = 0;
        for (int64_t m = 0; m < M && scaled; ++m) along += d[n(m)] * f.psi[n(m)];
        for (int64_t i = 0; i < D; ++i) {
          T sum = f.sign * along * f.x[n(i)];
          for (int64_t m = 0; m < M; ++m) sum += T(in.omega[n(m * D + i)]) * (d[n(m)] * f.slope[n(m)]);
          to[n(from + i)] = sum * T(in.factor);
        }
      };
      std::vector<std::vector<T>> up(n(length * c.H / c.G)), queries(up.size());  // [ĝ | r] and ψ of rows that see the keys
      const auto place = [&](int64_t t, int64_t h) { return n(t * (c.H / c.G) + h % (c.H / c.G)); };
      const auto see = [&](int64_t t) {
        for (int64_t h = g * (c.H / c.G); h < (g + 1) * (c.H / c.G); ++h) {
          const auto f = favor_features<T>(in, &in.q[n(row(t, h) * D)]);
          T R = 0;
          for (int64_t m = 0; m < M; ++m) R += f.psi[n(m)] * state[n(m * W + E)];
          std::vector<T>& mine = up[place(t, h)];
          mine.assign(n(W), T(0));
          for (int64_t e = 0; e < E; ++e) {
            T sum = 0;
            for (int64_t m = 0; m < M; ++m) sum += f.psi[n(m)] * state[n(m * W + e)];
            const T out = R == 0 ? T(0) : sum / R;
            r.o[n(row(t, h) * E + e)] = out;
            mine[n(e)] = R == 0 || !c.outputs ? T(0) : T(in.g[n(row(t, h) * E + e)]) / R, mine[n(E)] -= mine[n(e)] * out;
          }
          std::vector<T> d(n(M), T(0));
          for (int64_t m = 0; m < M; ++m)
            for (int64_t e = 0; e < W; ++e) d[n(m)] += state[n(m * W + e)] * mine[n(e)];
          to_token(f, d, false, r.dq, row(t, h) * D);
          queries[place(t, h)] = f.psi;
        }
      };
      for (int64_t t = 0; t < length; ++t) {
        const T from = t > 0 ? running[n(t - 1)] : start, keep = fade(from, running[n(t)]), weight = fade(keys[n(t)].scale, running[n(t)]);
        for (int64_t m = 0; m < M; ++m)
          for (int64_t e = 0; e < W; ++e)
            state[n(m * W + e)] = state[n(m * W + e)] * keep + weight * keys[n(t)].psi[n(m)] * value(t, e);
        if (c.causal) see(t);
      }
      for (int64_t t = 0; t < length && !c.causal; ++t) see(t);
      r.c[n(bg)] = end;
      std::vector<T> sum(n(M * W));  // T
      for (int64_t m = 0; m < M; ++m)
        for (int64_t e = 0; e < W; ++e) {
          const int64_t i = (bg * M + m) * E + e;
          if (e == E) r.z[n(bg * M + m)] = state[n(m * W + e)], sum[n(m * W + e)] = in.dz[n(bg * M + m)];
          else r.S[n(i)] = state[n(m * W + e)], sum[n(m * W + e)] = in.dS[n(i)];
        }
      const auto take = [&](int64_t t) {
        for (int64_t h = 0; h < c.H / c.G; ++h)
          for (int64_t m = 0; m < M; ++m)
            for (int64_t e = 0; e < W; ++e) sum[n(m * W + e)] += queries[place(t, h)][n(m)] * up[place(t, h)][n(e)];
      };
      for (int64_t t = 0; t < length && !c.causal; ++t) take(t);
      for (int64_t t = length - 1; t >= 0; --t) {
        if (c.causal) {
          const T keep = t == length - 1 ? T(1) : fade(at(t), at(t + 1));
          for (T& x : sum) x *= keep;
          take(t);
        }
        const T weight = fade(keys[n(t)].scale, at(t));
        std::vector<T> u(n(M), T(0));
        for (int64_t m = 0; m < M; ++m) {
          for (int64_t e = 0; e < W; ++e) u[n(m)] += sum[n(m * W + e)] * value(t, e);
          u[n(m)] *= weight;
        }
        for (int64_t e = 0; e < E; ++e) {
          T& to = r.dv[n(((b * c.T + t) * c.G + g) * E + e)];
          for (int64_t m = 0; m < M; ++m) to += keys[n(t)].psi[n(m)] * sum[n(m * W + e)];
          to *= weight;
        }
        to_token(keys[n(t)], u, true, r.dk, ((b * c.T + t) * c.G + g) * D);
      }
      const T keep = c.causal && length > 0 ? fade(start, at(0)) : T(1);
      for (int64_t m = 0; m < M; ++m)
        for (int64_t e = 0; e < W; ++e) {
          T& to = e == E ? r.dz0[n(bg * M + m)] : r.dS0[n((bg * M + m) * E + e)];
          to = keep * sum[n(m * W + e)];
        }
    }
  return r;
}

struct FavorTensors {
  Tensor q, k, v, omega, c0, z0, S0;
  Ints lengths;
  explicit FavorTensors(const FavorInput& in)
      : q(in.q), k(in.k), v(in.v), omega(in.omega), c0(in.c0), z0(in.z0), S0(in.S0), lengths(in.lengths) {}
};

inline void add_sizes(std::vector<Argument>& a, const FavorInput& in) {
  const FavorCase& c = in.c;
  for (int64_t size : {c.B, c.T, c.H, c.G, c.D, c.E, c.M}) a.push_back(double(size));
  for (double x : {double(c.feature), double(in.factor), double(in.epsilon), double(c.every)}) a.push_back(x);
  a.push_back(c.causal);
}

inline void favor_case(const FavorCase& c) {
  std::string name = label("linearAttention", {c.B, c.T, c.H, c.G, c.D, c.E, c.M}) + " feature " + std::to_string(c.feature);
  name += std::string(c.causal ? "" : " both") + (c.state ? " state" : "") + (c.lengths ? " lengths" : "") + (c.outputs ? "" : " final") +
          (c.spread > 2 ? " hard" : "");
  if (!wanted(name)) return;
  const FavorInput in(c);
  const auto truth = favor_reference<double>(in);
  const auto naive = favor_reference<float>(in);
  const FavorTensors t(in);
  const Tensor o(truth.o.size()), R(size_t(c.B * c.T * c.H)), cs(truth.c.size()), z(truth.z.size()), S(truth.S.size());
  const Tensor marks(size_t(c.B * c.G * (c.causal ? (c.T + c.every - 1) / c.every : 1) * (1 + c.M * (c.E + 1))));
  const auto maybe = [](bool there, const auto& x) { return Argument(there ? &x : nullptr); };
  const auto forward = [&](const Tensor& from_c, const Tensor& from_z, const Tensor& from_S, bool kept, const Tensor& to_c,
                           const Tensor& to_z, const Tensor& to_S) {
    std::vector<Argument> a{t.q, t.k, t.v, t.omega, maybe(c.state, from_c), maybe(c.state, from_z), maybe(c.state, from_S),
                            maybe(c.lengths, t.lengths), o, maybe(kept, R), maybe(kept, marks), to_c, to_z, to_S};
    add_sizes(a, in);
    call(name, "linearAttention", a);
  };
  const auto same = [&](const std::string& what, const Tensor& to_c, const Tensor& to_z, const Tensor& to_S) {
    compare(name + what + " o", o, truth.o, naive.o);
    compare(name + what + " c", to_c, truth.c, naive.c);
    compare(name + what + " z", to_z, truth.z, naive.z);
    compare(name + what + " S", to_S, truth.S, naive.S);
  };
  if (c.state) {  // the state in place, and nothing kept
    const Tensor ci(in.c0), zi(in.z0), Si(in.S0);
    forward(ci, zi, Si, false, ci, zi, Si);
    same(" in place", ci, zi, Si);
  }
  forward(t.c0, t.z0, t.S0, true, cs, z, S);
  same("", cs, z, S);

  const Tensor g(in.g), dz(in.dz), dS(in.dS), dq(in.q.size()), dk(in.k.size()), dv(in.v.size()), dz0(in.z0.size()), dS0(in.S0.size());
  std::vector<Argument> a{t.q, t.k, t.v, t.omega, maybe(c.lengths, t.lengths), o, R, marks, maybe(c.outputs, g), dz, dS, dq, dk, dv,
                          maybe(c.state, dz0), maybe(c.state, dS0)};
  add_sizes(a, in);
  call(name, "linearAttentionBackward", a);
  compare(name + " dq", dq, truth.dq, naive.dq);
  compare(name + " dk", dk, truth.dk, naive.dk);
  compare(name + " dv", dv, truth.dv, naive.dv);
  if (c.state) compare(name + " dz0", dz0, truth.dz0, naive.dz0), compare(name + " dS0", dS0, truth.dS0, naive.dS0);
}

// What comes later changes no bit of what came before, whatever it is.
inline void favor_future_case(int64_t T, int64_t changed, int feature) {
  const std::string name = label("linearAttention future", {T, changed, feature});
  if (!wanted(name)) return;
  FavorCase c{1, T, 2, 1, 8, 5, 70, feature};
  c.epsilon = 0.1;
  FavorInput in(c);
  const auto run = [&] {
    const FavorTensors t(in);
    const Tensor o(size_t(T * c.H * c.E)), cs(1), z(size_t(c.M)), S(size_t(c.M * c.E));
    std::vector<Argument> a{t.q, t.k, t.v, t.omega, nullptr, nullptr, nullptr, nullptr, o, nullptr, nullptr, cs, z, S};
    add_sizes(a, in);
    call(name, "linearAttention", a);
    return o.read(name);
  };
  const Floats before = run();
  const auto holds = [&](const char* what) {
    const Floats after = run();
    const size_t past = size_t(changed * c.H * c.E);
    report(std::memcmp(before.data(), after.data(), past * sizeof(float)) == 0, name, std::string(what) + " changes what came before");
  };
  for (int64_t d = 0; d < c.D; ++d) in.k[size_t(changed * c.D + d)] *= 30;
  holds("a large key");
  in.v[size_t(changed * c.E)] = kInf;
  holds("a value that is not finite");
  in.k[size_t(changed * c.D)] = NAN;
  holds("a key that is no number");
}

inline void favor_refused_case(int64_t D, int64_t E, int64_t every) {
  const std::string name = label("linearAttention refused", {D, E, every});
  if (!wanted(name)) return;
  FavorCase c{1, 2, 1, 1, D, E, 4};
  c.every = every;
  const FavorInput in(c);
  const FavorTensors t(in);
  const Tensor o(size_t(2 * E)), cs(1), z(4), S(size_t(4 * E));
  std::vector<Argument> a{t.q, t.k, t.v, t.omega, nullptr, nullptr, nullptr, nullptr, o, nullptr, nullptr, cs, z, S};
  add_sizes(a, in);
  report(call(name, "linearAttention", a, OPLUS_BAD_SHAPE) == OPLUS_BAD_SHAPE, name, "is taken");
}

inline void favor_cases() {
  const auto with = [](FavorCase c, const std::function<void(FavorCase&)>& change) { return change(c), c; };
  favor_case({1, 1, 1, 1, 1, 1, 2}), favor_case({1, 3, 1, 1, 3, 2, 12}), favor_case({1, 70, 2, 1, 5, 7, 33});
  favor_case({1, 40, 1, 1, 8, 4, 64, 0, false});
  // every kind; signed features kept away from a normaliser of nearly nothing
  for (int feature = 1; feature < kFavorKinds; ++feature) {
    FavorCase c{1, 20, 2, 2, 6, 4, 20, feature};
    c.epsilon = feature >= 6 && feature <= 9 ? 2 : feature == kTrigonometric ? 0 : 0.01, c.spread = feature == 2 || feature == 3 ? 1 : 0.3f;
    favor_case(c), favor_case(with(c, [](FavorCase& x) { x.causal = false, x.T = 9; }));
  }
  // cut into segments; states, lengths, shared keys
  favor_case(with({3, 150, 2, 1, 4, 8, 20, 0, true, true, true, 1e-6}, [](FavorCase& c) { c.every = 64; }));
  favor_case({2, 200, 4, 2, 8, 3, 70, 2, true, true, true, 0.001}), favor_case({3, 100, 2, 1, 8, 6, 24, 0, false, false, true, 1e-6});
  favor_case(with({1, 330, 2, 2, 4, 4, 8, 0, true, true}, [](FavorCase& c) { c.every = 192; }));
  favor_case(with({2, 140, 2, 1, 4, 4, 8, 0, true, true, true}, [](FavorCase& c) { c.outputs = false, c.every = 64; }));
  favor_case(with({1, 90, 1, 1, 4, 4, 8, 0, false}, [](FavorCase& c) { c.outputs = false, c.every = 64; }));
  favor_case(with({1, 140, 1, 1, 4, 4, 8, 10, true, true}, [](FavorCase& c) { c.epsilon = 0.01; }));
  favor_case({1, 0, 2, 1, 4, 4, 8, 0, true, true});
  // every width
  favor_case({1, 66, 1, 1, 64, 64, 64}), favor_case({1, 66, 2, 1, 36, 100, 20, 0, true, true}), favor_case({1, 10, 1, 1, 128, 128, 130});
  favor_case({1, 20, 1, 1, 70, 33, 20}), favor_case({1, 20, 1, 1, 20, 128, 512});
  // scores of ±80: weights that underflow
  favor_case(with({2, 100, 2, 2, 16, 3, 24, 0, true, false, false, 1e-6}, [](FavorCase& c) { c.spread = 4; }));
  favor_case(with({2, 100, 2, 1, 16, 3, 24, 0, true, true, true, 1e-6}, [](FavorCase& c) { c.spread = 4; }));
  favor_case(with({3, 40, 2, 2, 16, 3, 24, 0, false, false, false, 1e-6}, [](FavorCase& c) { c.spread = 4; }));
  // one feature, far below 0: what is not there must not weigh e^(0 − top)
  favor_case(with({1, 30, 2, 1, 4, 3, 1}, [](FavorCase& c) { c.spread = 90, c.outputs = false; }));
  for (int feature : {kExponential, 2}) favor_future_case(300, 100, feature), favor_future_case(70, 65, feature);
  favor_refused_case(129, 4, 64), favor_refused_case(4, 129, 64), favor_refused_case(4, 4, 63);
}
