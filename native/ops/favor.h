// Feature maps of linear attention (FAVOR+, Choromanski et al. 2021, "Rethinking attention with Performers") and the state that
// they leave behind. Shared by the CPU and CUDA.
//
// A token x, scaled to x̂ = factor · x, has M features. Features of a kind that can be large are held as e^ℓ · ψ with ψ near 1,
// a = Ω x̂, h = ‖x̂‖² / 2 and the token's own scale ℓ:
//
//   exponential     ψ_j = e^(a_j − max a) + ε          ℓ = max a − h    positive features of softmax (lemma 1)
//   trigonometric   ψ_j = cos a_j, then sin a_j        ℓ = h            M/2 of each; rows of Ω come twice
//   the rest        ψ_j = f(a_j) + ε                   ℓ = 0            generalised attention (section 2.2)
//
// Hyperbolic features are exponential ones of rows that come with both signs; regularised ones have rows of length √D.
// A query's ℓ cancels between numerator and normaliser. That of a key is its score under ⊕: the state of a set of keys
//
//   c = max ℓ_i      z = Σ e^(ℓ_i − c) ψ(k_i)      S = Σ e^(ℓ_i − c) ψ(k_i) v_iᵀ
//
// joins like (m, u, w) of the scan. So no token looks at a later one, no exponent is above 0, and ε is relative to the token it
// belongs to, however the sequence is cut (algorithms C.4 says what goes wrong otherwise).
#pragma once
#include "core/host_device.h"
#include "core/op.h"

namespace oplus::OPLUS_TARGET {

enum class Feature : int64_t {
  exponential,
  trigonometric,
  relu,
  sigmoid,
  exp,
  abs,
  gelu,
  cos,
  tanh,
  identity,
  elu,  // elu(a) + 1 (Katharopoulos et al. 2020)
};
constexpr int64_t kFeatures = 11;

struct FavorSizes {
  int64_t B, T, H, G, D, E, M;
  Feature feature;
  float factor, epsilon;
  int64_t every;  // tokens between two marks
  bool causal;

  HOST_DEVICE int64_t group() const { return H / G; }
  HOST_DEVICE int64_t marks() const { return !causal ? 1 : T == 0 ? 0 : (T + every - 1) / every; }
  HOST_DEVICE int64_t mark() const { return 1 + M + M * E; }  // c, z [M], S [M, E]
};

static inline FavorSizes favor_sizes(int64_t B, int64_t T, int64_t H, int64_t G, int64_t D, int64_t E, int64_t M, int64_t feature,
                                     float factor, float epsilon, int64_t every, bool causal) {
  const auto number = [](int64_t n) { return static_cast<long long>(n); };
  if (G < 1 || H < 1 || H % G)
    fail(OPLUS_BAD_SHAPE, "%lld query heads over %lld key-value heads, expected a multiple", number(H), number(G));
  if (D < 1 || E < 1 || M < 1)
    fail(OPLUS_BAD_SHAPE, "D, E, M are %lld, %lld, %lld, expected at least 1", number(D), number(E), number(M));
  if (feature < 0 || feature >= kFeatures)
    fail(OPLUS_BAD_SHAPE, "feature %lld, expected 0 to %lld", number(feature), number(kFeatures - 1));
  if (static_cast<Feature>(feature) == Feature::trigonometric && M % 2)
    fail(OPLUS_BAD_SHAPE, "%lld features, expected an even number", number(M));
  if (every < 1 || every % 64) fail(OPLUS_BAD_SHAPE, "%lld tokens between marks, expected a multiple of 64", number(every));
  return {B, T, H, G, D, E, M, static_cast<Feature>(feature), factor, epsilon, every, causal};
}

}  // namespace oplus::OPLUS_TARGET
