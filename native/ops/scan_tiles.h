// How the scan and its gradient walk on the CPU: what a span of tokens is, how spans are shared out among threads, and the order
// in which rows, heads and vectors are visited.
#pragma once
#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"

namespace oplus::OPLUS_TARGET {

constexpr int64_t kTile = 32768;            // floats that a tile is read twice of: 128 KB, well within a core's second cache
constexpr int64_t kBeyondCaches = 8 << 20;  // elements of o or dv from which stores go past the caches
constexpr int64_t kScanSmall = 1 << 15;     // elements below which a second thread costs more than it brings
constexpr int64_t kWeights = 64;            // scores whose weights are worked out together: few, or memory waits meanwhile

struct ScanSizes {
  int64_t B, T, H, G, D;
  bool reverse;
};

static inline ScanSizes scan_sizes(int64_t B, int64_t T, int64_t H, int64_t G, int64_t D, bool reverse) {
  if (B < 0 || T < 0 || H < 1 || G < 1 || D < 1 || H % G)
    fail(OPLUS_BAD_SHAPE, "H = %lld heads do not share G = %lld groups evenly", static_cast<long long>(H),
         static_cast<long long>(G));
  return {B, T, H, G, D, reverse};
}

// One batch, heads [h0, h1) of it, tokens [t0, t1) in walking order, of which those below `length` take part.
struct Span {
  int64_t b, h0, h1, t0, t1, length;
};

// Tasks: whole batches, or parts of their heads, or tiles of their time.
struct Shares {
  int64_t parts, tiles, tile;  // parts of the heads; tiles of `tile` tokens, which is all of them where there is one
  bool alone;                  // too little to share

  Span span(const ScanSizes& z, int64_t i, const MaybeIn<int32_t>& lengths) const {
    const int64_t part = i % parts, b = i / parts / tiles, t0 = i / parts % tiles * tile;
    const int64_t each = divide_up(z.H, parts), h0 = at_most(part * each, z.H);
    const int64_t length = !lengths ? z.T : at_most(at_least(lengths[b], 0), z.T);
    return {b, h0, at_most(h0 + each, z.H), t0, at_most(t0 + tile, z.T), length};
  }
};

// `width`: floats that a tile reads twice for each token.
static inline Shares share_out(const ScanSizes& z, int64_t width) {
  const int64_t team = z.B * z.T * z.H * z.D < kScanSmall ? 1 : threads();
  if (team == 1 || z.B % team == 0 || z.B >= 4 * team) return {1, 1, z.T, team == 1};
  const int64_t tile = at_least(16, kTile / width);
  if (z.T >= 2 * tile) return {1, divide_up(z.T, tile), tile, false};
  const int64_t heads = divide_up(z.H, at_most(z.H, team));  // of a part; fewer parts than threads where they come out uneven
  return {divide_up(z.H, heads), 1, z.T, false};
}

// Where the tokens of a span that take part begin in [B·T].
template <bool kFromTheRight>
OPLUS_INLINE int64_t lowest_row(const ScanSizes& z, const Span& span) {
  return span.b * z.T + (kFromTheRight ? span.length - at_most(span.t1, span.length) : span.t0);
}

// f(row, n): chunks of a span's tokens that take part, in walking order; they lie in [row, row + n) of [B·T].
template <bool kFromTheRight, typename F>
OPLUS_INLINE void each_chunk(const ScanSizes& z, const Span& span, F&& f) {
  const int64_t t1 = at_most(span.t1, span.length), chunk = at_least(1, kWeights / (span.h1 - span.h0));
  for (int64_t t = span.t0, n; t < t1; t += n) {
    n = at_most(chunk, t1 - t);
    f(span.b * z.T + (kFromTheRight ? span.length - t - n : t), n);
  }
}

// f(head, its row of values): heads of a span over one token, in the direction of the walk.
template <bool kFromTheRight, typename F>
OPLUS_INLINE void each_head(const ScanSizes& z, const Span& span, const float* values, F&& f) {
  constexpr int64_t sign = kFromTheRight ? -1 : 1;
  const int64_t per_group = z.H / z.G, first = kFromTheRight ? span.h1 - 1 : span.h0;
  const float* v = values + (per_group == 1 ? first : first / per_group) * z.D;
  int64_t left = per_group == 1 ? 1 : kFromTheRight ? first % per_group + 1 : per_group - first % per_group;
  for (int64_t h = first, n = span.h1 - span.h0; n > 0; h += sign, --n) {
    f(h, v);
    if (--left == 0) v += sign * z.D, left = per_group;
  }
}

// f(d, lanes): vectors of D numbers in the direction of the walk; the last of them may be in part.
template <bool kFromTheRight, typename F>
OPLUS_INLINE void each_vector(int64_t D, F&& f) {
  const int64_t whole = D / kLanes * kLanes;
  if constexpr (kFromTheRight) {
    if (whole < D) f(whole, D - whole);
#pragma GCC unroll 4
    for (int64_t d = whole - kLanes; d >= 0; d -= kLanes) f(d, kLanes);
  } else {
#pragma GCC unroll 4
    for (int64_t d = 0; d < whole; d += kLanes) f(d, kLanes);
    if (whole < D) f(whole, D - whole);
  }
}

// Asks memory for a row. It need not exist: asking does not fault.
template <bool kFromTheRight>
OPLUS_INLINE void prefetch_row(const float* row, int64_t floats) {
  if constexpr (kFromTheRight)
    for (int64_t i = floats; i > 0; i -= 16) __builtin_prefetch(row + i - 1, 0, 3);
  else
    for (int64_t i = 0; i < floats; i += 16) __builtin_prefetch(row + i, 0, 3);
}

}  // namespace oplus::OPLUS_TARGET
