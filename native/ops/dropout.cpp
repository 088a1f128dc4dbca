// Dropout (Srivastava et al. 2014). The draws are those of dropout.h, several blocks of four at a time.
#include "ops/dropout.h"

#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"

namespace oplus::OPLUS_TARGET {
namespace {

void plain(const float* x, float* y, float rate, float scale, uint64_t seed, int64_t i, int64_t end) {
  while (i < end) {
    const Draws draws = philox(seed, static_cast<uint64_t>(i) / 4);
    for (int64_t last = at_most(end, (i / 4 + 1) * 4); i < last; ++i)
      y[i] = to_uniform(draws.word[i % 4]) >= rate ? x[i] * scale : 0;
  }
}

#if defined(__SSE2__)
// Words of the generator in the low half of 64-bit lanes: one block a lane. The multiplication looks at low halves only, so
// whatever is in the upper ones stays there harmlessly.
constexpr int kBlocks = kLanes / 2;
typedef uint64_t Wide __attribute__((vector_size(kLanes * 4), aligned(8)));

OPLUS_INLINE Wide multiply(Wide a, Wide b) {
#if defined(__AVX512F__)
  return (Wide)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (Wide)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
  return (Wide)_mm_mul_epu32((__m128i)a, (__m128i)b);
#endif
}

// The same ten rounds as philox(), for blocks first … first + kBlocks − 1; the draws in their order.
OPLUS_INLINE void draw(uint64_t seed, uint64_t first, float* uniforms) {
  Wide block;
  for (int i = 0; i < kBlocks; ++i) block[i] = first + static_cast<uint64_t>(i);
  Wide c0 = block, c1 = block >> 32, c2{}, c3{};
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  const Wide m0 = uint64_t{0xD2511F53u} + Wide{}, m1 = uint64_t{0xCD9E8D57u} + Wide{};
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const Wide p0 = multiply(c0, m0), p1 = multiply(c2, m1);
    c0 = (p1 >> 32) ^ c1 ^ k0;
    c1 = p1;
    c2 = (p0 >> 32) ^ c3 ^ k1;
    c3 = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const Wide low = (c0 & 0xffffffffu) | c1 << 32, high = (c2 & 0xffffffffu) | c3 << 32;  // draws 0, 1 and 2, 3 of each block
  uint64_t pairs[4 * kBlocks / 2];
  for (int i = 0; i < kBlocks; ++i) pairs[2 * i] = low[i], pairs[2 * i + 1] = high[i];
  for (int i = 0; i < 2; ++i) {
    VecInt words;
    std::memcpy(&words, pairs + i * kBlocks, sizeof words);
    const VecInt top = words >> 8 & 0xffffff;
    store(uniforms + i * kLanes, __builtin_convertvector(top, Vec) * 0x1p-24f);
  }
}

void several(const float* x, float* y, float rate, float scale, uint64_t seed, int64_t i, int64_t end) {
  for (; i + 2 * kLanes <= end; i += 2 * kLanes) {
    float uniforms[2 * kLanes];
    draw(seed, static_cast<uint64_t>(i) / 4, uniforms);
    for (int j = 0; j < 2 * kLanes; j += kLanes)
      store(y + i + j, select(load(uniforms + j) >= rate, load(x + i + j) * scale, Vec{}));
  }
  plain(x, y, rate, scale, seed, i, end);
}
#else
constexpr auto several = plain;
#endif

void dropout(In<float> x, Out<float> y, float rate, int64_t seed_low, int64_t seed_high, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("y", y, n);
  const uint64_t seed = seed_of(seed_low, seed_high);
  const float scale = dropout_scale(rate);
  for_pieces(
      n, [&](int64_t i, int64_t end) { several(x.data, y.data, rate, scale, seed, i, end); });  // pieces start at multiples of 4
}

double dropout_cost(In<float>, Out<float>, float, int64_t, int64_t, int64_t n) { return 16.0 * static_cast<double>(n); }

}  // namespace

static constexpr oplus_op list[] = {op<dropout, dropout_cost>("dropout")};
extern constinit const Ops dropout_ops(list);

}  // namespace oplus::OPLUS_TARGET
