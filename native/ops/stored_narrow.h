// Floats to the ways of storing weights that need no search for the best block: f32, the halves and ggml's q8_0.
#pragma once
#include "ops/stored.h"

namespace oplus::OPLUS_TARGET {

// narrow(x, n, to): n numbers of a row, which begins a block at `to`; whole blocks of them.
struct ToF32 {
  using Stored = F32;
  OPLUS_INLINE void narrow(const float* x, int64_t n, uint8_t* to) { std::memcpy(to, x, static_cast<size_t>(n) * sizeof *x); }
};
// (Masked forms, because GCC 12 warns about the plain ones: its bug 105593.)
struct ToF16 {
  using Stored = F16;
  OPLUS_INLINE void narrow(const float* __restrict x, int64_t n, uint8_t* bytes) {
    uint16_t* __restrict to = reinterpret_cast<uint16_t*>(bytes);
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i),
                          _mm512_maskz_cvtps_ph(0xffff, _mm512_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                       _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#endif
    for (; i < n; ++i) to[i] = to_half(x[i]);
  }
};
struct ToBf16 {
  using Stored = Bf16;
  OPLUS_INLINE void narrow(const float* __restrict x, int64_t n, uint8_t* bytes) {
    uint16_t* __restrict to = reinterpret_cast<uint16_t*>(bytes);
    for (int64_t i = 0; i < n; ++i) to[i] = to_bfloat(x[i]);
  }
};
// As ggml's reference does it: d = max |x| / 127, q = x / d to the nearest, halves away from 0. A block with a number that is not
// finite gets a scale that is none.
struct ToQ8_0 {
  using Stored = Q8_0;
  OPLUS_INLINE void narrow(const float* x, int64_t n, uint8_t* to) {
    for (int64_t i = 0; i < n; i += kChunk, to += Q8_0::kBytes) block(x + i, to);
  }

 private:
  OPLUS_INLINE void block(const float* x, uint8_t* to) {
    Vec most{}, faults{};  // faults: a lane is NaN once a number was not finite
    for (int i = 0; i < kChunkVecs; ++i) {
      const Vec v = load(x + i * kLanes);
      most = vmax(vmax(v, -v), most);
      faults += v * 0.0f;
    }
    const float scale = max(most) / 127.0f + sum(faults);
    const uint16_t d = to_half(scale);
    std::memcpy(to, &d, sizeof d);
    const Vec inverse = splat(from_half(d) == 0 ? 0.0f : 1.0f / scale);  // a scale that is too small makes all of them 0
    for (int i = 0; i < kChunkVecs; ++i) {
      // (The limits, which only rounding could pass, also keep the compiler from fusing the product into the subtraction.)
      const Vec y = vmin(vmax(load(x + i * kLanes) * inverse, splat(-127.0f)), splat(127.0f));
      VecInt q = __builtin_convertvector(y, VecInt);  // towards 0
      const Vec rest = y - to_floats(q);              // exact
      q = q - (rest >= 0.5f) + (rest <= -0.5f);       // a true lane is −1
      for (int j = 0; j < kLanes; ++j) to[2 + i * kLanes + j] = static_cast<uint8_t>(q[j]);
    }
  }
};

// f(To) for the kind that JavaScript asked for.
template <typename F>
OPLUS_INLINE void with_narrowed(int64_t kind, F&& f) {
  switch (kind) {
    case kStoredF32:
      return f(ToF32{});
    case kStoredF16:
      return f(ToF16{});
    case kStoredBf16:
      return f(ToBf16{});
    case kStoredQ8_0:
      return f(ToQ8_0{});
    default:
      fail(OPLUS_BAD_SHAPE, "kind %lld to store, expected 0 (f32), 1 (f16), 2 (bf16) or 3 (q8_0)", static_cast<long long>(kind));
  }
}

}  // namespace oplus::OPLUS_TARGET
