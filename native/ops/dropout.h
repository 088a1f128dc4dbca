// The random numbers of dropout: Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as
// 1, 2, 3", section 3.2). A counter-based generator: draw i of a seed is a function of (seed, i) alone, so any thread of
// either device can make it, nothing is stored between forward and backward, and the bits are the same everywhere.
#pragma once
#include <cstdint>

#include "core/host_device.h"

namespace oplus::OPLUS_TARGET {

// One call of the generator gives four draws: 4·block … 4·block + 3.
struct Draws {
  uint32_t word[4];
};

HOST_DEVICE inline Draws philox(uint64_t seed, uint64_t block) {
  uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32), c2 = 0, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;  // the golden ratio and √3 − 1: Weyl sequences
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// In [0, 1), a multiple of 2^-24: exact in f32, so that `uniform ≥ rate` is the same decision everywhere.
HOST_DEVICE inline float to_uniform(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

HOST_DEVICE inline float uniform(uint64_t seed, uint64_t i) { return to_uniform(philox(seed, i / 4).word[i % 4]); }

// The seed as it crosses the boundary: two numbers below 2^32.
HOST_DEVICE inline uint64_t seed_of(int64_t low, int64_t high) {
  return static_cast<uint64_t>(static_cast<uint32_t>(high)) << 32 | static_cast<uint32_t>(low);
}

// The draws kept are those with uniform ≥ rate; the rest of the sum is made up for by 1 / (1 − rate).
HOST_DEVICE inline float dropout_scale(float rate) { return rate < 1 ? 1 / (1 - rate) : 0; }

}  // namespace oplus::OPLUS_TARGET
