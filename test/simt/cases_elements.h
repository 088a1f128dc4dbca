// Element by element, sums, GELU, dropout, 16-bit storage.
#pragma once
#include "harness.h"
#include "ops/dropout.h"

inline void map_case(int64_t rows, int64_t n) {
  const std::string name = label("elements", {rows, n});
  if (!wanted(name)) return;
  Random random(unsigned(rows * 131 + n));
  const Floats a = random.normals(rows * n), b = random.normals(n);
  const auto each = [&](auto f) {
    Floats y(a.size());
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < n; ++i) y[size_t(r * n + i)] = f(a[size_t(r * n + i)], b[size_t(i)]);
    return y;
  };
  const auto same = [&](const char* what, const Tensor& got, const Floats& want) {
    compare(name + " " + what, got, as<double>(want), want);
  };
  const Tensor ta(a), tb(b), y(a.size());
  call(name, "add", {ta, tb, y, double(rows), double(n)});
  same("add", y, each([](float p, float q) { return p + q; }));
  call(name, "mul", {ta, tb, y, double(rows), double(n)});
  same("mul", y, each([](float p, float q) { return p * q; }));
  const Tensor in_place(a);
  call(name, "add", {in_place, tb, in_place, double(rows), double(n)});
  same("add in place", in_place, each([](float p, float q) { return p + q; }));
  call(name, "scale", {ta, y, -1.5, double(rows * n)});
  same("scale", y, each([](float p, float) { return -1.5f * p; }));
  call(name, "accumulate", {ta, in_place, double(rows * n)});
  same("accumulate", in_place, each([](float p, float q) { return p + (p + q); }));
  const Tensor filled(a.size());
  call(name, "fill", {filled, 0.25, double(rows * n)});
  same("fill", filled, each([](float, float) { return 0.25f; }));
}

template <typename T>
std::vector<T> sum_reference(const Floats& x, int64_t outer, int64_t n, int64_t inner) {
  std::vector<T> y(size_t(outer * inner), T(0));
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t k = 0; k < n; ++k)
      for (int64_t i = 0; i < inner; ++i) y[size_t(o * inner + i)] += T(x[size_t((o * n + k) * inner + i)]);
  return y;
}
inline void sum_case(int64_t outer, int64_t n, int64_t inner) {
  const std::string name = label("sum", {outer, n, inner});
  if (!wanted(name)) return;
  const Floats x = Random(unsigned(n)).normals(outer * n * inner);
  const Tensor tx(x), y(size_t(outer * inner));
  call(name, "sum", {tx, y, double(outer), double(n), double(inner)});
  compare(name, y, sum_reference<double>(x, outer, n, inner), sum_reference<float>(x, outer, n, inner));
}

inline void copy_case(int64_t outer, int64_t width, int64_t xs, int64_t xo, int64_t ys, int64_t yo) {
  const std::string name = label("copyBlock", {outer, width, xs, xo, ys, yo});
  if (!wanted(name)) return;
  const Floats x = Random(3).normals(outer * xs), before = Random(4).normals(outer * ys);
  Floats want = before;
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t i = 0; i < width; ++i) want[size_t(o * ys + yo + i)] = x[size_t(o * xs + xo + i)];
  const Tensor tx(x), y(before);
  call(name, "copyBlock", {tx, y, double(outer), double(width), double(xs), double(xo), double(ys), double(yo)});
  compare(name, y, as<double>(want), want);
}

inline void gelu_case(int64_t n) {
  const std::string name = label("gelu", {n});
  if (!wanted(name)) return;
  Random random(5);
  Floats x = random.normals(n, 3), g = random.normals(n);
  if (n > 3) x[0] = -12, x[1] = 12, x[2] = 0, x[3] = -5.5f;
  const auto value = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> y;
    for (float a : x) y.push_back(T(a) * std::erfc(-T(a) / std::sqrt(T(2))) / 2);
    return y;
  };
  const auto gradient = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> y;
    for (size_t i = 0; i < x.size(); ++i) {
      const T a = x[i];
      y.push_back(T(g[i]) * (std::erfc(-a / std::sqrt(T(2))) / 2 + a * std::exp(-a * a / 2) / std::sqrt(T(6.283185307179586))));
    }
    return y;
  };
  const Tensor tx(x), tg(g), y(x.size()), dx(x.size());
  call(name, "gelu", {tx, y, double(n)});
  compare(name, y, value(0.0), value(0.0f));
  call(name, "geluBackward", {tx, tg, dx, double(n)});
  compare(name + " backward", dx, gradient(0.0), gradient(0.0f));
}

inline void dropout_case(int64_t n, float rate) {
  const std::string name = label("dropout", {n, int64_t(rate * 100)});
  if (!wanted(name)) return;
  const Floats x = Random(6).normals(n);
  const uint64_t seed = 0xfedcba9800000007u;
  Floats want;
  int64_t kept = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const bool keep = oplus::cuda::uniform(seed, i) >= rate;
    kept += keep;
    want.push_back(keep ? x[i] * oplus::cuda::dropout_scale(rate) : 0);
  }
  const Tensor tx(x), y(x.size());
  call(name, "dropout", {tx, y, double(rate), 7, double(0xfedcba98u), double(n)});
  const Floats got = y.read(name);
  report(got.empty() || !std::memcmp(got.data(), want.data(), got.size() * 4), name, "differs from the same draws on the CPU");
  const double deviation = std::sqrt(double(n) * rate * (1 - rate));
  report(std::fabs(double(kept) - double(n) * (1 - rate)) <= 5 * deviation, name, "keeps " + std::to_string(kept));
}

inline void convert_case() {
  if (!wanted("convert")) return;
  // Known bits (IEEE 754; ties to even), then every half there is, both ways.
  const Floats x{0.f,
                 -0.f,
                 1.f,
                 -2.f,
                 65504.f,
                 65519.9f,
                 65520.f,
                 1e30f,
                 kInf,
                 -kInf,
                 6.103515625e-5f,
                 5.9604645e-8f,
                 2.9802322e-8f,
                 2.98023224e-8f * 1.01f,
                 1.00048828125f,
                 1.00146484375f,
                 3.14159265f};
  const std::vector<uint16_t> half{0,      0x8000, 0x3c00, 0xc000, 0x7bff, 0x7bff, 0x7c00, 0x7c00, 0x7c00,
                                   0xfc00, 0x0400, 1,      0,      1,      0x3c00, 0x3c02, 0x4248};
  const std::vector<uint16_t> bfloat{0,      0x8000, 0x3f80, 0xc000, 0x4780, 0x4780, 0x4780, 0x714a, 0x7f80,
                                     0xff80, 0x3880, 0x3380, 0x3300, 0x3301, 0x3f80, 0x3f80, 0x4049};
  const Tensor tx(x);
  Memory<uint16_t> y(x.size());
  for (int kind = 0; kind < 2; ++kind) {
    call("convert", "narrow", {tx, y, kind, double(x.size())});
    const auto got = y.read("convert");
    for (size_t i = 0; i < x.size(); ++i) {
      const uint16_t want = (kind ? bfloat : half)[i];
      if (got[i] != want)
        report(false, "convert",
               "kind " + std::to_string(kind) + ": " + std::to_string(x[i]) + " becomes " + std::to_string(got[i]) +
                   ", expected " + std::to_string(want));
    }
    report(true, "convert");
    std::vector<uint16_t> all(65536);
    for (size_t i = 0; i < all.size(); ++i) all[i] = uint16_t(i);
    const Memory<uint16_t> from(all);
    const Tensor wide(all.size());
    Memory<uint16_t> back(all.size());
    call("convert", "widen", {from, wide, kind, double(all.size())});
    call("convert", "narrow", {wide, back, kind, double(all.size())});
    const auto there = wide.read("convert");
    const auto again = back.read("convert");
    for (size_t i = 0; i < all.size(); ++i) {
      const int exponent = kind ? all[i] >> 7 & 255 : all[i] >> 10 & 31, fraction = kind ? all[i] & 127 : all[i] & 1023;
      const int top = kind ? 255 : 31, bias = kind ? 127 : 15, bits = kind ? 7 : 10;
      double want = exponent == top
                        ? (fraction ? NAN : INFINITY)
                        : std::ldexp(exponent ? fraction + (1 << bits) : fraction, (exponent ? exponent : 1) - bias - bits);
      if (all[i] >> 15) want = -want;
      const bool nan = std::isnan(want);
      if (nan ? !std::isnan(there[i]) : (double(there[i]) != want || again[i] != all[i]))
        report(false, "convert", "widen " + std::to_string(i));
    }
    report(true, "convert");
  }
  const Tensor odd(Floats{1.f, -2.f, 0.5f});
  Memory<uint16_t> three(3);
  call("convert", "narrow", {odd, three, 1, 3});
  report(three.read("convert") == std::vector<uint16_t>{0x3f80, 0xc000, 0x3f00}, "convert", "three elements");
}

inline void elements_cases() {
  for (auto [rows, n] :
       {std::pair<int64_t, int64_t>{1, 1}, {1, 3}, {3, 5}, {1, 1024}, {7, 64}, {33, 12}, {1000, 1}, {129, 130}, {40, 1000}})
    map_case(rows, n);
  for (int64_t n : {1, 2, 7, 31, 32, 33, 500}) sum_case(3, n, 1), sum_case(2, n, 5), sum_case(1, n, 40);
  sum_case(1, 20000, 1), sum_case(1, 5000, 3), sum_case(1, 3000, 70), sum_case(50, 4, 64), sum_case(70, 40, 1), sum_case(1, 0, 4);
  copy_case(5, 8, 16, 4, 8, 0), copy_case(5, 7, 16, 3, 9, 2), copy_case(1, 100, 100, 0, 100, 0), copy_case(300, 12, 24, 8, 16, 4),
      copy_case(4, 4, 8, 2, 4, 0);
  gelu_case(1), gelu_case(7), gelu_case(2048);
  dropout_case(1, 0.5f), dropout_case(6, 0.3f), dropout_case(4096, 0.1f), dropout_case(10007, 0.75f), dropout_case(64, 0.f),
      dropout_case(64, 1.f);
  convert_case();
  // What a caller can get wrong is refused, not read past.
  const Tensor four(Floats(4, 1.f)), out(4);
  if (wanted("refused")) {
    call("refused", "scale", {four, out, 1, 5}, OPLUS_BAD_SHAPE);
    call("refused", "scale", {four, out, 1, -1}, OPLUS_BAD_SHAPE);
    call("refused", "add", {four, four, out, 4294967296.0, 4294967296.0}, OPLUS_BAD_SHAPE);
    report(true, "refused");
  }
}
