// What ⊕ multiplies by, for a chunk of tokens at once: exponentials are worked out over [tokens, heads] as it lies in memory, so
// that a vector has no idle lanes whatever the number of heads. Only the largest score and the sum of weights go token by token.
#pragma once
#include "core/simd.h"
#include "scan.h"
#include "scan_tiles.h"

namespace oplus::OPLUS_TARGET {

// Of each token and head: w ← a·w + b·v, o = inverse · w.
struct Factors {
  float *a, *b, *inverse;
  float* top;  // the largest score so far, with a row before and one after it for the one that came before

  static int64_t size(int64_t heads) { return at_least(kWeights, heads) + kLanes; }
  static int64_t floats(int64_t heads) { return 4 * size(heads) + 2 * heads; }
  Factors(float* memory, int64_t heads)
      : a(memory), b(a + size(heads)), inverse(b + size(heads)), top(inverse + size(heads) + heads) {}
};

OPLUS_INLINE Vec larger(Vec score, Vec m) { return select(score > m, score, select(score != score, score, m)); }  // keeps NaN

// Factors of n tokens from the row of scores at s; moves m and u [heads] on; writes the log-sums to L where it is not null. H is
// the length of a row of s and L.
template <bool kReverse>
void find_factors(const Factors& f, const float* s, float* L, int64_t H, int64_t heads, int64_t n, float* m, float* u) {
  const int64_t count = n * heads, back = kReverse ? heads : -heads;  // from a token to the one walked before it
  std::memcpy(kReverse ? f.top + count : f.top - heads, m, sizeof(float) * static_cast<size_t>(heads));
  for (int64_t h = 0; h < heads; h += kLanes) {
    const int64_t lanes = heads - h;
    Vec top = load_some(m + h, lanes);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t j = kReverse ? n - 1 - i : i;
      const Vec score = load_some(s + j * H + h, lanes, kNoScore);
      top = larger(score, top);
      store_some(f.b + j * heads + h, score, lanes);
      store_some(f.top + j * heads + h, top, lanes);
    }
    store_some(m + h, top, lanes);
  }
  for (int64_t k = 0; k < count; k += kLanes) {
    const Vec top = load(f.top + k), before = load(f.top + k + back), score = load(f.b + k);
    // One of e^(before − top) and e^(score − top) is e^0: a single exponential serves both. top − top is NaN for an infinite one.
    const VecInt risen = score > before, empty = top == kNoScore;  // ⊕'s hard case, see join
    const Vec least = exp(select(risen, before, score) - top), most = 1.0f + (top - top);
    store(f.a + k, select(empty, Vec{}, select(risen, least, most)));
    store(f.b + k, select(empty, Vec{}, select(risen, most, least)));
  }
  for (int64_t h = 0; h < heads; h += kLanes) {
    const int64_t lanes = heads - h;
    Vec sum = load_some(u + h, lanes);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t k = (kReverse ? n - 1 - i : i) * heads + h;
      sum = load_some(f.a + k, lanes) * sum + load_some(f.b + k, lanes);
      store_some(f.inverse + k, sum, lanes);
    }
    store_some(u + h, sum, lanes);
  }
  for (int64_t k = 0; k < count; k += kLanes) {
    const Vec sum = load(f.inverse + k);
    if (L) store(f.top + k, load(f.top + k) + log(sum));
    store(f.inverse + k, select(sum == 0.f, Vec{}, 1.0f / sum));
  }
  for (int64_t j = 0; L && j < n; ++j) std::memcpy(L + j * H, f.top + j * heads, sizeof(float) * static_cast<size_t>(heads));
}

// m ← the largest of m and n rows of scores.
OPLUS_INLINE void find_largest(const float* s, int64_t H, int64_t heads, int64_t n, float* m) {
  for (int64_t h = 0; h < heads; h += kLanes) {
    Vec top = load_some(m + h, heads - h);
    for (int64_t j = 0; j < n; ++j) top = larger(load_some(s + j * H + h, heads - h, kNoScore), top);
    store_some(m + h, top, heads - h);
  }
}

// weights [n, heads] = e^(s − m), 0 where m is −∞; u grows by their sum.
OPLUS_INLINE void find_weights(float* weights, const float* s, int64_t H, int64_t heads, int64_t n, const float* m, float* u) {
  for (int64_t h = 0; h < heads; h += kLanes) {
    const Vec top = load_some(m + h, heads - h);
    Vec sum = load_some(u + h, heads - h);
    for (int64_t j = 0; j < n; ++j) {
      const Vec weight = select(top == kNoScore, Vec{}, exp(load_some(s + j * H + h, heads - h, kNoScore) - top));
      store_some(weights + j * heads + h, weight, heads - h);
      sum += weight;
    }
    store_some(u + h, sum, heads - h);
  }
}

}  // namespace oplus::OPLUS_TARGET
