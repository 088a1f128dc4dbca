// Sizes and rules of attention over a bounded cache on the CPU, and how a cache stores its numbers.
#pragma once
#include "core/op.h"
#include "core/partition.h"
#include "ops/attend_sizes.h"
#include "ops/cache_attend.h"
#include "ops/cache_rows.h"
#include "ops/stored_narrow.h"

namespace oplus::OPLUS_TARGET {

enum CacheKind { kCacheF32, kCacheF16 };

OPLUS_INLINE float number(float x) { return x; }
OPLUS_INLINE float number(Half x) { return widen_half(x.bits); }

OPLUS_INLINE void put_row(float* to, const float* from, int64_t n) { ToF32::narrow(from, n, reinterpret_cast<uint8_t*>(to)); }
OPLUS_INLINE void put_row(Half* to, const float* from, int64_t n) { ToF16::narrow(from, n, reinterpret_cast<uint8_t*>(to)); }

// Letters as in binding.d.ts; P: 1 where all heads of a layer keep the same entries, G where each key-value head has its own.
struct CacheSizes {
  int64_t B, T, H, G, D, S, P;

  // Slots of a head that are worked on together: keys and values of about 128 KB each, long enough to stream, and so short that
  // two threads share 1,000 slots of a single head.
  int64_t keys() const { return at_most(2048, at_least(32, 32768 / at_least(1, D) / 16 * 16)); }
  int64_t parts() const { return divide_up(S, keys()); }
  int64_t columns() const { return divide_up(S + 1, 16) * 16; }
  double step_cost() const { return 2 * static_cast<double>(S + 1) * static_cast<double>(H) * static_cast<double>(D); }
  int64_t cache_bytes(int64_t kind) const { return volume(B, S, G, D, kind == kCacheF16 ? 2 : 4); }

  void check(int64_t kind) const {
    expect_heads(H, G, D);
    if (S < 1 || S >= INT32_MAX) fail(OPLUS_BAD_SHAPE, "a cache of %lld slots, expected at least 1", static_cast<long long>(S));
    if (P != 1 && P != G)
      fail(OPLUS_BAD_SHAPE, "%lld choosers, expected 1 or one for each of %lld heads", static_cast<long long>(P),
           static_cast<long long>(G));
    if (kind != kCacheF32 && kind != kCacheF16)
      fail(OPLUS_BAD_SHAPE, "there is no kind %lld of cache", static_cast<long long>(kind));
  }
};

struct CacheRules {
  int64_t rule, sinks, recent, reach;
  float keep;
  bool neighbours;

  void check(const CacheSizes& n) const {
    if (rule < kNeverEvict || rule > kEvictOutside) fail(OPLUS_BAD_SHAPE, "there is no rule %lld", static_cast<long long>(rule));
    if (sinks < 0 || recent < 0 || sinks > n.S || recent > n.S - sinks)
      fail(OPLUS_BAD_SHAPE, "%lld sinks and %lld recent entries, expected at most the %lld slots together",
           static_cast<long long>(sinks), static_cast<long long>(recent), static_cast<long long>(n.S));
    if (reach < 1) fail(OPLUS_BAD_SHAPE, "a reach of %lld, expected at least 1", static_cast<long long>(reach));
  }
};

}  // namespace oplus::OPLUS_TARGET
