// IEEE half and bfloat16, one number at a time: rounded to nearest even; NaN stays NaN (made quiet, sign and the payload's upper
// bits kept). In integer arithmetic, so that every device gives the same bits in every case.
#pragma once
#include <cstdint>

#include "core/host_device.h"

namespace oplus::OPLUS_TARGET {

HOST_DEVICE inline uint32_t bits_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}
HOST_DEVICE inline float float_of(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

HOST_DEVICE inline uint16_t to_bfloat(float x) {
  const uint32_t bits = bits_of(x);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const uint32_t quiet = bits >> 16 | 0x40;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}
HOST_DEVICE inline float from_bfloat(uint16_t x) { return float_of(static_cast<uint32_t>(x) << 16); }

HOST_DEVICE inline uint16_t to_half(float x) {
  const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  // Normal: the exponent's bias goes from 127 to 15, and 13 bits of the significand are rounded away; a carry runs into the
  // exponent, which is right, as far as infinity.
  const uint32_t normal = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
  // Below 2^-14: adding 0.5 makes the addition itself round to the subnormal's last place, 2^-24.
  const uint32_t subnormal = bits_of(float_of(magnitude < 0x38800000 ? magnitude : 0) + 0.5f) - 0x3f000000;
  const uint32_t nan = 0x7e00 | (magnitude >> 13 & 0x3ff);
  uint32_t half = magnitude < 0x38800000 ? subnormal : normal;
  half = magnitude >= 0x477ff000 ? 0x7c00 : half;  // 65,520 and above round to infinity
  half = magnitude > 0x7f800000 ? nan : half;
  return static_cast<uint16_t>(sign | half);
}
HOST_DEVICE inline float from_half(uint16_t x) {
  const uint32_t sign = (x & 0x8000u) << 16, magnitude = x & 0x7fffu;
  const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const uint32_t special = magnitude << 13 | 0x7f800000 | (magnitude > 0x7c00 ? 0x400000u : 0u);
  const uint32_t bits = magnitude < 0x400 ? bits_of(subnormal) : magnitude >= 0x7c00 ? special : normal;
  return float_of(sign | bits);
}

}  // namespace oplus::OPLUS_TARGET
