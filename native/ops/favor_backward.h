// One chunk of linear attention's gradient on the CPU (algorithms C.7, in the frames of favor.h). With ĝ_t = g_t / R_t and
// r_t = −ĝ_t·o_t, the gradients of numerator and normaliser, and the sum over what comes after the chunk, relative to its end,
//
//   T = Σ_{t after} e^(c_end − c_t) ψ(q_t) [ĝ_t | r_t]ᵀ
//
// (no exponent above 0), and within the chunk, for i ≤ t,
//
//   A_ti = e^(ℓ_i − c_t) ψ(q_t)·ψ(k_i)      B_ti = e^(ℓ_i − c_t) (ĝ_t·v_i + r_t)
//   dψ(q_t) = e^(c_0 − c_t) S [ĝ_t | r_t] + Σ_i B_ti ψ(k_i)
//   u_i     = e^(ℓ_i − c_end) T [v_i | 1] + Σ_t B_ti ψ(q_t)      the gradient of e^ℓ ψ(k_i), times e^ℓ
//   dv_i    = e^(ℓ_i − c_end) Tᵀ ψ(k_i) + Σ_t A_ti ĝ_t
//
// From there to tokens: da = dψ ψ', and ℓ brings ∓x̂ Σ u ψ to a key; max a counts as a constant, which is exact for ε = 0.
#pragma once
#include "ops/attend_sizes.h"
#include "ops/favor_state.h"

namespace oplus::OPLUS_TARGET {

// Ω as rows of Ωᵀ side by side, for products with [M, kWide]: to[(d / kRows · M + m) · kRows + d % kRows].
static inline void pack_omega_back(const float* omega, int64_t M, int64_t D, float* to) {
  for (int64_t d = 0; d < D; d += kRows)
    for (int64_t m = 0; m < M; ++m, to += kRows)
      for (int64_t r = 0; r < kRows; ++r) to[r] = d + r < D ? omega[m * D + d + r] : 0;
}

constexpr int kMostChunks = 64;  // of a segment

struct FavorGradient {  // of a thread: what a chunk needs
  FavorSizes n;
  const float *omega, *omega_back;  // packed
  float *columns_q, *columns_k, *psi_q, *psi_k, *slope_q, *slope_k, *dpsi, *u;
  float *g_rows, *g_columns, *v_columns, *dv, *A, *B, *B_across, *dx;

  static int64_t floats(const FavorSizes& n) {
    return kWide * (2 * n.D + 6 * whole_features(n.M) + 4 * wide_panels(n.E) * kWide + 3 * kWide + whole_rows(n.D));
  }
  FavorGradient(const FavorSizes& sizes, const float* packed, const float* packed_back, float* at)
      : n(sizes), omega(packed), omega_back(packed_back) {
    const auto take = [&](int64_t rows) { return at += rows * kWide, at - rows * kWide; };
    const int64_t M = whole_features(n.M), E = wide_panels(n.E) * kWide;
    columns_q = take(n.D), columns_k = take(n.D), psi_q = take(M), psi_k = take(M), slope_q = take(M), slope_k = take(M),
    dpsi = take(M), u = take(M), g_rows = take(E), g_columns = take(E), v_columns = take(E), dv = take(E), A = take(kWide),
    B = take(kWide), B_across = take(kWide), dx = take(whole_rows(n.D));
  }

  int64_t rows() const { return whole_features(n.M); }
  int64_t width(int64_t p) const { return at_most(kWide, n.E - p * kWide); }

  void read_keys(const float* k, int64_t stride, int64_t tokens, float* scale) const {
    features(n, omega, k, stride, tokens, columns_k, psi_k, slope_k, scale);
  }
  void read_queries(const float* q, int64_t stride, int64_t tokens) const {
    float scale[kWide];
    features(n, omega, q, stride, tokens, columns_q, psi_q, slope_q, scale);
  }

  // ĝ as panels and as columns, and r [kWide].
  void read_gradient(const float* g, const float* o, int64_t stride, const float* R, int64_t R_stride, int64_t tokens,
                     float* r) const {
    for (int64_t t = 0; t < kWide; ++t) r[t] = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t e = 0; e < n.E; e += kWide) {
        float* row = g_rows + (e / kWide * kWide + t) * kWide;
        divide_row(g + t * stride + e, R[t * R_stride], at_most(kWide, n.E - e), row);
        for (int64_t i = n.E - e; i < kWide; ++i) row[i] = 0;
        r[t] -= dot(row, o + t * stride + e, at_most(kWide, n.E - e));
      }
    }
    for (int64_t p = 0; p < wide_panels(n.E); ++p) {
      for (int64_t i = tokens * kWide; i < kWide * kWide; ++i) g_rows[p * kWide * kWide + i] = 0;
      columns_of(g_rows + p * kWide * kWide, kWide, tokens, width(p), 1, g_columns + p * kWide * kWide);
    }
  }

  // A and B, and B turned.
  void weigh(const Ladder& ladder, const float* r) const {
    for (int t = 0; t < kWide; t += kRows)
      for (int s = 0; s < kWide; s += kStrip) {
        Sums a, b;
        clear(a), clear(b);
        if (s < t + kRows)
          multiply_add<1, kWide>(psi_q + t, psi_k + s, rows(), a), multiply_add<1, kWide>(g_columns + t, v_columns + s, n.E, b);
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 2
          for (int j = 0; j < 2; ++j) {
            VecInt lane;
            for (int l = 0; l < kLanes; ++l) lane[l] = l + s + j * kLanes;
            const Vec weight = ladder.level ? splat(1) : exp(load(ladder.scale + s + j * kLanes) - ladder.running[t + i]);
            a[i][j] = select(lane <= t + i, a[i][j] * weight, Vec{});
            b[i][j] = select(lane <= t + i, (b[i][j] + r[t + i]) * weight, Vec{});
          }
        put(a, A + t * kWide + s), put(b, B + t * kWide + s);
      }
    columns_of(B, kWide, kWide, kWide, 1, B_across);
  }

  // dq of one head. `state`: what the queries see of the state, faded; with `within` also B.
  void to_queries(const FavorState& state, const float* fades, const float* r, bool within, float* dq, int64_t stride,
                  int64_t tokens) const {
    alignas(64) float faded[kWide];
    for (int t = 0; t < kWide; ++t) faded[t] = fades[t] * r[t];
    for (int64_t m = 0; m < rows(); m += kRows)
      for (int s = 0; s < kWide; s += kStrip) {
        Sums sums;
        clear(sums);
        if (!state.empty()) {
          for (int64_t p = 0; p < wide_panels(n.E); ++p)
            multiply_add<kWide, 1>(state.S + (p * rows() + m) * kWide, g_columns + p * kWide * kWide + s, width(p), sums);
#pragma GCC unroll 8
          for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 2
            for (int j = 0; j < 2; ++j)
              sums[i][j] = sums[i][j] * load(fades + s + j * kLanes) + state.z[m + i] * load(faded + s + j * kLanes);
        }
        if (within) multiply_add<kWide, 1>(psi_k + m * kWide, B_across + s, kWide, sums);
        put(sums, dpsi + m * kWide + s);
      }
    for (int64_t i = 0; i < n.M * kWide; i += kLanes) store(dpsi + i, load(dpsi + i) * load(slope_q + i));
    product<1, kRows>(omega_back, n.M * kRows, dpsi, n.M, whole_rows(n.D), dx);
    rows_of(dx, tokens, n.D, n.factor, dq, stride);
  }

  // u and dv begin with what comes after the chunk.
  void begin_keys(const FavorState& after, const float* weight) const {
    for (int64_t m = 0; m < rows(); m += kRows)
      for (int s = 0; s < kWide; s += kStrip) {
        Sums sums;
        clear(sums);
        for (int64_t p = 0; p < wide_panels(n.E); ++p)
          multiply_add<kWide, 1>(after.S + (p * rows() + m) * kWide, v_columns + p * kWide * kWide + s, width(p), sums);
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 2
          for (int j = 0; j < 2; ++j) sums[i][j] = (sums[i][j] + after.z[m + i]) * load(weight + s + j * kLanes);
        put(sums, u + m * kWide + s);
      }
    for (int64_t p = 0; p < wide_panels(n.E); ++p)
      for (int t = 0; t < kWide; t += kRows)
        for (int s = 0; s < kWide; s += kStrip) {
          Sums sums;
          clear(sums);
          multiply_add<1, kWide>(psi_k + t, after.S + p * rows() * kWide + s, rows(), sums);
#pragma GCC unroll 8
          for (int i = 0; i < kRows; ++i) sums[i][0] *= weight[t + i], sums[i][1] *= weight[t + i];
          put(sums, dv + (p * kWide + t) * kWide + s);
        }
  }

  // What one head's queries of the chunk add to them.
  void add_within() const {
    for (int64_t m = 0; m < rows(); m += kRows)
      for (int s = 0; s < kWide; s += kStrip) {
        Sums sums;
        take(sums, u + m * kWide + s, 1);
        multiply_add<kWide, 1>(psi_q + m * kWide, B + s, kWide, sums);
        put(sums, u + m * kWide + s);
      }
    for (int64_t p = 0; p < wide_panels(n.E); ++p)
      for (int t = 0; t < kWide; t += kRows)
        for (int s = 0; s < kWide; s += kStrip) {
          float* at = dv + (p * kWide + t) * kWide + s;
          Sums sums;
          take(sums, at, 1);
          multiply_add<1, kWide>(A + t, g_rows + p * kWide * kWide + s, kWide, sums);
          put(sums, at);
        }
  }

  // dk and dv of a chunk's tokens.
  void to_keys(float* dk, int64_t k_stride, float* to_v, int64_t v_stride, int64_t tokens) const {
    const float sign = n.feature == Feature::exponential ? -1.f : n.feature == Feature::trigonometric ? 1.f : 0.f;
    alignas(64) float along[kWide];
    for (int s = 0; s < kWide; s += kLanes) {
      Vec total{};
      for (int64_t m = 0; m < n.M; ++m) {
        const Vec each = load(u + m * kWide + s);
        total += each * load(psi_k + m * kWide + s);
        store(u + m * kWide + s, each * load(slope_k + m * kWide + s));
      }
      store(along + s, total * sign);
    }
    product<1, kRows>(omega_back, n.M * kRows, u, n.M, whole_rows(n.D), dx);
    for (int64_t d = 0; sign != 0 && d < n.D; ++d)
      for (int s = 0; s < kWide; s += kLanes) {
        const int64_t at = d * kWide + s;
        store(dx + at, load(dx + at) + load(columns_k + at) * load(along + s));
      }
    rows_of(dx, tokens, n.D, n.factor, dk, k_stride);
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t p = 0; p < wide_panels(n.E); ++p)
        copy_row(dv + (p * kWide + t) * kWide, 1, width(p), to_v + t * v_stride + p * kWide);
  }

  // T ← e^(c_0 − c_end) T in the end; here: T += Σ_t ψ(q_t) fade_t [ĝ_t | r_t].
  void add_to(FavorState& after, const float* fades, const float* r) const {
    alignas(64) float faded[kWide];
    for (int t = 0; t < kWide; ++t) faded[t] = fades[t] * r[t];
    for (int64_t p = 0; p < wide_panels(n.E); ++p)
      for (int t = 0; t < kWide; ++t)
        copy_row(g_rows + (p * kWide + t) * kWide, fades[t], kWide, g_rows + (p * kWide + t) * kWide);
    after.add(n, 1, psi_q, faded, g_rows);
  }
};

}  // namespace oplus::OPLUS_TARGET
