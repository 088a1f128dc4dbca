// How weights of pretrained models are stored, and how they become floats: IEEE and brain halves, and four of ggml's block
// formats. Blocks lie along a row; every kind but the halves is worked on 32 numbers at a time ("chunk").
#pragma once
#include <cstring>

#include "core/op.h"
#include "core/simd.h"
#include "ops/half.h"

namespace oplus::OPLUS_TARGET {

enum StoredKind { kStoredF32, kStoredF16, kStoredBf16, kStoredQ8_0, kStoredQ4_0, kStoredQ4K, kStoredQ6K };

constexpr int64_t kChunk = 32;
constexpr int kChunkVecs = kChunk / kLanes;

OPLUS_INLINE uint16_t load_u16(const uint8_t* p) {
  uint16_t x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
OPLUS_INLINE float widen_half(uint16_t x) {
#if defined(__F16C__)
  return _cvtsh_ss(x);
#else
  return from_half(x);
#endif
}

// kLanes whole numbers of 8 bits as floats.
OPLUS_INLINE Vec widen_signed(const uint8_t* p) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_cvtepi32_ps(0xffff,
                                       _mm512_maskz_cvtepi8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
  return (Vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  Vec v;
  for (int i = 0; i < kLanes; ++i) v[i] = static_cast<float>(static_cast<int8_t>(p[i]));
  return v;
#endif
}
OPLUS_INLINE VecInt widen_bytes(const uint8_t* p) {
#if defined(__AVX512F__)
  return (VecInt)_mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__AVX2__)
  return (VecInt)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#else
  VecInt v;
  for (int i = 0; i < kLanes; ++i) v[i] = p[i];
  return v;
#endif
}
OPLUS_INLINE Vec to_floats(VecInt v) { return __builtin_convertvector(v, Vec); }

// ---- kinds: chunk(row, c, w) gives numbers [32 c, 32 c + 32) of a row ----------------------------------

// Plain numbers may end anywhere: at(row, i) gives kLanes of them, part(row, i, n) numbers [i, i + n), n ≤ kLanes, and zeros
// behind.
struct F32 {
  static constexpr bool kPlain = true;
  static constexpr int64_t kNumbers = 1, kBytes = 4;
  OPLUS_INLINE Vec at(const uint8_t* row, int64_t i) { return load(reinterpret_cast<const float*>(row) + i); }
  OPLUS_INLINE float one(const uint8_t* row, int64_t i) { return reinterpret_cast<const float*>(row)[i]; }
};
struct F16 {
  static constexpr bool kPlain = true;
  static constexpr int64_t kNumbers = 1, kBytes = 2;
  OPLUS_INLINE Vec at(const uint8_t* row, int64_t i) {
    const uint8_t* p = row + 2 * i;
#if defined(__AVX512F__)
    return (Vec)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
    return (Vec)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
    Vec v;
    for (int j = 0; j < kLanes; ++j) v[j] = widen_half(load_u16(p + 2 * j));
    return v;
#endif
  }
  OPLUS_INLINE float one(const uint8_t* row, int64_t i) { return widen_half(load_u16(row + 2 * i)); }
};
struct Bf16 {
  static constexpr bool kPlain = true;
  static constexpr int64_t kNumbers = 1, kBytes = 2;
  OPLUS_INLINE Vec at(const uint8_t* row, int64_t i) {
    const uint8_t* p = row + 2 * i;
#if defined(__AVX512F__)
    const __m512i wide = _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return (Vec)((VecInt)wide << 16);
#elif defined(__AVX2__)
    return (Vec)((VecInt)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))) << 16);
#else
    Vec v;
    for (int j = 0; j < kLanes; ++j) v[j] = from_bfloat(load_u16(p + 2 * j));
    return v;
#endif
  }
  OPLUS_INLINE float one(const uint8_t* row, int64_t i) { return from_bfloat(load_u16(row + 2 * i)); }
};
template <typename S>
OPLUS_INLINE Vec part(const uint8_t* row, int64_t i, int64_t n) {
  if (n >= kLanes) return S::at(row, i);
  float lanes[kLanes] = {};
  for (int64_t j = 0; j < n; ++j) lanes[j] = S::one(row, i + j);
  return load(lanes);
}

// {f16 d; i8 q[32]}: d · q
struct Q8_0 {
  static constexpr bool kPlain = false;
  static constexpr int64_t kNumbers = 32, kBytes = 34;
  OPLUS_INLINE void chunk(const uint8_t* row, int64_t c, Vec (&w)[kChunkVecs]) {
    const uint8_t* p = row + c * kBytes;
    const Vec d = splat(widen_half(load_u16(p)));
#pragma GCC unroll 8
    for (int i = 0; i < kChunkVecs; ++i) w[i] = d * widen_signed(p + 2 + i * kLanes);
  }
};

// {f16 d; u8 q[16]}: d · (low nibbles − 8) are the first 16 numbers, d · (high nibbles − 8) the others
struct Q4_0 {
  static constexpr bool kPlain = false;
  static constexpr int64_t kNumbers = 32, kBytes = 18;
  OPLUS_INLINE void chunk(const uint8_t* row, int64_t c, Vec (&w)[kChunkVecs]) {
    const uint8_t* p = row + c * kBytes;
    const Vec d = splat(widen_half(load_u16(p)));
#pragma GCC unroll 4
    for (int i = 0; i < kChunkVecs / 2; ++i) {
      const VecInt q = widen_bytes(p + 2 + i * kLanes);
      w[i] = d * to_floats((q & 15) - 8);
      w[i + kChunkVecs / 2] = d * to_floats((q >> 4) - 8);
    }
  }
};

// {f16 d; f16 dmin; u8 scales[12]; u8 qs[128]}: 8 parts of 32 numbers, d · scale · nibble − dmin · min, 6 bits for each
// scale and min
struct Q4K {
  static constexpr bool kPlain = false;
  static constexpr int64_t kNumbers = 256, kBytes = 144;
  OPLUS_INLINE void chunk(const uint8_t* row, int64_t c, Vec (&w)[kChunkVecs]) {
    const uint8_t* p = row + c / 8 * kBytes;
    const int64_t j = c % 8;
    const uint8_t *scales = p + 4, *qs = p + 16 + j / 2 * 32;
    const int scale = j < 4 ? scales[j] & 63 : (scales[j + 4] & 15) | scales[j - 4] >> 6 << 4;
    const int least = j < 4 ? scales[j + 4] & 63 : scales[j + 4] >> 4 | scales[j] >> 6 << 4;
    const Vec d = splat(widen_half(load_u16(p)) * static_cast<float>(scale));
    const Vec m = splat(widen_half(load_u16(p + 2)) * static_cast<float>(least));
    const int shift = j % 2 ? 4 : 0;
#pragma GCC unroll 8
    for (int i = 0; i < kChunkVecs; ++i) w[i] = d * to_floats(widen_bytes(qs + i * kLanes) >> shift & 15) - m;
  }
};

// {u8 ql[128]; u8 qh[64]; i8 scales[16]; f16 d}: 16 parts of 16 numbers, d · scale · (6 bits − 32)
struct Q6K {
  static constexpr bool kPlain = false;
  static constexpr int64_t kNumbers = 256, kBytes = 210;
  OPLUS_INLINE void chunk(const uint8_t* row, int64_t c, Vec (&w)[kChunkVecs]) {
    const uint8_t* p = row + c / 8 * kBytes;
    const int64_t half = c % 8 / 4, quarter = c % 4;
    const uint8_t *low = p + half * 64 + quarter % 2 * 32, *high = p + 128 + half * 32,
                  *scales = p + 192 + half * 8 + quarter * 2;
    const float d = widen_half(load_u16(p + 208));
    const int low_shift = quarter < 2 ? 0 : 4, high_shift = static_cast<int>(2 * quarter);
#pragma GCC unroll 8
    for (int i = 0; i < kChunkVecs; ++i) {
      const VecInt bits = (widen_bytes(low + i * kLanes) >> low_shift & 15) | (widen_bytes(high + i * kLanes) >> high_shift & 3)
                                                                                  << 4;
      w[i] = d * static_cast<float>(static_cast<int8_t>(scales[i * kLanes / 16])) * to_floats(bits - 32);
    }
  }
};

// f(kind) for a number that JavaScript gave; F32 has ways of its own.
template <typename F>
OPLUS_INLINE void with_stored(int64_t kind, F&& f) {
  switch (kind) {
    case kStoredF16:
      return f(F16{});
    case kStoredBf16:
      return f(Bf16{});
    case kStoredQ8_0:
      return f(Q8_0{});
    case kStoredQ4_0:
      return f(Q4_0{});
    case kStoredQ4K:
      return f(Q4K{});
    case kStoredQ6K:
      return f(Q6K{});
    default:
      fail(OPLUS_BAD_SHAPE, "there is no kind %lld of stored weights", static_cast<long long>(kind));
  }
}

// Bytes of a row of C numbers.
template <typename S>
static inline int64_t row_bytes(int64_t C) {
  if (C % S::kNumbers)
    fail(OPLUS_BAD_SHAPE, "rows of %lld numbers, expected a multiple of the %lld of a block", static_cast<long long>(C),
         static_cast<long long>(S::kNumbers));
  return volume(C / S::kNumbers, S::kBytes);
}

// Numbers [first, first + n) of a row as floats; first is a multiple of 32.
template <typename S>
static inline void widen_row(const uint8_t* row, int64_t first, int64_t n, float* to) {
  if constexpr (S::kPlain) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(to + i, S::at(row, first + i));
    if (i < n) store_part(to + i, part<S>(row, first + i, n - i), n - i);
  } else {
    for (int64_t i = 0; i < n; i += kChunk) {
      Vec w[kChunkVecs];
      S::chunk(row, (first + i) / kChunk, w);
#pragma GCC unroll 8
      for (int v = 0; v < kChunkVecs; ++v) store(to + i + v * kLanes, w[v]);
    }
  }
}

}  // namespace oplus::OPLUS_TARGET
