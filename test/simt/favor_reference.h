// Linear attention as native/ops/favor.h defines it, taken token by token, and its gradient in the same frames.
#pragma once
#include "harness.h"

struct FavorCase {
  int64_t B, T, H, G, D, E, M;
  int feature = 0;  // native/ops/favor.h's Feature
  bool causal = true, state = false, lengths = false;
  double epsilon = 0;
  int64_t every = 128;
  float spread = 1;     // of queries and keys
  bool outputs = true;  // a gradient comes to the outputs
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
      case kExponential:
        y = slope = std::exp(x - top);
        break;
      case kTrigonometric:
        y = 2 * m >= c.M ? std::sin(x) : std::cos(x), slope = 2 * m >= c.M ? std::cos(x) : -std::sin(x);
        break;
      case 2:
        y = std::max(x, T(0)), slope = x > 0;
        break;
      case 3:
        y = 1 / (1 + std::exp(-x)), slope = y * (1 - y);
        break;
      case 4:
        y = slope = std::exp(x);
        break;
      case 5:
        y = std::fabs(x), slope = T(x > 0) - T(x < 0);
        break;
      case 6:
        y = x * normal(x), slope = normal(x) + x * std::exp(-x * x / 2) / std::sqrt(2 * T(M_PI));
        break;
      case 7:
        y = std::cos(x), slope = -std::sin(x);
        break;
      case 8:
        y = std::tanh(x), slope = 1 - y * y;
        break;
      case 10:
        y = x > 0 ? x + 1 : std::exp(x), slope = x > 0 ? T(1) : y;
        break;
      default:
        break;
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
      const auto to_token = [&](const FavorFeatures<T>& f, const std::vector<T>& d, bool scaled, std::vector<T>& to,
                                int64_t from) {
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
        const T from = t > 0 ? running[n(t - 1)] : start, keep = fade(from, running[n(t)]),
                weight = fade(keys[n(t)].scale, running[n(t)]);
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
