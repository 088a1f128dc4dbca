// Attention over a bounded cache by its definition, token after token, in plain loops.
#pragma once
#include <algorithm>

#include "harness.h"

enum Rotation { kPlain, kByHalves, kNeighbours };

struct CacheSizes {
  int64_t B, H, G, D, S, calls;
};
struct CacheOptions {
  int rule = 2;
  int64_t T = 1, P = 1;
  int kind = 0;
  int64_t sinks = 0, recent = 0;
  float keep = 0;
  int64_t reach = INT32_MAX;
  Rotation rotation = kPlain;
  bool ragged = false;
  float spread = 1;  // of queries, and so of the attention's scores
  int alike = 0;     // from this call on (1: the first) queries are 0, so that all entries get the same
};
struct CacheCase : CacheSizes, CacheOptions {};

// A float as the cache keeps it: for halves the nearest one, ties to even.
inline float as_kept(int kind, float x) {
  if (kind == 0 || x == 0) return x;
  int exponent;
  std::frexp(x, &exponent);
  const double place = std::ldexp(1.0, std::max(exponent - 11, -24));
  return float(std::nearbyint(x / place) * place);
}
inline float read_kept(int kind, const std::vector<uint8_t>& bytes, size_t i) {
  float wide;
  uint16_t half;
  if (kind == 0) return std::memcpy(&wide, &bytes[4 * i], 4), wide;
  std::memcpy(&half, &bytes[2 * i], 2);
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  const double size = std::ldexp(exponent ? fraction + 1024 : fraction, (exponent ? exponent : 1) - 25);
  return float(half >> 15 ? -size : size);
}

template <typename T>
struct CacheState {
  Floats keys, values;  // as kept, not rotated where there is a table
  std::vector<int32_t> positions, ranks;
  std::vector<T> scores, o, received;
  int64_t evicted = 0;
  explicit CacheState(const CacheCase& c)
      : keys(size_t(c.B * c.S * c.G * c.D)),
        values(keys.size()),
        positions(size_t(c.B * c.P * c.S)),
        ranks(positions.size()),
        scores(positions.size()),
        o(size_t(c.B * c.T * c.H * c.D)),
        received(size_t(c.B * c.P * (c.S + 1))) {}
};

template <typename T>
std::vector<T> turned(const CacheCase& c, const float* x, const Floats& table, int64_t row) {
  std::vector<T> y(x, x + c.D);
  if (c.rotation == kPlain) return y;
  for (int64_t p = 0; p < c.D / 2; ++p) {
    const size_t a = size_t(c.rotation == kNeighbours ? 2 * p : p),
                 b = size_t(c.rotation == kNeighbours ? 2 * p + 1 : p + c.D / 2);
    const T cosine = table[size_t(row * c.D + 2 * p)], sine = table[size_t(row * c.D + 2 * p + 1)], u = y[a], v = y[b];
    y[a] = u * cosine - v * sine, y[b] = u * sine + v * cosine;
  }
  return y;
}

// Puts row t of k and v into a slot.
template <typename T>
void cache_store(const CacheCase& c, CacheState<T>& s, int64_t b, int64_t p, int64_t slot, int64_t t, const Floats& k,
                 const Floats& v, int64_t position, T score) {
  const size_t at = size_t((b * c.P + p) * c.S);
  for (int64_t g = c.P == 1 ? 0 : p; g < (c.P == 1 ? c.G : p + 1); ++g)
    for (int64_t d = 0; d < c.D; ++d) {
      const size_t from = size_t(((b * c.T + t) * c.G + g) * c.D + d), to = size_t(((b * c.G + g) * c.S + slot) * c.D + d);
      s.keys[to] = as_kept(c.kind, k[from]), s.values[to] = as_kept(c.kind, v[from]);
    }
  const int32_t old = s.ranks[at + size_t(slot)];
  if (position < c.S) s.ranks[at + size_t(slot)] = int32_t(slot);
  else {
    for (int64_t e = 0; e < c.S; ++e) s.ranks[at + size_t(e)] -= s.ranks[at + size_t(e)] > old;
    s.ranks[at + size_t(slot)] = int32_t(c.S - 1);
  }
  s.positions[at + size_t(slot)] = int32_t(position);
  s.scores[at + size_t(slot)] = score;
}

// Token t of sequence b. victims[p]: slot that goes (S: the new entry), which the truth decides and the naive method follows.
template <typename T>
void cache_token(const CacheCase& c, CacheState<T>& s, int64_t b, int64_t t, int64_t position, const Floats& q, const Floats& k,
                 const Floats& v, const Floats& table, bool decide, std::vector<int64_t>& victims) {
  const int64_t held = std::min(position, c.S), share = c.H / c.G;
  std::vector<T> received(size_t(c.P * (held + 1)), T(0));
  for (int64_t h = 0; h < c.H; ++h) {
    const int64_t g = h / share, p = c.P == 1 ? 0 : g;
    const size_t row = size_t((b * c.T + t) * c.H + h) * size_t(c.D), fresh = size_t(((b * c.T + t) * c.G + g) * c.D);
    const auto query = turned<T>(c, &q[row], table, held);
    std::vector<T> weight;
    std::vector<const float*> value;
    Floats new_key, new_value;
    for (int64_t d = 0; d < c.D; ++d)
      new_key.push_back(as_kept(c.kind, k[fresh + size_t(d)])), new_value.push_back(as_kept(c.kind, v[fresh + size_t(d)]));
    T largest = -T(kInf), sum = 0;
    for (int64_t e = 0; e <= held; ++e) {
      const size_t at = size_t((b * c.P + p) * c.S + e), entry = size_t(((b * c.G + g) * c.S + e) * c.D);
      const auto key =
          turned<T>(c, e < held ? &s.keys[entry] : new_key.data(), table, e < held && c.rotation != kPlain ? s.ranks[at] : held);
      T dot = 0;
      for (size_t d = 0; d < key.size(); ++d) dot += query[d] * key[d];
      const bool seen = e == held || s.positions[at] > position - c.reach;
      weight.push_back(seen ? dot / std::sqrt(T(c.D)) : -T(kInf));
      value.push_back(e < held ? &s.values[entry] : new_value.data());
      largest = std::max(largest, weight.back());
    }
    for (T& x : weight) sum += x = std::exp(x - largest);
    for (int64_t d = 0; d < c.D; ++d) {
      T out = 0;
      for (size_t e = 0; e < weight.size(); ++e) out += weight[e] / sum * T(value[e][d]);
      s.o[row + size_t(d)] = out;
    }
    for (size_t e = 0; e < weight.size(); ++e)
      received[size_t(p * (held + 1)) + e] += weight[e] / sum / (c.P == 1 ? T(c.H) : T(1));
  }
  for (int64_t p = 0; p < c.P; ++p) {
    const T* r = &received[size_t(p * (held + 1))];
    const size_t at = size_t((b * c.P + p) * c.S);
    for (int64_t e = 0; e < c.S; ++e) s.received[size_t((b * c.P + p) * (c.S + 1) + e)] = e < held ? r[e] : T(0);
    s.received[size_t((b * c.P + p) * (c.S + 1) + c.S)] = r[held];
    for (int64_t e = 0; e < held && c.rule == 2; ++e) s.scores[at + size_t(e)] = T(c.keep) * s.scores[at + size_t(e)] + r[e];
    if (held < c.S) {
      cache_store(c, s, b, p, held, t, k, v, position, c.rule == 2 ? r[held] : T(0));
      continue;
    }
    if (decide) {
      int64_t victim = -1;
      const auto from = [&](int64_t e) { return e < c.S ? int64_t(s.positions[at + size_t(e)]) : position; };
      // As f32: what is below its range is a tie at 0.
      const auto score = [&](int64_t e) { return c.rule == 1 ? 0 : float(e < c.S ? s.scores[at + size_t(e)] : r[held]); };
      for (int64_t e = 0; e <= c.S; ++e) {
        if (from(e) < c.sinks || from(e) > position - c.recent) continue;
        if (victim < 0 || score(e) < score(victim) || (score(e) == score(victim) && from(e) < from(victim))) victim = e;
      }
      // A choice from outside: the slot that received least of those whose number is not the position's last digit.
      if (c.rule == 3) {
        victim = c.S;
        for (int64_t e = 0; e < c.S; ++e)
          if (e % 10 != position % 10 && r[e] < r[victim]) victim = e;
      }
      victims[size_t(p)] = c.rule == 0 ? c.S : victim;
    }
    if (victims[size_t(p)] == c.S) continue;
    ++s.evicted;
    cache_store(c, s, b, p, victims[size_t(p)], t, k, v, position, c.rule == 1 ? T(0) : r[held]);
  }
}
