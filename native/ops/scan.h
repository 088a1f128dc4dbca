// The operator ⊕: what softmax attention of one fixed query over a set of tokens is, and how two disjoint sets join
// (Feng et al. 2024, "Attention as an RNN", section 3.2; docs/architecture.md).
//
//   m = max s      u = Σ exp(s − m)      w = Σ exp(s − m) v      o = w / u
//
// ⊕ is associative and commutative, with identity (−∞, 0, 0). Every use of it goes through `join`: the scan of a sequence,
// one streaming step, the carry between chunks, the backward pass (the same scan from right to left) and State.merge.
#pragma once
#include <cmath>

#include "core/host_device.h"

namespace oplus::OPLUS_TARGET {

// m and u of a set; its w has D numbers and lives where the kernel wants it.
struct Prefix {
  float m;  // largest score
  float u;  // sum of weights, relative to e^m
};

constexpr float kNoScore = -__builtin_inff();

HOST_DEVICE inline Prefix nothing() { return {kNoScore, 0.f}; }

// The factors by which u and w of the left and of the right set shrink when they join: both are at most 1.
struct Join {
  float m, left, right;
};

HOST_DEVICE inline Join join(float left, float right) {
  const float m = fmaxf(left, right);
  if (m == kNoScore) return {m, 0.f, 0.f};  // nothing ⊕ nothing: exp(−∞ − −∞) would be NaN
  return {m, expf(left - m), expf(right - m)};
}

HOST_DEVICE inline Prefix join(Prefix left, Prefix right) {
  const Join j = join(left.m, right.m);
  return {j.m, left.u * j.left + right.u * j.right};
}

// log Σ exp(s): what the backward pass keeps of each prefix.
HOST_DEVICE inline float log_sum(Prefix p) { return p.u > 0.f ? p.m + logf(p.u) : kNoScore; }

}  // namespace oplus::OPLUS_TARGET
