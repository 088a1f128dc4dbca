// Vectors of floats as wide as the target has them, in GCC's and Clang's vector extensions: one source for three
// instruction sets. `OPLUS_TARGET` (base, avx2, avx512) is set by the build and names the namespace.
//
// Everything here is `static inline`: a function compiled for AVX-512 must never be the one copy that the linker keeps.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace oplus::OPLUS_TARGET {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4), aligned(4)));  // unaligned loads and stores
typedef int32_t VecInt __attribute__((vector_size(kLanes * 4), aligned(4)));

#define OPLUS_INLINE static inline __attribute__((always_inline))

OPLUS_INLINE Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
OPLUS_INLINE void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
OPLUS_INLINE Vec splat(float x) { return x - Vec{}; }
OPLUS_INLINE Vec select(VecInt mask, Vec a, Vec b) { return mask ? a : b; }
OPLUS_INLINE Vec vmax(Vec a, Vec b) { return a > b ? a : b; }
OPLUS_INLINE Vec vmin(Vec a, Vec b) { return a < b ? a : b; }

// All bits set in the first n lanes; n below 0 counts as 0.
OPLUS_INLINE VecInt first_lanes(int64_t n) {
  VecInt lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return lane < static_cast<int32_t>(n < 0 ? 0 : n < kLanes ? n : kLanes);
}
#if defined(__AVX512F__)
OPLUS_INLINE __mmask16 first_mask(int64_t n) { return static_cast<__mmask16>(n <= 0 ? 0 : n < kLanes ? (1u << n) - 1 : 0xffffu); }
#endif

// The first n lanes, of whatever n: memory behind them is not touched. The others are `rest`.
OPLUS_INLINE Vec load_part(const float* p, int64_t n, float rest = 0) {
#if defined(__AVX512F__)
  return (Vec)_mm512_mask_loadu_ps((__m512)splat(rest), first_mask(n), p);
#elif defined(__AVX2__)
  const VecInt first = first_lanes(n);
  const Vec v = (Vec)_mm256_maskload_ps(p, (__m256i)first);
  return __builtin_constant_p(rest) && rest == 0 ? v : select(first, v, splat(rest));
#else
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = rest;
  for (int64_t i = 0; i < n && i < kLanes; ++i) lanes[i] = p[i];
  return load(lanes);
#endif
}
OPLUS_INLINE void store_part(float* p, Vec v, int64_t n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, first_mask(n), (__m512)v);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(p, (__m256i)first_lanes(n), (__m256)v);
#else
  float lanes[kLanes];
  store(lanes, v);
  for (int64_t i = 0; i < n && i < kLanes; ++i) p[i] = lanes[i];
#endif
}
// The same where all lanes are the rule, which need no mask.
OPLUS_INLINE Vec load_some(const float* p, int64_t n, float rest = 0) { return n >= kLanes ? load(p) : load_part(p, n, rest); }
OPLUS_INLINE void store_some(float* p, Vec v, int64_t n) { n >= kLanes ? store(p, v) : store_part(p, v, n); }

// Halves onto each other: always the same tree, so always the same bits.
OPLUS_INLINE float sum(Vec v) {
#if defined(__AVX512F__)
  // (masked forms, because GCC 12 warns about the plain ones: its bug 105593)
  const __m512 all = (__m512)v;
  const __m256 half = _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xff, all, 0), _mm512_maskz_extractf32x8_ps(0xff, all, 1));
#elif defined(__AVX2__)
  const __m256 half = (__m256)v;
#endif
#if defined(__AVX2__)
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
#else
  float lanes[kLanes];
  store(lanes, v);
  for (int n = kLanes / 2; n; n /= 2)
    for (int i = 0; i < n; ++i) lanes[i] += lanes[i + n];
  return lanes[0];
#endif
}
OPLUS_INLINE float max(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  float m = lanes[0];
  for (int i = 1; i < kLanes; ++i) m = lanes[i] > m ? lanes[i] : m;
  return m;
}

// Past the caches: for results larger than they are, so that a line need not be read before it is overwritten.
// p must be aligned to a vector; finish with stream_fence.
OPLUS_INLINE void stream(float* p, Vec v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, (__m512)v);
#elif defined(__AVX2__)
  _mm256_stream_ps(p, (__m256)v);
#elif defined(__SSE2__)
  _mm_stream_ps(p, (__m128)v);
#else
  store(p, v);
#endif
}
OPLUS_INLINE void stream_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// e^x, relative error below 2 units in the last place; 0 below −87.3 (subnormal results are flushed), +∞ above 88.72,
// NaN stays NaN. x = n·ln 2 + r, |r| ≤ ln 2 / 2, polynomial of degree 7 for e^r (Cephes' coefficients).
OPLUS_INLINE Vec exp(Vec x) {
  const Vec low = splat(-87.33654f), high = splat(88.72284f);
  const Vec clamped = vmin(vmax(x, low), high);
  const Vec shifter = splat(12582912.0f);  // 1.5 · 2^23: adding it rounds to an integer
  const Vec n = (clamped * 1.44269504088896341f + shifter) - shifter;
  Vec r = clamped - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // 2^n in two halves, so that n = 128 does not overflow before the product does
  const VecInt whole = __builtin_convertvector(n, VecInt);
  const VecInt half = whole >> 1;
  const VecInt scale1 = (half + 127) << 23, scale2 = (whole - half + 127) << 23;
  Vec y = p * (Vec)scale1 * (Vec)scale2;
  y = select(x < low, Vec{}, y);
  y = select(x > high, splat(__builtin_inff()), y);
  return select(x != x, x, y);
}

// ln x for normal x > 0, relative error below 2 units in the last place (Cephes' coefficients); −∞ for 0 and below.
OPLUS_INLINE Vec log(Vec x) {
  const VecInt bits = (VecInt)x;
  VecInt exponent = (bits >> 23) - 126;
  Vec f = (Vec)((bits & 0x007fffff) | 0x3f000000);  // in [1/2, 1)
  const VecInt low = f < 0.707106781186547524f;
  exponent = exponent + low;  // a true lane is −1
  f = f + select(low, f, Vec{}) - 1.0f;
  const Vec z = f * f;
  Vec y = splat(7.0376836292e-2f);
  y = y * f - 1.1514610310e-1f;
  y = y * f + 1.1676998740e-1f;
  y = y * f - 1.2420140846e-1f;
  y = y * f + 1.4249322787e-1f;
  y = y * f - 1.6668057665e-1f;
  y = y * f + 2.0000714765e-1f;
  y = y * f - 2.4999993993e-1f;
  y = y * f + 3.3333331174e-1f;
  y = y * f * z;
  const Vec n = __builtin_convertvector(exponent, Vec);
  y = y + n * -2.12194440e-4f - 0.5f * z;
  y = f + y + n * 0.693359375f;
  return select(x != x, x, select(x > 0.0f, y, splat(-__builtin_inff())));
}

}  // namespace oplus::OPLUS_TARGET
