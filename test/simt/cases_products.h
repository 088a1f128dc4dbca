// Matrix products in every combination of transposes, linear maps, the folded query.
#pragma once
#include "harness.h"

template <typename T>
std::vector<T> product_reference(const Floats& a, const Floats& b, const Floats& bias, int64_t M, int64_t N, int64_t K, bool ta,
                                 bool tb) {
  std::vector<T> y(size_t(M * N));
  for (int64_t m = 0; m < M; ++m)
    for (int64_t n = 0; n < N; ++n) {
      T sum = 0;
      for (int64_t k = 0; k < K; ++k) sum += T(a[size_t(ta ? k * M + m : m * K + k)]) * T(b[size_t(tb ? n * K + k : k * N + n)]);
      y[size_t(m * N + n)] = sum + (bias.empty() ? T(0) : T(bias[size_t(n)]));
    }
  return y;
}
inline void product_case(int64_t M, int64_t N, int64_t K) {
  const std::string name = label("matmul", {M, N, K});
  if (!wanted(name)) return;
  Random random(unsigned(M + N * 7 + K * 31));
  const Floats a = random.normals(M * K), b = random.normals(K * N), bias = random.normals(N);
  const Tensor ta(a), tb(b), tbias(bias);
  for (int transposes = 0; transposes < 4; ++transposes) {
    const bool x = transposes & 1, w = transposes & 2;
    const Tensor y(size_t(M * N));
    call(name, "matmul", {ta, tb, y, double(M), double(N), double(K), x, w});
    compare(name + (x ? " aT" : "") + (w ? " bT" : ""), y, product_reference<double>(a, b, {}, M, N, K, x, w),
            product_reference<float>(a, b, {}, M, N, K, x, w));
  }
  const Tensor y(size_t(M * N)), plain(size_t(M * N));
  call(name, "linear", {ta, tb, tbias, y, double(M), double(K), double(N)});
  compare(name + " linear", y, product_reference<double>(a, b, bias, M, N, K, false, true),
          product_reference<float>(a, b, bias, M, N, K, false, true));
  call(name, "linear", {ta, tb, nullptr, plain, double(M), double(K), double(N)});
  compare(name + " linear without bias", plain, product_reference<double>(a, b, {}, M, N, K, false, true),
          product_reference<float>(a, b, {}, M, N, K, false, true));
}

inline void fold_case(int64_t H, int64_t D, int64_t C) {
  const std::string name = label("foldQuery", {H, D, C});
  if (!wanted(name)) return;
  Random random(unsigned(H + D + C));
  const Floats q = random.normals(H * D), w = random.normals(H * D * C), g = random.normals(H * C);
  const float factor = 0.125f;
  const auto forward = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> a(size_t(H * C), zero);
    for (int64_t r = 0; r < H * D; ++r)
      for (int64_t c = 0; c < C; ++c) a[size_t(r / D * C + c)] += T(factor) * q[size_t(r)] * w[size_t(r * C + c)];
    return a;
  };
  const auto backward = [&](auto zero, bool weights) {
    using T = decltype(zero);
    std::vector<T> dq(size_t(H * D), zero), dw(size_t(H * D * C), zero);
    for (int64_t r = 0; r < H * D; ++r)
      for (int64_t c = 0; c < C; ++c) {
        dq[size_t(r)] += T(factor) * w[size_t(r * C + c)] * g[size_t(r / D * C + c)];
        dw[size_t(r * C + c)] = T(factor) * q[size_t(r)] * g[size_t(r / D * C + c)];
      }
    return weights ? dw : dq;
  };
  const Tensor tq(q), tw(w), tg(g), a(g.size()), dq(q.size()), dw(w.size());
  call(name, "foldQuery", {tq, tw, a, double(H), double(D), double(C), factor});
  compare(name, a, forward(0.0), forward(0.0f));
  call(name, "foldQueryBackward", {tq, tw, tg, dq, dw, double(H), double(D), double(C), factor});
  compare(name + " dq", dq, backward(0.0, false), backward(0.0f, false));
  compare(name + " dw", dw, backward(0.0, true), backward(0.0f, true));
}

inline void products_cases() {
  using Sizes = std::initializer_list<std::array<int64_t, 3>>;
  for (auto [M, N, K] : Sizes{{1, 1, 1},
                              {1, 70, 33},
                              {1, 64, 256},
                              {3, 9, 5},
                              {5, 130, 20},
                              {8, 40, 64},
                              {9, 9, 9},
                              {70, 3, 40},
                              {133, 8, 36},
                              {64, 64, 16},
                              {65, 67, 17},
                              {100, 36, 50},
                              {40, 48, 700},
                              {257, 260, 20},
                              {256, 256, 36},
                              {2, 5, 600},
                              {12, 4, 1000},
                              {20, 30, 0}})
    product_case(M, N, K);
  product_case(2100, 4, 8);  // enough lines that a warp takes four
  fold_case(1, 1, 1), fold_case(2, 5, 33), fold_case(3, 16, 64), fold_case(8, 64, 40);
}
