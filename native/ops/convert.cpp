// f32 to 16-bit storage and back: IEEE half and bfloat16, rounded to nearest even. NaN stays NaN (made quiet, sign and the
// payload's upper bits kept), whichever path runs.
#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"
#include "ops/half.h"

namespace oplus::OPLUS_TARGET {
namespace {

enum Kind { kHalf = 0, kBfloat = 1 };

// (Masked forms, because GCC 12 warns about the plain ones: its bug 105593.)
// The processor's own conversion where it has one, as far as whole vectors go; returns where it stopped.
OPLUS_INLINE int64_t halves_by_instruction([[maybe_unused]] const float* x, [[maybe_unused]] uint16_t* y, int64_t i,
                                           [[maybe_unused]] int64_t end) {
#if defined(__AVX512F__)
  for (; i + 16 <= end; i += 16)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i),
                        _mm512_maskz_cvtps_ph(0xffff, _mm512_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
  for (; i + 8 <= end; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#endif
  return i;
}
OPLUS_INLINE int64_t floats_by_instruction([[maybe_unused]] const uint16_t* x, [[maybe_unused]] float* y, int64_t i,
                                           [[maybe_unused]] int64_t end) {
#if defined(__AVX512F__)
  for (; i + 16 <= end; i += 16)
    _mm512_storeu_ps(y + i, _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i))));
#elif defined(__F16C__)
  for (; i + 8 <= end; i += 8) _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i))));
#endif
  return i;
}

void expect_kind(int64_t kind) {
  if (kind != kHalf && kind != kBfloat)
    fail(OPLUS_BAD_SHAPE, "`kind` is %lld, expected 0 (f16) or 1 (bf16)", static_cast<long long>(kind));
}

void narrow(In<float> x, Out<uint16_t> y, int64_t kind, int64_t n) {
  volume(n);
  expect_kind(kind);
  expect("x", x, n);
  expect("y", y, n);
  for_pieces(n, [&](int64_t i, int64_t end) {
    const float* __restrict from = x.data;
    uint16_t* __restrict to = y.data;
    if (kind == kBfloat) {
      for (; i < end; ++i) to[i] = to_bfloat(from[i]);
    } else {
      for (i = halves_by_instruction(from, to, i, end); i < end; ++i) to[i] = to_half(from[i]);
    }
  });
}

void widen(In<uint16_t> x, Out<float> y, int64_t kind, int64_t n) {
  volume(n);
  expect_kind(kind);
  expect("x", x, n);
  expect("y", y, n);
  for_pieces(n, [&](int64_t i, int64_t end) {
    const uint16_t* __restrict from = x.data;
    float* __restrict to = y.data;
    if (kind == kBfloat) {
      for (; i < end; ++i) to[i] = from_bfloat(from[i]);
    } else {
      for (i = floats_by_instruction(from, to, i, end); i < end; ++i) to[i] = from_half(from[i]);
    }
  });
}

}  // namespace

static constexpr oplus_op list[] = {op<narrow>("narrow"), op<widen>("widen")};
extern constinit const Ops convert_ops(list);

}  // namespace oplus::OPLUS_TARGET
