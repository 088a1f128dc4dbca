// What pretrained decoders are made of: normalisation, gate, rotary positions, what each key received, the loss of a token.
#pragma once
#include "harness.h"

inline void rms_norm_case(int64_t N, int64_t C) {
  const std::string name = label("rmsNorm", {N, C});
  if (!wanted(name)) return;
  Random random(unsigned(N * 3 + C));
  const Floats x = random.normals(N * C, 3), gamma = random.normals(C);
  const auto reference = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> y;
    for (int64_t n = 0; n < N; ++n) {
      T squares = 0;
      for (int64_t c = 0; c < C; ++c) squares += T(x[size_t(n * C + c)]) * T(x[size_t(n * C + c)]);
      const T scale = 1 / std::sqrt(squares / T(C) + T(1e-3f));
      for (int64_t c = 0; c < C; ++c) y.push_back(T(x[size_t(n * C + c)]) * scale * T(gamma[size_t(c)]));
    }
    return y;
  };
  const Tensor tx(x), tg(gamma), y(x.size());
  call(name, "rmsNorm", {tx, tg, y, double(N), double(C), 1e-3});
  compare(name, y, reference(0.0), reference(0.0f));
  call(name, "rmsNorm", {tx, tg, tx, double(N), double(C), 1e-3});
  compare(name + " in place", tx, reference(0.0), reference(0.0f));

  const Floats g = random.normals(N * C);
  const auto gradient = [&](auto zero, bool of_gamma) {
    using T = decltype(zero);
    std::vector<T> dx, dgamma(static_cast<size_t>(C));
    for (int64_t n = 0; n < N; ++n) {
      const float *row = &x[size_t(n * C)], *up = &g[size_t(n * C)];
      T squares = 0, along = 0;
      for (int64_t c = 0; c < C; ++c) squares += T(row[c]) * T(row[c]);
      const T scale = 1 / std::sqrt(squares / T(C) + T(1e-3f));
      for (int64_t c = 0; c < C; ++c) {
        along += T(up[c]) * T(gamma[size_t(c)]) * (T(row[c]) * scale);
        dgamma[size_t(c)] += T(up[c]) * (T(row[c]) * scale);
      }
      for (int64_t c = 0; c < C; ++c) dx.push_back(scale * (T(up[c]) * T(gamma[size_t(c)]) - T(row[c]) * scale * (along / T(C))));
    }
    return of_gamma ? dgamma : dx;
  };
  const Tensor again(x), tup(g), dx(x.size()), dgamma(gamma.size());
  call(name, "rmsNormBackward", {tup, again, tg, dx, dgamma, double(N), double(C), 1e-3});
  compare(name + " dx", dx, gradient(0.0, false), gradient(0.0f, false));
  compare(name + " dgamma", dgamma, gradient(0.0, true), gradient(0.0f, true));
}

inline void swiglu_case(int64_t n) {
  const std::string name = label("swiglu", {n});
  if (!wanted(name)) return;
  Random random{unsigned(n)};
  Floats a = random.normals(n, 3), b = random.normals(n);
  if (n > 4) a[0] = -200, a[1] = 200, a[2] = -88, a[3] = 0, a[4] = 88;
  const auto reference = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> y;
    for (size_t i = 0; i < a.size(); ++i) y.push_back(T(a[i]) / (1 + std::exp(-T(a[i]))) * T(b[i]));
    return y;
  };
  const Tensor ta(a), tb(b), y(a.size());
  call(name, "swiglu", {ta, tb, y, double(n)});
  compare(name, y, reference(0.0), reference(0.0f));
  call(name, "swiglu", {ta, tb, ta, double(n)});
  compare(name + " over a", ta, reference(0.0), reference(0.0f));
  const Tensor again(a);
  call(name, "swiglu", {again, tb, tb, double(n)});
  compare(name + " over b", tb, reference(0.0), reference(0.0f));

  const Floats g = random.normals(n);
  const auto gradient = [&](auto zero, bool of_b) {
    using T = decltype(zero);
    std::vector<T> out;
    for (size_t i = 0; i < a.size(); ++i) {
      const T open = 1 / (1 + std::exp(-T(a[i]))), shut = 1 / (1 + std::exp(T(a[i])));
      out.push_back(T(g[i]) * (of_b ? T(a[i]) * open : T(b[i]) * (open * (1 + T(a[i]) * shut))));
    }
    return out;
  };
  const Tensor gate(a), other(b), tg(g), da(a.size()), db(a.size());
  call(name, "swigluBackward", {gate, other, tg, da, db, double(n)});
  compare(name + " da", da, gradient(0.0, false), gradient(0.0f, false));
  compare(name + " db", db, gradient(0.0, true), gradient(0.0f, true));
}

inline void rope_case(int64_t n, int64_t H, int64_t D, bool neighbours) {
  const std::string name = label("rope", {n, H, D}) + (neighbours ? " neighbours" : " halves");
  if (!wanted(name)) return;
  Random random(unsigned(n * 5 + H * 3 + D));
  const int64_t half = D / 2;
  const float magnitude = 1.25f;
  std::vector<int32_t> positions;
  for (int64_t i = 0; i < n; ++i) positions.push_back(i == 0 ? 0 : i == 1 ? 2147483647 : i == 2 ? 1000003 : random.below(5000));
  Floats frequencies, x = random.normals(n * H * D);
  std::vector<double> exact;
  for (int64_t p = 0; p < half; ++p) {
    const double f = std::pow(10000.0, -double(p) / double(half));
    frequencies.push_back(float(f)), frequencies.push_back(float(f - double(float(f))));
    exact.push_back(double(frequencies[size_t(2 * p)]) + double(frequencies[size_t(2 * p + 1)]));
  }
  std::vector<double> angles;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t p = 0; p < half; ++p) {
      // In more digits than a double has: the reduction is the point here.
      const long double angle = (long double)(positions[size_t(i)]) * exact[size_t(p)];
      angles.push_back(double(magnitude * std::cos(angle))), angles.push_back(double(magnitude * std::sin(angle)));
    }
  const Floats rounded(angles.begin(), angles.end());
  const Ints tp(positions);
  const Tensor tf(frequencies), table(angles.size());
  call(name, "rotations", {tp, tf, table, double(n), double(half), magnitude});
  compare(name + " table", table, angles, rounded);

  const auto reference = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> y(x.size());
    for (int64_t row = 0; row < n * H; ++row)
      for (int64_t p = 0; p < half; ++p) {
        const size_t a = size_t(row * D + (neighbours ? 2 * p : p)), b = size_t(row * D + (neighbours ? 2 * p + 1 : p + half));
        const T cosine = rounded[size_t(row / H * D + 2 * p)], sine = rounded[size_t(row / H * D + 2 * p + 1)];
        y[a] = T(x[a]) * cosine - T(x[b]) * sine;
        y[b] = T(x[a]) * sine + T(x[b]) * cosine;
      }
    return y;
  };
  const Tensor tx(x), turn(rounded), y(x.size());
  call(name, "rope", {tx, turn, y, double(n), double(H), double(D), neighbours});
  compare(name, y, reference(0.0), reference(0.0f));
  call(name, "rope", {tx, turn, tx, double(n), double(H), double(D), neighbours});
  compare(name + " in place", tx, reference(0.0), reference(0.0f));

  const Floats g = random.normals(n * H * D);
  const auto gradient = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> dx(g.size());
    for (int64_t row = 0; row < n * H; ++row)
      for (int64_t p = 0; p < half; ++p) {
        const size_t a = size_t(row * D + (neighbours ? 2 * p : p)), b = size_t(row * D + (neighbours ? 2 * p + 1 : p + half));
        const T cosine = rounded[size_t(row / H * D + 2 * p)], sine = rounded[size_t(row / H * D + 2 * p + 1)];
        dx[a] = T(g[a]) * cosine + T(g[b]) * sine;
        dx[b] = T(g[b]) * cosine - T(g[a]) * sine;
      }
    return dx;
  };
  const Tensor tg(g);
  call(name, "ropeBackward", {tg, turn, tg, double(n), double(H), double(D), neighbours});
  compare(name + " backward", tg, gradient(0.0), gradient(0.0f));
}

struct ReceivedCase {
  int64_t B, T, S, H, G, D, first = 0, spare = 0, P = 1;
  float spread = 1;
};
inline void received_case(const ReceivedCase& c) {
  const std::string name = label("cacheReceived", {c.B, c.T, c.S, c.H, c.G, c.D, c.first, c.P});
  if (!wanted(name)) return;
  Random random(unsigned(c.T * 13 + c.S * 5 + c.D));
  const int64_t capacity = c.S + c.spare, share = c.H / c.G;
  const Floats q = random.normals(c.B * c.T * c.H * c.D, c.spread), before = random.normals(c.B * c.P * capacity);
  Floats k = random.normals(c.B * capacity * c.G * c.D);
  for (int64_t b = 0; b < c.B; ++b)
    std::fill(k.begin() + (b * capacity + c.S) * c.G * c.D, k.begin() + (b + 1) * capacity * c.G * c.D, NAN);
  const auto each = [&](auto zero, auto f) {  // f(b, t, h, scores of the keys that are seen)
    using T = decltype(zero);
    for (int64_t b = 0; b < c.B; ++b)
      for (int64_t t = 0; t < c.T; ++t)
        for (int64_t h = 0; h < c.H; ++h) {
          std::vector<T> scores;
          for (int64_t j = 0; j <= c.S - c.T + t; ++j) {
            T dot = 0;
            for (int64_t d = 0; d < c.D; ++d)
              dot += T(q[size_t(((b * c.T + t) * c.H + h) * c.D + d)]) *
                     T(k[size_t(((b * capacity + j) * c.G + h / share) * c.D + d)]);
            scores.push_back(dot / std::sqrt(T(c.D)));
          }
          f(b, t, h, scores);
        }
  };
  Floats L(size_t(c.B * c.T * c.H));
  each(0.0, [&](int64_t b, int64_t t, int64_t h, const std::vector<double>& scores) {
    double sum = 0;
    for (double s : scores) sum += std::exp(s);
    L[size_t((b * c.T + t) * c.H + h)] = float(std::log(sum));
  });
  const auto reference = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> y(before.begin(), before.end());
    each(zero, [&](int64_t b, int64_t t, int64_t h, const std::vector<T>& scores) {
      if (t < c.first) return;
      for (size_t j = 0; j < scores.size(); ++j)
        y[size_t((b * c.P + (c.P == 1 ? 0 : h / share)) * capacity) + j] +=
            std::exp(scores[j] - T(L[size_t((b * c.T + t) * c.H + h)])) / (c.P == 1 ? T(c.H) : T(1));
    });
    return y;
  };
  const Tensor tq(q), tk(k), tL(L), received(before);
  call(name, "cacheReceived",
       {tq, tk, tL, received, double(c.B), double(c.T), double(c.S), double(c.H), double(c.G), double(c.D), double(capacity),
        double(c.first), double(c.P)});
  compare(name, received, reference(0.0), reference(0.0f));
}

// Targets of rows: the last class, then any; the last but one takes no part, and that of the last is no class. barred: every
// third class cannot be.
inline void cross_entropy_case(int64_t N, int64_t V, float spread = 4, bool barred = false, bool shifted = false) {
  const std::string name = label("crossEntropy", {N, V}) + (barred ? " barred" : "") + (shifted ? " shifted" : "");
  if (!wanted(name)) return;
  Random random(unsigned(N * 7 + V));
  const int64_t skip = shifted ? 1 : 0;
  Floats x = random.normals(skip + N * V, spread);
  std::vector<int32_t> targets;
  for (int64_t n = 0; n < N; ++n) targets.push_back(n == 0 ? int32_t(V - 1) : random.below(int(V)));
  const Floats g = random.normals(N);
  if (N > 2) targets[size_t(N - 2)] = -1, targets[size_t(N - 1)] = int32_t(V);
  for (int64_t n = 0; n < N; ++n)
    for (int64_t v = n % 3; barred && v < V; v += 3)
      if (v != targets[size_t(n)]) x[size_t(skip + n * V + v)] = -kInf;
  if (N > 8) {  // rows that no class can follow, or that are no distribution
    std::fill_n(x.begin() + skip + V, V, -kInf), x[size_t(skip + 2 * V + V / 2)] = kInf;
    x[size_t(skip + 3 * V + V / 3)] = NAN, x[size_t(skip + 4 * V + targets[4])] = -kInf;
    std::fill_n(x.begin() + skip + 5 * V, V, -80.f), x[size_t(skip + 5 * V + targets[5])] = 80;  // almost certain
  }
  const auto reference = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> losses;
    for (int64_t n = 0; n < N; ++n) {
      const float* row = x.data() + skip + n * V;
      T top = -kInf, sum = 0;
      for (int64_t v = 0; v < V; ++v) top = std::fmax(top, T(row[v]));
      for (int64_t v = 0; v < V; ++v) sum += std::exp(T(row[v]) - top);
      const int32_t target = targets[size_t(n)];
      losses.push_back(target == -1 ? T(0) : target >= V ? T(NAN) : std::log(sum) + (top - T(row[target])));
    }
    return losses;
  };
  const Tensor logits(x), loss{size_t(N)};
  const Ints ids(targets);
  Argument in(logits);
  in.value.data = static_cast<char*>(in.value.data) + 4 * skip, in.value.bytes -= 4 * skip;
  call(name, "crossEntropy", {in, ids, loss, double(N), double(V)});
  compare(name, loss, reference(0.0), reference(0.0f));

  const auto gradient = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> dx;
    for (int64_t n = 0; n < N; ++n) {
      const float* row = x.data() + skip + n * V;
      const int32_t target = targets[size_t(n)];
      T top = -kInf, sum = 0;
      for (int64_t v = 0; v < V; ++v) top = std::fmax(top, T(row[v]));
      for (int64_t v = 0; v < V; ++v) sum += std::exp(T(row[v]) - top);
      const T up = target >= V ? T(NAN) : T(g[size_t(n)]);
      for (int64_t v = 0; v < V; ++v)
        dx.push_back(target == -1 ? T(0) : up * (std::exp(T(row[v]) - top) / sum - (v == target ? T(1) : T(0))));
    }
    return dx;
  };
  const Tensor tg(g), dlogits{size_t(N * V)};
  call(name, "crossEntropyBackward", {in, ids, tg, dlogits, double(N), double(V)});
  compare(name + " backward", dlogits, gradient(0.0), gradient(0.0f));
}

inline void decoder_cases() {
  for (auto [N, C] : {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {9, 64}, {5, 1024}, {2, 1500}, {3, 1027}, {1, 4096}, {300, 20}})
    rms_norm_case(N, C);
  for (int64_t n : {1, 7, 30, 1024, 4100}) swiglu_case(n);
  for (bool neighbours : {false, true})
    for (auto [n, H, D] : {std::array<int64_t, 3>{1, 1, 2}, {5, 3, 6}, {4, 2, 20}, {7, 3, 64}, {3, 4, 128}, {3, 1, 8}})
      rope_case(n, H, D, neighbours);
  for (int64_t D : {8, 20, 64, 128, 200}) received_case({1, 9, 9, 2, 1, D}), received_case({2, 20, 31, 4, 2, D, 5, 3, 2});
  received_case({1, 130, 130, 4, 2, 32}), received_case({1, 70, 200, 3, 3, 16, 69, 7, 3}),
      received_case({2, 140, 150, 2, 1, 64, 66, 0, 1});
  received_case({1, 64, 64, 2, 2, 36, 64}), received_case({1, 100, 100, 2, 2, 64, 90, 4, 2, 30}),
      received_case({1, 1, 300, 8, 1, 24});
  received_case({1, 90, 12, 2, 1, 16});  // queries that see nothing
  for (auto [N, V] : {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {9, 5}, {10, 64}, {2, 513}, {1, 2052}, {1, 4097}, {2, 9000}})
    cross_entropy_case(N, V), cross_entropy_case(N, V, 40, true);
  cross_entropy_case(10, 600, 4, false, true), cross_entropy_case(1, 9000, 1, false, true), cross_entropy_case(1, 150000, 1),
      cross_entropy_case(1, 150001, 2);
}
