// Normalisation, loss, optimizer.
#pragma once
#include "harness.h"

inline void loss_case(int64_t n) {
  const std::string name = label("meanSquaredError", {n});
  if (!wanted(name)) return;
  Random random(11);
  const Floats x = random.normals(n), y = random.normals(n), g{0.75f};
  const auto value = [&](auto sum) {
    for (size_t i = 0; i < x.size(); ++i) {
      const auto d = decltype(sum)(x[i]) - y[i];
      sum += d * d;
    }
    return std::vector<decltype(sum)>{sum / decltype(sum)(n)};
  };
  const auto gradient = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> dx;
    for (size_t i = 0; i < x.size(); ++i) dx.push_back(T(g[0]) * 2 * (T(x[i]) - y[i]) / T(n));
    return dx;
  };
  const Tensor tx(x), ty(y), tg(g), loss(1), dx(x.size());
  call(name, "meanSquaredError", {tx, ty, loss, double(n)});
  compare(name, loss, value(0.0), value(0.0f));
  call(name, "meanSquaredErrorBackward", {tx, ty, tg, dx, double(n)});
  compare(name + " backward", dx, gradient(0.0), gradient(0.0f));
}

inline void adamw_case(int64_t n, float clip, bool with_total) {
  const std::string name = label("adamw", {n, int64_t(clip * 100), with_total});
  if (!wanted(name)) return;
  Random random(12);
  const Floats p = random.normals(n), g = random.normals(n), m = random.normals(n, 0.1f);
  Floats v = random.normals(n, 0.1f);
  for (float& a : v) a *= a;
  const auto total = [&](auto sum) {
    sum = 2;
    for (float a : g) sum += decltype(sum)(a) * a;
    return std::vector<decltype(sum)>{sum};
  };
  const float rate = 0.01f, beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f, decay = 0.1f, c1 = 0.19f, c2 = 0.001999f;
  const auto step = [&](auto zero, int which) {
    using T = decltype(zero);
    const T norm = std::sqrt(total(zero)[0]);
    const T factor = clip > 0 && with_total ? std::fmin(T(1), clip / norm) : T(1);
    std::vector<T> out;
    for (size_t i = 0; i < p.size(); ++i) {
      const T x = factor * g[i], first = T(beta1) * m[i] + (1 - T(beta1)) * x, second = T(beta2) * v[i] + (1 - T(beta2)) * x * x;
      const T moved = p[i] - T(rate) * (first / T(c1) / (std::sqrt(second / T(c2)) + T(epsilon)) + T(decay) * p[i]);
      out.push_back(which == 0 ? moved : which == 1 ? first : second);
    }
    return out;
  };
  const Tensor tp(p), tg(g), tm(m), tv(v), sum(Floats{2.f});
  call(name, "sumSquares", {tg, sum, double(n)});
  compare(name + " sumSquares", sum, total(0.0), total(0.0f));
  call(name, "adamw", {tp, tg, tm, tv, with_total ? &sum : nullptr, clip, rate, beta1, beta2, epsilon, decay, c1, c2, double(n)});
  compare(name + " p", tp, step(0.0, 0), step(0.0f, 0));
  compare(name + " m", tm, step(0.0, 1), step(0.0f, 1));
  compare(name + " v", tv, step(0.0, 2), step(0.0f, 2));
}

template <typename T>
struct Norm {
  std::vector<T> y, mean, rstd, dx, dgamma, dbeta;
};
template <typename T>
Norm<T> norm_reference(const Floats& x, const Floats& gamma, const Floats& beta, const Floats& g, int64_t N, int64_t C,
                       T epsilon) {
  Norm<T> r;
  r.dgamma.assign(size_t(C), T(0)), r.dbeta.assign(size_t(C), T(0));
  for (int64_t n = 0; n < N; ++n) {
    const float *row = &x[size_t(n * C)], *up = &g[size_t(n * C)];
    T mean = 0, variance = 0, a = 0, b = 0;
    for (int64_t c = 0; c < C; ++c) mean += row[c];
    mean /= T(C);
    for (int64_t c = 0; c < C; ++c) variance += (row[c] - mean) * (row[c] - mean);
    const T rstd = 1 / std::sqrt(variance / T(C) + epsilon);
    r.mean.push_back(mean), r.rstd.push_back(rstd);
    for (int64_t c = 0; c < C; ++c) {
      const T unit = (row[c] - mean) * rstd, dy = T(up[c]) * gamma[size_t(c)];
      r.y.push_back(unit * gamma[size_t(c)] + beta[size_t(c)]);
      a += dy, b += dy * unit;
      r.dgamma[size_t(c)] += up[c] * unit, r.dbeta[size_t(c)] += up[c];
    }
    for (int64_t c = 0; c < C; ++c) {
      const T unit = (row[c] - mean) * rstd;
      r.dx.push_back(rstd * (T(up[c]) * gamma[size_t(c)] - a / T(C) - unit * b / T(C)));
    }
  }
  return r;
}
inline void norm_case(int64_t N, int64_t C, float offset = 0) {
  const std::string name = label("layerNorm", {N, C, int64_t(offset)});
  if (!wanted(name)) return;
  Random random(unsigned(N + C));
  Floats x = random.normals(N * C), gamma = random.normals(C), beta = random.normals(C), g = random.normals(N * C);
  for (float& a : x) a += offset;
  const auto truth = norm_reference<double>(x, gamma, beta, g, N, C, 1e-5f);
  const auto naive = norm_reference<float>(x, gamma, beta, g, N, C, 1e-5f);
  const Tensor tx(x), tgamma(gamma), tbeta(beta), tg(g), y(x.size()), mean{size_t(N)}, rstd{size_t(N)}, bare(x.size());
  const Tensor dx(x.size()), dgamma{size_t(C)}, dbeta{size_t(C)};
  call(name, "layerNorm", {tx, tgamma, tbeta, y, mean, rstd, double(N), double(C), 1e-5f});
  compare(name + " y", y, truth.y, naive.y);
  compare(name + " mean", mean, truth.mean, naive.mean);
  compare(name + " rstd", rstd, truth.rstd, naive.rstd);
  call(name, "layerNorm", {tx, tgamma, tbeta, bare, nullptr, nullptr, double(N), double(C), 1e-5f});
  compare(name + " bare", bare, truth.y, naive.y);
  call(name, "layerNormBackward", {tg, tx, tgamma, mean, rstd, dx, dgamma, dbeta, double(N), double(C)});
  compare(name + " dx", dx, truth.dx, naive.dx);
  compare(name + " dgamma", dgamma, truth.dgamma, naive.dgamma);
  compare(name + " dbeta", dbeta, truth.dbeta, naive.dbeta);
}

// Ids are the last and the first, then any (or all of them `same`); rows that no token has are 0.
inline void embed_backward_case(int64_t N, int64_t V, int64_t C, bool same = false) {
  const std::string name = label("embedBackward", {N, V, C}) + (same ? " same" : "");
  if (!wanted(name)) return;
  Random random(unsigned(N * 7 + V * 3 + C));
  const Floats g = random.normals(N * C);
  std::vector<int32_t> ids;
  for (int64_t n = 0; n < N; ++n)
    ids.push_back(same ? int32_t(V / 2) : n == 0 ? int32_t(V - 1) : n == 1 ? 0 : random.below(int(V)));
  const auto reference = [&](auto zero) {
    std::vector<decltype(zero)> dw(size_t(V * C));
    for (int64_t n = 0; n < N; ++n)
      for (int64_t c = 0; c < C; ++c) dw[size_t(ids[size_t(n)] * C + c)] += g[size_t(n * C + c)];
    return dw;
  };
  const Ints tids(ids);
  const Tensor tg(g), dw(size_t(V * C));
  call(name, "embedBackward", {tids, tg, dw, double(N), double(V), double(C)});
  compare(name, dw, reference(0.0), reference(0.0f));
}

inline void train_cases() {
  for (int64_t n : {1, 5, 1000, 5000}) loss_case(n);
  for (int64_t n : {1, 6, 1024, 5003}) adamw_case(n, 0.5f, true);
  adamw_case(64, 0, true), adamw_case(64, 0.5f, false), adamw_case(64, 1000.f, true);
  for (auto [N, C] : {std::pair<int64_t, int64_t>{1, 1},
                      {70, 1},
                      {70, 2},
                      {3, 5},
                      {9, 32},
                      {17, 33},
                      {8, 64},
                      {5, 512},
                      {3, 1024},
                      {2, 1500},
                      {300, 20},
                      {2, 4096}})
    norm_case(N, C);
  norm_case(4, 128, 100);
  for (auto [N, V, C] :
       {std::array<int64_t, 3>{1, 1, 1}, {0, 3, 5}, {5, 3, 7}, {33, 100, 33}, {300, 25, 20}, {700, 3, 257}, {70, 3000, 3}})
    embed_backward_case(N, V, C);
  embed_backward_case(600, 5, 40, true);
}
