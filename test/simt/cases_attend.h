// Exact attention and its gradient, against the definition with the whole matrix of weights.
#pragma once
#include "harness.h"

struct AttendCase {
  int64_t B, T, S, H, G, D;
  bool causal = false, lengths = false;
  int64_t spare = 0;  // rows of the cache behind the S that are filled: NaN
  float spread = 1;
};

template <typename T>
struct AttendResult {
  std::vector<T> o, L, dq, dk, dv;
};

template <typename T>
AttendResult<T> attend_reference(const AttendCase& c, const Floats& q, const Floats& k, const Floats& v, const Floats& g,
                                 const std::vector<int32_t>& lengths) {
  AttendResult<T> r;
  const int64_t D = c.D, capacity = c.S + c.spare;
  r.o.assign(q.size(), T(0)), r.dq.assign(q.size(), T(0));
  r.dk.assign(size_t(c.B * c.S * c.G * D), T(0)), r.dv = r.dk;
  r.L.assign(size_t(c.B * c.T * c.H), -T(kInf));
  const T scale = 1 / std::sqrt(T(D));
  for (int64_t b = 0; b < c.B; ++b)
    for (int64_t h = 0; h < c.H; ++h)
      for (int64_t t = 0; t < c.T; ++t) {
        const int64_t group = h / (c.H / c.G);
        int64_t seen = c.lengths ? std::min<int64_t>(c.S, lengths[size_t(b)]) : c.S;
        if (c.causal) seen = std::min(seen, c.S - c.T + t + 1);
        if (seen <= 0) continue;
        const size_t row = size_t((b * c.T + t) * c.H + h);
        const auto at = [&](int64_t j) { return size_t(((b * capacity + j) * c.G + group) * D); };
        const auto out = [&](int64_t j) { return size_t(((b * c.S + j) * c.G + group) * D); };
        const auto dot = [&](const auto* x, const auto* y) {
          T sum = 0;
          for (int64_t d = 0; d < D; ++d) sum += T(x[d]) * T(y[d]);
          return sum;
        };
        std::vector<T> p;
        T largest = -T(kInf), sum = 0;
        for (int64_t j = 0; j < seen; ++j)
          p.push_back(dot(&q[row * size_t(D)], &k[at(j)]) * scale), largest = std::max(largest, p.back());
        for (T& x : p) sum += x = std::exp(x - largest);
        r.L[row] = largest + std::log(sum);
        for (int64_t j = 0; j < seen; ++j)
          for (int64_t d = 0; d < D; ++d) r.o[row * size_t(D) + size_t(d)] += p[size_t(j)] / sum * T(v[at(j) + size_t(d)]);
        const T delta = dot(&g[row * size_t(D)], &r.o[row * size_t(D)]);
        for (int64_t j = 0; j < seen; ++j) {
          const T weight = p[size_t(j)] / sum, ds = weight * (dot(&g[row * size_t(D)], &v[at(j)]) - delta) * scale;
          for (int64_t d = 0; d < D; ++d) {
            r.dv[out(j) + size_t(d)] += weight * T(g[row * size_t(D) + size_t(d)]);
            r.dk[out(j) + size_t(d)] += ds * T(q[row * size_t(D) + size_t(d)]);
            r.dq[row * size_t(D) + size_t(d)] += ds * T(k[at(j) + size_t(d)]);
          }
        }
      }
  return r;
}

inline void attend_case(const AttendCase& c) {
  std::string name = label("attend", {c.B, c.T, c.S, c.H, c.G, c.D});
  name += std::string(c.causal ? " causal" : "") + (c.lengths ? " lengths" : "") + (c.spare ? " spare" : "") +
          (c.spread != 1 ? " spread" : "");
  if (!wanted(name)) return;
  Random random(unsigned(c.T * 13 + c.S * 5 + c.D));
  const int64_t capacity = c.S + c.spare;
  Floats q = random.normals(c.B * c.T * c.H * c.D, c.spread), g = random.normals(c.B * c.T * c.H * c.D);
  Floats k = random.normals(c.B * capacity * c.G * c.D), v = random.normals(c.B * capacity * c.G * c.D);
  std::vector<int32_t> lengths;
  for (int64_t b = 0; b < c.B; ++b) lengths.push_back(b == 0 ? int32_t(c.S) : b == 1 ? 0 : int32_t(c.S / 2 + 1));
  for (int64_t b = 0; b < c.B; ++b)
    for (int64_t j = c.lengths ? std::min<int64_t>(c.S, lengths[size_t(b)]) : c.S; j < capacity; ++j)
      for (int64_t d = 0; d < c.G * c.D; ++d)
        k[size_t((b * capacity + j) * c.G * c.D + d)] = v[size_t((b * capacity + j) * c.G * c.D + d)] = NAN;
  const auto truth = attend_reference<double>(c, q, k, v, g, lengths);
  const auto naive = attend_reference<float>(c, q, k, v, g, lengths);
  const Tensor tq(q), tk(k), tv(v), tg(g), o(q.size()), L(truth.L.size()), bare(q.size());
  const Ints tl(lengths);
  const Argument maybe_lengths(c.lengths ? &tl : nullptr);
  const auto n = [](int64_t size) { return Argument(double(size)); };
  call(name, "attend", {tq, tk, tv, maybe_lengths, o, L, n(c.B), n(c.T), n(c.S), n(c.H), n(c.G), n(c.D), n(capacity), c.causal});
  compare(name + " o", o, truth.o, naive.o);
  compare(name + " L", L, truth.L, naive.L);
  call(name, "attend",
       {tq, tk, tv, maybe_lengths, bare, nullptr, n(c.B), n(c.T), n(c.S), n(c.H), n(c.G), n(c.D), n(capacity), c.causal});
  compare(name + " bare", bare, truth.o, naive.o);
  if (c.spare) return;
  const Tensor dq(q.size()), dk(k.size()), dv(v.size());
  call(name, "attendBackward",
       {tq, tk, tv, maybe_lengths, o, L, tg, dq, dk, dv, n(c.B), n(c.T), n(c.S), n(c.H), n(c.G), n(c.D), c.causal});
  compare(name + " dq", dq, truth.dq, naive.dq);
  compare(name + " dk", dk, truth.dk, naive.dk);
  compare(name + " dv", dv, truth.dv, naive.dv);
}

inline void attend_cases() {
  for (int64_t D : {1, 7, 16, 32, 50, 64, 100, 128, 160, 200, 256})
    attend_case({1, 11, 20, 2, 1, D, D % 2 == 0}), attend_case({2, 1, 40, 2, 2, D});
  attend_case({1, 64, 64, 2, 2, 32, true}), attend_case({1, 65, 65, 2, 1, 24, true}), attend_case({1, 130, 130, 1, 1, 64, true});
  attend_case({3, 70, 90, 2, 1, 16, true, true}), attend_case({3, 20, 70, 4, 2, 36, false, true}),
      attend_case({3, 4, 50, 4, 2, 64, true, true});
  attend_case({1, 30, 12, 1, 1, 8, true}), attend_case({2, 5, 3, 2, 1, 8, true});  // queries that see nothing
  attend_case({2, 1, 300, 4, 2, 64, true, false, 20}), attend_case({1, 1, 700, 1, 1, 64, false, false, 4}),
      attend_case({1, 3, 500, 1, 1, 128, true, false, 9});
  attend_case({1, 40, 200, 2, 1, 64, true, false, 30}), attend_case({1, 70, 70, 1, 1, 256, true}),
      attend_case({1, 20, 70, 2, 2, 20, false, false, 0, 30});
}
