// The state (c, z, S) of one key-value head on the CPU while it moves over chunks: S as panels of kWide columns.
#pragma once
#include "ops/favor_features.h"

namespace oplus::OPLUS_TARGET {

struct FavorState {
  float c;
  float *z, *S;  // [whole_features(M)], [wide_panels(E)][whole_features(M)][kWide]

  static int64_t floats(const FavorSizes& n) { return whole_features(n.M) * (1 + wide_panels(n.E) * kWide); }
  FavorState(const FavorSizes& n, float* memory) : c(-__builtin_inff()), z(memory), S(memory + whole_features(n.M)) {}

  bool empty() const { return c == -__builtin_inff(); }

  void clear(const FavorSizes& n) {
    c = -__builtin_inff();
    for (int64_t i = 0; i < floats(n); ++i) z[i] = 0;
  }
  // From z [M] and S [M, E], and back.
  void read(const FavorSizes& n, float from_c, const float* from_z, const float* from_S) {
    const int64_t rows = whole_features(n.M);
    c = from_c;
    for (int64_t m = 0; m < rows; ++m) z[m] = m < n.M ? from_z[m] : 0;
    panels_of(from_S, n.E, n.M, rows, n.E, nullptr, S);
  }
  void write(const FavorSizes& n, float* to_z, float* to_S) const {
    const int64_t rows = whole_features(n.M);
    for (int64_t m = 0; m < n.M; ++m) to_z[m] = z[m];
    for (int64_t p = 0; p < wide_panels(n.E); ++p)
      for (int64_t m = 0; m < n.M; ++m)
        copy_row(S + (p * rows + m) * kWide, 1, at_most(kWide, n.E - p * kWide), to_S + m * n.E + p * kWide);
  }

  // (z, S) ← keep · (z, S) + Σ_i ψ_i [weight_i | values_i] over a chunk: ψ [features, kWide], values as panels, weighted.
  void add(const FavorSizes& n, float keep, const float* psi, const float* weight, const float* values) {
    const int64_t rows = whole_features(n.M);
    for (int64_t p = 0; p < wide_panels(n.E); ++p)
      for (int64_t m = 0; m < rows; m += kRows)
        for (int s = 0; s < kWide; s += kStrip) {
          float* to = S + (p * rows + m) * kWide + s;
          Sums sums;  // of the chunk first: added to the state one by one, small parts of a long stream would be rounded away
          oplus::OPLUS_TARGET::clear(sums);
          multiply_add<kWide, 1>(psi + m * kWide, values + p * kWide * kWide + s, kWide, sums);
#pragma GCC unroll 8
          for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 2
            for (int j = 0; j < 2; ++j) {
              float* at = to + i * kWide + j * kLanes;
              store(at, keep * load(at) + sums[i][j]);
            }
        }
    for (int64_t m = 0; m < rows; m += kLanes) {
      Vec part[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        part[i] = Vec{};
        for (int s = 0; s < kWide; s += kLanes) part[i] += load(psi + (m + i) * kWide + s) * load(weight + s);
      }
      store(z + m, keep * load(z + m) + sums_of(part));
    }
  }
};

// to[t] = Σ_m ψ[m · kWide + t] · z[m]
OPLUS_INLINE void normalisers(const float* psi, const float* z, int64_t rows, float* to) {
  for (int s = 0; s < kWide; s += kLanes) {
    Vec sums[4] = {};
    for (int64_t m = 0; m < rows; m += 4)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) sums[i] += z[m + i] * load(psi + (m + i) * kWide + s);
    store(to + s, (sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
}

}  // namespace oplus::OPLUS_TARGET
