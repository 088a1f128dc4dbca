// f32 to 16-bit storage and back: IEEE half and bfloat16, rounded to nearest even. NaN stays NaN. In integer arithmetic, so
// that the bits are those of the CPU's conversion (convert.cpp) in every case.
//
// Who does what: cuda/each.h. Every array is read or written once.
#include "cuda/each.h"

namespace oplus::OPLUS_TARGET {
namespace {

enum Kind { kHalf = 0, kBfloat = 1 };

__device__ uint16_t to_bfloat(float x) {
  const uint32_t bits = __float_as_uint(x);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const uint32_t quiet = bits >> 16 | 0x40;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}
__device__ float from_bfloat(uint16_t x) { return __uint_as_float(static_cast<uint32_t>(x) << 16); }

__device__ uint16_t to_half(float x) {
  const uint32_t bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  // Normal: the exponent's bias goes from 127 to 15, and 13 bits of the significand are rounded away; a carry runs into the
  // exponent, which is right, as far as infinity.
  const uint32_t normal = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
  // Below 2^-14: adding 0.5 makes the addition itself round to the subnormal's last place, 2^-24.
  const uint32_t subnormal = __float_as_uint(__uint_as_float(magnitude < 0x38800000 ? magnitude : 0) + 0.5f) - 0x3f000000;
  const uint32_t nan = 0x7e00 | (magnitude >> 13 & 0x3ff);
  uint32_t half = magnitude < 0x38800000 ? subnormal : normal;
  half = magnitude >= 0x477ff000 ? 0x7c00 : half;  // 65,520 and above round to infinity
  half = magnitude > 0x7f800000 ? nan : half;
  return static_cast<uint16_t>(sign | half);
}
__device__ float from_half(uint16_t x) {
  const uint32_t sign = (x & 0x8000u) << 16, magnitude = x & 0x7fffu;
  const uint32_t subnormal = __float_as_uint(static_cast<float>(static_cast<int>(magnitude)) * 0x1p-24f);
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const uint32_t special = magnitude << 13 | 0x7f800000 | (magnitude > 0x7c00 ? 0x400000u : 0u);
  return __uint_as_float(sign | (magnitude < 0x400 ? subnormal : magnitude >= 0x7c00 ? special : normal));
}

template <Kind kKind>
struct Narrow {
  const float* x;
  uint16_t* y;
  template <int V>
  __device__ void run(int64_t i) const {
    const Pack<V> in = load_pack<V>(x + i);
    Pack<V, uint16_t> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] = kKind == kHalf ? to_half(in.x[j]) : to_bfloat(in.x[j]);
    store_pack<V>(y + i, out);
  }
};

template <Kind kKind>
struct Widen {
  const uint16_t* x;
  float* y;
  template <int V>
  __device__ void run(int64_t i) const {
    const Pack<V, uint16_t> in = load_pack<V>(x + i);
    Pack<V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] = kKind == kHalf ? from_half(in.x[j]) : from_bfloat(in.x[j]);
    store_pack<V>(y + i, out);
  }
};

void expect_kind(int64_t kind) {
  if (kind != kHalf && kind != kBfloat)
    fail(OPLUS_BAD_SHAPE, "`kind` is %lld, expected 0 (f16) or 1 (bf16)", static_cast<long long>(kind));
}

void narrow(Stream stream, In<float> x, Out<uint16_t> y, int64_t kind, int64_t n) {
  volume(n);
  expect_kind(kind);
  expect("x", x, n);
  expect("y", y, n);
  if (kind == kHalf) run_each(stream, aligned(x.data, y.data), n, Narrow<kHalf>{x.data, y.data});
  else run_each(stream, aligned(x.data, y.data), n, Narrow<kBfloat>{x.data, y.data});
}

void widen(Stream stream, In<uint16_t> x, Out<float> y, int64_t kind, int64_t n) {
  volume(n);
  expect_kind(kind);
  expect("x", x, n);
  expect("y", y, n);
  if (kind == kHalf) run_each(stream, aligned(x.data, y.data), n, Widen<kHalf>{x.data, y.data});
  else run_each(stream, aligned(x.data, y.data), n, Widen<kBfloat>{x.data, y.data});
}

constexpr oplus_op list[] = {op<narrow>("narrow"), op<widen>("widen")};

}  // namespace

extern constinit const Ops convert_ops(list);

}  // namespace oplus::OPLUS_TARGET
