// What a kernel may call: barriers, warp intrinsics, atomics, and CUDA's own arithmetic. Included by simt.h alone.
#pragma once

// ---- barriers and warp intrinsics ----------------------------------------------------------------
inline void __syncthreads(SIMT_AT) { simt::barrier(0, file, line); }
inline int __syncthreads_count(int p, SIMT_AT) { return simt::barrier(p != 0, file, line); }
inline int __syncthreads_or(int p, SIMT_AT) { return simt::barrier(p != 0, file, line) > 0; }
inline int __syncthreads_and(int p, SIMT_AT) { return simt::barrier(p == 0, file, line) == 0; }
inline void __syncwarp(unsigned mask = ~0u, SIMT_AT) { simt::collective(simt::Op::syncwarp, mask, 0, 0, 32, file, line); }
#define SIMT_SHUFFLE(name, op, ptype)                                                                                            \
  template <class T>                                                                                                             \
  SIMT_RT inline T name(unsigned mask, T v, ptype p, int width = 32, SIMT_AT) {                                                  \
    return simt::from_bits<T>(simt::collective(simt::Op::op, mask, simt::to_bits(v), unsigned(p), unsigned(width), file, line)); \
  }
SIMT_SHUFFLE(__shfl_sync, shfl_idx, int)
SIMT_SHUFFLE(__shfl_up_sync, shfl_up, unsigned)
SIMT_SHUFFLE(__shfl_down_sync, shfl_down, unsigned)
SIMT_SHUFFLE(__shfl_xor_sync, shfl_xor, int)
#undef SIMT_SHUFFLE
inline unsigned __ballot_sync(unsigned mask, int p, SIMT_AT) {
  return unsigned(simt::collective(simt::Op::ballot, mask, p != 0, 0, 32, file, line));
}
inline int __any_sync(unsigned mask, int p, SIMT_AT) {
  return int(simt::collective(simt::Op::any, mask, p != 0, 0, 32, file, line));
}
inline int __all_sync(unsigned mask, int p, SIMT_AT) {
  return int(simt::collective(simt::Op::all, mask, p != 0, 0, 32, file, line));
}
template <class T>
SIMT_RT inline unsigned __match_any_sync(unsigned mask, T v, SIMT_AT) {
  return unsigned(simt::collective(simt::Op::match_any, mask, simt::to_bits(v), 0, 32, file, line));
}
#define SIMT_REDUCE(name, type, op)                                                    \
  inline type name(unsigned mask, type v, SIMT_AT) {                                   \
    return type(simt::collective(simt::Op::op, mask, unsigned(v), 0, 32, file, line)); \
  }
SIMT_REDUCE(__reduce_add_sync, unsigned, add)
SIMT_REDUCE(__reduce_add_sync, int, add)
SIMT_REDUCE(__reduce_min_sync, unsigned, min_u)
SIMT_REDUCE(__reduce_max_sync, unsigned, max_u)
SIMT_REDUCE(__reduce_min_sync, int, min_s)
SIMT_REDUCE(__reduce_max_sync, int, max_s)
SIMT_REDUCE(__reduce_and_sync, unsigned, bit_and)
SIMT_REDUCE(__reduce_or_sync, unsigned, bit_or)
SIMT_REDUCE(__reduce_xor_sync, unsigned, bit_xor)
#undef SIMT_REDUCE
// __activemask() and __threadfence() are left out on purpose: the value of the first is not specified by the language, and
// the emulator could not tell whether the second is missing.

// ---- atomics (one OS thread: a plain read-modify-write is atomic) --------------------------------
#define SIMT_ATOMIC(name, expression)                                                   \
  template <class T>                                                                    \
  SIMT_RT __attribute__((noinline)) T name(T* p, std::common_type_t<T> v) {             \
    simt::interleave();                                                                 \
    simt::note_access(p, sizeof(T), simt::Access::atomic, __builtin_return_address(0)); \
    T old = *p;                                                                         \
    *p = (expression);                                                                  \
    return old;                                                                         \
  }
SIMT_ATOMIC(atomicAdd, T(old + v))
SIMT_ATOMIC(atomicSub, T(old - v))
SIMT_ATOMIC(atomicExch, v)
SIMT_ATOMIC(atomicMin, v < old ? v : old)
SIMT_ATOMIC(atomicMax, old < v ? v : old)
SIMT_ATOMIC(atomicAnd, T(old& v))
SIMT_ATOMIC(atomicOr, T(old | v))
SIMT_ATOMIC(atomicXor, T(old ^ v))
#undef SIMT_ATOMIC
template <class T>
SIMT_RT __attribute__((noinline)) T atomicCAS(T* p, std::common_type_t<T> expected, std::common_type_t<T> desired) {
  simt::interleave();
  simt::note_access(p, sizeof(T), simt::Access::atomic, __builtin_return_address(0));
  T old = *p;
  if (old == expected) *p = desired;
  return old;
}

// ---- hand-over between blocks of one launch: the only way that they may exchange data ------------
namespace gpu {
SIMT_RT __attribute__((noinline)) inline void store_release(unsigned* p, unsigned v) {
  simt::interleave();
  simt::note_access(p, 4, simt::Access::atomic, __builtin_return_address(0));
  simt::note_release(p);
  *p = v;
}
SIMT_RT __attribute__((noinline)) inline unsigned load_acquire(const unsigned* p) {
  simt::interleave();
  simt::note_access(p, 4, simt::Access::atomic, __builtin_return_address(0));
  simt::note_acquire(p);
  return *p;
}
// What native/cuda/gpu.h says of it; orders like an acquiring and releasing read-modify-write.
SIMT_RT __attribute__((noinline)) inline bool arrive(unsigned* p, unsigned expected) {
  simt::interleave();
  simt::note_access(p, 4, simt::Access::atomic, __builtin_return_address(0));
  simt::note_acquire(p);
  simt::note_release(p);
  const bool last = *p + 1 == expected;
  *p = last ? 0 : *p + 1;
  return last;
}
inline void spin_wait() { simt::spin_wait(); }  // in every loop that waits for another block
}  // namespace gpu

// ---- loads, bits and arithmetic ------------------------------------------------------------------
template <class T>
SIMT_RT inline T __ldg(const T* p) {
  simt::note_access(p, sizeof(T), simt::Access::read_only, __builtin_return_address(0));
  return *p;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __float_as_uint(float f) { return simt::from_bits<unsigned>(simt::to_bits(f)); }
inline float __uint_as_float(unsigned u) { return simt::from_bits<float>(u); }
inline int __float_as_int(float f) { return int(__float_as_uint(f)); }
inline float __int_as_float(int i) { return __uint_as_float(unsigned(i)); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double sinpi(double x) { return std::sin(3.14159265358979323846 * std::remainder(x, 2.0)); }
inline double cospi(double x) { return std::cos(3.14159265358979323846 * std::remainder(x, 2.0)); }
inline float __fmul_rn(float a, float b) { return a * b; }  // never fused; nor is anything here, which is built without FMA
// glibc declares __expf and friends with C linkage, so these have to be macros.
#define __expf(x) (::expf(x))
#define __logf(x) (::logf(x))
#define SIMT_MINMAX(T)                             \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
SIMT_MINMAX(int)
SIMT_MINMAX(unsigned)
SIMT_MINMAX(long)
SIMT_MINMAX(unsigned long)
SIMT_MINMAX(long long)
SIMT_MINMAX(unsigned long long)
#undef SIMT_MINMAX
namespace gpu {
SIMT_RT inline float widen_half(uint16_t x) {
  const uint32_t sign = (x & 0x8000u) << 16, magnitude = x & 0x7fffu;
  if (magnitude < 0x400) return (sign ? -0x1p-24f : 0x1p-24f) * static_cast<float>(magnitude);
  return __uint_as_float(sign | ((magnitude << 13) + (magnitude < 0x7c00 ? 112u << 23 : 224u << 23)));
}
// By its neighbours: the bits below are rounded to the nearest of two halves, the even one where both are as near.
SIMT_RT inline uint16_t narrow_half(float x) {
  const uint32_t bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  const float size = std::fabs(x);
  const int exponent = magnitude < 0x38800000u ? -14 : int(magnitude >> 23) - 127;
  const auto steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  return static_cast<uint16_t>(sign | ((static_cast<uint32_t>(exponent + 14) << 10) + steps));
}
}  // namespace gpu
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
