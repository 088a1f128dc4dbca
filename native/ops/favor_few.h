// Linear attention of a few tokens, on the CPU: a streaming step is a product of Ω with a vector, and one pass over S, which is
// read and written where it lies.
#pragma once
#include "ops/cache_rows.h"
#include "ops/favor_features.h"

namespace oplus::OPLUS_TARGET {

constexpr int64_t kFew = 8;  // tokens up to which this is faster than a chunk

struct FewProblem {
  const float *q, *k, *v, *omega;
  float *o, *R;
};

static inline int64_t few_floats(const FavorSizes& n) { return divide_up(n.D, 16) * 16 + 2 * whole_features(n.M); }

// ψ [whole_features(M)] of one token, 0 beyond M; returns ℓ. `x`: room for D.
static inline float features_of(const FavorSizes& n, const float* omega, const float* from, float* x, float* psi) {
  const int64_t rows = whole_features(n.M);
  float norm = 0;
  copy_row(from, n.factor, n.D, x);
  for (int64_t m = 0; m + kLanes <= n.M; m += kLanes) store(psi + m, dots(x, omega + m * n.D, n.D, n.D));
  for (int64_t m = n.M / kLanes * kLanes; m < n.M; ++m) psi[m] = dot(x, omega + m * n.D, n.D);
  const bool waves = n.feature == Feature::trigonometric, powers = n.feature == Feature::exponential;
  if (waves || powers) norm = dot(x, x, n.D);
  Vec most = splat(-__builtin_inff());
  for (int64_t m = 0; powers && m < n.M; m += kLanes) most = vmax(load_some(psi + m, n.M - m, -__builtin_inff()), most);
  const float top = powers ? max(most) : 0;
  for (int64_t m = 0; m < rows; m += kLanes) {
    const Vec a = load_some(psi + m, n.M - m);
    Vec y;
    if (powers) y = exp_below(a - top) + n.epsilon;
    else if (!waves) y = feature_of(n.feature, a, nullptr) + n.epsilon;
    else
      for (int i = 0; i < kLanes; ++i) y[i] = 2 * (m + i) >= n.M ? __builtin_sinf(a[i]) : __builtin_cosf(a[i]);
    for (int i = 0; i < kLanes; ++i)
      if (m + i >= n.M) y[i] = 0;
    store(psi + m, y);
  }
  return powers ? top - 0.5f * norm : 0.5f * norm;
}

// kVectors vectors of every row of S: faded, a key's part added (kMove), and read by a query. kWhole: all of their lanes exist.
template <bool kMove, int kVectors, bool kWhole>
OPLUS_INLINE void pass(const float* psi_k, const float* psi_q, float keep, float weight, const float* v, int64_t M,
                       int64_t stride, int64_t lanes, float* S, float* o) {
  const auto read = [lanes](const float* p, int j) __attribute__((always_inline)) {
    return kWhole ? load(p + j * kLanes) : load_part(p + j * kLanes, lanes - j * kLanes);
  };
  const auto write = [lanes](float* p, int j, Vec x) __attribute__((always_inline)) {
    kWhole ? store(p + j * kLanes, x) : store_part(p + j * kLanes, x, lanes - j * kLanes);
  };
  Vec sums[kVectors], value[kVectors];
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j) sums[j] = Vec{}, value[j] = weight * read(v, j);
  for (int64_t m = 0; m < M; ++m, S += stride)
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      const Vec s = kMove ? keep * read(S, j) + psi_k[m] * value[j] : read(S, j);
      if (kMove) write(S, j, s);
      sums[j] += psi_q[m] * s;
    }
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j) write(o, j, sums[j]);
}

// o = Σ_m ψ(q)_m S[m], not yet normalised; with kMove S is moved on by a key before.
template <bool kMove>
static inline void pass(const float* psi_k, const float* psi_q, float keep, float weight, const float* v, int64_t M, int64_t E,
                        float* S, float* o) {
  int64_t e = 0;
  for (; e + 4 * kLanes <= E; e += 4 * kLanes) pass<kMove, 4, true>(psi_k, psi_q, keep, weight, v + e, M, E, 0, S + e, o + e);
  for (; e + kLanes <= E; e += kLanes) pass<kMove, 1, true>(psi_k, psi_q, keep, weight, v + e, M, E, 0, S + e, o + e);
  if (e < E) pass<kMove, 1, false>(psi_k, psi_q, keep, weight, v + e, M, E, E - e, S + e, o + e);
}

// Key-value head g of sequence b, from its state (c, z [M], S [M, E]) onwards, in place.
static inline void few(const FavorSizes& n, const FewProblem& p, int64_t b, int64_t g, int64_t length, float* c, float* z,
                       float* S, float* memory) {
  const int64_t rows = whole_features(n.M), R = n.group();
  float *x = memory, *psi_k = x + divide_up(n.D, 16) * 16, *psi_q = psi_k + rows;
  for (int64_t t = 0; t < n.T; ++t) {
    const int64_t row = b * n.T + t;
    if (t >= length) {
      for (int64_t h = g * R; h < (g + 1) * R; ++h) {
        if (p.R) p.R[row * n.H + h] = 0;
        for (int64_t e = 0; e < n.E; ++e) p.o[(row * n.H + h) * n.E + e] = 0;
      }
      continue;
    }
    const float scale = features_of(n, p.omega, p.k + (row * n.G + g) * n.D, x, psi_k);
    const float after = scale > *c || scale != scale ? scale : *c;
    const float keep = fade(*c, after), weight = fade(scale, after);
    *c = after;
    for (int64_t m = 0; m < n.M; m += kLanes) {
      const int64_t lanes = n.M - m;
      store_some(z + m, keep * load_some(z + m, lanes) + weight * load(psi_k + m), lanes);
    }
    for (int64_t h = g * R; h < (g + 1) * R; ++h) {
      features_of(n, p.omega, p.q + (row * n.H + h) * n.D, x, psi_q);
      const float sum = dot(psi_q, z, n.M);
      float* o = p.o + (row * n.H + h) * n.E;
      const float* v = p.v + (row * n.G + g) * n.E;
      // The key is added once; the other queries of the group find it in S.
      if (h == g * R) pass<true>(psi_k, psi_q, keep, weight, v, n.M, n.E, S, o);
      else pass<false>(psi_k, psi_q, keep, weight, v, n.M, n.E, S, o);
      divide_row(o, sum, n.E, o);
      if (p.R) p.R[row * n.H + h] = sum;
    }
  }
}

}  // namespace oplus::OPLUS_TARGET
